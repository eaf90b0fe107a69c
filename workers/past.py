"""Learning from the past, as a person starts it."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from redis.asyncio import Redis

from service import __version__
from service.gate import Gates
from service.settings import WorkerSettings
from service.store import Store
from workers.backfill import LEAVE, Backfill, CameTo, Glance, Outlook, Report, Watcher, outlook
from workers.backlog import holding
from workers.baselines import Baselines
from workers.by_hand import now_ms
from workers.detection.baseline import DAY_MS, DAYS
from workers.ledger import Blank
from workers.lookup import open_redis
from workers.policy import Policy
from workers.reconcile import Reconciler, Recorder, Stop
from workers.reconcile import Watcher as ListWatcher
from workers.settle import Schedule
from workers.span import Span
from workers.telnyx import TelnyxClient

REACH_MS: Final = DAYS * DAY_MS
"""What is older counts for nothing any more."""
# A page has fifty rows at least; this is only to end at all.
_MOST_PAGES: Final = 20_000


async def learn(
    settings: WorkerSettings,
    policy: Policy,
    wanted: Span,
    watching: Callable[[Span], AbstractContextManager[ListWatcher]],
    learning: Callable[[], AbstractContextManager[Watcher]],
    *,
    most: int,
) -> Report:
    """Search that span, or go on where that stopped, and learn from what is found.

    From `most` sessions at most, which are then taken evenly.

    Raises Busy and LeaseLost; Redis' errors pass.
    """
    who = f"{socket.gethostname()}.{os.getpid()}.backfill"
    async with (
        _opened(settings) as (redis, telnyx),
        holding(redis, wanted, who=who, most=most) as backlog,
    ):
        backfill = Backfill(
            backlog=backlog,
            store=_store(redis, settings),
            taught=Baselines(redis, retention_ms=settings.retention_ms),
            telnyx=telnyx,
            policy=policy,
            schedule=Schedule.of_seconds(settings.ages),
            now_ms=now_ms,
        )
        with watching(backlog.span) as lists:
            searched = await _reconciler(telnyx, backlog, settings).through(
                backlog.span, backlog, lists
            )
        if searched.stop:
            return await backfill.report(searched.stop)
        with learning() as lessons:
            return await backfill.run(lessons)


async def look(
    settings: WorkerSettings,
    wanted: Span,
    watching: Callable[[Span], AbstractContextManager[ListWatcher]],
) -> Outlook:
    """What would be learned from; changes nothing. Redis' errors pass."""
    async with _opened(settings) as (redis, telnyx):
        glance = Glance()
        with watching(wanted) as lists:
            searched = await _reconciler(telnyx, glance, settings).through(wanted, Blank(), lists)
        taught = Baselines(redis, retention_ms=settings.retention_ms)
        store = _store(redis, settings)
        return await outlook(sorted(glance.ids), store, taught, stop=searched.stop)


@asynccontextmanager
async def _opened(settings: WorkerSettings) -> AsyncIterator[tuple[Redis, TelnyxClient]]:
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        TelnyxClient(
            settings.api_url,
            settings.api_key,
            version=__version__,
            gates=Gates(redis),
            leave=LEAVE,
        ) as telnyx,
    ):
        yield redis, telnyx


def _reconciler(telnyx: TelnyxClient, record: Recorder, settings: WorkerSettings) -> Reconciler:
    return Reconciler(
        telnyx,
        record,
        now_ms,
        # Not the retention: what is learned is kept for longer than a session.
        retention_ms=2 * REACH_MS,
        masked=settings.mask_numbers,
        most_pages=_MOST_PAGES,
    )


def _store(redis: Redis, settings: WorkerSettings) -> Store:
    return Store(redis, retention_ms=settings.retention_ms)


def document(came: Report | Outlook) -> dict[str, Any]:
    """What came of it, or what would, for JSON."""
    if isinstance(came, Outlook):
        counts = {name: value for name, value in asdict(came).items() if name != "stop"}
        return {**_ended(came.stop), "dry_run": True, **counts, "asked": came.asked}
    return {
        **_ended(came.stop),
        "dry_run": False,
        "found": came.found,
        "sessions": {each.value: came.counts.get(each, 0) for each in CameTo},
        "left": came.left,
        "one_in": came.one_in,
        "cohorts": came.cohorts,
        "cohorts_with_a_say": came.with_a_say,
    }


def _ended(stop: Stop | None) -> dict[str, str | None]:
    return {
        "outcome": stop.outcome if stop else "whole",
        "reason": stop.reason if stop else None,
    }
