"""Alerts in time against labelled spans: surges, fraud, drops, shared rates, budgets. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Final

from tests.bench.detection.scoring import VISIBLE, Count

SETTLING_SECONDS: Final = 300.0
"""How long after a session's end its alert comes: two looks at the default ages."""
GRACE_SECONDS: Final = 900.0
"""So long after its end a span may still be found."""
ACCOUNT: Final = "account"

EXPLAINS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "surge": frozenset({"velocity"}),
        "fraud": frozenset({"velocity"}),
        "drop": frozenset({"drop"}),
        "shared_rate": frozenset({"velocity", "session"}),
        "budget": frozenset({"budget"}),
    }
)
"""By a span's kind, the kinds of alert that find it, beside alerts of its own sessions."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A labelled span, in seconds of unix time."""

    kind: str
    size: str
    start: float
    end: float
    cohort: str = ACCOUNT
    shape: str = ""
    fine: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """Something told at a time. `covers` is the stretch it speaks of.

    `kind`: velocity, drop, budget; or session, then `within` names the span it belongs to.
    """

    kind: str
    at: float
    start: float
    end: float
    score: float = 0.0
    cohort: str = ACCOUNT
    within: str | None = None
    shape: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """What became of each span, and the alerts that were about none."""

    found_at: tuple[tuple[Stretch, float | None], ...]
    false: tuple[Alert, ...]
    false_in_fine: tuple[Alert, ...]
    """Those of the false ones that a campaign or a holiday caused."""

    def recall(self, kind: str, sizes: Sequence[str] = VISIBLE) -> Count:
        """How many of a kind's spans were found."""
        of_kind = [at for span, at in self.found_at if span.kind == kind and span.size in sizes]
        return Count(sum(at is not None for at in of_kind), len(of_kind))

    def delay_seconds(self, kind: str, sizes: Sequence[str] = VISIBLE) -> float | None:
        """The median time from a span's start until its first alert."""
        delays = [
            at - span.start
            for span, at in self.found_at
            if span.kind == kind and span.size in sizes and at is not None
        ]
        return median(delays) if delays else None


def match(
    spans: Sequence[Stretch], alerts: Sequence[Alert], anomalous_at: Sequence[float] = ()
) -> Match:
    """Which spans were found when, in one customer's month.

    `anomalous_at`: when sessions with dear anomalies of their own ended. A velocity alert that
    covers one tells of something true, and is neither right nor false here.
    """
    wanted = [span for span in spans if not span.fine]
    used: set[int] = set()
    found = []
    for span in sorted(wanted, key=lambda span: span.start):
        at = _first(span, alerts, used)
        found.append((span, at))
    false = [
        alert
        for place, alert in enumerate(alerts)
        if alert.kind != "session"
        and place not in used
        # Each rung of a budget once: told again, it is false.
        and (alert.kind == "budget" or not any(_is_about(alert, span) for span in wanted))
        and not _is_true_otherwise(alert, spans, anomalous_at)
    ]
    fine = [span for span in spans if span.fine]
    in_fine = [a for a in false if any(_overlaps(a, span) for span in fine)]
    return Match(tuple(found), tuple(false), tuple(in_fine))


def _first(span: Stretch, alerts: Sequence[Alert], used: set[int]) -> float | None:
    """When the span was first told of; an alert of a budget tells of one rung only."""
    times = []
    for place, alert in enumerate(alerts):
        if not _is_about(alert, span) or (span.kind == "budget" and place in used):
            continue
        times.append((alert.at, place))
        if span.kind == "budget":
            break
    if not times:
        return None
    at, place = min(times)
    used.add(place)
    return at


def _is_about(alert: Alert, span: Stretch) -> bool:
    if alert.kind == "session":
        return alert.within == span.kind and span.start <= alert.at <= span.end + _late(span)
    if alert.kind not in EXPLAINS.get(span.kind, frozenset()):
        return False
    if span.kind == "budget":
        right_rung = not alert.shape or alert.shape == span.shape
        return right_rung and span.start - 1 <= alert.at <= span.end
    return _overlaps(alert, span) and span.start <= alert.at <= span.end + GRACE_SECONDS


def _late(span: Stretch) -> float:
    """A session of the span may end after it, and settles after that."""
    return GRACE_SECONDS + SETTLING_SECONDS if span.kind != "budget" else 0.0


def _overlaps(alert: Alert, span: Stretch) -> bool:
    return alert.start < span.end + GRACE_SECONDS and alert.end >= span.start


def _is_true_otherwise(
    alert: Alert, spans: Sequence[Stretch], anomalous_at: Sequence[float]
) -> bool:
    """Money ran because of a dear session or a fraud; a change of price was told once."""
    if alert.kind != "velocity":
        return False
    if any(alert.start <= at <= alert.end for at in anomalous_at):
        return True
    return any(span.kind == "price_change" and _overlaps(alert, span) for span in spans)
