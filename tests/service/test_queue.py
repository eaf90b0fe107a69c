"""Claiming from a backlog: the oldest in order, and what is due now beside them."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys
from service.queue import FRESH_MS, session_line
from tests.samples import END_MS

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
