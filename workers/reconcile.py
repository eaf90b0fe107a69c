"""The search for webhooks that never came: what Telnyx lists and we were never told is scheduled.

It goes through each source page by page, notes its progress after each, and waits where Telnyx
wants it to. What it finds is recorded as if its webhook had come; what it finds again folds, so a
page that is read twice does no harm.
"""

import asyncio
import enum
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias

from msgspec.structs import replace

from service.events import Scheduling
from service.store import Recorded, Store
from workers.answer import Failure, Invalid, NotReady, RateLimited, Refused, Transient
from workers.interruption import heed_cancellation
from workers.ledger import Book
from workers.listings import Listing, Row, fingerprint
from workers.span import Span
from workers.telnyx import TelnyxClient
from workers.walk import (
    SOURCES,
    Progress,
    Source,
    Tally,
    Walk,
    after_nothing,
    after_page,
    after_refusal,
    by_hand,
    by_schedule,
    finished,
)

MOST_PAGES: Final = 400
"""Of one source in one search; the next goes on from there."""

# How long one question may be put off before the search is left to the next one.
PATIENCE_SECONDS: Final = 300.0
_BACK_OFF_SECONDS: Final = (2.0, 60.0)
_UNKNOWN_FILTER: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})

Plan: TypeAlias = Callable[[Source, Progress], Progress]
Sleep: TypeAlias = Callable[[float], Awaitable[object]]


class Outcome(enum.StrEnum):
    """How a search ended."""

    WHOLE = "whole"
    CAPPED = "capped"
    RATE_LIMITED = "rate_limited"
    TRANSIENT = "transient"
    REFUSED = "refused"
    INVALID = "invalid"


# What keeps us from one list keeps us from the others, too.
_FOR_ALL: Final = frozenset({Outcome.RATE_LIMITED, Outcome.TRANSIENT, Outcome.REFUSED})


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a search stopped early, in a word and in words."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of one source."""

    source: str
    span: Span
    tally: Tally
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a search. Sources that it did not get to are not in it."""

    searched: tuple[Searched, ...]

    @property
    def stop(self) -> Stop | None:
        """Why it is not whole, or None."""
        return next((found.stop for found in self.searched if found.stop), None)

    @property
    def outcome(self) -> Outcome:
        """How it ended, in a word."""
        return self.stop.outcome if self.stop else Outcome.WHOLE

    @property
    def tally(self) -> Tally:
        """Of all sources together."""
        total = Tally()
        for found in self.searched:
            total = total.plus(found.tally)
        return total


class Watcher(Protocol):
    """Who is told how it goes."""

    def page(self, source: Source, walk: Walk) -> None:
        """One more page; `walk` is how things stand after it."""
        ...

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """A session that is to be worked on because of this."""
        ...

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        """Telnyx is asked again only after so long."""
        ...


class Recorder(Protocol):
    """What is done with an event that a list told of."""

    async def __call__(self, told: Scheduling, *, unless_told: bool) -> Recorded:
        """Do it, or say what would come of it."""
        ...


@dataclass(frozen=True, slots=True)
class Recording:
    """Events are recorded."""

    store: Store
    now_ms: Callable[[], int]

    async def __call__(self, told: Scheduling, *, unless_told: bool) -> Recorded:
        """As if the webhook had come now."""
        return await self.store.record(told, now_ms=self.now_ms(), unless_told=unless_told)


@dataclass(slots=True)
class Looking:
    """Nothing is recorded; what would be is remembered, so that each session counts once."""

    store: Store
    _sessions: dict[str, bool] = field(default_factory=dict)
    """Whether more than a list would have told of it."""
    _keys: set[tuple[str, str]] = field(default_factory=set)

    async def __call__(self, told: Scheduling, *, unless_told: bool) -> Recorded:
        """What recording would do, after all that it would have done before."""
        outcome = await self.store.would_record(told, unless_told=unless_told)
        if outcome in {Recorded.DUPLICATE, Recorded.KNOWN}:
            return outcome
        session_id = told.session_id
        if unless_told and self._sessions.get(session_id):
            return Recorded.KNOWN
        if (session_id, told.key) in self._keys:
            return Recorded.DUPLICATE
        self._keys.add((session_id, told.key))
        first = session_id not in self._sessions
        self._sessions[session_id] = not unless_told or self._sessions.get(session_id, False)
        return outcome if first else Recorded.MERGED


@dataclass(slots=True)
class Reconciler:
    """Goes through all sources. Redis' errors and LeaseLost pass through."""

    telnyx: TelnyxClient
    record: Recorder
    now_ms: Callable[[], int]
    retention_ms: int
    masked: bool = True
    most_pages: int = MOST_PAGES
    sleep: Sleep = asyncio.sleep

    async def on_schedule(self, book: Book, watcher: Watcher, *, margin_ms: int) -> Report:
        """From where the last search ended until `margin_ms` ago."""
        now = self.now_ms()

        def plan(source: Source, progress: Progress) -> Progress:
            oldest_ms, until_ms = now - self.retention_ms, now - margin_ms
            return by_schedule(source, progress, oldest_ms=oldest_ms, until_ms=until_ms)

        return await self._search(plan, book, watcher)

    async def through(self, wanted: Span, book: Book, watcher: Watcher) -> Report:
        """Through that span, or what an earlier search left of it."""
        return await self._search(
            lambda source, progress: by_hand(source, progress, wanted), book, watcher
        )

    async def _search(self, plan: Plan, book: Book, watcher: Watcher) -> Report:
        known = await book.load()
        searched: list[Searched] = []
        for source in SOURCES:
            progress = plan(source, known.get(source.name, Progress()))
            found = await self._go(_Trip(source, plan, book, watcher), progress)
            searched.append(found)
            if found.stop and found.stop.outcome in _FOR_ALL:
                break
        report = Report(tuple(searched))
        await book.close(whole=report.stop is None, now_ms=self.now_ms())
        return report

    async def _go(self, trip: "_Trip", progress: Progress) -> Searched:
        """Through one source: the walk to go on with, and then what has come since."""
        tally, span = progress.tally, progress.done
        stop: Stop | None = None
        while progress.walk and not stop:
            begun = progress.walk
            walk, stop = await self._walk(trip, progress, begun)
            tally, span = tally.plus(walk.tally), _spanning(span, walk.span)
            if stop:
                break
            progress = finished(progress, walk)
            await trip.book.save(trip.source.name, progress)
            if begun == Walk(begun.span):
                break
            progress = trip.plan(trip.source, progress)
        return Searched(trip.source.name, span or Span(0, 0), tally, stop)

    async def _walk(
        self, trip: "_Trip", progress: Progress, walk: Walk
    ) -> tuple[Walk, Stop | None]:
        """The walk as far as it could be gone, and why not to its end."""
        source, before = trip.source, b""
        for _ in range(self.most_pages):
            heed_cancellation()
            if not walk.page:
                return walk, None
            answer = await self._ask(trip, walk)
            if isinstance(answer, Listing):
                mark = fingerprint(answer.rows)
                if answer.rows and mark == before:
                    answer = Invalid(0, "the list answers every page with the same rows")
                before = mark
            following = await self._following(trip, walk, answer)
            if isinstance(following, Stop):
                if following.outcome is Outcome.INVALID:
                    # The next search asks from the beginning: this page may be what is wrong.
                    await trip.book.save(source.name, replace(progress, walk=None))
                return walk, following
            walk = following
            await trip.book.save(source.name, replace(progress, walk=walk))
            trip.watcher.page(source, walk)
        words = f"more than {self.most_pages} pages of {source.name}: the next search goes on"
        return walk, Stop(Outcome.CAPPED, words) if walk.page else None

    async def _following(self, trip: "_Trip", walk: Walk, answer: Listing | Failure) -> Walk | Stop:
        """The walk after that answer."""
        if isinstance(answer, Listing):
            return await self._page(trip, walk, answer)
        if isinstance(answer, Invalid) and answer.status in _UNKNOWN_FILTER:
            other = after_refusal(trip.source, walk)
            if other:
                return replace(other, tally=replace(walk.tally, pages=walk.tally.pages + 1))
        return _stop(trip.source, answer)

    async def _page(self, trip: "_Trip", walk: Walk, listing: Listing) -> Walk:
        source, now = trip.source, self.now_ms()
        rows = tuple(source.read(row, now, self.masked) for row in listing.rows)
        tally = await self._take(trip, [row for row in rows if _is_inside(row, walk.span)])
        if rows:
            walk = after_page(source, walk, rows, listing.total_pages)
        else:
            walk = after_nothing(source, walk)
        return replace(walk, tally=walk.tally.plus(replace(tally, pages=1)))

    async def _take(self, trip: "_Trip", rows: list[Row]) -> Tally:
        """What becomes of a page's rows that lie in the span."""
        oldest_ms = self.now_ms() - self.retention_ms
        told = [row for row in rows if row.told]
        young = [row for row in told if row.told and row.told.event.at_ms >= oldest_ms]
        outcomes = await asyncio.gather(*(self._record(trip, row) for row in young))
        return Tally(
            rows=len(rows),
            known=sum(outcome in _KNOWN for outcome in outcomes),
            scheduled=outcomes.count(Recorded.SCHEDULED),
            merged=outcomes.count(Recorded.MERGED),
            too_old=len(told) - len(young),
            no_interest=sum(not row.told and not row.broken for row in rows),
            unreadable=sum(row.broken for row in rows),
        )

    async def _record(self, trip: "_Trip", row: Row) -> Recorded:
        assert row.told
        outcome = await self.record(row.told, unless_told=row.unless_told)
        if outcome is Recorded.SCHEDULED:
            trip.watcher.found(trip.source, row.told)
        return outcome

    async def _ask(self, trip: "_Trip", walk: Walk) -> Listing | Failure:
        """The page, or what still keeps us from it after all patience."""
        source, waited, times = trip.source, 0.0, 0
        query = source.query(walk.wanted, walk.level, walk.page)
        while True:
            answer = await self.telnyx.listing(source.endpoint, query)
            seconds = seconds_to_wait(answer, times)
            if seconds is None or waited + seconds > PATIENCE_SECONDS:
                return answer
            trip.watcher.waiting(source, seconds, getattr(answer, "reason", ""))
            await self.sleep(seconds)
            waited, times = waited + seconds, times + 1


@dataclass(frozen=True, slots=True)
class _Trip:
    """What goes along through one source."""

    source: Source
    plan: Plan
    book: Book
    watcher: Watcher


_KNOWN: Final = frozenset({Recorded.DUPLICATE, Recorded.KNOWN})


def _is_inside(row: Row, span: Span) -> bool:
    """A row without a time cannot be read, which is to be counted somewhere."""
    return row.at_ms is None or span.holds(row.at_ms)


def _spanning(one: Span | None, other: Span) -> Span:
    if one is None:
        return other
    return Span(min(one.since_ms, other.since_ms), max(one.until_ms, other.until_ms))


def seconds_to_wait(answer: object, times: int) -> float | None:
    """Seconds until the question may be asked again, where that helps."""
    match answer:
        case RateLimited(retry_after_seconds=seconds):
            return seconds + random.uniform(0, 0.5)  # noqa: S311 - no secret depends on it
        case Transient(shut_seconds=shut):
            first, longest = _BACK_OFF_SECONDS
            return max(shut, min(first * 2.0**times, longest))
        case _:
            return None


def _stop(source: Source, answer: Failure) -> Stop:
    match answer:
        case RateLimited() | Transient() | Refused():
            return stop_for(source.endpoint, answer)
        case NotReady(reason=reason) | Invalid(reason=reason):
            return Stop(Outcome.INVALID, f"{source.name}: cannot be read: {reason}")


def stop_for(endpoint: str, answer: RateLimited | Transient | Refused) -> Stop:
    """Why a search stops at what any other question would meet, too."""
    match answer:
        case RateLimited(reason=reason):
            return Stop(Outcome.RATE_LIMITED, f"{endpoint}: rate-limited: {reason}")
        case Transient(reason=reason):
            return Stop(Outcome.TRANSIENT, f"{endpoint}: no answer: {reason}")
        case Refused(reason=reason):
            return Stop(Outcome.REFUSED, f"{endpoint}: refused: {reason}")
