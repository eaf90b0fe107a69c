"""Quantiles of positive numbers in few integers: counts in logarithmic buckets.

Any quantile is off by at most `ERROR` of its value, whatever the values are. Adding a value is one
addition to one integer, so updates commute: in any order, from any number of workers, they end in
the same sketch, and sketches of the same kind of value merge by addition. Decimal places, currency
and size do not matter. Source of the idea: Masson, Rim, Lee, DDSketch (VLDB 2019).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

ERROR: Final = 0.025
"""The largest relative error of a quantile."""

_GAMMA: Final = (1 + ERROR) / (1 - ERROR)
WIDTH: Final = math.log(_GAMMA)
"""A bucket's width, in natural logarithms."""
_PER_LOG: Final = 1 / WIDTH
_TO_MIDDLE: Final = math.log(2 / (1 + _GAMMA))
_SMALLEST: Final = 1e-12
"""What is smaller counts as this."""
_log = math.log
_ceil = math.ceil


def bucket_of(value: float) -> int:
    """The bucket of a positive value: those in it are within `ERROR` of `middle_of` it."""
    return _ceil(_log(max(_SMALLEST, value)) * _PER_LOG)


def buckets_of(values: Mapping[str, float]) -> list[tuple[str, int]]:
    """The bucket of each, with its name."""
    if min(values.values(), default=1.0) < _SMALLEST:
        return [(name, bucket_of(value)) for name, value in values.items()]
    return [(name, _ceil(_log(value) * _PER_LOG)) for name, value in values.items()]


def middle_of(bucket: int) -> float:
    """The value that stands for all in a bucket."""
    return math.exp(log_middle_of(bucket))


def upper_end_of(bucket: int) -> float:
    """The largest value in a bucket: all are above that of the bucket before."""
    return math.exp(bucket * WIDTH)


def log_middle_of(bucket: int) -> float:
    """The same, as a natural logarithm."""
    return bucket * WIDTH + _TO_MIDDLE


def quantiles(counts: Mapping[int, float], shares: Iterable[float]) -> list[float]:
    """The buckets' quantiles, as natural logarithms, for ascending shares from 0 to 1.

    `counts` must not be empty. The quantile is the smallest value with at least that share of all
    at or below it.
    """
    ascending = sorted(counts.items())
    whole = math.fsum(counts.values())
    found: list[float] = []
    place, below = 0, ascending[0][1]
    for share in shares:
        # A hair less, so that sums of rounded weights do not step over the last bucket.
        wanted = share * whole * (1 - 1e-12)
        while below < wanted and place + 1 < len(ascending):
            place += 1
            below += ascending[place][1]
        found.append(log_middle_of(ascending[place][0]))
    return found
