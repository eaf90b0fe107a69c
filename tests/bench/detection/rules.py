"""The alternatives that are a few lines each: causal, per assistant or connection, no libraries.

Each scores a session by what it saw before, and then learns from it: anomalies too, since nobody
tells it. An unanswered call costs nothing, says nothing and is left out.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Protocol

from tests.bench.detection.features import FEATURES, Session

DAY: Final = 86_400.0
LEAST_HISTORY: Final = 30
"""Calls of a cohort before it is used; until then the whole account stands for it."""
_NARROWEST: Final = 0.05
"""No band is narrower than this share of its centre: equal costs have no spread."""
_SMALLEST: Final = 1e-4
_REFRESHED_EVERY: Final = 10


class Detector(Protocol):
    """A detector of strange sessions: higher scores are stranger."""

    name: str

    def scores(self, sessions: Sequence[Session]) -> list[float]:
        """What it thinks of each session of a month, by what came before it."""


class TelnyxExample:
    """Twice a baseline set by hand, or any call above a dollar.

    The hand looked at the first day: its mean cost per call.
    """

    name = "Telnyx's example"
    own_threshold: Final = 1.0
    """From here on the example itself would alert."""

    def __init__(self) -> None:
        self._first_day: list[float] = []
        self._until: float | None = None

    def scores(self, sessions: Sequence[Session]) -> list[float]:
        """Of each session, in order."""
        return [self._score(session) for session in sessions]

    def _score(self, session: Session) -> float:
        """In times the limit."""
        if self._until is None:
            self._until = session.ended + DAY
        if session.ended < self._until:
            self._first_day.append(session.total)
        baseline = max(fmean(self._first_day), _SMALLEST)
        return max(session.total / (2 * baseline), session.total / 1.0)


class Model(Protocol):
    """What one cohort's or account's past says of a call's measures."""

    @property
    def count(self) -> int:
        """How many calls it has seen."""

    def distance(self, values: Sequence[float]) -> float:
        """How far off they are."""

    def learn(self, values: Sequence[float]) -> None:
        """Counts them in."""


class PerCohort:
    """One model per cohort, and (unless `alone`) the account's for cohorts with a short past."""

    def __init__(self, name: str, model: Callable[[], Model], *, alone: bool = False) -> None:
        self.name = name
        self._model = model
        self._alone = alone
        self._account = model()
        self._cohorts: dict[str, Model] = {}

    def scores(self, sessions: Sequence[Session]) -> list[float]:
        """Of each session, in order; 0 where there is too short a past."""
        return [self._score(session) if session.answered else 0.0 for session in sessions]

    def _score(self, session: Session) -> float:
        own = self._cohorts.setdefault(session.cohort, self._model())
        used = own if self._alone or own.count >= LEAST_HISTORY else self._account
        distance = used.distance(session.values) if used.count >= LEAST_HISTORY else 0.0
        own.learn(session.values)
        self._account.learn(session.values)
        return distance


@dataclass(slots=True)
class MeanSigma:
    """Distances in standard deviations from the mean of all the past; the largest counts."""

    count: int = 0
    _means: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))
    _squares: list[float] = field(default_factory=lambda: [0.0] * len(FEATURES))

    def distance(self, values: Sequence[float]) -> float:
        """The largest of all measures."""
        return max(
            abs(value - mean) / _width(math.sqrt(square / self.count), mean)
            for value, mean, square in zip(values, self._means, self._squares, strict=True)
        )

    def learn(self, values: Sequence[float]) -> None:
        """Welford's update."""
        self.count += 1
        for place, value in enumerate(values):
            before = value - self._means[place]
            self._means[place] += before / self.count
            self._squares[place] += before * (value - self._means[place])


@dataclass(slots=True)
class LogMeanSigma(MeanSigma):
    """The same of logarithms, since durations and costs are skewed."""

    def distance(self, values: Sequence[float]) -> float:
        """The largest of all measures."""
        return MeanSigma.distance(self, logs(values))

    def distances(self, values: Sequence[float]) -> list[float]:
        """Of each measure, with its sign."""
        return [
            (value - mean) / _width(math.sqrt(square / self.count), mean)
            for value, mean, square in zip(logs(values), self._means, self._squares, strict=True)
        ]

    def learn(self, values: Sequence[float]) -> None:
        """Welford's update."""
        MeanSigma.learn(self, logs(values))


@dataclass(slots=True)
class Window:
    """The last so many values of each measure, also in ascending order."""

    size: int
    count: int = 0
    _recent: deque[tuple[float, ...]] = field(default_factory=deque)
    _sorted: list[list[float]] = field(default_factory=lambda: [[] for _ in FEATURES])

    def add(self, values: Sequence[float]) -> None:
        """Takes the values in, and lets the oldest go."""
        self.count += 1
        self._recent.append(tuple(values))
        for ascending, value in zip(self._sorted, values, strict=True):
            insort(ascending, value)
        if len(self._recent) > self.size:
            for ascending, value in zip(self._sorted, self._recent.popleft(), strict=True):
                del ascending[bisect_left(ascending, value)]

    def quantiles(self, share: float) -> list[float]:
        """Of each measure."""
        return [ascending[int(share * (len(ascending) - 1))] for ascending in self._sorted]

    def deviations(self, centres: Sequence[float]) -> list[float]:
        """The median absolute deviation from each centre."""
        middle = len(self._recent) // 2
        return [
            sorted(abs(value - centre) for value in ascending)[middle]
            for ascending, centre in zip(self._sorted, centres, strict=True)
        ]


class MedianMad:
    """Distances from the median of the last calls, in median absolute deviations, of logarithms."""

    _OF_A_NORMAL: Final = 1.4826
    _NARROWEST: Final = 0.25
    """Of logarithms. Where most calls have one rate, the median deviation is zero."""

    def __init__(self, size: int = 400) -> None:
        self._window = Window(size)
        self._bands: list[tuple[float, float]] = []

    @property
    def count(self) -> int:
        """How many calls it has seen."""
        return self._window.count

    def distance(self, values: Sequence[float]) -> float:
        """The largest of all measures."""
        return max(
            abs(value - centre) / width
            for value, (centre, width) in zip(logs(values), self._bands, strict=True)
        )

    def learn(self, values: Sequence[float]) -> None:
        """Takes the call in; the bands follow every few calls."""
        self._window.add(logs(values))
        if self.count % _REFRESHED_EVERY == 0:
            centres = self._window.quantiles(0.5)
            deviations = self._window.deviations(centres)
            self._bands = [
                (centre, max(self._OF_A_NORMAL * deviation, self._NARROWEST))
                for centre, deviation in zip(centres, deviations, strict=True)
            ]


class RollingQuantile:
    """How far beyond the outer half percent of the last calls, as a factor."""

    def __init__(self, size: int = 1000, share: float = 0.995) -> None:
        self._window = Window(size)
        self._share = share
        self._bounds: list[tuple[float, float]] = []

    @property
    def count(self) -> int:
        """How many calls it has seen."""
        return self._window.count

    def distance(self, values: Sequence[float]) -> float:
        """The logarithm of the largest factor; negative within the bounds."""
        return max(
            max(low - value, value - high)
            for value, (low, high) in zip(logs(values), self._bounds, strict=True)
        )

    def learn(self, values: Sequence[float]) -> None:
        """Takes the call in; the bounds follow every few calls."""
        self._window.add(logs(values))
        if self.count % _REFRESHED_EVERY == 0:
            lows = self._window.quantiles(1 - self._share)
            highs = self._window.quantiles(self._share)
            self._bounds = list(zip(lows, highs, strict=True))


def simple() -> list[Detector]:
    """Fresh ones, for one customer's month."""
    return [
        TelnyxExample(),
        PerCohort("mean + 3σ", MeanSigma),
        PerCohort("mean + 3σ of logs", LogMeanSigma),
        # A median of assistants says nothing of a trunk: any call of it would be far off.
        PerCohort("median/MAD", MedianMad, alone=True),
        PerCohort("rolling quantile", RollingQuantile),
    ]


def _width(spread: float, centre: float) -> float:
    return max(spread, _NARROWEST * abs(centre), _SMALLEST)


def logs(values: Sequence[float]) -> list[float]:
    """Logarithms, of zero as well."""
    return [math.log(_SMALLEST + value) for value in values]
