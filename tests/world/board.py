"""What the demonstration knows of each call, learnt only from outside: log lines and Slack.

It also says what is not as it must be: the generator knows what it put into each call, and so which
calls must alert, which must not, and what each of them costs.
"""

import enum
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tests.world.model import Call

_SEVERITY: Final = re.compile(r"\b(low|medium|high|critical)\b", re.IGNORECASE)


class Stage(enum.StrEnum):
    """How far a call has come."""

    RINGING = "hanging up"
    ENDED = "call ended"
    WAITING = "waiting for its cost"
    JUDGED = "judged"
    UNAVAILABLE = "no cost came"
    DEAD = "given up"


_LAST_STAGES: Final = frozenset({Stage.JUDGED, Stage.UNAVAILABLE, Stage.DEAD})


@dataclass(slots=True)
class Row:
    """One call and what has become of it."""

    call: Call
    stage: Stage = Stage.RINGING
    reason: str = ""
    next_ask: float | None = None
    """When its cost is looked for again, in seconds since 1970."""
    total: Decimal | None = None
    severity: str | None = None
    reasons: frozenset[str] = frozenset()
    alerts: list[str] = field(default_factory=list)
    """The severities of the alerts that Slack got, in order."""

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end, and what must be told has been told."""
        told = not self.severity or self.severity in self.alerts
        return self.stage in _LAST_STAGES and told

    def faults(self) -> Iterator[str]:
        """What differs from what the generator put into the call."""
        if self.stage is not Stage.JUDGED:
            yield f"came only as far as: {self.stage}{f' ({self.reason})' if self.reason else ''}"
        elif self.total != self.call.total:
            yield f"was judged to cost {self.total}, its cost is {self.call.total}"
        yield from self._wrong_alerts()

    def _wrong_alerts(self) -> Iterator[str]:
        expected = self.call.expects
        if expected is None:
            if self.alerts:
                yield f"must stay silent, and led to alerts: {', '.join(self.alerts)}"
            return
        if not self.alerts:
            yield f"must alert ({self.call.anomaly}), and did not"
        elif self.alerts[-1] not in expected.severities:
            yield f"alerted as {self.alerts[-1]}, not as {' or '.join(sorted(expected.severities))}"
        if len(set(self.alerts)) < len(self.alerts):
            yield f"led to the same alert more than once: {', '.join(self.alerts)}"
        if self.stage is Stage.JUDGED and not expected.reasons & self.reasons:
            found, wanted = (", ".join(sorted(r)) for r in (self.reasons, expected.reasons))
            yield f"was found anomalous for {found or 'nothing'}, not for {wanted}"


class Board:
    """All calls of the demonstration, in the order in which they came."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.webhooks: Counter[str] = Counter()
        """How the web process answered, by outcome."""
        self.strays: list[str] = []
        """Alerts of no call of ours, by their text."""

    def add(self, call: Call) -> Row:
        """A call whose webhooks are about to be sent."""
        self.rows[call.session_id] = row = Row(call)
        return row

    def forget(self, keep: int) -> None:
        """Drop the oldest calls that have come to their end."""
        for session_id in list(self.rows)[:-keep]:
            if self.rows[session_id].is_done:
                del self.rows[session_id]

    @property
    def is_done(self) -> bool:
        """Whether every call has come to its end."""
        return all(row.is_done for row in self.rows.values())

    def faults(self) -> list[str]:
        """All that is not as it must be, one sentence each."""
        told = [
            f"{row.call.session_id} ({row.call.kind}) {fault}"
            for row in self.rows.values()
            for fault in row.faults()
        ]
        return [*told, *(f"an alert of no known call: {text}" for text in self.strays)]

    def read_web(self, fields: Mapping[str, Any]) -> Row | None:
        """A log line of the web process; the row that it changed."""
        if fields.get("event") != "webhook":
            return None
        outcome = str(fields.get("outcome"))
        self.webhooks[outcome] += 1
        row = self._row(fields)
        # A late leg opens a session again that was done.
        if row is None or outcome != "scheduled":
            return None
        row.stage, row.reason, row.next_ask = Stage.ENDED, "", None
        return row

    def read_worker(self, fields: Mapping[str, Any]) -> Row | None:
        """A log line of the worker; the row that it changed."""
        row = self._row(fields)
        if row is None:
            return None
        match fields.get("event"):
            case "waiting":
                row.stage, row.reason = Stage.WAITING, str(fields.get("reason", ""))
                due_ms = fields.get("next_due_ms")
                row.next_ask = due_ms / 1000 if isinstance(due_ms, int) else None
            case "verdict":
                row.stage, row.reason = Stage.JUDGED, ""
                row.total = _money(fields.get("total"))
                row.severity = fields.get("severity")
                row.reasons = frozenset(map(str, fields.get("reasons") or ()))
            case "unavailable":
                row.stage, row.reason = Stage.UNAVAILABLE, str(fields.get("reason", ""))
            case "attempt failed" if fields.get("dead"):
                row.stage, row.reason = Stage.DEAD, str(fields.get("reason", ""))
            case _:
                return None
        return row

    def read_alert(self, payload: Mapping[str, Any]) -> Row | None:
        """A message that Slack got; the row of the call that it is about."""
        said = json.dumps(payload, ensure_ascii=False)
        row = next((row for id, row in self.rows.items() if id in said), None)
        if row is None:
            self.strays.append(str(payload.get("text", ""))[:200])
            return None
        severity = _SEVERITY.search(str(payload.get("text", "")))
        row.alerts.append(severity[1].lower() if severity else "of no severity")
        return row

    def _row(self, fields: Mapping[str, Any]) -> Row | None:
        return self.rows.get(str(fields.get("session_id")))


def _money(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
