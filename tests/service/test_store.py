"""Scheduling in a real Redis: whatever comes in whatever order, one session is one line of work."""

import asyncio
import itertools
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis.asyncio import Redis
from redis.asyncio.client import Redis as RedisClient

from service import keys
from service.events import LISTED, Scheduling
from service.outbox import Flood, Outbox
from service.queue import Claim, session_line
from service.records import (
    Alert,
    Call,
    Conclusion,
    Delivery,
    Event,
    Severity,
    State,
    Verdict,
    Watch,
)
from service.store import Concluded, Recorded, Store
from service.sweep import NETS, Sweep
from tests.samples import END_MS, event, scheduling, session
from tests.world.valkey import Valkey

pytestmark = pytest.mark.anyio

RETENTION_MS = 86_400_000
LEASE_MS = 20_000
DELAY_MS = 90_000


def store_of(redis: Redis) -> Store:
    return Store(redis, retention_ms=RETENTION_MS)


def waiting(due_ms: int) -> Conclusion:
    return Conclusion(State.OPEN, Watch(end_ms=END_MS), due_ms, "no cost yet", answered=True)


def verdict(severity: Severity | None = None) -> Verdict:
    return Verdict(at_ms=END_MS, total=Decimal(1), currency="USD", severity=severity)


def final(severity: Severity | None = None) -> Conclusion:
    return Conclusion(
        State.VERDICT,
        Watch(end_ms=END_MS),
        None,
        "",
        answered=True,
        analysis=b"{}",
        verdict=verdict(severity),
        alert=alert(severity) if severity else None,
    )


def again(recheck_ms: int | None) -> Conclusion:
    """Finished, with one more look then."""
    return replace(final(), recheck_ms=recheck_ms)


def no_news(recheck_ms: int | None = None) -> Conclusion:
    """The verdict stands; one more look then, if at all."""
    return replace(again(recheck_ms), verdict=None, analysis=None)


def alert(severity: Severity, session_id: str = "s") -> Alert:
    return Alert(
        id=f"{session_id}:{severity}",
        call=Call(session_id),
        verdict=verdict(severity),
        severity=severity,
        decided_ms=END_MS,
    )


async def claim(redis: Redis, *, now_ms: int, token: str = "t", limit: int = 10) -> list[Claim]:
    return await session_line(redis).claim(
        limit=limit, lease_ms=LEASE_MS, token=token, delay_ms=DELAY_MS, now_ms=now_ms
    )


async def places(redis: Redis, session_id: str = "s") -> dict[str, float | None]:
    return {
        "ended": await redis.zscore(keys.ENDED, session_id),
        "due": await redis.zscore(keys.DUE, session_id),
    }


async def concluded(redis: Redis, end: Conclusion, *, now_ms: int, token: str = "t") -> Claim:
    """What was due then, and has come to that."""
    (mine,) = await claim(redis, now_ms=now_ms, token=token)
    taken = await store_of(redis).take(mine.id, mine.token)
    assert taken
    done = await store_of(redis).conclude(taken, mine.token, end, now_ms=now_ms)
    assert done is Concluded.CONCLUDED
    return mine


async def test_a_new_session_waits_for_its_first_age(redis: Redis) -> None:
    """A first event is scheduled; the session is due at its end plus the first age, not before."""
    assert await store_of(redis).record(scheduling(), now_ms=END_MS) is Recorded.SCHEDULED
    assert await claim(redis, now_ms=END_MS + DELAY_MS - 1) == []
    (found,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    assert (found.id, found.due_ms) == ("s", END_MS + DELAY_MS)


async def test_the_same_event_again_is_a_duplicate(redis: Redis) -> None:
    """An event is recorded once, also after the verdict."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    assert await store.record(scheduling(), now_ms=END_MS + 1) is Recorded.DUPLICATE
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    taken = await store.take("s", mine.token)
    assert taken
    await store.conclude(taken, mine.token, final(), now_ms=END_MS)
    assert await store.record(scheduling(), now_ms=END_MS + 2) is Recorded.DUPLICATE


# --- events that only a list told of --------------------------------------------------------------


def listed(key: str = "1", **fields: Any) -> Scheduling:
    return scheduling(key=LISTED + key, **fields)


async def test_a_list_schedules_a_session_of_which_nobody_told(redis: Redis) -> None:
    """More rows about it join in, and the same row again does nothing."""
    store = store_of(redis)
    expected = [
        ("1", Recorded.SCHEDULED),
        ("2", Recorded.MERGED),
        ("1", Recorded.DUPLICATE),
    ]
    for key, outcome in expected:
        assert await store.would_record(listed(key), unless_told=True) is outcome
        assert await store.record(listed(key), now_ms=END_MS, unless_told=True) is outcome
    assert await due_ids(redis) == {"s"}


@pytest.mark.parametrize("state", [None, "verdict", "unavailable", "dead"])
async def test_a_list_does_not_touch_what_webhooks_told_of(redis: Redis, state: str | None) -> None:
    """Whatever its state: the session is left as it is, to the last field."""
    store = store_of(redis)
    await store.record(listed("0"), now_ms=END_MS, unless_told=True)
    await store.record(scheduling(), now_ms=END_MS)
    if state:
        await redis.hset(keys.session_key("s"), "state", state)  # type: ignore[misc]
    before = await redis.hgetall(keys.session_key("s"))  # type: ignore[misc]
    late = listed(at_ms=END_MS + 9)
    assert await store.would_record(late, unless_told=True) is Recorded.KNOWN
    assert await store.record(late, now_ms=END_MS + 9, unless_told=True) is Recorded.KNOWN
    assert await redis.hgetall(keys.session_key("s")) == before  # type: ignore[misc]


async def test_a_webhook_joins_a_session_that_a_list_told_of(redis: Redis) -> None:
    """It comes late, but it comes: it is one more event of the session."""
    store = store_of(redis)
    await store.record(listed(), now_ms=END_MS, unless_told=True)
    assert await store.would_record(scheduling()) is Recorded.MERGED
    assert await store.record(scheduling(), now_ms=END_MS + 1) is Recorded.MERGED
    assert await store.would_record(scheduling()) is Recorded.DUPLICATE


@pytest.mark.parametrize("state", ["verdict", "unavailable", "dead"])
async def test_what_only_lists_told_of_is_judged_once(redis: Redis, state: str) -> None:
    """The records of one call come one after another; only a leg that ended later is news."""
    store = store_of(redis)
    await store.record(listed(), now_ms=END_MS, unless_told=True)
    await redis.hset(keys.session_key("s"), "state", state)  # type: ignore[misc]
    for item, outcome in [
        (listed("2", at_ms=END_MS + 60_000), Recorded.KNOWN),
        (listed("3", at_ms=END_MS + 9, ends=False), Recorded.KNOWN),
        (listed("4", at_ms=END_MS + 60_001), Recorded.SCHEDULED),
    ]:
        assert await store.would_record(item, unless_told=True) is outcome
        assert await store.record(item, now_ms=END_MS, unless_told=True) is outcome


async def test_looking_records_nothing(redis: Redis) -> None:
    """It only says what would be done."""
    assert await store_of(redis).would_record(scheduling()) is Recorded.SCHEDULED
    assert await redis.keys() == []


async def due_ids(redis: Redis) -> set[str]:
    found = [*await redis.zrange(keys.ENDED, 0, -1), *await redis.zrange(keys.DUE, 0, -1)]
    return {id.decode() for id in found}


async def test_the_first_fetch_follows_the_latest_end(redis: Redis) -> None:
    """A second leg that ends later puts the first fetch off; one that ended earlier does not."""
    store = store_of(redis)
    await store.record(scheduling(key="1", at_ms=END_MS), now_ms=END_MS)
    merged = await store.record(scheduling(key="2", at_ms=END_MS + 50), now_ms=END_MS + 50)
    await store.record(scheduling(key="3", at_ms=END_MS - 50), now_ms=END_MS + 60)
    assert merged is Recorded.MERGED
    assert await places(redis) == {"ended": END_MS + 50, "due": None}


async def test_a_cost_event_pulls_the_fetch_forward(redis: Redis) -> None:
    """After the last end, a cost event makes the session due at once."""
    store = store_of(redis)
    await store.record(scheduling(key="1"), now_ms=END_MS)
    pull = scheduling(key="2", kind="call.cost", at_ms=END_MS + 5, pulls=True)
    await store.record(pull, now_ms=END_MS + 7)
    assert await places(redis) == {"ended": None, "due": END_MS + 7}


async def test_a_later_leg_outdates_a_pull(redis: Redis) -> None:
    """A leg that ends after the cost event starts the ages anew."""
    store = store_of(redis)
    pull = scheduling(key="1", kind="call.cost", at_ms=END_MS, pulls=True)
    await store.record(pull, now_ms=END_MS)
    await store.record(scheduling(key="2", at_ms=END_MS + 50), now_ms=END_MS + 50)
    assert await places(redis) == {"ended": END_MS + 50, "due": None}


EVENTS = [
    scheduling(key="1", at_ms=END_MS, leg_id="a", start_ms=END_MS - 900),
    scheduling(key="2", at_ms=END_MS + 400, leg_id="b", connection_id="c"),
    scheduling(key="3", kind="call.conversation.ended", at_ms=END_MS + 300, assistant_id="x"),
    scheduling(key="4", kind="call.cost", at_ms=END_MS + 350, pulls=True, leg_id="a"),
    scheduling(key="5", kind="call.analyzed", at_ms=END_MS + 500, pulls=True),
]


@given(order=st.permutations(EVENTS), repeats=st.lists(st.sampled_from(EVENTS), max_size=4))
async def test_the_order_of_arrival_does_not_matter(
    redis: Redis, order: list[Any], repeats: list[Any]
) -> None:
    """Any order, with any duplicates, ends in the same session in the same place."""
    await redis.flushall()
    store = store_of(redis)
    for item in [*order, *repeats]:
        await store.record(item, now_ms=END_MS + 1000)
    found = await store.session("s")
    assert found
    assert found.end_ms == END_MS + 400
    assert found.call == Call(
        session_id="s",
        start_ms=END_MS - 900,
        end_ms=END_MS + 400,
        connection_id="c",
        assistant_id="x",
        legs=2,
    )
    assert await places(redis) == {"ended": None, "due": END_MS + 1000}


async def test_a_leg_after_the_verdict_opens_the_session_again(redis: Redis) -> None:
    """A late leg is scheduled, its ages start from the new end, and the verdict stays readable."""
    store = store_of(redis)
    await store.record(scheduling(key="1"), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    taken = await store.take("s", mine.token)
    assert taken
    await store.conclude(taken, mine.token, final(), now_ms=END_MS + DELAY_MS)
    assert await places(redis) == {"ended": None, "due": None}
    late = scheduling(key="2", at_ms=END_MS + 500_000)
    assert await store.record(late, now_ms=END_MS + 600_000) is Recorded.SCHEDULED
    assert await places(redis) == {"ended": END_MS + 500_000, "due": None}
    again = await store.session("s")
    assert again
    assert (again.state, again.verdict, again.watch) == (
        State.OPEN,
        verdict(),
        Watch(end_ms=END_MS),
    )
    assert await redis.ttl(keys.session_key("s")) == -1


async def test_a_finished_session_is_looked_at_once_more(redis: Redis) -> None:
    """It has its verdict meanwhile, and stands in no line of open work; then it is as before."""
    store, day = store_of(redis), END_MS + RETENTION_MS
    await store.record(scheduling(), now_ms=END_MS)
    first = await concluded(redis, again(day), now_ms=END_MS + DELAY_MS)
    assert not first.again
    assert await places(redis) == {"ended": None, "due": None}
    assert await claim(redis, now_ms=day - 1) == []
    await redis.pexpire(keys.session_key("s"), 5_000)
    second = await concluded(redis, no_news(), now_ms=day, token="u")
    assert (second.again, second.due_ms) == (True, day)
    found = await store.session("s")
    assert found
    assert (found.state, found.verdict) == (State.VERDICT, verdict())
    # No news: it lives no longer for it, and is no younger in the lists.
    assert 0 < await redis.pttl(keys.session_key("s")) <= 5_000
    assert await redis.zscore(keys.SESSIONS, "s") == END_MS + DELAY_MS
    assert await claim(redis, now_ms=day * 2) == []


async def test_a_late_event_comes_before_one_more_look(redis: Redis) -> None:
    """A leg that ends late begins everything anew: the look ahead is taken back."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    await concluded(redis, again(END_MS + RETENTION_MS), now_ms=END_MS + DELAY_MS)
    late = scheduling(key="2", at_ms=END_MS + 500_000)
    await store.record(late, now_ms=END_MS + 600_000)
    assert await redis.zcard(keys.RECHECKS) == 0
    assert await places(redis) == {"ended": END_MS + 500_000, "due": None}


async def test_a_late_event_during_one_more_look_is_not_overwritten(redis: Redis) -> None:
    """What was looked at rests on old news: nothing of it is written."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    await concluded(redis, again(END_MS + 1_000_000), now_ms=END_MS + DELAY_MS)
    (mine,) = await claim(redis, now_ms=END_MS + 1_000_000, token="u")
    taken = await store.take("s", mine.token)
    assert taken
    await store.record(scheduling(key="2", at_ms=END_MS + 999_000), now_ms=END_MS + 1_000_001)
    done = await store.conclude(taken, mine.token, no_news(), now_ms=END_MS + 1_000_002)
    assert done is Concluded.CHANGED
    assert await places(redis) == {"ended": END_MS + 999_000, "due": None}


async def test_what_an_older_version_opened_is_no_second_look(redis: Redis) -> None:
    """A session that is open and still stands among the second looks is left to its own line."""
    await store_of(redis).record(scheduling(), now_ms=END_MS)
    await redis.zadd(keys.RECHECKS, {"s": END_MS, "gone": END_MS})
    assert await claim(redis, now_ms=END_MS + 1) == []
    assert await redis.zcard(keys.RECHECKS) == 0
    assert await places(redis) == {"ended": END_MS, "due": None}


async def test_news_during_an_attempt_is_not_overwritten(redis: Redis) -> None:
    """An attempt that decided before a leg came concludes nothing; it is looked at anew."""
    store = store_of(redis)
    await store.record(scheduling(key="1"), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    taken = await store.take("s", mine.token)
    assert taken
    await store.record(scheduling(key="2", at_ms=END_MS + 95_000), now_ms=END_MS + 95_000)
    outcome = await store.conclude(taken, mine.token, final(), now_ms=END_MS + 96_000)
    assert outcome is Concluded.CHANGED
    assert await places(redis) == {"ended": END_MS + 95_000, "due": None}


async def test_a_lost_lease_writes_nothing(redis: Redis) -> None:
    """A worker whose lease went to another can neither take nor conclude."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    (first,) = await claim(redis, now_ms=END_MS + DELAY_MS, token="one")
    taken = await store.take("s", first.token)
    assert taken
    later = END_MS + DELAY_MS + LEASE_MS
    (second,) = await claim(redis, now_ms=later, token="two")
    assert second.taken_over
    assert await store.take("s", first.token) is None
    outcome = await store.conclude(taken, first.token, final(), now_ms=later)
    assert outcome is Concluded.LOST
    assert (await store.session("s") or taken).state is State.OPEN


async def test_a_lease_keeps_others_out_until_it_ends(redis: Redis) -> None:
    """What one worker holds, no other gets, until the lease has run out."""
    await store_of(redis).record(scheduling(), now_ms=END_MS)
    start = END_MS + DELAY_MS
    assert len(await claim(redis, now_ms=start, token="one")) == 1
    assert await claim(redis, now_ms=start + LEASE_MS - 1, token="two") == []
    assert len(await claim(redis, now_ms=start + LEASE_MS, token="two")) == 1


async def test_leases_are_measured_by_one_clock(redis: Redis) -> None:
    """Extending and giving back go by Redis' clock, whatever the workers' clocks say."""
    await store_of(redis).record(scheduling(), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    line = session_line(redis)
    seconds, micros = await redis.time()
    before = seconds * 1000 + micros // 1000
    assert await line.extend({"s": mine.token}, lease_ms=LEASE_MS) == {"s"}
    score = (await places(redis))["due"]
    assert score is not None
    assert before + LEASE_MS <= score < before + LEASE_MS + 5000
    assert await line.extend({"s": "stolen"}, lease_ms=LEASE_MS) == frozenset()
    assert await line.release({"s": mine.token}) == 1
    assert ((await places(redis))["due"] or 0) < before + LEASE_MS


async def test_an_alert_is_kept_once_per_severity(redis: Redis) -> None:
    """Deciding the same alert twice leaves one, and one place in the outbox."""
    store = store_of(redis)
    for key in ("1", "2"):
        await store.record(scheduling(key=key, at_ms=END_MS), now_ms=END_MS)
        (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
        taken = await store.take("s", mine.token)
        assert taken
        await store.conclude(taken, mine.token, final(Severity.HIGH), now_ms=END_MS)
    assert await redis.zcard(keys.OUTBOX) == 1
    (alert_id,) = [alert_id async for alert_id in store.alert_ids()]
    posting = await store.posting(alert_id)
    assert posting
    assert (posting.subject.severity, posting.delivery) == (Severity.HIGH, Delivery.WAITING)


async def test_failures_of_our_own_end_in_a_dead_letter(redis: Redis) -> None:
    """The last allowed failure makes a session a dead letter, with its reason, due no more."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    now = END_MS + DELAY_MS
    for expected in (1, 2):
        (mine,) = await claim(redis, now_ms=now)
        failures = await store.fail(
            "s",
            mine.token,
            now_ms=now,
            first_wait_ms=0,
            most_failures=2,
            kind="Boom",
            reason="boom",
        )
        assert failures == expected
    dead = await store.session("s")
    assert dead
    assert (dead.state, dead.reason) == (State.DEAD, "boom")
    assert await places(redis) == {"ended": None, "due": None}
    assert await store.record(scheduling(key="2"), now_ms=now) is Recorded.SCHEDULED


async def test_an_event_during_the_last_failure_lives_on(redis: Redis) -> None:
    """What comes while the last allowed try fails does not die with it."""
    store = store_of(redis)
    await store.record(scheduling(key="1"), now_ms=END_MS)
    now = END_MS + DELAY_MS
    (mine,) = await claim(redis, now_ms=now)
    await store.record(scheduling(key="2", at_ms=END_MS), now_ms=now)
    failures = await store.fail(
        "s", mine.token, now_ms=now, first_wait_ms=0, most_failures=1, kind="Boom", reason="boom"
    )
    assert failures == 0
    assert await places(redis) == {"ended": None, "due": now}


async def test_a_hold_is_not_cut_short_by_other_events(redis: Redis) -> None:
    """While a session waits for an outage to end, only news of a cost makes it due at once."""
    store = store_of(redis)
    await store.record(scheduling(key="1", pulls=True, kind="call.cost"), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS)
    taken = await store.take("s", mine.token)
    assert taken
    held = Conclusion(State.OPEN, Watch(), END_MS + 60_000, "503", answered=False)
    await store.conclude(taken, mine.token, held, now_ms=END_MS)
    await store.record(scheduling(key="2", kind="call.analyzed", at_ms=END_MS), now_ms=END_MS)
    assert await places(redis) == {"ended": None, "due": END_MS + 60_000}


async def test_the_longest_overdue_comes_first(redis: Redis) -> None:
    """A claim takes what has been due the longest, be it for a first fetch or a later one."""
    store = store_of(redis)
    for number, end in enumerate((300, 100, 200)):
        await store.record(scheduling(f"s{number}", at_ms=END_MS + end), now_ms=END_MS)
    found = [c.id for c in await claim(redis, now_ms=END_MS + 10 * DELAY_MS, limit=2)]
    assert found == ["s1", "s2"]


async def test_every_key_has_an_end_or_an_owner(redis: Redis) -> None:
    """After verdict and post, each key expires, or is an index that housekeeping trims."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    taken = await store.take("s", mine.token)
    assert taken
    await store.conclude(taken, mine.token, final(Severity.LOW), now_ms=END_MS)
    outbox = Outbox(redis, retention_ms=RETENTION_MS, flood=Flood(0, 20, 30))
    (post,) = await outbox.claim(limit=1, lease_ms=LEASE_MS, token="p")
    assert await outbox.begin(post)
    assert await outbox.close(post, Delivery.POSTED) == 1
    endless = {key.decode() async for key in redis.scan_iter() if await redis.ttl(key) == -1}
    assert endless == {keys.SESSIONS, keys.ALERTS, keys.SLACK}
    await redis.delete(keys.session_key("s"), keys.alert_key("s:low"))
    await store.trim(now_ms=END_MS + 2 * RETENTION_MS)
    left = {key.decode() async for key in redis.scan_iter()}
    counts = {key for key in left if key.startswith("tollwatch:calls:")}
    assert left - counts == {keys.SLACK, keys.analysis_key("s")}


async def test_an_older_version_keeps_what_a_newer_one_wrote(redis: Redis) -> None:
    """Fields that this version does not know survive its reading, working and concluding."""
    store = store_of(redis)
    await store.record(scheduling(), now_ms=END_MS)
    newer = b'{"kind":"call.hangup","at_ms":5,"v":9,"ends":true,"surprise":{"deep":[1]}}'
    fields = {"v": "9", "e:new": newer, "novel": "kept"}
    await redis.hset(keys.session_key("s"), mapping=fields)  # type: ignore[misc]
    (mine,) = await claim(redis, now_ms=END_MS + DELAY_MS)
    taken = await store.take("s", mine.token)
    assert taken
    assert Event(kind="call.hangup", at_ms=5, v=9, ends=True) in taken.events
    await store.conclude(taken, mine.token, waiting(END_MS + 300_000), now_ms=END_MS)
    raw: dict[bytes, bytes] = await redis.hgetall(keys.session_key("s"))  # type: ignore[misc]
    assert (raw[b"v"], raw[b"novel"], raw[b"e:new"]) == (b"9", b"kept", newer)


class Scheduler(RuleBasedStateMachine):
    """Webhooks, claims, conclusions, deaths and the passing of time, in any interleaving."""

    valkey: Valkey

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis: RedisClient = Redis.from_url(self.valkey.url, db=1)
        self.store = store_of(self.redis)
        self.now = END_MS
        self.tokens = itertools.count()
        self.held: list[Claim] = []
        self.recorded: dict[str, set[str]] = {"a": set(), "b": set()}
        self.ends: dict[str, int] = {}
        self.run(self.redis.flushdb())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    @rule(
        session_id=st.sampled_from("ab"),
        key=st.sampled_from("123456"),
        age=st.integers(0, 200_000),
        pulls=st.booleans(),
    )
    def webhook(self, session_id: str, key: str, age: int, pulls: bool) -> None:
        kind = "call.cost" if pulls else "call.hangup"
        at_ms = self.now - age
        item = scheduling(session_id, key, kind=kind, at_ms=at_ms, pulls=pulls)
        outcome = self.run(self.store.record(item, now_ms=self.now))
        assert (outcome is Recorded.DUPLICATE) == (key in self.recorded[session_id])
        if outcome is not Recorded.DUPLICATE and not pulls:
            self.ends[session_id] = max(self.ends.get(session_id, 0), at_ms)
        self.recorded[session_id].add(key)

    @rule(seconds=st.integers(1, 400))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule()
    def claim(self) -> None:
        token = f"t{next(self.tokens)}"
        self.held += self.run(claim(self.redis, now_ms=self.now, token=token, limit=1))

    @precondition(lambda self: self.held)
    @rule(how=st.sampled_from(["wait", "final", "again", "fail"]))
    def conclude(self, how: str) -> None:
        mine = self.held.pop(0)
        if how == "fail":
            work: Any = self.store.fail(
                mine.id,
                mine.token,
                now_ms=self.now,
                first_wait_ms=5000,
                most_failures=2,
                kind="X",
                reason="x",
            )
            self.run(work)
            return
        taken = self.run(self.store.take(mine.id, mine.token))
        if taken:
            later = self.now + 60_000
            is_open = taken.state is State.OPEN
            ends = {
                "wait": waiting(later) if is_open else no_news(later),
                "again": again(later if is_open else None),
            }
            end = ends.get(how, final())
            self.run(self.store.conclude(taken, mine.token, end, now_ms=self.now))

    @rule(session_id=st.sampled_from("ab"), how=st.sampled_from(["retry", "drop"]))
    def a_person(self, session_id: str, how: str) -> None:
        before = self.run(self.store.session(session_id))
        listed = self.run(self.redis.zscore(keys.DEAD, session_id)) is not None
        done = self.run(getattr(self.store.dead, how)([session_id], now_ms=self.now))
        assert done == ((session_id,) if listed else ())
        if not listed:
            assert self.run(self.store.session(session_id)) == before

    @rule()
    def the_net(self) -> None:
        for net in NETS:
            assert self.run(Sweep(self.redis, net).page()) == ([], True)

    @precondition(lambda self: self.held)
    @rule()
    def a_worker_dies(self) -> None:
        self.held.pop(0)

    @precondition(lambda self: self.held)
    @rule()
    def a_worker_gives_back(self) -> None:
        mine = self.held.pop(0)
        self.run(session_line(self.redis).release({mine.id: mine.token}))

    @invariant()
    def one_line_of_work(self) -> None:
        for session_id, events in self.recorded.items():
            found = self.run(self.store.session(session_id))
            place = self.run(places(self.redis, session_id))
            count = sum(score is not None for score in place.values())
            assert (found is not None) == bool(events)
            ahead = self.run(self.redis.zscore(keys.RECHECKS, session_id)) is not None
            match found.state if found else None:
                case State.OPEN:
                    assert (count, ahead) == (1, False), (found, place)
                case State.VERDICT:
                    # While somebody looks once more, it is leased like any other.
                    assert place["ended"] is None
                    assert count + ahead <= 1, (found, place)
                case _:
                    assert (count, ahead) == (0, False), (found, place)
            if found and session_id in self.ends:
                assert found.end_ms == self.ends[session_id]

    @invariant()
    def the_dead_are_listed_and_counted(self) -> None:
        found = [self.run(self.store.session(session_id)) for session_id in self.recorded]
        dead = [s.id for s in found if s and s.state is State.DEAD and not s.dropped_ms]
        assert sorted(dead) == [id.decode() for id in self.run(self.listed())]
        counts = self.run(self.store.dead.counts())
        assert sum(count.number for count in counts) == len(dead)
        assert all(count.since_ms <= self.now for count in counts)

    async def listed(self) -> list[bytes]:
        return sorted(await self.redis.zrange(keys.DEAD, 0, -1))


@pytest.fixture
def machine(valkey: Valkey) -> type[Scheduler]:
    """The state machine, bound to the tests' server."""
    Scheduler.valkey = valkey
    return Scheduler


@pytest.mark.no_cover
def test_any_interleaving_leaves_one_line_of_work(machine: type[Scheduler]) -> None:
    """An open session is in exactly one of the two sets, an ended one in neither, at every step.

    One that has its verdict may have one more look ahead, or under way.
    The dead ones are those that are listed and counted.
    """
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    case().runTest()


def test_events_fold_the_same_in_any_order() -> None:
    """The earliest event that has an attribute gives it, wherever it stands."""
    events = [
        event(at_ms=5, start_ms=3, leg_id="b", from_number="…02"),
        event(at_ms=9, start_ms=1, leg_id="a", connection_id="c", to_country="DE"),
        event(at_ms=7, start_ms=2, leg_id="c", from_number="…01", connection_id="d"),
    ]
    calls = {session(*order).call for order in itertools.permutations(events)}
    (call,) = calls
    assert (call.from_number, call.connection_id, call.start_ms) == ("…01", "c", 1)
    assert (call.from_country, call.to_country) == (None, "DE")
