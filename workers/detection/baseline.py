"""What has been learned of a cohort, and what is usual by it.

A `Sheet` is the raw memory of one cohort over four weeks: nothing but integers that are added up,
so that any number of workers write it in any order. A day's calls weigh twice as much as those of
the week before: later days are added with greater weights, and nothing has to be rewritten. A
`Baseline` is what the current sheet and the one before say together.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final, TypeVar

from workers.detection.lasting import Evidence, is_lasting
from workers.detection.measure import Measured
from workers.detection.sketch import bucket_of, quantiles

DAYS: Final = 28
"""Days of a sheet."""
DAY_MS: Final = 86_400_000
K = TypeVar("K", str, int)
_HALF_LIFE_DAYS: Final = 7
_FIRST_WEIGHT: Final = 16

_SHARES: Final = (0.05, 0.5, 0.9, 0.95, 0.99, 0.995, 0.999)
_MIDDLE: Final = _SHARES.index(0.5)
_99: Final = _SHARES.index(0.99)
_NORMAL: Final = NormalDist()
_UPPER: Final = tuple(
    (place, share, _NORMAL.inv_cdf(share))
    for place, share in enumerate(_SHARES)
    if share > 0.5  # noqa: PLR2004
)
UPPER_SHARES: Final = tuple(share for _, share, _ in _UPPER)
LEAST_BEYOND: Final = 2.0
"""A quantile is only believed with so many calls beyond it."""
NARROWEST: Final = 0.06
"""No spread is taken for less, as a natural logarithm: a cost that never varied may vary a bit."""


def sheet_of(day: int) -> int:
    """The number of the sheet on which a day's calls are counted."""
    return day // DAYS


def weight_of(day: int) -> int:
    """How much a call of that day counts on its sheet."""
    return round(_FIRST_WEIGHT * 2 ** (day % DAYS / _HALF_LIFE_DAYS))


def scale_of(sheet: int, day: int) -> float:
    """What turns a sheet's weights into calls of today."""
    return 2 ** ((sheet * DAYS - day) / _HALF_LIFE_DAYS) / _FIRST_WEIGHT


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

    def learn(self, lesson: "Lesson", times: int = 1) -> None:
        """Add what a call teaches; -1 times takes it back."""
        self.calls += times
        self.days[lesson.day] = self.days.get(lesson.day, 0) + times
        weight = lesson.weight * times
        sketches = self.sketches
        for name, bucket in lesson.buckets:
            counts = sketches.get(name)
            if counts is None:
                sketches[name] = {bucket: weight}
            else:
                counts[bucket] = counts.get(bucket, 0) + weight
        traits = self.traits
        for trait in lesson.traits:
            traits[trait] = traits.get(trait, 0) + times


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one call teaches each of its cohorts."""

    ladder: tuple[str, ...]
    day: int
    weight: int
    buckets: tuple[tuple[str, int], ...]
    traits: tuple[str, ...]


def lesson_of(measured: Measured, ended_ms: int) -> Lesson:
    """What a call that ended then teaches."""
    day = ended_ms // DAY_MS
    return Lesson(
        ladder=measured.ladder,
        day=day,
        weight=weight_of(day),
        buckets=tuple([(name, bucket_of(value)) for name, value in measured.values.items()]),
        traits=measured.traits,
    )


@dataclass(frozen=True, slots=True)
class Spread:
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


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is usual in one cohort."""

    cohort: str
    calls: int
    days: int
    """Over how many days, the first and the last included."""
    spreads: Mapping[str, Spread]
    traits: Mapping[str, int]
    once: Mapping[str, int]
    """By group of traits: how many of them occurred in one call only."""
    changes: tuple[str, ...] = ()
    """What was strange and has become usual: measures and traits."""


EMPTY: Final = Baseline("", 0, 0, {}, {}, {})


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
        spreads=dict(_spreads(kept, lasting, today)),
        traits=_added([learned, known]),
        once=_once(learned),
        changes=tuple(lasting),
    )


def _spreads(
    sheets: Mapping[int, Sheet], lasting: Mapping[str, Evidence], today: int
) -> Iterator[tuple[str, Spread]]:
    scales = [(sheet.sketches, scale_of(number, today)) for number, sheet in sheets.items()]
    for name in dict.fromkeys(name for sketches, _ in scales for name in sketches):
        counts: dict[int, float] = {}
        for sketches, scale in scales:
            for bucket, weight in sketches.get(name, _NONE).items():
                if weight > 0:
                    counts[bucket] = counts.get(bucket, 0.0) + weight * scale
        if name in lasting:
            for bucket, calls in lasting[name].buckets.items():
                counts[bucket] = counts.get(bucket, 0.0) + calls
        if counts:
            yield name, spread_of(counts)


_NONE: Final[dict[int, int]] = {}


def spread_of(counts: Mapping[int, float]) -> Spread:
    """The spread of a sketch with at least one value; weights in calls of today."""
    calls = math.fsum(counts.values())
    found = quantiles(counts, _SHARES)
    middle = found[_MIDDLE]
    widest = max(
        (
            (found[place] - middle) / z
            for place, share, z in _UPPER
            if calls * (1 - share) >= LEAST_BEYOND
        ),
        default=0.0,
    )
    return Spread(
        calls=calls,
        middle=middle,
        deviation=widest,
        low=found[0],
        high=found[_99],
    )


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
    return trait.rpartition(":")[0]
