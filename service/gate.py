"""How much may be asked of Telnyx now: one answer for all workers together, kept in Redis.

Two things hold questions back. A rate limit is learned from Telnyx's headers: its windows are
fixed, so what is left of one may be spent at once; where no header speaks of a limit, there is
none. A circuit breaker shuts when nobody gets an answer: work then waits where it is, costs no
tries, and one question at a time finds out whether it is over.

No library does the first: they count towards a limit that is configured, and this one is read from
answers that several workers get at once, some of them late.
"""

import enum
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from service import keys
from service.batch import BatchedScript, Value
from service.clock import CLOCK

# Telnyx tells the end of a window in whole seconds, and does not say how it rounds.
_SECOND_MS: Final = 1000
# As long as a lease: the probe of a worker that died must not block the next one for longer. A slow
# answer may come after that, and meet a second probe: it is the first of the two that counts.
_PROBE_MS: Final = 20_000
# Between two probes: doubled after each that failed.
_FIRST_PAUSE_MS: Final = 5_000
_LONGEST_PAUSE_MS: Final = 60_000
# What shuts the gate: so many sessions in a row without one answer between them; or two that have
# been failing for a while, where little is asked. One alone never does: it may be a bad session.
_SUSPECTS: Final = 5
_FEW_SUSPECTS: Final = 2
_FEW_SUSPECTS_MS: Final = 30_000
# A limit that nobody has met for a day is not known any more.
_KEPT_MS: Final = 86_400_000

# Fields of a gate's hash:
#   limit, window   requests in a window, and its length in ms, as Telnyx states them
#   left, reset     what is left of the present window, and when it ends, ms
#   trial           after a 429 without headers one question finds out whether it is over
#   late            taken so near the end that Telnyx may count it to the next window
#   since, kind, reason   the gate is shut: from when, refused | down, and in Telnyx's words
#   until, probes   no probe before, ms; how many have failed
#   probing         one is under way
#   first           when the present row of failures began, ms
#   told            when the operators were last told, ms
#
# allow() takes as many of `want` permits as there are, but for a `spare` part in the first half of
# a window: without it those who begin would leave nothing to those who have one more question; and
# whoever is in no hurry leaves others a `leave` part of each window at any time, and of the rest as
# much as there is of the window: what they did not need so far is what it gets. A
# new window begins by itself; one whose limit is not known (a 429 without headers) lets one
# question find out.
ALLOW: Final = f"""
local function allow(gate, now, want, spare, leave)
  if want < 1 then return 0 end
  local f = redis.call('HMGET', gate, 'since', 'until', 'reset', 'left', 'limit', 'window', 'late')
  local shut, reset = f[1], tonumber(f[3] or nil)
  if shut then
    if now < tonumber(f[2]) then return 0 end
    want = 1
  end
  if reset then
    local left, limit, window = tonumber(f[4]), tonumber(f[5] or nil), tonumber(f[6] or nil)
    local late = tonumber(f[7] or 0)
    if now >= reset and limit then
      local passed = math.floor((now - reset) / window) + 1
      left = passed == 1 and math.max(0, limit - late) or limit
      reset, late = reset + passed * window, 0
    elseif now >= reset then
      left, reset = 1, now + {_PROBE_MS}
      redis.call('HSET', gate, 'trial', '1')
    end
    local kept = 0
    if limit and leave then
      kept = math.floor(limit * (leave + (1 - leave) * math.min(1, (reset - now) / window)))
    elseif limit and now < reset - window / 2 then
      kept = math.floor(limit * spare)
    end
    want = math.max(0, math.min(want, left - kept))
    if window and now > reset - 2 * {_SECOND_MS} then late = late + want end
    redis.call('HSET', gate, 'left', left - want, 'reset', string.format('%.0f', reset),
               'late', late)
  end
  if shut and want > 0 then
    redis.call('HSET', gate, 'probing', '1', 'until', string.format('%.0f', now + {_PROBE_MS}))
  end
  return want
end
"""

_TAKE: Final = (
    CLOCK
    + ALLOW
    + """
local now = clock(ARGV[1])
local leave = tonumber(ARGV[2])
if allow(KEYS[1], now, 1, 0, leave) == 1 then return 0 end
local f = redis.call('HMGET', KEYS[1], 'since', 'until', 'reset', 'left', 'limit', 'window')
local free = math.max(f[1] and tonumber(f[2]) or 0, tonumber(f[3] or 0))
if leave and f[5] and not f[1] then
  local rest = (tonumber(f[4]) / tonumber(f[5]) - leave) / (1 - leave)
  if rest > 0 then free = free - rest * tonumber(f[6]) + 1 end
end
return math.max(1, math.ceil(free - now))
"""
)

# An answer may be late: it speaks of the window in which Telnyx gave it, which may be over by now.
_LEARN: Final = (
    CLOCK
    + f"""
local gate, suspects = KEYS[1], KEYS[2]
local now, outcome, subject, reason = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local limit, remaining = tonumber(ARGV[5]), tonumber(ARGV[6])
local reset_ms, window, wait_ms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local f = redis.call('HMGET', gate, 'since', 'probes', 'first', 'reset', 'left', 'limit', 'trial')
local since, first = tonumber(f[1] or nil), tonumber(f[3] or nil)
local known, left = tonumber(f[4] or nil), tonumber(f[5] or nil)
local answer = 0

if limit and remaining and reset_ms and window then
  -- A second more than stated: whether Telnyx rounds up or down, the window has ended by then.
  local reset = now + reset_ms + math.min({_SECOND_MS}, window / 4)
  local late = '0'
  if known and reset < known - window / 2 then
    reset, remaining = known, left
    late = redis.call('HGET', gate, 'late') or '0'
  elseif known and reset < known + window / 2 then
    reset, remaining = math.max(reset, known), math.min(remaining, left or remaining)
    late = redis.call('HGET', gate, 'late') or '0'
  end
  redis.call('HDEL', gate, 'trial')
  redis.call('HSET', gate, 'limit', limit, 'window', window, 'left', remaining, 'late', late,
             'reset', string.format('%.0f', reset))
elseif wait_ms then
  redis.call('HDEL', gate, 'limit', 'window', 'trial')
  redis.call('HSET', gate, 'left', 0, 'reset', string.format('%.0f', now + wait_ms))
elseif known and outcome == 'fine' and (f[6] or f[7]) then
  -- Not for an answer that was under way when the 429 came.
  redis.call('HDEL', gate, 'limit', 'window', 'left', 'reset', 'late', 'trial')
end

if outcome == 'fine' then
  if first then
    redis.call('HDEL', gate, 'since', 'kind', 'reason', 'until', 'probes', 'probing',
               'first')
    redis.call('DEL', suspects)
  end
elseif outcome ~= 'limited' and (subject ~= '' or since) then
  if not first then
    first = now
    redis.call('HSET', gate, 'first', string.format('%.0f', now))
  end
  if since and redis.call('HDEL', gate, 'probing') == 0 then
    -- It was under way when the gate shut, and says nothing new.
    answer = math.max(1, tonumber(redis.call('HGET', gate, 'until')) - now)
  else
    local probes = since and redis.call('HINCRBY', gate, 'probes', 1) or 0
    if not since then
      redis.call('SADD', suspects, subject)
      redis.call('PEXPIRE', suspects, {_KEPT_MS})
      local rows = redis.call('SCARD', suspects)
      if outcome == 'locked' or rows >= {_SUSPECTS}
          or (rows >= {_FEW_SUSPECTS} and now - first >= {_FEW_SUSPECTS_MS}) then
        since = first
        redis.call('HSET', gate, 'since', string.format('%.0f', first), 'probes', 0)
        redis.call('DEL', suspects)
      end
    end
    if since then
      answer = math.min({_FIRST_PAUSE_MS} * 2 ^ math.min(probes, 10), {_LONGEST_PAUSE_MS})
      redis.call('HSET', gate, 'until', string.format('%.0f', now + answer), 'reason', reason,
                 'kind', outcome == 'down' and 'down' or 'refused')
    end
  end
end
if redis.call('EXISTS', gate) == 1 then redis.call('PEXPIRE', gate, {_KEPT_MS}) end
return answer
"""
)


class Heard(enum.StrEnum):
    """What an answer says of Telnyx as a whole."""

    FINE = "fine"
    """It answers, whatever the answer is."""
    LIMITED = "limited"
    """Too many requests: nothing is wrong with it."""
    LOCKED = "locked"
    """The key or the account is refused: every question will be."""
    REFUSED = "refused"
    """This question is refused, and maybe every other one."""
    DOWN = "down"
    """No answer that could be used."""


@dataclass(frozen=True, slots=True)
class Window:
    """What an answer's headers say of the rate limit: `remaining` of `limit` until `reset_ms`."""

    limit: int
    remaining: int
    reset_ms: int
    length_ms: int


@dataclass(frozen=True, slots=True)
class Outage:
    """The gate is shut: since when, why, and when the operators were last told."""

    since_ms: int
    kind: Heard
    reason: str
    told_ms: int | None


class Gates:
    """One gate for each endpoint of Telnyx."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._gates: dict[str, Gate] = {}

    def of(self, endpoint: str) -> "Gate":
        """The endpoint's gate."""
        if endpoint not in self._gates:
            self._gates[endpoint] = Gate(self._redis, endpoint)
        return self._gates[endpoint]


class Gate:
    """One endpoint of Telnyx, as all workers together may use it. Redis' errors pass through."""

    def __init__(self, redis: Redis, endpoint: str) -> None:
        self._redis = redis
        self.key = keys.gate_key(endpoint)
        self._take = BatchedScript(redis, _TAKE)
        self._learn = BatchedScript(redis, _LEARN)

    async def take(self, *, leave: float | None = None, now_ms: int | None = None) -> int:
        """Take a permit for one question; 0, or the milliseconds until it is worth trying again.

        `leave`, from 0 to below 1, is for questions that are in no hurry: that part of a window is
        always left to others, and so is their share of what is to come of it.
        """
        left = "" if leave is None else str(leave)
        return int(await self._take(keys=[self.key], args=[_given(now_ms), left]))

    async def learn(
        self,
        heard: Heard,
        *,
        subject: str | None = None,
        reason: str = "",
        window: Window | None = None,
        wait_ms: int | None = None,
        now_ms: int | None = None,
    ) -> int:
        """Note what an answer says. How long the gate stays shut, in milliseconds; 0: it is open.

        `subject` is the session that asked: only different ones can show that Telnyx fails for all.
        `wait_ms` is what a 429 asks for that says nothing of a window.
        """
        args: list[Value] = [_given(now_ms), heard, subject or "", reason]
        args += (
            [window.limit, window.remaining, window.reset_ms, window.length_ms]
            if window
            else [""] * 4
        )
        return int(
            await self._learn(
                keys=[self.key, keys.suspects_key(self.key)], args=[*args, _given(wait_ms)]
            )
        )

    async def outage(self) -> Outage | None:
        """Why the gate is shut, or None."""
        # redis-py types one method for its blocking and its asyncio client at once.
        found = await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(self.key))
        if b"since" not in found:
            return None
        told = found.get(b"told")
        return Outage(
            since_ms=int(found[b"since"]),
            kind=Heard(found.get(b"kind", b"down").decode()),
            reason=found.get(b"reason", b"").decode(),
            told_ms=int(told) if told else None,
        )

    async def told(self, now_ms: int) -> None:
        """Remember that the operators were told of an outage."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(self.key, "told", str(now_ms))
            pipe.pexpire(self.key, _KEPT_MS)
            await pipe.execute()

    async def left(self) -> int | None:
        """What is left of the present window; None where no limit is known."""
        found = await cast("Awaitable[bytes | None]", self._redis.hget(self.key, "left"))
        return None if found is None else int(float(found))


def _given(number: int | None) -> Value:
    return "" if number is None else number
