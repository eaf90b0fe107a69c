"""Keeps a worker going: its loops are restarted, since arq's dies of any lost connection.

What is due and who holds it is kept by `service.queue`; arq runs the jobs, bounds their number and
times them out.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from arq.connections import ArqRedis
from arq.worker import func
from msgspec import json
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from service.connect import redis_fault
from service.gate import Gate
from service.health import Health
from service.logs import get_logger
from service.outbox import Outbox
from service.queue import Claim, Line
from service.records import Severity
from service.settings import WorkerSettings
from service.store import Store
from workers.analyze import Analyst
from workers.baselines import Baselines
from workers.budgets import BudgetWatch
from workers.clock import RedisClock
from workers.feed import Feeder
from workers.funds import BalanceWatch
from workers.housekeeping import Housekeeping
from workers.leased import LeasedWorker
from workers.lookout import Lookout
from workers.metrics import WorkerMetrics
from workers.notices import outage_notice
from workers.post import Poster
from workers.rounds import Rounds

ANALYZE: Final = "analyze"
POST: Final = "post"

# The outbox gives out one message at a time, over all workers.
POSTS_AT_ONCE: Final = 1
# Longer than the analyst gives an attempt: that one counts it as a failure, this one only stops it.
_JOB_TIMEOUT_SECONDS: Final = 240
_POLL_SECONDS: Final = 0.02
_HEALTH_SECONDS: Final = 10
_RESTART_SECONDS: Final = 1.0
_WATCH_SECONDS: Final = 2.0
_CANCEL_SECONDS: Final = 0.2
_SEVERITIES: Final = frozenset(Severity)

_log = get_logger()


@dataclass(slots=True)
class WorkerProcess:
    """Everything a worker consists of, put together by `create_worker`."""

    settings: WorkerSettings
    arq: ArqRedis
    clock: RedisClock
    store: Store
    gate: Gate
    """What may be asked of Session Analysis."""
    session_line: Line
    sessions: Feeder
    alerts: Feeder
    analyst: Analyst
    baselines: Baselines
    outbox: Outbox
    poster: Poster
    housekeeping: Housekeeping
    budgets: BudgetWatch
    balance: BalanceWatch | None
    """The watch on the account's balance; None where it is turned off."""
    lookout: Lookout
    rounds: Rounds | None
    """The search for webhooks that never came; None where it is turned off."""
    metrics: WorkerMetrics
    registry: CollectorRegistry
    health: Health
    worker_id: str
    _incarnation: int = 0
    _worker: LeasedWorker | None = None
    _jobs: set["asyncio.Task[None]"] = field(default_factory=set)
    """Those of arq workers whose main loop has died, too."""
    _background: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def queue_name(self) -> str:
        """This worker's own queue in arq.

        A restarted main loop gets a new one: what was handed to the old one has been given back,
        and must not be run twice.
        """
        return f"arq:queue:{self.worker_id}:{self._incarnation}"

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what is begun, within the grace period."""
        for name, work in self._loops().items():
            self._background.append(asyncio.create_task(self._keep_going(name, work), name=name))
        await stop.wait()
        await self._wind_down()

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "arq": self._run_arq,
            "feed sessions": lambda: self._feed(self.sessions),
            "feed alerts": lambda: self._feed(self.alerts),
            "hold sessions": self.sessions.beat,
            "hold alerts": self.alerts.beat,
            "watch": self._watch,
            "look": self._look,
            **({"balance": self.balance.run} if self.balance else {}),
            **({"reconcile": self.rounds.run} if self.rounds else {}),
        }

    async def _keep_going(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Restart a loop whatever ends it: a worker that lost Redis works on when it is back."""
        while True:
            try:
                await work()
            except (RedisError, OSError) as error:
                self.metrics.redis_errors.inc()
                _log.warning("Redis failed", loop=name, error=redis_fault(error))
            except Exception as error:  # noqa: BLE001 - it must go on, whatever it was
                _log.error("loop failed", loop=name, exc_info=error)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _feed(self, feeder: Feeder) -> None:
        # Nothing is begun at a time that may be wrong.
        await self.clock.adjust()
        await feeder.run(lambda: self.queue_name)

    async def _run_arq(self) -> None:
        # First the new queue, then what went to the old one is given back: a claim that is under
        # way goes to the one or belongs to the other.
        self._incarnation += 1
        if self._incarnation > 1:
            self.metrics.restarts.inc()
            for feeder in (self.sessions, self.alerts):
                await feeder.release_unstarted()
        self._worker = self._create_arq_worker()
        await self._worker.async_run()

    def _create_arq_worker(self) -> LeasedWorker:
        most = self.settings.concurrency + POSTS_AT_ONCE
        return LeasedWorker(
            all_tasks=self._jobs,
            has_unstarted=lambda: self.sessions.has_unstarted or self.alerts.has_unstarted,
            functions=[
                func(self._job(self.sessions, self.analyst.analyze), name=ANALYZE, max_tries=1),
                func(self._job(self.alerts, self.poster.post), name=POST, max_tries=1),
            ],
            queue_name=self.queue_name,
            redis_pool=self.arq,
            handle_signals=False,
            max_jobs=most,
            job_timeout=_JOB_TIMEOUT_SECONDS,
            keep_result=0,
            poll_delay=_POLL_SECONDS,
            retry_jobs=False,
            health_check_interval=_HEALTH_SECONDS,
            health_check_key=f"arq:health:{self.worker_id}",
            job_serializer=json.encode,
            job_deserializer=json.decode,
            log_results=False,
        )

    def _job(self, feeder: Feeder, work: Callable[[Claim], Awaitable[str]]) -> Any:
        """The job as arq sees it: it never fails, since what comes next is not arq's to decide."""
        is_session = feeder is self.sessions

        async def run(
            _ctx: dict[str, Any],
            id: str,
            token: str,
            due_ms: int,
            taken_over: bool,
            orphaned: int = 0,
            again: bool = False,  # noqa: FBT002 - arq passes a list
        ) -> None:
            claim = Claim(id, token, due_ms, taken_over, orphaned, again)
            with structlog.contextvars.bound_contextvars(**_named(id, is_session), attempt=token):
                await self._work(feeder, work, claim)

        run.__qualname__ = ANALYZE if is_session else POST
        return run

    async def _work(
        self, feeder: Feeder, work: Callable[[Claim], Awaitable[str]], claim: Claim
    ) -> None:
        if not feeder.holds(claim):
            # By now it may be somebody else's.
            _log.info("let go before it began")
            return
        begun = time.perf_counter()
        try:
            async with feeder.working_on(claim):
                outcome = await work(claim)
        except RedisError as error:
            self.metrics.redis_errors.inc()
            _log.warning("attempt lost Redis", error=redis_fault(error))
            return
        except Exception as error:  # noqa: BLE001
            # The lease ends by itself, and the work is due again.
            _log.error("attempt broken off", exc_info=error)
            return
        self._count(feeder, outcome, time.perf_counter() - begun)

    def _count(self, feeder: Feeder, outcome: str, seconds: float) -> None:
        if feeder is self.sessions:
            self.metrics.attempts.labels(outcome).inc()
            self.metrics.work.observe(seconds)
        elif outcome != "lost":
            self.metrics.posts.labels(outcome).inc()

    async def _watch(self) -> None:
        """Gauges of what is due, and housekeeping."""
        while True:
            await self.clock.adjust()
            now = self.clock.now_ms()
            for name, feeder in (("sessions", self.sessions), ("alerts", self.alerts)):
                depth = await feeder.line.depth(now_ms=now, delay_ms=feeder.delay_ms)
                self.metrics.show_depth(name, depth)
            self.metrics.show_depth("rechecks", await self.session_line.rechecks(now_ms=now))
            self.metrics.held.set(self.sessions.held)
            await self._watch_telnyx(now)
            standing = await self.outbox.standing(now_ms=now)
            self.metrics.tokens.set(standing.tokens)
            self.metrics.failing_since.set((standing.failing_since_ms or 0) / 1000)
            self.metrics.folded.set(standing.folded)
            await self.housekeeping.turn(now_ms=now)
            await self.budgets.turn(now_ms=now)
            self.metrics.cohorts.set(await self.baselines.count())
            await asyncio.sleep(_WATCH_SECONDS)

    async def _look(self) -> None:
        """How many calls come, by Redis' time."""
        await self.clock.adjust()
        while True:
            await self.lookout.turn(now_ms=self.clock.now_ms())
            await asyncio.sleep(_WATCH_SECONDS)

    async def _watch_telnyx(self, now: int) -> None:
        outage = await self.gate.outage()
        self.metrics.show_gate(outage, await self.gate.left(), now_ms=now)
        if outage is None:
            return
        overdue = int(
            (await self.sessions.line.depth(now_ms=now, delay_ms=self.sessions.delay_ms)).overdue
        )
        after_ms = self.settings.outage_notice_seconds * 1000
        notice = outage_notice(outage, waiting=overdue, now_ms=now, after_ms=after_ms)
        if notice:
            if await self.store.notify(notice, now_ms=now):
                _log.error("Telnyx fails for all", kind=notice.kind, reason=outage.reason)
            await self.gate.told(now)

    async def _wind_down(self) -> None:
        feeders = (self.sessions, self.alerts)
        if self._worker:
            self._worker.allow_pick_jobs = False
        # A claim that is under way when feeding is cancelled is a lease that ends by itself. A
        # search goes on at its page, here or elsewhere.
        begins = ("feed", "reconcile")
        await _cancelled(task for task in self._background if task.get_name().startswith(begins))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.grace_seconds):
                for feeder in feeders:
                    # Without Redis these leases end by themselves. What is begun is finished all
                    # the same: a post that is cut off would be told twice.
                    with contextlib.suppress(RedisError, OSError):
                        await feeder.release_unstarted()
                for feeder in feeders:
                    await feeder.until_idle()
        # What is still at work is cancelled, which gives its lease back.
        await _cancelled([*self._background, *self._jobs])
        with contextlib.suppress(RedisError, OSError):
            await self.arq.delete(f"arq:health:{self.worker_id}", self.queue_name)


def _named(id: str, is_session: bool) -> dict[str, str]:
    """How log lines name the session that work is about; notices and summaries are about none."""
    if is_session:
        return {"session_id": id}
    session_id, _, kind = id.rpartition(":")
    return {"session_id": session_id} if kind in _SEVERITIES else {}


async def _cancelled(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """End the tasks, whatever they are doing.

    Once is not enough: a cancellation that comes while a connection to Redis is being made is taken
    for that connection's time-out, and the loop goes on.
    """
    every = list(tasks)
    left = {task for task in every if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_SECONDS)
    # Their exceptions are of no interest any more, but have to be looked at.
    await asyncio.gather(*every, return_exceptions=True)
