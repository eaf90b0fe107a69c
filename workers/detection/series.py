"""One series of calls and their money, and what is out of the ordinary in it now. Pure.

All that is kept are whole numbers that are added to, so any number of processes may add, in any
order. Hours, quarters of an hour and minutes are counted from 1970.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from workers.detection.tail import too_little, too_much
from workers.detection.usual import HOURS_KEPT, History, Usual, together

MICROS: Final = 1_000_000
_PER_SQUARE: Final = 100
"""Millionths in the unit of squares: those of a year fit into 63 bits."""


class Window(NamedTuple):
    """A stretch of minutes that is looked at, and how many calls in it are worth a look."""

    minutes: int
    least: int


_HOUR_MINUTES: Final = 60
_HALF_DAY: Final = 12
WINDOWS: Final = (Window(5, 5), Window(15, 8), Window(60, 10))
MINUTES_KEPT: Final = 60
_FACTOR: Final = 2.0
"""So many times the usual, at least; of a drop, so little of it at most."""
_CLUMPED: Final = 0.1
"""Variance of a few minutes' rate, over its square: people call twice, and at the full hour."""

A_DROP: Final = 0
"""Stands for a window among what is remembered."""
BURST_SCORE: Final = 4.0
"""From here on it is remembered as a burst, and does not teach what is usual."""
_BURST_FACTOR: Final = 2.0
"""So many times what bursts have been before is no longer usual."""
_BURST_DAYS: Final = 2
"""On so many days before today, at about this time, they have to have come."""
_BURST_NEAR_HOURS: Final = 4

DROP_HOURS: Final = (2, 3, 4)
QUARTERS_KEPT: Final = 4 * DROP_HOURS[-1]
_DROP_LEAST: Final = 10.0
"""So many calls are usual in the stretch, or there is nothing to fall away."""
_DROP_AVERAGE: Final = 1.0
"""Calls per hour: below it nothing falls away that anybody would miss."""

SPEND_HOURS: Final = (1, 6, 24)
_SPEND_FACTOR: Final = 1.4
_SPEND_SPREAD: Final = 0.01
"""Of what a call costs, from one day to the next: the variance over the square."""
_SPEND_LEAST: Final = 6
"""Calls with a known cost in the stretch."""
_PRIOR_CALLS: Final = 3
_KNOWN_LEAST: Final = 30
"""Calls before it, from which the usual cost is known."""
_ONE_CALL: Final = 0.2
"""A larger share of the squares is one dear call's, which has an alert of its own."""


_LEAST: Final = {window.minutes: window.least - 1 for window in WINDOWS}
"""By window, how many calls are never worth a look."""


@dataclass(frozen=True, slots=True)
class Breach:
    """How a series is out of the ordinary now. `usual` and `each` are what was expected."""

    calls: int
    usual: float
    minutes: int
    score: float
    excess: Decimal
    """Money; of a drop, that which was not spent."""
    spent: Decimal = Decimal(0)
    """About what the calls cost."""
    is_usual: bool = False
    """Bursts of this size have come before."""

    @property
    def over(self) -> float:
        """Calls that are too many or too few."""
        return abs(self.calls - self.usual)


@dataclass(slots=True)
class Series:
    """What is known of one series."""

    history: History
    minutes: dict[int, int] = field(default_factory=dict)
    quarters: dict[int, int] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)
    """By hour, the calls whose cost is known."""
    micros: dict[int, int] = field(default_factory=dict)
    """By hour, that cost in millionths."""
    squares: dict[int, int] = field(default_factory=dict)
    """By hour, the sum of the squares of each call's cost."""
    bursts: dict[tuple[int, int], int] = field(default_factory=dict)
    """By window in minutes and hour, the largest that was out of the ordinary; drops, too."""
    quiet: dict[int, int] = field(default_factory=dict)
    """By window, how many calls are nothing to speak of in this hour."""
    quiet_hour: int = 0
    share: float = 0.0
    """Of the usual calls, how many came in the last hours, when that was looked at last."""
    _looked: int = 0
    """The latest minute that was looked at."""
    _counted: int = 0
    """Calls so far."""
    _until: int = 0
    """With fewer calls so far no window has too many in this hour."""
    _costs: dict[int, "Costs"] = field(default_factory=dict)
    """What calls cost before an hour, worked out once."""

    def count(self, minute: int, calls: int = 1) -> None:
        """Adds calls that began in that minute (or ended, where that was not heard of)."""
        minutes = self.minutes
        if minute in minutes:
            minutes[minute] += calls
        else:
            while minutes and (oldest := next(iter(minutes))) <= minute - MINUTES_KEPT:
                del minutes[oldest]
            is_late = minutes and minute < next(reversed(minutes))
            minutes[minute] = calls
            if is_late:  # They are in order, the oldest in front.
                self.minutes = dict(sorted(minutes.items()))
        self._counted += calls
        quarter = minute // 15
        self.quarters[quarter] = self.quarters.get(quarter, 0) + calls
        self.history.learn(minute // 60, calls)

    def pay(self, hour: int, micros: int) -> None:
        """Adds what a call that ended in that hour has cost, in millionths."""
        self.known[hour] = self.known.get(hour, 0) + 1
        self.micros[hour] = self.micros.get(hour, 0) + micros
        self.squares[hour] = self.squares.get(hour, 0) + square(micros)
        self.costs_changed(hour)

    def costs_changed(self, hour: int) -> None:
        """What calls cost in that hour is not what it was: a charge may come after midnight."""
        if hour < max(self._costs, default=hour):
            self._costs = {}

    def stirs(self, minute: int) -> bool:
        """Whether any window has more calls than are nothing to speak of in this hour."""
        hour = minute // 60
        if self.quiet_hour != hour:
            self.quiet_hour, self.quiet, self._until = hour, dict(_LEAST), 0
        if minute < self._looked:
            # A look back, for a call that came late: what it finds holds for no later minute.
            self._until = 0
            return self._spare(minute) < 0
        self._looked = minute
        # From here on time takes calls out of a window and puts none in.
        if self._counted < self._until:
            return False
        spare = self._spare(minute)
        self._until = self._counted + spare + 1
        return spare < 0

    def _spare(self, minute: int) -> int:
        """So many more calls no window would show, at least; below zero where one shows some."""
        most = sum(self.minutes.values())
        return min(
            [
                quiet - (most if most <= quiet else self.last(minute, of))
                for of, quiet in self.quiet.items()
            ]
        )

    def count_anew(self, counts: Mapping[int, int], now: int) -> None:
        """Takes over calls by minute, in their order, that somebody else has counted until now."""
        self.minutes = {m: calls for m, calls in counts.items() if m > now - MINUTES_KEPT}
        self.quarters = {}
        for minute, calls in counts.items():
            self.quarters[minute // 15] = self.quarters.get(minute // 15, 0) + calls
        self._until = 0

    def last(self, minute: int, minutes: int) -> int:
        """Calls in so many minutes up to and with that one."""
        of = self.minutes
        if not of:
            return 0
        first = minute - minutes
        if first < next(iter(of)) and next(reversed(of)) <= minute:
            return sum(of.values())
        calls = 0
        for each in reversed(of):
            if each <= first:
                break
            if each <= minute:
                calls += of[each]
        return calls

    def before(self, quarter: int, quarters: int) -> int:
        """Calls in so many quarters of an hour before that one."""
        of = self.quarters
        return sum([of.get(each, 0) for each in range(quarter - quarters, quarter)])

    def remember(self, minute: int) -> None:
        """Notes how large the burst of this hour is by now."""
        hour = minute // 60
        self.history.odd.add(hour)
        for window in WINDOWS:
            key = (window.minutes, hour)
            self.bursts[key] = max(self.bursts.get(key, 0), self.last(minute, window.minutes))

    def remember_drop(self, quarter: int, minutes: int) -> None:
        """Notes that calls fell away in so many minutes before that quarter of an hour."""
        for hour in range((quarter - minutes // 15) // 4, (quarter + 3) // 4):
            self.history.odd.add(hour)
            self.bursts[(A_DROP, hour)] = 1

    def forget(self, hour: int) -> None:
        """Drops what no look after that hour reaches."""
        self.quarters = {q: n for q, n in self.quarters.items() if q >= 4 * hour - QUARTERS_KEPT}
        self._costs = {}
        first = hour - HOURS_KEPT - 24
        self.history.forget(first)
        for amounts in (self.known, self.micros, self.squares):
            for old in [each for each in amounts if each < first]:
                del amounts[old]
        self.bursts = {key: n for key, n in self.bursts.items() if key[1] >= first}

    def costs(self, hour: int) -> "Costs":
        """What a call cost before the day of that hour; where that is too little, until now."""
        begin = hour - hour % 24
        found = self._costs.get(begin)
        if found is None:
            found = self._costs[begin] = self._costs_before(begin)
        return found if found.known >= _KNOWN_LEAST else self._costs_before(hour + 1)

    def _costs_before(self, hour: int) -> "Costs":
        known, micros, squares = (
            sum([amount for at, amount in amounts.items() if at < hour])
            for amounts in (self.known, self.micros, self.squares)
        )
        return Costs(known, micros, squares)


@dataclass(frozen=True, slots=True)
class Costs:
    """Sums over calls whose cost is known: their number, their cost, its squares."""

    known: int
    micros: int
    squares: int

    def each(self, otherwise: float) -> float:
        """What a call costs, in millionths; `otherwise` counts as some calls that are known."""
        return (self.micros + _PRIOR_CALLS * otherwise) / (self.known + _PRIOR_CALLS)

    @property
    def unit(self) -> float:
        """What a call would cost, were all alike, for the sum to vary as it does; millionths."""
        return self.squares * _PER_SQUARE**2 / self.micros if self.micros else 0.0


def square(micros: int) -> int:
    """What a call adds to the sum of squares."""
    return (micros // _PER_SQUARE) ** 2


def surge(
    series: Series, minute: int, *, prior: float, each: float, threshold: float
) -> Breach | None:
    """The strangest of the windows that end with that minute, where one is out of bounds.

    One that bursts before were like is nothing to tell of; it is said where no other is stranger.
    `prior` and `each` are what may be expected of a new one: calls per hour, and what one costs.
    """
    worst: Breach | None = None
    if not series.stirs(minute):
        return None
    for window in WINDOWS:
        calls = series.last(minute, window.minutes)
        if calls <= series.quiet[window.minutes]:
            continue
        usual = _usual(series.history, minute, window.minutes, prior)
        score = _score(calls, usual, window) if calls >= _FACTOR * usual.mean else 0.0
        if score < BURST_SCORE:
            series.quiet[window.minutes] = _quiet_until(calls, usual, window)
            continue
        series.remember(minute)
        is_usual = calls <= _BURST_FACTOR * usual_burst(series, minute // 60, window.minutes)
        if score < threshold and not is_usual:
            continue
        if worst is None or (worst.is_usual, score) > (is_usual, worst.score):
            cost = series.costs(minute // 60).each(each)
            worst = _breach(cost, calls, usual.mean, window.minutes, score, is_usual=is_usual)
    return worst


def _quiet_until(calls: int, usual: Usual, window: Window) -> int:
    """How many calls are nothing to speak of, where so many are none."""
    ahead = calls + max(2, calls // 2)
    if ahead < _FACTOR * usual.mean or _score(ahead, usual, window) < BURST_SCORE:
        return ahead
    return max(calls, int(_FACTOR * usual.mean) - 1)


def _score(calls: int, usual: Usual, window: Window) -> float:
    spread = 1 / usual.strength + (_CLUMPED if window.minutes < _HOUR_MINUTES else 0.0)
    return too_much(calls, usual.mean, 1 / spread)


def usual_burst(series: Series, hour: int, minutes: int) -> int:
    """The size of bursts that have come on several days at about this time; 0 where none have."""
    days: dict[int, int] = {}
    for (window, at), calls in series.bursts.items():
        apart = (hour - at) % 24
        is_near = min(apart, 24 - apart) <= _BURST_NEAR_HOURS
        if window == minutes and is_near and hour - at > _HALF_DAY:
            day = (hour - at + _HALF_DAY) // 24
            days[day] = max(days.get(day, 0), calls)
    if len(days) < _BURST_DAYS:
        return 0
    return sorted(days.values())[-_BURST_DAYS]


def _usual(history: History, minute: int, minutes: int, prior: float) -> Usual:
    """Of a stretch of an hour at most that ends with that minute."""
    hour, into = divmod(minute, _HOUR_MINUTES)
    here = min(minutes, into + 1)
    now = history.usual(hour, prior=prior)
    if here == minutes:
        return now.over(minutes / _HOUR_MINUTES)
    before = history.usual(hour - 1, prior=prior)
    return together([(now, here / _HOUR_MINUTES), (before, (minutes - here) / _HOUR_MINUTES)])


def _calm(history: History, begin: int, end: int) -> list[tuple[Usual, float]]:
    """What is usual from one quarter of an hour to before another, by hours."""
    parts = []
    while begin < end:
        hour_ends = min(end, begin - begin % 4 + 4)
        parts.append((history.calm(begin // 4), (hour_ends - begin) / 4))
        begin = hour_ends
    return parts


def may_drop(series: Series, hour: int) -> bool:
    """Whether there is enough in it for something to be missed."""
    return series.history.average(hour) >= _DROP_AVERAGE


def drop(series: Series, quarter: int, *, threshold: float) -> Breach | None:
    """How calls fell away in the hours before that quarter of an hour."""
    history = series.history
    if quarter - QUARTERS_KEPT < 4 * (history.begin_hour + 24):
        return None
    worst: Breach | None = None
    series.share = 1.0
    calls, first = 0, quarter
    parts: list[tuple[Usual, float]] = []
    for hours in DROP_HOURS:
        begin = quarter - 4 * hours
        calls += series.before(first, first - begin)
        parts += _calm(history, begin, first)
        mean = sum([usual.mean * length for usual, length in parts])
        first = begin
        if mean < _DROP_LEAST:
            continue
        series.share = min(series.share, calls / mean)
        if calls * _FACTOR > mean:
            continue
        usual = together(parts)
        score = too_little(calls, usual.mean, usual.strength)
        if score >= threshold and (worst is None or score > worst.score):
            each = series.costs(quarter // 4).each(0.0)
            worst = _breach(each, calls, usual.mean, hours * 60, score)
    if worst:
        series.remember_drop(quarter, worst.minutes)
    return worst


class Paid(NamedTuple):
    """What calls of some hours have cost in millionths, and what is known of such from before."""

    known: int
    micros: int
    squares: int
    before: Costs

    @property
    def expected(self) -> float:
        """What as many calls usually cost."""
        return self.before.micros * self.known / self.before.known


def paid(series: Series, hour: int) -> dict[int, Paid]:
    """Of the hours before that one, by how many; none where there is nothing to compare."""
    known, micros, squares = series.known, series.micros, series.squares
    found: dict[int, Paid] = {}
    calls = cost = squared = 0
    end = hour
    for hours in SPEND_HOURS:
        for each in range(hour - hours, end):
            if each in known:
                calls += known[each]
                cost += micros.get(each, 0)
                squared += squares.get(each, 0)
        end = hour - hours
        if calls and (before := series.costs(end)).known >= _KNOWN_LEAST:
            found[hours] = Paid(calls, cost, squared, before)
    return found


def overspent(many: Iterable[Mapping[int, Paid]], hours: int) -> Decimal:
    """How much more the calls of these hours have cost than as many of each usually do."""
    parts = [of[hours] for of in many if hours in of]
    return _money(sum([part.micros - part.expected for part in parts]) / MICROS)


def spend(many: Sequence[Mapping[int, Paid]], *, threshold: float) -> Breach | None:
    """Whether the calls of the last hours cost too much: as many usually cost less.

    `many`: what was `paid` in each of several series. No call may be in two of them; each is held
    against what its own calls usually cost, so that their sum may change as they come and go. That
    there are too many calls is `surge`'s to say.
    """
    if not any(SPEND_HOURS[0] in of and of[SPEND_HOURS[0]].micros for of in many):
        return None
    worst: Breach | None = None
    for hours in SPEND_HOURS:
        parts = [of[hours] for of in many if hours in of]
        known = sum([part.known for part in parts])
        if known < _SPEND_LEAST:
            continue
        micros = sum([part.micros for part in parts])
        expected = sum([part.expected for part in parts])
        if micros < _SPEND_FACTOR * expected:
            continue
        squares = sum([part.squares for part in parts]) * _PER_SQUARE**2
        if squares > _ONE_CALL * micros**2:
            continue
        before = _together([part.before for part in parts])
        # Where calls were free so far, those that are not say how much they differ.
        unit = before.unit or max(1.0, squares / micros)
        strength = 1 / (1 / before.known + _SPEND_SPREAD)
        score = too_much(micros / unit, expected / unit, strength)
        if score >= threshold and (worst is None or score > worst.score):
            excess, spent = _money((micros - expected) / MICROS), _money(micros / MICROS)
            worst = Breach(known, known, 60 * hours, score, excess, spent)
    return worst


def _together(costs: Sequence[Costs]) -> Costs:
    return Costs(
        sum([each.known for each in costs]),
        sum([each.micros for each in costs]),
        sum([each.squares for each in costs]),
    )


def _breach(
    each: float, calls: int, usual: float, minutes: int, score: float, *, is_usual: bool = False
) -> Breach:
    excess, spent = _money(each * abs(calls - usual) / MICROS), _money(each * calls / MICROS)
    return Breach(calls, usual, minutes, score, excess, spent, is_usual)


def _money(amount: float) -> Decimal:
    return Decimal(round(amount, 6)).quantize(Decimal("0.000001"))
