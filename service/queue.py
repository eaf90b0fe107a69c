"""What is due, durably: sorted sets in Redis from which workers lease their work.

A line is one sorted set of ids, scored by when each is due. Claiming an id moves its score to the
end of a lease, which the worker extends while it works. So there is no second list that could
disagree with the first: if a worker dies, the lease ends, which is to say that the id is due again,
and whoever is there takes it up. The token written at the claim fences off a worker which lost its
lease without knowing.

arq runs the jobs, but is not what remembers them: its own queue holds only what a live worker has
leased at this moment, and may be lost whole.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from service import keys
from service.clock import CLOCK
from service.gate import ALLOW

# Ripe ids (sessions whose first fetch is due) come over from the waiting set first. The limit on
# every step bounds the time of one script, whatever the backlog.
#
# Behind a backlog what is due now would wait for hours: so where there is more than can be claimed,
# every second place goes to what became due of late, and both are served in order of due time.
#
# Finished sessions that are to be looked at once more come last: they take what room is left, and
# leave half of the rate limit to others until half of its window has passed.
#
# What ends its worker is claimed again when its lease ends, and takes all with it that the next
# worker holds. So after some deaths in a row a session is put off, each by another time: the next
# one to die then dies of one session alone, and the others are concluded, which clears them.
_CLAIM: Final = (
    CLOCK
    + ALLOW
    + """
local due, waiting, gate, rechecks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3])
local token, prefix, delay = ARGV[4], ARGV[5], tonumber(ARGV[6])
local fresh_ms, fresh_first = tonumber(ARGV[7]), ARGV[8] == '1'
local now = clock(ARGV[1])
local lease_end = string.format('%.0f', now + lease)
-- Changes nothing, but is refused where a write would be: a claim is made whole or not at all, and
-- a server that is no master is not taken for one with nothing to do.
redis.call('ZADD', due, 'XX', 0, '')
local function ripen(from)
  local ripe = redis.call('ZRANGEBYSCORE', waiting, from, now - delay, 'WITHSCORES',
                          'LIMIT', 0, limit * 2)
  for i = 1, #ripe, 2 do
    redis.call('ZREM', waiting, ripe[i])
    redis.call('ZADD', due, string.format('%.0f', ripe[i + 1] + delay), ripe[i])
  end
  return #ripe / 2 == limit * 2
end
if waiting ~= due and ripen('-inf') then ripen(now - delay - fresh_ms) end
local function read(from)
  return redis.call('ZRANGEBYSCORE', due, from, now, 'WITHSCORES', 'LIMIT', 0, limit)
end
local found = read('-inf')
if #found == limit * 2 then
  local old, fresh, seen, mixed = found, read(now - fresh_ms), {}, {}
  local turns = fresh_first and {fresh, old} or {old, fresh}
  for i = 1, limit * 2, 2 do
    for _, rows in ipairs(turns) do
      if rows[i] and not seen[rows[i]] and #mixed < limit * 2 then
        seen[rows[i]] = true
        mixed[#mixed + 1] = rows[i]
        mixed[#mixed + 1] = rows[i + 1]
      end
    end
  end
  found = mixed
end
local function allowed(want, spare)
  return gate == due and want or allow(gate, now, want, spare)
end
local most, again = allowed(#found / 2, 0.2), {}
if rechecks ~= due and #found < limit * 2 then
  again = redis.call('ZRANGEBYSCORE', rechecks, '-inf', now, 'WITHSCORES',
                     'LIMIT', 0, limit - #found / 2)
end
local most_again = allowed(#again / 2, 0.5)
local suspect, most_orphaned = tonumber(ARGV[9]), tonumber(ARGV[10])
local function spread(id, times)
  local chance = tonumber(string.sub(redis.sha1hex(id .. times), 1, 4), 16) / 65535
  return 30000 * 2 ^ (times - suspect) * (0.5 + chance)
end
local claimed = {}
local function take(id, score, mine)
  local key = prefix .. id
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', due, id)
  else
    local f, times = redis.call('HMGET', key, 'token', 'rev', 'state'), 0
    if f[1] then times = redis.call('HINCRBY', key, 'orphaned', 1) end
    if times >= suspect and times < most_orphaned then
      redis.call('HDEL', key, 'token')
      redis.call('ZADD', due, string.format('%.0f', now + spread(id, times)), id)
    else
      redis.call('HSET', key, 'token', mine, 'claimed', f[2] or '')
      redis.call('ZADD', due, lease_end, id)
      claimed[#claimed + 1] = {id, mine, score, times, f[3] == 'verdict' and 1 or 0}
    end
  end
end
for i = 1, most * 2, 2 do take(found[i], found[i + 1], token .. '.' .. i) end
for i = 1, most_again * 2, 2 do
  local id = again[i]
  redis.call('ZREM', rechecks, id)
  -- Not what an older version has opened again without taking it off.
  if redis.call('HGET', prefix .. id, 'state') == 'verdict' then
    take(id, again[i + 1], token .. '.r' .. i)
  end
end
return claimed
"""
)

_EXTEND: Final = (
    CLOCK
    + """
local kept, until_ms = {}, string.format('%.0f', clock('') + ARGV[1])
for i = 3, #ARGV, 2 do
  if redis.call('HGET', ARGV[2] .. ARGV[i], 'token') == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], 'XX', until_ms, ARGV[i])
    kept[#kept + 1] = ARGV[i]
  end
end
return kept
"""
)

_RELEASE: Final = (
    CLOCK
    + """
local released, due_ms = 0, string.format('%.0f', clock('') + ARGV[1])
for i = 3, #ARGV, 2 do
  local key = ARGV[2] .. ARGV[i]
  if redis.call('HGET', key, 'token') == ARGV[i + 1] then
    redis.call('HDEL', key, 'token')
    redis.call('ZADD', KEYS[1], 'XX', due_ms, ARGV[i])
    released = released + 1
  end
end
return released
"""
)

_SUSPECT: Final = 5
MOST_ORPHANED: Final = 10
"""So many workers in a row that ended in mid-attempt: it is the session, not the workers."""
FRESH_MS: Final = 300_000
"""What became due within these five minutes is served beside a backlog, not behind it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on one id: what to work on, and the token that proves the right to conclude it."""

    id: str
    token: str
    due_ms: int
    taken_over: bool
    """The last holder's lease ended without a conclusion: it died, or lost Redis for long."""
    orphaned: int = 0
    """How many holders in a row it was."""
    again: bool = False
    """The session has its verdict: this is one more look at it."""


class Line:
    """One line of work: claim what is due, keep the lease, give it back."""

    def __init__(
        self,
        redis: Redis,
        *,
        due: str,
        prefix: str,
        waiting: str | None = None,
        gate: str | None = None,
        rechecks: str | None = None,
    ) -> None:
        self._due = due
        self._gate = gate
        self._numbers = itertools.count()
        self._prefix = prefix
        self._rechecks = rechecks
        self._waiting = waiting
        self._redis = redis
        self._claim = redis.register_script(_CLAIM)
        self._extend = redis.register_script(_EXTEND)
        self._release = redis.register_script(_RELEASE)

    async def claim(
        self,
        *,
        limit: int,
        lease_ms: int,
        token: str,
        delay_ms: int = 0,
        now_ms: int | None = None,
    ) -> list[Claim]:
        """Up to `limit` ids that are due, leased under `token`, the longest overdue first.

        Behind a backlog every second one is of those that became due of late. Finished ones that
        are to be looked at again come last. Of a line with a
        gate no more come than it lets through, each with a permit for one question.

        `token` must never be used for two claims. `delay_ms` is what waiting ids wait beyond their
        score. Without `now_ms` Redis' clock says what is due.
        """
        now = "" if now_ms is None else now_ms
        fresh_first = str(next(self._numbers) % 2)
        found = await self._claim(
            # A key that is not used must still be one: it may be all that a Redis user is allowed.
            keys=[
                self._due,
                *(key or self._due for key in (self._waiting, self._gate, self._rechecks)),
            ],
            args=[
                *(now, limit, lease_ms, token, self._prefix, delay_ms),
                *(FRESH_MS, fresh_first, _SUSPECT, MOST_ORPHANED),
            ],
        )
        return [
            Claim(
                *(id.decode(), mine.decode(), int(float(score))),
                *(bool(times), int(times), bool(again)),
            )
            for id, mine, score, times, again in found
        ]

    async def extend(self, held: Mapping[str, str], *, lease_ms: int) -> frozenset[str]:
        """Hold on to the ids (id → token) for `lease_ms` from now; which of them are still ours."""
        kept = await self._for_each(self._extend, held, lease_ms) if held else ()
        return frozenset(id.decode() for id in kept)

    async def release(self, held: Mapping[str, str], *, after_ms: int = 0) -> int:
        """Give the ids back unfinished: they are due `after_ms` from now, for anybody."""
        return int(await self._for_each(self._release, held, after_ms)) if held else 0

    async def depth(self, *, now_ms: int, delay_ms: int = 0) -> "Depth":
        """How much is in the line, and how far behind it is; without what is to be done again."""
        sets = [(self._due, 0)] + ([(self._waiting, delay_ms)] if self._waiting else [])
        return await self._depth(sets, now_ms)

    async def rechecks(self, *, now_ms: int) -> "Depth":
        """How many finished ones are to be looked at again, and how far behind that is."""
        return await self._depth([(self._rechecks, 0)] if self._rechecks else [], now_ms)

    async def _depth(self, sets: list[tuple[str, int]], now_ms: int) -> "Depth":
        async with self._redis.pipeline(transaction=False) as pipe:
            for name, delay in sets:
                pipe.zcard(name)
                pipe.zcount(name, "-inf", now_ms - delay)
                pipe.zrange(name, 0, 0, withscores=True)
            found = await pipe.execute()
        heads = zip(found[2::3], sets, strict=True)
        oldest = [int(rows[0][1]) + delay for rows, (_, delay) in heads if rows]
        return Depth(
            pending=sum(found[0::3]),
            overdue=sum(found[1::3]),
            oldest_overdue_ms=max(0, now_ms - min(oldest, default=now_ms)),
        )

    async def _for_each(self, script: Any, held: Mapping[str, str], score: int) -> Any:
        pairs: list[str] = [part for pair in held.items() for part in pair]
        return await script(keys=[self._due], args=[score, self._prefix, *pairs])


@dataclass(frozen=True, slots=True)
class Depth:
    """Ids in a line, those overdue, and how long the oldest of them has been."""

    pending: int
    overdue: int
    oldest_overdue_ms: int


def session_line(redis: Redis, *, rechecks: bool = True) -> Line:
    """Sessions whose analysis is to be fetched: no faster than Telnyx lets us ask."""
    return Line(
        redis,
        due=keys.DUE,
        prefix=keys.SESSION,
        waiting=keys.ENDED,
        gate=keys.gate_key("analysis"),
        rechecks=keys.RECHECKS if rechecks else None,
    )
