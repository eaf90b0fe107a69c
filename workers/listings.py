"""Telnyx's lists of webhook deliveries and of detail records, read for ended calls.

Pure. A row that cannot be read is counted and hides no other. What a row tells goes through the
same reader as a webhook (`service.events`), so the same event has the same key, whichever way it
came, and nothing is kept of a list that would not be kept of a webhook. Sources: Telnyx's API
reference for both lists; field names of detail records as seen on live accounts.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec

from service.events import HANGUP, LISTED, Begun, Ignored, Scheduling, read_event, read_time_ms
from service.records import moment
from workers.analysis import Unreadable
from workers.answer import RateLimit

DELIVERIES: Final = "webhook_deliveries"
RECORDS: Final = "detail_records"
Endpoint: TypeAlias = Literal["webhook_deliveries", "detail_records"]

DETAIL_RECORD: Final = "detail_record"
"""The kind of an event that a detail record told of, and no webhook."""

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"

# The types that each ended call leaves one of, and where each says what. An empty text is none.
_ENDS: Final = ("finished_at", "completed_at", "ended_at", "end_time")
_STARTS: Final = ("started_at", "created_at", "start_time", "answered_at")
_DURATIONS: Final = ("call_sec", "duration_sec")
# Never `session_id`: in WebRTC records that is something else.
_SESSIONS: Final = ("telnyx_session_id", "call_session_id")
_LEGS: Final = ("telnyx_leg_id", "call_leg_id")
# In these the record's own id is that of the leg.
_NAMED_BY_LEG: Final = frozenset({"sip-trunking", "webrtc"})


@dataclass(frozen=True, slots=True)
class Listing:
    """One page: its rows as they came, and how many pages Telnyx says there are."""

    rows: tuple[Any, ...]
    total_pages: int | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row, read. `at_ms` is when it was, None where it does not say.

    `told` is the event it tells of; without one it is of no interest, or else `broken`.
    `unless_told`: webhooks would know the event by another key, so that it counts only for a
    session of which none has told.
    """

    at_ms: int | None
    told: Scheduling | None = None
    broken: bool = False
    unless_told: bool = False


class _Page(msgspec.Struct):
    data: Any = None
    meta: Any = None


_PAGE: Final = msgspec.json.Decoder(_Page)
_BROKEN: Final = Row(None, broken=True)


def decode_listing(body: bytes) -> Listing:
    """A page of either list. Raises Unreadable where there is no list in it."""
    try:
        page = _PAGE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("not a JSON object") from error
    if not isinstance(page.data, list):
        raise Unreadable("no list of rows")
    pages = page.meta.get("total_pages") if isinstance(page.meta, dict) else None
    known = isinstance(pages, int) and not isinstance(pages, bool) and pages > 0
    return Listing(tuple(page.data), pages if known else None)


def read_delivery(row: Any, *, now_ms: int, masked: bool) -> Row:
    """A webhook delivery: the event is the webhook's own, whatever became of the delivery."""
    if not isinstance(row, dict):
        return _BROKEN
    at_ms = _first_time(row, ("finished_at", "started_at"))
    original = _original(row.get("webhook"))
    if original is None:
        return Row(at_ms, broken=True)
    received_ms = now_ms if at_ms is None else min(at_ms, now_ms)
    reading = read_event(*original, received_ms=received_ms, masked=masked)
    if isinstance(reading, Ignored | Begun):
        # A list is read too late for what begins.
        return Row(at_ms)
    if not isinstance(reading, Scheduling):
        return Row(at_ms, broken=True)
    at_ms = reading.event.at_ms if at_ms is None else at_ms
    if reading.identified:
        return Row(at_ms, reading)
    return Row(at_ms, replace(reading, key=LISTED + reading.key), unless_told=True)


def read_record(row: Any, record_type: str, *, now_ms: int, masked: bool) -> Row:
    """A detail record of that type: an event made up as if the call's webhook had come."""
    if not isinstance(row, dict):
        return _BROKEN
    ended_ms = _end(row)
    if ended_ms is None:
        return _BROKEN
    end_ms = min(ended_ms, now_ms)
    event = {"event_type": HANGUP, "id": "record", "occurred_at": moment(end_ms).isoformat()}
    body = _encoded({**event, "payload": _payload(row, record_type)})
    reading = read_event(body, _JSON, received_ms=now_ms, masked=masked) if body else None
    if not isinstance(reading, Scheduling):
        return Row(end_ms, broken=True)
    made_up = msgspec.structs.replace(reading.event, kind=DETAIL_RECORD)
    key = _record_key(row, record_type)
    return Row(end_ms, replace(reading, key=key, event=made_up), unless_told=True)


def fingerprint(rows: Iterable[Any]) -> bytes:
    """The same for the same rows: a list that does not turn its pages shows in it."""
    return hashlib.blake2b(repr(rows).encode(errors="replace"), digest_size=16).digest()


def _original(webhook: Any) -> tuple[bytes, str] | None:
    """The webhook's body and content type; a TeXML callback is a form."""
    if isinstance(webhook, str):
        kind = _JSON if webhook.lstrip().startswith("{") else _FORM
        return webhook.encode(errors="replace"), kind
    if not isinstance(webhook, dict):
        return None
    if "CallStatus" in webhook:
        fields = {name: "" if value is None else str(value) for name, value in webhook.items()}
        return urlencode(fields, errors="replace").encode(), _FORM
    body = _encoded(webhook)
    return (body, _JSON) if body else None


def _encoded(document: Mapping[str, Any]) -> bytes | None:
    try:
        return msgspec.json.encode(document)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None


def _payload(row: Mapping[str, Any], record_type: str) -> dict[str, Any]:
    legs = (*_LEGS, "id") if record_type in _NAMED_BY_LEG else _LEGS
    cause = row.get("hangup_cause")
    return {
        "call_session_id": _first(row, _SESSIONS),
        "call_leg_id": _first(row, legs),
        "start_time": _first(row, _STARTS),
        "connection_id": row.get("connection_id"),
        "assistant_id": row.get("assistant_id"),
        "conversation_id": row.get("conversation_id"),
        "from": _first(row, ("cli", "caller_number")),
        "to": _first(row, ("cld", "dest_number")),
        "direction": row.get("direction"),
        "hangup_cause": cause.lower() if isinstance(cause, str) else None,
        "duration_sec": _first(row, _DURATIONS),
    }


def _record_key(row: Mapping[str, Any], record_type: str) -> str:
    """The same record has the same key, however often it is listed."""
    parts = (record_type, row.get("id"), _first(row, _LEGS), _first(row, _STARTS))
    material = "|".join(map(str, parts)).encode(errors="replace")
    return LISTED + hashlib.blake2b(material, digest_size=16).hexdigest()


def _end(row: Mapping[str, Any]) -> int | None:
    """When the call ended, in milliseconds since 1970: stated, or start and duration."""
    stated = _first_time(row, _ENDS)
    start = _first_time(row, _STARTS)
    seconds = _first(row, _DURATIONS)
    if stated is not None or start is None or not isinstance(seconds, int | float):
        return stated
    return start + int(seconds * 1000) if 0 <= seconds < _LONGEST_SECONDS else None


_LONGEST_SECONDS: Final = 30 * 86_400


def _first_time(row: Mapping[str, Any], names: Iterable[str]) -> int | None:
    times = (read_time_ms(row.get(name)) for name in names)
    return next((time for time in times if time is not None), None)


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    values = (row.get(name) for name in names)
    return next((value for value in values if value is not None and value != ""), None)
