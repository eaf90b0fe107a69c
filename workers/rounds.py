"""The worker's own searches for webhooks that never came: when, and who is told what they found."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from service.events import Scheduling
from service.logs import get_logger
from service.records import moment
from workers.ledger import SCHEDULE, Book, Busy, LeaseLost, Ledger
from workers.metrics import WorkerMetrics
from workers.reconcile import Outcome, Reconciler, Report
from workers.walk import Source, Walk

# Until then Telnyx itself may still be trying to deliver: its retries take up to a minute.
_MARGIN_MS: Final = 120_000
# How soon it shows that another worker's search has ended before its end.
_LOOK_SECONDS: Final = 2.0

_log = get_logger()


@dataclass(slots=True)
class Rounds:
    """Searches as often as the settings say, whichever worker comes first."""

    ledger: Ledger
    reconciler: Reconciler
    metrics: WorkerMetrics
    interval_ms: int
    now_ms: Callable[[], int]

    async def run(self) -> None:
        """Search for ever. Redis' errors pass through."""
        while True:
            await self.turn()
            await asyncio.sleep(_LOOK_SECONDS)

    async def turn(self) -> None:
        """One search, if it is time for one and nobody else is at it."""
        if not await self._is_due():
            return
        try:
            async with self.ledger.holding(SCHEDULE) as book:
                # Somebody may have been quicker between the look and the lease.
                if await self._is_due():
                    await self._search(book)
        except Busy:
            return
        except LeaseLost:
            _log.warning("search given up: its lease was lost")

    async def _is_due(self) -> bool:
        times = await self.ledger.times()
        self.metrics.reconciled.set(times.success_ms / 1000)
        return self.now_ms() >= times.tried_ms + self.interval_ms

    async def _search(self, book: Book) -> None:
        begun = time.monotonic()
        try:
            report = await self.reconciler.on_schedule(book, self, margin_ms=_MARGIN_MS)
        except (RedisError, OSError, LeaseLost):
            self.metrics.reconciliations.labels(FAILED).inc()
            raise
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not be made at once again
            self.metrics.reconciliations.labels(FAILED).inc()
            _log.error("search failed", exc_info=error)
            await book.close(whole=False, now_ms=self.now_ms())
            return
        self.metrics.reconciliations.labels(report.outcome).inc()
        self._tell(report, time.monotonic() - begun)
        await self._is_due()

    def _tell(self, report: Report, seconds: float) -> None:
        tally = report.tally
        tell = _log.info if report.outcome is Outcome.WHOLE else _log.warning
        tell(
            "searched for webhooks that never came",
            outcome=report.outcome,
            reason=report.stop.reason if report.stop else "",
            found=tally.scheduled,
            merged=tally.merged,
            known=tally.known,
            too_old=tally.too_old,
            unreadable=tally.unreadable,
            pages=tally.pages,
            seconds=round(seconds, 3),
        )

    # --- what the search tells while it goes ---

    def page(self, source: Source, walk: Walk) -> None:
        """Nothing: the end tells all."""

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """Each is worth a line: some receiver was away, or does not know its webhooks."""
        self.metrics.reconciled_sessions.labels(source.name).inc()
        _log.info(
            "webhook never came",
            session_id=scheduling.session_id,
            source=source.name,
            kind=scheduling.event.kind,
            ended=moment(scheduling.event.at_ms).isoformat(),
        )

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        """That Telnyx sets a pace is usual."""
        _log.debug("search waits", source=source.name, seconds=round(seconds, 1), reason=reason)


FAILED: Final = "failed"
