"""How a measure is spread, in few bars: logarithmic buckets, put together until they fit.

Pure. Costs are skewed, so equal steps are equal factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workers.detection.baseline import Sheet, scale_of
from workers.detection.sketch import upper_end_of

MOST_BARS: Final = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """The calls of which a measure was above `low`, and at most `high`."""

    low: float
    high: float
    calls: float
    """In calls of today: older ones count for less."""


def counts_of(name: str, sheets: Mapping[int, Sheet], today: int) -> dict[int, float]:
    """The buckets of a measure over all sheets, in calls of today."""
    counts: dict[int, float] = {}
    for number, sheet in sheets.items():
        scale = scale_of(number, today)
        for bucket, weight in sheet.sketches.get(name, {}).items():
            if weight > 0:
                counts[bucket] = counts.get(bucket, 0.0) + weight * scale
    return counts


def bars_of(counts: Mapping[int, float], most: int = MOST_BARS) -> list[Bar]:
    """At most so many bars from the smallest to the largest bucket; none where there is none."""
    if not counts:
        return []
    first, last = min(counts), max(counts)
    step = -(-(last - first + 1) // most)
    bars = []
    for begin in range(first, last + 1, step):
        calls = sum(n for bucket, n in counts.items() if begin <= bucket < begin + step)
        bars.append(Bar(upper_end_of(begin - 1), upper_end_of(begin + step - 1), calls))
    return bars
