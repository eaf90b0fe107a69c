"""The outbox in a real Redis: each alert told once, the worst first, and never a flood."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis.asyncio import Redis
from redis.asyncio.client import Redis as RedisClient
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.outbox import NO_FLOOD, Flood, Outbox
from service.queue import Claim
from service.records import Alert, Cause, Delivery, Notice, Severity, Summary, cause_of
from service.store import Store
from tests.alerts import RETENTION_MS, alert_of, decide
from tests.samples import END_MS
from tests.world.valkey import Valkey

pytestmark = pytest.mark.anyio

LEASE_MS = 20_000
COOLDOWN_MS = 3_600_000
FLOOD = Flood(cooldown_ms=COOLDOWN_MS, burst=3, per_hour=30)
TOKEN_MS = 120_000
"""How long a token takes at thirty an hour."""


class Clock:
    """A time that only moves when it is told to."""

    def __init__(self) -> None:
        self.ms = END_MS

    def __call__(self) -> int:
        return self.ms


@dataclass
class Desk:
    """One worker's outbox and everybody's clock."""

    redis: Redis
    clock: Clock
    outbox: Outbox
    store: Store
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def put(self, session_id: str, severity: Severity = Severity.LOW, **how: Any) -> str:
        alert = alert_of(session_id, severity, at_ms=self.clock.ms, **how)
        await decide(self.redis, alert)
        return alert.id

    async def notify(self, id: str) -> bool:
        notice = Notice(id, "outage", self.clock.ms, "Telnyx is away")
        return await self.store.notify(notice, now_ms=self.clock.ms)

    async def claim(self) -> Claim | None:
        found = await self.outbox.claim(
            limit=1, lease_ms=LEASE_MS, token=f"t{id(self)}.{next(self.numbers)}"
        )
        return found[0] if found else None

    async def post(self) -> str | None:
        """Claim and post one message; its id."""
        mine = await self.claim()
        if mine is None:
            return None
        assert await self.outbox.begin(mine)
        assert await self.outbox.close(mine, Delivery.POSTED)
        return mine.id

    async def drain(self) -> list[str]:
        """Post all that may be posted now."""
        posted = []
        while (id := await self.post()) is not None:
            posted.append(id)
        return posted

    async def fate(self, id: str) -> Delivery:
        found = await self.store.item(id)
        assert found
        return found.delivery


def desk_of(redis: Redis, clock: Clock, flood: Flood = FLOOD, **options: Any) -> Desk:
    known: dict[str, Any] = {"head_start_seconds": 0, "now_ms": clock} | options
    outbox = Outbox(redis, retention_ms=RETENTION_MS, flood=flood, **known)
    return Desk(redis, clock, outbox, Store(redis, retention_ms=RETENTION_MS))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(redis: Redis, clock: Clock) -> Desk:
    return desk_of(redis, clock)


# --- order and caps -------------------------------------------------------------------------------


async def test_the_worst_comes_first_then_the_oldest(redis: Redis, clock: Clock) -> None:
    """A notice comes before every alert, a critical alert before older ones that are milder."""
    desk = desk_of(redis, clock, Flood(0, 20, 30))
    for session_id, severity in (
        ("a", Severity.LOW),
        ("b", Severity.HIGH),
        ("c", Severity.CRITICAL),
        ("d", Severity.HIGH),
    ):
        await desk.put(session_id, severity)
        clock.ms += 1
    await desk.notify("n")
    assert await desk.drain() == ["n:notice", "c:critical", "b:high", "d:high", "a:low"]


async def test_with_the_last_token_all_that_waits_becomes_one_summary(
    desk: Desk, clock: Clock
) -> None:
    """Of many alerts the worst are told alone, the rest in one message, and then nothing for long.

    Whatever comes later waits for the next token.
    """
    for number in range(30):
        await desk.put(f"s{number}", Severity.HIGH if number == 17 else Severity.LOW)
    assert await desk.drain() == ["s17:high", "s0:low", "1:summary"]
    fates = [await desk.fate(f"s{number}:low") for number in range(1, 30) if number != 17]
    assert fates == [Delivery.SUMMARIZED] * 28
    (_, why) = await _summary(desk, "1:summary")
    assert why == ("cap",)
    late = await desk.put("late", Severity.CRITICAL)
    clock.ms += TOKEN_MS - 1
    assert await desk.drain() == []
    clock.ms += 1
    assert await desk.drain() == [late]


@pytest.mark.no_cover
async def test_no_night_is_long_enough_for_a_flood(redis: Redis, clock: Clock) -> None:
    """2,500 dear calls in eight hours make at most burst and hourly rate, and each is told of."""
    desk = desk_of(redis, clock, Flood(COOLDOWN_MS, 20, 30))
    told: list[str] = []
    for number in range(2500):
        await desk.put(f"s{number}", Severity.CRITICAL, excess="7")
        clock.ms += 8 * 3_600_000 // 2500
        told += await desk.drain()
    clock.ms += COOLDOWN_MS
    told += await desk.drain()
    assert len(told) <= 20 + 30 * 9
    fates = [await desk.fate(f"s{number}:critical") for number in range(2500)]
    assert set(fates) == {Delivery.POSTED, Delivery.SUMMARIZED}
    members = {m for id in told if id.endswith(":summary") for m in await desk.store.members(id)}
    assert len(members) + len([id for id in told if id.endswith(":critical")]) == 2500


async def test_notices_cannot_crowd_out_alerts(redis: Redis, clock: Clock) -> None:
    """When tokens are short, notices and alerts take turns."""
    desk = desk_of(redis, clock, Flood(0, 1, 30))
    for number in range(3):
        await desk.notify(f"n{number}")
    await desk.put("a")
    await desk.put("b")
    told = []
    for _ in range(4):
        told += await desk.drain()
        clock.ms += TOKEN_MS
    assert told == ["n0:notice", "1:summary", "n1:notice", "n2:notice"]


async def test_a_notice_is_told_once_for_each_id(desk: Desk) -> None:
    """Whoever notices the same again adds nothing, before it is told and after."""
    assert await desk.notify("n")
    assert not await desk.notify("n")
    assert await desk.drain() == ["n:notice"]
    assert not await desk.notify("n")
    assert await desk.drain() == []


async def test_what_was_not_posted_costs_no_token(desk: Desk, clock: Clock) -> None:
    """However often Slack refuses to listen, the allowance is whole when it does again."""
    id = await desk.put("a")
    for _ in range(10):
        mine = await desk.claim()
        assert mine
        assert await desk.outbox.begin(mine)
        await desk.outbox.put_off(mine, wait_ms=1000, reason="503")
        assert await desk.claim() is None
        clock.ms += 1000
    standing = await desk.outbox.standing(now_ms=clock.ms)
    assert standing.tokens == 3
    assert standing.failing_since_ms == END_MS
    assert await desk.drain() == [id]
    assert (await desk.outbox.standing(now_ms=clock.ms)).failing_since_ms is None


# --- cool-downs -----------------------------------------------------------------------------------


async def test_the_same_cause_is_told_once_and_then_counted(desk: Desk, clock: Clock) -> None:
    """In the cool-down others of the cause are folded, and told together when it ends."""
    ids = [await desk.put(f"s{number}", assistant_id="bot") for number in range(6)]
    assert await desk.drain() == [ids[0]]
    assert [await desk.fate(id) for id in ids[1:]] == [Delivery.FOLDED] * 5
    clock.ms += COOLDOWN_MS - 1
    assert await desk.drain() == []
    clock.ms += 1
    assert await desk.drain() == ["1:summary"]
    assert await _summary(desk, "1:summary") == (ids[1:], ("cooldown",))
    # The summary begins the next one.
    again = await desk.put("again", assistant_id="bot")
    assert await desk.drain() == []
    assert await desk.fate(again) is Delivery.FOLDED


async def test_one_alert_that_was_folded_alone_is_told_alone(desk: Desk, clock: Clock) -> None:
    """A summary of one would say less than the alert itself."""
    await desk.put("a", assistant_id="bot")
    only = await desk.put("b", assistant_id="bot")
    await desk.drain()
    clock.ms += COOLDOWN_MS
    assert await desk.drain() == [only]
    assert await desk.fate(only) is Delivery.POSTED


async def test_a_rise_in_severity_passes_the_cool_down(desk: Desk) -> None:
    """Worse than what was told is told at once; as bad or milder is folded from then on."""
    await desk.put("a", Severity.MEDIUM, assistant_id="bot")
    await desk.drain()
    worse = await desk.put("b", Severity.HIGH, assistant_id="bot")
    milder = await desk.put("c", Severity.HIGH, assistant_id="bot")
    assert await desk.drain() == [worse]
    assert await desk.fate(milder) is Delivery.FOLDED


@pytest.mark.parametrize(
    "other",
    [
        {"assistant_id": "another"},
        {"assistant_id": "bot", "code": "product_cost"},
        {"assistant_id": None},
    ],
)
async def test_another_cause_is_not_folded(desk: Desk, other: dict[str, Any]) -> None:
    """Another assistant, another leading reason, or none and another connection: told alone."""
    await desk.put("a", assistant_id="bot")
    await desk.drain()
    id = await desk.put("b", **other)
    assert await desk.drain() == [id]


async def test_a_cool_down_that_is_turned_off_frees_what_it_held(
    redis: Redis, desk: Desk, clock: Clock
) -> None:
    """After a rollout with 0, what was folded is told, and nothing is folded any more."""
    for session_id in ("a", "b", "c"):
        await desk.put(session_id, assistant_id="bot")
    await desk.drain()
    off = desk_of(redis, clock, Flood(0, 3, 30))
    assert await off.drain() == ["1:summary"]
    id = await off.put("d", assistant_id="bot")
    clock.ms += TOKEN_MS
    assert await off.drain() == [id]


# --- leases and doubts ----------------------------------------------------------------------------


async def test_one_message_at_a_time_over_all_workers(
    redis: Redis, desk: Desk, clock: Clock
) -> None:
    """While one worker posts, no other is given anything; its death frees the channel."""
    other = desk_of(redis, clock)
    id = await desk.put("a")
    await desk.put("b", Severity.HIGH)
    mine = await desk.claim()
    assert mine
    assert await desk.outbox.begin(mine)
    assert await other.claim() is None
    clock.ms += LEASE_MS - 1
    assert await desk.outbox.extend({mine.id: mine.token}, lease_ms=LEASE_MS) == {mine.id}
    clock.ms += LEASE_MS - 1
    assert await other.claim() is None
    clock.ms += 1
    theirs = await other.claim()
    assert theirs
    assert (theirs.id, theirs.taken_over) == ("b:high", True)
    begun = await other.outbox.begin(theirs)
    assert begun
    assert begun.repeated
    assert await desk.outbox.begin(mine) is None
    assert await desk.outbox.extend({mine.id: mine.token}, lease_ms=1) == frozenset()
    assert await desk.outbox.put_off(mine, wait_ms=1, reason="") is None
    assert await desk.outbox.close(mine, Delivery.REFUSED) is None
    assert await other.outbox.close(theirs, Delivery.POSTED) == 1
    assert await other.drain() == [id]


async def test_a_note_succeeds_when_the_lease_is_gone(
    redis: Redis, desk: Desk, clock: Clock
) -> None:
    """What Slack has taken is noted as posted whoever holds the channel by then, and only once."""
    other = desk_of(redis, clock)
    id = await desk.put("a")
    mine = await desk.claim()
    assert mine
    assert await desk.outbox.begin(mine)
    clock.ms += LEASE_MS
    theirs = await other.claim()
    assert theirs
    assert await desk.outbox.close(mine, Delivery.POSTED) == 1
    assert await desk.fate(id) is Delivery.POSTED
    assert await other.outbox.close(theirs, Delivery.POSTED) == 0
    assert await other.drain() == []


async def test_a_late_note_outlives_the_doubt_of_another(
    redis: Redis, desk: Desk, clock: Clock
) -> None:
    """An alert noted as posted is not repeated, though its new holder could not tell by then."""
    other = desk_of(redis, clock)
    id = await desk.put("a")
    mine = await desk.claim()
    clock.ms += LEASE_MS
    theirs = await other.claim()
    assert mine
    assert theirs
    assert await other.outbox.begin(theirs)
    assert await desk.outbox.close(mine, Delivery.POSTED) == 1
    assert await other.outbox.doubt(theirs, wait_ms=1000, channel_ms=0, reason="") == 0
    clock.ms += 1000
    assert await other.drain() == []
    assert await desk.fate(id) is Delivery.POSTED


async def test_a_note_between_anothers_claim_and_its_begin_is_heard(
    redis: Redis, clock: Clock
) -> None:
    """Nothing is told again, the channel is free at once, and no message is charged for it."""
    one, other = desk_of(redis, clock), desk_of(redis, clock)
    id = await one.put("s")
    first = await one.claim()
    assert first
    assert await one.outbox.begin(first)
    clock.ms += LEASE_MS + 1
    second = await other.claim()
    assert second
    assert second.id == id
    assert await one.outbox.close(first, Delivery.POSTED) == 1
    before = (await other.outbox.standing(now_ms=clock.ms)).tokens
    assert await other.outbox.begin(second) is None
    after = (await other.outbox.standing(now_ms=clock.ms)).tokens
    assert after == pytest.approx(before + 1)
    assert await one.fate(id) is Delivery.POSTED
    await other.put("another", Severity.CRITICAL)
    assert await other.claim()


async def test_what_has_not_begun_is_given_back_with_its_token(desk: Desk) -> None:
    """A claim that is released before its post is free at once; one whose post began is not."""
    id = await desk.put("a")
    mine = await desk.claim()
    assert mine
    assert await desk.outbox.release({mine.id: mine.token}) == 1
    again = await desk.claim()
    assert again
    assert (again.id, again.taken_over) == (id, False)
    assert await desk.outbox.begin(again)
    assert await desk.outbox.release({again.id: again.token}) == 0
    assert await desk.claim() is None


async def test_a_doubtful_message_waits_apart_and_says_so(desk: Desk, clock: Clock) -> None:
    """What Slack may have taken is repeated late, marked; others go on meanwhile."""
    doubtful = await desk.put("a", Severity.HIGH)
    other = await desk.put("b")
    mine = await desk.claim()
    assert mine
    assert await desk.outbox.begin(mine)
    await desk.outbox.doubt(mine, wait_ms=900_000, channel_ms=0, reason="no answer")
    assert await desk.drain() == [other]
    clock.ms += 900_000
    again = await desk.claim()
    assert again
    assert again.id == doubtful
    begun = await desk.outbox.begin(again)
    assert begun
    assert (begun.repeated, begun.doubts, begun.failures) == (True, 1, 0)


async def test_what_cannot_be_made_into_a_message_holds_up_no_other(
    desk: Desk, clock: Clock
) -> None:
    """A message that this version cannot make is set aside, and tried again later."""
    odd = await desk.put("a", Severity.HIGH)
    other = await desk.put("b")
    mine = await desk.claim()
    assert mine
    await desk.outbox.set_aside(mine, wait_ms=1000, reason="cannot be read")
    assert await desk.drain() == [other]
    clock.ms += 1000
    assert await desk.drain() == [odd]


async def test_what_is_gone_is_dropped(desk: Desk, redis: Redis) -> None:
    """An id whose record somebody has deleted is in nobody's way."""
    gone, there = await desk.put("a", Severity.HIGH), await desk.put("b")
    await redis.delete(keys.alert_key(gone))
    assert await desk.drain() == [there]


async def test_an_alert_of_an_older_version_is_told(desk: Desk, redis: Redis) -> None:
    """One that was decided before there were causes and places has neither, and is posted."""
    id = await desk.put("a")
    await redis.hdel(keys.alert_key(id), "rank", "cause", "place", "at")  # type: ignore[misc]
    await redis.zadd(keys.OUTBOX, {id: END_MS})
    assert await desk.drain() == [id]


async def test_after_an_outage_the_summary_says_so(desk: Desk, clock: Clock) -> None:
    """What was decided while Slack was away comes with that as a reason."""
    for number in range(10):
        await desk.put(f"s{number}")
    mine = await desk.claim()
    assert mine
    await desk.outbox.put_off(mine, wait_ms=900_000, reason="503")
    clock.ms += 900_000
    assert await desk.drain() == ["s0:low", "s1:low", "1:summary"]
    (_, why) = await _summary(desk, "1:summary")
    assert why == ("cap", "outage")


# --- Redis that was away --------------------------------------------------------------------------


class Moody:
    """A script that fails while it is told to."""

    def __init__(self, script: Any) -> None:
        self.script = script
        self.is_away = False

    async def __call__(self, **how: Any) -> Any:
        if self.is_away:
            raise RedisConnectionError("gone")
        return await self.script(**how)


async def test_who_has_to_note_gets_a_head_start_after_redis_was_away(
    redis: Redis, desk: Desk, clock: Clock
) -> None:
    """A worker that met an error of Redis takes nobody's lease over until the head start is past.

    The holder's note, which comes in that time, is not anticipated by a second post.
    """
    moment = [100.0]
    other = desk_of(redis, clock, head_start_seconds=15, monotonic=lambda: moment[0])
    moment[0] += 20
    claiming = other.outbox._claim = Moody(other.outbox._claim)  # type: ignore[assignment]
    id = await desk.put("a")
    mine = await desk.claim()
    assert mine
    assert await desk.outbox.begin(mine)
    claiming.is_away = True
    with pytest.raises(RedisConnectionError):
        await other.claim()
    claiming.is_away = False
    clock.ms += LEASE_MS + 60_000
    moment[0] += 14
    assert await other.claim() is None
    assert await desk.outbox.close(mine, Delivery.POSTED) == 1
    moment[0] += 1
    assert await other.claim() is None
    assert await desk.fate(id) is Delivery.POSTED


async def test_the_head_start_holds_up_nothing_but_the_takeover(redis: Redis, clock: Clock) -> None:
    """A worker that has just started posts at once; only a lease that ran out it leaves alone."""
    fresh = desk_of(redis, clock, head_start_seconds=15, monotonic=lambda: 100.0)
    id = await fresh.put("a")
    assert await fresh.drain() == [id]
    await fresh.put("b")
    assert await fresh.claim()
    clock.ms += LEASE_MS
    assert await fresh.claim() is None


# --- lifetimes ------------------------------------------------------------------------------------


async def test_all_that_is_told_has_an_end(redis: Redis, desk: Desk, clock: Clock) -> None:
    """After the posts every key but the channel, the indexes and the sessions expires."""
    for number in range(8):
        await desk.put(f"s{number}", assistant_id="bot" if number < 4 else None)
    await desk.notify("n")
    await desk.drain()
    clock.ms += COOLDOWN_MS
    await desk.drain()
    endless = {key.decode() async for key in redis.scan_iter() if await redis.ttl(key) == -1}
    assert endless == {keys.SESSIONS, keys.ALERTS, keys.SLACK}


async def test_how_much_waits(desk: Desk, clock: Clock) -> None:
    """The depth counts all that waits, and how long the oldest in the line has."""
    await desk.put("a", Severity.HIGH)
    clock.ms += 5000
    await desk.put("b")
    depth = await desk.outbox.depth(now_ms=clock.ms + 1000)
    assert (depth.pending, depth.overdue, depth.oldest_overdue_ms) == (2, 2, 6000)


async def test_without_slack_nothing_is_held_back(redis: Redis, clock: Clock) -> None:
    """Where nothing is posted there is no cap and no cool-down."""
    desk = desk_of(redis, clock, NO_FLOOD)
    ids = [await desk.put(f"s{number}", assistant_id="bot") for number in range(40)]
    assert sorted(await desk.drain()) == sorted(ids)


async def test_a_summary_holds_as_many_as_one_step_can_bear(redis: Redis, clock: Clock) -> None:
    """Far more alerts than a summary holds come in several, none is left out."""
    desk = desk_of(redis, clock, Flood(0, 1, 3600))
    async with redis.pipeline() as pipe:
        for number in range(7000):
            id = f"s{number}:low"
            fields = {"alert": "{}", "delivery": "waiting", "rank": 1, "at": END_MS, "cause": ""}
            pipe.hset(keys.alert_key(id), mapping=fields)
            pipe.zadd(keys.OUTBOX, {id: END_MS + number})
        await pipe.execute()
    counts = []
    while (told := await desk.post()) is not None:
        counts.append(len(await desk.store.members(told)))
        clock.ms += 1000
    assert counts == [5000, 2000]


async def _summary(desk: Desk, id: str) -> tuple[list[str], tuple[str, ...]]:
    found = await desk.store.item(id)
    assert found
    assert isinstance(found.subject, Summary)
    members = await desk.store.members(id)
    assert found.subject.count == len(members)
    return members, found.subject.why


# --- any interleaving -----------------------------------------------------------------------------

CAUSES = ("x", "y", None)


@dataclass
class Told:
    """What the model knows of one alert."""

    alert: Alert
    noted: int = 0


class Channel(RuleBasedStateMachine):
    """Alerts, notices, two workers, posts of every outcome, deaths and time, in any order."""

    valkey: Valkey
    flood = Flood(cooldown_ms=600_000, burst=3, per_hour=60)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis: RedisClient = Redis.from_url(self.valkey.url, db=2)
        self.clock = Clock()
        self.desks = [desk_of(self.redis, self.clock, self.flood) for _ in range(2)]
        self.numbers = itertools.count()
        self.told: dict[str, Told] = {}
        self.notices: set[str] = set()
        self.frozen: set[str] = set()
        """Summaries that were made before."""
        self.held: list[tuple[Desk, Claim]] = []
        self.lease_ends = 0
        self.holder: str | None = None
        self.next = 0
        self.sent: list[tuple[int, str]] = []
        """When a message may have gone out, and by which claim."""
        self.cooling: dict[str, tuple[int, int]] = {}
        self.run(self.redis.flushdb())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    # --- what happens ---

    @rule(severity=st.sampled_from(Severity), cause=st.sampled_from(CAUSES))
    def an_alert(self, severity: Severity, cause: str | None) -> None:
        name = f"s{next(self.numbers):04}"
        alert = alert_of(name, severity, assistant_id=cause, at_ms=self.clock.ms)
        self.run(decide(self.redis, alert))
        self.told[alert.id] = Told(alert)

    @rule()
    def a_notice(self) -> None:
        id = f"n{next(self.numbers):04}"
        assert self.run(self.desks[0].notify(id))
        self.notices.add(f"{id}:notice")

    @rule(seconds=st.sampled_from([1, 5, 19, 20, 60, 300, 601, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.ms += seconds * 1000

    @rule(which=st.sampled_from([0, 1]))
    def claim(self, which: int) -> None:
        self._claim(self.desks[which])

    def _claim(self, desk: Desk) -> Claim | None:
        due = self._due()
        before = [id for id in self._waiting() if id not in due]
        found: Claim | None = self.run(desk.claim())
        if self.holder and self.clock.ms < self.lease_ends:
            assert found is None, "two posts at once"
            return None
        if self.clock.ms < self.next:
            assert found is None, "the channel was put off"
            return None
        if found is None:
            self.holder = None
            if self._tokens() >= 1:
                assert not self._waiting(), "something waits, and could be told"
            return None
        self._check_choice(found, before)
        self.held.append((desk, found))
        self.holder, self.lease_ends = found.token, self.clock.ms + 20_000
        self.sent.append((self.clock.ms, found.token))
        self._check_rate()
        return found

    @precondition(lambda self: self.held)
    @rule(
        how=st.sampled_from(["ok", "ok", "ok", "503", "429", "doubt", "die", "release"]),
        which=st.integers(0, 5),
    )
    def outcome(self, how: str, which: int) -> None:
        desk, mine = self.held.pop(which % len(self.held))
        is_holder = mine.token == self.holder
        if how == "release":
            assert self.run(desk.outbox.release({mine.id: mine.token})) == is_holder
            self._not_sent(mine, is_holder)
            return
        is_open = self._is_open(mine.id)
        begun = self.run(desk.outbox.begin(mine))
        assert (begun is not None) == (is_holder and is_open)
        if is_holder and not is_open:
            # Noted by who held it before: it is over, as if it had been given back.
            self._not_sent(mine, is_holder)
            return
        if how == "die" or begun is None:
            return
        if how == "ok":
            self._ok(desk, mine)
        elif how == "doubt":
            self.run(desk.outbox.doubt(mine, wait_ms=90_000, channel_ms=0, reason="?"))
            self.next = self.clock.ms
        else:
            self.run(desk.outbox.put_off(mine, wait_ms=7000, reason=how))
            self._not_sent(mine, is_holder)
            self.next = self.clock.ms + 7000
        self.holder = None

    @precondition(lambda self: self.held)
    @rule()
    def a_late_note(self) -> None:
        """A worker that lost its lease in the meantime has posted, and says so now."""
        desk, mine = self.held.pop(0)
        if mine.token == self.holder:
            if self.run(desk.outbox.begin(mine)) is None:
                assert not self._is_open(mine.id), "it was not begun, though nobody has told it"
                self._not_sent(mine, is_holder=True)
                return
            self.clock.ms += 30_000
            self._claim(self.desks[0] if desk is self.desks[1] else self.desks[1])
        fates = {id: self._fate(id) for id in self._ids(mine)}
        # It has posted only if its post had begun, and then before the other one's claim.
        if all(fate in {Delivery.WAITING, Delivery.FOLDED} for fate in fates.values()):
            self._ok(desk, mine)

    def _ok(self, desk: Desk, mine: Claim) -> None:
        open_ones = [id for id in self._ids(mine) if self._is_open(id)]
        count = self.run(desk.outbox.close(mine, Delivery.POSTED))
        assert count == len(open_ones)
        for id in open_ones:
            if id in self.told:
                self.told[id].noted += 1
        self._cool_down(open_ones)
        if self.holder == mine.token:
            self.holder = None
        self.next = self.clock.ms

    # --- what must hold ---

    def _check_choice(self, found: Claim, before: list[str]) -> None:
        after = self._waiting()
        alerts = [id for id in after if id in self.told]
        if found.id.endswith(":summary"):
            members = self.run(self.desks[0].store.members(found.id))
            if found.id in self.frozen:
                return
            self.frozen.add(found.id)
            assert len(members) >= 2
            assert not alerts, "an alert was left out of the summary"
            assert not any(self._is_cooling(id) and id in before for id in members)
            ranks = [self.told[id].alert.severity.rank for id in members if id in before]
            assert ranks == sorted(ranks, reverse=True)
            return
        assert self._tokens() >= 2 or len(alerts) <= 1 or found.id in self.notices
        if found.id in self.told and found.id in before:
            assert not self._is_cooling(found.id)
            rank = self.told[found.id].alert.severity.rank
            milder = [self.told[id].alert.severity.rank for id in alerts if id in before]
            assert rank >= max(milder, default=0), "a worse one waits"

    def _check_rate(self) -> None:
        for first, (start, _) in enumerate(self.sent):
            for last, (end, _) in enumerate(self.sent[first:], start=1):
                allowed = self.flood.burst + (end - start) * self.flood.per_hour / 3_600_000
                assert last <= allowed

    def _tokens(self) -> float:
        """Before the last claim took one: the bucket as the log of what was sent has it."""
        level, at = float(self.flood.burst), END_MS
        for when, _ in self.sent:
            level = min(self.flood.burst, level + (when - at) * self.flood.per_hour / 3_600_000) - 1
            at = when
        gained = (self.clock.ms - at) * self.flood.per_hour / 3_600_000
        return min(self.flood.burst, level + gained)

    @invariant()
    def each_is_told_once_or_waits(self) -> None:
        for id, told in self.told.items():
            assert told.noted <= 1
            assert self._is_open(id) == (told.noted == 0), (id, self._fate(id), told.noted)

    def teardown(self) -> None:
        try:
            self._all_is_told_in_the_end()
        finally:
            self.run(self.redis.aclose())
            self.runner.close()

    def _all_is_told_in_the_end(self) -> None:
        for _ in range(200):
            self.clock.ms += 60_000
            mine = self._claim(self.desks[0])
            if mine:
                self.held.remove((self.desks[0], mine))
                assert self.run(self.desks[0].outbox.begin(mine))
                self._ok(self.desks[0], mine)
            elif not any(self._is_open(id) for id in {*self.told, *self.notices}):
                break
        assert [id for id in {*self.told, *self.notices} if self._is_open(id)] == []

    # --- how the model sees it ---

    def _not_sent(self, mine: Claim, is_holder: bool) -> None:
        if is_holder:
            self.sent = [sent for sent in self.sent if sent[1] != mine.token]
            self.holder = None

    def _cool_down(self, ids: list[str]) -> None:
        for id in ids:
            if id not in self.told:
                continue
            alert = self.told[id].alert
            cause = cause_of(alert).key
            until, rank = self.cooling.get(cause, (0, 0))
            kept = rank if until > self.clock.ms else 0
            ends = self.clock.ms + self.flood.cooldown_ms
            self.cooling[cause] = (ends, max(kept, alert.severity.rank))

    def _is_cooling(self, id: str) -> bool:
        alert = self.told[id].alert
        until, rank = self.cooling.get(cause_of(alert).key, (0, 0))
        return until > self.clock.ms and alert.severity.rank <= rank

    def _ids(self, mine: Claim) -> list[str]:
        if mine.id.endswith(":summary"):
            members: list[str] = self.run(self.desks[0].store.members(mine.id))
            return members
        return [mine.id]

    def _fate(self, id: str) -> Delivery:
        fate: Delivery = self.run(self.desks[0].fate(id))
        return fate

    def _is_open(self, id: str) -> bool:
        return self._fate(id) in {Delivery.WAITING, Delivery.FOLDED}

    def _waiting(self) -> list[str]:
        """What may be told now: in the outbox, back from aside, or free of its cool-down."""
        outbox: list[bytes] = self.run(self.redis.zrange(keys.OUTBOX, 0, -1))
        now = self.clock.ms
        aside: list[bytes] = self.run(self.redis.zrangebyscore(keys.ASIDE, "-inf", now))
        held = {mine.id for _, mine in self.held if mine.token == self.holder}
        every = [id.decode() for id in [*outbox, *aside]] + self._due()
        return [id for id in every if id not in held]

    def _due(self) -> list[str]:
        due: list[bytes] = self.run(self.redis.zrangebyscore(keys.FOLDED, "-inf", self.clock.ms))
        return [id.decode() for id in due]


@pytest.fixture
def channel(valkey: Valkey) -> type[Channel]:
    """The state machine, bound to the tests' server."""
    Channel.valkey = valkey
    return Channel


@pytest.mark.no_cover
def test_any_interleaving_tells_each_alert_once(channel: type[Channel]) -> None:
    """Each alert ends told exactly once or waits, within the caps, whatever happens around it."""
    case = channel.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
    case().runTest()


# --- causes ---------------------------------------------------------------------------------------


def test_the_cause_is_the_caller_and_the_leading_reason() -> None:
    """The assistant before the connection, and the alerting reason with most in excess."""
    assert cause_of(alert_of("s", assistant_id="bot")) == Cause("session_cost", "bot", None)
    assert cause_of(alert_of("s")) == Cause("session_cost", None, "of s")


def test_a_causes_key_is_short_and_printable_whatever_the_ids_hold() -> None:
    """Long or odd ids become a hash; different ones stay different."""
    odd = [Cause("c", name, None).key for name in ("a", "b" * 5000, "b" * 4999, "\n\x00", "")]
    assert len(set(odd)) == len(odd)
    assert all(len(key) <= 160 and key.isprintable() for key in odd)
