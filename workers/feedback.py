"""What people say of sessions, kept in Redis with who and when, and what it changes.

*Expected*: its like are usual from now on; *anomaly*: it teaches nothing; *planned*: its assistant
or connection is muted for a while. One word for each session, the last one; all of it can be taken
back. Each word sets what it changes and adds nothing to it, so a command that was broken off is
repeated.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import msgspec
from redis.asyncio import Redis

from service import keys
from service.logs import get_logger
from service.records import SCHEMA_VERSION, encode
from workers.baselines import DAY_MS, Baselines
from workers.detection.mutes import Mute
from workers.detection.widening import times_to_widen
from workers.sheets import Taught

Kind = Literal["expected", "anomaly", "planned"]
_FRESH_SECONDS: Final = 60.0
_log = get_logger()

_SAY: Final = """
local said, ends = KEYS[1], KEYS[2]
local session, document, forgotten = ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function forget(id)
  redis.call('HDEL', said, id)
  redis.call('ZREM', ends, id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now))) do
  forget(id)
end
local had = redis.call('HEXISTS', said, session)
if document == '' then
  forget(session)
else
  redis.call('HSET', said, session, document)
  redis.call('ZADD', ends, forgotten, session)
end
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
if last[2] then
  local left = string.format('%.0f', math.max(1, tonumber(last[2]) - now))
  redis.call('PEXPIRE', said, left)
  redis.call('PEXPIRE', ends, left)
end
return had
"""


class Feedback(msgspec.Struct, omit_defaults=True, frozen=True):
    """What somebody said of a session, and when."""

    session_id: str
    kind: Kind
    by: str
    at_ms: int
    note: str = ""
    mute: Mute | None = None
    """Of what is planned."""
    times: int = 0
    """Of what is expected: how often it counts among the usual calls."""
    v: int = SCHEMA_VERSION


class NothingTaught(Exception):
    """Nothing is known (any more) of what the session has taught."""


@dataclass(slots=True)
class FeedbackBook:
    """All that was said, in one Redis. Redis' errors pass through."""

    redis: Redis
    baselines: Baselines
    retention_ms: int
    seconds: Callable[[], float] = time.monotonic
    """A clock for how old the mutes at hand are."""
    _mutes: tuple[Mute, ...] = ()
    _read_at: float | None = None

    async def expect(self, said: Feedback) -> Feedback:
        """Its like are usual from now on, less from day to day. Raises NothingTaught."""
        lesson = await self._lesson(said.session_id)
        day = said.at_ms // DAY_MS
        # What it counts for so far, by an earlier word, must not be what it is measured by.
        await self.baselines.restore(said.session_id)
        ladder = [(await self.baselines.baseline(name, day)).calls for name in lesson.ladder]
        times = times_to_widen(ladder, day - lesson.day)
        said = msgspec.structs.replace(said, times=times)
        await self._keep(said)
        await self.baselines.widen(said.session_id, said.times)
        return said

    async def refuse(self, said: Feedback) -> Feedback:
        """It teaches nothing, and is no evidence of a change. Raises NothingTaught."""
        await self._lesson(said.session_id)
        await self._keep(said)
        await self.baselines.unlearn(said.session_id)
        return said

    async def plan(self, said: Feedback) -> Feedback:
        """Its mute holds, in each worker within a minute."""
        await self._keep(said)
        await self.baselines.restore(said.session_id)
        return said

    async def undo(self, session_id: str) -> bool:
        """As if nothing had been said. Whether anything had been."""
        await self.baselines.restore(session_id)
        return bool(await self._say(session_id, b"", 0))

    async def listed(self) -> list[tuple[str, Feedback | None]]:
        """All of it, the last said first; None for what cannot be read, at the end."""
        found = await self._all()
        return sorted(found.items(), key=lambda item: _order(item[1]))

    async def mutes(self) -> tuple[Mute, ...]:
        """All mutes, also those that have ended; at most a minute old."""
        now = self.seconds()
        if self._read_at is None or now - self._read_at > _FRESH_SECONDS:
            found = await self._all()
            self._mutes = tuple(said.mute for said in found.values() if said and said.mute)
            self._read_at = now
        return self._mutes

    async def _lesson(self, session_id: str) -> Taught:
        lesson = await self.baselines.lesson(session_id)
        if lesson is None:
            raise NothingTaught(session_id)
        return lesson

    async def _keep(self, said: Feedback) -> None:
        ends_ms = max(said.at_ms, said.mute.until_ms if said.mute else 0)
        await self._say(said.session_id, encode(said), ends_ms + self.retention_ms)

    async def _say(self, session_id: str, document: bytes, forgotten_ms: int) -> int:
        self._read_at = None
        script = self.redis.register_script(_SAY)
        return int(
            await script(
                keys=[keys.FEEDBACK, keys.FEEDBACK_ENDS],
                args=[session_id, document, forgotten_ms],
            )
        )

    async def _all(self) -> dict[str, Feedback | None]:
        found: Mapping[bytes, bytes] = await cast("Any", self.redis.hgetall(keys.FEEDBACK))
        return {id.decode(errors="replace"): _readable(id, raw) for id, raw in found.items()}


async def feedback_on(redis: Redis, session_id: str) -> Feedback | None:
    """What was said of a session. Raises msgspec.MsgspecError where that cannot be read."""
    raw = await cast("Any", redis.hget(keys.FEEDBACK, session_id))
    return _FEEDBACK.decode(raw) if raw else None


def _readable(session_id: bytes, raw: bytes) -> Feedback | None:
    """A word that cannot be read must not stop what goes by the others."""
    try:
        return _FEEDBACK.decode(raw)
    except msgspec.MsgspecError as error:
        _log.warning(
            "feedback cannot be read",
            session_id=session_id.decode(errors="replace"),
            reason=str(error),
        )
        return None


def _order(said: Feedback | None) -> int:
    return -said.at_ms if said else 1


_FEEDBACK: Final = msgspec.json.Decoder(Feedback)
