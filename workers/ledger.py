"""How far a search through Telnyx's lists has got, in Redis; one searches at a time.

The lease ends with its holder: it is extended while he works and ends by itself when he is gone.
What a holder writes is written under his lease only, so one that lost it without knowing spoils
nothing. A search that was broken off goes on at the page where it stopped.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service import keys
from workers.walk import Progress

SCHEDULE: Final = "schedule"
HAND: Final = "hand"

LEASE_MS: Final = 20_000
_BEAT_SECONDS: Final = 5.0

# Fields of the hash of the search for webhooks that never came:
#   schedule:{source}, hand:{source}   progress through that source, JSON
#   tried     when the last search by schedule ended, whole or not, ms
#   success   when the last whole one ended, ms
_TRIED: Final = "tried"
_SUCCESS: Final = "success"

_SAVE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local kept = ARGV[2]
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
if kept ~= '' then redis.call('PEXPIRE', KEYS[2], kept) end
return 1
"""

_EXTEND: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Busy(Exception):
    """Somebody else searches."""


class LeaseLost(Exception):
    """The lease ended before the search did; somebody else may have gone on with it."""


class Book(Protocol):
    """Where a search keeps its progress."""

    async def load(self) -> Mapping[str, Progress]:
        """The progress by source."""
        ...

    async def save(self, source: str, progress: Progress) -> None:
        """Keep the progress through one source."""
        ...

    async def close(self, *, whole: bool, now_ms: int) -> None:
        """The search has ended, and found all or not."""
        ...


class Blank:
    """A book that keeps nothing: for a search that changes nothing."""

    async def load(self) -> Mapping[str, Progress]:
        """Nothing is known."""
        return {}

    async def save(self, source: str, progress: Progress) -> None:
        """Forgets it."""

    async def close(self, *, whole: bool, now_ms: int) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class Times:
    """When the last search by schedule ended, and the last whole one, in ms; 0 for never."""

    tried_ms: int
    success_ms: int


class Ledger:
    """The ledger of one kind of search. Redis' errors pass through."""

    def __init__(
        self,
        redis: Redis,
        *,
        who: str,
        lease: str = keys.RECONCILE_LEASE,
        fields: str = keys.RECONCILE,
        kept_ms: int | None = None,
    ) -> None:
        """`lease` and `fields` are its keys; the latter ends so long after the last change."""
        self._redis = redis
        self._who = who
        self._lease_key = lease
        self._key = fields
        self._kept_ms = kept_ms
        self._save = redis.register_script(_SAVE)
        self._extend = redis.register_script(_EXTEND)
        self._release = redis.register_script(_RELEASE)

    @asynccontextmanager
    async def holding(self, job: str) -> AsyncIterator["LeasedBook"]:
        """The book of that job, under the lease. Raises Busy where somebody else has it."""
        token = f"{self._who}/{secrets.token_hex(8)}"
        if not await self._redis.set(self._lease_key, token, nx=True, px=LEASE_MS):
            raise Busy
        beat = asyncio.create_task(self._beat(token))
        try:
            yield LeasedBook(self, job, token)
        finally:
            beat.cancel()
            # Where Redis does not hear of it, the lease ends by itself.
            with contextlib.suppress(RedisError, OSError):
                await self._release(keys=[self._lease_key], args=[token])

    async def times(self) -> Times:
        """When was last searched."""
        # redis-py types one method for its blocking and its asyncio client at once.
        asked = self._redis.hmget(self._key, [_TRIED, _SUCCESS])
        tried, success = await cast("Awaitable[list[bytes | None]]", asked)
        return Times(int(tried or 0), int(success or 0))

    async def fields(self) -> Mapping[bytes, bytes]:
        """Everything, as it is stored."""
        return await cast("Awaitable[Mapping[bytes, bytes]]", self._redis.hgetall(self._key))

    async def write(self, token: str, changes: Mapping[str, bytes | str]) -> None:
        """Change the fields; an empty value removes one. Raises LeaseLost."""
        pairs = [part for pair in changes.items() for part in pair]
        kept = "" if self._kept_ms is None else self._kept_ms
        if not await self._save(keys=[self._lease_key, self._key], args=[token, kept, *pairs]):
            raise LeaseLost

    async def _beat(self, token: str) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            # Whether the lease is still ours shows at the next page.
            with contextlib.suppress(RedisError, OSError):
                await self._extend(keys=[self._lease_key], args=[token, LEASE_MS])


class LeasedBook:
    """One job's progress, written under a lease. Raises LeaseLost from every change."""

    def __init__(self, ledger: Ledger, job: str, token: str) -> None:
        self._ledger = ledger
        self._job = job
        self.token = token

    async def load(self) -> Mapping[str, Progress]:
        """The progress by source; what this version cannot read counts as none."""
        prefix = f"{self._job}:".encode()
        fields = await self._ledger.fields()
        own = {name: value for name, value in fields.items() if name.startswith(prefix)}
        return {name[len(prefix) :].decode(): _progress(value) for name, value in own.items()}

    async def save(self, source: str, progress: Progress) -> None:
        """Keep the progress through one source."""
        encoded = msgspec.json.encode(progress)
        await self._ledger.write(self.token, {f"{self._job}:{source}": encoded})

    async def close(self, *, whole: bool, now_ms: int) -> None:
        """The search has ended. Of a whole one by hand nothing is left to go on with."""
        if self._job == SCHEDULE:
            ended = {_TRIED: str(now_ms)}
            await self._ledger.write(self.token, ended | ({_SUCCESS: str(now_ms)} if whole else {}))
        elif whole:
            known = await self.load()
            await self._ledger.write(self.token, {f"{self._job}:{name}": "" for name in known})


_DECODER: Final = msgspec.json.Decoder(Progress)


def _progress(raw: bytes) -> Progress:
    try:
        return _DECODER.decode(raw)
    except msgspec.MsgspecError:
        return Progress()
