"""The simulator's months as the benchmark uses them: sessions with their truth, spans in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench.detection import features
from tests.bench.detection.features import Session
from tests.bench.detection.scoring import Truth
from tests.bench.detection.timeline import Stretch
from tests.world.month.files import Written

_DEAR_USD: Final = 0.25
"""An anomaly of so much money shows in the spend of its hour."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One customer's month, with the truth about it. Lists are in the order of the file."""

    customer: str
    seed: int
    path: Path
    sessions: list[Session]
    truths: list[Truth]
    within: list[str | None]
    """Of each session, the kind of the span that it belongs to."""
    spans: list[Stretch]
    evaluate_from: float
    budget_per_day: str | None
    dear_at: list[float]
    """When sessions with dear anomalies ended."""

    @property
    def name(self) -> str:
        """Customer and seed."""
        return f"{self.customer}-{self.seed}"

    @property
    def scored(self) -> list[bool]:
        """Which sessions count: those from the second day on."""
        return [session.ended >= self.evaluate_from for session in self.sessions]


def load(place: Written) -> Recording:
    """Reads lines and labels."""
    labels = msgspec.json.decode(place.labels.read_bytes())
    with place.lines.open("rb") as file:
        sessions = [features.read(msgspec.json.decode(line)) for line in file]
    return recording(place, sessions, labels)


def recording(place: Written, sessions: list[Session], labels: Mapping[str, Any]) -> Recording:
    """Joins what a detector sees with what is true."""
    known = labels["sessions"]
    said = [known.get(session.id, {}) for session in sessions]
    return Recording(
        customer=place.customer,
        seed=place.seed,
        path=place.lines,
        sessions=sessions,
        truths=[_truth(label) for label in said],
        within=[label.get("within") for label in said],
        spans=[_stretch(span) for span in labels["spans"]],
        evaluate_from=_seconds(labels["evaluate_from"]),
        budget_per_day=labels["budget_per_day"],
        dear_at=[
            session.ended
            for session, label in zip(sessions, said, strict=True)
            if float(label.get("excess", 0)) >= _DEAR_USD
        ],
    )


def _truth(label: Mapping[str, Any]) -> Truth:
    return Truth(
        kind=label.get("kind"),
        size=label.get("size"),
        neutral="within" in label,
        odd=label.get("odd"),
    )


def _stretch(span: Mapping[str, Any]) -> Stretch:
    return Stretch(
        kind=span["kind"],
        size=span["size"],
        start=_seconds(span["start"]),
        end=_seconds(span["end"]),
        cohort=span["cohort"],
        shape=span["shape"],
        fine=span["fine"],
    )


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
