"""The alternatives for surges and drops: detectors of call counts per five minutes. Pure, causal.

Each gives two scores a step, one for too many and one for too few; a series of steps above a
threshold is one finding.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tests.bench.detection.features import Session
from tests.bench.detection.timeline import ACCOUNT, Alert

STEP_SECONDS: Final = 300.0
_STEPS_PER_HOUR: Final = 12
_STEPS_PER_DAY: Final = 24 * _STEPS_PER_HOUR
_QUIET_SECONDS: Final = 3600.0
"""So long below the threshold ends a finding."""
_LEAST_CALLS: Final = 60
"""Cohorts with fewer calls in the month have no series of their own."""
_LEAST_VARIANCE: Final = 0.1


class Counter(Protocol):
    """A detector of one series of counts."""

    def scores(self, counts: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Too many, too few: of each step, by what came before it."""


@dataclass(slots=True)
class Seasons:
    """What a step usually is at its hour of the week.

    In the first week, at that hour of all workdays or weekends; months begin on a Monday.
    """

    _of_week: list[tuple[int, float]] = field(default_factory=lambda: [(0, 0.0)] * 168)
    _of_day: list[tuple[int, float]] = field(default_factory=lambda: [(0, 0.0)] * 48)

    def mean(self, step: int) -> float | None:
        """Calls per step; None before there is a day of history."""
        for table, place in self._places(step):
            count, total = table[place]
            if count >= _STEPS_PER_HOUR:
                return total / count
        return None

    def learn(self, step: int, count: int) -> None:
        """Counts a step in."""
        for table, place in self._places(step):
            seen, total = table[place]
            table[place] = (seen + 1, total + count)

    def _places(self, step: int) -> tuple[tuple[list[tuple[int, float]], int], ...]:
        hour = step // _STEPS_PER_HOUR % 168
        is_weekend = hour >= 5 * 24
        return (self._of_week, hour), (self._of_day, hour % 24 + 24 * is_weekend)


class HourOfWeek:
    """Standard deviations from the mean of the hour of the week; too few, over two hours."""

    _DROP_STEPS: Final = 2 * _STEPS_PER_HOUR

    def scores(self, counts: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Of each step."""
        seasons = Seasons()
        recent: deque[tuple[int, float]] = deque(maxlen=self._DROP_STEPS)
        for step, count in enumerate(counts):
            mean = seasons.mean(step)
            if mean is None:
                recent.clear()
                yield 0.0, 0.0
            else:
                recent.append((count, mean))
                came, usual = (sum(column) for column in zip(*recent, strict=True))
                is_full = len(recent) == self._DROP_STEPS
                yield _deviation(count, mean), -_deviation(came, usual) if is_full else 0.0
            seasons.learn(step, count)


class Ewma:
    """A quick average against a slow one, in standard deviations; too few, over about an hour."""

    _QUICK: Final = 2 / (3 + 1)
    _HOUR: Final = 2 / (_STEPS_PER_HOUR + 1)
    _SLOW: Final = 2 / (_STEPS_PER_DAY + 1)

    def scores(self, counts: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Of each step."""
        quick = hour = slow = float(counts[0]) if counts else 0.0
        for step, count in enumerate(counts):
            quick += self._QUICK * (count - quick)
            hour += self._HOUR * (count - hour)
            width = math.sqrt(max(slow, _LEAST_VARIANCE))
            many = (quick - slow) / (width * math.sqrt(self._QUICK))
            few = (slow - hour) / (width * math.sqrt(self._HOUR))
            yield (many, few) if step >= _STEPS_PER_DAY else (0.0, 0.0)
            slow += self._SLOW * (count - slow)


class Cusum:
    """Sums of what is above, and of what is below, the usual of the hour of the week."""

    _SLACK: Final = 0.5

    def scores(self, counts: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Of each step."""
        seasons = Seasons()
        above = below = 0.0
        for step, count in enumerate(counts):
            mean = seasons.mean(step)
            if mean is not None:
                deviation = _deviation(count, mean)
                above = max(0.0, min(above, 50.0) + deviation - self._SLACK)
                below = max(0.0, min(below, 50.0) - deviation - self._SLACK * math.sqrt(mean))
            yield above, below
            seasons.learn(step, count)


COUNTERS: Final[Mapping[str, Callable[[], Counter]]] = {
    "mean + 3σ, hour of week": HourOfWeek,
    "EWMA": Ewma,
    "CUSUM, hour of week": Cusum,
}


@dataclass(frozen=True, slots=True)
class Step:
    """A score at the end of a step, of one series."""

    kind: str
    cohort: str
    end: float
    score: float


def steps(
    sessions: Sequence[Session], counter: Callable[[], Counter], begin: float, *, above: float = 0.0
) -> list[Step]:
    """The steps of the account and of each cohort that score above so much."""
    found = []
    for cohort, ends in _series(sessions).items():
        counts = _counts(ends, begin)
        for number, (many, few) in enumerate(counter().scores(counts)):
            end = begin + (number + 1) * STEP_SECONDS
            found += [
                Step(kind, cohort, end, score)
                for kind, score in (("velocity", many), ("drop", few))
                if score > above
            ]
    return found


def findings(steps: Iterable[Step], thresholds: Mapping[str, float]) -> list[Alert]:
    """Steps above the threshold of their kind; those near each other are one finding."""
    open_: dict[tuple[str, str], Alert] = {}
    closed: list[Alert] = []
    for step in steps:
        if step.score <= thresholds[step.kind]:
            continue
        key = (step.kind, step.cohort)
        last = open_.get(key)
        if last is not None and step.end - last.end <= _QUIET_SECONDS:
            score = max(last.score, step.score)
            open_[key] = Alert(step.kind, last.at, last.start, step.end, score, step.cohort)
            continue
        if last is not None:
            closed.append(last)
        start = step.end - STEP_SECONDS
        open_[key] = Alert(step.kind, step.end, start, step.end, step.score, step.cohort)
    return [*closed, *open_.values()]


def _series(sessions: Sequence[Session]) -> dict[str, list[float]]:
    by_cohort: defaultdict[str, list[float]] = defaultdict(list)
    for session in sessions:
        by_cohort[session.cohort].append(session.ended)
    large = {cohort: ends for cohort, ends in by_cohort.items() if len(ends) >= _LEAST_CALLS}
    return {ACCOUNT: [session.ended for session in sessions], **large}


def _counts(ends: Sequence[float], begin: float) -> list[int]:
    counts = [0] * (int((ends[-1] - begin) // STEP_SECONDS) + 1)
    for end in ends:
        counts[int((end - begin) // STEP_SECONDS)] += 1
    return counts


def _deviation(count: float, mean: float) -> float:
    """In standard deviations of a Poisson count."""
    return (count - mean) / math.sqrt(max(mean, _LEAST_VARIANCE))
