"""Scripts in batches: every call gets its own answer, whatever the others do."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from service.batch import BatchedScript

pytestmark = pytest.mark.anyio

ECHO = """
if ARGV[1] == 'fail' then redis.call('LPUSH', KEYS[1], 1) end
redis.call('INCRBY', KEYS[1], ARGV[1])
return {KEYS[1], ARGV[1]}
"""


async def test_each_call_gets_its_own_answer(redis: Redis) -> None:
    """A thousand calls at once come back each with what it sent."""
    script = BatchedScript(redis, ECHO)
    answers = await asyncio.gather(*(script([f"k{n}"], [n]) for n in range(1000)))
    assert answers == [[f"k{n}".encode(), str(n).encode()] for n in range(1000)]


async def test_a_call_at_the_moment_when_all_batches_end_is_sent(redis: Redis) -> None:
    """A call that comes just when the last batches have been answered does not wait for another."""
    script, stuck = BatchedScript(redis, ECHO), Stuck()
    script._script = stuck  # type: ignore[assignment]

    async def twice() -> list[Any]:
        return [await script(["k"], [1]), await script(["k"], [2])]

    two = asyncio.create_task(twice())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    one = asyncio.create_task(script(["k"], [3]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stuck.go.set()
    async with asyncio.timeout(5):
        await asyncio.gather(two, one)
    assert stuck.calls == [1, 1, 1]


async def test_a_call_that_fails_spoils_no_other(redis: Redis) -> None:
    """An error in one call is that call's answer alone."""
    await redis.set("a", 0)
    script = BatchedScript(redis, ECHO)
    calls = (script(["a"], [1]), script(["a"], ["fail"]), script(["b"], [2]))
    answers: list[Any] = list(await asyncio.gather(*calls, return_exceptions=True))
    assert isinstance(answers[1], ResponseError)
    assert answers[::2] == [[b"a", b"1"], [b"b", b"2"]]


class Stuck:
    """A script that answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.go = asyncio.Event()

    async def __call__(self, *, keys: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        self.calls.append(int(args[0]))
        await self.go.wait()
        return ["done"] * int(args[0])


async def test_what_nobody_waits_for_is_not_sent(redis: Redis) -> None:
    """While Redis hangs, calls whose callers gave up are dropped and not sent later."""
    script, stuck = BatchedScript(redis, ECHO), Stuck()
    script._script = stuck  # type: ignore[assignment]
    first = [asyncio.create_task(script(["k"], [1])) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    given_up = [asyncio.create_task(script(["k"], [1])) for _ in range(300)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    stuck.go.set()
    await asyncio.gather(*first)
    assert sum(stuck.calls) == len(first)


async def test_a_lost_connection_is_told_to_every_caller(redis: Redis) -> None:
    """If a batch cannot be sent, each of its callers hears why."""

    async def broken(**_: Any) -> Any:
        raise RedisConnectionError("gone")

    script = BatchedScript(redis, ECHO)
    script._script = broken  # type: ignore[assignment]
    answers = await asyncio.gather(*(script(["k"], [1]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, RedisConnectionError) for answer in answers)


async def test_a_script_that_swallows_an_answer_leaves_nobody_waiting(redis: Redis) -> None:
    """Nil ends Redis' list of answers: all callers hear of it."""
    script = BatchedScript(redis, "if ARGV[1] == '1' then return nil end return ARGV[1]")
    answers = await asyncio.gather(*(script(["k"], [n]) for n in (0, 1, 2)), return_exceptions=True)
    assert any(isinstance(answer, RuntimeError) for answer in answers)
    assert len(answers) == 3
