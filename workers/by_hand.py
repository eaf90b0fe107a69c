"""A search for webhooks that never came, as a person starts it."""

import os
import socket
import time
from typing import Any

import msgspec

from service import __version__
from service.gate import Gates
from service.settings import WorkerSettings
from service.store import Store
from workers.ledger import HAND, Blank, Ledger
from workers.lookup import open_redis
from workers.reconcile import Looking, Reconciler, Recording, Report, Watcher
from workers.span import Span
from workers.telnyx import TelnyxClient


def now_ms() -> int:
    """The clock: milliseconds since 1970."""
    return int(time.time() * 1000)


async def search(
    settings: WorkerSettings, wanted: Span, watcher: Watcher, *, dry: bool = False
) -> Report:
    """What comes of it; `dry` changes nothing. Raises Busy and LeaseLost; Redis' errors pass."""
    async with (
        open_redis(settings.redis_url.get_secret_value()) as redis,
        TelnyxClient(
            settings.api_url, settings.api_key, version=__version__, gates=Gates(redis)
        ) as telnyx,
    ):
        store = Store(redis, retention_ms=settings.retention_ms, replicas=settings.redis_replicas)
        reconciler = Reconciler(
            telnyx,
            Looking(store) if dry else Recording(store, now_ms),
            now_ms,
            retention_ms=settings.retention_ms,
            masked=settings.mask_numbers,
        )
        if dry:
            return await reconciler.through(wanted, Blank(), watcher)
        ledger = Ledger(redis, who=f"{socket.gethostname()}.{os.getpid()}.by_hand")
        async with ledger.holding(HAND) as book:
            return await reconciler.through(wanted, book, watcher)


def document(report: Report, *, dry: bool) -> dict[str, Any]:
    """The report for JSON; times in milliseconds."""
    return {
        "outcome": report.outcome,
        "reason": report.stop.reason if report.stop else None,
        "dry_run": dry,
        "total": msgspec.structs.asdict(report.tally),
        "lists": [
            {
                "list": found.source,
                "since_ms": found.span.since_ms,
                "until_ms": found.span.until_ms,
                "outcome": found.stop.outcome if found.stop else "whole",
                **msgspec.structs.asdict(found.tally),
            }
            for found in report.searched
        ],
    }
