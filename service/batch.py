"""Calls of one script that wait at the same time share a round trip.

Under load most of a webhook's time goes into handing single commands to Redis and waking up for
single answers. While one batch is under way, the calls that come meanwhile gather for the next; an
idle server sends each call at once. A batch is one
script, so each call is atomic.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis

from service.replicas import ReplicatedScript

_MOST: Final = 256
# While Redis works on one batch, the next is on its way, and one more is gathered.
_AT_ONCE: Final = 2

# The script's text becomes a function, called once for each call in the batch with KEYS and ARGV of
# that call alone. A call that fails gives back its error and spoils no other.
#
# What Redis refuses, though, it refuses to all, and at a script's first write only: so nothing has
# been written by then, and the refusal is the whole batch's. redis-py recognises it only there, and
# a connection to a master that is one no longer has to be left.
_FRAME: Final = """
local refusals = {READONLY = 1, OOM = 1, MISCONF = 1, NOREPLICAS = 1}
local function call(KEYS, ARGV)
%s
end
local count, key_count, arg_count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}
for i = 1, count do
  local keys = {unpack(KEYS, (i - 1) * key_count + 1, i * key_count)}
  local args = {unpack(ARGV, (i - 1) * arg_count + 4, i * arg_count + 3)}
  local fine, answer = pcall(call, keys, args)
  if fine then
    answers[i] = answer
  else
    local error = type(answer) == 'table' and answer.err or tostring(answer)
    local word = string.match(error, '%%f[%%u]%%u+')
    if word and refusals[word] then
      return {err = string.sub(error, (string.find(error, word, 1, true)))}
    end
    answers[i] = {err = error}
  end
end
return answers
"""

# A str, bytes or int; redis-py names only the first two, and sends the third as its digits.
Value: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class _Call:
    keys: Sequence[Value]
    args: Sequence[Value]
    answer: "asyncio.Future[Any]"


class BatchedScript:
    """A Lua script that may be repeated: a call whose connection broke may have run already.

    All calls have the same number of keys and of arguments. Every path of the text must return
    something other than nil, which would end the list of answers.
    """

    def __init__(self, redis: Redis, text: str, *, replicas: int = 0) -> None:
        """`replicas`: so many must have what a batch wrote, or its calls raise TooFewReplicas."""
        self._script = ReplicatedScript(redis, _FRAME % text, replicas=replicas)
        self._waiting: list[_Call] = []
        self._sending = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, keys: Sequence[Value], args: Sequence[Value]) -> Any:
        """The script's answer to this call. Redis' errors pass through."""
        call = _Call(keys, args, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sending < _AT_ONCE:
            self._sending += 1
            task = asyncio.create_task(self._send_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await call.answer

    async def _send_all(self) -> None:
        try:
            await self._send_waiting()
        finally:
            # In the same step as the last look at what waits: a call that comes between the two
            # would wait for ever.
            self._sending -= 1

    async def _send_waiting(self) -> None:
        while self._waiting:
            # Not those whose callers have stopped waiting: Redis was slow enough without them.
            waiting = [call for call in self._waiting if not call.answer.done()]
            batch, self._waiting = waiting[:_MOST], waiting[_MOST:]
            if batch:
                await self._send(batch)

    async def _send(self, batch: Sequence[_Call]) -> None:
        first = batch[0]
        counts: list[Value] = [len(batch), len(first.keys), len(first.args)]
        try:
            answers = await self._script(
                keys=[key for call in batch for key in call.keys],
                args=counts + [arg for call in batch for arg in call.args],
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            answers = [error] * len(batch)
        if len(answers) != len(batch):
            lacking = RuntimeError(f"{len(answers)} answers to {len(batch)} calls of a script")
            answers = [lacking] * len(batch)
        for call, answer in zip(batch, answers, strict=True):
            if call.answer.done():  # Its caller has stopped waiting.
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)
