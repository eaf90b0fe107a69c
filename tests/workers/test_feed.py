"""Feeding arq: what is leased is run, given back or let go, and never held for nothing."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.worker import func
from msgspec import json
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.queue import Claim, session_line
from service.store import Store
from tests.samples import END_MS, scheduling
from tests.world.processes import wait_until_async
from workers import feed
from workers.feed import LEASE_MS, Feeder
from workers.leased import LeasedWorker

pytestmark = pytest.mark.anyio


def my_queue() -> str:
    return "arq:queue:me"


class Broken:
    """An arq whose pipeline loses its connection."""

    def pipeline(self, **_: Any) -> Any:
        raise RedisConnectionError("gone")


def worker_of(feeder: Feeder, analyze: Any) -> LeasedWorker:
    """Arq's loop, which runs `analyze` for what this feeder hands over."""
    return LeasedWorker(
        all_tasks=set(),
        has_unstarted=lambda: feeder.has_unstarted,
        functions=[func(analyze, name="analyze")],
        queue_name=my_queue(),
        redis_pool=feeder.arq,
        handle_signals=False,
        poll_delay=0.01,
        job_serializer=json.encode,
        job_deserializer=json.decode,
    )


@pytest.fixture
async def feeder(redis: Redis) -> Feeder:
    """A feeder of one due session."""
    await Store(redis, retention_ms=1000).record(scheduling(at_ms=END_MS), now_ms=END_MS)
    arq = ArqRedis(pool_or_conn=redis.connection_pool)
    return Feeder(session_line(redis), "analyze", arq, 5, "me", json.encode)


async def test_a_claim_becomes_a_job_of_this_workers_queue(feeder: Feeder, redis: Redis) -> None:
    """A due session is leased, and lies in arq's queue of this worker."""
    assert await feeder.feed(my_queue) == 1
    assert feeder.held == 1
    assert await redis.zcard("arq:queue:me") == 1
    assert await feeder.feed(my_queue) == 0


async def test_arq_asks_redis_only_while_something_waits_to_begin(
    feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker's queue is left alone; what is handed over is begun at the next look."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def analyze(ctx: dict[str, Any], *claim: Any, **_: Any) -> None:
        async with feeder.working_on(Claim(*claim)):
            begun.set()
            await may_end.wait()

    worker = worker_of(feeder, analyze)
    asked: list[str] = []
    ask = feeder.arq.zrangebyscore

    def counted(name: str, **options: Any) -> Any:
        asked.append(name)
        return ask(name, **options)

    monkeypatch.setattr(feeder.arq, "zrangebyscore", counted)
    await worker._poll_iteration()
    assert asked == []
    await feeder.feed(my_queue)
    await worker._poll_iteration()
    await wait_until_async(begun.is_set, description="the job", timeout_seconds=10)
    await worker._poll_iteration()
    assert asked == ["arq:queue:me"]
    may_end.set()
    await asyncio.gather(*worker.all_tasks)
    assert not feeder.held
    # Once more, to look at what became of the job.
    for _ in range(2):
        await worker._poll_iteration()
    assert len(asked) == 2


def test_who_got_less_than_there_was_room_for_asks_as_seldom_as_an_idle_one() -> None:
    """Else the busiest would take all that comes. Who is full, or became it, asks soon."""
    idle = feed._pause_seconds(0, 5)
    assert feed._pause_seconds(4, 5) == idle
    soon = feed._pause_seconds(5, 5)
    assert feed._pause_seconds(0, 0) == soon < idle
    assert feed._pause_seconds(feed._LARGEST_BATCH, feed._LARGEST_BATCH) == 0


async def test_what_comes_after_a_quiet_time_is_begun(feeder: Feeder, redis: Redis) -> None:
    """One session after another, each when all was quiet; no lease has to end for that."""
    begun: list[str] = []

    async def analyze(ctx: dict[str, Any], *claim: Any, **_: Any) -> None:
        async with feeder.working_on(Claim(*claim)):
            begun.append(claim[0])
            await feeder.line.release({claim[0]: claim[1]}, after_ms=3_600_000)

    worker = worker_of(feeder, analyze)
    loops = [
        asyncio.create_task(worker.async_run()),
        asyncio.create_task(feeder.run(my_queue)),
    ]
    store = Store(redis, retention_ms=1000)
    for number in range(1, 4):
        await store.record(scheduling(f"s{number}", at_ms=END_MS), now_ms=END_MS)
        await wait_until_async(
            lambda: f"s{number}" in begun and not worker.all_tasks,  # noqa: B023 - it is awaited
            description=f"session {number}",
            timeout_seconds=LEASE_MS / 1000,
        )
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)
    assert len(set(begun)) == len(begun)


async def test_a_second_lease_on_what_is_still_worked_on_has_not_begun(feeder: Feeder) -> None:
    """The first was lost while its work went on: the end of either is not the other's."""
    first, second = (Claim("s1", token, 0, taken_over=False) for token in ("a", "b"))
    unstarted: list[bool] = []
    feeder._held["s1"] = "a"
    async with feeder.working_on(first):
        unstarted.append(feeder.has_unstarted)
        feeder._held["s1"] = "b"
        unstarted.append(feeder.has_unstarted)
        async with feeder.working_on(second):
            unstarted.append(feeder.has_unstarted)
            feeder._held["s1"] = "c"
    unstarted.append(feeder.has_unstarted)
    assert unstarted == [False, True, False, True]


async def test_a_claim_goes_to_the_queue_that_is_there_then(feeder: Feeder, redis: Redis) -> None:
    """When arq's loop begins a new queue while a claim is under way, the job goes there."""
    names = {"now": "arq:queue:old"}
    claim = feeder.line.claim

    async def slow_claim(**options: Any) -> list[Claim]:
        found = await claim(**options)
        names["now"] = "arq:queue:new"
        return found

    feeder.line.claim = slow_claim  # type: ignore[method-assign]
    await feeder.feed(lambda: names["now"])
    assert await redis.zcard("arq:queue:new") == 1
    assert await redis.zcard("arq:queue:old") == 0


async def test_a_lease_that_cannot_be_handed_over_is_let_go(feeder: Feeder) -> None:
    """If arq cannot be told, the lease is not kept: it ends by itself, and its place is free."""
    arq = feeder.arq
    feeder.arq = Broken()  # type: ignore[assignment]
    with pytest.raises(RedisConnectionError):
        await feeder.feed(my_queue)
    assert feeder.held == 0
    feeder.arq = arq


async def test_what_arq_never_began_is_let_go(
    feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that was handed over and never begun is not renewed for ever."""
    await feeder.feed(my_queue)
    monkeypatch.setattr(feed, "_START_SECONDS", 0.0)
    beating = asyncio.create_task(feeder.beat())
    await wait_until_async(lambda: feeder.held == 0, description="the lease is let go")
    beating.cancel()


async def test_what_another_has_taken_is_let_go(feeder: Feeder, redis: Redis) -> None:
    """When somebody else holds the session by now, this worker's place for it is free again."""
    await feeder.feed(my_queue)
    await redis.hset(keys.session_key("s"), "token", "another")  # type: ignore[misc]
    beating = asyncio.create_task(feeder.beat())
    await wait_until_async(lambda: feeder.held == 0, description="the place is free")
    beating.cancel()


async def test_what_is_claimed_during_a_heartbeat_is_kept(
    feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis' answer about the leases says nothing of one that came while it was on its way."""
    extend = feeder.line.extend
    asked: list[Mapping[str, str]] = []

    async def slow_extend(held: Mapping[str, str], *, lease_ms: int) -> frozenset[str]:
        asked.append(held)
        kept = await extend(held, lease_ms=lease_ms)
        await feeder.feed(my_queue)
        return kept

    monkeypatch.setattr(feeder.line, "extend", slow_extend)
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.0)
    beating = asyncio.create_task(feeder.beat())
    await wait_until_async(lambda: len(asked) > 1, description="the next heartbeat")
    beating.cancel()
    assert [list(held) for held in asked[:2]] == [[], ["s"]]


async def test_cancelled_work_is_given_back_at_once(feeder: Feeder, redis: Redis) -> None:
    """Work that is cancelled by a rollout is due again immediately, for anybody."""
    (mine,) = await feeder.line.claim(limit=1, lease_ms=60_000, token="t")
    begun = asyncio.Event()

    async def work(claim: Claim) -> None:
        async with feeder.working_on(claim):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work(mine))
    await wait_until_async(begun.is_set, description="the job", timeout_seconds=10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await feeder.line.claim(limit=1, lease_ms=60_000, token="other")


async def test_what_was_not_begun_is_given_back_at_the_end(feeder: Feeder) -> None:
    """At a worker's end, what it leased and did not begin is due again, and it is idle."""
    await feeder.feed(my_queue)
    await feeder.release_unstarted()
    await feeder.until_idle()
    assert await feeder.line.claim(limit=1, lease_ms=60_000, token="other")


async def test_what_redis_broke_off_is_given_back_when_it_is_there(feeder: Feeder) -> None:
    """Work that lost Redis does not wait for its lease to end: the next heartbeat gives it back."""
    (mine,) = await feeder.line.claim(limit=1, lease_ms=60_000, token="t")
    with pytest.raises(RedisConnectionError):
        async with feeder.working_on(mine):
            raise RedisConnectionError("gone")
    assert await feeder.line.claim(limit=1, lease_ms=60_000, token="other") == []
    beating = asyncio.create_task(feeder.beat())

    async def is_due() -> Any:
        return bool(await feeder.line.claim(limit=1, lease_ms=60_000, token="another"))

    await wait_until_async(is_due, description="the session is due")
    beating.cancel()
