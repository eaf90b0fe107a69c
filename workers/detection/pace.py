"""How fast money goes, hour by hour, and when it will have gone. Pure.

What is expected of an hour is what the same hour of the day has cost in the week before, times how
much more or less than usual the present stretch costs. Where no such hour is known yet, it is the
mean of all that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
DAYS_KNOWN: Final = 8
"""So many days of hours are of use: a week, and the present stretch of a day at most."""

_WEEK_HOURS: Final = 7 * 24
_DAY_HOURS: Final = 24
# Ten minutes say little. The present stretch counts as if so many usual hours had gone before; and
# where nothing is usual yet, as if it had been no shorter.
_LEAST_HOURS: Final = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Money to be expected of each hour of the day, from 0 to 23 UTC."""

    by_hour: tuple[float, ...]

    def used_up_ms(self, left: float, at_ms: int, until_ms: int) -> int | None:
        """When so much money will be gone; None where it lasts until `until_ms`."""
        now = at_ms
        while now < until_ms:
            if left <= 0:
                return now
            hour = now // HOUR_MS
            end = min((hour + 1) * HOUR_MS, until_ms)
            rate = self.by_hour[hour % _DAY_HOURS] / HOUR_MS
            if rate * (end - now) >= left:
                return now + int(left / rate)
            left -= rate * (end - now)
            now = end
        return None


def pace_of(hours: Mapping[int, float], at_ms: int, since_ms: int) -> Pace:
    """The pace at a moment, from money by hour (its number since 1970).

    `since_ms` is where the present stretch began; of a longer one than a day the last day counts.
    """
    this = at_ms // HOUR_MS
    known = {h: money for h, money in hours.items() if this - DAYS_KNOWN * _DAY_HOURS < h <= this}
    if not known:
        return Pace((0.0,) * _DAY_HOURS)
    first = min(known)
    elapsed = max(_LEAST_HOURS, at_ms / HOUR_MS - first)
    flat = max(0.0, sum(known.values()) / elapsed)
    begin = max(since_ms // HOUR_MS, this - _DAY_HOURS + 1)
    usual = [_usual(known, first, begin, hour, flat) for hour in range(_DAY_HOURS)]
    part = at_ms / HOUR_MS - this
    expected = sum(usual[h % _DAY_HOURS] for h in range(begin, this))
    expected += usual[this % _DAY_HOURS] * part
    actual = sum(money for h, money in known.items() if h >= begin)
    ballast = _LEAST_HOURS * sum(usual) / _DAY_HOURS
    if first >= begin or ballast <= 0:
        return Pace((flat,) * _DAY_HOURS)
    trend = max(0.0, (actual + ballast) / (expected + ballast))
    return Pace(tuple(money * trend for money in usual))


def _usual(
    known: Mapping[int, float], first: int, begin: int, hour_of_day: int, flat: float
) -> float:
    """What that hour of the day has cost in the week before `begin`, as far as it is known."""
    last = begin - 1 - (begin - 1 - hour_of_day) % _DAY_HOURS
    days = range(last, max(first, begin - _WEEK_HOURS) - 1, -_DAY_HOURS)
    if not days:
        return flat
    return max(0.0, sum(known.get(h, 0.0) for h in days) / len(days))
