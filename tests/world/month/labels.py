"""The truth about a month, kept apart from what a detector reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.world.clock import iso_micros


@dataclass(frozen=True, slots=True)
class Label:
    """What is to be said of a session. Sessions without a label are plainly normal."""

    kind: str | None = None
    """The anomaly that was injected into this very session."""
    size: str | None = None
    excess: Decimal | None = None
    """USD by which it made the session dearer; negative where a cost is missing."""
    within: str | None = None
    """The kind of the span to which it belongs: neither normal nor an anomaly of its own."""
    odd: str | None = None
    """Why it looks odd although it is fine."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time to be found, from `start` to before `end`."""

    kind: str
    size: str
    start: datetime
    end: datetime
    cohort: str
    """An assistant's or connection's id, or `account`."""
    shape: str = ""
    """Of a kind with several: which; of a budget: its rung in percent."""
    fine: bool = False
    """It looks odd, and there is nothing to alert about."""
    sessions: int = 0
    """How many sessions belong to it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What the customer's policy allows the account per day, in USD."""

    per_day: Decimal


@dataclass(slots=True)
class Labels:
    """All that is known of one customer's month."""

    customer: str
    seed: int
    begin: datetime
    evaluate_from: datetime
    sessions: dict[str, Label] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    budget: Budget | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON data; what is not set is left out."""
        return {
            "customer": self.customer,
            "seed": self.seed,
            "begin": iso_micros(self.begin),
            "evaluate_from": iso_micros(self.evaluate_from),
            "budget_per_day": str(self.budget.per_day) if self.budget else None,
            "sessions": {name: _plain(asdict(label)) for name, label in self.sessions.items()},
            "spans": [_plain(asdict(span)) for span in self.spans],
        }


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in fields.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_micros(value)
    return str(value) if isinstance(value, Decimal) else value
