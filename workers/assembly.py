"""Puts a worker together: which part stands on which, and which connections they share."""

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from arq.connections import ArqRedis
from msgspec import json
from prometheus_client import CollectorRegistry

from service import __version__
from service.connect import redis_pool
from service.gate import Gates
from service.health import Health, redis_check
from service.metrics import create_registry
from service.outbox import NO_FLOOD, Flood, Outbox
from service.queue import Claim, session_line
from service.records import Delivery
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
from workers.main import ANALYZE, POST, POSTS_AT_ONCE, WorkerProcess
from workers.metrics import WorkerMetrics
from workers.policy import Policy
from workers.post import Poster
from workers.reconcile import Reconciler, Recording
from workers.rounds import Rounds
from workers.settle import Schedule
from workers.slack import SlackClient
from workers.telnyx import TelnyxClient

_REDIS_SECONDS: Final = 5.0


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
        yield _Assembly(settings, policy, arq, telnyx, slack, metrics).process(gates, registry)


class _Assembly:
    """What several parts of a worker stand on, and a method for each that stands on them."""

    def __init__(
        self,
        settings: WorkerSettings,
        policy: Policy,
        arq: ArqRedis,
        telnyx: TelnyxClient,
        slack: SlackClient | None,
        metrics: WorkerMetrics,
    ) -> None:
        self.settings, self.policy, self.metrics = settings, policy, metrics
        self.arq, self.telnyx, self.slack = arq, telnyx, slack
        self.worker_id = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        self.clock = RedisClock(arq)
        self.schedule = Schedule.of_seconds(settings.ages, settings.recheck_after_seconds)
        self.store = Store(
            arq, retention_ms=settings.retention_ms, replicas=settings.redis_replicas
        )
        self.spending = Spending(arq)
        self.baselines = Baselines(
            arq, retention_ms=settings.retention_ms, on_read=metrics.observe_read
        )
        self.feedback = FeedbackBook(arq, self.baselines, settings.retention_ms)

    def process(self, gates: Gates, registry: CollectorRegistry) -> WorkerProcess:
        line = session_line(self.arq, rechecks=bool(self.schedule.recheck_ms))
        outbox = self._outbox()
        return WorkerProcess(
            settings=self.settings,
            arq=self.arq,
            clock=self.clock,
            store=self.store,
            gate=gates.of("analysis"),
            session_line=line,
            sessions=Feeder(
                line,
                ANALYZE,
                self.arq,
                self.settings.concurrency,
                self.worker_id,
                json.encode,
                delay_ms=self.schedule.first_ms,
                on_claim=self._on_session,
            ),
            alerts=Feeder(
                outbox,
                POST,
                self.arq,
                POSTS_AT_ONCE,
                self.worker_id,
                json.encode,
                on_claim=self._on_takeover,
            ),
            analyst=self._analyst(),
            baselines=self.baselines,
            outbox=outbox,
            poster=Poster(outbox, self.slack, self.metrics, self.clock.now_ms),
            housekeeping=Housekeeping(
                self.store, self.arq, self.metrics, rechecks=bool(self.schedule.recheck_ms)
            ),
            budgets=BudgetWatch(self.store, self.spending, self.policy, self.metrics),
            balance=self._balance(),
            lookout=self._lookout(),
            rounds=self._rounds(),
            metrics=self.metrics,
            registry=registry,
            health=Health(redis_check(self.arq, replicas=self.settings.redis_replicas)),
            worker_id=self.worker_id,
        )

    def _on_takeover(self, claim: Claim) -> None:
        if claim.taken_over:
            self.metrics.takeovers.inc()

    def _on_session(self, claim: Claim) -> None:
        if not claim.again:
            self.metrics.dwell.observe(max(0, self.clock.now_ms() - claim.due_ms) / 1000)
        self._on_takeover(claim)

    def _outbox(self) -> Outbox:
        settings = self.settings
        flood = Flood(
            cooldown_ms=settings.alert_cooldown_seconds * 1000,
            burst=settings.alert_burst,
            per_hour=settings.alerts_per_hour,
        )
        return Outbox(
            self.arq,
            retention_ms=settings.retention_ms,
            # Without Slack nothing is posted: there is nothing to hold back.
            flood=flood if self.slack else NO_FLOOD,
            replicas=settings.redis_replicas,
            on_fold=self.metrics.fates.labels(Delivery.FOLDED).inc,
        )

    def _analyst(self) -> Analyst:
        return Analyst(
            self.store,
            self.telnyx,
            Rules(self.schedule, self.policy, mask_numbers=self.settings.mask_numbers),
            self.metrics,
            self.clock.now_ms,
            Learning(self.baselines, self.store, self.metrics),
            self.feedback,
        )

    def _lookout(self) -> Lookout:
        policy = self.policy
        return Lookout(
            self.store,
            self.arq,
            self.metrics,
            policy.severity.low,
            policy.currency,
            self.feedback.mutes,
        )

    def _balance(self) -> BalanceWatch | None:
        days = self.policy.balance_warning_days
        if not days:
            return None
        purse = Purse(self.arq, self.spending)
        return BalanceWatch(
            self.arq, self.store, purse, self.telnyx, self.metrics, days, self.clock.now_ms
        )

    def _rounds(self) -> Rounds | None:
        settings, now_ms = self.settings, self.clock.now_ms
        if not settings.reconcile_minutes:
            return None
        reconciler = Reconciler(
            self.telnyx,
            Recording(self.store, now_ms),
            now_ms,
            retention_ms=settings.retention_ms,
            masked=settings.mask_numbers,
        )
        ledger = Ledger(self.arq, who=self.worker_id)
        return Rounds(ledger, reconciler, self.metrics, settings.reconcile_minutes * 60_000, now_ms)
