"""Baselines of all cohorts in one process: for a backtest, and as the model of what Redis keeps."""

from collections.abc import Sequence
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


class Memory:
    """Sheets and evidence by cohort, and the baselines made of them."""

    def __init__(self) -> None:
        self.sheets: dict[str, dict[int, Sheet]] = {}
        self.strange: dict[str, dict[str, Evidence]] = {}
        self._waiting: dict[str, list[Heap]] = {}
        """Lessons that are counted when a baseline is next made: together they cost less."""
        self._heaps: dict[tuple[str, ...], Heap] = {}
        """The newest of them by the cohorts that learn from it."""
        self._fitted: dict[str, tuple[Baseline, int, int]] = {}
        """With the number of calls, and the day, from which on it is made anew."""
        self._calls: dict[str, int] = {}
        self._ladders: dict[str, Ladder] = {}

    def begin_with(self, name: str, sheets: dict[int, Sheet], strange: dict[str, Evidence]) -> None:
        """What was learned elsewhere of a cohort of which nothing is known here."""
        if sheets:
            self.sheets[name] = sheets
            self._calls[name] = sum(sheet.calls for sheet in sheets.values())
        if strange:
            self.strange[name] = strange

    def ladder(self, names: Sequence[str], day: int) -> Ladder:
        """The baselines of a call's cohorts, for judging it on that day."""
        baselines = [self._baseline(name, day) for name in names]
        ladder = self._ladders.get(names[0])
        if ladder is None or any(map(is_not, ladder.baselines, baselines)):
            ladder = self._ladders[names[0]] = Ladder(baselines)
        return ladder

    def learn(self, lesson: Lesson, *, strange: bool = False) -> None:
        """Every cohort of the call learns from it; of a strange one those without a say yet."""
        names = lesson.ladder
        if strange:
            names = tuple([name for name in names if self._calls.get(name, 0) < LEAST_CALLS])
            if not names:
                return
        heap = self._heaps.get(names)
        if heap is None or heap.day != lesson.day or not heap.is_open:
            heap = self._heaps[names] = Heap(lesson.day, names=names)
            for name in names:
                self._waiting.setdefault(name, []).append(heap)
        heap.lessons.append(lesson)
        for name in names:
            self._calls[name] = self._calls.get(name, 0) + 1
            fitted = self._fitted.get(name)
            # What was never seen must be known at once, or it would be new again.
            if fitted is not None and not fitted[0].traits.keys() >= lesson.traits:
                del self._fitted[name]

    def keep_apart(self, opinion: Opinion, hour: int) -> None:
        """Counts what was strange as evidence of a change."""
        for cohort, cause in opinion.causes:
            value = opinion.measured.values.get(cause)
            bucket = bucket_of(value) if value is not None else None
            evidence = self.strange.setdefault(cohort, {}).setdefault(cause, Evidence())
            evidence.add(hour, bucket)
            self._fitted.pop(cohort, None)

    def _baseline(self, name: str, day: int) -> Baseline:
        calls = self._calls.get(name, 0)
        if not calls:
            return EMPTY
        fitted = self._fitted.get(name)
        if fitted is not None and calls < fitted[1] and day < fitted[2]:
            return fitted[0]
        self._count(name)
        baseline = fit(name, self.sheets[name], self.strange.get(name, {}), day)
        self._fitted[name] = baseline, max(calls + 1, int(calls * _FRESH)), day + _DAYS
        return baseline

    def _count(self, name: str) -> None:
        """Puts the lessons that wait on their sheets; those too old to be read are dropped."""
        sheets = self.sheets.setdefault(name, {})
        for heap in self._waiting.pop(name, ()):
            # Once it was counted nothing is laid upon it any more.
            if self._heaps.get(heap.names) is heap:
                del self._heaps[heap.names]
            sheets.setdefault(sheet_of(heap.day), Sheet()).learn(heap)
        latest = max(sheets)
        for old in [number for number in sheets if number < latest - 1]:
            del sheets[old]
