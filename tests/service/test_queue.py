"""Claiming from a backlog: the oldest in order, and what is due now beside them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys
from service.queue import FRESH_MS, MOST_ORPHANED, Depth, session_line
from service.store import Store
from tests.samples import END_MS, scheduling

pytestmark = pytest.mark.anyio

NOW = END_MS
HOUR_MS = 3_600_000
DELAY_MS = 90_000


async def fill(redis: Redis, scores: dict[str, int], *, name: str = keys.DUE) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for id, score in scores.items():
            pipe.zadd(name, {id: score})
            pipe.hset(keys.session_key(id), "state", "open")
        await pipe.execute()


async def claim(redis: Redis, limit: int, *, times: int = 1, delay_ms: int = 0) -> list[str]:
    line, tokens = session_line(redis), (f"t{number}" for number in itertools.count())
    found = []
    for _ in range(times):
        claims = await line.claim(
            limit=limit, lease_ms=HOUR_MS, token=next(tokens), delay_ms=delay_ms, now_ms=NOW
        )
        found += [each.id for each in claims]
    return found


def backlog(count: int) -> dict[str, int]:
    return {f"old{number:04}": NOW - 10 * HOUR_MS + number for number in range(count)}


def recent(count: int) -> dict[str, int]:
    return {f"new{number:04}": NOW - 60_000 + number for number in range(count)}


async def test_a_backlog_is_drained_in_order_of_due_time(redis: Redis) -> None:
    """What is overdue is claimed oldest first."""
    await fill(redis, backlog(500))
    assert await claim(redis, 30, times=20) == sorted(backlog(500))


async def test_what_is_due_now_does_not_wait_behind_a_backlog(redis: Redis) -> None:
    """Every second place goes to what became due of late, both in order of due time."""
    await fill(redis, backlog(500) | recent(20))
    found = await claim(redis, 10, times=4)
    assert [id for id in found if id.startswith("new")] == sorted(recent(20))
    assert [id for id in found if id.startswith("old")] == sorted(backlog(20))


async def test_one_at_a_time_takes_turns(redis: Redis) -> None:
    """Also where only one may be claimed, old and new are served in turn."""
    await fill(redis, backlog(50) | recent(50))
    found = await claim(redis, 1, times=10)
    assert sum(id.startswith("new") for id in found) == 5


async def test_a_first_fetch_does_not_wait_behind_a_backlog_of_first_fetches(redis: Redis) -> None:
    """Calls that ended now get their first fetch though thousands of old ones wait for theirs."""
    ended = {id: score - DELAY_MS for id, score in (backlog(3_000) | recent(5)).items()}
    await fill(redis, ended, name=keys.ENDED)
    found = await claim(redis, 10, times=1, delay_ms=DELAY_MS)
    assert [id for id in found if id.startswith("new")] == sorted(recent(5))


async def test_what_is_not_due_is_not_claimed(redis: Redis) -> None:
    """A session is not claimed before its time, however empty the line is."""
    await fill(redis, {"later": NOW + 1})
    assert await claim(redis, 10) == []


@given(
    ages=st.lists(st.integers(-1_000, 3 * FRESH_MS), max_size=60),
    limit=st.integers(1, 20),
)
@settings(max_examples=60)
async def test_everything_due_is_claimed_once(redis: Redis, ages: list[int], limit: int) -> None:
    """Whatever is due when: each is claimed exactly once, and old and new each in order."""
    await redis.flushall()
    scores = {f"s{number}": NOW - age for number, age in enumerate(ages)}
    await fill(redis, scores)
    found = await claim(redis, limit, times=len(ages) + 1)
    assert sorted(found) == sorted(id for id, score in scores.items() if score <= NOW)
    for is_fresh in (True, False):
        part = [scores[id] for id in found if (scores[id] >= NOW - FRESH_MS) is is_fresh]
        assert part == sorted(part)


# --- one more look at what is finished ------------------------------------------------------------


async def _finished(redis: Redis, scores: dict[str, int]) -> None:
    await fill(redis, scores, name=keys.RECHECKS)
    for id in scores:
        await redis.hset(keys.session_key(id), "state", "verdict")  # type: ignore[misc]


async def test_finished_sessions_come_last(redis: Redis) -> None:
    """One more look takes what room is left, in order of due time, and none before its time."""
    await fill(redis, recent(5))
    looks = {f"again{number}": NOW - HOUR_MS + number for number in range(8)}
    await _finished(redis, looks | {"later": NOW + 1})
    assert await claim(redis, 8, times=3) == [*sorted(recent(5)), *sorted(looks)]


async def test_second_looks_are_no_backlog(redis: Redis) -> None:
    """They are counted apart, whether due or not; one that is under way is leased work."""
    line = session_line(redis)
    await _finished(redis, {"now": NOW - 5_000, "later": NOW + 1})
    assert (await line.depth(now_ms=NOW)).pending == 0
    assert await line.rechecks(now_ms=NOW) == Depth(2, overdue=1, oldest_overdue_ms=5_000)
    (found,) = await line.claim(limit=9, lease_ms=HOUR_MS, token="t", now_ms=NOW)
    assert (found.id, found.again) == ("now", True)
    assert await line.rechecks(now_ms=NOW) == Depth(1, overdue=0, oldest_overdue_ms=0)
    assert await line.depth(now_ms=NOW) == Depth(1, overdue=0, oldest_overdue_ms=0)


async def test_second_looks_may_be_off(redis: Redis) -> None:
    """A line without them claims none."""
    await _finished(redis, {"now": NOW})
    line = session_line(redis, rechecks=False)
    assert await line.claim(limit=9, lease_ms=HOUR_MS, token="t", now_ms=NOW) == []
    assert await line.rechecks(now_ms=NOW) == Depth(0, overdue=0, oldest_overdue_ms=0)


async def test_a_second_look_that_lost_its_worker_is_taken_over(redis: Redis) -> None:
    """Its lease ends like any other's, and it is still known for what it is."""
    await _finished(redis, {"s": NOW})
    line = session_line(redis)
    await line.claim(limit=9, lease_ms=1_000, token="t", now_ms=NOW)
    (found,) = await line.claim(limit=9, lease_ms=1_000, token="u", now_ms=NOW + 1_000)
    assert (found.id, found.again, found.taken_over) == ("s", True, True)


# --- what ends its workers ------------------------------------------------------------------------


async def _taken_over(redis: Redis, now_ms: int, *, limit: int = 50) -> dict[str, int]:
    """What is claimed at that time, each with how many holders in a row it has orphaned."""
    claims = await session_line(redis).claim(
        limit=limit, lease_ms=20_000, token=f"t{now_ms}", now_ms=now_ms
    )
    return {each.id: each.orphaned for each in claims}


async def test_what_ends_its_worker_is_put_off_and_in_the_end_given_up(redis: Redis) -> None:
    """Four times it is taken over at once, then after longer and longer, and then no more."""
    await fill(redis, {"bad": NOW})
    now, found = NOW, list[tuple[int, int]]()
    while not found or found[-1][1] < MOST_ORPHANED:
        for times in (await _taken_over(redis, now)).values():
            found.append((now, times))
        now += 5_000
    # After a pause it is claimed as nobody's.
    assert [times for _, times in found] == [0, 1, 2, 3, 4, *[0] * 5, MOST_ORPHANED]
    waits = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(found)]
    assert waits[:4] == [20_000] * 4
    assert 35_000 <= waits[4] <= 70_000
    assert 260_000 <= waits[8] <= 750_000


async def test_those_that_died_with_it_are_tried_apart(redis: Redis) -> None:
    """Sessions that were held by the same dead workers are due again at different times."""
    await fill(redis, {f"s{number}": NOW for number in range(40)})
    for death in range(6):
        await _taken_over(redis, NOW + death * 20_000)
    due = [score for _, score in await redis.zrange(keys.DUE, 0, -1, withscores=True)]
    assert len({int(score) for score in due}) == len(due)
    assert max(due) - min(due) > 20_000


async def test_whoever_concludes_is_no_suspect(redis: Redis) -> None:
    """An attempt that ends, however it does, begins the count anew."""
    store = Store(redis, retention_ms=1000)
    await store.record(scheduling(), now_ms=NOW)
    line = session_line(redis)
    claims = [
        (await line.claim(limit=1, lease_ms=20_000, token=f"t{at}", now_ms=at))[0]
        for at in (NOW, NOW + 20_000, NOW + 40_000)
    ]
    assert [each.orphaned for each in claims] == [0, 1, 2]
    claim = claims[-1]
    await store.fail(
        "s", claim.token, now_ms=NOW, first_wait_ms=1, most_failures=9, kind="Boom", reason=""
    )
    (claim,) = await line.claim(limit=1, lease_ms=20_000, token="u", now_ms=NOW + 100_000)
    assert (claim.orphaned, claim.taken_over) == (0, False)
