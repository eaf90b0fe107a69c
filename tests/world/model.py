"""A call as the simulated outside knows it: its legs, its cost tree, and what must be alerted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias

Direction: TypeAlias = Literal["inbound", "outbound"]
IndexedUnder: TypeAlias = Literal["start", "end", "both"]


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg of the call. `answered` is None where nobody picked up."""

    leg_id: str
    control_id: str
    from_: str
    to: str
    direction: Direction
    start: datetime
    answered: datetime | None
    end: datetime
    hangup_cause: str = "normal_clearing"
    hangup_source: str = "caller"
    sip_hangup_cause: str = "200"
    connection_id: str = ""

    @property
    def talk_seconds(self) -> int:
        """From the answer to the end; 0 for a leg that was never answered."""
        return int((self.end - self.answered).total_seconds()) if self.answered else 0


@dataclass(frozen=True, slots=True)
class Node:
    """One event of the cost tree, with everything below it."""

    record_type: str
    """Telnyx's public name; `product` is the internal one."""
    id: str
    product: str
    event_name: str
    cost: Decimal
    record: Mapping[str, Any]
    posted_after_seconds: float = 0.0
    """Seconds after the call's end at which the event and its cost appear."""
    via: tuple[str, str] = ("telnyx_session_id", "telnyx_session_id")
    """The fields of child and parent that link the two."""
    children: tuple["Node", ...] = ()
    shown_children: int | None = None
    """Of a node inside a larger answer the server shows only so many children; None: all."""

    @property
    def cumulative(self) -> Decimal:
        """Own cost and that of all descendants."""
        return sum((node.cost for node in self.walk()), Decimal(0))

    @property
    def count(self) -> int:
        """How many events there are, this one included."""
        return sum(1 for _ in self.walk())

    @property
    def levels(self) -> int:
        """How deep the tree is; 1 for a leaf."""
        return 1 + max((child.levels for child in self.children), default=0)

    def walk(self) -> Iterator["Node"]:
        """All events, parents before children."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Expected:
    """What an anomalous call must lead to, by what was injected into it."""

    reasons: frozenset[str]
    """In words of our own, any of which is right: `session_cost` (above 5 USD), `cost_per_minute`
    (above 1 USD), `product_events` (above 200 inference turns), `double_charge`."""
    severities: frozenset[str]
    """Any of which is right as the last word: for all that was injected, for what of it lies above
    the limit, and for what is between. While costs still come in, a lower one is right as well."""
    excess: Decimal
    """USD that should not have been charged: all that the injection added to a sound call."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call session: what happened, what it costs, and when which part of that appears."""

    session_id: str
    kind: str
    start: datetime
    end: datetime
    direction: Direction
    connection_id: str
    legs: tuple[Leg, ...]
    root: Node
    assistant_id: str | None = None
    conversation_id: str | None = None
    conference_id: str | None = None
    anomaly: str | None = None
    expects: Expected | None = None
    """None: the call must stay silent."""
    indexed_under: IndexedUnder = "both"
    """The UTC days that Telnyx's index knows a call over midnight by."""

    @property
    def total(self) -> Decimal:
        """What the session costs once everything has been posted."""
        return self.root.cumulative

    @property
    def event_count(self) -> int:
        """How many events the whole tree has."""
        return self.root.count

    @property
    def duration_seconds(self) -> float:
        """From the first ring to the last hangup."""
        return (self.end - self.start).total_seconds()

    @property
    def complete_after_seconds(self) -> float:
        """Seconds after the end at which the last part appears."""
        return max(node.posted_after_seconds for node in self.root.walk())

    @property
    def days(self) -> frozenset[date]:
        """The UTC days under which the call is found."""
        first, last = (moment.astimezone(UTC).date() for moment in (self.start, self.end))
        match self.indexed_under:
            case "start":
                return frozenset({first})
            case "end":
                return frozenset({last})
            case "both":
                return frozenset({first, last})

    def of_type(self, record_type: str) -> tuple[Node, ...]:
        """The events of one record type."""
        return tuple(node for node in self.root.walk() if node.record_type == record_type)
