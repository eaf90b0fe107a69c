"""What may be asked of Telnyx: a rate limit that is learned, and a breaker that shuts for all."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys
from service.gate import Gate, Heard, Window
from service.queue import session_line
from service.store import Store
from tests.samples import END_MS, scheduling

pytestmark = pytest.mark.anyio

NOW = END_MS + 1_000_000
MINUTE = 60_000


@pytest.fixture
def gate(redis: Redis) -> Gate:
    return Gate(redis, "analysis")


def window(remaining: int, reset_s: int = 40, *, limit: int = 40) -> Window:
    return Window(limit, remaining, reset_s * 1000, MINUTE)


async def spend(gate: Gate, *, now_ms: int, most: int = 1000) -> int:
    """How many permits there are."""
    for taken in range(most):
        if await gate.take(now_ms=now_ms):
            return taken
    return most


async def fail(gate: Gate, subject: str, *, now_ms: int, heard: Heard = Heard.DOWN) -> int:
    return await gate.learn(heard, subject=subject, reason="503", now_ms=now_ms)


# --- the rate limit -------------------------------------------------------------------------------


async def test_without_headers_there_is_no_limit(gate: Gate) -> None:
    """Where no answer speaks of a limit, everything may be asked."""
    assert await spend(gate, now_ms=NOW) == 1000
    await gate.learn(Heard.FINE, now_ms=NOW)
    assert await spend(gate, now_ms=NOW) == 1000


async def test_what_is_left_of_a_window_may_be_spent_at_once(gate: Gate) -> None:
    """The headers' `remaining` is what there is until the window ends, and no more."""
    await gate.learn(Heard.FINE, window=window(remaining=7), now_ms=NOW)
    assert await spend(gate, now_ms=NOW) == 7
    wait_ms = await gate.take(now_ms=NOW)
    assert 40_000 <= wait_ms <= 42_000
    assert await spend(gate, now_ms=NOW + wait_ms) == 40


async def patiently(gate: Gate, now_ms: int) -> int:
    """How many permits there are for whoever is in no hurry."""
    for taken in range(100):
        if await gate.take(leave=0.25, now_ms=now_ms):
            return taken
    return 100


async def test_whoever_is_in_no_hurry_takes_what_others_did_not_need(gate: Gate) -> None:
    """A quarter is always theirs, and of the rest as much as there is of the window."""
    await gate.learn(Heard.FINE, window=window(remaining=40, reset_s=59), now_ms=NOW)
    assert await patiently(gate, NOW) == 0
    assert await patiently(gate, NOW + 30_000) == 15
    assert await spend(gate, now_ms=NOW + 31_000, most=10) == 10
    assert await patiently(gate, NOW + 40_000) == 0
    assert await patiently(gate, NOW + 59_999) == 5
    assert await spend(gate, now_ms=NOW + 59_999) == 10


async def test_a_patient_question_hears_when_it_is_its_turn(gate: Gate) -> None:
    """Then, and not before, there is a permit; where nothing will be left, in the next window."""
    await gate.learn(Heard.FINE, window=window(remaining=40, reset_s=59), now_ms=NOW)
    at_ms = NOW
    for _ in range(31):
        while wait_ms := await gate.take(leave=0.25, now_ms=at_ms):
            assert await gate.take(leave=0.25, now_ms=at_ms + wait_ms - 3)
            at_ms += wait_ms
    # The thirty-first is of the next window, to which Telnyx may count the thirtieth.
    assert at_ms == NOW + MINUTE + 2_001


async def test_windows_follow_each_other(gate: Gate) -> None:
    """After minutes without a question the present window is whole."""
    await gate.learn(Heard.FINE, window=window(remaining=0), now_ms=NOW)
    assert await spend(gate, now_ms=NOW + 10 * MINUTE) == 40


async def test_what_is_asked_at_the_very_end_counts_for_the_next_window(gate: Gate) -> None:
    """Telnyx may count to the next window what was asked just before its beginning."""
    await gate.learn(Heard.FINE, window=window(remaining=30, reset_s=40), now_ms=NOW)
    end = NOW + 41_000
    for _ in range(4):
        assert await gate.take(now_ms=end - 500) == 0
    assert await spend(gate, now_ms=end) == 36


async def test_an_answer_of_an_older_window_changes_nothing(gate: Gate) -> None:
    """An answer that comes late says nothing of the window that has begun since."""
    await gate.learn(Heard.FINE, window=window(remaining=0, reset_s=1), now_ms=NOW)
    later = NOW + 3_000
    assert await gate.take(now_ms=later) == 0
    await gate.learn(Heard.FINE, window=window(remaining=0, reset_s=0), now_ms=later)
    assert await spend(gate, now_ms=later) == 39


async def test_others_on_the_account_are_respected(gate: Gate) -> None:
    """Where others spend of the same limit, Telnyx's smaller number is what counts."""
    await gate.learn(Heard.FINE, window=window(remaining=30), now_ms=NOW)
    await gate.learn(Heard.FINE, window=window(remaining=5), now_ms=NOW)
    assert await spend(gate, now_ms=NOW) == 5


async def test_a_429_ends_the_window(gate: Gate) -> None:
    """After too many requests nothing is asked until the window ends."""
    await gate.learn(Heard.LIMITED, window=window(remaining=0, reset_s=20), now_ms=NOW)
    assert 20_000 <= await gate.take(now_ms=NOW) <= 22_000


async def test_a_429_without_headers_is_probed_by_one(gate: Gate) -> None:
    """After the wait one question goes out; its answer opens the gate, another 429 does not."""
    await gate.learn(Heard.LIMITED, wait_ms=60_000, now_ms=NOW)
    # One that was under way when the 429 came.
    await gate.learn(Heard.FINE, now_ms=NOW + 1)
    assert await gate.take(now_ms=NOW + 2) == 59_998
    assert await spend(gate, now_ms=NOW + 60_000) == 1
    await gate.learn(Heard.LIMITED, wait_ms=60_000, now_ms=NOW + 60_500)
    assert await spend(gate, now_ms=NOW + 61_000) == 0
    assert await spend(gate, now_ms=NOW + 120_500) == 1
    await gate.learn(Heard.FINE, now_ms=NOW + 120_600)
    assert await spend(gate, now_ms=NOW + 120_700) == 1000


async def test_a_limit_that_is_no_longer_stated_is_gone(gate: Gate) -> None:
    """Once answers come without the headers there is no limit any more."""
    await gate.learn(Heard.FINE, window=window(remaining=0), now_ms=NOW)
    await gate.learn(Heard.FINE, now_ms=NOW)
    assert await spend(gate, now_ms=NOW) == 1000


class FixedWindows:
    """Telnyx's side: so many in each window, on a clock that is not ours."""

    def __init__(self, limit: int, offset_ms: int, *, rounds_up: bool) -> None:
        self.limit, self.offset, self.rounds_up = limit, offset_ms, rounds_up
        self.used: dict[int, int] = {}
        self.refused = 0

    def answer(self, at_ms: int) -> tuple[Heard, Window]:
        number, into = divmod(at_ms + self.offset, MINUTE)
        used = self.used.get(number, 0)
        self.refused += used >= self.limit
        self.used[number] = min(self.limit, used + 1)
        seconds = (MINUTE - into) / 1000
        reset = int(-(-seconds // 1)) if self.rounds_up else int(seconds)
        heard = Heard.FINE if used < self.limit else Heard.LIMITED
        return heard, Window(self.limit, self.limit - self.used[number], reset * 1000, MINUTE)


@given(
    limit=st.integers(1, 60),
    offset=st.integers(0, MINUTE - 1),
    rounds_up=st.booleans(),
    latency=st.integers(0, 900),
    pauses=st.lists(st.integers(0, 20_000), min_size=10, max_size=40),
    at_once=st.integers(1, 12),
)
@settings(max_examples=60)
async def test_once_the_limit_is_known_no_question_is_refused(
    redis: Redis,
    limit: int,
    offset: int,
    rounds_up: bool,
    latency: int,
    pauses: list[int],
    at_once: int,
) -> None:
    """Whatever the pace, the window's place and the rounding: after the first answer no 429 comes.

    Questions reach Telnyx some time after they were allowed, and answers come as long after that.
    """
    await redis.flushall()
    gate, telnyx = Gate(redis, "analysis"), FixedWindows(limit, offset, rounds_up=rounds_up)
    heard, stated = telnyx.answer(NOW)
    await gate.learn(heard, window=stated, now_ms=NOW)
    now = NOW
    for pause in pauses:
        now += pause
        allowed = [await gate.take(now_ms=now) == 0 for _ in range(at_once)]
        answers = [telnyx.answer(now + latency) for _ in range(sum(allowed))]
        now += 2 * latency
        for heard, stated in answers:
            await gate.learn(heard, window=stated, now_ms=now)
    assert telnyx.refused == 0
    assert await spend(gate, now_ms=now + 3 * MINUTE, most=2 * limit) == limit


# --- the breaker ----------------------------------------------------------------------------------


async def test_one_bad_session_does_not_shut_the_gate(gate: Gate) -> None:
    """One session that never gets an answer holds up nobody, however long it goes on."""
    for turn in range(20):
        assert await fail(gate, "bad", now_ms=NOW + turn * MINUTE) == 0
    assert await spend(gate, now_ms=NOW + 20 * MINUTE) == 1000
    assert await gate.outage() is None


async def test_five_sessions_in_a_row_shut_it(gate: Gate) -> None:
    """When five sessions in a row got no answer, nothing is asked any more."""
    shut = [await fail(gate, f"s{number}", now_ms=NOW) for number in range(5)]
    assert shut == [0, 0, 0, 0, 5_000]
    assert await gate.take(now_ms=NOW + 1) == 4_999
    outage = await gate.outage()
    assert outage
    assert (outage.since_ms, outage.kind, outage.reason) == (NOW, Heard.DOWN, "503")


async def test_two_sessions_shut_it_after_half_a_minute(gate: Gate) -> None:
    """Where little is asked, two sessions that fail for half a minute are enough."""
    await fail(gate, "a", now_ms=NOW)
    assert await fail(gate, "b", now_ms=NOW + 29_000) == 0
    assert await fail(gate, "a", now_ms=NOW + 31_000) == 5_000


async def test_an_answer_between_them_keeps_it_open(gate: Gate) -> None:
    """Failures count only as long as there is not one answer."""
    for number in range(40):
        assert await fail(gate, f"s{number}", now_ms=NOW) == 0
        if number % 4 == 3:
            await gate.learn(Heard.FINE, subject="fine", now_ms=NOW)


async def test_a_refused_key_shuts_it_at_once(gate: Gate) -> None:
    """A key that is not valid is refused to all: one answer is enough."""
    assert await fail(gate, "s", now_ms=NOW, heard=Heard.LOCKED) == 5_000
    outage = await gate.outage()
    assert outage
    assert outage.kind is Heard.REFUSED


async def test_one_question_at_a_time_finds_out_whether_it_is_over(gate: Gate) -> None:
    """After each pause one question goes out; each that fails doubles the pause, up to a minute."""
    for number in range(5):
        await fail(gate, f"s{number}", now_ms=NOW)
    now, pauses = NOW + 5_000, []
    for number in range(6):
        assert await spend(gate, now_ms=now) == 1
        pauses.append(await fail(gate, f"p{number}", now_ms=now))
        now += pauses[-1]
    assert pauses == [10_000, 20_000, 40_000, 60_000, 60_000, 60_000]
    assert await spend(gate, now_ms=now) == 1
    await gate.learn(Heard.FINE, subject="p", now_ms=now)
    assert await spend(gate, now_ms=now) == 1000
    assert await gate.outage() is None


async def test_failures_under_way_do_not_prolong_the_pause(gate: Gate) -> None:
    """What was asked before the gate shut says nothing new when it fails, too."""
    for number in range(5):
        await fail(gate, f"s{number}", now_ms=NOW)
    assert [await fail(gate, f"late{n}", now_ms=NOW + 1_000) for n in range(30)] == [4_000] * 30


async def test_a_probe_that_is_never_answered_is_followed_by_another(gate: Gate) -> None:
    """A worker that dies with the probe in hand blocks the next one for as long as a lease only."""
    await fail(gate, "s", now_ms=NOW, heard=Heard.LOCKED)
    assert await spend(gate, now_ms=NOW + 5_000) == 1
    assert await gate.take(now_ms=NOW + 5_001) > 0
    assert await spend(gate, now_ms=NOW + 24_999) == 0
    assert await spend(gate, now_ms=NOW + 25_000) == 1


async def test_nothing_of_a_gate_stays_for_ever(gate: Gate, redis: Redis) -> None:
    """All that a gate keeps has an end."""
    await gate.learn(Heard.FINE, window=window(remaining=3))
    await fail(gate, "s", now_ms=NOW)
    names = await redis.keys("*")
    assert sorted(names) == [gate.key.encode(), keys.suspects_key(gate.key).encode()]
    assert [await redis.pttl(name) > 0 for name in names] == [True, True]


async def test_a_gate_that_is_told_of_too_late_has_an_end(gate: Gate, redis: Redis) -> None:
    """What is remembered of an outage that is over does not stay either."""
    await gate.told(NOW)
    assert await redis.pttl(gate.key) > 0


async def test_a_probe_without_a_session_counts_as_one(gate: Gate) -> None:
    """A question about a part of a tree that was let through as the probe tells as much."""
    await fail(gate, "s", now_ms=NOW, heard=Heard.LOCKED)
    assert await gate.take(now_ms=NOW + 5_000) == 0
    assert await gate.learn(Heard.DOWN, now_ms=NOW + 5_100) == 10_000


# --- the claim ------------------------------------------------------------------------------------


async def _due(redis: Redis, count: int) -> None:
    store = Store(redis, retention_ms=1000)
    for number in range(count):
        await store.record(scheduling(f"s{number}", at_ms=END_MS + number), now_ms=END_MS)


async def _claimed(
    redis: Redis, *, limit: int, now_ms: int, numbers: "itertools.count[int]"
) -> int:
    claims = await session_line(redis).claim(
        limit=limit, lease_ms=20_000, token=f"t{next(numbers)}", now_ms=now_ms
    )
    return len(claims)


async def test_no_more_is_claimed_than_may_be_asked(redis: Redis, gate: Gate) -> None:
    """A claim takes a permit for each session, but leaves some to those with a further question."""
    await _due(redis, 60)
    await gate.learn(Heard.FINE, window=window(remaining=40, reset_s=55), now_ms=NOW)
    numbers = itertools.count()
    assert await _claimed(redis, limit=100, now_ms=NOW, numbers=numbers) == 32
    assert await _claimed(redis, limit=100, now_ms=NOW, numbers=numbers) == 0
    assert await spend(gate, now_ms=NOW) == 8
    assert await _claimed(redis, limit=100, now_ms=NOW + 57_000, numbers=numbers) == 32


async def test_second_looks_leave_half_of_what_may_be_asked(redis: Redis, gate: Gate) -> None:
    """In a window's first half they leave as much to new sessions; those come before them."""
    for number in range(60):
        await redis.hset(keys.session_key(f"r{number}"), "state", "verdict")  # type: ignore[misc]
        await redis.zadd(keys.RECHECKS, {f"r{number}": NOW})
    await _due(redis, 10)
    await gate.learn(Heard.FINE, window=window(remaining=40, reset_s=55), now_ms=NOW)
    numbers = itertools.count()
    assert await _claimed(redis, limit=100, now_ms=NOW, numbers=numbers) == 10 + 10
    assert await _claimed(redis, limit=100, now_ms=NOW, numbers=numbers) == 0
    await _due(redis, 22)
    assert await _claimed(redis, limit=100, now_ms=NOW, numbers=numbers) == 12


async def test_while_the_gate_is_shut_one_session_is_claimed_at_a_time(
    redis: Redis, gate: Gate
) -> None:
    """The other sessions stay where they are, and are all there when it opens."""
    await _due(redis, 10)
    await fail(gate, "x", now_ms=NOW, heard=Heard.LOCKED)
    numbers = itertools.count()
    assert await _claimed(redis, limit=5, now_ms=NOW + 1, numbers=numbers) == 0
    assert await _claimed(redis, limit=5, now_ms=NOW + 5_000, numbers=numbers) == 1
    assert await _claimed(redis, limit=5, now_ms=NOW + 5_001, numbers=numbers) == 0
    await gate.learn(Heard.FINE, subject="s0", now_ms=NOW + 5_100)
    assert await _claimed(redis, limit=50, now_ms=NOW + 5_101, numbers=numbers) == 9
