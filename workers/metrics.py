"""The worker's metrics, each declared once, its labels there from the start."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.dead import OTHER, WRONG_REQUEST
from service.gate import Heard, Outage
from service.queue import Depth
from service.records import Delivery, Severity, State
from service.sweep import NETS
from workers.detection.velocity import KINDS
from workers.judge import CODES
from workers.walk import SOURCES

MEANINGS: Final = ("ready", "not_ready", "rate_limited", "refused", "transient", "invalid")
POST_OUTCOMES: Final = (
    "posted",
    "rate_limited",
    "transient",
    "in_doubt",
    "closed",
    "refused",
    "kept",
    "failed",
)
LESSONS: Final = ("learned", "apart")
READS: Final = ("hit", "miss")
FATES: Final = tuple(fate for fate in Delivery if fate is not Delivery.WAITING)
ATTEMPTS: Final = (
    "settled",
    "waiting",
    "held",
    "unavailable",
    "rechecked",
    "failed",
    "dead",
    "changed",
    "lost",
)
RECONCILIATIONS: Final = (
    "whole",
    "capped",
    "rate_limited",
    "transient",
    "refused",
    "invalid",
    "failed",
)
OUTAGES: Final = (Heard.REFUSED, Heard.DOWN)
LINES: Final = ("sessions", "rechecks", "alerts")
RECHECKS: Final = ("unchanged", "changed", "unknown", "given_up")

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_DWELL: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 10_800)
_AGES: Final = (60, 120, 300, 600, 1800, 3600, 10_800, 21_600, 86_400)
_EVENTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class WorkerMetrics:
    """What a worker counts and measures. Time waited and time worked are measured apart."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of_sessions(registry)
        self._of_telnyx(registry)
        self._of_slack(registry)
        self._of_money(registry)
        self._of_baselines(registry)
        self._of_care(registry)
        self._of_itself(registry)

    def _of_sessions(self, registry: CollectorRegistry) -> None:
        self.attempts = _counter(
            registry, "tollwatch_attempts", "Attempts at a session, by outcome", "outcome", ATTEMPTS
        )
        self.dwell = _histogram(
            registry, "tollwatch_dwell_seconds", "From due until taken up", _DWELL
        )
        self.work = _histogram(
            registry, "tollwatch_work_seconds", "From taken up until concluded", _SECONDS
        )
        self.findings = _counter(
            registry,
            "tollwatch_findings",
            "Surges, shapes of fraud, and drops that were told, by kind",
            "kind",
            KINDS,
        )
        self.ended = _counter(
            registry,
            "tollwatch_sessions_ended",
            "Sessions that reached a terminal state",
            "state",
            [state for state in State if state is not State.OPEN],
        )
        self.verdict_age = _histogram(
            registry, "tollwatch_verdict_age_seconds", "From the call's end to its verdict", _AGES
        )
        self.verdicts = _counter(
            registry,
            "tollwatch_verdicts",
            "Verdicts, by severity",
            "severity",
            ("none", *Severity),
        )
        self.reasons = _counter(
            registry, "tollwatch_reasons", "Reasons in verdicts, by code", "code", CODES
        )
        self.rechecks = _counter(
            registry,
            "tollwatch_rechecks",
            "Settled costs that were looked at once more, by what came of it",
            "outcome",
            RECHECKS,
        )
        self.takeovers = Counter(
            "tollwatch_takeovers", "Work taken over after its lease ended", registry=registry
        )
        self.held = Gauge(
            "tollwatch_sessions_held", "Sessions leased by this worker", registry=registry
        )
        self.pending = _gauge(registry, "tollwatch_pending", "Waiting or leased")
        self.overdue = _gauge(registry, "tollwatch_overdue", "Due and not taken up")
        self.oldest = _gauge(
            registry, "tollwatch_oldest_overdue_seconds", "How long the oldest has been overdue"
        )

    def _of_telnyx(self, registry: CollectorRegistry) -> None:
        self.fetches = _counter(
            registry, "tollwatch_fetches", "Asks of Telnyx, by meaning", "meaning", MEANINGS
        )
        self.fetch_seconds = _histogram(
            registry, "tollwatch_fetch_seconds", "Latency of Telnyx's answers", _SECONDS
        )
        self.tree_events = _histogram(
            registry, "tollwatch_tree_events", "Events in a cost tree", _EVENTS
        )
        self.outage = Gauge(
            "tollwatch_telnyx_outage_seconds",
            "How long Telnyx has failed for all sessions; 0 while it answers",
            ["kind"],
            registry=registry,
        )
        for kind in OUTAGES:
            self.outage.labels(kind)
        self.permits = Gauge(
            "tollwatch_telnyx_permits_left",
            "What is left of Telnyx's rate limit in the present window; -1 where none is known",
            registry=registry,
        )

    def _of_slack(self, registry: CollectorRegistry) -> None:
        self.alerts = _counter(
            registry, "tollwatch_alerts_decided", "Alerts decided", "severity", Severity
        )
        self.fates = _counter(
            registry, "tollwatch_alert_fates", "What became of alerts and notices", "fate", FATES
        )
        self.posts = _counter(
            registry, "tollwatch_posts", "Posts to Slack, by outcome", "outcome", POST_OUTCOMES
        )
        self.tokens = Gauge(
            "tollwatch_slack_tokens", "Messages that Slack may be sent now", registry=registry
        )
        self.failing_since = Gauge(
            "tollwatch_slack_failing_since_timestamp_seconds",
            "Since when Slack has taken nothing; 0 while it does",
            registry=registry,
        )
        self.folded = Gauge(
            "tollwatch_alerts_folded", "Alerts that a cool-down holds back", registry=registry
        )
        self.post_seconds = _histogram(
            registry, "tollwatch_post_seconds", "Latency of Slack's answers", _SECONDS
        )
        self.alert_dwell = _histogram(
            registry,
            "tollwatch_alert_dwell_seconds",
            "From an alert's decision to its post",
            _DWELL,
        )

    def _of_money(self, registry: CollectorRegistry) -> None:
        self.budget_share = Gauge(
            "tollwatch_budget_share",
            "The part of a budget that its present day or month has used; 1 is all of it",
            ["per", "scope", "amount"],
            registry=registry,
        )
        self.balance = Gauge(
            "tollwatch_balance",
            "What Telnyx lets the account spend, its credit line included; NaN: not known",
            registry=registry,
        )
        self.balance_days = Gauge(
            "tollwatch_balance_days_left",
            "When it is used up at this pace, at most 30; NaN: not known",
            registry=registry,
        )
        self.balance_heard = Gauge(
            "tollwatch_balance_heard_timestamp_seconds",
            "When Telnyx last told the balance, to any worker; 0 for never",
            registry=registry,
        )
        self.show_balance(None, None, heard_ms=0)

    def _of_baselines(self, registry: CollectorRegistry) -> None:
        self.cohorts = Gauge(
            "tollwatch_cohorts", "Cohorts of which something is learned", registry=registry
        )
        self.baseline_reads = _counter(
            registry,
            "tollwatch_baseline_reads",
            "Sessions held against what was learned: it was at hand, or had to be read",
            "outcome",
            READS,
        )
        self.lessons = _counter(
            registry,
            "tollwatch_lessons",
            "Sessions that taught what is usual, and those kept apart as strange",
            "outcome",
            LESSONS,
        )
        self.opinions_failed = Counter(
            "tollwatch_opinions_failed",
            "Sessions judged without what was learned, since that broke",
            registry=registry,
        )
        self.muted = Counter(
            "tollwatch_alerts_muted",
            "Alerts that were not made since somebody had planned such calls",
            registry=registry,
        )
        self.capped = Counter(
            "tollwatch_alerts_capped",
            "Alerts from what was learned that were one too many for a day",
            registry=registry,
        )

    def _of_care(self, registry: CollectorRegistry) -> None:
        self.dead = Gauge(
            "tollwatch_dead_letters", "Dead letters, by kind", ["kind"], registry=registry
        )
        self.show_dead({})
        self.expired = Counter(
            "tollwatch_dead_letters_expired",
            "Dead letters that the retention has ended",
            registry=registry,
        )
        self.swept = _counter(
            registry,
            "tollwatch_swept",
            "Work found in no line and put back",
            "line",
            [net.name for net in NETS],
        )
        self.reconciliations = _counter(
            registry,
            "tollwatch_reconciliations",
            "Searches for webhooks that never came, by how they ended",
            "outcome",
            RECONCILIATIONS,
        )
        self.reconciled_sessions = _counter(
            registry,
            "tollwatch_reconciled_sessions",
            "Sessions that no webhook had told of, by the list that did",
            "source",
            [source.name for source in SOURCES],
        )
        self.reconciled = Gauge(
            "tollwatch_reconciled_timestamp_seconds",
            "When all lists had last been searched whole, by any worker; 0 for never",
            registry=registry,
        )

    def _of_itself(self, registry: CollectorRegistry) -> None:
        self.redis_errors = Counter(
            "tollwatch_redis_errors", "Errors of Redis, as this process met them", registry=registry
        )
        self.restarts = Counter(
            "tollwatch_main_loop_restarts", "Restarts of arq's main loop", registry=registry
        )

    def show_depth(self, line: str, depth: Depth) -> None:
        """How much is in a line, and how far behind it is."""
        self.pending.labels(line).set(depth.pending)
        self.overdue.labels(line).set(depth.overdue)
        self.oldest.labels(line).set(depth.oldest_overdue_ms / 1000)

    def show_gate(self, outage: Outage | None, left: int | None, *, now_ms: int) -> None:
        """Whether Telnyx fails for all, and what its rate limit leaves."""
        for kind in OUTAGES:
            lasts = outage is not None and outage.kind is kind
            seconds = (now_ms - outage.since_ms) / 1000 if outage and lasts else 0
            self.outage.labels(kind).set(max(0, seconds))
        self.permits.set(-1 if left is None else left)

    def show_balance(
        self, available: float | None, days_left: float | None, *, heard_ms: int
    ) -> None:
        """What the account has and for how long."""
        self.balance.set(math.nan if available is None else available)
        self.balance_days.set(math.nan if days_left is None else days_left)
        self.balance_heard.set(heard_ms / 1000)

    def show_dead(self, numbers: Mapping[str, int]) -> None:
        """How many dead letters there are of each kind; kinds that have none any more go."""
        self.dead.clear()
        for kind, number in {WRONG_REQUEST: 0, OTHER: 0, **numbers}.items():
            self.dead.labels(kind).set(number)

    def observe_read(self, hit: bool) -> None:
        """One session held against what was learned, and whether that was at hand."""
        self.baseline_reads.labels("hit" if hit else "miss").inc()

    def observe_fetch(self, meaning: str, seconds: float) -> None:
        """One answer of Telnyx, or its absence."""
        self.fetches.labels(meaning).inc()
        self.fetch_seconds.observe(seconds)


def _counter(
    registry: CollectorRegistry, name: str, text: str, label: str, values: Iterable[str]
) -> Counter:
    counter = Counter(name, text, [label], registry=registry)
    for value in values:
        counter.labels(str(value))
    return counter


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(name, text, buckets=buckets, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, text: str) -> Gauge:
    gauge = Gauge(name, text, ["line"], registry=registry)
    for line in LINES:
        gauge.labels(line)
    return gauge
