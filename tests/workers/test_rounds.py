"""The worker's own searches: when they are due, and that no failure of one ends the others."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from workers.ledger import SCHEDULE, Book, LeaseLost, Ledger, Times
from workers.metrics import WorkerMetrics
from workers.reconcile import Outcome, Report
from workers.rounds import Rounds

pytestmark = pytest.mark.anyio

INTERVAL_MS = 60_000
NOW_MS = 1_790_000_000_000


@dataclass
class Search:
    """A search that comes to what it is told to."""

    result: BaseException | None = None
    times: int = 0

    async def on_schedule(self, book: Book, _watcher: Any, *, margin_ms: int) -> Report:
        self.times += 1
        if self.result:
            raise self.result
        await book.close(whole=True, now_ms=NOW_MS)
        return Report(())


@dataclass
class Desk:
    """A worker's rounds, with a clock that stands still."""

    redis: Redis
    now: int = NOW_MS
    search: Search = field(default_factory=Search)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.redis, who="w")
        reconciler: Any = self.search
        metrics = WorkerMetrics(self.registry)
        self.rounds = Rounds(self.ledger, reconciler, metrics, INTERVAL_MS, lambda: self.now)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def runs(self, outcome: str) -> float | None:
        return self.value("tollwatch_reconciliations_total", outcome=outcome)


@pytest.fixture
def desk(redis: Redis) -> Desk:
    """Nothing was ever searched."""
    return Desk(redis)


async def test_a_search_is_due_once_in_an_interval(desk: Desk) -> None:
    """At once where there never was one; then only after the interval."""
    for _ in range(2):
        await desk.rounds.turn()
    assert desk.search.times == 1
    desk.now += INTERVAL_MS
    await desk.rounds.turn()
    assert (desk.search.times, desk.runs(Outcome.WHOLE)) == (2, 2)
    assert desk.value("tollwatch_reconciled_timestamp_seconds") == NOW_MS / 1000


async def test_who_comes_second_leaves_it(desk: Desk) -> None:
    """While somebody searches, and when somebody has just done so."""
    async with desk.ledger.holding(SCHEDULE):
        await desk.rounds.turn()
    assert desk.search.times == 0
    assert not await desk.redis.exists(keys.RECONCILE_LEASE)


async def test_a_mistake_of_ours_is_tried_again_next_time(desk: Desk) -> None:
    """Not at once: it is counted, and the interval begins anew."""
    desk.search.result = ZeroDivisionError()
    for _ in range(2):
        await desk.rounds.turn()
    assert (desk.search.times, desk.runs("failed")) == (1, 1)
    assert await desk.ledger.times() == Times(NOW_MS, 0)


async def test_a_search_without_redis_is_due_when_redis_is_back(desk: Desk) -> None:
    """It is counted, passed on to whoever restarts the loop, and nothing is put off by it."""
    desk.search.result = RedisConnectionError()
    with pytest.raises(RedisConnectionError):
        await desk.rounds.turn()
    desk.search.result = None
    await desk.rounds.turn()
    assert (desk.runs("failed"), desk.runs(Outcome.WHOLE)) == (1, 1)


async def test_a_lost_lease_ends_a_search_quietly(desk: Desk) -> None:
    """Somebody else goes on with it."""
    desk.search.result = LeaseLost()
    await desk.rounds.turn()
    assert desk.runs("failed") == 1
    assert await desk.ledger.times() == Times(0, 0)
