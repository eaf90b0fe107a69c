"""The search in front of a simulated Telnyx and a real Redis: what it finds, asks for and survives.

The simulator keeps a clock that stands still, and sleeping only moves that clock.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from service.events import Scheduling, read_event
from service.records import Session, State
from service.store import Store
from tests.samples import scheduling
from tests.world.clock import ManualClock, later, utc
from tests.world.model import Call
from tests.world.webhooks import events_for
from tests.world.world import World
from workers import reconcile as reconcile_module
from workers.ledger import HAND, SCHEDULE, Blank, LeaseLost, Ledger
from workers.listings import DETAIL_RECORD
from workers.reconcile import Looking, Outcome, Reconciler, Recording, Report
from workers.span import Span
from workers.telnyx import TelnyxClient
from workers.walk import SOURCES, Source, Tally, Walk

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START = utc(1_790_000_000)


@dataclass
class Notes:
    """All that the search told."""

    pages: list[tuple[str, int]] = field(default_factory=list)
    sessions: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    on_page: Callable[[], None] = lambda: None

    def page(self, source: Source, walk: Walk) -> None:
        self.pages.append((source.name, walk.page))
        self.on_page()

    def found(self, source: Source, scheduling: Scheduling) -> None:
        self.sessions.append((source.name, scheduling.session_id))

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        self.waits.append(seconds)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Desk:
    """A Telnyx with calls, and a search of it."""

    world: World
    clock: ManualClock
    redis: Redis
    store: Store
    telnyx: TelnyxClient
    notes: Notes = field(default_factory=Notes)
    most_pages: int = reconcile_module.MOST_PAGES

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def ago(self, **time: float) -> int:
        return self.now_ms() - int(timedelta(**time).total_seconds() * 1000)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def reconciler(self, *, dry: bool = False) -> Reconciler:
        return Reconciler(
            self.telnyx,
            Looking(self.store) if dry else Recording(self.store, self.now_ms),
            self.now_ms,
            retention_ms=DAY_MS,
            most_pages=self.most_pages,
            sleep=self.pass_time,
        )

    def calls(self, count: int = 1, kind: str = "sip_outbound", **ago: float) -> list[Call]:
        """So many calls, a second apart, the last of which ended that long ago."""
        end = utc(self.ago(**(ago or {"minutes": 30})) / 1000)
        return [self.world.call(kind, end=later(end, -number)) for number in range(count)]

    def never_arrived(self, *calls: Call) -> None:
        for call in calls:
            self.world.telnyx.deliveries.never_arrived(events_for(call))

    async def scheduled(self, margin_ms: int = 0) -> Report:
        async with Ledger(self.redis, who="w").holding(SCHEDULE) as book:
            return await self.reconciler().on_schedule(book, self.notes, margin_ms=margin_ms)

    async def by_hand(self, *, since_ms: int | None = None, until_ms: int | None = None) -> Report:
        wanted = Span(since_ms or self.ago(hours=6), until_ms or self.now_ms())
        async with Ledger(self.redis, who="h").holding(HAND) as book:
            return await self.reconciler().through(wanted, book, self.notes)

    async def dry(self) -> Report:
        wanted = Span(self.ago(hours=6), self.now_ms())
        return await self.reconciler(dry=True).through(wanted, Blank(), self.notes)

    async def session(self, call: Call) -> Session:
        found = await self.store.session(call.session_id)
        assert found
        return found

    def asked(self, of: str = "") -> list[dict[str, str]]:
        """The questions of one source, or of all."""
        return [
            dict(request.query)
            for request in self.world.telnyx.requests
            if of in {"", request.path.rpartition("/")[2], request.query.get("filter[record_type]")}
        ]

    def statuses(self) -> set[int | None]:
        return {request.status for request in self.world.telnyx.requests}


@pytest.fixture
async def desk(redis: Redis) -> AsyncIterator[Desk]:
    """Everything, an hour after the first moment."""
    clock = ManualClock(START)
    clock.advance(3600)
    async with (
        World(clock=clock, seed=5) as world,
        TelnyxClient(world.telnyx_url, world.api_key, version="1") as telnyx,
    ):
        yield Desk(world, clock, redis, Store(redis, retention_ms=DAY_MS), telnyx)


# --- what is found --------------------------------------------------------------------------------


async def test_a_webhook_that_never_came_is_found(desk: Desk) -> None:
    """Its session is scheduled from the original event, with all that the webhook would say."""
    [call] = desk.calls(kind="ai_inbound")
    desk.never_arrived(call)
    report = await desk.scheduled()
    session = await desk.session(call)
    assert (report.outcome, report.tally.scheduled) == (Outcome.WHOLE, 1)
    assert session.call.assistant_id == call.assistant_id
    assert abs(session.end_ms - call.end.timestamp() * 1000) < 2
    kinds = {event.kind for event in session.events}
    assert kinds == {"call.hangup", "call.conversation.ended", "call.analyzed"}


async def test_a_call_is_found_by_its_records(desk: Desk) -> None:
    """Of a call that Telnyx never tried to tell of; all its records join in one session."""
    [call] = desk.calls(kind="ai_inbound")
    report = await desk.scheduled()
    session = await desk.session(call)
    assert report.tally.scheduled == 1
    assert {event.kind for event in session.events} == {DETAIL_RECORD}
    assert session.call.connection_id == call.connection_id
    assert session.conversation_ids == (call.conversation_id,)
    assert [id for _, id in desk.notes.sessions] == [call.session_id]


@pytest.mark.parametrize("kind", ["sip_inbound", "sip_outbound", "webrtc", "failed", "conference"])
async def test_every_kind_of_call_is_found_by_its_records(desk: Desk, kind: str) -> None:
    """Each leaves a record of a type that is searched."""
    [call] = desk.calls(kind=kind)
    await desk.scheduled()
    assert (await desk.session(call)).state is State.OPEN


async def test_a_second_search_finds_nothing(desk: Desk) -> None:
    """It sees the same again, and changes nothing."""
    calls = desk.calls(3) + desk.calls(2, kind="webrtc")
    desk.never_arrived(*calls[:2])
    assert (await desk.scheduled()).tally.scheduled == 5
    before = [await desk.session(call) for call in calls]
    again = (await desk.scheduled()).tally
    assert (again.scheduled, again.merged) == (0, 0)
    assert again.known + again.no_interest == again.rows > 0
    assert [await desk.session(call) for call in calls] == before


async def test_what_did_arrive_is_known(desk: Desk) -> None:
    """A listed event that the web process has recorded is the same event, and changes nothing."""
    [call] = desk.calls(kind="ai_inbound")
    desk.never_arrived(call)
    for event in events_for(call):
        read = read_event(event.body(), event.content_type, received_ms=desk.now_ms())
        if isinstance(read, Scheduling):
            await desk.store.record(read, now_ms=desk.now_ms())
    before = await desk.session(call)
    tally = (await desk.scheduled()).tally
    assert (tally.scheduled, tally.merged, tally.known) == (0, 0, tally.rows)
    assert await desk.session(call) == before


async def test_records_do_not_touch_what_webhooks_told_of(desk: Desk) -> None:
    """Whatever they say of it."""
    [call] = desk.calls()
    await desk.store.record(scheduling(call.session_id), now_ms=desk.now_ms())
    before = await desk.session(call)
    report = await desk.scheduled()
    assert (report.tally.scheduled, report.tally.merged) == (0, 0)
    assert report.tally.known > 0
    assert await desk.session(call) == before


async def test_nothing_beyond_the_retention_is_scheduled(desk: Desk) -> None:
    """An event that is older than what is kept may have been known and forgotten."""
    [old] = desk.calls(hours=25)
    [young] = desk.calls(hours=23)
    desk.never_arrived(old, young)
    report = await desk.by_hand(since_ms=desk.ago(hours=48))
    assert (report.tally.scheduled, report.tally.too_old > 0) == (1, True)
    assert await desk.store.session(old.session_id) is None
    await desk.session(young)


async def test_only_the_span_is_searched(desk: Desk) -> None:
    """With both its ends."""
    early, middle, late = (desk.calls(minutes=ago)[0] for ago in (50, 30, 10))
    await desk.by_hand(since_ms=desk.ago(minutes=40), until_ms=desk.ago(minutes=20))
    assert [id for _, id in desk.notes.sessions] == [middle.session_id]
    assert await desk.store.session(early.session_id) is None
    assert await desk.store.session(late.session_id) is None


async def test_a_record_that_is_posted_late_is_found_by_the_overlap(desk: Desk) -> None:
    """A later search looks once more at what an earlier one has been through."""
    first = await desk.scheduled()
    assert first.tally.scheduled == 0
    # It ended before the first search, and is listed only now.
    [call] = desk.calls(minutes=90)
    desk.clock.advance(HOUR_MS / 1000)
    assert (await desk.scheduled()).tally.scheduled == 1
    assert await desk.store.session(call.session_id)


async def test_looking_counts_each_session_once_and_records_nothing(desk: Desk) -> None:
    """As recording would, whether deliveries or records tell of it."""
    calls = desk.calls(2, kind="ai_inbound") + desk.calls(2, kind="conference")
    desk.never_arrived(*calls[::2])
    desk.never_arrived(calls[0])
    looked = await desk.dry()
    assert await desk.redis.keys() == []
    done = await desk.by_hand()
    assert looked.tally == done.tally
    assert done.tally.scheduled == 4


# --- what is asked --------------------------------------------------------------------------------


async def test_pages_are_as_large_as_they_may_be(desk: Desk) -> None:
    """50 records or 250 deliveries, and no page is asked for twice."""
    desk.never_arrived(*desk.calls(130, kind="sip_inbound"))
    report = await desk.scheduled()
    assert report.tally.scheduled == 130
    numbers = [query["page[number]"] for query in desk.asked("sip-trunking")]
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    assert len(numbers) >= 3
    assert {query["page[size]"] for query in desk.asked("sip-trunking")} == {"50"}
    assert {query["page[size]"] for query in desk.asked("webhook_deliveries")} == {"250"}


@pytest.mark.parametrize("unknown", ["refused", "empty"])
async def test_filters_that_a_list_does_not_know_are_done_without(desk: Desk, unknown: Any) -> None:
    """Whether it refuses them or answers with nothing, all is found, newest first."""
    desk.world.telnyx.knows_filters = False
    desk.world.telnyx.unknown_filters = unknown
    old, calls = desk.calls(3, hours=23), desk.calls(60, kind="webrtc")
    desk.never_arrived(*calls[:5], *old)
    report = await desk.scheduled()
    assert report.outcome is Outcome.WHOLE
    assert report.tally.scheduled == 60
    assert [await desk.store.session(call.session_id) for call in old] == [None] * 3
    filters = [sum(name.startswith("filter[") for name in query) for query in desk.asked("webrtc")]
    assert filters[0] == 3
    assert set(filters[1:]) == {1}


async def test_without_filters_the_search_ends_at_the_span(desk: Desk) -> None:
    """And does not go through all that Telnyx remembers."""
    desk.world.telnyx.knows_filters = False
    desk.calls(500, kind="webrtc", hours=20)
    desk.calls(10, kind="webrtc")
    await desk.scheduled()
    # One that was refused, one with the ten, one that is all too old.
    assert len(desk.asked("webrtc")) <= 3


async def test_a_quiet_hour_is_verified_without_filters(desk: Desk) -> None:
    """That there is nothing is believed only of a list that was not narrowed."""
    report = await desk.scheduled()
    assert report.outcome is Outcome.WHOLE
    assert len(desk.asked("webhook_deliveries")) == 3
    assert len(desk.asked("webrtc")) == 2


async def test_a_list_that_does_not_turn_its_pages_is_left(desk: Desk) -> None:
    """The same page for ever is no list; the others are searched all the same."""
    [call] = desk.calls(kind="webrtc")
    body = b'{"data": [{"webhook": null}], "meta": {"total_pages": 9}}'
    desk.world.telnyx.faults.garbage(body, path="webhook_deliveries", times=None)
    report = await desk.scheduled()
    assert report.outcome is Outcome.INVALID
    assert report.stop
    assert "the same rows" in report.stop.reason
    assert len(desk.asked("webhook_deliveries")) == 2
    assert await desk.store.session(call.session_id)


async def test_pages_that_are_too_deep_are_asked_for_from_the_front(desk: Desk) -> None:
    """A list that refuses later pages is asked for what is left of the span."""
    desk.calls(120, kind="webrtc")
    await desk.scheduled()
    whole = {id for _, id in desk.notes.sessions}
    await desk.redis.flushall()
    desk.notes = Notes(on_page=lambda: _refuse_third_page(desk))
    report = await desk.scheduled()
    assert (report.outcome, {id for _, id in desk.notes.sessions}) == (Outcome.WHOLE, whole)


def _refuse_third_page(desk: Desk) -> None:
    if desk.notes.pages[-1] == ("webrtc", 3):
        desk.world.telnyx.faults.status(400, path="detail_records")


# --- waiting, stopping, going on ------------------------------------------------------------------


async def test_a_rate_limit_is_waited_for(desk: Desk) -> None:
    """As long as Telnyx says; then the search goes on with the page that was refused."""
    desk.world.telnyx.limit(4)
    desk.never_arrived(*desk.calls(120, kind="webrtc"))
    report = await desk.scheduled()
    assert report.outcome is Outcome.WHOLE
    assert report.tally.scheduled == 120
    assert desk.notes.waits
    assert all(0 < seconds <= 61 for seconds in desk.notes.waits)


async def test_a_passing_outage_is_waited_for(desk: Desk) -> None:
    """With longer and longer pauses; then the search goes on as if nothing had been."""
    [call] = desk.calls()
    desk.world.telnyx.faults.status(503, times=3)
    report = await desk.scheduled()
    assert (report.outcome, desk.notes.waits) == (Outcome.WHOLE, [2, 4, 8])
    assert await desk.store.session(call.session_id)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (503, Outcome.TRANSIENT),
        (429, Outcome.RATE_LIMITED),
        (403, Outcome.REFUSED),
        (401, Outcome.REFUSED),
    ],
)
async def test_what_does_not_pass_stops_the_search(
    desk: Desk, status: int, outcome: Outcome
) -> None:
    """After minutes of patience or at once; it says why, and the next search finds all."""
    [call] = desk.calls()
    desk.never_arrived(call)
    fault = desk.world.telnyx.faults.status(status, times=None)
    report = await desk.scheduled()
    assert report.outcome is outcome
    assert report.stop
    assert str(status) in report.stop.reason
    assert sum(desk.notes.waits) <= 300
    assert [found.source for found in report.searched] == ["webhook_deliveries"]
    fault.times = 0
    assert (await desk.scheduled()).outcome is Outcome.WHOLE
    assert await desk.store.session(call.session_id)


async def test_an_account_without_funds_is_named(desk: Desk) -> None:
    """In Telnyx's own words."""
    desk.world.telnyx.disabled = True
    report = await desk.scheduled()
    assert report.stop
    assert "Account is disabled D17" in report.stop.reason


@pytest.mark.parametrize("status", [404, 400])
async def test_a_list_that_is_not_there_hides_no_other(desk: Desk, status: int) -> None:
    """It is named; what the others tell is found."""
    [call] = desk.calls()
    desk.world.telnyx.faults.status(status, path="webhook_deliveries", times=None)
    report = await desk.scheduled()
    assert report.outcome is Outcome.INVALID
    assert len(report.searched) == len(SOURCES)
    assert await desk.store.session(call.session_id)


async def test_a_killed_search_goes_on_at_its_page(desk: Desk) -> None:
    """It asks only for what the first had not been through."""
    desk.calls(230, kind="sip_inbound")
    await _dies_at(desk, "sip-trunking", 4)
    first = len(desk.asked("sip-trunking"))
    assert (first, len(desk.notes.sessions)) == (3, 150)
    report = await desk.scheduled()
    asked = [query["page[number]"] for query in desk.asked("sip-trunking")[first:]]
    # The rest of it, and then what has come since, which is one walk more.
    assert asked == ["4", "5", "1", "2", "3", "4", "5"]
    assert report.outcome is Outcome.WHOLE
    assert len(desk.notes.sessions) == 230


async def _dies_at(desk: Desk, source: str, page: int, *, by_hand: bool = False) -> None:
    """A search that is killed before it asks for that page."""

    def dies() -> None:
        if desk.notes.pages[-1] == (source, page):
            raise Killed

    desk.notes.on_page = dies
    with pytest.raises(Killed):
        await (desk.by_hand() if by_hand else desk.scheduled())
    desk.notes.on_page = lambda: None


async def test_a_search_by_hand_goes_on_and_says_what_both_found(desk: Desk) -> None:
    """The report is that of the whole span, whoever died in between."""
    desk.calls(230, kind="sip_inbound")
    await _dies_at(desk, "sip-trunking", 4, by_hand=True)
    desk.clock.advance(5)
    report = await desk.by_hand()
    assert (report.outcome, report.tally.scheduled) == (Outcome.WHOLE, 230)
    # All five pages once, and then the five seconds that have passed since.
    numbers = [query["page[number]"] for query in desk.asked("sip-trunking")]
    assert numbers[:5] == ["1", "2", "3", "4", "5"]
    assert report.searched[0].span.until_ms == desk.now_ms()


async def test_too_many_pages_are_left_to_the_next_search(desk: Desk) -> None:
    """It says so, and the next goes on from there."""
    desk.calls(230, kind="sip_inbound")
    desk.most_pages = 3
    first, second = await desk.scheduled(), await desk.scheduled()
    assert first.stop
    assert first.stop.outcome is second.outcome is Outcome.CAPPED
    assert "more than 3 pages of sip-trunking" in first.stop.reason
    assert len(desk.notes.sessions) == 230
    numbers = [query["page[number]"] for query in desk.asked("sip-trunking")]
    # The rest, and then as much as may be of the new walk.
    assert numbers == ["1", "2", "3", "4", "5", "1", "2", "3"]


async def test_who_loses_the_lease_stops(desk: Desk) -> None:
    """At the next page at the latest: somebody else may be at it."""
    desk.calls(130, kind="webrtc")
    ledger = Ledger(desk.redis, who="w")

    async def search() -> None:
        async with ledger.holding(SCHEDULE) as book:
            await desk.redis.flushall()
            await desk.reconciler().on_schedule(book, desk.notes, margin_ms=0)

    with pytest.raises(LeaseLost):
        await search()
    assert len(desk.asked()) == 1


async def test_broken_rows_are_counted_and_hide_none(desk: Desk) -> None:
    """The rows around them are read."""
    rows = b'{"data": [7, {"webhook": {"event_type": "call.hangup", "id": "1", "payload": {'
    rows += b'"call_session_id": "s"}}, "finished_at": "2026-09-21T14:50:00Z"}, {}]}'
    desk.world.telnyx.faults.garbage(rows, path="webhook_deliveries")
    report = await desk.scheduled()
    [deliveries, *_] = report.searched
    assert deliveries.tally.unreadable == 2
    assert deliveries.tally.scheduled == 1
    assert deliveries.tally.plus(Tally()) == deliveries.tally
