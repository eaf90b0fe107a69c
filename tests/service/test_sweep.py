"""The net: what stands in no line is put back, and nothing else is touched."""

import pytest
from redis.asyncio import Redis

from service import keys
from service.queue import session_line
from service.records import Delivery, Severity
from service.store import Store
from service.sweep import NETS, PAGE, Sweep
from tests.samples import END_MS, scheduling
from tests.service.test_dead import die
from tests.service.test_store import alert, claim, final

pytestmark = pytest.mark.anyio

SESSIONS, ALERTS = NETS


async def walk(redis: Redis, net: object = SESSIONS) -> list[str]:
    """What one walk over the whole index puts back."""
    sweep, lost, at_end = Sweep(redis, net), [], False  # type: ignore[arg-type]
    while not at_end:
        found, at_end = await sweep.page()
        lost += found
    return lost


@pytest.fixture
def store(redis: Redis) -> Store:
    return Store(redis, retention_ms=86_400_000)


async def now_of(redis: Redis) -> int:
    seconds, micros = await redis.time()
    return int(seconds * 1000 + micros // 1000)


async def test_a_lost_session_is_due_again(redis: Redis, store: Store) -> None:
    """An open session whose id is in neither set is due at once; a second walk finds nothing."""
    await store.record(scheduling("lost"), now_ms=END_MS)
    await store.record(scheduling("fine"), now_ms=END_MS)
    await redis.zrem(keys.ENDED, "lost")
    before = await now_of(redis)
    assert await walk(redis) == ["lost"]
    assert before <= (await redis.zscore(keys.DUE, "lost") or 0) <= await now_of(redis)
    assert await redis.zscore(keys.ENDED, "fine") == END_MS
    assert await walk(redis) == []


async def test_a_lost_lease_is_left_to_its_holder(redis: Redis, store: Store) -> None:
    """What somebody is at work on comes back as leased: its holder's heartbeat finds it again."""
    await store.record(scheduling(), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS * 2)
    await redis.zrem(keys.DUE, "s")
    assert await walk(redis) == ["s"]
    line = session_line(redis)
    assert await line.claim(limit=5, lease_ms=1, token="other") == []
    assert await line.extend({"s": mine.token}, lease_ms=60_000) == {"s"}
    assert await store.take("s", mine.token)


async def test_what_is_under_way_is_not_disturbed(redis: Redis, store: Store) -> None:
    """Waiting, leased, finished and dead sessions stay where they are."""
    await die(redis, store, "dead", now_ms=END_MS)
    for name in ("finished", "leased"):
        await store.record(scheduling(name), now_ms=END_MS)
    for found in await claim(redis, now_ms=END_MS * 2):
        taken = await store.take(found.id, found.token)
        if taken and taken.id == "finished":
            await store.conclude(taken, found.token, final(), now_ms=END_MS)
    await store.record(scheduling("waiting"), now_ms=END_MS)
    await store.dead.drop(["dead"], now_ms=END_MS)
    await die(redis, store, "dead too", now_ms=END_MS)
    lines = (keys.DUE, keys.ENDED, keys.SESSIONS)
    before = [await redis.zrange(line, 0, -1, withscores=True) for line in lines]
    assert await walk(redis) == []
    assert [await redis.zrange(line, 0, -1, withscores=True) for line in lines] == before


async def test_a_lost_alert_is_posted_again(redis: Redis, store: Store) -> None:
    """An alert that waits and is in no outbox is put back; one that was posted is not."""
    for name, severity in (("lost", Severity.HIGH), ("told", Severity.LOW)):
        await store.record(scheduling(name), now_ms=END_MS)
        (mine,) = await claim(redis, now_ms=END_MS * 2, token=name)
        taken = await store.take(name, mine.token)
        assert taken
        conclusion = final(severity)
        object.__setattr__(conclusion, "alert", alert(severity, name))
        await store.conclude(taken, mine.token, conclusion, now_ms=END_MS)
    await redis.hset(keys.alert_key("told:low"), "delivery", Delivery.POSTED)  # type: ignore[misc]
    await redis.zrem(keys.OUTBOX, "lost:high", "told:low")
    assert await walk(redis, ALERTS) == ["lost:high"]
    assert await redis.zscore(keys.OUTBOX, "lost:high")


async def test_what_a_summary_tells_is_left_to_it(redis: Redis, store: Store) -> None:
    """An alert in a waiting summary stands in no line; if the summary is lost, it is put back."""
    await store.record(scheduling(), now_ms=END_MS)
    (mine,) = await claim(redis, now_ms=END_MS * 2)
    taken = await store.take("s", mine.token)
    assert taken
    await store.conclude(taken, mine.token, final(Severity.HIGH), now_ms=END_MS)
    summary, key = "1:summary", keys.alert_key("s:high")
    await redis.hset(key, "told_in", summary)  # type: ignore[misc]
    await redis.hset(keys.alert_key(summary), "delivery", Delivery.WAITING)  # type: ignore[misc]
    place = await redis.zscore(keys.OUTBOX, "s:high")
    await redis.zrem(keys.OUTBOX, "s:high")
    assert await walk(redis, ALERTS) == []
    await redis.delete(keys.alert_key(summary))
    assert await walk(redis, ALERTS) == ["s:high"]
    assert await redis.zscore(keys.OUTBOX, "s:high") == place
    assert not await redis.hexists(key, "told_in")  # type: ignore[misc]


async def test_many_are_walked_in_pages(redis: Redis, store: Store) -> None:
    """A walk takes several bounded steps, and finds what is lost wherever it is."""
    ids = [f"s{number}" for number in range(5 * PAGE)]
    for id in ids:
        await store.record(scheduling(id), now_ms=END_MS)
    await redis.zrem(keys.ENDED, *ids[::7])
    sweep, pages, lost = Sweep(redis, SESSIONS), 0, set()
    at_end = False
    while not at_end:
        found, at_end = await sweep.page()
        lost.update(found)
        pages += 1
    assert lost == set(ids[::7])
    assert pages > 2
    assert await redis.zcard(keys.DUE) == len(lost)
