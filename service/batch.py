"""Calls of one script that wait at the same time share a round trip.

Under load most of a webhook's time goes into handing single commands to Redis and waking up for
single answers. While one batch is under way, the calls that come meanwhile gather for the next; an
idle server sends each call at once. Every call is still one script, atomic by itself.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

_MOST: Final = 256

Value: TypeAlias = str | bytes | int


@dataclass(frozen=True, slots=True)
class _Call:
    arguments: tuple[Value, ...]
    key_count: int
    answer: "asyncio.Future[Any]"


class BatchedScript:
    """A Lua script that may be repeated: a call whose connection broke may have run already.

    Answers have the shapes of Redis' second protocol: a hash is a flat list.
    """

    def __init__(self, redis: Redis, text: str) -> None:
        self._redis = redis
        self._text = text
        # Redis names scripts by this hash; nothing rests on its strength.
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[_Call] = []
        self._sending: asyncio.Task[None] | None = None

    async def __call__(self, keys: Sequence[Value], args: Sequence[Value]) -> Any:
        """The script's answer to this call. Redis' errors pass through."""
        call = _Call((*keys, *args), len(keys), asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await call.answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._send(batch)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Call]) -> None:
        try:
            answers = await self._execute(batch)
            if any(isinstance(answer, NoScriptError) for answer in answers):
                await self._redis.script_load(self._text)
                answers = await self._execute(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            answers = [error] * len(batch)
        for call, answer in zip(batch, answers, strict=True):
            if call.answer.done():  # Its caller has stopped waiting.
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    async def _execute(self, batch: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in batch:
                pipe.execute_command("EVALSHA", self._sha, call.key_count, *call.arguments)
            return await pipe.execute(raise_on_error=False)
