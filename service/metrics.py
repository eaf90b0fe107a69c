"""The web process's metrics, each declared once, its labels there from the start."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from service import __version__
from service.signature import Refusal

OUTCOMES: Final = (
    "scheduled",
    "merged",
    "duplicate",
    "ignored",
    "refused",
    "unreadable",
    "unsupported_type",
    "too_large",
    "unavailable",
)
LIMITED: Final = ("400", "408", "431", "503")
# Acknowledging takes a few milliseconds; Telnyx waits for about two seconds.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
# Event types come from outside; this many of them get a name of their own.
_MOST_KINDS: Final = 120


def create_registry(process: str) -> CollectorRegistry:
    """A registry with what every process tells of itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Gauge(
        "tollwatch_build_info", "Version of this process", ["process", "version"], registry=registry
    )
    build.labels(process, __version__).set(1)
    return registry


class WebMetrics:
    """What the web process counts and measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.webhooks = Counter(
            "tollwatch_webhooks", "Webhooks, by outcome", ["outcome"], registry=registry
        )
        self._outcomes = {outcome: self.webhooks.labels(outcome) for outcome in OUTCOMES}
        self.events = Counter(
            "tollwatch_events", "Verified events, by their type", ["kind"], registry=registry
        )
        self.refusals = Counter(
            "tollwatch_refusals", "Webhooks not believed, by reason", ["reason"], registry=registry
        )
        self._refusals = {refusal: self.refusals.labels(refusal) for refusal in Refusal}
        self.limited = Counter(
            "tollwatch_limited",
            "Requests and connections refused by a limit of head, time or number, by status",
            ["status"],
            registry=registry,
        )
        for status in LIMITED:
            self.limited.labels(status)
        self.acknowledge_seconds = Histogram(
            "tollwatch_acknowledge_seconds",
            "From a webhook's arrival to its answer, but for those that its head has ruled out",
            buckets=_SECONDS,
            registry=registry,
        )
        self.record_seconds = Histogram(
            "tollwatch_record_seconds",
            "What of that was spent in Redis",
            buckets=_SECONDS,
            registry=registry,
        )
        self.redis_errors = Counter(
            "tollwatch_redis_errors", "Errors of Redis, as this process met them", registry=registry
        )
        self._kinds: set[str] = set()

    def count_outcome(self, outcome: str) -> None:
        """Count a webhook by its outcome, one of OUTCOMES."""
        self._outcomes[outcome].inc()

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a webhook that is not believed."""
        self._outcomes["refused"].inc()
        self._refusals[refusal].inc()

    def count_limited(self, status: int) -> None:
        """Count a request that a limit refused before it reached the endpoint."""
        self.limited.labels(str(status)).inc()

    def count_kind(self, kind: str) -> None:
        """Count an event type, without letting their number grow without bound."""
        if kind not in self._kinds:
            if len(self._kinds) >= _MOST_KINDS:
                kind = "other"
            self._kinds.add(kind)
        self.events.labels(kind).inc()
