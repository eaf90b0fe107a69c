"""The ledger of the search: one holder at a time, and what he wrote is there for the next."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from tests.world.processes import wait_until_async
from workers import ledger as ledger_module
from workers.ledger import HAND, LEASE_MS, SCHEDULE, Busy, LeaseLost, Ledger, Times
from workers.span import Span
from workers.walk import Progress, Walk

pytestmark = pytest.mark.anyio

PROGRESS = Progress(done=Span(1, 2), walk=Walk(Span(3, 4), page=5))


@pytest.fixture
async def ledger(redis: Redis) -> Ledger:
    """An empty one."""
    return Ledger(redis, who="me")


async def test_one_searches_at_a_time(ledger: Ledger, redis: Redis) -> None:
    """While one holds the lease nobody else gets it, whichever job it is; then the next does."""
    other = Ledger(redis, who="other")
    async with ledger.holding(SCHEDULE):
        for job in (SCHEDULE, HAND):
            with pytest.raises(Busy):
                async with other.holding(job):
                    raise AssertionError
    async with other.holding(HAND):
        pass
    assert not await redis.exists(keys.RECONCILE_LEASE)


async def test_progress_is_there_for_the_next(ledger: Ledger) -> None:
    """By job and source."""
    async with ledger.holding(SCHEDULE) as book:
        assert await book.load() == {}
        await book.save("a", PROGRESS)
        await book.save("b", Progress())
    async with ledger.holding(HAND) as book:
        assert await book.load() == {}
    async with ledger.holding(SCHEDULE) as book:
        assert await book.load() == {"a": PROGRESS, "b": Progress()}


async def test_progress_that_cannot_be_read_is_none(ledger: Ledger, redis: Redis) -> None:
    """That of another version: the search begins anew, which does no harm."""
    await redis.hset(keys.RECONCILE, f"{SCHEDULE}:a", '{"done": 7}')  # type: ignore[misc]
    async with ledger.holding(SCHEDULE) as book:
        assert await book.load() == {"a": Progress()}


async def test_times_of_searches_are_kept(ledger: Ledger) -> None:
    """Each end of a search by schedule, and apart from it the last whole one."""
    assert await ledger.times() == Times(0, 0)
    async with ledger.holding(SCHEDULE) as book:
        await book.close(whole=True, now_ms=10)
        await book.close(whole=False, now_ms=20)
    assert await ledger.times() == Times(20, 10)


async def test_nothing_is_left_of_a_whole_search_by_hand(ledger: Ledger) -> None:
    """The next one is another; of one that stopped early all is left."""
    async with ledger.holding(HAND) as book:
        await book.save("a", PROGRESS)
        await book.close(whole=False, now_ms=1)
        assert await book.load() == {"a": PROGRESS}
        await book.close(whole=True, now_ms=2)
        assert await book.load() == {}
    assert await ledger.times() == Times(0, 0)


async def test_who_lost_the_lease_writes_nothing(ledger: Ledger, redis: Redis) -> None:
    """And does not end that of who has it now."""
    async with ledger.holding(SCHEDULE) as book:
        await redis.set(keys.RECONCILE_LEASE, "other")
        with pytest.raises(LeaseLost):
            await book.save("a", PROGRESS)
        with pytest.raises(LeaseLost):
            await book.close(whole=True, now_ms=1)
    assert await redis.get(keys.RECONCILE_LEASE) == b"other"
    assert not await redis.exists(keys.RECONCILE)


async def test_the_lease_lives_as_long_as_its_holder(
    ledger: Ledger, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an end from the start, and is moved on while the holder is there."""
    monkeypatch.setattr(ledger_module, "_BEAT_SECONDS", 0.01)
    async with ledger.holding(SCHEDULE):
        assert 0 < await redis.pttl(keys.RECONCILE_LEASE) <= LEASE_MS
        await redis.pexpire(keys.RECONCILE_LEASE, 5_000)

        async def moved_on() -> bool:
            return int(await redis.pttl(keys.RECONCILE_LEASE)) > 5_000

        beaten: bool = await wait_until_async(moved_on, description="a beat")
        assert beaten


async def test_a_redis_that_is_away_at_the_end_does_not_matter(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease then ends by itself; what the holder did is done."""
    beats = asyncio.Event()

    async def away(**_: Any) -> None:
        beats.set()
        raise RedisConnectionError

    monkeypatch.setattr(ledger_module, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(ledger, "_extend", away)
    monkeypatch.setattr(ledger, "_release", away)
    async with ledger.holding(SCHEDULE):
        await beats.wait()
