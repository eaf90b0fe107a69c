"""What the two processes keep in Redis, and how it is read back by older and newer versions.

Every record carries a schema version `v`. Changes only ever add fields with a default: an older
process ignores what it does not know, a newer one finds the default. Events and alerts are written
once; a session's hash is changed field by field, so what a newer version added to it survives an
older one. Only the watch and the verdict are replaced whole, by whoever looked at the session last.

Events, watches and verdicts are stored packed, and read plain as well.
"""

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from service.packing import EVENTS, RESULTS, pack, unpack

SCHEMA_VERSION: Final = 1
ACCOUNT: Final = "account"
"""The scope of all calls together."""
_LONGEST_NAME: Final = 160


class Severity(enum.StrEnum):
    """How much money is at stake, by the policy's steps."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """1 for low up to 4 for critical; 0 is left for "none"."""
        return list(Severity).index(self) + 1


def rank(severity: Severity | None) -> int:
    """The severity's rank, 0 for none."""
    return severity.rank if severity else 0


class State(enum.StrEnum):
    """Where a session stands."""

    OPEN = "open"
    VERDICT = "verdict"
    UNAVAILABLE = "unavailable"
    DEAD = "dead"


class Part(msgspec.Struct, omit_defaults=True, frozen=True):
    """One line of a cost that an event reported: Telnyx's product or call part, and its cost."""

    product: str
    cost: Decimal


class Reported(msgspec.Struct, omit_defaults=True, frozen=True):
    """The cost that an event itself reported, kept beside the session to compare with the tree."""

    total: Decimal | None = None
    currency: str | None = None
    parts: tuple[Part, ...] = ()


class Event(msgspec.Struct, omit_defaults=True, frozen=True):
    """What is kept of one webhook event. Times are milliseconds since 1970, UTC.

    Numbers are masked before they get here; transcripts, names, client state and headers never do.
    """

    kind: str
    at_ms: int
    v: int = SCHEMA_VERSION
    ends: bool = False
    """Whether the event says that a leg, a conversation or a conference ended at `at_ms`."""
    start_ms: int | None = None
    leg_id: str | None = None
    connection_id: str | None = None
    assistant_id: str | None = None
    conversation_id: str | None = None
    conference_id: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    from_country: str | None = None
    to_country: str | None = None
    """As `service.destination` says it, of the whole number."""
    direction: str | None = None
    cause: str | None = None
    model: str | None = None
    reported: Reported | None = None
    duration_seconds: int | None = None
    """What the event itself says of the duration, where it says anything."""


class Fetch(msgspec.Struct, omit_defaults=True, frozen=True):
    """One answer of Session Analysis to one fetch, as settling needs it."""

    at_ms: int
    ready: bool
    planned: bool
    """False for a fetch that a cost event pulled forward: it does not count towards settling."""
    event_count: int = 0
    total: Decimal | None = None
    expected: bool = False
    """Whether the products that this call must have were there."""


class Watch(msgspec.Struct, omit_defaults=True, frozen=True):
    """How far the waiting for one session's cost has come. It belongs to one latest end."""

    end_ms: int = 0
    v: int = SCHEMA_VERSION
    fetches: tuple[Fetch, ...] = ()
    last_ask_ms: int = 0
    held: int = 0
    """Asks in a row that brought no answer (outage, refusal, rate limit); sets the back-off."""
    reason: str = ""
    """Why the session waits, in words."""


class Reason(msgspec.Struct, omit_defaults=True, frozen=True):
    """Why a session is anomalous: a code, a sentence, and the numbers behind it."""

    code: str
    text: str
    observed: Decimal
    limit: Decimal
    excess: Decimal
    """Money above what is allowed, in the verdict's currency; never negative."""
    severity: Severity | None = None
    """None: too small to alert, kept and listed."""
    product: str | None = None
    learned_from: str | None = None
    """The cohort whose calls make it strange; None for a reason that was not learned."""
    calls: int = 0
    """How many calls of that cohort it was learned from."""
    parts: tuple[Part, ...] = ()
    """By product, how much of the excess it makes up: of a session that is too dear as a whole."""


class Share(msgspec.Struct, omit_defaults=True, frozen=True):
    """What one product cost in the session."""

    product: str
    cost: Decimal
    share: Decimal
    """Part of the total, 0 to 1."""
    events: int
    rate: Decimal | None = None
    """Unit rate, where the records agree on one."""
    billed_seconds: int | None = None
    real_seconds: int | None = None


class Call(msgspec.Struct, omit_defaults=True, frozen=True):
    """The call as people know it; times in milliseconds since 1970, numbers masked."""

    session_id: str
    start_ms: int | None = None
    end_ms: int | None = None
    direction: str | None = None
    connection_id: str | None = None
    assistant_id: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    legs: int = 0
    duration_seconds: int = 0
    """The longest duration that webhooks state; 0 where none does."""
    from_country: str | None = None
    to_country: str | None = None
    """Where it went; of an inbound call, the country of the number that was called."""


class Verdict(msgspec.Struct, omit_defaults=True, frozen=True):
    """What the judge said of a session's cost."""

    at_ms: int
    total: Decimal
    currency: str
    v: int = SCHEMA_VERSION
    settled: bool = True
    complete: bool = True
    provisional: bool = False
    event_count: int = 0
    severity: Severity | None = None
    excess: Decimal = Decimal(0)
    reasons: tuple[Reason, ...] = ()
    products: tuple[Share, ...] = ()
    remarks: tuple[str, ...] = ()
    """What is not as it should be but is no reason: a cut tree, a missing node, a broken sum."""
    duration_seconds: int = 0
    dearest_path: tuple[str, ...] = ()


class Delivery(enum.StrEnum):
    """What became of an alert."""

    WAITING = "waiting"
    POSTED = "posted"
    FOLDED = "folded"
    """Its cause was told a while ago: counted, and told when the cool-down ends."""
    SUMMARIZED = "summarized"
    """Told together with others."""
    REFUSED = "refused"
    """Slack takes neither the message nor its text alone."""
    KEPT = "kept"
    """There is no Slack to tell."""


class Alert(msgspec.Struct, omit_defaults=True, frozen=True):
    """An alert decided: everything its message needs, at the time of the decision."""

    id: str
    call: Call
    verdict: Verdict
    severity: Severity
    decided_ms: int
    v: int = SCHEMA_VERSION


class Notice(msgspec.Struct, omit_defaults=True, frozen=True):
    """A message to the operators about tollwatch itself or its vendors, told once for each `id`.

    `text` is one sentence that makes sense alone; `details` are lines below it.
    """

    id: str
    kind: str
    at_ms: int
    text: str
    details: tuple[str, ...] = ()
    v: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Summary:
    """One message that tells of many alerts. Which ones is fixed when it is made."""

    id: str
    at_ms: int
    count: int
    why: tuple[str, ...]
    """Why they come together: any of `cap`, `cooldown`, `outage`."""

    @property
    def number(self) -> str:
        """What people call it."""
        return self.id.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Cause:
    """What alerts have in common that are told once: who made the calls, and what was wrong."""

    code: str
    assistant_id: str | None
    connection_id: str | None

    @property
    def key(self) -> str:
        """Its name in Redis: short, whatever the ids hold."""
        name = f"{self.code}:{self.assistant_id or self.connection_id or ''}"
        if len(name) <= _LONGEST_NAME and name.isprintable():
            return name
        return f"{self.code}:#{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"


def leading_reason(verdict: Verdict) -> Reason | None:
    """Of the reasons that alert, the one with most money in it."""
    alerting = [reason for reason in verdict.reasons if reason.severity]
    return max(alerting, key=lambda reason: reason.excess, default=None)


def cause_of(alert: Alert) -> Cause:
    """The cause of an alert: its assistant, or else its connection, and its leading reason."""
    leading = leading_reason(alert.verdict)
    assistant_id = alert.call.assistant_id
    return Cause(
        code=leading.code if leading else "",
        assistant_id=assistant_id,
        connection_id=None if assistant_id else alert.call.connection_id,
    )


@dataclass(frozen=True, slots=True)
class Session:
    """One session as the worker and the command line see it: its events folded into one view.

    The fold does not depend on the order in which events came: start is the earliest, end the
    latest, and each attribute comes from the earliest event that has it.
    """

    id: str
    state: State
    revision: int
    events: tuple[Event, ...]
    end_ms: int
    accepted_ms: int
    watch: Watch
    alerted: Severity | None
    verdict: Verdict | None
    pulled: bool = False
    reason: str = ""
    dropped_ms: int | None = None
    """When a person gave it up, of a session that is dead."""
    counted_for: str = ""
    """The assistant or connection among whose calls it was counted."""
    call: Call = field(init=False)
    conversation_ids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", _call(self.id, self.end_ms, self.events))
        object.__setattr__(
            self,
            "conversation_ids",
            tuple(sorted({e.conversation_id for e in self.events if e.conversation_id})),
        )

    @property
    def reported(self) -> tuple[tuple[Event, Reported], ...]:
        """The costs that events reported, each with its event."""
        return tuple((event, event.reported) for event in self.events if event.reported)


def _call(session_id: str, end_ms: int, events: Iterable[Event]) -> Call:
    in_order = sorted(
        events, key=lambda e: (e.start_ms or e.at_ms, e.leg_id or "", e.kind, e.at_ms)
    )

    def first(name: str) -> str | None:
        values = (getattr(event, name) for event in in_order)
        return next((value for value in values if value), None)

    starts = [e.start_ms for e in in_order if e.start_ms is not None]
    return Call(
        session_id=session_id,
        start_ms=min(starts, default=None),
        end_ms=end_ms or None,
        direction=first("direction"),
        connection_id=first("connection_id"),
        assistant_id=first("assistant_id"),
        from_number=first("from_number"),
        to_number=first("to_number"),
        legs=len({e.leg_id for e in in_order if e.leg_id}),
        duration_seconds=max((e.duration_seconds or 0 for e in in_order), default=0),
        from_country=first("from_country"),
        to_country=first("to_country"),
    )


@dataclass(frozen=True, slots=True)
class Spend:
    """What a session counts for in the sums of the hour, day and month of UTC in which it ended."""

    amount: Decimal
    currency: str
    end_ms: int
    scopes: tuple[str, ...] = (ACCOUNT,)


@dataclass(frozen=True, slots=True)
class Cap:
    """What an alert is subject to of which only so many are made on a day of UTC."""

    most: int
    verdict: Verdict
    """Kept where there have been as many: the same, but it says why nobody was told."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """All that one attempt at a session changes, written in one step.

    `next_due_ms` is None where the session has reached a terminal `state`. `recheck_ms` is when the
    cost is looked at once more all the same. `answered` says that Session Analysis gave an answer,
    which uses up a pulled-forward fetch. `spend` replaces what the session has counted for so far;
    None leaves that as it is. An alert without a `cap` is made in any case. `muted` says that
    there would have been one.
    """

    state: State
    watch: Watch
    next_due_ms: int | None
    reason: str
    answered: bool
    analysis: bytes | None = None
    verdict: Verdict | None = None
    alert: Alert | None = None
    recheck_ms: int | None = None
    spend: Spend | None = None
    cap: Cap | None = None
    muted: bool = False


def moment(milliseconds: int) -> datetime:
    """Stored milliseconds as an aware UTC time."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def encode_event(event: Event) -> bytes:
    """An event for storing."""
    return pack(encode(event), EVENTS)


def encode_result(result: Watch | Verdict) -> bytes:
    """A watch or a verdict for storing."""
    return pack(encode(result), RESULTS)


def decode_event(raw: bytes) -> Event:
    """An event as stored. Raises ValueError on junk."""
    return _EVENT.decode(unpack(raw))


def decode_watch(raw: bytes) -> Watch:
    """A watch as stored. Raises ValueError on junk."""
    return _WATCH.decode(unpack(raw))


def decode_verdict(raw: bytes) -> Verdict:
    """A verdict as stored. Raises ValueError on junk."""
    return _VERDICT.decode(unpack(raw))


def decode_alert(raw: bytes) -> Alert:
    """An alert as stored. Raises ValueError on junk."""
    return _ALERT.decode(raw)


def decode_notice(raw: bytes) -> Notice:
    """A notice as stored. Raises msgspec.MsgspecError on junk."""
    return _NOTICE.decode(raw)


def read_summary(id: str, fields: Mapping[bytes, bytes]) -> Summary:
    """A summary from its hash. Raises ValueError on junk."""
    return Summary(
        id=id,
        at_ms=int(fields.get(b"at", b"")),
        count=int(fields.get(b"count", b"")),
        why=tuple(why for why in fields.get(b"why", b"").decode().split(",") if why),
    )


_EVENT: Final = msgspec.json.Decoder(Event)
_WATCH: Final = msgspec.json.Decoder(Watch)
_VERDICT: Final = msgspec.json.Decoder(Verdict)
_ALERT: Final = msgspec.json.Decoder(Alert)
_NOTICE: Final = msgspec.json.Decoder(Notice)
