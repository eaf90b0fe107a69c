"""What counts only when replicas have it, and what Redis refuses: done whole or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from service import keys
from service.batch import BatchedScript
from service.queue import Claim, session_line
from service.records import Conclusion, State, Watch
from service.replicas import ReplicatedScript, TooFewReplicas
from service.store import Store
from tests.samples import END_MS, scheduling
from tests.world.valkey import Valkey

pytestmark = pytest.mark.anyio

SET = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """A master and its replica."""
    with Valkey() as master, Valkey(replica_of=master) as replica:
        yield master, replica


@pytest.fixture
async def master(pair: tuple[Valkey, Valkey]) -> AsyncIterator[Redis]:
    """A connection to the master, which knows no script yet."""
    async with Redis.from_url(pair[0].url) as client:
        await client.flushall()
        await client.script_flush()
        yield client


async def test_an_answer_comes_when_a_replica_has_it(
    pair: tuple[Valkey, Valkey], master: Redis
) -> None:
    """What the script wrote is on the replica when its answer is here."""
    script = ReplicatedScript(master, SET, replicas=1)
    assert await script(keys=["k"], args=["1"]) == b"1"
    assert pair[1].ask("GET k").endswith(b"\r\n1\r\n")


async def test_all_calls_of_a_batch_hear_that_too_few_have_it(
    pair: tuple[Valkey, Valkey], master: Redis
) -> None:
    """Neither a call that wrote nor one that had nothing to write is taken for kept."""
    once = "if redis.call('SETNX', KEYS[1], '1') == 0 then return 'known' end return 'new'"
    script = BatchedScript(master, once, replicas=1)
    assert await script(["k"], []) == b"new"
    with pair[1].paused():
        for key in ("other", "k"):
            with pytest.raises(TooFewReplicas, match="0 of 1 replicas have it"):
                await script([key], [])
    assert await script(["other"], []) == b"known"


async def test_the_best_that_can_be_done_is_said(
    pair: tuple[Valkey, Valkey], master: Redis
) -> None:
    """Where nothing else can be done, too few replicas are a line in the log."""
    script = ReplicatedScript(master, SET, replicas=1, best_effort=True)
    with pair[1].paused(), structlog.testing.capture_logs() as lines:
        assert await script(keys=["k"], args=["1"]) == b"1"
    assert [line["reason"] for line in lines] == ["0 of 1 replicas have it"]


async def test_an_error_is_the_scripts_own_and_shows_no_argument(master: Redis) -> None:
    """A script that fails does so as without replicas; what it was given stays out of the text."""
    script = ReplicatedScript(master, "return redis.call('NONSENSE')", replicas=1)
    with pytest.raises(ResponseError) as failure:
        await script(keys=[], args=["somebody's number"])
    assert not isinstance(failure.value, NoScriptError)
    assert "number" not in str(failure.value)


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
async def full(redis: Redis) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Call it to leave the server no memory."""

    async def fill() -> None:
        await redis.config_set("maxmemory", 1)

    yield fill
    await redis.config_set("maxmemory", 0)


async def test_a_refusal_is_the_whole_batchs(redis: Redis, full: Callable[[], Any]) -> None:
    """What Redis refuses to one call it refuses to all, in the words in which it says so."""
    script = BatchedScript(redis, SET)
    await full()
    with pytest.raises(OutOfMemoryError):
        await script(["k"], ["1"])
    # A call that writes nothing would not be refused by itself.
    mixed = BatchedScript(redis, "if ARGV[1] ~= '' then return 1 end " + SET)
    calls = [mixed(["k"], [text]) for text in ("x", "", "x")]
    answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [OutOfMemoryError] * 3


async def test_a_full_redis_does_a_thing_whole_or_not_at_all(
    redis: Redis, full: Callable[[], Any]
) -> None:
    """Recording, claiming, concluding and failing are refused as long as there is no memory.

    Nothing of them has been done then, and afterwards each of them can be.
    """
    store, line = Store(redis, retention_ms=60_000), session_line(redis)
    await store.record(scheduling("held", at_ms=END_MS), now_ms=END_MS)
    (held,) = await line.claim(limit=1, lease_ms=1, token="t", now_ms=END_MS)
    await store.record(scheduling("ripe", at_ms=END_MS), now_ms=END_MS)
    session = await store.take("held", held.token)
    assert session

    async def record() -> object:
        return await store.record(scheduling("new", at_ms=END_MS), now_ms=END_MS)

    async def claim() -> list[Claim]:
        return await line.claim(limit=5, lease_ms=1, token="u", now_ms=END_MS)

    async def fail() -> object:
        return await store.fail(
            "held", held.token, now_ms=1, first_wait_ms=1, most_failures=1, kind="Boom", reason=""
        )

    async def conclude() -> object:
        conclusion = Conclusion(State.VERDICT, Watch(), None, "", answered=True)
        return await store.conclude(session, held.token, conclusion, now_ms=END_MS)

    before = await _everything(redis)
    await full()
    for change in (record, claim, fail, conclude):
        with pytest.raises(OutOfMemoryError):
            await change()
        assert await _everything(redis) == before
    await redis.config_set("maxmemory", 0)
    assert [bool(await change()) for change in (record, claim, conclude)] == [True] * 3
    assert await redis.exists(keys.session_key("new"))


async def _everything(redis: Redis) -> dict[bytes, bytes]:
    names = await cast("Awaitable[list[bytes]]", redis.keys("*"))
    return {name: await redis.dump(name) for name in names}
