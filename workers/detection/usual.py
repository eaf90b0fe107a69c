"""What a series usually is at an hour of the week, and how sure of it its history allows to be.

A general detector of amounts over time, of whatever they are: `learn(hour, amount)` adds,
`usual(hour)` says what comes in such an hour, and the two tails in `workers.detection.tail` say how
far an amount is out. All that is kept are sums of whole numbers by hour, so the order in which they
are added does not matter, and any number of processes may add to them.

An hour leans on hours like it: most on the same hour of the week, nearly as much on the same hour
of the other workdays (at a weekend, of the other weekend day), less on the hours beside those, and
hardly on the other sort of day. Recent ones weigh more, and growth since then is made up for. Hours
that were odd do not teach, unless most are odd by now; and the largest are cut to the size of the
rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import Final

import msgspec

DAYS_KEPT: Final = 28
HOURS_KEPT: Final = DAYS_KEPT * 24
_DAY: Final = 24
_THURSDAY: Final = 3
"""The first day of 1970."""
_WORKDAYS: Final = 5

_HALF_LIFE_DAYS: Final = 10.0
_SAME_SORT: Final = 0.6
"""Of another day of the same sort, against the same day of the week."""
_OWN_WEEK: Final = 0.7
"""How much less that is for each week in which the same day of the week was seen."""
_OTHER_SORT: Final = 0.02
_BESIDE: Final = 0.3
_PRIOR: Final = 0.5
"""Calls that are taken for seen before any was: what never came is rare, and not impossible."""
_CUT_SHARE: Final = 12
"""One in so many of the like hours may be odd without our knowing."""
_MOST_ODD: Final = 0.5
"""A larger share of odd hours is how things are now,"""
_ODD_DAYS: Final = 4
"""if there are so many."""
_LEVEL_PRIOR: Final = 20.0
_LEVEL_DAYS: Final = 14
"""Growth shows from one week to the next."""
_SPREAD: Final = 0.03
"""The least variance of a rate, over its square: no two Mondays are alike."""
_MOST_SPREAD: Final = 2.0
_SPREAD_OF_OTHER_SORT: Final = 0.8
"""What is known from the other sort of day alone may be far off."""
_SPREAD_DAYS: Final = 5
"""Workdays that it takes to measure the spread."""
_SPREAD_AVERAGE: Final = 1.0
"""Calls per hour that it takes."""
_SPREAD_OF_THE_DAY: Final = 0.3
"""The share of the spread that is the same all day."""
_OWN_SHARE: Final = 0.75
"""How much of what an hour was learned from is not what the next was learned from."""


def _weights_of(weekday: int, weeks: int) -> list[float]:
    """By age in days, from 1 on, how much a day's hour weighs for one of that weekday.

    The more weeks there are, the less is asked of other days of the same sort.
    """
    same_sort = _SAME_SORT / (1 + _OWN_WEEK * weeks)
    weights = []
    for age in range(1, DAYS_KEPT + 1):
        other = (weekday - age) % 7
        alike = 1.0 if other == weekday else same_sort
        is_alike = (other < _WORKDAYS) == (weekday < _WORKDAYS)
        weights.append((alike if is_alike else _OTHER_SORT) * math.pow(0.5, age / _HALF_LIFE_DAYS))
    return weights


_WEIGHTS: Final = tuple(
    tuple(_weights_of(weekday, weeks) for weeks in range(DAYS_KEPT // 7 + 1))
    for weekday in range(7)
)
_ALIKE: Final = tuple(
    tuple([weight if weight > _OTHER_SORT else 0.0 for weight in weights] for weights in of_day)
    for of_day in _WEIGHTS
)
"""The same without those of the other sort of day."""


class Usual(msgspec.Struct, frozen=True, gc=False):
    """What is expected, and how certain that is."""

    mean: float
    known: float
    """From how many calls the mean was learned."""
    spread: float
    """By how much such hours differ beyond chance: the variance of the rate over its square."""

    @property
    def strength(self) -> float:
        """Both together, as `workers.detection.tail` wants it."""
        return 1.0 / (1.0 / self.known + self.spread)

    def over(self, hours: float) -> "Usual":
        """The same for a part of the hour."""
        return Usual(self.mean * hours, self.known, self.spread)


def together(parts: Sequence[tuple[Usual, float]]) -> Usual:
    """What is expected of stretches in a row, each with its length in hours."""
    length = sum([hours for _, hours in parts])
    mean = sum([usual.mean * hours for usual, hours in parts])
    known = sum([usual.known * hours for usual, hours in parts]) / length
    spread = sum([usual.spread * hours for usual, hours in parts]) / length
    if length > 1:
        known *= max(1.0, length * _OWN_SHARE)
        spread *= _SPREAD_OF_THE_DAY + (1 - _SPREAD_OF_THE_DAY) / length
    return Usual(mean, known, spread)


@dataclass(slots=True)
class _Day:
    """What holds for all hours of a day, worked out once from the days before."""

    average: float
    """Calls per hour over all hours; 0 where there were too few."""
    level: float
    """How much more the last seven days had than the weights make of all days."""
    spread: float
    usual: dict[int, Usual] = field(default_factory=dict)
    calm: dict[int, Usual] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """Amounts by hour since 1970. `begin_hour`: since when they would have been seen."""

    begin_hour: int
    hours: dict[int, int] = field(default_factory=dict)
    odd: set[int] = field(default_factory=set)
    """Hours that were out of the ordinary."""
    days: dict[int, int] = field(default_factory=dict)
    """The sums of `hours`, by day."""
    _days: dict[int, _Day] = field(default_factory=dict)

    def learn(self, hour: int, amount: int) -> None:
        """Adds to an hour."""
        self.hours[hour] = self.hours.get(hour, 0) + amount
        day = hour // _DAY
        self.days[day] = self.days.get(day, 0) + amount

    def correct(self, hour: int, amount: int) -> None:
        """Says what an hour had in all."""
        self.learn(hour, amount - self.hours.get(hour, 0))

    def usual(self, hour: int, *, prior: float = 0.0) -> Usual:
        """What comes in such an hour, by what came until a day before.

        `prior` is what may be expected of a new one; it counts as half a call.
        """
        day = self._day(hour // _DAY)
        found = day.usual.get(hour)
        if found is None:
            found = day.usual[hour] = self._usual(hour, day, prior)
        return found

    def calm(self, hour: int) -> Usual:
        """The same without what was odd, however much of it there was: the least to expect."""
        if not self.odd:
            return self.usual(hour)
        day = self._day(hour // _DAY)
        found = day.calm.get(hour)
        if found is None:
            found = day.calm[hour] = self._usual(hour, day, 0.0, most_odd=1.0)
        return found

    def average(self, hour: int) -> float:
        """Amount per hour over all hours before the day of that one; 0 where there is no day."""
        return self._day(hour // _DAY).average

    def forget(self, before_hour: int) -> None:
        """Drops what is too old to matter, and all that was worked out."""
        self.hours = {hour: amount for hour, amount in self.hours.items() if hour >= before_hour}
        self.days = {day: sum_ for day, sum_ in self.days.items() if (day + 1) * _DAY > before_hour}
        self.odd = {hour for hour in self.odd if hour >= before_hour}
        self._days = {}

    def _usual(self, hour: int, day: _Day, prior: float, *, most_odd: float = _MOST_ODD) -> Usual:
        get = self.hours.get
        first = max(self.begin_hour, hour - HOURS_KEPT)
        like: Sequence[int] = range(hour - _DAY, first - 1, -_DAY)
        weekday, weeks = _weekday(hour), len(like) // 7
        weights, alike = _WEIGHTS[weekday][weeks], _ALIKE[weekday][weeks]
        odd_days = self._odd_days(hour)
        if odd_days:
            sound = [place for place in range(len(like)) if place + 1 not in odd_days]
            odd = len(like) - len(sound)
            if sound and (odd <= most_odd * len(like) or odd < _ODD_DAYS):
                like = [like[place] for place in sound]
                weights = [weights[place] for place in sound]
                alike = [alike[place] for place in sound]
        own = [get(at, 0) for at in like]
        before = [get(at - 1, 0) for at in like]
        after = [get(at + 1, 0) for at in like]
        cut = _cut(own + before + after)
        came = _weighed(weights, own, cut) + _BESIDE * (
            _weighed(weights, before, cut) + _weighed(weights, after, cut)
        )
        exposure = sum(weights[: len(like)]) * (1 + 2 * _BESIDE)
        expected = day.average or max(prior, _PRIOR)
        mean = (came + _PRIOR) / (exposure + _PRIOR / expected) * day.level
        known_days = min(1.0, sum(alike[: len(like)]))
        return Usual(mean, came + _PRIOR, day.spread + (1.0 - known_days) * _SPREAD_OF_OTHER_SORT)

    def _odd_days(self, hour: int) -> set[int]:
        """So many days before that hour there was an odd one, or beside such."""
        apart = [hour + 1 - odd for odd in self.odd]
        return {hours // _DAY for hours in apart if hours % _DAY <= 2}  # noqa: PLR2004

    def _day(self, number: int) -> _Day:
        day = self._days.get(number)
        if day is None:
            day = self._new_day(number)
            # A stretch that ends today may have begun yesterday.
            self._days = {other: kept for other, kept in self._days.items() if other == number - 1}
            self._days[number] = day
        return day

    def _new_day(self, day: int) -> _Day:
        average = self._average(day)
        spread = self._spread(day) if average >= _SPREAD_AVERAGE else _SPREAD
        return _Day(average, self._level(day), spread)

    def _average(self, day: int) -> float:
        first = max(self.begin_hour, day * _DAY - HOURS_KEPT)
        hours = day * _DAY - first
        if hours < _DAY // 2:
            return 0.0
        return max(self._sum(first // _DAY, day), _PRIOR) / hours

    def _level(self, day: int) -> float:
        if (day - _LEVEL_DAYS) * _DAY < self.begin_hour:
            return 1.0
        weeks = [
            self._sum(day - 7 * age, day - 7 * age + 7)
            for age in range(1, DAYS_KEPT // 7 + 1)
            if (day - 7 * age) * _DAY >= self.begin_hour
        ]
        weights = [math.pow(0.5, 7 * age / _HALF_LIFE_DAYS) for age in range(len(weeks))]
        weighed = sum(w * week for w, week in zip(weights, weeks, strict=True)) / sum(weights)
        return (weeks[0] + _LEVEL_PRIOR) / (weighed + _LEVEL_PRIOR)

    def _spread(self, day: int) -> float:
        """Measured on workdays, hour by hour, without what is odd."""
        begin = max(self.begin_hour // _DAY + 1, day - DAYS_KEPT)
        workdays = [number for number in range(begin, day) if _weekday(number * _DAY) < _WORKDAYS]
        if len(workdays) < _SPREAD_DAYS:
            return _SPREAD
        begins = [number * _DAY for number in workdays]
        beyond = squares = 0.0
        get = self.hours.get
        for hour in range(_DAY):
            amounts = [get(first + hour, 0) for first in begins]
            kept = _kept(amounts)
            sum_ = sum(kept)
            mean = sum_ / len(kept)
            variance = (sum(map(mul, kept, kept)) - mean * sum_) / (len(kept) - 1)
            beyond += variance - mean
            squares += mean * mean
        return min(_MOST_SPREAD, max(_SPREAD, beyond / squares if squares else 0.0))

    def _sum(self, first: int, end: int) -> int:
        return sum([self.days.get(day, 0) for day in range(first, end)])


def _weighed(weights: Sequence[float], amounts: list[int], cut: int) -> float:
    """The weighted sum of amounts, each cut to that size."""
    whole: float = sum(map(mul, weights, amounts))
    if max(amounts, default=0) <= cut:
        return whole
    return whole - sum(
        [w * (amount - cut) for w, amount in zip(weights, amounts, strict=False) if amount > cut]
    )


def _weekday(hour: int) -> int:
    """0 is Monday."""
    return (hour // _DAY + _THURSDAY) % 7


def _cut(amounts: list[int]) -> int:
    """The largest amount that like hours are taken to have in truth."""
    return max(_kept(amounts), default=0)


def _kept(amounts: list[int]) -> list[int]:
    """The amounts in ascending order, none of them larger than like hours have in truth."""
    kept = sorted(amounts)
    odd = -(-len(amounts) // _CUT_SHARE)
    if len(amounts) > odd:
        kept[-odd:] = kept[-odd - 1 : -odd] * odd
    return kept
