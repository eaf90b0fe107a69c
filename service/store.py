"""Sessions and alerts in Redis: each change of state is one script, so one step and one round trip.

The web process only records; workers take and conclude; the command line reads. What a script
writes it decides from the state that it finds, never from what a process read before, so the order
in which processes come does not matter.
"""

import enum
import zlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from redis.asyncio import Redis

from service import keys
from service.batch import BatchedScript
from service.clock import CLOCK
from service.counting import COUNT, PAY, SHORT_SECONDS, counted_cost
from service.dead import LISTING, OF_THE_DEAD, DeadLetter, DeadLetters
from service.dialled import Destination
from service.events import LISTED, Begun, Scheduling
from service.outbox import (
    MOST_IN_SUMMARY,
    NOTICE_RANK,
    Subject,
    members,
    place_of,
    subject_of,
)
from service.owning import COUNT_BEGUN, COUNT_ENDED, MOVE, SETTLE, TAKERS
from service.records import (
    SCHEMA_VERSION,
    Alert,
    Conclusion,
    Delivery,
    Event,
    Notice,
    Session,
    Severity,
    State,
    Watch,
    cause_of,
    decode_event,
    decode_verdict,
    decode_watch,
    encode,
    encode_event,
    encode_result,
    moment,
)
from service.spend import COUNT as SPEND
from service.spend import counted

_EVENT: Final = b"e:"
_PIECE_BYTES: Final = 64
_PIECE: Final = b"."
_PAGE: Final = 200
# A tree shrinks to a fifth at the quickest level, and hardly further at the slowest.
_COMPRESSION: Final = 1
# Long enough for a person to look at it after a weekend.
RAW_MS: Final = 7 * 86_400_000
LEARNED_KEPT_MS: Final = 2 * 86_400_000

# Fields of a session's hash:
#   v  schema version        state  open | verdict | unavailable | dead
#   at first accepted, ms    rev    grows with each event: what was decided before is old news
#   end  latest end of an ending event, ms, absent where only a cost event came so far
#   cost latest time of a cost event, ms        pull  "1" until a fetch has answered it
#   orphaned  holders in a row whose lease ended without a word
#   token  who holds the lease                  e:*  the events, packed
#   watch, verdict, alerted, reason             written by workers
#   failures  of ours in a row                  kind  of a dead letter
#   dropped  when a person gave a dead one up, ms
#   spent  what it has counted for in the sums of money, see `service.spend`
#   counted  the hour and the series in which its call was counted, see `service.counting`
#   owner  for whom, where the event that stands there does not say it
#   presumed  while no event has said it, where it was counted for that one, see `service.owning`
#   paid  what its call has cost in these, in millionths
#
# An event is cut into pieces of 64 bytes, e:{key}, e:{key}.1 and so on: Redis keeps a hash whose
# values are all that short in one compact block, which takes half the memory.
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

# The legs of a call end at about the same time: what comes later than that was another part of it.
_ONE_END_MS: Final = 60_000

# Whether a list's event is no news: webhooks told of the session; or only lists did, but it has
# come to its end, and no leg is new. Each call is in several lists, and is not judged as often.
_NO_NEWS: Final = f"""
local function no_news(key, end_at)
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.sub(name, 1, 2) == 'e:' and string.sub(name, 1, 4) ~= 'e:l:' then return true end
  end
  local f = redis.call('HMGET', key, 'state', 'end')
  if not f[1] or f[1] == 'open' then return false end
  return not end_at or (f[2] and end_at <= tonumber(f[2]) + {_ONE_END_MS})
end
"""

_RECORD: Final = (
    CLOCK
    + _PLACE
    + LISTING
    + f"""
local most = {_PIECE_BYTES}
local function forget_death(dead, key, id)
  strike(dead, key, id)
  redis.call('HDEL', key, {OF_THE_DEAD})
end
"""
    + _NO_NEWS
    + COUNT
    + TAKERS
    + MOVE
    + COUNT_ENDED
    + """
local key, ended, due, index, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local rechecks, begun = KEYS[6], KEYS[7]
local id, field, event, now = ARGV[1], ARGV[2], ARGV[3], clock(ARGV[4])
local end_at, cost_at, pulls, version = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
if ARGV[9] == '1' and no_news(key, end_at) then return 'known' end
if redis.call('HSETNX', key, field, event:sub(1, most)) == 0 then return 'duplicate' end
local s = read(key)
local open = s.state == 'open'
local before = effective(s)
local is_first_end = end_at and not s['end']
local change = {'rev', s.rev + 1}
local function set(name, value) change[#change + 1] = name; change[#change + 1] = value end
for piece = 1, math.ceil(#event / most) - 1 do
  set(field .. '.' .. piece, event:sub(piece * most + 1, (piece + 1) * most))
end
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
    redis.call('ZREM', rechecks, id)
    forget_death(dead, key, id)
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
-- Last, since an event matters more than a count, should Redis refuse to add.
local number, block, short, connection, assistant = unpack(ARGV, 11, 15)
if is_first_end then
  count_end(key, begun, now, end_at, field, unpack(ARGV, 10, 15))
elseif assistant ~= '' then
  name_owner(key, begun, number, block, short, assistant)
end
if end_at or assistant ~= '' then
  note_taker(now, end_at or cost_at, connection, assistant)
end
if open then return 'merged' end
return 'scheduled'
"""
)

_BEGIN: Final = (
    CLOCK
    + COUNT
    + TAKERS
    + COUNT_BEGUN
    + """
return count_begun(KEYS[1], KEYS[2], clock(ARGV[1]), tonumber(ARGV[2]), unpack(ARGV, 3, 7))
"""
)

# A session that changed while it was worked on is not concluded: what was decided rests on old
# news. It goes back to where its fields say, and is looked at again.
_CONCLUDE: Final = (
    _PLACE
    + SPEND
    + COUNT
    + MOVE
    + SETTLE
    + PAY
    + """
local key, ended, due, index, analysis = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local alert, outbox, alerts, rechecks = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local learned, most, unalerted = KEYS[10], ARGV[22], ARGV[23]
local begun = KEYS[11]
local id, token, rev, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state, next_due, seen_end, ttl = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local watch, verdict, reason, answered = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local body, alert_id, severity, alert_body = ARGV[13], ARGV[14], ARGV[15], ARGV[16]
local rank, cause, score, recheck, spent = ARGV[17], ARGV[18], ARGV[19], ARGV[20], ARGV[21]
local entity, assistant, micros = ARGV[25], ARGV[26], ARGV[27]
local s = read(key)
if s.token ~= token then return 'lost' end
if s.rev ~= rev then
  redis.call('HDEL', key, 'token', 'orphaned')
  if effective(s) ~= seen_end then
    place(s, id, ended, due, now, true)
  else
    redis.call('ZADD', due, now, id)
  end
  return 'changed'
end
local capped = false
if most ~= '' and redis.call('EXISTS', alert) == 0 then
  if tonumber(redis.call('GET', learned) or 0) >= tonumber(most) then
    capped, alert_id, verdict = true, '', unalerted
  else
    redis.call('INCR', learned)
    redis.call('PEXPIRE', learned, ARGV[24])
  end
end
if body ~= '' then redis.call('SET', analysis, body, 'PX', ttl) end
redis.call('HSET', key, 'watch', watch, 'reason', reason, 'state', state)
redis.call('HDEL', key, 'token', 'failures', 'orphaned')
if answered == '1' then redis.call('HDEL', key, 'pull') end
if verdict ~= '' then redis.call('HSET', key, 'verdict', verdict) end
-- One more look that found nothing new is no change: neither in the lists, nor for the retention.
local untouched = s.state == 'verdict' and verdict == ''
if not untouched then redis.call('ZADD', index, now, id) end
if alert_id ~= '' and redis.call('HSETNX', alert, 'alert', alert_body) == 1 then
  redis.call('HSET', key, 'alerted', severity)
  redis.call('HSET', alert, 'delivery', 'waiting', 'at', ARGV[4], 'rank', rank, 'cause', cause,
             'place', score)
  redis.call('ZADD', outbox, score, alert_id)
  redis.call('ZADD', alerts, now, alert_id)
end
if next_due ~= '' then
  redis.call('ZADD', due, next_due, id)
else
  redis.call('ZREM', due, id)
  if not untouched then redis.call('PEXPIRE', key, ttl) end
  if recheck ~= '' then redis.call('ZADD', rechecks, recheck, id) end
end
-- Last, since an alert matters more than a sum, should Redis refuse to add.
if spent ~= '' then count(key, spent) end
if state ~= 'open' then settle_owner(key, begun, assistant) end
if micros ~= '' then pay(key, entity, micros) end
return capped and 'capped' or 'concluded'
"""
)

# Needs nothing of the record but its token, so that a record which cannot be read can fail too.
_FAIL: Final = (
    LISTING
    + """
local key, due, index, dead, raw = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, token, now, wait, most, kind, reason, answer, kept = unpack(ARGV)
if redis.call('HGET', key, 'token') ~= token then return -1 end
if (redis.call('HGET', key, 'rev') or '') ~= redis.call('HGET', key, 'claimed') then
  -- News came meanwhile: it must not die with what was tried before it.
  redis.call('HDEL', key, 'token', 'failures', 'orphaned')
  redis.call('ZADD', due, now, id)
  return 0
end
if answer ~= '' then redis.call('SET', raw, answer, 'PX', kept) end
local failures = redis.call('HINCRBY', key, 'failures', 1)
redis.call('HDEL', key, 'token', 'orphaned')
redis.call('HSET', key, 'reason', reason)
redis.call('ZADD', index, now, id)
if failures < tonumber(most) then
  redis.call('ZADD', due, string.format('%.0f', now + wait * 4 ^ (failures - 1)), id)
else
  redis.call('HSET', key, 'state', 'dead')
  redis.call('ZREM', due, id)
  enlist(dead, key, id, kind, now)
end
return failures
"""
)

# In one step with the look: a session that comes back in between must not lose its place.
_TRIM: Final = """
local index, prefix, before, start, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local old = redis.call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', start, most)
local gone = 0
for _, id in ipairs(old) do
  if redis.call('EXISTS', prefix .. id) == 0 then gone = gone + redis.call('ZREM', index, id) end
end
return {#old, gone}
"""

_NOTIFY: Final = """
local key, outbox, index, episodes, rungs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, body, at, rank, place, episode, before, since, field, level, kept = unpack(ARGV)
if rungs then
  if tonumber(redis.call('HGET', rungs, field) or 0) >= tonumber(level) then return 0 end
  redis.call('HSET', rungs, field, level)
  redis.call('PEXPIRE', rungs, kept)
end
if episode ~= '' then
  -- Whoever knew another state of it looks again: somebody has told meanwhile, or it has ended.
  if (redis.call('HGET', episodes, episode) or '') ~= before then return 0 end
  redis.call('HSET', episodes, episode, since)
end
if redis.call('HSETNX', key, 'notice', body) == 0 then return 0 end
redis.call('HSET', key, 'delivery', 'waiting', 'at', at, 'rank', rank, 'place', place)
redis.call('ZADD', outbox, place, id)
redis.call('ZADD', index, at, id)
return 1
"""


class Recorded(enum.StrEnum):
    """What recording an event did."""

    SCHEDULED = "scheduled"
    MERGED = "merged"
    DUPLICATE = "duplicate"
    KNOWN = "known"
    """Nothing was kept: the session is known, and a list knows it no better."""


class Concluded(enum.StrEnum):
    """What became of a conclusion."""

    CONCLUDED = "concluded"
    CAPPED = "capped"
    """All was written, but no alert was made: there have been as many as a day may have."""
    CHANGED = "changed"
    """News came while it was worked on: nothing was written, it is due again."""
    LOST = "lost"
    """The lease had ended and somebody else has it: nothing was written."""

    @property
    def is_written(self) -> bool:
        """Whether the session stands as concluded."""
        return self in {Concluded.CONCLUDED, Concluded.CAPPED}


@dataclass(frozen=True, slots=True)
class Rung:
    """How far something has gone that is told step by step: a field of a hash with a lifetime.

    Of several workers that look at different moments only the one with the highest `level` so far
    tells: what is below it does not follow.
    """

    key: str
    field: str
    level: int
    kept_ms: int


Subject_co = TypeVar("Subject_co", bound=Subject, covariant=True)


@dataclass(frozen=True, slots=True)
class Posting(Generic[Subject_co]):
    """An alert, a notice or a summary, and what became of it so far."""

    subject: Subject_co
    delivery: Delivery
    tries: int = 0
    reason: str = ""
    changed_ms: int = 0
    summary: str | None = None
    """The number of the summary that tells of it."""
    repeated: bool = False
    """Slack left it open whether it took the message, so it may have been told twice."""


class Store:
    """Sessions, analyses and alerts in one Redis. Redis' errors pass through to the caller."""

    def __init__(self, redis: Redis, *, retention_ms: int, replicas: int = 0) -> None:
        """`replicas`: so many must have an event before it counts as kept."""
        self._redis = redis
        self._retention_ms = retention_ms
        self.dead = DeadLetters(redis, retention_ms=retention_ms)
        self._record = BatchedScript(redis, _RECORD, replicas=replicas)
        self._begin = BatchedScript(redis, _BEGIN)
        self._conclude = BatchedScript(redis, _CONCLUDE)
        self._take = BatchedScript(redis, _TAKE)
        self._fail = redis.register_script(_FAIL)
        self._notify = redis.register_script(_NOTIFY)
        self._trim_page = redis.register_script(_TRIM)

    async def begin(self, begun: Begun, *, now_ms: int | None = None) -> bool:
        """Count a call that has begun; whether there was anything to count.

        Nothing is lost where it fails: what was not counted by then is counted when it ends.
        """
        counted = await self._begin(
            keys=[keys.session_key(begun.session_id), keys.begun_key(begun.session_id)],
            args=[
                "" if now_ms is None else now_ms,
                begun.at_ms,
                begun.connection_id,
                begun.leg_id or "",
                *_whither(begun.destination, begun.to_country, is_dialled=begun.is_dialled),
            ],
        )
        return bool(counted)

    async def record(
        self, scheduling: Scheduling, *, now_ms: int | None = None, unless_told: bool = False
    ) -> Recorded:
        """Keep the event, mark it as seen and make its session due: one step, one round trip.

        Without `now_ms` it is Redis' time, by which what is due is claimed.

        With `unless_told` a session that webhooks told of is left as it is, and so is one that has
        come to its end, unless this is a later one.
        """
        event = scheduling.event
        reported = event.reported is not None
        outcome = await self._record(
            keys=[
                keys.session_key(scheduling.session_id),
                keys.ENDED,
                keys.DUE,
                keys.SESSIONS,
                keys.DEAD,
                keys.RECHECKS,
                keys.begun_key(scheduling.session_id),
            ],
            args=[
                scheduling.session_id,
                _EVENT + scheduling.key.encode(),
                encode_event(event),
                "" if now_ms is None else now_ms,
                event.at_ms if event.ends else "",
                event.at_ms if reported or not event.ends else "",
                "1" if scheduling.pulls else "",
                SCHEMA_VERSION,
                "1" if unless_told else "",
                *_counted(scheduling),
            ],
        )
        return Recorded(outcome.decode())

    async def would_record(self, scheduling: Scheduling, *, unless_told: bool = False) -> Recorded:
        """What `record` would do at this moment; changes nothing."""
        fields = await self._hash(keys.session_key(scheduling.session_id))
        if unless_told and _is_no_news(fields, scheduling.event):
            return Recorded.KNOWN
        if _EVENT + scheduling.key.encode() in fields:
            return Recorded.DUPLICATE
        is_open = fields.get(b"state") == State.OPEN.encode()
        return Recorded.MERGED if is_open else Recorded.SCHEDULED

    async def session(self, session_id: str) -> Session | None:
        """What is known of a session, or None."""
        fields = await self._hash(keys.session_key(session_id))
        return _session(session_id, fields) if fields.get(b"state") else None

    async def is_known(self, session_id: str) -> bool:
        """Whether anything is stored of a session, readable or not."""
        return bool(await self._redis.exists(keys.session_key(session_id)))

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
        cap = conclusion.cap if alert else None
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
                keys.RECHECKS,
                keys.learned_key(f"{moment(now_ms):%Y-%m-%d}"),
                keys.begun_key(session.id),
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
                encode_result(conclusion.watch),
                encode_result(conclusion.verdict) if conclusion.verdict else "",
                conclusion.reason,
                "1" if conclusion.answered else "",
                zlib.compress(conclusion.analysis, _COMPRESSION) if conclusion.analysis else "",
                alert.id if alert else "",
                alert.severity if alert else "",
                encode(alert) if alert else "",
                *(_placed(alert, now_ms) if alert else ("", "", "")),
                "" if conclusion.recheck_ms is None else conclusion.recheck_ms,
                counted(conclusion.spend) if conclusion.spend else "",
                *((cap.most, encode_result(cap.verdict)) if cap else ("", "")),
                LEARNED_KEPT_MS,
                session.counted_for,
                next((e.assistant_id for e in session.events if e.assistant_id), ""),
                _paid(conclusion),
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
        kind: str,
        reason: str,
        raw: bytes = b"",
    ) -> int | None:
        """Count a failure of our own; at `most_failures` the session is a dead letter of `kind`.

        Until then it is due again, four times as long after each failure as after the one before.
        An event that came meanwhile counts it anew: 0 is the answer then. `raw`, what Telnyx
        answered, is kept for a week.
        How many failures there are now, or None where the lease was lost.
        """
        failures = await self._fail(
            keys=[
                keys.session_key(session_id),
                keys.DUE,
                keys.SESSIONS,
                keys.DEAD,
                keys.raw_key(session_id),
            ],
            args=[
                session_id,
                token,
                now_ms,
                first_wait_ms,
                most_failures,
                kind,
                reason,
                raw,
                min(RAW_MS, self._retention_ms),
            ],
        )
        return None if failures < 0 else int(failures)

    async def forget_rechecks(self) -> int:
        """Take back every look that finished sessions have ahead; how many had one."""
        async with self._redis.pipeline() as pipe:
            pipe.zcard(keys.RECHECKS)
            pipe.unlink(keys.RECHECKS)
            number, _ = await pipe.execute()
        return int(number)

    async def raw(self, session_id: str) -> tuple[bytes, int] | None:
        """What Telnyx answered when our code last broke on it, and for how many ms it stays."""
        async with self._redis.pipeline() as pipe:
            pipe.get(keys.raw_key(session_id))
            pipe.pttl(keys.raw_key(session_id))
            found, left_ms = await pipe.execute()
        return (found, left_ms) if found else None

    async def analysis(self, session_id: str) -> bytes | None:
        """The last analysis, cleaned, as JSON; None where there is none."""
        raw = await self._redis.get(keys.analysis_key(session_id))
        return zlib.decompress(raw) if raw else None

    async def posting(self, alert_id: str) -> Posting[Alert] | None:
        """An alert and what became of it, or None."""
        found = await self.item(alert_id)
        return cast("Posting[Alert]", found) if found else None

    async def item(self, id: str) -> Posting[Any] | None:
        """Whatever has that id among the alerts, a notice or a summary too; or None."""
        fields = await self._hash(keys.alert_key(id))
        return _posting(id, fields) if b"delivery" in fields else None

    async def members(self, summary_id: str) -> list[str]:
        """The ids of the alerts in a summary, the worst first; none if there is no such summary."""
        return await members(self._redis, summary_id, 0, MOST_IN_SUMMARY)

    async def notify(
        self,
        notice: Notice,
        *,
        now_ms: int,
        rung: Rung | None = None,
        episode: tuple[str, str, str] | None = None,
    ) -> bool:
        """Tell the operators, once for each id as long as that is kept. Whether it was news.

        With a `rung` nothing is told, either, where that one or a higher one was. In the same step
        `episode` (its name, what was noted of it before, what is now) is noted as one that goes
        on; where something else is noted by now, nothing is told.
        """
        id = keys.notice_id(notice.id)
        name, before, since = episode or ("", "", "")
        added = await self._notify(
            keys=[
                *(keys.alert_key(id), keys.OUTBOX, keys.ALERTS, keys.CALLS_EPISODES),
                *([rung.key] if rung else []),
            ],
            args=[
                *(id, encode(notice), now_ms, NOTICE_RANK, place_of(NOTICE_RANK, now_ms)),
                *(name, before, since),
                *((rung.field, rung.level, rung.kept_ms) if rung else ()),
            ],
        )
        return bool(added)

    def session_ids(self) -> AsyncIterator[str]:
        """All sessions, the latest changed first."""
        return self._newest(keys.SESSIONS)

    def alert_ids(self) -> AsyncIterator[str]:
        """All alerts, the latest decided first."""
        return self._newest(keys.ALERTS)

    async def trim(self, *, now_ms: int) -> tuple[DeadLetter, ...]:
        """Drop what the retention has ended; open sessions stay listed.

        Which dead letters those were, the only ones that do not end by themselves.
        """
        expired = await self.dead.expire(now_ms=now_ms)
        before = now_ms - self._retention_ms - 60_000
        for index, prefix in ((keys.SESSIONS, keys.SESSION), (keys.ALERTS, keys.ALERT)):
            await self._trim(index, prefix, before)
        await self._trim(keys.RECHECKS, keys.SESSION, now_ms)
        return expired

    async def _trim(self, index: str, prefix: str, before_ms: int) -> None:
        start, looked_at = 0, 1
        while looked_at:
            looked_at, gone = await self._trim_page(
                keys=[index], args=[prefix, before_ms, start, _PAGE]
            )
            start += looked_at - gone

    async def _hash(self, key: str) -> Mapping[bytes, bytes]:
        # redis-py types one method for its blocking and its asyncio client at once.
        return await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(key))

    async def _newest(self, index: str) -> AsyncIterator[str]:
        start = 0
        while page := await self._redis.zrevrange(index, start, start + _PAGE - 1):
            for id in page:
                yield id.decode(errors="replace")
            start += _PAGE


def _is_no_news(fields: Mapping[bytes, bytes], event: Event) -> bool:
    """As the script says it."""
    names = [name for name in fields if name.startswith(_EVENT)]
    if not all(name.startswith(_EVENT + LISTED.encode()) for name in names):
        return True
    if fields.get(b"state", State.OPEN.encode()) == State.OPEN.encode():
        return False
    end = fields.get(b"end")
    return not event.ends or (end is not None and event.at_ms <= int(end) + _ONE_END_MS)


def _session(session_id: str, fields: Mapping[bytes, bytes]) -> Session:
    alerted = fields.get(b"alerted")
    verdict = fields.get(b"verdict")
    watch = fields.get(b"watch")
    dropped = fields.get(b"dropped")
    events = _events(fields)
    _, _, where = fields.get(b"counted", b"").partition(b" ")
    first = where.partition(b" ")[0]
    return Session(
        id=session_id,
        state=State(fields[b"state"].decode()),
        revision=int(fields.get(b"rev", 0)),
        events=tuple(events.values()),
        end_ms=int(fields.get(b"end") or fields.get(b"cost") or 0),
        accepted_ms=int(fields.get(b"at", 0)),
        watch=decode_watch(watch) if watch else Watch(),
        alerted=Severity(alerted.decode()) if alerted else None,
        verdict=decode_verdict(verdict) if verdict else None,
        pulled=fields.get(b"pull") == b"1",
        reason=fields.get(b"reason", b"").decode(),
        dropped_ms=int(dropped) if dropped else None,
        counted_for=_entity(events[first]) if first in events else "",
    )


def _events(fields: Mapping[bytes, bytes]) -> dict[bytes, Event]:
    """The events by their fields' names, in that order, each put together from its pieces."""
    pieces: dict[bytes, list[tuple[int, bytes]]] = {}
    for name, value in fields.items():
        if name.startswith(_EVENT):
            event, _, number = name.partition(_PIECE)
            pieces.setdefault(event, []).append((int(number or 0), value))
    return {
        name: decode_event(b"".join(value for _, value in sorted(found)))
        for name, found in sorted(pieces.items())
    }


def _entity(event: Event) -> str:
    """Among whose calls it is counted, unless an owner stands beside it."""
    return event.assistant_id or event.connection_id or ""


def _counted(scheduling: Scheduling) -> tuple[str, ...]:
    """By what a call is counted: where it went, whether it was short, whose it is."""
    event = scheduling.event
    seconds = event.duration_seconds
    if seconds is None and event.start_ms is not None:
        seconds = (event.at_ms - event.start_ms) // 1000
    return (
        *_whither(
            scheduling.destination, event.to_country, is_dialled=event.direction != "inbound"
        ),
        "1" if seconds is not None and seconds <= SHORT_SECONDS else "",
        event.connection_id or "",
        event.assistant_id or "",
    )


def _whither(
    to: Destination | None, country: str | None, *, is_dialled: bool = True
) -> tuple[str, str, str]:
    """The places that a call goes to, and what stands for its number and for the numbers nearby.

    Nothing stands for those where nobody dialled them: such calls have no shape.
    """
    if to is None:
        return f" {country or ''}", "", ""
    stands_for = (to.number, to.block) if is_dialled else ("", "")
    return f"{to.prefix} {country or ''}", *stands_for


def _paid(conclusion: Conclusion) -> int | str:
    """What the session has cost in the end, in millionths; nothing before that.

    As it counts among what is spent: in the policy's currency, or not at all.
    """
    if conclusion.spend is None or conclusion.state is not State.VERDICT:
        return ""
    return counted_cost(conclusion.spend.amount)


def _placed(alert: Alert, now_ms: int) -> tuple[int, str, int]:
    """What the outbox needs to know of an alert: its rank, its cause, its place."""
    rank = alert.severity.rank
    return rank, cause_of(alert).key, place_of(rank, now_ms)


def _posting(id: str, fields: Mapping[bytes, bytes]) -> Posting[Any]:
    told_in = fields.get(b"told_in")
    return Posting(
        subject=subject_of(id, fields),
        delivery=Delivery(fields[b"delivery"].decode()),
        tries=int(fields.get(b"tries", 0)),
        reason=fields.get(b"reason", b"").decode(),
        changed_ms=int(fields.get(b"changed", 0)),
        summary=told_in.decode().removesuffix(keys.IS_SUMMARY) if told_in else None,
        repeated=fields.get(b"doubt") == b"1",
    )
