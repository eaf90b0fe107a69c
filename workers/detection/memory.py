"""Baselines of all cohorts in one process: for a backtest, and as the model of what Redis keeps."""

from dataclasses import dataclass, field
from operator import is_not
from typing import Final

from workers.detection.baseline import EMPTY, Baseline, Heap, Lesson, Sheet, fit, sheet_of
from workers.detection.ladder import Ladder
from workers.detection.lasting import Evidence
from workers.detection.leaning import LEAST_CALLS
from workers.detection.opinion import Opinion
from workers.detection.sketch import bucket_of

_FRESH: Final = 1.3
"""A baseline is made anew when its cohort has so many times the calls, or after some days."""
_DAYS: Final = 3


@dataclass(slots=True)
class _Cohort:
    """What is known of one cohort."""

    name: str
    calls: int = 0
    sheets: dict[int, Sheet] = field(default_factory=dict)
    strange: dict[str, Evidence] = field(default_factory=dict)
    waiting: list[Heap] = field(default_factory=list)
    """Lessons that are counted when the baseline is next made: together they cost less."""
    baseline: Baseline = EMPTY
    until_calls: int = 0
    """From so many calls on the baseline is made anew,"""
    until_day: int = 0
    """and from that day on."""


class Memory:
    """Sheets and evidence by cohort, and the baselines made of them."""

    def __init__(self) -> None:
        self._cohorts: dict[str, _Cohort] = {}
        self._groups: dict[tuple[str, ...], tuple[_Cohort, ...]] = {}
        """Those of the same names, as calls come with."""
        self._heaps: dict[tuple[str, ...], Heap] = {}
        """The newest of the lessons that wait, by the cohorts that learn from them."""
        self._ladders: dict[str, Ladder] = {}

    def sheets(self) -> dict[str, dict[int, Sheet]]:
        """By cohort, of all that have learned; what waits is counted first."""
        for cohort in self._cohorts.values():
            self._count(cohort)
        return {name: cohort.sheets for name, cohort in self._cohorts.items() if cohort.sheets}

    def strange(self) -> dict[str, dict[str, Evidence]]:
        """By cohort and cause, what was kept out of the sheets."""
        return {name: cohort.strange for name, cohort in self._cohorts.items() if cohort.strange}

    def calls(self, name: str) -> int:
        """From how many calls a cohort has learned."""
        cohort = self._cohorts.get(name)
        return cohort.calls if cohort else 0

    def begin_with(self, name: str, sheets: dict[int, Sheet], strange: dict[str, Evidence]) -> None:
        """What was learned elsewhere of a cohort of which nothing is known here."""
        cohort = self._cohort(name)
        cohort.sheets, cohort.strange = sheets, strange
        cohort.calls = sum(sheet.calls for sheet in sheets.values())

    def ladder(self, names: tuple[str, ...], day: int) -> Ladder:
        """The baselines of a call's cohorts, for judging it on that day."""
        baselines = [
            cohort.baseline
            if cohort.calls < cohort.until_calls and day < cohort.until_day
            else self._made(cohort, day)
            for cohort in self._group(names)
        ]
        ladder = self._ladders.get(names[0])
        if ladder is None or any(map(is_not, ladder.baselines, baselines)):
            ladder = self._ladders[names[0]] = Ladder(baselines)
        return ladder

    def learn(self, lesson: Lesson, *, strange: bool = False) -> None:
        """Every cohort of the call learns from it; of a strange one those without a say yet."""
        names = lesson.ladder
        if strange:
            names = tuple([each.name for each in self._group(names) if each.calls < LEAST_CALLS])
            if not names:
                return
        cohorts = self._group(names)
        heap = self._heaps.get(names)
        if heap is None or heap.day != lesson.day or not heap.is_open:
            heap = self._heaps[names] = Heap(lesson.day, names=names)
            for cohort in cohorts:
                cohort.waiting.append(heap)
        heap.lessons.append(lesson)
        traits = lesson.traits
        for cohort in cohorts:
            cohort.calls += 1
            # What was never seen must be known at once, or it would be new again.
            if not traits <= cohort.baseline.traits.keys():
                cohort.until_calls = 0

    def keep_apart(self, opinion: Opinion, hour: int) -> None:
        """Counts what was strange as evidence of a change."""
        for name, cause in opinion.causes:
            value = opinion.measured.values.get(cause)
            self.evidence(name, cause).add(hour, bucket_of(value) if value is not None else None)
            self._cohort(name).until_calls = 0

    def evidence(self, name: str, cause: str) -> Evidence:
        """What a cohort has of a cause, to be added to."""
        return self._cohort(name).strange.setdefault(cause, Evidence())

    def _cohort(self, name: str) -> _Cohort:
        cohort = self._cohorts.get(name)
        if cohort is None:
            cohort = self._cohorts[name] = _Cohort(name)
        return cohort

    def _group(self, names: tuple[str, ...]) -> tuple[_Cohort, ...]:
        group = self._groups.get(names)
        if group is None:
            group = self._groups[names] = tuple([self._cohort(name) for name in names])
        return group

    def _made(self, cohort: _Cohort, day: int) -> Baseline:
        if not cohort.calls:
            return EMPTY
        self._count(cohort)
        cohort.baseline = fit(cohort.name, cohort.sheets, cohort.strange, day)
        cohort.until_calls = max(cohort.calls + 1, int(cohort.calls * _FRESH))
        cohort.until_day = day + _DAYS
        return cohort.baseline

    def _count(self, cohort: _Cohort) -> None:
        """Puts the lessons that wait on their sheets; those too old to be read are dropped."""
        sheets = cohort.sheets
        for heap in cohort.waiting:
            # Once it was counted nothing is laid upon it any more.
            if self._heaps.get(heap.names) is heap:
                del self._heaps[heap.names]
            sheets.setdefault(sheet_of(heap.day), Sheet()).learn(heap)
        cohort.waiting.clear()
        latest = max(sheets, default=0)
        for old in [number for number in sheets if number < latest - 1]:
            del sheets[old]
