"""What a worker does besides work: it shows and tells of dead letters, sweeps, and trims.

Everything here is derived from what is in Redis, so each worker may do it, and one that is killed
leaves nothing undone.
"""

from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from service.dead import DeadLetter
from service.logs import get_logger
from service.store import Store
from service.sweep import NETS, Net, Sweep
from workers.metrics import WorkerMetrics
from workers.notices import dead_letter_notice

_TRIM_MS: Final = 5 * 60_000
_SWEEP_MS: Final = 5 * 60_000
# Some milliseconds of Redis' time a turn, and a million records in a quarter of an hour.
_PAGES_A_TURN: Final = 10
_log = get_logger()


@dataclass(slots=True)
class Walk:
    """A sweep, and when it began its last walk; None before the first."""

    sweep: Sweep
    begun_ms: int | None = None
    under_way: bool = False


@dataclass(slots=True)
class Housekeeping:
    """To be given a turn every few seconds. Redis' errors pass through."""

    store: Store
    redis: Redis
    metrics: WorkerMetrics
    rechecks: bool
    """Whether finished sessions are looked at again; where not, nobody else would forget them."""
    _trimmed_ms: int | None = None
    _walks: tuple[Walk, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._walks = tuple(Walk(Sweep(self.redis, net)) for net in NETS)

    async def turn(self, *, now_ms: int) -> None:
        """Do what it is time for."""
        await self._tell_of_the_dead(now_ms)
        for walk in self._walks:
            await self._sweep(walk, now_ms)
        if _is_time(self._trimmed_ms, _TRIM_MS, now_ms):
            await self._trim(now_ms)
            self._trimmed_ms = now_ms

    async def _tell_of_the_dead(self, now_ms: int) -> None:
        counts = await self.store.dead.counts()
        self.metrics.show_dead({count.kind: count.number for count in counts})
        for count in counts:
            if await self.store.notify(dead_letter_notice(count), now_ms=now_ms):
                _log.warning("dead letters", kind=count.kind, number=count.number)

    async def _sweep(self, walk: Walk, now_ms: int) -> None:
        if not walk.under_way:
            if not _is_time(walk.begun_ms, _SWEEP_MS, now_ms):
                return
            walk.begun_ms, walk.under_way = now_ms, True
        for _ in range(_PAGES_A_TURN):
            lost, at_end = await walk.sweep.page()
            self._tell_of_the_lost(walk.sweep.net, lost)
            if at_end:
                walk.under_way = False
                return

    def _tell_of_the_lost(self, net: Net, lost: list[str]) -> None:
        self.metrics.swept.labels(net.name).inc(len(lost))
        for id in lost:
            session_id = id if net.name == "sessions" else id.rpartition(":")[0]
            _log.warning("put back into its line", line=net.name, id=id, session_id=session_id)

    async def _trim(self, now_ms: int) -> None:
        if not self.rechecks:
            await self.store.forget_rechecks()
        for letter in await self.store.trim(now_ms=now_ms):
            self.metrics.expired.inc()
            _tell_of_the_end(letter)


def _is_time(last_ms: int | None, every_ms: int, now_ms: int) -> bool:
    return last_ms is None or now_ms - last_ms >= every_ms


def _tell_of_the_end(letter: DeadLetter) -> None:
    _log.warning(
        "dead letter expired",
        session_id=letter.session_id,
        kind=letter.kind,
        reason=letter.reason,
        died_ms=letter.died_ms,
    )
