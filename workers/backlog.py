"""The sessions of the past that are still to be learned from, in Redis, as lists told of them.

Whoever learns works off a sorted set by the calls' ends and removes what is done, so what is left
after a crash is what is still to do. All writes are made under the lease of `workers.ledger`.

Redis belongs to the calls of today: of a past with more sessions than there is room for, only some
are taken, evenly, by what their ids hash to. Whenever the room is full, half of it is left out, so
it does not matter which session was found first.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import msgspec
from redis.asyncio import Redis

from service import keys
from service.batch import BatchedScript
from service.events import Scheduling
from service.records import Event, Session, State, Watch, decode_event, encode_event
from service.store import Recorded
from workers.ledger import LeasedBook, LeaseLost, Ledger
from workers.span import Span
from workers.walk import Progress

MOST_SESSIONS: Final = 20_000
"""Some 24 MB."""
KEPT_MS: Final = 7 * 86_400_000

_JOB: Final = "list"
_SPAN: Final = "span"
_HALVINGS: Final = "halvings"
_CAME_TO: Final = "n:"
_EVENT: Final = "e:"
_LOST: Final = b"lost"

# Webhooks tell a call as workers know it; a session of which one told needs no records.
_ADD: Final = f"""
local lease, found, call = KEYS[1], KEYS[2], KEYS[3]
local token, id, field, event, ended, at, unless_told = unpack(ARGV)
if redis.call('GET', lease) ~= token then return 'lost' end
if unless_told ~= '' and redis.call('HEXISTS', call, 'told') == 1 then return 'known' end
if unless_told == '' then redis.call('HSET', call, 'told', '1') end
if redis.call('HSETNX', call, field, event) == 0 then return 'duplicate' end
redis.call('PEXPIRE', call, {KEPT_MS})
local had = redis.call('ZSCORE', found, id)
if not had or (ended ~= '' and tonumber(had) < tonumber(at)) then
  redis.call('ZADD', found, at, id)
end
redis.call('PEXPIRE', found, {KEPT_MS})
return had and 'merged' or 'scheduled'
"""

_DONE: Final = f"""
local lease, found, call, fields = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, id, came_to = unpack(ARGV)
if redis.call('GET', lease) ~= token then return 0 end
redis.call('UNLINK', call)
if redis.call('ZREM', found, id) == 1 and came_to ~= '' then
  redis.call('HINCRBY', fields, came_to, 1)
  redis.call('PEXPIRE', fields, {KEPT_MS})
end
return 1
"""


@asynccontextmanager
async def holding(
    redis: Redis, wanted: Span, *, who: str, most: int = MOST_SESSIONS
) -> AsyncIterator["Backlog"]:
    """The backlog of that span, under the lease: what an earlier run left of it, or a new one.

    Raises Busy where somebody else has it. Redis' errors pass through.
    """
    ledger = Ledger(
        redis, who=who, lease=keys.BACKFILL_LEASE, fields=keys.BACKFILL, kept_ms=KEPT_MS
    )
    async with ledger.holding(_JOB) as book:
        backlog = Backlog(redis, ledger, book, most)
        await backlog.begin(wanted)
        yield backlog


class Backlog:
    """Sessions to learn from. Every change raises LeaseLost where the lease is lost."""

    def __init__(self, redis: Redis, ledger: Ledger, book: LeasedBook, most: int) -> None:
        self._redis = redis
        self._ledger = ledger
        self._book = book
        self._most = most
        self._halvings = 0
        self._size = 0
        self._add = BatchedScript(redis, _ADD)
        self._done = redis.register_script(_DONE)
        self.span = Span(0, 0)
        """What is searched: that of the run which began, where this one goes on with it."""

    async def begin(self, wanted: Span) -> None:
        """Go on with what an earlier run left, if it was about that span; or else begin anew."""
        fields = await self._ledger.fields()
        begun = _span(fields.get(_SPAN.encode()))
        if begun and begun.holds(wanted.since_ms) and begun.until_ms <= wanted.until_ms:
            self.span = begun
            self._halvings = int(fields.get(_HALVINGS.encode(), 0))
        else:
            await self.clear()
            self.span = wanted
            await self._write({_SPAN: msgspec.json.encode(wanted)})
        self._size = int(await self._redis.zcard(keys.BACKFILL_FOUND))

    async def clear(self) -> None:
        """Forget all of it."""
        for id in await self.oldest_first():
            await self._end(id, "")
        fields = await self._ledger.fields()
        await self._write(dict.fromkeys((name.decode() for name in fields), ""))

    # --- searching ---

    async def load(self) -> Mapping[str, Progress]:
        """The progress by list."""
        return await self._book.load()

    async def save(self, source: str, progress: Progress) -> None:
        """Keep the progress through one list."""
        await self._book.save(source, progress)

    async def close(self, *, whole: bool, now_ms: int) -> None:
        """Nothing: the lists have been read until all is learned."""

    async def __call__(self, told: Scheduling, *, unless_told: bool) -> Recorded:
        """Keep what a list tells of a session."""
        id, event = told.session_id, told.event
        if not is_taken(id, self._halvings):
            return Recorded.KNOWN
        outcome = await self._add(
            keys=[keys.BACKFILL_LEASE, keys.BACKFILL_FOUND, keys.backfill_call_key(id)],
            args=[
                *(self._book.token, id, _EVENT + told.key, encode_event(event)),
                "1" if event.ends else "",
                event.at_ms,
                "1" if unless_told else "",
            ],
        )
        if outcome == _LOST:
            raise LeaseLost
        recorded = Recorded(outcome.decode())
        if recorded is Recorded.SCHEDULED:
            self._size += 1
            if self._size > self._most:
                await self._halve()
        return recorded

    async def _halve(self) -> None:
        self._halvings += 1
        # Those that find the room full meanwhile are taken or not by the new measure.
        self._size //= 2
        await self._write({_HALVINGS: str(self._halvings)})
        await self.thin()

    async def thin(self) -> None:
        """Drop what is not taken by now, and more while there are too many."""
        ids = await self.oldest_first()
        for id in ids:
            if not is_taken(id, self._halvings):
                await self._end(id, "")
        self._size = int(await self._redis.zcard(keys.BACKFILL_FOUND))
        if self._size > self._most:
            await self._halve()

    # --- learning ---

    @property
    def one_in(self) -> int:
        """One of so many sessions is taken."""
        return 1 << self._halvings

    async def oldest_first(self) -> list[str]:
        """The sessions that are left, by their ends."""
        found = await self._redis.zrange(keys.BACKFILL_FOUND, 0, -1)
        return [id.decode(errors="replace") for id in found]

    async def session(self, id: str) -> Session:
        """What lists told of a session. Raises ValueError on junk."""
        asked = self._redis.hgetall(keys.backfill_call_key(id))
        # redis-py types one method for its blocking and its asyncio client at once.
        fields = await cast("Awaitable[Mapping[bytes, bytes]]", asked)
        prefix = _EVENT.encode()
        kept = sorted(pair for pair in fields.items() if pair[0].startswith(prefix))
        return session_of(id, tuple(decode_event(raw) for _, raw in kept))

    async def done(self, id: str, came_to: str) -> None:
        """A session is done with, and counts as that."""
        await self._end(id, _CAME_TO + came_to)

    async def counts(self) -> dict[str, int]:
        """How many sessions came to what, in all runs together."""
        fields = {name.decode(): value for name, value in (await self._ledger.fields()).items()}
        return {
            name.removeprefix(_CAME_TO): int(value)
            for name, value in fields.items()
            if name.startswith(_CAME_TO)
        }

    async def _end(self, id: str, came_to: str) -> None:
        kept = await self._done(
            keys=[
                *(keys.BACKFILL_LEASE, keys.BACKFILL_FOUND),
                *(keys.backfill_call_key(id), keys.BACKFILL),
            ],
            args=[self._book.token, id, came_to],
        )
        if not kept:
            raise LeaseLost

    async def _write(self, changes: Mapping[str, bytes | str]) -> None:
        await self._ledger.write(self._book.token, changes)


def is_taken(session_id: str, halvings: int) -> bool:
    """Whether a session is among those that are left when all were halved so often."""
    digest = hashlib.blake2b(session_id.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) % (1 << halvings) == 0


def session_of(id: str, events: tuple[Event, ...]) -> Session:
    """A session of which only these events are known."""
    ends = [event.at_ms for event in events if event.ends] or [e.at_ms for e in events]
    return Session(
        id=id,
        state=State.OPEN,
        revision=0,
        events=events,
        end_ms=max(ends, default=0),
        accepted_ms=0,
        watch=Watch(),
        alerted=None,
        verdict=None,
    )


def _span(raw: bytes | None) -> Span | None:
    try:
        return msgspec.json.decode(raw, type=Span) if raw else None
    except msgspec.MsgspecError:
        return None
