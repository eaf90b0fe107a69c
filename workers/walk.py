"""How a list of Telnyx's is gone through: what is asked, when a page is the last, where to go on.

Pure. A list comes newest first, in numbered pages; what is new pushes older rows to later pages, so
a walk that goes on at its page sees rows twice but misses none. Which filters a list knows has
changed before: a field that it does not know gave a 400 at one time, and 200 without any rows at
another. So an empty first page is believed of a list without filters only, and each source has
fewer and fewer of them to fall back on.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from service.events import ANALYZED, CONFERENCE_ENDED, CONVERSATION_ENDED, COST, HANGUP
from service.records import moment
from workers.listings import DELIVERIES, RECORDS, Endpoint, Row, read_delivery, read_record
from workers.span import Span

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000

_EVENT_TYPES: Final = f"{HANGUP},{CONVERSATION_ENDED},{CONFERENCE_ENDED},{ANALYZED},{COST}"


class Filter(enum.StrEnum):
    """What narrows a list."""

    TIMES = "times"
    TYPES = "types"


Read: TypeAlias = Callable[[Any, int, bool], Row]


@dataclass(frozen=True, slots=True)
class Source:
    """One list that tells of ended calls.

    `ladder` holds the filters to ask with, and what to fall back on. `overlap_ms` is by how much a
    span begins before the end of the one before: how late a row may be listed. `slack_ms` is how
    much older than the span a row has to be to show that no later row lies in it: lists may be
    ordered by another time than the one that we go by.
    """

    name: str
    endpoint: Endpoint
    page_size: int
    time_field: str
    overlap_ms: int
    slack_ms: int
    ladder: tuple[frozenset[Filter], ...]
    read: Read
    fixed: Mapping[str, str]

    def query(self, span: Span, level: int, page: int) -> dict[str, str]:
        """The parameters that ask for that page."""
        filters = self.ladder[level]
        query = {**self.fixed, "page[number]": str(page), "page[size]": str(self.page_size)}
        if Filter.TYPES in filters:
            query["filter[event_type]"] = _EVENT_TYPES
        if Filter.TIMES in filters:
            query[f"filter[{self.time_field}][gte]"] = _iso(span.since_ms)
            query[f"filter[{self.time_field}][lte]"] = _iso(span.until_ms, round_up=True)
        return query


def _iso(at_ms: int, *, round_up: bool = False) -> str:
    """Whole seconds, as all of Telnyx's examples have them."""
    time = moment(at_ms // 1000 * 1000) + timedelta(seconds=round_up and at_ms % 1000 > 0)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _deliveries() -> Source:
    return Source(
        name=DELIVERIES,
        endpoint=DELIVERIES,
        page_size=250,
        time_field="finished_at",
        # Telnyx tries for a minute. The rest is for its own books, of which nothing is known.
        overlap_ms=30 * _MINUTE_MS,
        # By its start or by its end, a delivery is at most a minute long.
        slack_ms=5 * _MINUTE_MS,
        ladder=(
            frozenset({Filter.TIMES, Filter.TYPES}),
            frozenset({Filter.TYPES}),
            frozenset(),
        ),
        read=lambda row, now_ms, masked: read_delivery(row, now_ms=now_ms, masked=masked),
        fixed={},
    )


def _records(record_type: str, time_field: str) -> Source:
    return Source(
        name=record_type,
        endpoint=RECORDS,
        page_size=50,
        time_field=time_field,
        # Records are posted minutes to hours after a call's end.
        overlap_ms=3 * _HOUR_MS,
        # Records may be ordered by the call's start; a leg lasts at most four hours
        # (https://developers.telnyx.com/, `time_limit_secs` of Call Control's dial command).
        slack_ms=4 * _HOUR_MS,
        ladder=(frozenset({Filter.TIMES}), frozenset()),
        read=lambda row, now_ms, masked: read_record(
            row, record_type, now_ms=now_ms, masked=masked
        ),
        fixed={"filter[record_type]": record_type},
    )


# Every ended call leaves a record of one of these. What says most goes first: the event itself, and
# of the records those that name connection and numbers.
SOURCES: Final = (
    _deliveries(),
    _records("call-control", "finished_at"),
    _records("sip-trunking", "finished_at"),
    _records("webrtc", "finished_at"),
    _records("ai-voice-assistant", "completed_at"),
)


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found so far. Each row inside the span is one of known to unreadable."""

    pages: int = 0
    rows: int = 0
    known: int = 0
    scheduled: int = 0
    merged: int = 0
    too_old: int = 0
    no_interest: int = 0
    unreadable: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        names = self.__struct_fields__
        return Tally(*(getattr(self, name) + getattr(other, name) for name in names))


class Walk(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way through a list, and how far it has come: `page` is the one to ask for next."""

    span: Span
    page: int = 1
    level: int = 0
    trusted: bool = False
    """Whether these filters have brought rows, so that none is the end and not a lie."""
    reached_ms: int | None = None
    """The oldest row so far."""
    before_ms: int | None = None
    """What is later has been seen, and is not asked for any more."""
    tally: Tally = Tally()

    @property
    def wanted(self) -> Span:
        """What is still to be asked for."""
        until_ms = self.span.until_ms if self.before_ms is None else self.before_ms
        return Span(self.span.since_ms, until_ms)


def after_page(source: Source, walk: Walk, rows: tuple[Row, ...], total_pages: int | None) -> Walk:
    """The walk after a page with rows in it; `page` is 0 where that was the last."""
    times = [row.at_ms for row in rows if row.at_ms is not None]
    reached = min([*times, *([] if walk.reached_ms is None else [walk.reached_ms])], default=None)
    beyond = bool(times) and max(times) < walk.span.since_ms - source.slack_ms
    last = beyond or walk.page == total_pages
    return replace(walk, page=0 if last else walk.page + 1, trusted=True, reached_ms=reached)


def after_nothing(source: Source, walk: Walk) -> Walk:
    """The walk after a page without any rows: the end, or filters that are not to be believed."""
    lower = None if walk.trusted or walk.page > 1 else _lower(source, walk)
    return lower or replace(walk, page=0)


def after_refusal(source: Source, walk: Walk) -> Walk | None:
    """The walk after Telnyx called the question wrong; None where there is no other to ask.

    At first that must be the filters. Later on it is the number of the page: what is left of the
    span begins with a first page again.
    """
    if walk.page == 1:
        return _lower(source, walk)
    timed = Filter.TIMES in source.ladder[walk.level]
    reached = walk.reached_ms
    if not timed or reached is None or reached >= walk.wanted.until_ms:
        return None
    return replace(walk, page=1, before_ms=max(reached, walk.span.since_ms))


def _lower(source: Source, walk: Walk) -> Walk | None:
    if walk.level + 1 >= len(source.ladder):
        return None
    return replace(walk, page=1, level=walk.level + 1, trusted=False)


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far one source has been searched: what is done, and the walk under way."""

    done: Span | None = None
    walk: Walk | None = None
    tally: Tally = Tally()
    """Of finished walks, as long as the whole search is not."""


def by_schedule(source: Source, progress: Progress, *, oldest_ms: int, until_ms: int) -> Progress:
    """The walk to go on with, or a new one from where the last ended, less the overlap.

    Nothing is searched before `oldest_ms`.
    """
    if progress.walk:
        return replace(progress, walk=_within(progress.walk, oldest_ms), tally=Tally())
    done_ms = min(progress.done.until_ms, until_ms) if progress.done else until_ms
    since_ms = min(max(done_ms - source.overlap_ms, oldest_ms), until_ms)
    return Progress(progress.done, Walk(Span(since_ms, until_ms)))


def by_hand(source: Source, progress: Progress, wanted: Span) -> Progress:
    """The walk to go on with, or one through what is left of the wanted span; none: it is done.

    What is left begins with the overlap: rows of the time before it may have been listed since.
    """
    walk, done = progress.walk, progress.done
    if walk and _continues(_joined(done, walk.span), wanted):
        return progress
    if done and _continues(done, wanted):
        if done.until_ms >= wanted.until_ms:
            return replace(progress, walk=None)
        since_ms = max(done.until_ms - source.overlap_ms, wanted.since_ms)
        return replace(progress, walk=Walk(Span(since_ms, wanted.until_ms)))
    return Progress(walk=Walk(wanted))


def finished(progress: Progress, walk: Walk) -> Progress:
    """The progress once the walk has come to its end."""
    return Progress(done=_joined(progress.done, walk.span), tally=progress.tally.plus(walk.tally))


def _joined(done: Span | None, span: Span) -> Span:
    """Both as one span, where the later begins inside the earlier; otherwise the later."""
    if done and done.holds(span.since_ms):
        return Span(done.since_ms, max(done.until_ms, span.until_ms))
    return span


def _continues(earlier: Span, wanted: Span) -> bool:
    """Whether the earlier span holds the beginning of the wanted one, and goes not beyond it."""
    return earlier.holds(wanted.since_ms) and earlier.until_ms <= wanted.until_ms


def _within(walk: Walk, oldest_ms: int) -> Walk:
    since_ms = min(max(walk.span.since_ms, oldest_ms), walk.span.until_ms)
    return replace(walk, span=Span(since_ms, walk.span.until_ms))
