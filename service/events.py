"""Telnyx's webhooks, read: bytes in; what happened to a call, or why it does not matter here.

Pure: no request, no Redis, no clock. What does not concern the cost of a call is a normal, counted
outcome. Of what does, only the fields named here are read, so transcripts, names, client state and
SIP headers end here. Sources: Telnyx's webhook reference for each event type; TeXML's status
callbacks are form-encoded.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from service.destination import country_of
from service.dialled import Destination, destination
from service.direction import OUTBOUND, way
from service.masking import mask
from service.money import money
from service.records import Event, Part, Reported

HANGUP: Final = "call.hangup"
CONVERSATION_ENDED: Final = "call.conversation.ended"
CONFERENCE_ENDED: Final = "conference.ended"
ANALYZED: Final = "call.analyzed"
COST: Final = "call.cost"

LISTED: Final = "l:"
"""Begins the key of an event that only a list of Telnyx's tells of: its webhook has another."""

ENDINGS: Final = frozenset({HANGUP, CONVERSATION_ENDED, CONFERENCE_ENDED})
BEGINNINGS: Final = frozenset({"call.initiated", "call.answered"})
"""Whichever comes first, since an application may send but some of its events."""
TEXML_ENDINGS: Final = frozenset({"completed", "no-answer", "busy", "canceled", "failed"})
TEXML_BEGINNINGS: Final = frozenset({"queued", "initiated", "ringing", "answered", "in-progress"})

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_MOST_FORM_FIELDS: Final = 500
_LONGEST_TEXT: Final = 200
_MOST_PARTS: Final = 50
_DIGEST_BYTES: Final = 9
_LONGEST_CALL: Final = 30 * 86_400
_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_EVENT_TYPE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scheduling:
    """An event that puts its session to work. `key` names the event within its session."""

    session_id: str
    key: str
    event: Event
    pulls: bool
    """Whether it says that cost data exists now, so that the next fetch need not wait."""
    identified: bool = True
    """Whether `key` comes from Telnyx's own id, and not from the very bytes that came."""
    destination: Destination | None = None
    """Where the call went, as far as that is kept."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that goes on: it counts from now on, and there is nothing to look at before its end.

    Who takes it is not known yet; `connection_id` is what it comes in or goes out by.
    """

    session_id: str
    kind: str
    at_ms: int
    connection_id: str
    to_country: str | None
    destination: Destination | None
    leg_id: str | None
    is_dialled: bool
    """Whether it is said to go out, to a number that somebody dialled."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A valid event of no interest."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A signed body which nothing can be done with; the sender is told why."""

    reason: str


@dataclass(frozen=True, slots=True)
class UnsupportedType:
    """A content type that Telnyx does not send."""


Reading: TypeAlias = Scheduling | Begun | Ignored | Unreadable | UnsupportedType


class _Envelope(msgspec.Struct):
    """Both shapes: v2 wraps the event in `data`, an older one does not."""

    data: Any = None
    event_type: Any = None
    id: Any = None
    occurred_at: Any = None
    payload: Any = None


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)


def supported(content_type: str | None) -> bool:
    """Whether a body of this type can be read at all; a missing type is taken for JSON."""
    return _media_type(content_type) in {_JSON, _FORM}


def read_event(
    body: bytes,
    content_type: str | None,
    *,
    received_ms: int,
    masked: bool = True,
    number_key: bytes = b"",
) -> Reading:
    """What one verified webhook says. Never raises, whatever the bytes.

    `received_ms` is when it came: it stands in for a missing time, and bounds it, because a call
    cannot have ended in the future. With `number_key` calls to the same number can be told, see
    `service.destination`.
    """
    match _media_type(content_type):
        case "application/json":
            return _Reader(body, received_ms, masked, number_key).json()
        case "application/x-www-form-urlencoded":
            return _Reader(body, received_ms, masked, number_key).form()
        case _:
            return UnsupportedType()


def _media_type(content_type: str | None) -> str:
    return (content_type or _JSON).partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class _Reader:
    body: bytes
    received_ms: int
    masked: bool
    number_key: bytes

    def json(self) -> Reading:
        try:
            envelope = _ENVELOPE.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Unreadable("the body is not a JSON object")
        top = envelope.data if isinstance(envelope.data, dict) else None
        event_type = _event_type(top.get("event_type") if top else envelope.event_type)
        if event_type is None:
            return Unreadable("no event type; set the API version of the application to 2")
        identity = _text(top.get("id") if top else envelope.id)
        occurred = top.get("occurred_at") if top else envelope.occurred_at
        payload = top.get("payload") if top else envelope.payload
        return self.event(event_type, identity, occurred, payload)

    def event(self, kind: str, identity: str | None, occurred: Any, raw_payload: Any) -> Reading:
        payload = raw_payload if isinstance(raw_payload, dict) else {}
        if kind in BEGINNINGS:
            return self.begun(kind, occurred, payload)
        return self.of_interest(kind, identity, occurred, payload)

    def of_interest(
        self, kind: str, identity: str | None, occurred: Any, payload: Mapping[str, Any]
    ) -> Reading:
        ends = kind in ENDINGS
        if not ends and kind not in {ANALYZED, COST}:
            return Ignored(kind, "not an event about the end or the cost of a call")
        session_id = _session_id(payload.get("call_session_id"))
        if session_id is None:
            return _without_session(kind, ends)
        reported = _reported(kind, payload)
        if kind == COST and reported is None:
            return Ignored(kind, "no readable cost in it")
        # conference.ended has its time inside the payload.
        at_ms = self.at(occurred, payload.get("occurred_at"))
        event = Event(
            kind=kind,
            at_ms=at_ms,
            ends=ends,
            start_ms=self.start(payload.get("start_time"), at_ms),
            leg_id=_text(payload.get("call_leg_id")),
            connection_id=_text(payload.get("connection_id")),
            assistant_id=_text(payload.get("assistant_id")),
            conversation_id=_text(payload.get("conversation_id")),
            conference_id=_text(payload.get("conference_id")),
            from_number=self.party(payload.get("from")),
            to_number=self.party(payload.get("to")),
            direction=way(_text(payload.get("direction"))),
            cause=_text(payload.get("hangup_cause") or payload.get("reason")),
            model=_text(payload.get("llm_model")),
            reported=reported,
            duration_seconds=_seconds(payload.get("duration_sec")),
            from_country=country_of(_text(payload.get("from"))),
            to_country=country_of(_text(payload.get("to"))),
        )
        return Scheduling(
            session_id,
            self.key(kind, identity),
            event,
            pulls=reported is not None,
            identified=identity is not None,
            destination=destination(_text(payload.get("to")), self.number_key),
        )

    def begun(self, kind: str, occurred: Any, payload: Mapping[str, Any]) -> Reading:
        session_id = _session_id(payload.get("call_session_id"))
        connection_id = _text(payload.get("connection_id"))
        if session_id is None:
            return _without_session(kind, ends=False)
        if connection_id is None:
            return Ignored(kind, "no connection id")
        to = _text(payload.get("to"))
        return Begun(
            session_id,
            kind,
            # An answer is later than the beginning, which it names.
            at_ms=self.at(payload.get("start_time"), occurred),
            connection_id=connection_id,
            to_country=country_of(to),
            destination=destination(to, self.number_key),
            leg_id=_text(payload.get("call_leg_id")),
            is_dialled=way(_text(payload.get("direction"))) == OUTBOUND,
        )

    def form(self) -> Reading:
        fields = _form_fields(self.body)
        if fields is None:
            return Unreadable("the body is not a readable form")
        status = _event_type(fields.get("CallStatus"))
        return _without_status(fields) if status is None else self.status(status, fields)

    def status(self, status: str, fields: Mapping[str, str]) -> Reading:
        kind = f"texml.{status}"
        if status in TEXML_BEGINNINGS:
            return self.texml_begun(kind, fields)
        ends = status in TEXML_ENDINGS or status == "conversation_ended"
        if not ends and status != "analyzed":
            return Ignored(kind, "not an event about the end or the cost of a call")
        session_id = _session_id(fields.get("CallSessionId"))
        if session_id is None:
            return _without_session(kind, ends)
        event = self.texml_event(kind, fields, ends=ends)
        return Scheduling(
            session_id,
            self.key(kind, None),
            event,
            pulls=False,
            identified=False,
            destination=destination(_text(fields.get("To")), self.number_key),
        )

    def texml_begun(self, kind: str, fields: Mapping[str, str]) -> Reading:
        names = {
            "call_session_id": "CallSessionId",
            "connection_id": "ConnectionId",
            "to": "To",
            "start_time": "CallInitiatedAt",
            "direction": "Direction",
            "call_leg_id": "CallLegId",
        }
        payload = {ours: fields.get(theirs) for ours, theirs in names.items()}
        return self.begun(kind, fields.get("Timestamp"), payload)

    def texml_event(self, kind: str, fields: Mapping[str, str], *, ends: bool) -> Event:
        at_ms = self.at(*(fields.get(name) for name in ("EndTime", "OccurredAt", "Timestamp")))
        return Event(
            kind=kind,
            at_ms=at_ms,
            ends=ends,
            start_ms=self.start(fields.get("CallInitiatedAt"), at_ms),
            leg_id=_text(fields.get("CallLegId")),
            connection_id=_text(fields.get("ConnectionId")),
            assistant_id=_text(fields.get("AssistantId")),
            conversation_id=_text(fields.get("ConversationId")),
            from_number=self.party(fields.get("From")),
            to_number=self.party(fields.get("To")),
            direction=way(_text(fields.get("Direction"))),
            cause=_text(fields.get("HangupCause")),
            duration_seconds=_seconds(fields.get("CallDuration")),
            from_country=country_of(_text(fields.get("From"))),
            to_country=country_of(_text(fields.get("To"))),
        )

    def key(self, kind: str, identity: str | None) -> str:
        """Short, because it is kept per event: among one session's, 9 bytes are beyond accident.

        With the kind, since nothing promises that two kinds of event never share an id.
        """
        material = f"{kind}:{identity}".encode() if identity else b"body:" + self.body
        digest = hashlib.blake2b(material, digest_size=_DIGEST_BYTES).digest()
        return base64.urlsafe_b64encode(digest).decode()

    def at(self, *candidates: Any) -> int:
        readable = (time for time in map(read_time_ms, candidates) if time is not None)
        return min(next(readable, self.received_ms), self.received_ms)

    def start(self, value: Any, end_ms: int) -> int | None:
        start = read_time_ms(value)
        return start if start is not None and start <= end_ms else None

    def party(self, value: Any) -> str | None:
        party = _text(value)
        return mask(party) if party and self.masked else party


def read_time_ms(value: Any) -> int | None:
    """An ISO 8601 time as milliseconds since 1970, or None. Without a zone it is UTC."""
    text = _text(value)
    if text is None:
        return None
    try:
        # Telnyx sends up to nanoseconds: what is finer than microseconds is dropped.
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        milliseconds = int(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return milliseconds if milliseconds > 0 else None


def _without_status(fields: Mapping[str, str]) -> Reading:
    source = _event_type(fields.get("CallbackSource"))
    if source is None:
        return Unreadable("no event type: a TeXML callback has a CallStatus")
    return Ignored(f"texml.{source}", "not a status callback of a call")


def _without_session(kind: str, ends: bool) -> Reading:
    if ends:
        return Unreadable("no call session id in an event that says a call ended")
    return Ignored(kind, "no call session id")


def _form_fields(body: bytes) -> dict[str, str] | None:
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MOST_FORM_FIELDS
        )
    except (UnicodeDecodeError, ValueError):
        return None
    return dict(pairs)


def _text(value: Any) -> str | None:
    """A clean short text; anything else counts as absent. A number is an id written as one."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20:
        return str(value)
    if not isinstance(value, str):
        return None
    clean = value.strip()
    if not clean or len(clean) > _LONGEST_TEXT or not clean.isprintable():
        return None
    return clean


def _event_type(value: Any) -> str | None:
    return value if isinstance(value, str) and _EVENT_TYPE.fullmatch(value) else None


def _session_id(value: Any) -> str | None:
    return value if isinstance(value, str) and _SESSION_ID.fullmatch(value) else None


def _seconds(value: Any) -> int | None:
    amount = money(value)
    return int(amount) if amount is not None and 0 < amount <= _LONGEST_CALL else None


def _reported(kind: str, payload: Mapping[str, Any]) -> Reported | None:
    if kind == COST:
        return _reported_by_cost(payload)
    if kind == ANALYZED:
        return _reported_by_analysis(payload.get("cost"))
    return None


def _reported_by_cost(payload: Mapping[str, Any]) -> Reported | None:
    """`call.cost`: one leg's parts, as strings or, in an older version, as numbers."""
    raw = payload.get("cost_parts")
    parts = [part for part in raw if isinstance(part, dict)] if isinstance(raw, list) else []
    currency = next((_text(part.get("currency")) for part in parts), None)
    return _a_report(payload.get("total_cost"), currency, _parts(parts, "call_part"))


def _reported_by_analysis(cost: Any) -> Reported | None:
    """`call.analyzed`: the whole session's cost, or the words "No cost data available."."""
    if not isinstance(cost, dict):
        return None
    raw = cost.get("breakdown")
    parts = [part for part in raw if isinstance(part, dict)] if isinstance(raw, list) else []
    return _a_report(cost.get("total"), _text(cost.get("currency")), _parts(parts, "product"))


def _a_report(total: Any, currency: str | None, parts: tuple[Part, ...]) -> Reported | None:
    amount = money(total)
    if amount is None and not parts:
        return None
    return Reported(total=amount, currency=currency, parts=parts)


def _parts(parts: list[dict[str, Any]], name: str) -> tuple[Part, ...]:
    read = ((_text(part.get(name)), money(part.get("cost"))) for part in parts[:_MOST_PARTS])
    return tuple(Part(product, cost) for product, cost in read if product and cost is not None)
