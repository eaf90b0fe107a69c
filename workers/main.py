"""Puts a worker together, and keeps it going: arq's main loop dies of any lost connection.

The only module that knows arq's Worker. What is due and who holds it is kept by `service.queue`;
arq runs the jobs, bounds their number and times them out.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from arq.connections import ArqRedis
from arq.utils import timestamp_ms
from arq.worker import Worker, func
from msgspec import json
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from service import __version__
from service.connect import redis_fault, redis_pool
from service.gate import Gate, Gates
from service.health import Health, redis_check
from service.logs import get_logger
from service.metrics import create_registry
from service.outbox import NO_FLOOD, Flood, Outbox
from service.queue import Claim, Line, session_line
from service.records import Delivery, Severity
from service.settings import WorkerSettings
from service.spend import Spending
from service.store import Store
from workers.analyze import Analyst
from workers.baselines import Baselines
from workers.budgets import BudgetWatch
from workers.clock import RedisClock
from workers.decide import Rules
from workers.feed import Feeder
from workers.feedback import FeedbackBook
from workers.funds import BalanceWatch, Purse
from workers.housekeeping import Housekeeping
from workers.learning import Learning
from workers.ledger import Ledger
from workers.lookout import Lookout
from workers.metrics import WorkerMetrics
from workers.notices import outage_notice
from workers.policy import Policy
from workers.post import Poster
from workers.reconcile import Reconciler, Recording
from workers.rounds import Rounds
from workers.settle import Schedule
from workers.slack import SlackClient
from workers.telnyx import TelnyxClient

ANALYZE: Final = "analyze"
POST: Final = "post"

# The outbox gives out one message at a time, over all workers.
_POSTS_AT_ONCE: Final = 1
# Longer than the analyst gives an attempt: that one counts it as a failure, this one only stops it.
_JOB_TIMEOUT_SECONDS: Final = 240
_POLL_SECONDS: Final = 0.02
_HEALTH_SECONDS: Final = 10
_RESTART_SECONDS: Final = 1.0
_WATCH_SECONDS: Final = 2.0
_REDIS_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 0.2
_SEVERITIES: Final = frozenset(Severity)

_log = get_logger()


class LeasedWorker(Worker):
    """arq's worker on a queue of its own: starting a job needs no agreement with other workers.

    arq watches and marks each job in four round trips, so that two workers do not start the same.
    Here the lease has settled that already.
    """

    all_tasks: set["asyncio.Task[None]"]
    is_handed_work: Callable[[], bool]

    async def _poll_iteration(self) -> None:
        """Ask Redis only while something is in the queue that has not begun.

        Nobody but this worker's feeders fills it, and fifty questions a second were most of what an
        idle worker cost.
        """
        if self.is_handed_work() or any(task.done() for task in self.tasks.values()):
            await super()._poll_iteration()
        else:
            await self.heart_beat()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start what there is room for; the rest stays in the queue."""
        fresh = [id for id in job_ids if id.decode() not in self.tasks]
        starting = fresh[: self.max_jobs - self.job_counter]
        if not starting:
            return
        await self.pool.zrem(self.queue_name, *starting)
        for id in starting:
            await self.sem.acquire()
            self.job_counter += 1
            task = self.loop.create_task(self.run_job(id.decode(), timestamp_ms()))
            task.add_done_callback(lambda _: self._release_sem_dec_counter_on_complete())
            self.tasks[id.decode()] = task
            self.all_tasks.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        """Look at what ended a job: arq's own bookkeeping may fail with Redis.

        The main loop, if it lives, dies of that; if it is dead, nobody else would look, which
        asyncio reports as an error.
        """
        self.all_tasks.discard(task)
        if not task.cancelled():
            task.exception()


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
    _worker: "LeasedWorker | None" = None
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
        self._worker.all_tasks = self._jobs
        self._worker.is_handed_work = lambda: self.sessions.is_waiting or self.alerts.is_waiting
        await self._worker.async_run()

    def _create_arq_worker(self) -> LeasedWorker:
        most = self.settings.concurrency + _POSTS_AT_ONCE
        return LeasedWorker(
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


@asynccontextmanager
async def create_worker(settings: WorkerSettings, policy: Policy) -> AsyncIterator[WorkerProcess]:
    """A worker and its connections, which are closed at the end."""
    registry = create_registry("worker")
    metrics = WorkerMetrics(registry)
    pool = redis_pool(
        settings.redis_url.get_secret_value(),
        connections=settings.concurrency * 2 + 20,
        timeout_seconds=_REDIS_SECONDS,
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(pool.disconnect)
        arq = ArqRedis(pool_or_conn=pool, job_serializer=json.encode, job_deserializer=json.decode)
        gates = Gates(arq)
        telnyx = TelnyxClient(
            settings.api_url,
            settings.api_key,
            version=__version__,
            # A session whose tree was cut asks several questions at once.
            connections=settings.concurrency * 2,
            observe=metrics.observe_fetch,
            gates=gates,
        )
        await stack.enter_async_context(telnyx)
        slack = None
        if settings.slack_url:
            slack = SlackClient(settings.slack_url, version=__version__)
            await stack.enter_async_context(slack)
        yield _assemble(settings, policy, arq, gates, telnyx, slack, metrics, registry)


def _assemble(
    settings: WorkerSettings,
    policy: Policy,
    arq: ArqRedis,
    gates: Gates,
    telnyx: TelnyxClient,
    slack: SlackClient | None,
    metrics: WorkerMetrics,
    registry: CollectorRegistry,
) -> WorkerProcess:
    worker_id = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    store = Store(arq, retention_ms=settings.retention_ms, replicas=settings.redis_replicas)
    clock = RedisClock(arq)
    schedule = Schedule.of_seconds(settings.ages, settings.recheck_after_seconds)
    rules = Rules(schedule, policy, mask_numbers=settings.mask_numbers)
    spending = Spending(arq)
    baselines = Baselines(arq, retention_ms=settings.retention_ms, on_read=metrics.observe_read)
    feedback = FeedbackBook(arq, baselines, settings.retention_ms)

    def on_takeover(claim: Claim) -> None:
        if claim.taken_over:
            metrics.takeovers.inc()

    def on_claim(claim: Claim) -> None:
        if not claim.again:
            metrics.dwell.observe(max(0, clock.now_ms() - claim.due_ms) / 1000)
        on_takeover(claim)

    line = session_line(arq, rechecks=bool(schedule.recheck_ms))
    outbox = Outbox(
        arq,
        retention_ms=settings.retention_ms,
        # Without Slack nothing is posted: there is nothing to hold back.
        flood=_flood(settings) if slack else NO_FLOOD,
        replicas=settings.redis_replicas,
        on_fold=metrics.fates.labels(Delivery.FOLDED).inc,
    )
    return WorkerProcess(
        settings=settings,
        arq=arq,
        clock=clock,
        store=store,
        gate=gates.of("analysis"),
        session_line=line,
        sessions=Feeder(
            line,
            ANALYZE,
            arq,
            settings.concurrency,
            worker_id,
            json.encode,
            delay_ms=schedule.first_ms,
            on_claim=on_claim,
        ),
        alerts=Feeder(
            outbox, POST, arq, _POSTS_AT_ONCE, worker_id, json.encode, on_claim=on_takeover
        ),
        analyst=Analyst(
            store,
            telnyx,
            rules,
            metrics,
            clock.now_ms,
            Learning(baselines, store, metrics),
            feedback,
        ),
        baselines=baselines,
        outbox=outbox,
        poster=Poster(outbox, slack, metrics, clock.now_ms),
        housekeeping=Housekeeping(store, arq, metrics, rechecks=bool(schedule.recheck_ms)),
        budgets=BudgetWatch(store, spending, policy, metrics),
        balance=_balance(policy, arq, telnyx, store, spending, metrics, clock),
        lookout=Lookout(store, arq, metrics, policy.severity.low, policy.currency, feedback.mutes),
        rounds=_rounds(settings, arq, telnyx, store, metrics, worker_id, clock),
        metrics=metrics,
        registry=registry,
        health=Health(redis_check(arq, replicas=settings.redis_replicas)),
        worker_id=worker_id,
    )


def _flood(settings: WorkerSettings) -> Flood:
    return Flood(
        cooldown_ms=settings.alert_cooldown_seconds * 1000,
        burst=settings.alert_burst,
        per_hour=settings.alerts_per_hour,
    )


def _balance(
    policy: Policy,
    arq: ArqRedis,
    telnyx: TelnyxClient,
    store: Store,
    spending: Spending,
    metrics: WorkerMetrics,
    clock: RedisClock,
) -> BalanceWatch | None:
    if not policy.balance_warning_days:
        return None
    purse = Purse(arq, spending)
    days = policy.balance_warning_days
    return BalanceWatch(arq, store, purse, telnyx, metrics, days, clock.now_ms)


def _rounds(
    settings: WorkerSettings,
    arq: ArqRedis,
    telnyx: TelnyxClient,
    store: Store,
    metrics: WorkerMetrics,
    worker_id: str,
    clock: RedisClock,
) -> Rounds | None:
    if not settings.reconcile_minutes:
        return None
    reconciler = Reconciler(
        telnyx,
        Recording(store, clock.now_ms),
        clock.now_ms,
        retention_ms=settings.retention_ms,
        masked=settings.mask_numbers,
    )
    interval_ms = settings.reconcile_minutes * 60_000
    return Rounds(Ledger(arq, who=worker_id), reconciler, metrics, interval_ms, clock.now_ms)
