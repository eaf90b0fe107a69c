"""Baselines of all cohorts in one process: for a backtest, and as the shape of what Redis keeps."""

from collections.abc import Sequence
from operator import is_not
from typing import Final

from workers.detection.baseline import EMPTY, Baseline, Lesson, Sheet, fit, sheet_of
from workers.detection.ladder import Ladder
from workers.detection.usual import LEAST_CALLS

_FRESH: Final = 1.15
"""A baseline is made anew when its cohort has so many times the calls."""


class Memory:
    """Sheets by cohort, and the baselines made of them."""

    def __init__(self) -> None:
        self.sheets: dict[str, dict[int, Sheet]] = {}
        self._fitted: dict[str, tuple[Baseline, int]] = {}
        self._calls: dict[str, int] = {}
        self._ladders: dict[str, Ladder] = {}

    def ladder(self, names: Sequence[str], day: int) -> Ladder:
        """The baselines of a call's cohorts, for judging it on that day."""
        baselines = [self._baseline(name, day) for name in names]
        ladder = self._ladders.get(names[0])
        if ladder is None or any(map(is_not, ladder.baselines, baselines)):
            ladder = self._ladders[names[0]] = Ladder(baselines)
        return ladder

    def learn(self, lesson: Lesson, *, strange: bool = False) -> None:
        """Every cohort of the call learns from it.

        Of a strange one only those that have no say yet.
        """
        number = sheet_of(lesson.day)
        for name in lesson.ladder:
            if strange and self._calls.get(name, 0) >= LEAST_CALLS:
                continue
            sheets = self.sheets.get(name)
            if sheets is None:
                sheets = self.sheets[name] = {}
            sheet = sheets.get(number)
            if sheet is None:
                sheet = sheets[number] = Sheet()
                for old in [each for each in sheets if each < number - 1]:
                    del sheets[old]
            sheet.learn(lesson)
            self._calls[name] = self._calls.get(name, 0) + 1
            fitted = self._fitted.get(name)
            if fitted is not None and any(t not in fitted[0].traits for t in lesson.traits):
                del self._fitted[name]

    def _baseline(self, name: str, day: int) -> Baseline:
        calls = self._calls.get(name, 0)
        if not calls:
            return EMPTY
        fitted = self._fitted.get(name)
        if fitted is not None and calls < fitted[1]:
            return fitted[0]
        baseline = fit(name, self.sheets[name], day)
        self._fitted[name] = baseline, max(calls + 1, int(calls * _FRESH))
        return baseline
