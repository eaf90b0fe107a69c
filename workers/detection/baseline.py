"""What has been learned of a cohort, and what is usual by it.

A `Sheet` is the raw memory of one cohort over four weeks: nothing but integers that are added up,
so that any number of workers write it in any order. A day's calls weigh twice as much as those of
the week before: later days are added with greater weights, and nothing has to be rewritten. A
`Baseline` is what the current sheet and the one before say together.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from statistics import NormalDist
from typing import Final, TypeVar

import msgspec

from workers.detection.lasting import Evidence, is_lasting
from workers.detection.measure import RATE, Measured
from workers.detection.sketch import buckets_of, log_middle_of, quantiles

DAYS: Final = 28
"""Days of a sheet."""
DAY_MS: Final = 86_400_000
K = TypeVar("K", str, int)
HALF_LIFE_DAYS: Final = 7
_FIRST_WEIGHT: Final = 16

_SHARES: Final = (0.05, 0.5, 0.99)
_NORMAL: Final = NormalDist()
_FAR: Final = 0.1
"""What more calls than this share reach says little of how far the rest goes."""
_FAR_Z: Final = _NORMAL.inv_cdf(1 - _FAR)
_LEAST_BEYOND: Final = 2.0
"""A value is only believed with so many calls at or beyond it."""
NARROWEST: Final = 0.06
"""No spread is taken for less, as a natural logarithm: a cost that never varied may vary a bit."""


def sheet_of(day: int) -> int:
    """The number of the sheet on which a day's calls are counted."""
    return day // DAYS


def weight_of(day: int) -> int:
    """How much a call of that day counts on its sheet."""
    return round(_FIRST_WEIGHT * 2 ** (day % DAYS / HALF_LIFE_DAYS))


def scale_of(sheet: int, day: int) -> float:
    """What turns a sheet's weights into calls of today."""
    # A sheet of the future, by a clock that was wrong, counts as today's.
    return 2 ** (min(0, sheet * DAYS - day) / HALF_LIFE_DAYS) / _FIRST_WEIGHT


@dataclass(slots=True)
class Sheet:
    """The raw memory of one cohort over four weeks. All numbers are sums."""

    calls: int = 0
    days: dict[int, int] = field(default_factory=dict)
    """Calls by day, counted from 1970."""
    sketches: dict[str, dict[int, int]] = field(default_factory=dict)
    """By measure: weights by bucket."""
    traits: dict[str, int] = field(default_factory=dict)
    """In how many calls they occurred."""

    def learn(self, heap: "Heap") -> None:
        """Add what calls of a day teach, which must be one of the sheet's."""
        self.calls += len(heap.lessons)
        self.days[heap.day] = self.days.get(heap.day, 0) + len(heap.lessons)
        weight, sketches = weight_of(heap.day), self.sketches
        for (name, bucket), calls in heap.buckets.items():
            counts = sketches.get(name)
            if counts is None:
                counts = sketches[name] = {}
            counts[bucket] = counts.get(bucket, 0) + calls * weight
        for trait, calls in heap.traits.items():
            self.traits[trait] = self.traits.get(trait, 0) + calls


class Lesson(msgspec.Struct, frozen=True, gc=False):
    """What one call teaches each of its cohorts."""

    ladder: tuple[str, ...]
    day: int
    buckets: tuple[tuple[str, int], ...]
    traits: frozenset[str]


@dataclass(slots=True)
class Heap:
    """Lessons of one day. They are counted once, however many cohorts learn them.

    So none may be laid upon it after that.
    """

    day: int
    lessons: list[Lesson] = field(default_factory=list)
    names: tuple[str, ...] = ()
    """The cohorts that learn them."""
    _counted: tuple[Mapping[tuple[str, int], int], Mapping[str, int]] | None = None

    @property
    def is_open(self) -> bool:
        """Whether more may be laid upon it."""
        return self._counted is None

    @property
    def buckets(self) -> Mapping[tuple[str, int], int]:
        """In how many calls a measure was in a bucket."""
        return self._count()[0]

    @property
    def traits(self) -> Mapping[str, int]:
        """In how many calls a trait occurred."""
        return self._count()[1]

    def _count(self) -> tuple[Mapping[tuple[str, int], int], Mapping[str, int]]:
        if self._counted is None:
            self._counted = (
                Counter(chain.from_iterable([lesson.buckets for lesson in self.lessons])),
                Counter(chain.from_iterable([lesson.traits for lesson in self.lessons])),
            )
        return self._counted


def lesson_of(measured: Measured, ended_ms: int) -> Lesson:
    """What a call that ended then teaches."""
    return Lesson(
        ladder=measured.ladder,
        day=ended_ms // DAY_MS,
        buckets=tuple(buckets_of(measured.values)),
        traits=frozenset(measured.traits),
    )


class Spread(msgspec.Struct, frozen=True, gc=False):
    """How one measure is spread over a cohort's calls; in natural logarithms.

    Costs and durations are skewed and positive, so they are taken as log-normal, but with the
    widest spread that any of the upper quantiles tells: a tail that is longer makes it wider.
    """

    calls: float
    """So many calls of today it was learned from: older ones count for less."""
    middle: float
    deviation: float
    """Of the upper half; 0 where too few calls tell."""
    low: float
    high: float
    """99 % are below."""


_NONE: Final[dict[int, int]] = {}


class Spreads(Mapping[str, Spread]):
    """The spreads of a cohort's measures, each made when it is first asked for: few ever are."""

    def __init__(
        self, sheets: Mapping[int, Sheet], lasting: Mapping[str, Evidence], today: int
    ) -> None:
        """`lasting`: what was kept out of the sheets and counts all the same, by measure."""
        self._sketches = [
            (sheet.sketches, scale_of(number, today)) for number, sheet in sheets.items()
        ]
        self._lasting = lasting
        self._made: dict[str, Spread | None] = {}

    def __getitem__(self, measure: str) -> Spread:
        found = self.find(measure)
        if found is None:
            raise KeyError(measure)
        return found

    def find(self, measure: str) -> Spread | None:
        """The spread of a measure; None where it is not known."""
        if measure in self._made:
            return self._made[measure]
        counts = self._counts(measure)
        made = self._made[measure] = spread_of(counts) if counts else None
        return made

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(name for sketches, _ in self._sketches for name in sketches)
        return (name for name in names if self.find(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _counts(self, measure: str) -> dict[int, float]:
        counts: dict[int, float] = {}
        for sketches, scale in self._sketches:
            for bucket, weight in sketches.get(measure, _NONE).items():
                if weight > 0:
                    counts[bucket] = counts.get(bucket, 0.0) + weight * scale
        if measure in self._lasting:
            for bucket, calls in self._lasting[measure].buckets.items():
                counts[bucket] = counts.get(bucket, 0.0) + calls
        return counts


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is usual in one cohort."""

    cohort: str
    calls: int
    days: int
    """Over how many days, the first and the last included."""
    spreads: Spreads
    traits: Mapping[str, int]
    once: Mapping[str, int]
    """By group of traits: how many of them occurred in one call only."""
    changes: tuple[str, ...] = ()
    """What was strange and has become usual: measures and traits."""


EMPTY: Final = Baseline("", 0, 0, Spreads({}, {}, 0), {}, {})


def fit(
    cohort: str, sheets: Mapping[int, Sheet], strange: Mapping[str, Evidence], today: int
) -> Baseline:
    """What the sheets say on a day. `strange` is what was kept out of them, by its cause."""
    kept = {number: sheet for number, sheet in sheets.items() if sheet.calls > 0}
    if not kept:
        return EMPTY
    days = _added(sheet.days for sheet in kept.values())
    lasting = {cause: each for cause, each in strange.items() if is_lasting(each, days)}
    learned = _added(sheet.traits for sheet in kept.values())
    known = {
        cause: each.calls
        for cause, each in strange.items()
        if cause in lasting or group_of(cause) in TOLD_ONCE
    }
    seen = list(days)
    return Baseline(
        cohort=cohort,
        calls=sum(sheet.calls for sheet in kept.values()),
        days=max(seen) - min(seen) + 1 if seen else 0,
        spreads=Spreads(kept, lasting, today),
        traits=_added([learned, known]),
        once=_once(learned),
        changes=tuple(lasting),
    )


def spread_of(counts: Mapping[int, float]) -> Spread:
    """The spread of a sketch with at least one value; weights in calls of today."""
    if len(counts) == 1:  # As many are: what costs the same in each call.
        ((bucket, calls),) = counts.items()
        middle = log_middle_of(bucket)
        return Spread(calls, middle, 0.0, middle, middle)
    calls = math.fsum(counts.values())
    low, middle, high = quantiles(counts, _SHARES)
    return Spread(calls, middle, _widest(counts, calls, middle), low, high)


def _widest(counts: Mapping[int, float], calls: float, middle: float) -> float:
    """The deviation of the log-normal that is at least as wide as the values are anywhere.

    Each value above the middle tells one: so many calls went at least so far.
    """
    beyond = widest = 0.0
    for bucket in sorted(counts, reverse=True):
        distance = log_middle_of(bucket) - middle
        if distance <= 0:
            break
        beyond += counts[bucket]
        if beyond >= _LEAST_BEYOND:
            if beyond >= calls * _FAR:
                # Whatever comes after is nearer to the middle, and tells no wider one.
                return max(widest, distance / _FAR_Z)
            widest = max(widest, distance / _NORMAL.inv_cdf(1 - beyond / calls))
    return widest


def _added(counts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    whole: dict[K, int] = {}
    for each in counts:
        for name, number in each.items():
            whole[name] = whole.get(name, 0) + number
    return {name: number for name, number in whole.items() if number > 0}


def _once(traits: Mapping[str, int]) -> dict[str, int]:
    once: dict[str, int] = {}
    for trait, number in traits.items():
        if number == 1:
            group = group_of(trait)
            once[group] = once.get(group, 0) + 1
    return once


TOLD_ONCE: Final = frozenset({"product", "model", "country"})
"""Groups of traits that are new only once, even if that was an anomaly."""


def group_of(trait: str) -> str:
    """Traits of a group stand for each other: prices of a product, products, models, countries."""
    # Models and products may have a colon in their names.
    return trait.rpartition(":")[0] if trait.startswith(RATE) else trait.partition(":")[0]
