"""The outbox: what Slack is to be told, one message at a time, and never more than was allowed.

One lease covers the whole channel, so over all workers at most one post is under way. That makes
the rest simple enough to be one step each: choosing what is told next takes a token from a bucket,
so no number of alerts makes more messages than the bucket gives; the worst comes first; what a
cool-down holds back is counted; and with the last token all that waits becomes one summary.

Slack's troubles belong to the channel and put everything off; no alert is ever given up for them.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service import keys
from service.clock import CLOCK
from service.queue import Claim, Depth
from service.records import (
    Alert,
    Delivery,
    Notice,
    Summary,
    decode_alert,
    decode_notice,
    read_summary,
)
from service.replicas import ReplicatedScript

MOST_IN_SUMMARY: Final = 5000
"""What one script can freeze, and later mark as told, without holding Redis up."""
HEAD_START_SECONDS: Final = 15.0
_SCANNED: Final = 200
# A trouble of the channel as long as this is said to be why alerts come late.
_OUTAGE_MS: Final = 60_000
_OPEN: Final = frozenset({b"waiting", b"folded"})
# A band of the outbox for each rank: wider than any time in milliseconds before the year 2248,
# and five of them are still whole numbers to a double.
_BAND: Final = 2**43
NOTICE_RANK: Final = 5
"""Above critical: it says that tollwatch itself needs somebody."""
# Tokens are counted in parts so small that an hour's rate fills whole ones each millisecond.
_TOKEN: Final = 3_600_000

# --- the channel: the hash tollwatch:slack --------------------------------------------------------
#   token, until  the lease: who posts, and until when if it is not extended
#   item, begun   what the holder posts; "1" from when it may have reached Slack
#   next          no post before, ms       failures  troubles of the channel in a row
#   since         Slack has been failing since, ms; absent while it is well
#   back          when it last became well again, ms
#   units, filled the bucket, in parts of a token, and when it was last reckoned
#   last          the kind of what was taken last       summaries  how many there have been
#
# An item is a hash below tollwatch:alert: with `rank`, `place` (its score in the outbox), `at`, and
# `cause` if it is an alert. The end of its id says what it is: a severity, notice or summary.
_TEXT: Final = (
    CLOCK
    + """
local function text(number) return string.format('%.0f', number) end
"""
)

_LEAVE: Final = """
local function leave(channel)
  redis.call('HDEL', channel, 'token', 'until', 'item', 'begun')
end
local function give_back(channel, token)
  local units = tonumber(redis.call('HGET', channel, 'units') or 0)
  redis.call('HSET', channel, 'units', text(units + token))
end
"""

_CLAIM: Final = (
    _TEXT
    + _LEAVE
    + """
local channel, outbox, folded, aside, index = unpack(KEYS)
local now, lease, token, may_take_over = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local cooldown, burst, per_hour = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local one, scanned, most, band = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local items, causes, members = ARGV[12], ARGV[13], ARGV[14]
local folds = 0

local function nothing() return {folds} end

local s = redis.call('HMGET', channel, 'token', 'until', 'item', 'begun', 'next', 'units', 'filled',
                     'last', 'back')
local taken_over = 0
if s[1] then
  if tonumber(s[2]) > now or not may_take_over then return nothing() end
  -- Its holder died, or lost Redis for long; whether Slack has the message, nobody knows.
  if s[4] == '1' and redis.call('EXISTS', items .. s[3]) == 1 then
    redis.call('HSET', items .. s[3], 'doubt', '1')
  end
  leave(channel)
  taken_over = 1
end
if tonumber(s[5] or 0) > now then return nothing() end
local filled = tonumber(s[7] or now)
local full = burst * one
local units = math.min(full, tonumber(s[6] or full) + math.max(0, now - filled) * per_hour)
if units < one then return nothing() end
local plenty = units >= 2 * one

for _, id in ipairs(redis.call('ZRANGEBYSCORE', aside, '-inf', now, 'LIMIT', 0, scanned)) do
  local place = redis.call('HGET', items .. id, 'place')
  redis.call('ZREM', aside, id)
  redis.call('ZADD', outbox, place or '0', id)
end

local function kind(id)
  local found = string.match(id, ':(%a+)$')
  if found == 'notice' or found == 'summary' then return found end
  return 'alert'
end
local known = {}
local function cooling(cause)
  if cooldown == 0 or not cause or cause == '' then return 0, 0 end
  if not known[cause] then
    local c = redis.call('HMGET', causes .. cause, 'until', 'rank')
    local ends = tonumber(c[1] or 0)
    known[cause] = ends > now and {ends, tonumber(c[2])} or {0, 0}
  end
  return known[cause][1], known[cause][2]
end
-- The item, unless it is gone or was folded just now.
local function open(id)
  local key = items .. id
  local f = redis.call('HMGET', key, 'rank', 'cause', 'at', 'delivery')
  if not f[4] then
    redis.call('ZREM', outbox, id)
    return nil
  end
  local rank = tonumber(f[1] or 1)
  local ends, told = cooling(f[2])
  if kind(id) == 'alert' and rank <= told then
    redis.call('ZREM', outbox, id)
    redis.call('ZADD', folded, text(ends), id)
    redis.call('HSET', key, 'delivery', 'folded', 'changed', text(now))
    folds = folds + 1
    return nil
  end
  return {id = id, rank = rank, at = tonumber(f[3] or now), kind = kind(id)}
end

local first, first_other, alerts = nil, nil, 0
local page = redis.call('ZRANGE', outbox, 0, scanned - 1)
for _, id in ipairs(page) do
  local item = open(id)
  if item then
    first = first or item
    if item.kind ~= 'notice' then first_other = first_other or item end
    if item.kind == 'alert' then alerts = alerts + 1 end
    if alerts == 2 then break end
  end
end
if not first and #page == scanned then return nothing() end
local due_until = cooldown == 0 and '+inf' or text(now)
local due = redis.call('ZRANGEBYSCORE', folded, '-inf', due_until, 'LIMIT', 0, 2)

local chosen = first
if first and first.kind == 'notice' and not plenty and s[8] == 'notice'
    and (first_other or #due > 0) then
  chosen = first_other
end

-- All alerts that wait and may be told, and those whose cool-down is over: fixed from here on.
local function summary()
  local found, rank, oldest, folded_ones = {}, 1, now, 0
  local why = {}
  local start = 0
  while #found < most do
    local ids = redis.call('ZRANGE', outbox, start, start + scanned - 1)
    if #ids == 0 then break end
    local taken = {}
    for _, id in ipairs(ids) do
      if #found == most then break end
      local there = kind(id) ~= 'alert'
      local item = not there and open(id)
      if item then
        found[#found + 1] = id
        rank = math.max(rank, item.rank)
        oldest = math.min(oldest, item.at)
        taken[#taken + 1] = id
      end
      if there then start = start + 1 end
    end
    if #taken > 0 then redis.call('ZREM', outbox, unpack(taken)) end
  end
  if #found > 0 and not plenty then why[1] = 'cap' end
  local late = {}
  if #found < most then
    late = redis.call('ZRANGEBYSCORE', folded, '-inf', due_until, 'LIMIT', 0, most - #found)
  end
  for _, id in ipairs(late) do
    local f = redis.call('HMGET', items .. id, 'rank', 'delivery')
    redis.call('ZREM', folded, id)
    if f[2] then
      found[#found + 1] = id
      folded_ones = folded_ones + 1
      rank = math.max(rank, tonumber(f[1] or 1))
    end
  end
  if folded_ones > 0 then why[#why + 1] = 'cooldown' end
  if oldest < tonumber(s[9] or 0) then why[#why + 1] = 'outage' end
  local id
  repeat
    id = redis.call('HINCRBY', channel, 'summaries', 1) .. ':summary'
  until redis.call('EXISTS', items .. id) == 0
  for i = 1, #found, 1000 do
    redis.call('RPUSH', members .. id, unpack(found, i, math.min(i + 999, #found)))
  end
  for _, member in ipairs(found) do redis.call('HSET', items .. member, 'told_in', id) end
  local place = text((5 - rank) * tonumber(band) + now)
  redis.call('HSET', items .. id, 'delivery', 'waiting', 'rank', rank, 'place', place,
             'at', text(now), 'count', #found, 'why', table.concat(why, ','))
  redis.call('ZADD', outbox, place, id)
  redis.call('ZADD', index, text(now), id)
  return id, now, 'summary'
end

local id, at, what
if chosen and chosen.kind ~= 'alert' then
  id, at, what = chosen.id, chosen.at, chosen.kind
elseif chosen and (plenty or (alerts == 1 and #due == 0)) then
  id, at, what = chosen.id, chosen.at, 'alert'
elseif not chosen and #due == 1 then
  id, at, what = due[1], tonumber(redis.call('HGET', items .. due[1], 'at') or 0), 'alert'
elseif chosen or #due > 0 then
  id, at, what = summary()
else
  return nothing()
end
redis.call('HSET', channel, 'token', token, 'until', text(now + lease), 'item', id,
           'units', text(units - one), 'filled', text(math.max(now, filled)), 'last', what)
return {folds, id, at, taken_over}
"""
)

_EXTEND: Final = (
    _TEXT
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', text(clock(ARGV[1]) + ARGV[3]))
return 1
"""
)

# What has begun may have reached Slack, and is not free for others until it is known whether.
_RELEASE: Final = (
    _TEXT
    + _LEAVE
    + """
local s = redis.call('HMGET', KEYS[1], 'token', 'begun')
if s[1] ~= ARGV[1] or s[2] == '1' then return 0 end
leave(KEYS[1])
give_back(KEYS[1], tonumber(ARGV[2]))
return 1
"""
)

# Who held it before may have noted Slack's ok since the claim: then there is nothing left to tell.
_BEGIN: Final = (
    _TEXT
    + _LEAVE
    + """
local s = redis.call('HMGET', KEYS[1], 'token', 'failures')
if s[1] ~= ARGV[1] then return {} end
local fate = redis.call('HGET', KEYS[2], 'delivery')
if fate and fate ~= 'waiting' and fate ~= 'folded' then
  leave(KEYS[1])
  give_back(KEYS[1], tonumber(ARGV[2]))
  return {}
end
redis.call('HSET', KEYS[1], 'begun', '1')
return {s[2] or '0', redis.call('HGETALL', KEYS[2])}
"""
)

# Needs no lease where Slack has taken the message: that is so, whoever may hold the lease by now.
_CLOSE: Final = (
    _TEXT
    + _LEAVE
    + """
local channel, outbox, folded, aside = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, id, token, fate, reason = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ttl, cooldown, one = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local items, causes, members = ARGV[9], ARGV[10], ARGV[11]
local posted = fate == 'posted'
local mine = redis.call('HGET', channel, 'token') == token
if not mine and not posted then return -1 end
if mine then
  leave(channel)
  if not posted then give_back(channel, one) end
end
if fate ~= 'kept' then
  local since = redis.call('HGET', channel, 'since')
  if since and now - since >= tonumber(ARGV[12]) then
    redis.call('HSET', channel, 'back', text(now))
  end
  redis.call('HDEL', channel, 'since', 'failures', 'next')
end

local worst = {}
local function close(id, fate, is_member)
  local key = items .. id
  local f = redis.call('HMGET', key, 'delivery', 'cause', 'rank')
  if f[1] ~= 'waiting' and f[1] ~= 'folded' then return false end
  redis.call('HSET', key, 'delivery', fate, 'reason', reason, 'changed', text(now))
  if not is_member then redis.call('HINCRBY', key, 'tries', 1) end
  redis.call('PEXPIRE', key, ttl)
  if f[2] and f[2] ~= '' then
    worst[f[2]] = math.max(worst[f[2]] or 0, tonumber(f[3] or 1))
  end
  return true
end

for _, set in ipairs({outbox, folded, aside}) do redis.call('ZREM', set, id) end
if not close(id, fate) then return 0 end
local count = 1
if redis.call('EXISTS', members .. id) == 1 then
  count = 0
  for _, member in ipairs(redis.call('LRANGE', members .. id, 0, -1)) do
    if close(member, posted and 'summarized' or fate, true) then count = count + 1 end
  end
  redis.call('PEXPIRE', members .. id, ttl)
end
if posted and cooldown > 0 then
  for cause, rank in pairs(worst) do
    local c = redis.call('HMGET', causes .. cause, 'until', 'rank')
    if tonumber(c[1] or 0) > now then rank = math.max(rank, tonumber(c[2])) end
    redis.call('HSET', causes .. cause, 'until', text(now + cooldown), 'rank', rank)
    redis.call('PEXPIRE', causes .. cause, text(cooldown + 60000))
  end
end
return count
"""
)

_PUT_OFF: Final = (
    _TEXT
    + _LEAVE
    + """
local channel, outbox, folded, aside = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, id, token, reason = clock(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local channel_wait, item_wait, in_doubt, failing = ARGV[5], ARGV[6], ARGV[7] == '1', ARGV[8] == '1'
local one, key = tonumber(ARGV[9]), ARGV[10] .. ARGV[2]
if redis.call('HGET', channel, 'token') ~= token then return -1 end
leave(channel)
if not in_doubt then give_back(channel, one) end
if failing then
  redis.call('HSETNX', channel, 'since', text(now))
  redis.call('HINCRBY', channel, 'failures', 1)
  redis.call('HSET', channel, 'next', text(now + channel_wait))
end
local fate = redis.call('HGET', key, 'delivery')
if fate ~= 'waiting' and fate ~= 'folded' then return 0 end
redis.call('HSET', key, 'reason', reason, 'changed', text(now))
if in_doubt then
  redis.call('HSET', key, 'doubt', '1')
  redis.call('HINCRBY', key, 'doubts', 1)
end
if item_wait ~= '' then
  redis.call('ZREM', outbox, id)
  redis.call('ZREM', folded, id)
  redis.call('ZADD', aside, text(now + item_wait), id)
end
return redis.call('HINCRBY', key, 'tries', 1)
"""
)


@dataclass(frozen=True, slots=True)
class Flood:
    """How much Slack may be told: `burst` messages at once, `per_hour` on average.

    `cooldown_ms` is how long one cause is only counted after it was told; 0 turns that off.
    """

    cooldown_ms: int
    burst: int
    per_hour: int


NO_FLOOD: Final = Flood(cooldown_ms=0, burst=1_000_000, per_hour=3_600_000)
"""No limit at all, for where nothing is posted."""

Subject: TypeAlias = Alert | Notice | Summary
"""What one message is about."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be posted now, and what went before."""

    subject: Subject
    failures: int
    """Troubles of the channel in a row."""
    doubts: int
    """How often Slack left it open whether it took this very message."""
    repeated: bool
    """Slack may have taken it before."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the channel stands: messages that it may be sent now, and since when it fails."""

    tokens: float
    failing_since_ms: int | None
    folded: int
    aside: int


def place_of(rank: int, at_ms: int) -> int:
    """The score in the outbox: the worst first, then the oldest."""
    return (NOTICE_RANK - rank) * _BAND + at_ms


class Outbox:
    """The outbox as one worker sees it. Redis' errors pass through to the caller.

    Times are Redis' own, since workers' clocks differ; tests give theirs.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        retention_ms: int,
        flood: Flood,
        replicas: int = 0,
        head_start_seconds: float = HEAD_START_SECONDS,
        on_fold: Callable[[int], None] = lambda _: None,
        now_ms: Callable[[], int | None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_fold` hears how many alerts a cool-down has just held back.

        That Slack was told is noted on so many `replicas`, where they are there.
        """
        self._redis = redis
        self._retention_ms = retention_ms
        self._flood = flood
        self._head_start_seconds = head_start_seconds
        self._on_fold = on_fold
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._calm_at = monotonic() + head_start_seconds
        self._claim = redis.register_script(_CLAIM)
        self._extend = redis.register_script(_EXTEND)
        self._release = redis.register_script(_RELEASE)
        self._begin = redis.register_script(_BEGIN)
        # A failover must not forget, if it can be helped, that Slack was told.
        self._close = ReplicatedScript(redis, _CLOSE, replicas=replicas, best_effort=True)
        self._put_off = redis.register_script(_PUT_OFF)

    async def claim(
        self, *, limit: int, lease_ms: int, token: str, delay_ms: int = 0
    ) -> list[Claim]:
        """The one message that may be posted now, leased under `token`; or none.

        After Redis was away, and at the start, a lease that has run out is left alone for
        `head_start_seconds`: its holder may have Slack's ok in hand and only have to note it.
        """
        if limit < 1:
            return []
        flood = self._flood
        try:
            folds, *found = await self._claim(
                keys=[keys.SLACK, keys.OUTBOX, keys.FOLDED, keys.ASIDE, keys.ALERTS],
                args=[
                    *(self._now(), lease_ms, token),
                    "1" if self._monotonic() >= self._calm_at else "",
                    *(flood.cooldown_ms, flood.burst, flood.per_hour, _TOKEN),
                    *(_SCANNED, MOST_IN_SUMMARY, _BAND),
                    *(keys.ALERT, keys.CAUSE, keys.MEMBERS),
                ],
            )
        except RedisError:
            self._calm_at = self._monotonic() + self._head_start_seconds
            raise
        if folds:
            self._on_fold(folds)
        if not found:
            return []
        id, at_ms, taken_over = found
        return [Claim(id.decode(), token, at_ms + delay_ms, bool(taken_over))]

    async def extend(self, held: Mapping[str, str], *, lease_ms: int) -> frozenset[str]:
        """Hold on to the channel for `lease_ms` from now; which of the claims are still ours."""
        kept = [
            id
            for id, token in held.items()
            if await self._extend(keys=[keys.SLACK], args=[self._now(), token, lease_ms])
        ]
        return frozenset(kept)

    async def release(self, held: Mapping[str, str], *, after_ms: int = 0) -> int:
        """Give back what has not begun; what has begun keeps its lease until that runs out."""
        del after_ms
        return sum(
            [
                await self._release(keys=[keys.SLACK], args=[token, _TOKEN])
                for token in held.values()
            ]
        )

    async def begin(self, claim: Claim) -> Begun | None:
        """What to post; None where the lease was lost, or it was noted as told since the claim.

        From now on it may have been posted.

        Raises msgspec.MsgspecError or ValueError for a record that this version cannot read.
        """
        found = await self._begin(
            keys=[keys.SLACK, keys.alert_key(claim.id)], args=[claim.token, _TOKEN]
        )
        if not found:
            return None
        failures, flat = found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Begun(
            subject=subject_of(claim.id, fields),
            failures=int(failures),
            doubts=int(fields.get(b"doubts", 0)),
            repeated=fields.get(b"doubt") == b"1",
        )

    async def close(self, claim: Claim, delivery: Delivery, *, reason: str = "") -> int | None:
        """Remember the last word on a message: posted, refused or kept.

        That it was posted is remembered whoever holds the lease by now. How many alerts have that
        fate through it (0: it was known already), or None where the lease was lost.
        """
        count = await self._close(
            keys=[keys.SLACK, keys.OUTBOX, keys.FOLDED, keys.ASIDE],
            args=[
                *(self._now(), claim.id, claim.token, delivery, reason),
                *(self._retention_ms, self._flood.cooldown_ms, _TOKEN),
                *(keys.ALERT, keys.CAUSE, keys.MEMBERS, _OUTAGE_MS),
            ],
        )
        return None if count < 0 else int(count)

    async def put_off(self, claim: Claim, *, wait_ms: int, reason: str) -> int | None:
        """Slack took nothing: the whole channel waits. How many tries, None for a lost lease."""
        return await self._later(claim, reason, channel_ms=wait_ms)

    async def doubt(
        self, claim: Claim, *, wait_ms: int, channel_ms: int, reason: str
    ) -> int | None:
        """Slack may have taken it: it is repeated after `wait_ms`, and others go on before."""
        return await self._later(
            claim, reason, channel_ms=channel_ms, item_ms=wait_ms, in_doubt=True
        )

    async def set_aside(self, claim: Claim, *, wait_ms: int, reason: str) -> int | None:
        """This message cannot be made now: it waits, and the others do not wait for it."""
        return await self._later(claim, reason, item_ms=wait_ms)

    async def untold(self, summary_id: str, *, page: int) -> AsyncIterator[tuple[bytes, bool]]:
        """What a summary tells: each alert's record, and whether it may have been told alone.

        Those that have their last word already are left out.
        """
        start = 0
        while ids := await members(self._redis, summary_id, start, page):
            async with self._redis.pipeline(transaction=False) as pipe:
                for id in ids:
                    pipe.hmget(keys.alert_key(id), ["delivery", "alert", "doubt"])
                found = await pipe.execute()
            for delivery, body, doubt in found:
                if delivery in _OPEN:
                    yield body or b"", doubt == b"1"
            start += page

    async def depth(self, *, now_ms: int, delay_ms: int = 0) -> Depth:
        """How much waits to be told, and how long the oldest that nothing holds back has."""
        del delay_ms
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in (keys.OUTBOX, keys.FOLDED, keys.ASIDE):
                pipe.zcard(name)
            for rank in range(1, NOTICE_RANK + 1):
                low = place_of(rank, 0)
                pipe.zrangebyscore(keys.OUTBOX, low, low + _BAND - 1, 0, 1, withscores=True)
            waiting, folded, aside, *heads = await pipe.execute()
        oldest = [int(rows[0][1]) % _BAND for rows in heads if rows]
        return Depth(
            pending=waiting + folded + aside,
            overdue=waiting,
            oldest_overdue_ms=max(0, now_ms - min(oldest, default=now_ms)),
        )

    async def standing(self, *, now_ms: int) -> Standing:
        """How the channel stands."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.SLACK, ["units", "filled", "since"])
            pipe.zcard(keys.FOLDED)
            pipe.zcard(keys.ASIDE)
            (units, filled, since), folded, aside = await pipe.execute()
        full = self._flood.burst * _TOKEN
        gained = max(0, now_ms - int(filled or now_ms)) * self._flood.per_hour
        return Standing(
            tokens=min(full, int(units or full) + gained) / _TOKEN,
            failing_since_ms=int(since) if since else None,
            folded=folded,
            aside=aside,
        )

    def _now(self) -> int | str:
        now_ms = self._now_ms()
        return "" if now_ms is None else now_ms

    async def _later(
        self,
        claim: Claim,
        reason: str,
        *,
        channel_ms: int | None = None,
        item_ms: int | None = None,
        in_doubt: bool = False,
    ) -> int | None:
        tries = await self._put_off(
            keys=[keys.SLACK, keys.OUTBOX, keys.FOLDED, keys.ASIDE],
            args=[
                *(self._now(), claim.id, claim.token, reason),
                0 if channel_ms is None else channel_ms,
                "" if item_ms is None else item_ms,
                "1" if in_doubt else "",
                "" if channel_ms is None else "1",
                *(_TOKEN, keys.ALERT),
            ],
        )
        return None if tries < 0 else int(tries)


async def members(redis: Redis, summary_id: str, start: int, most: int) -> list[str]:
    """The ids of a summary's alerts from the one at `start` on, the worst first."""
    found = redis.lrange(keys.MEMBERS + summary_id, start, start + most - 1)
    return [id.decode() for id in await cast("Awaitable[list[bytes]]", found)]


def subject_of(id: str, fields: Mapping[bytes, bytes]) -> Subject:
    """What an item is about. Raises msgspec.MsgspecError or ValueError on junk."""
    if id.endswith(keys.IS_SUMMARY):
        return read_summary(id, fields)
    if id.endswith(keys.IS_NOTICE):
        return decode_notice(fields.get(b"notice", b""))
    return decode_alert(fields.get(b"alert", b""))
