"""Sessions and alerts in Redis: each change of state is one script, so one step and one round trip.

The web process only records; workers take and conclude; the command line reads. What a script
writes it decides from the state that it finds, never from what a process read before, so the order
in which processes come does not matter.
"""

import enum
import zlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis

from service import keys
from service.batch import BatchedScript
from service.clock import CLOCK
from service.events import Scheduling
from service.records import (
    SCHEMA_VERSION,
    Alert,
    Conclusion,
    Delivery,
    Session,
    Severity,
    State,
    Watch,
    decode_alert,
    decode_event,
    decode_verdict,
    decode_watch,
    encode,
)

_EVENT: Final = "e:"
_PAGE: Final = 200
# A tree shrinks to a fifth at the quickest level, and hardly further at the slowest.
_COMPRESSION: Final = 1

# Fields of a session's hash:
#   v  schema version        state  open | verdict | unavailable | dead
#   at first accepted, ms    rev    grows with each event: what was decided before is old news
#   end  latest end of an ending event, ms, absent where only a cost event came so far
#   cost latest time of a cost event, ms        pull  "1" until a fetch has answered it
#   token  who holds the lease                  e:*  the events
#   watch, verdict, alerted, reason             written by workers
#
# place() is the whole of scheduling. It depends on the fields alone, so any order of arrival ends
# in the same place, and in exactly one of the two sets.
_PLACE: Final = """
local function effective(s)
  if s['end'] then return s['end'] end
  return s.cost or 0
end
local function read(key)
  local f = redis.call('HMGET', key, 'state', 'end', 'cost', 'pull', 'token', 'rev')
  return {state = f[1], ['end'] = tonumber(f[2] or nil), cost = tonumber(f[3] or nil),
          pull = f[4] == '1', token = f[5], rev = tonumber(f[6] or 0)}
end
local function place(s, id, ended, due, now, restart)
  if s.pull and s.cost and s.cost >= effective(s) then
    redis.call('ZREM', ended, id)
    if restart then
      redis.call('ZADD', due, now, id)
    else
      redis.call('ZADD', due, 'LT', now, id)
    end
  elseif restart then
    redis.call('ZREM', due, id)
    redis.call('ZADD', ended, string.format('%.0f', effective(s)), id)
  end
end
"""

_TAKE: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {} end
return redis.call('HGETALL', KEYS[1])
"""

_RECORD: Final = (
    CLOCK
    + _PLACE
    + """
local key, ended, due, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, field, event, now = ARGV[1], ARGV[2], ARGV[3], clock(ARGV[4])
local end_at, cost_at, pulls, version = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
if redis.call('HSETNX', key, field, event) == 0 then return 'duplicate' end
local s = read(key)
local open = s.state == 'open'
local before = effective(s)
local change = {'rev', s.rev + 1}
local function set(name, value) change[#change + 1] = name; change[#change + 1] = value end
if end_at and (not s['end'] or end_at > s['end']) then
  s['end'] = end_at
  set('end', ARGV[5])
end
if cost_at and (not s.cost or cost_at > s.cost) then
  s.cost = cost_at
  set('cost', ARGV[6])
end
if pulls == '1' then
  s.pull = true
  set('pull', '1')
end
if not open then
  set('state', 'open')
  if s.state then
    redis.call('PERSIST', key)
    redis.call('HDEL', key, 'reason', 'failures')
  else
    set('at', string.format('%.0f', now))
    set('v', version)
  end
end
redis.call('HSET', key, unpack(change))
redis.call('ZADD', index, now, id)
local restart = not open or effective(s) ~= before
if not s.token and (restart or pulls == '1') then
  place(s, id, ended, due, now, restart)
end
if open then return 'merged' end
return 'scheduled'
"""
)

# A session that changed while it was worked on is not concluded: what was decided rests on old
# news. It goes back to where its fields say, and is looked at again.
_CONCLUDE: Final = (
    _PLACE
    + """
local key, ended, due, index, analysis = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local alert, outbox, alerts = KEYS[6], KEYS[7], KEYS[8]
local id, token, rev, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state, next_due, seen_end, ttl = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local watch, verdict, reason, answered = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local body, alert_id, severity, alert_body = ARGV[13], ARGV[14], ARGV[15], ARGV[16]
local s = read(key)
if s.token ~= token then return 'lost' end
if s.rev ~= rev then
  redis.call('HDEL', key, 'token')
  if effective(s) ~= seen_end then
    place(s, id, ended, due, now, true)
  else
    redis.call('ZADD', due, now, id)
  end
  return 'changed'
end
if body ~= '' then redis.call('SET', analysis, body, 'PX', ttl) end
redis.call('HSET', key, 'watch', watch, 'reason', reason, 'state', state)
redis.call('HDEL', key, 'token', 'failures')
if answered == '1' then redis.call('HDEL', key, 'pull') end
if verdict ~= '' then redis.call('HSET', key, 'verdict', verdict) end
redis.call('ZADD', index, now, id)
if alert_id ~= '' and redis.call('HSETNX', alert, 'alert', alert_body) == 1 then
  redis.call('HSET', key, 'alerted', severity)
  redis.call('HSET', alert, 'delivery', 'waiting')
  redis.call('ZADD', outbox, now, alert_id)
  redis.call('ZADD', alerts, now, alert_id)
end
if next_due ~= '' then
  redis.call('ZADD', due, next_due, id)
else
  redis.call('ZREM', due, id)
  redis.call('PEXPIRE', key, ttl)
end
return 'concluded'
"""
)

# Needs nothing of the record but its token, so that a record which cannot be read can fail too.
_FAIL: Final = """
local key, due, index = KEYS[1], KEYS[2], KEYS[3]
local id, token, now, wait, most, ttl, reason = unpack(ARGV)
if redis.call('HGET', key, 'token') ~= token then return -1 end
if redis.call('HGET', key, 'rev') ~= redis.call('HGET', key, 'claimed') then
  -- News came meanwhile: it must not die with what was tried before it.
  redis.call('HDEL', key, 'token', 'failures')
  redis.call('ZADD', due, now, id)
  return 0
end
local failures = redis.call('HINCRBY', key, 'failures', 1)
redis.call('HDEL', key, 'token')
redis.call('HSET', key, 'reason', reason)
redis.call('ZADD', index, now, id)
if failures < tonumber(most) then
  redis.call('ZADD', due, string.format('%.0f', now + wait * 4 ^ (failures - 1)), id)
else
  redis.call('HSET', key, 'state', 'dead')
  redis.call('ZREM', due, id)
  redis.call('PEXPIRE', key, ttl)
end
return failures
"""

_DELIVER: Final = """
local key, outbox = KEYS[1], KEYS[2]
local id, token, delivery, next_due, ttl, reason, now = unpack(ARGV)
if redis.call('HGET', key, 'token') ~= token then return -1 end
redis.call('HDEL', key, 'token')
redis.call('HSET', key, 'delivery', delivery, 'reason', reason, 'changed', now)
local tries = redis.call('HINCRBY', key, 'tries', 1)
if next_due ~= '' then
  redis.call('ZADD', outbox, next_due, id)
else
  redis.call('ZREM', outbox, id)
  redis.call('PEXPIRE', key, ttl)
end
return tries
"""


class Recorded(enum.StrEnum):
    """What recording an event did."""

    SCHEDULED = "scheduled"
    MERGED = "merged"
    DUPLICATE = "duplicate"


class Concluded(enum.StrEnum):
    """What became of a conclusion."""

    CONCLUDED = "concluded"
    CHANGED = "changed"
    """News came while it was worked on: nothing was written, it is due again."""
    LOST = "lost"
    """The lease had ended and somebody else has it: nothing was written."""


@dataclass(frozen=True, slots=True)
class Posting:
    """An alert and what became of it so far."""

    alert: Alert
    delivery: Delivery
    tries: int
    reason: str
    changed_ms: int
    token: str | None


class Store:
    """Sessions, analyses and alerts in one Redis. Redis' errors pass through to the caller."""

    def __init__(self, redis: Redis, *, retention_ms: int) -> None:
        self._redis = redis
        self._retention_ms = retention_ms
        self._record = BatchedScript(redis, _RECORD)
        self._conclude = BatchedScript(redis, _CONCLUDE)
        self._take = BatchedScript(redis, _TAKE)
        self._fail = redis.register_script(_FAIL)
        self._deliver = redis.register_script(_DELIVER)

    async def record(self, scheduling: Scheduling, *, now_ms: int | None = None) -> Recorded:
        """Keep the event, mark it as seen and make its session due: one step, one round trip.

        Without `now_ms` it is Redis' time, by which what is due is claimed.
        """
        event = scheduling.event
        reported = event.reported is not None
        outcome = await self._record(
            keys=[keys.session_key(scheduling.session_id), keys.ENDED, keys.DUE, keys.SESSIONS],
            args=[
                scheduling.session_id,
                _EVENT + scheduling.key,
                encode(event),
                "" if now_ms is None else now_ms,
                event.at_ms if event.ends else "",
                event.at_ms if reported or not event.ends else "",
                "1" if scheduling.pulls else "",
                SCHEMA_VERSION,
            ],
        )
        return Recorded(outcome.decode())

    async def session(self, session_id: str) -> Session | None:
        """What is known of a session, or None."""
        fields = await self._hash(keys.session_key(session_id))
        return _session(session_id, fields) if fields.get(b"state") else None

    async def take(self, session_id: str, token: str) -> Session | None:
        """The session to work on, or None where the lease is somebody else's by now."""
        found = await self._take(keys=[keys.session_key(session_id)], args=[token])
        if not found:
            return None
        return _session(session_id, dict(zip(found[::2], found[1::2], strict=True)))

    async def conclude(
        self, session: Session, token: str, conclusion: Conclusion, *, now_ms: int
    ) -> Concluded:
        """Write what the attempt came to, unless the lease was lost or news came meanwhile."""
        alert = conclusion.alert
        outcome = await self._conclude(
            keys=[
                keys.session_key(session.id),
                keys.ENDED,
                keys.DUE,
                keys.SESSIONS,
                keys.analysis_key(session.id),
                keys.alert_key(alert.id if alert else ""),
                keys.OUTBOX,
                keys.ALERTS,
            ],
            args=[
                session.id,
                token,
                session.revision,
                now_ms,
                conclusion.state,
                "" if conclusion.next_due_ms is None else conclusion.next_due_ms,
                session.end_ms,
                self._retention_ms,
                encode(conclusion.watch),
                encode(conclusion.verdict) if conclusion.verdict else "",
                conclusion.reason,
                "1" if conclusion.answered else "",
                zlib.compress(conclusion.analysis, _COMPRESSION) if conclusion.analysis else "",
                alert.id if alert else "",
                alert.severity if alert else "",
                encode(alert) if alert else "",
            ],
        )
        return Concluded(outcome.decode())

    async def fail(
        self,
        session_id: str,
        token: str,
        *,
        now_ms: int,
        first_wait_ms: int,
        most_failures: int,
        reason: str,
    ) -> int | None:
        """Count a failure of our own; at `most_failures` the session is a dead letter.

        Until then it is due again, four times as long after each failure as after the one before.
        An event that came meanwhile counts it anew: 0 is the answer then.
        How many failures there are now, or None where the lease was lost.
        """
        failures = await self._fail(
            keys=[keys.session_key(session_id), keys.DUE, keys.SESSIONS],
            args=[
                session_id,
                token,
                now_ms,
                first_wait_ms,
                most_failures,
                self._retention_ms,
                reason,
            ],
        )
        return None if failures < 0 else int(failures)

    async def analysis(self, session_id: str) -> bytes | None:
        """The last analysis, cleaned, as JSON; None where there is none."""
        raw = await self._redis.get(keys.analysis_key(session_id))
        return zlib.decompress(raw) if raw else None

    async def posting(self, alert_id: str) -> Posting | None:
        """An alert and what became of it, or None."""
        fields = await self._hash(keys.alert_key(alert_id))
        return _posting(fields) if b"alert" in fields else None

    async def deliver(
        self,
        alert_id: str,
        token: str,
        delivery: Delivery,
        *,
        now_ms: int,
        next_due_ms: int | None = None,
        reason: str = "",
    ) -> int | None:
        """Remember what became of an alert, or when it is to be tried again.

        How many tries that makes, or None where the lease was lost.
        """
        outcome = await self._deliver(
            keys=[keys.alert_key(alert_id), keys.OUTBOX],
            args=[
                alert_id,
                token,
                delivery,
                "" if next_due_ms is None else next_due_ms,
                self._retention_ms,
                reason,
                now_ms,
            ],
        )
        return None if outcome < 0 else int(outcome)

    def session_ids(self) -> AsyncIterator[str]:
        """All sessions, the latest changed first."""
        return self._newest(keys.SESSIONS)

    def alert_ids(self) -> AsyncIterator[str]:
        """All alerts, the latest decided first."""
        return self._newest(keys.ALERTS)

    async def trim(self, *, now_ms: int) -> None:
        """Drop from the indexes what the retention has ended; open sessions stay listed."""
        before = now_ms - self._retention_ms - 60_000
        for index, prefix in ((keys.SESSIONS, keys.SESSION), (keys.ALERTS, keys.ALERT)):
            await self._trim(index, prefix, before)

    async def _trim(self, index: str, prefix: str, before_ms: int) -> None:
        start = 0
        while old := await self._redis.zrangebyscore(
            index, "-inf", before_ms, start=start, num=_PAGE
        ):
            async with self._redis.pipeline(transaction=False) as pipe:
                for id in old:
                    pipe.exists(prefix + id.decode(errors="replace"))
                there = await pipe.execute()
            gone = [id for id, is_there in zip(old, there, strict=True) if not is_there]
            if gone:
                await self._redis.zrem(index, *gone)
            start += len(old) - len(gone)

    async def _hash(self, key: str) -> Mapping[bytes, bytes]:
        # redis-py types one method for its blocking and its asyncio client at once.
        return await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(key))

    async def _newest(self, index: str) -> AsyncIterator[str]:
        start = 0
        while page := await self._redis.zrevrange(index, start, start + _PAGE - 1):
            for id in page:
                yield id.decode(errors="replace")
            start += _PAGE


def _session(session_id: str, fields: Mapping[bytes, bytes]) -> Session:
    events = tuple(
        decode_event(value)
        for name, value in sorted(fields.items())
        if name.startswith(_EVENT.encode())
    )
    alerted = fields.get(b"alerted")
    verdict = fields.get(b"verdict")
    watch = fields.get(b"watch")
    return Session(
        id=session_id,
        state=State(fields[b"state"].decode()),
        revision=int(fields.get(b"rev", 0)),
        events=events,
        end_ms=int(fields.get(b"end") or fields.get(b"cost") or 0),
        accepted_ms=int(fields.get(b"at", 0)),
        watch=decode_watch(watch) if watch else Watch(),
        alerted=Severity(alerted.decode()) if alerted else None,
        verdict=decode_verdict(verdict) if verdict else None,
        pulled=fields.get(b"pull") == b"1",
        reason=fields.get(b"reason", b"").decode(),
    )


def _posting(fields: Mapping[bytes, bytes]) -> Posting:
    token = fields.get(b"token")
    return Posting(
        alert=decode_alert(fields[b"alert"]),
        delivery=Delivery(fields.get(b"delivery", b"waiting").decode()),
        tries=int(fields.get(b"tries", 0)),
        reason=fields.get(b"reason", b"").decode(),
        changed_ms=int(fields.get(b"changed", 0)),
        token=token.decode() if token else None,
    )


def as_json(value: Any) -> str:
    """Any record as JSON text, for people and pipes."""
    return msgspec.json.format(encode(value), indent=2).decode()
