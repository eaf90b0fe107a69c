"""Learning from the past in front of a simulated Telnyx and a real Redis.

The simulator keeps a clock that stands still, and sleeping only moves that clock.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from service import keys
from service.events import Scheduling
from service.records import Conclusion, State, Verdict, Watch
from service.store import Store
from tests.samples import scheduling
from tests.world.clock import ManualClock, later, utc
from tests.world.model import Call
from tests.world.webhooks import events_for
from tests.world.world import World
from workers.analysis import encode_analysis
from workers.answer import Invalid, Meaning, NotReady, RateLimited, Ready, Refused, Transient
from workers.backfill import Backfill, CameTo, Glance, Outlook, Report, outlook
from workers.backlog import Backlog, holding, is_taken
from workers.baselines import Baselines
from workers.detection.baseline import DAY_MS, DAYS
from workers.detection.ladder import Ladder
from workers.ledger import Blank, Busy, LeaseLost
from workers.policy import BUILT_IN
from workers.products import CALL_SESSION
from workers.reconcile import Outcome, Reconciler
from workers.settle import Schedule
from workers.span import Span
from workers.telnyx import TelnyxClient
from workers.walk import Source, Walk

pytestmark = pytest.mark.anyio

START = utc(1_790_000_000)
AGES = Schedule.of_seconds((90, 300))


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Notes:
    """All that was told; `on_done` and `on_page` may break in."""

    pages: list[tuple[str, int]] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    on_page: Callable[[], None] = lambda: None
    on_done: Callable[[int], None] = lambda _: None

    def page(self, source: Source, walk: Walk) -> None:
        self.pages.append((source.name, walk.page))
        self.on_page()

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """Nothing."""

    def done(self, done: int, total: int) -> None:
        self.progress.append((done, total))
        self.on_done(done)

    def waiting(self, seconds: float, reason: str) -> None:
        self.waits.append(seconds)

    def unreadable(self, session_id: str, reason: str) -> None:
        self.unread[session_id] = reason


@dataclass
class ListNotes:
    """For the lists: their waits say which list."""

    notes: Notes

    def page(self, source: Source, walk: Walk) -> None:
        self.notes.page(source, walk)

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """Nothing."""

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        self.notes.waiting(seconds, reason)


@dataclass
class Desk:
    """A Telnyx with calls of the past."""

    world: World
    clock: ManualClock
    redis: Redis
    telnyx: TelnyxClient
    notes: Notes = field(default_factory=Notes)
    most: int = 1000

    @property
    def store(self) -> Store:
        return Store(self.redis, retention_ms=DAY_MS)

    @property
    def baselines(self) -> Baselines:
        return Baselines(self.redis, retention_ms=DAY_MS)

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    @property
    def wanted(self) -> Span:
        return Span(self.now_ms() - 14 * DAY_MS, self.now_ms() - 600_000)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def calls(self, count: int, kind: str = "ai_inbound", **ago: float) -> list[Call]:
        """So many calls, an hour apart, the last of which ended that long ago."""
        end = utc(self.clock() - timedelta(**(ago or {"hours": 5})).total_seconds())
        return [self.world.call(kind, end=later(end, -3600 * number)) for number in range(count)]

    def reconciler(self, record: Any) -> Reconciler:
        return Reconciler(
            self.telnyx, record, self.now_ms, retention_ms=2 * DAYS * DAY_MS, sleep=self.pass_time
        )

    def backfill(self, backlog: Backlog, **more: Any) -> Backfill:
        given = {
            "telnyx": self.telnyx,
            "policy": BUILT_IN,
            "taught": self.baselines,
            **more,
        }
        return Backfill(
            backlog=backlog,
            store=self.store,
            schedule=AGES,
            now_ms=self.now_ms,
            sleep=self.pass_time,
            **given,
        )

    async def learn(self, wanted: Span | None = None, **more: Any) -> Report:
        """All of it, as the command does it."""
        async with holding(self.redis, wanted or self.wanted, who="me", most=self.most) as backlog:
            lists = ListNotes(self.notes)
            searched = await self.reconciler(backlog).through(backlog.span, backlog, lists)
            backfill = self.backfill(backlog, **more)
            if searched.stop:
                return await backfill.report(searched.stop)
            return await backfill.run(self.notes)

    async def look(self) -> Outlook:
        glance = Glance()
        lists = ListNotes(self.notes)
        searched = await self.reconciler(glance).through(self.wanted, Blank(), lists)
        return await outlook(sorted(glance.ids), self.store, self.baselines, stop=searched.stop)

    async def taught(self) -> int:
        """From how many sessions the account has learned."""
        return (await self.baselines.baseline("account", self.now_ms() // DAY_MS)).calls

    def asked(self) -> list[str]:
        """The sessions that were asked for."""
        paths = [request.path for request in self.world.telnyx.requests]
        return [path.rpartition("/")[2] for path in paths if "/session_analysis/" in path]

    async def keys(self, pattern: str) -> set[str]:
        return {key.decode() for key in await self.redis.keys(pattern)}


@pytest.fixture
async def desk(redis: Redis) -> AsyncIterator[Desk]:
    """Everything."""
    clock = ManualClock(START)
    async with (
        World(clock=clock, seed=5) as world,
        TelnyxClient(world.telnyx_url, world.api_key, version="1") as telnyx,
    ):
        yield Desk(world, clock, redis, telnyx)


def ids(calls: Sequence[Call]) -> list[str]:
    return [call.session_id for call in calls]


# --- learning -------------------------------------------------------------------------------------


async def test_the_past_is_learned(desk: Desk) -> None:
    """Every call teaches; what the report says is so; nothing is alerted, no session appears."""
    calls = desk.calls(30)
    desk.world.telnyx.deliveries.never_arrived(events_for(calls[0]))
    report = await desk.learn()
    assert (report.stop, report.left, report.one_in) == (None, 0, 1), desk.notes.unread
    assert report.found == 30
    assert report.counts[CameTo.LEARNED] + report.counts.get(CameTo.APART, 0) == 30
    assert await desk.taught() == report.counts[CameTo.LEARNED] >= 25
    known = await desk.baselines.cohorts(desk.now_ms() // DAY_MS)
    assert report.cohorts == len(known) > 1
    assert report.with_a_say == sum(cohort.calls >= 20 for cohort in known) >= 1
    assert desk.notes.progress[-1] == (30, 30)
    assert await desk.keys("tollwatch:session*") == set()
    assert await desk.keys("tollwatch:alert*") | await desk.keys("tollwatch:outbox") == set()
    assert await desk.keys("tollwatch:backfill*") == set()
    await _every_key_is_known(desk)


async def _every_key_is_known(desk: Desk) -> None:
    for key in await desk.keys("tollwatch:*"):
        family = keys.family_of(key)
        assert family, key
        assert family.owned or await desk.redis.pttl(key) > 0, key


async def test_nothing_is_learned_twice(desk: Desk) -> None:
    """Called again, all is known and Telnyx is asked for no session."""
    desk.calls(8)
    await desk.learn()
    before, asked = await desk.taught(), len(desk.asked())
    again = await desk.learn()
    assert again.counts == {CameTo.BEFORE: 8}
    assert (await desk.taught(), len(desk.asked())) == (before, asked)


async def test_calls_are_judged_in_the_order_of_their_ends(desk: Desk) -> None:
    """However long each answer takes."""
    calls = desk.calls(20, "sip_inbound")
    slow = set(ids(calls)[::3])
    taught: list[str] = []

    class Slow:
        """Some answers take longer than others."""

        async def analysis(self, record_type: str, event_id: str, **more: Any) -> Meaning:
            if event_id in slow:
                for _ in range(3):
                    await desk.telnyx.analysis(record_type, event_id, **more)
            return await desk.telnyx.analysis(record_type, event_id, **more)

    class Noting(Baselines):
        """It remembers who taught."""

        async def learn(self, session_id: str, *lesson: Any, **more: Any) -> bool:
            taught.append(session_id)
            return await super().learn(session_id, *lesson, **more)

    noting = Noting(desk.redis, retention_ms=DAY_MS)
    await desk.learn(telnyx=Slow(), taught=noting)
    assert taught == ids(calls)[::-1]


async def test_what_is_strange_does_not_teach(desk: Desk) -> None:
    """It is kept apart, as a worker does it, and counted."""
    desk.calls(30, "sip_inbound")
    dear = desk.calls(1, "wrong_rate", hours=1)
    report = await desk.learn()
    assert report.counts[CameTo.APART] >= 1
    taught = await desk.baselines.lesson(dear[0].session_id)
    assert taught
    account = await desk.baselines.baseline("account", desk.now_ms() // DAY_MS)
    assert account.calls == report.counts[CameTo.LEARNED]


async def test_what_redis_has_is_not_asked_for(desk: Desk) -> None:
    """A verdict's stored analysis teaches; an open session is left to the workers."""
    judged, waiting, untold = desk.calls(3)
    answer = await desk.telnyx.analysis(CALL_SESSION, judged.session_id)
    assert isinstance(answer, Ready)
    verdict = Verdict(at_ms=1, total=judged.total, currency="USD")
    await _tell(desk, judged, waiting)
    await _conclude(desk, judged, verdict, encode_analysis(answer.analysis))
    desk.world.telnyx.requests.clear()
    outlook = await desk.look()
    assert (outlook.found, outlook.waiting, outlook.stored, outlook.asked) == (3, 1, 1, 1)
    report = await desk.learn()
    assert report.counts == {CameTo.LEARNED: 2, CameTo.WAITING: 1}
    assert desk.asked() == [untold.session_id]


async def _tell(desk: Desk, *calls: Call) -> None:
    for call in calls:
        await desk.store.record(
            scheduling(call.session_id, at_ms=int(call.end.timestamp() * 1000)),
            now_ms=desk.now_ms(),
        )


async def _conclude(desk: Desk, call: Call, verdict: Verdict, analysis: bytes) -> None:
    await desk.redis.hset(keys.session_key(call.session_id), "token", "t")  # type: ignore[misc]
    session = await desk.store.take(call.session_id, "t")
    assert session
    conclusion = Conclusion(
        State.VERDICT, Watch(), None, "", answered=True, verdict=verdict, analysis=analysis
    )
    concluded = await desk.store.conclude(session, "t", conclusion, now_ms=desk.now_ms())
    assert concluded.is_written


async def test_a_stored_cost_that_never_settled_teaches_nothing(desk: Desk) -> None:
    """As with the workers."""
    [call] = desk.calls(1)
    answer = await desk.telnyx.analysis(CALL_SESSION, call.session_id)
    assert isinstance(answer, Ready)
    await _tell(desk, call)
    verdict = Verdict(at_ms=1, total=Decimal(1), currency="USD", settled=False)
    await _conclude(desk, call, verdict, encode_analysis(answer.analysis))
    assert (await desk.learn()).counts == {CameTo.UNFIT: 1}
    assert await desk.taught() == 0


async def test_another_currency_teaches_nothing(desk: Desk) -> None:
    """It cannot be compared."""
    desk.calls(1)
    euros = BUILT_IN.model_copy(update={"currency": "EUR"})
    assert (await desk.learn(policy=euros)).counts == {CameTo.UNFIT: 1}


async def test_a_look_changes_nothing(desk: Desk) -> None:
    """It says what would be asked for."""
    calls = desk.calls(60, "sip_outbound")
    desk.world.telnyx.deliveries.never_arrived(events_for(calls[0]))
    outlook = await desk.look()
    assert (outlook.found, outlook.asked, outlook.stop) == (60, 60, None)
    assert await desk.redis.keys() == []
    assert desk.asked() == []


# --- what breaks it off ---------------------------------------------------------------------------


async def test_a_killed_run_goes_on_where_it_stopped(desk: Desk) -> None:
    """At the page, and at the session, where it died; the numbers are those of all runs."""
    calls = desk.calls(120, "sip_outbound")

    def kill_at_page() -> None:
        if desk.notes.pages[-1] == ("sip-trunking", 3):
            raise Killed

    def kill_at_session(done: int) -> None:
        if done == 40:
            raise Killed

    wanted = desk.wanted
    desk.notes.on_page = kill_at_page
    with pytest.raises(Killed):
        await desk.learn(wanted)
    await _every_key_is_known(desk)
    desk.notes.on_page, desk.notes.on_done = lambda: None, kill_at_session
    with pytest.raises(Killed):
        await desk.learn(wanted)
    await _every_key_is_known(desk)
    asked = desk.asked()
    desk.notes.on_done = lambda _: None
    desk.clock.advance(60)
    report = await desk.learn(desk.wanted)
    pages = [number for name, number in desk.notes.pages if name == "sip-trunking"]
    assert pages == [2, 3, 4, 5, 0]
    assert report.found == sum(report.counts.values()) == 120
    assert report.counts[CameTo.LEARNED] == await desk.taught()
    # Those that were asked for ahead are asked for again, and no others.
    assert set(asked) | set(desk.asked()) == set(ids(calls))
    assert len(desk.asked()) <= 120 + 16


async def test_another_span_begins_anew(desk: Desk) -> None:
    """What an earlier run left of another one is forgotten."""
    desk.calls(3)

    def kill(_: int) -> None:
        raise Killed

    desk.notes.on_done = kill
    with pytest.raises(Killed):
        await desk.learn()
    desk.notes.on_done = lambda _: None
    earlier = Span(desk.wanted.since_ms - DAY_MS, desk.wanted.until_ms)
    report = await desk.learn(earlier)
    assert report.counts == {CameTo.BEFORE: 1, CameTo.LEARNED: 2}


async def test_one_learns_at_a_time(desk: Desk) -> None:
    """And whoever has lost the lease stops at the next session."""
    desk.calls(3)
    async with holding(desk.redis, desk.wanted, who="other"):
        with pytest.raises(Busy):
            await desk.learn()
    async with holding(desk.redis, desk.wanted, who="me") as backlog:
        await desk.reconciler(backlog).through(backlog.span, backlog, ListNotes(desk.notes))
        await desk.redis.delete(keys.BACKFILL_LEASE)
        with pytest.raises(LeaseLost):
            await desk.backfill(backlog).run(desk.notes)
        with pytest.raises(LeaseLost):
            await backlog(scheduling("s"), unless_told=False)


async def test_a_rate_limit_is_waited_for(desk: Desk) -> None:
    """All is learned in the end."""
    desk.calls(12, "sip_outbound")
    desk.world.telnyx.limit(5, 60.0)
    report = await desk.learn()
    assert (report.stop, report.found) == (None, 12)
    assert desk.notes.waits
    assert 429 in {request.status for request in desk.world.telnyx.requests}


async def test_a_limit_that_lets_nothing_through_ends_it(desk: Desk) -> None:
    """After all patience; what is left is for the next run."""
    desk.calls(2)

    class Busy:
        """The workers take all there is."""

        async def analysis(self, *_: Any, **__: Any) -> Meaning:
            return RateLimited(60, "nothing may be asked before")

    report = await desk.learn(telnyx=Busy())
    assert report.stop
    assert report.stop.outcome is Outcome.RATE_LIMITED
    assert report.left == 2
    assert (await desk.learn()).counts == {CameTo.LEARNED: 2}


async def test_a_disabled_account_ends_it_and_loses_nothing(desk: Desk) -> None:
    """It says so; the next run learns from all."""
    desk.calls(4)

    def disable() -> None:
        desk.world.telnyx.disabled = desk.notes.pages[-1] == ("ai-voice-assistant", 0)

    desk.notes.on_page = disable
    report = await desk.learn()
    assert report.stop
    assert report.stop.outcome is Outcome.REFUSED
    assert "D17" in report.stop.reason
    assert (report.left, report.found) == (4, 4)
    desk.notes.on_page = lambda: None
    desk.world.telnyx.disabled = True
    # Nothing is left to be read of the lists.
    assert (await desk.learn()).stop
    desk.world.telnyx.disabled = False
    report = await desk.learn()
    assert (report.stop, report.found, report.left) == (None, 4, 0)
    assert await desk.taught() == 4


async def test_lists_that_are_refused_end_it(desk: Desk) -> None:
    """Before anything is asked for."""
    desk.calls(2)
    desk.world.telnyx.disabled = True
    report = await desk.learn()
    assert report.stop
    assert report.stop.outcome is Outcome.REFUSED
    assert desk.asked() == []


async def test_what_cannot_be_read_stops_nothing(desk: Desk) -> None:
    """A session that has no cost, one that nobody may see, one that is junk: each is told."""
    calls = desk.calls(6)
    gone, refused, junk, wrong, broken = ids(calls[:5])
    answers: dict[str, Meaning] = {
        gone: NotReady(404, "unknown"),
        refused: Refused(403, "no access to it"),
        junk: Transient("200 with an unreadable body"),
        wrong: Invalid(422, "no such thing"),
    }

    class Moody:
        """Most sessions are answered."""

        async def analysis(self, record_type: str, event_id: str, **more: Any) -> Meaning:
            if event_id == broken:
                raise ZeroDivisionError("+4915112345678")
            given = answers.get(event_id)
            return given or await desk.telnyx.analysis(record_type, event_id, **more)

    report = await desk.learn(telnyx=Moody())
    assert report.counts == {CameTo.NO_COST: 1, CameTo.UNREADABLE: 4, CameTo.LEARNED: 1}
    assert (report.stop, report.left) == (None, 0)
    assert desk.notes.unread == {
        refused: "session_analysis: refused: no access to it",
        junk: "session_analysis: no answer: 200 with an unreadable body",
        wrong: "no such thing",
        broken: "ZeroDivisionError: …78",
    }


async def test_a_cost_on_which_judging_breaks_stops_nothing(desk: Desk) -> None:
    """It is told, and the others are learned from."""
    desk.calls(2)

    class Breaking(Baselines):
        """It fails at first."""

        failed = False

        async def ladder(self, names: Sequence[str], day: int) -> Ladder:
            if not self.failed:
                self.failed = True
                raise ValueError("broken")
            return await super().ladder(names, day)

    report = await desk.learn(taught=Breaking(desk.redis, retention_ms=DAY_MS))
    assert report.counts == {CameTo.UNREADABLE: 1, CameTo.LEARNED: 1}
    assert list(desk.notes.unread.values()) == ["ValueError: broken"]


async def test_nobody_is_answered(desk: Desk) -> None:
    """Then it is not the sessions' fault: they stay for the next run."""
    desk.calls(2)

    class Closed:
        """A key that may see the lists only."""

        async def analysis(self, *_: Any, **__: Any) -> Meaning:
            return Refused(403, "not this key")

    report = await desk.learn(telnyx=Closed())
    assert report.stop
    assert report.stop.outcome is Outcome.REFUSED
    assert report.left == 2


# --- more sessions than there is room for ---------------------------------------------------------


async def test_of_too_many_sessions_some_are_taken(desk: Desk) -> None:
    """Evenly, by their ids, whichever came first; the report says how many."""
    calls = desk.calls(60, "webrtc")
    desk.most = 20
    report = await desk.learn()
    assert report.one_in in {4, 8}
    halvings = report.one_in.bit_length() - 1
    taken = {id for id in ids(calls) if is_taken(id, halvings)}
    assert 0 < report.found == len(taken) <= 20
    assert set(desk.asked()) == taken


async def test_a_run_that_goes_on_may_take_fewer(desk: Desk) -> None:
    """What was found before is thinned out."""
    desk.calls(60, "webrtc")
    wanted = desk.wanted
    async with holding(desk.redis, wanted, who="me") as backlog:
        await desk.reconciler(backlog).through(backlog.span, backlog, ListNotes(desk.notes))
    desk.most = 20
    report = await desk.learn(wanted)
    assert report.one_in in {4, 8}
    assert 0 < report.found <= 20


async def test_what_cannot_be_read_of_an_earlier_run_is_none(desk: Desk) -> None:
    """It begins anew."""
    await desk.redis.hset(keys.BACKFILL, "span", "junk")  # type: ignore[misc]
    desk.calls(1)
    assert (await desk.learn()).counts == {CameTo.LEARNED: 1}


async def test_a_session_ends_with_its_last_leg(desk: Desk) -> None:
    """Whatever order its events come in; records count only where no webhook told of it."""
    async with holding(desk.redis, desk.wanted, who="me") as backlog:
        told = [
            scheduling("s", "l:1", at_ms=50, ends=True),
            scheduling("s", "1", at_ms=90, ends=False),
            scheduling("s", "2", at_ms=70, ends=True),
            scheduling("s", "2", at_ms=70, ends=True),
            scheduling("s", "l:2", at_ms=80, ends=True),
        ]
        outcomes = [await backlog(each, unless_told=each.key.startswith("l:")) for each in told]
        assert [outcome.value for outcome in outcomes] == [
            "scheduled",
            "merged",
            "merged",
            "duplicate",
            "known",
        ]
        assert (await backlog.session("s")).end_ms == 70
        assert await backlog.oldest_first() == ["s"]
