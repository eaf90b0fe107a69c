"""Too many calls or too much money at once, the shapes of toll fraud, and calls that fall away.

Pure. A call counts in several series: the account's, that of its assistant or connection, that of
the prefix it dialled, and those of the shapes that it has. It counts when it begins, if that is
heard of (see `service.counting`): many calls at once are to be told of before they end. A hangup
has no direction, so no series has one. What is found is told once for each episode, and of one
thing that shows in several series only one is told.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias

from service.counting import (
    ACCOUNT,
    CALLS,
    ONE_NUMBER,
    ONE_PREFIX,
    SHAPES,
    SHORT_CALLS,
    SHORT_SECONDS,
    counted_cost,
)
from service.owning import ALONE_MS, KNOWN_MS
from workers.detection.finding import Finding
from workers.detection.series import Breach, Series, drop, may_drop, overspent, paid, spend, surge
from workers.detection.usual import History

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
_HOUR_MINUTES: Final = 60
_QUARTER_MS: Final = 15 * MINUTE_MS

SPEND: Final = "spend_velocity"
DROP: Final = "drop"
KINDS: Final = (CALLS, SPEND, *SHAPES, DROP)

_FALSE_PER_MONTH: Final = 0.02
"""Surges by chance alone that a month may have, over all series and looks."""
_FALSE_SPENDS_PER_MONTH: Final = 0.02
_FALSE_DROPS_PER_MONTH: Final = 0.3
_LOOKS: Final = 28 * (288 + 96 + 24)
"""In a month, of one series, as far as they do not look at the same calls."""
_SPEND_LOOKS: Final = 28 * 25
_DROP_LOOKS: Final = 28 * 24
_COUNTRY: Final = 2
"""Letters of a country's name."""
_OF_A_PART: Final = 0.1
"""A new assistant may have as many calls as all others; a new prefix less likely so."""
_NEAR_A_DROP: Final = 0.75
"""Of the usual calls, the share below which the next quarter of an hour is looked at."""
_LEAST_SERIES: Final = 10
_FIRST_HOURS: Final = 25
"""Of an account, in which nothing is known to be usual: a day, and the longest window."""
_QUIET_MS: Final = 60 * MINUTE_MS
"""An episode is over when it has been quiet for so long."""
_QUIET_SLOWLY_MS: Final = 12 * HOUR_MS
"""One of a drop or of a day's money."""
_EXPLAINED: Final = 0.5
"""What is told of in another series need not be told again if that is so much of it."""
_SHOWN: Final = Decimal("0.5")
"""Of money that runs in one series, that which is most of it in another."""
_AS_STRANGE: Final = 0.9
"""Of the strangest one's score, that which is about as strange."""
_EXPLAINED_DROP: Final = 1 / 3
"""Of a drop: where all fall away together, one of them is told of first."""
_LONGEST_JUMP: Final = 16
"""Quarters of an hour without a call that are looked at one by one."""


class Passed(NamedTuple):
    """A call and its end. Times in milliseconds since 1970; `cost` as far as it is known."""

    ended_ms: int
    started_ms: int | None
    entity: str
    """Its assistant, or else its connection."""
    country: str
    """Of the number that was dialled, as "DE"; "" where it is not known."""
    prefix: str
    """The first digits that were dialled; "" where they are not known."""
    number: str
    """Stands for the number that was dialled, without being it."""
    block: str
    """Stands for that number and its neighbours."""
    duration_seconds: int | None
    cost: Decimal | None
    connection: str = ""
    """What it came in or went out by, where its beginning was heard of."""


def is_place(cohort: str) -> bool:
    """Whether it is where calls go to: a dialled prefix or a country."""
    return cohort.startswith("+") or (len(cohort) == _COUNTRY and cohort.isupper())


class Key(NamedTuple):
    """Which series: all calls of a cohort, or those of them that have a shape."""

    kind: str
    cohort: str

    @property
    def is_whole(self) -> bool:
        """Whether it is all calls of the account, an assistant or a connection."""
        return self.kind == CALLS and not is_place(self.cohort)

    @property
    def rank(self) -> int:
        """From the account to what says most."""
        if self.kind != CALLS:
            return 3
        return 2 if self.is_entity else int(self.cohort != ACCOUNT)

    @property
    def is_priced_place(self) -> bool:
        """Whether it is all calls to a country: what calls to a prefix cost is not known."""
        return self.kind == CALLS and is_place(self.cohort) and self.cohort[0] != "+"

    @property
    def says(self) -> int:
        """How much it says of whose calls they are."""
        return 2 if self.is_owned else int(self.cohort != ACCOUNT)

    @property
    def is_owned(self) -> bool:
        """Whether it is calls of one assistant or connection."""
        return self.cohort != ACCOUNT and not is_place(self.cohort)

    def is_apart(self, other: "Key") -> bool:
        """Whether no call is in both: each counts for one assistant or connection."""
        return self.cohort != other.cohort and self.is_owned and other.is_owned

    @property
    def is_entity(self) -> bool:
        """Whether it is all calls of an assistant or connection."""
        return self.is_whole and self.cohort != ACCOUNT


@dataclass(slots=True)
class Episode:
    """Something that is out of the ordinary and goes on. `last_ms` is when it was seen last."""

    begin_ms: int
    last_ms: int
    over: float
    told: bool
    """By itself or by another, of which it is a part. Not so, where bursts like it are usual."""
    by: Key | None = None
    """The other by which it was told."""


_Keyed: TypeAlias = Sequence[tuple[Key, Series]]


class Underway(NamedTuple):
    """A call that has begun: where, for whom and in which hour it was counted."""

    series: _Keyed
    owner: str
    """"" where its end is to tell."""
    hour: int


class Velocity:
    """All series of an account. What happens comes in the order of time.

    `least_excess` is the smallest excess in money that is told of.
    """

    def __init__(self, *, least_excess: Decimal = Decimal(0), currency: str = "USD") -> None:
        self._least = least_excess
        self._currency = currency
        self.series: dict[Key, Series] = {}
        """Made by `of`, each of them."""
        self._whole: list[tuple[Key, Series]] = []
        self._priced: list[tuple[Key, Series]] = []
        """Those of them that are looked at every hour."""
        self.episodes: dict[Key, Episode] = {}
        self._of_places: dict[tuple[str, str], _Keyed] = {}
        """Those of the series that calls to the same places belong to."""
        self._of_owners: dict[str, _Keyed] = {}
        """Likewise those of the same assistant or connection."""
        self._takers: dict[str, tuple[int, int, str]] = {}
        """By connection, since when, when last, and who takes its calls."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._numbers_hour = 0
        self._quarter = 0
        self._may_drop = 1

    def call(self, passed: Passed) -> list[Finding]:
        """Counts a call that began unheard; what it, and the time until it, shows."""
        underway, found = self.begin(passed, passed.ended_ms)
        return found + self.end(passed, underway, passed.ended_ms)

    def begin(self, passed: Passed, now_ms: int) -> tuple[Underway, list[Finding]]:
        """Counts a call that begins; what it, and the time until it, shows."""
        found = self.advance(now_ms)
        hour = now_ms // HOUR_MS
        owner = self._owner(passed, now_ms)
        series = [*self._wholes(passed, hour), *self._owned(passed, owner, hour)]
        return Underway(series, owner, hour), found + self._count(series, now_ms)

    def end(self, passed: Passed, underway: Underway, now_ms: int) -> list[Finding]:
        """Its end, which tells what it was and cost: what that, and the time until it, shows."""
        found = self.advance(now_ms)
        hour = now_ms // HOUR_MS
        ended = self._ended(passed, underway.owner, now_ms)
        if ended:
            found = found + self._count(ended, now_ms)
        if passed.cost is not None:
            paid_hour = hour if hour // 24 == underway.hour // 24 else underway.hour
            micros = counted_cost(passed.cost)
            for key, series in underway.series:
                # What is kept of a session does not tell which digits were dialled.
                if key.cohort[0] != "+":
                    series.pay(paid_hour, micros)
            for _, series in ended:
                series.pay(hour, micros)
        if passed.connection:
            self._note_taker(passed)
        return found

    def _count(self, counted: _Keyed, now_ms: int) -> list[Finding]:
        minute = now_ms // MINUTE_MS
        for _, series in counted:
            series.count(minute)
        breaches = self._surges(counted, minute)
        return self._tell(breaches, now_ms) if breaches else []

    def advance(self, now_ms: int) -> list[Finding]:
        """What time itself shows: that calls do not come, and what an hour or a day cost."""
        quarter = now_ms // _QUARTER_MS
        if quarter == self._quarter:
            return []
        found: list[Finding] = []
        first = max(self._quarter + 1, quarter - _LONGEST_JUMP) if self._quarter else quarter
        for each in range(first, quarter + 1):
            found += self._at_quarter(each)
        if quarter // 96 != self._quarter // 96:
            for series in self.series.values():
                series.forget(quarter // 4)
        self._quarter = quarter
        return found

    def look(self, now_ms: int) -> list[Finding]:
        """What all series show now, for whoever counted in another place."""
        breaches = self._surges(list(self.series.items()), now_ms // MINUTE_MS)
        return self._at_quarter(now_ms // _QUARTER_MS) + self._tell(breaches, now_ms)

    def of(self, key: Key, hour: int) -> Series:
        """The series, made at that hour where it is new."""
        found = self.series.get(key)
        if found is None:
            # A shape has been looked for as long as its calls have been counted.
            whole = self.series.get(Key(CALLS, key.cohort)) if key.kind in SHAPES else None
            begin = whole.history.begin_hour if whole else hour
            found = self.series[key] = Series(History(begin))
            if key.is_whole:
                self._whole.append((key, found))
            if key.is_priced_place:
                self._priced.append((key, found))
        return found

    def _owner(self, passed: Passed, now_ms: int) -> str:
        """For whom a call counts as it begins; "" where its end is to tell."""
        if passed.connection and not self._lone_taker(passed.connection, now_ms):
            return ""
        return self._owner_at_end(passed, now_ms)

    def _owner_at_end(self, passed: Passed, now_ms: int) -> str:
        """As `service.owning` does in the end: whom an event names, or is presumed."""
        if passed.entity != passed.connection:
            return passed.entity
        return self._lone_taker(passed.connection, now_ms) or passed.connection

    def _lone_taker(self, connection: str, at_ms: int) -> str:
        since_ms, last_ms, taker = self._takers.get(connection, (0, -KNOWN_MS, ""))
        is_alone = taker == connection or last_ms - since_ms >= ALONE_MS
        return taker if is_alone and at_ms - last_ms <= KNOWN_MS else ""

    def _note_taker(self, passed: Passed) -> None:
        connection, new, at_ms = passed.connection, passed.entity, passed.ended_ms
        since_ms, last_ms, taker = self._takers.get(connection, (0, 0, ""))
        if at_ms - last_ms > KNOWN_MS:
            taker = ""
        if not taker or taker == new or new != connection:
            self._takers[connection] = since_ms if taker == new else at_ms, at_ms, new

    def _wholes(self, passed: Passed, hour: int) -> _Keyed:
        """The series of the account, and of the places that a call goes to."""
        of = (passed.country, passed.prefix)
        found = self._of_places.get(of)
        if found is None:
            keys = [Key(CALLS, cohort) for cohort in (ACCOUNT, *of) if cohort]
            found = self._of_places[of] = [(key, self.of(key, hour)) for key in keys]
        return found

    def _owned(self, passed: Passed, owner: str, hour: int) -> _Keyed:
        """The series of its assistant or connection, and of the shape that it has by its number."""
        if not owner:
            return []
        found = self._of_owners.get(owner)
        if found is None:
            key = Key(CALLS, owner)
            found = self._of_owners[owner] = [(key, self.of(key, hour))]
        shape = self._shape(passed, owner, hour)
        if not shape:
            return found
        key = Key(shape, owner)
        return [*found, (key, self.of(key, hour))]

    def _ended(self, passed: Passed, owner: str, now_ms: int) -> _Keyed:
        """The series in which a call counts by what its end tells."""
        hour = now_ms // HOUR_MS
        whose = owner or self._owner_at_end(passed, now_ms)
        series = [] if owner else self._owned(passed, whose, hour)
        seconds = passed.duration_seconds
        if seconds is None and passed.started_ms is not None:
            seconds = (passed.ended_ms - passed.started_ms) // 1000
        if whose and seconds is not None and seconds <= SHORT_SECONDS:
            key = Key(SHORT_CALLS, whose)
            series = [*series, (key, self.of(key, hour))]
        return series

    def _shape(self, passed: Passed, owner: str, hour: int) -> str:
        if not passed.number:
            return ""
        if hour != self._numbers_hour:
            self._numbers, self._numbers_hour = {}, hour
        # Both are counted, whatever the first shows.
        seen, number, block = self._numbers, (owner, passed.number), (owner, passed.block)
        times = seen[number] = seen.get(number, 0) + 1
        near = seen[block] = seen.get(block, 0) + 1
        return shape_of(times, near)

    def _surges(self, touched: _Keyed, minute: int) -> list[tuple[Key, Breach]]:
        busy = [
            each for each in touched if each[1].stirs(minute) and not self._is_seen(each[0], minute)
        ]
        if not busy:
            return []
        threshold = _threshold(_LOOKS, max(_LEAST_SERIES, len(self.series)), _FALSE_PER_MONTH)
        account = self.series.get(Key(CALLS, ACCOUNT))
        if account is None or minute // 60 < account.history.begin_hour + _FIRST_HOURS:
            return []
        expected = account.history.usual(minute // 60).mean
        each = account.costs(minute // 60).each(0.0)
        breaches = []
        for key, series in busy:
            prior = expected if key.is_entity else _OF_A_PART * expected
            breach = surge(series, minute, prior=prior, each=each, threshold=threshold)
            if breach and breach.excess >= self._least:
                breaches.append((key, breach))
        # The strangest first, which explains the others: a shape only where it is the strange
        # thing, and of those that are about as strange the one that says most.
        alike = _AS_STRANGE * max((breach.score for _, breach in breaches), default=0.0)
        return sorted(breaches, key=lambda each: (-min(each[1].score, alike), -each[0].rank))

    def _is_seen(self, key: Key, minute: int) -> bool:
        """Whether what goes on there has been looked at in this minute."""
        episode = self.episodes.get(key)
        return episode is not None and episode.last_ms // MINUTE_MS == minute

    def _at_quarter(self, quarter: int) -> list[Finding]:
        # What costs time is done once an hour; for the account more often where few calls come.
        if quarter % 4:
            key = Key(CALLS, ACCOUNT)
            account = self.series.get(key)
            if account is None or account.share > _NEAR_A_DROP:
                return []
            breaches = self._drops([(key, account)], quarter)
        else:
            breaches = self._drops(self._whole, quarter) + self._spends(quarter // 4)
        return self._tell(breaches, quarter * _QUARTER_MS) if breaches else []

    def _drops(self, wholes: _Keyed, quarter: int) -> list[tuple[Key, Breach]]:
        may = [each for each in wholes if may_drop(each[1], quarter // 4)]
        if quarter % 4 == 0:
            self._may_drop = len(may)
        threshold = _threshold(_DROP_LOOKS, self._may_drop, _FALSE_DROPS_PER_MONTH)
        found = ((Key(DROP, key.cohort), drop(s, quarter, threshold=threshold)) for key, s in may)
        return [(key, breach) for key, breach in found if breach]

    def _spends(self, hour: int) -> list[tuple[Key, Breach]]:
        """Of the account all its assistants and connections together, each against its own usual.

        What runs to a place runs from somebody: it must show there, too. So a place is not blamed
        for a new assistant, or for a dear one that calls there more often.
        """
        owned = [(key, paid(series, hour)) for key, series in self._whole if key.is_entity]
        owners = [of for _, of in owned]
        places = [(key, paid(series, hour)) for key, series in self._priced]
        looked_at = [(key, [of]) for key, of in [*owned, *places]]
        looked_at.append((Key(CALLS, ACCOUNT), owners))
        threshold = _threshold(_SPEND_LOOKS, len(looked_at), _FALSE_SPENDS_PER_MONTH)
        breaches = []
        for key, many in looked_at:
            breach = spend(many, threshold=threshold)
            if breach is None or breach.excess < self._least:
                continue
            if key.is_priced_place:
                shown = overspent(owners, breach.minutes // _HOUR_MINUTES)
                if shown < _SHOWN * breach.excess:
                    continue
            breaches.append((Key(SPEND, key.cohort), breach))
        # The first is told: the one that says most of those that are about as much.
        alike = _SHOWN * max((breach.excess for _, breach in breaches), default=Decimal(0))
        return sorted(breaches, key=lambda each: (-min(each[1].excess, alike), -each[0].says))

    def _tell(self, breaches: Iterable[tuple[Key, Breach]], now_ms: int) -> list[Finding]:
        told = []
        for key, breach in breaches:
            episode = self.episodes.get(key)
            if episode and now_ms - episode.last_ms <= _quiet_ms(key.kind):
                episode.last_ms = now_ms
                episode.over = max(episode.over, breach.over)
                if breach.is_usual or (episode.told and not episode.by):
                    continue
                # Calls of several together may have outgrown those of one that was told of.
                may_outgrow = key.kind == CALLS and not key.is_owned
                if episode.by and (not may_outgrow or self._explaining(key, breach, now_ms)):
                    continue
            other = None if breach.is_usual else self._explaining(key, breach, now_ms)
            explained = self.episodes[other] if other else None
            is_told = explained.told if explained else not breach.is_usual
            by = explained.by or other if explained and explained.told else None
            self.episodes[key] = Episode(now_ms, now_ms, breach.over, is_told, by)
            if is_told and not other:
                told.append(finding(key, breach, now_ms, self._currency))
        return told

    def _explaining(self, key: Key, breach: Breach, now_ms: int) -> Key | None:
        """The other series whose episode goes on and is most of it; None where none is.

        Of the account's calls several assistants together may be: the first of them then.
        """
        may = [other for other in self.episodes if self._may_explain(other, key, breach, now_ms)]
        most = (other for other in may if self._is_most([other], key, breach, now_ms))
        found = next(most, None)
        if found or key != Key(CALLS, ACCOUNT):
            return found
        owners = [other for other in may if other.is_entity]
        return owners[0] if owners and self._is_most(owners, key, breach, now_ms) else None

    def _may_explain(self, other: Key, key: Key, breach: Breach, now_ms: int) -> bool:
        episode = self.episodes[other]
        since_ms = now_ms - episode.last_ms
        goes_on = since_ms <= max(_quiet_ms(other.kind), breach.minutes * MINUTE_MS)
        # What is usual of an assistant says something of its parts, not of another's.
        says = episode.told or (other.is_entity and not key.is_entity)
        is_like = (key.kind == DROP) == (other.kind == DROP)
        # Where prices rise or calls fall away for everybody, that is one thing all the same.
        is_one = key.kind in {DROP, SPEND} or not key.is_apart(episode.by or other)
        return other != key and goes_on and says and is_like and is_one

    def _is_most(self, others: Sequence[Key], key: Key, breach: Breach, now_ms: int) -> bool:
        if key.kind == SPEND:
            return True
        if key.kind == DROP:
            return self.episodes[others[0]].over >= _EXPLAINED_DROP * breach.over
        found = [self.series[other] for other in others if other in self.series]
        calls = sum(series.last(now_ms // MINUTE_MS, breach.minutes) for series in found)
        return calls >= _EXPLAINED * breach.over


def _threshold(looks: int, series: int, false_per_month: float) -> float:
    """The score that so many looks at so many series pass by chance no more often than that."""
    return math.log10(looks * max(1, series) / false_per_month)


def shape_of(times: int, near: int) -> str:
    """The shape that a call has by its number; "" for none.

    `times`: how often this hour its assistant or connection had that number, this call included;
    `near`: it or a neighbour.
    """
    if times > 1:
        return ONE_NUMBER
    return ONE_PREFIX if near > 1 else ""


def _quiet_ms(kind: str) -> int:
    return _QUIET_SLOWLY_MS if kind in {DROP, SPEND} else _QUIET_MS


_HARDLY: Final = 0.1
_FEW: Final = 3
_WHAT: Final[Mapping[str, str]] = {
    CALLS: "calls",
    SPEND: "calls",
    SHORT_CALLS: f"calls of at most {SHORT_SECONDS} seconds",
    ONE_NUMBER: "repeated calls to the same numbers",
    ONE_PREFIX: "calls to numbers beside each other",
    DROP: "calls",
}


def finding(key: Key, breach: Breach, now_ms: int, currency: str) -> Finding:
    """What is told of the breach with which an episode begins."""
    begin = now_ms // MINUTE_MS
    return Finding(
        id=f"{key.kind}:{key.cohort}:{begin}",
        kind=key.kind,
        cohort=key.cohort,
        from_ms=now_ms - breach.minutes * MINUTE_MS,
        to_ms=now_ms,
        at_ms=now_ms,
        score=breach.score,
        excess=breach.excess,
        text=_sentence(key, breach, currency),
    )


def _sentence(key: Key, breach: Breach, currency: str) -> str:
    whose, what = named(key.cohort), _WHAT[key.kind]
    stretch, usual = _stretch(breach.minutes), _rounded(breach.usual)
    spent, excess = f"{breach.spent:,.2f} {currency}", f"{breach.excess:,.2f}"
    match key.kind:
        case "drop":
            return f"{whose}: only {breach.calls:,} calls in {stretch}, usual {usual} at this time"
        case "spend_velocity":
            return (
                f"{whose}: {spent} in {stretch} for {breach.calls:,} calls, {excess} over the usual"
            )
        case _:
            return (
                f"{whose}: {breach.calls:,} {what} in {stretch}, usual {usual} at this hour; "
                f"about {spent}, {excess} over"
            )


def named(cohort: str) -> str:
    """The cohort, as the beginning of a sentence."""
    if cohort == ACCOUNT:
        return "The account"
    if is_place(cohort):
        return f"Calls to {cohort}"
    return f"Assistant {cohort}" if cohort.startswith("assistant") else f"Connection {cohort}"


def _stretch(minutes: int) -> str:
    if minutes < _HOUR_MINUTES:
        return f"{minutes} minutes"
    return "an hour" if minutes == _HOUR_MINUTES else f"{minutes // _HOUR_MINUTES} hours"


def _rounded(number: float) -> str:
    if number < _HARDLY:
        return "hardly any"
    return f"{number:.1f}" if number < _FEW else f"{number:,.0f}"
