"""Dead letters: sessions that failures of our own have ended, until somebody looks at them.

They are listed by the time of their death and counted by kind, which is the class of the last
failure. Whatever takes a session off the list does so in the step that changes the session, so the
counts are always those of the list. A session that is not dead any more is never touched, whoever
asks.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from service import keys
from service.records import State

OTHER: Final = "other"
"""The kind of what comes when there are too many kinds."""
WRONG_REQUEST: Final = "WrongRequest"

MOST_KINDS: Final = 100
_LONGEST_KIND: Final = 100
_PAGE: Final = 500

# Fields that only a session has which is dead, or was: what makes it live again removes them.
OF_THE_DEAD: Final = "'reason', 'failures', 'kind', 'dropped'"

# For the scripts that end and reopen sessions, too. The hashes of counts go with the list.
LISTING: Final = f"""
local function enlist(dead, key, id, kind, now)
  local kinds = dead .. ':kinds'
  if redis.call('HEXISTS', kinds, kind) == 0 and redis.call('HLEN', kinds) >= {MOST_KINDS} then
    kind = '{OTHER}'
  end
  if redis.call('ZADD', dead, now, id) == 0 then return end
  redis.call('HSET', key, 'kind', kind)
  if redis.call('HINCRBY', kinds, kind, 1) == 1 then
    redis.call('HSET', dead .. ':since', kind, now)
  end
end
local function strike(dead, key, id)
  if redis.call('ZREM', dead, id) == 0 then return end
  local kind = redis.call('HGET', key, 'kind')
  if kind and redis.call('HINCRBY', dead .. ':kinds', kind, -1) < 1 then
    redis.call('HDEL', dead .. ':kinds', kind)
    redis.call('HDEL', dead .. ':since', kind)
  end
  if redis.call('EXISTS', dead) == 0 then
    redis.call('DEL', dead .. ':kinds', dead .. ':since')
  end
end
"""

# A session that is listed and lives (an older version may have opened it) is only struck off.
_CHOSEN: Final = (
    LISTING
    + f"""
local function chosen(dead, key, id, kind)
  if not redis.call('ZSCORE', dead, id) then return false end
  local found = redis.call('HMGET', key, 'state', 'kind')
  if found[1] ~= '{State.DEAD}' then
    strike(dead, key, id)
    return false
  end
  return kind == '' or found[2] == kind
end
"""
)

# The events and what they led to stay: a verdict, an analysis, how far the waiting had come.
_RETRY: Final = (
    _CHOSEN
    + f"""
local dead, due, index = KEYS[1], KEYS[2], KEYS[3]
local prefix, kind, now = ARGV[1], ARGV[2], ARGV[3]
local done = {{}}
for i = 4, #ARGV do
  local id, key = ARGV[i], prefix .. ARGV[i]
  if chosen(dead, key, id, kind) then
    strike(dead, key, id)
    redis.call('HSET', key, 'state', '{State.OPEN}')
    redis.call('HDEL', key, 'token', {OF_THE_DEAD})
    redis.call('ZADD', due, now, id)
    redis.call('ZADD', index, now, id)
    done[#done + 1] = id
  end
end
return done
"""
)

_DROP: Final = (
    _CHOSEN
    + """
local dead, index = KEYS[1], KEYS[2]
local prefix, kind, now, raw, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local done = {}
for i = 6, #ARGV do
  local id, key = ARGV[i], prefix .. ARGV[i]
  if chosen(dead, key, id, kind) then
    strike(dead, key, id)
    redis.call('HSET', key, 'dropped', now)
    redis.call('PEXPIRE', key, ttl)
    redis.call('DEL', raw .. id)
    redis.call('ZADD', index, now, id)
    done[#done + 1] = id
  end
end
return done
"""
)

_EXPIRE: Final = (
    _CHOSEN
    + """
local dead, index = KEYS[1], KEYS[2]
local prefix, raw, before, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local gone = {}
local old = redis.call('ZRANGEBYSCORE', dead, '-inf', before, 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #old, 2 do
  local id, key = old[i], prefix .. old[i]
  if chosen(dead, key, id, '') then
    local found = redis.call('HMGET', key, 'kind', 'reason', 'failures')
    strike(dead, key, id)
    redis.call('UNLINK', key, raw .. id)
    redis.call('ZREM', index, id)
    gone[#gone + 1] = {id, old[i + 1], found[1], found[2], found[3]}
  end
end
return {#old, gone}
"""
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is known of one without reading its record, which may be what it died of."""

    session_id: str
    died_ms: int
    kind: str
    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many dead letters there are of one kind, and since when there have been any."""

    kind: str
    number: int
    since_ms: int


class DeadLetters:
    """The dead letters in one Redis, whose errors pass through. Workers may run meanwhile."""

    def __init__(self, redis: Redis, *, retention_ms: int) -> None:
        self._redis = redis
        self._retention_ms = retention_ms
        self._retry = redis.register_script(_RETRY)
        self._drop = redis.register_script(_DROP)
        self._expire = redis.register_script(_EXPIRE)

    async def counts(self) -> tuple[Count, ...]:
        """The kinds that there are, the most frequent first."""
        since = await self._hash(keys.DEAD_SINCE)
        found = [
            Count(kind.decode(errors="replace"), int(number), int(since.get(kind, 0)))
            for kind, number in (await self._hash(keys.DEAD_KINDS)).items()
        ]
        return tuple(sorted(found, key=lambda count: (-count.number, count.kind)))

    async def newest(self) -> AsyncIterator[DeadLetter]:
        """All of them, the latest death first."""
        start = 0
        while page := await self._redis.zrevrange(
            keys.DEAD, start, start + _PAGE - 1, withscores=True
        ):
            for letter in await self._letters(page):
                yield letter
            start += _PAGE

    async def pages(self) -> AsyncIterator[tuple[str, ...]]:
        """Their ids in some order, some hundreds at a time; all that are there from start to end.

        An id may come twice, and a page may be empty. What is done to a page disturbs no other.
        """
        cursor = -1
        while cursor:
            cursor, found = await self._redis.zscan(keys.DEAD, max(cursor, 0), count=_PAGE)
            yield tuple(id.decode(errors="replace") for id, _ in found)

    async def find(self, ids: Sequence[str]) -> tuple[DeadLetter, ...]:
        """Those of the sessions that are dead letters."""
        if not ids:
            return ()
        scores = await self._redis.zmscore(keys.DEAD, list(ids))
        page = [(id.encode(), at) for id, at in zip(ids, scores, strict=True) if at is not None]
        return tuple(await self._letters(page))

    async def retry(self, ids: Sequence[str], *, now_ms: int, kind: str = "") -> tuple[str, ...]:
        """Open the sessions that are dead letters (of that kind), due now, with all tries left.

        Which those were. Events, verdict, analysis and the waiting so far stay.
        """
        done = await self._retry(
            keys=[keys.DEAD, keys.DUE, keys.SESSIONS], args=[keys.SESSION, kind, now_ms, *ids]
        )
        return tuple(id.decode() for id in done)

    async def drop(self, ids: Sequence[str], *, now_ms: int, kind: str = "") -> tuple[str, ...]:
        """Take the sessions that are dead letters (of that kind) off the list, for good.

        Which those were. They stay dead, say that somebody dropped them, and end after the
        retention; what Telnyx answered goes at once.
        """
        done = await self._drop(
            keys=[keys.DEAD, keys.SESSIONS],
            args=[keys.SESSION, kind, now_ms, keys.RAW, self._retention_ms, *ids],
        )
        return tuple(id.decode() for id in done)

    async def expire(self, *, now_ms: int) -> tuple[DeadLetter, ...]:
        """Remove what died longer ago than the retention, sessions and all; what that was."""
        gone: list[DeadLetter] = []
        args = (keys.SESSION, keys.RAW, now_ms - self._retention_ms, _PAGE)
        looked_at = 1
        while looked_at:
            looked_at, found = await self._expire(keys=[keys.DEAD, keys.SESSIONS], args=args)
            gone += [_letter(id, at, rest) for id, at, *rest in found]
        return tuple(gone)

    async def _letters(self, page: Sequence[tuple[bytes, float]]) -> list[DeadLetter]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for id, _ in page:
                name = keys.session_key(id.decode(errors="replace"))
                pipe.hmget(name, ["kind", "reason", "failures"])
            found = await pipe.execute()
        return [_letter(id, at, fields) for (id, at), fields in zip(page, found, strict=True)]

    async def _hash(self, key: str) -> Mapping[bytes, bytes]:
        # redis-py types one method for its blocking and its asyncio client at once.
        return await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(key))


def kind_of(error: BaseException) -> str:
    """The kind of dead letter that an error makes."""
    return type(error).__name__[:_LONGEST_KIND]


def _letter(id: bytes, at: float | bytes, fields: Sequence[bytes | None]) -> DeadLetter:
    kind, reason, failures = fields
    return DeadLetter(
        session_id=id.decode(errors="replace"),
        died_ms=int(float(at)),
        kind=(kind or OTHER.encode()).decode(errors="replace"),
        reason=(reason or b"").decode(errors="replace"),
        failures=int(failures or 0),
    )
