"""Brings leased work to arq: claims what is due, hands it over, and keeps the leases while it runs.

Each worker has an arq queue of its own, which holds only what that worker has leased. So workers do
not fight over the head of a shared queue, what a dead one held is in nobody's way, and arq's own
in-progress marks, retries and expiry decide nothing.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from typing import Final

from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.exceptions import RedisError

from service.outbox import Outbox
from service.queue import Claim, Line

LEASE_MS: Final = 20_000
HEARTBEAT_SECONDS: Final = 5.0
_LARGEST_BATCH: Final = 100
_BUSY_SECONDS: Final = 0.05
# A quarter of a second more is nobody's loss, and each question costs Redis and us a little.
_IDLE_SECONDS: Final = 0.25
# arq starts what it is handed within moments.
_START_SECONDS: Final = 30.0
# arq's copies of work are worthless without a live lease; they only have to outlast the wait
# between being handed over and being started.
_JOB_MS: Final = 10 * 60_000


@dataclass(slots=True)
class Feeder:
    """One line's way into arq. `job` is the name of the arq function."""

    line: Line | Outbox
    job: str
    arq: ArqRedis
    capacity: int
    worker_id: str
    serialize: Callable[[dict[str, object]], bytes]
    delay_ms: int = 0
    on_claim: Callable[[Claim], None] = lambda _claim: None
    _held: dict[str, str] = field(default_factory=dict)
    _started: set[tuple[str, str]] = field(default_factory=set)
    """Id and token of what is worked on: of one id a lost lease's work and a new one's, perhaps."""
    _since: dict[str, float] = field(default_factory=dict)
    _broken_off: dict[str, str] = field(default_factory=dict)
    """Leases (id → token) of work that Redis' absence broke off: given back when it is there."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def held(self) -> int:
        """How many ids this worker has leased."""
        return len(self._held)

    @property
    def has_unstarted(self) -> bool:
        """Whether anything was leased that arq has not begun."""
        return not self._held.items() <= self._started

    def holds(self, claim: Claim) -> bool:
        """Whether that lease was not let go."""
        return self._held.get(claim.id) == claim.token

    @asynccontextmanager
    async def working_on(self, claim: Claim) -> AsyncIterator[None]:
        """While inside, the lease is kept; when work is cancelled, it is given back at once."""
        self._started.add((claim.id, claim.token))
        try:
            yield
        except asyncio.CancelledError:
            # A rollout, not a failure: somebody else may begin this very moment.
            await asyncio.shield(self.line.release({claim.id: claim.token}))
            raise
        except RedisError:
            self._broken_off[claim.id] = claim.token
            raise
        finally:
            self._started.discard((claim.id, claim.token))
            self._drop(claim)

    async def feed(self, queue_name: Callable[[], str]) -> int:
        """Claim as much as there is room for and hand it to arq; how much that was.

        The queue is asked for after the claim: arq's loop may have begun another one meanwhile.
        """
        room = self._room
        if not room:
            return 0
        token = f"{self.worker_id}.{next(self._numbers)}"
        claims = await self.line.claim(
            limit=room, lease_ms=LEASE_MS, token=token, delay_ms=self.delay_ms
        )
        if claims:
            for claim in claims:
                self._held[claim.id] = claim.token
                self._since[claim.id] = time.monotonic()
                self.on_claim(claim)
            try:
                await self._hand_over(claims, queue_name())
            except BaseException:
                # Nobody will begin them: their places are free, and others may have them.
                for claim in claims:
                    self._drop(claim)
                    self._broken_off[claim.id] = claim.token
                raise
        return len(claims)

    async def run(self, queue_name: Callable[[], str]) -> None:
        """Feed for ever. Redis' errors pass through."""
        while True:
            room = self._room
            fed = await self.feed(queue_name)
            await asyncio.sleep(_pause_seconds(fed, room))

    @property
    def _room(self) -> int:
        return max(0, min(self.capacity - len(self._held), _LARGEST_BATCH))

    async def beat(self) -> None:
        """Extend the leases for ever. Redis' errors pass through.

        Not of what was handed over long ago and never begun: arq has lost it, and its lease must
        end. Nor of what is another's by now: its place is free again.
        """
        while True:
            await self._give_back()
            now = time.monotonic()
            # Of what is claimed while Redis answers, the answer says nothing.
            held = dict(self._held)
            alive = {
                id: token
                for id, token in held.items()
                if (id, token) in self._started or now - self._since.get(id, now) < _START_SECONDS
            }
            kept = await self.line.extend(alive, lease_ms=LEASE_MS)
            for id, token in held.items():
                if (id, token) not in self._started and id not in kept:
                    self._drop(Claim(id, token, 0, taken_over=False))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def until_idle(self) -> None:
        """Wait until nothing is held any more; end `run` before."""
        if self._held:
            self._idle.clear()
            await self._idle.wait()

    async def release_unstarted(self) -> None:
        """Give back what was leased but never begun."""
        waiting = dict(self._held.items() - self._started)
        for id, token in waiting.items():
            self._drop(Claim(id, token, 0, taken_over=False))
        await self.line.release(waiting)

    async def _give_back(self) -> None:
        """What was broken off is due again at once, instead of when its lease would end."""
        if lost := dict(self._broken_off):
            await self.line.release(lost)
            for id, token in lost.items():
                if self._broken_off.get(id) == token:
                    del self._broken_off[id]

    def _drop(self, claim: Claim) -> None:
        if self.holds(claim):
            del self._held[claim.id]
            self._since.pop(claim.id, None)
        if not self._held:
            self._idle.set()

    async def _hand_over(self, claims: list[Claim], queue_name: str) -> None:
        now = timestamp_ms()
        async with self.arq.pipeline(transaction=False) as pipe:
            for claim in claims:
                args = astuple(claim)
                body = serialize_job(self.job, args, {}, None, now, serializer=self.serialize)
                pipe.psetex(job_key_prefix + _job_id(claim), _JOB_MS, body)
            pipe.zadd(queue_name, {_job_id(claim): now for claim in claims})
            pipe.pexpire(queue_name, _JOB_MS)
            await pipe.execute()


def _job_id(claim: Claim) -> str:
    # With the token: a second lease on the same session is another job to arq.
    return f"{claim.id}:{claim.token}"


def _pause_seconds(fed: int, room: int) -> float:
    """None after a whole batch; short while only room was wanting; else nothing more is due.

    Not shorter for having come by something: the busiest worker would take all that comes.
    """
    if fed < room:
        return _IDLE_SECONDS
    return 0 if fed == _LARGEST_BATCH else _BUSY_SECONDS
