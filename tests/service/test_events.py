"""The event parser: every shape that Telnyx sends, and any bytes at all."""

import json
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialled import destination
from service.events import (
    Begun,
    Ignored,
    Scheduling,
    Unreadable,
    UnsupportedType,
    read_event,
    read_time_ms,
)
from service.records import Part, encode

RECEIVED_MS = 1_790_000_100_000
ENDED = "2026-09-21T14:13:20.000Z"  # a hundred seconds before it was received
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

PAYLOAD = {
    "call_control_id": "v3:abc",
    "call_session_id": "session-1",
    "call_leg_id": "leg-1",
    "connection_id": "7267",
    "client_state": "c2VjcmV0",
    "from": "+4915112345678",
    "to": "+13129457421",
    "start_time": "2026-09-21T14:10:00.123456789Z",
    "hangup_cause": "normal_clearing",
}


def envelope(kind: str, payload: dict[str, Any], **data: Any) -> bytes:
    inner = {"record_type": "event", "event_type": kind, "id": "event-1", "occurred_at": ENDED}
    return json.dumps(
        {"data": {**inner, "payload": payload, **data}, "meta": {"attempt": 1}}
    ).encode()


def read(body: bytes, content_type: str | None = JSON) -> Any:
    return read_event(body, content_type, received_ms=RECEIVED_MS)


def scheduled(kind: str, payload: dict[str, Any] | None = None, **data: Any) -> Scheduling:
    reading = read(envelope(kind, PAYLOAD if payload is None else payload, **data))
    assert isinstance(reading, Scheduling), reading
    return reading


def test_a_hangup_schedules_its_session() -> None:
    """A hangup gives session, leg, start, end, connection and masked parties."""
    reading = scheduled("call.hangup")
    event = reading.event
    assert reading.session_id == "session-1"
    assert not reading.pulls
    assert (event.ends, event.leg_id, event.connection_id) == (True, "leg-1", "7267")
    assert event.at_ms == read_time_ms(ENDED)
    assert event.start_ms == read_time_ms("2026-09-21T14:10:00.123Z")
    assert (event.from_number, event.to_number) == ("…78", "…21")
    assert (event.from_country, event.to_country) == ("DE", "US")


def test_a_conversation_names_assistant_and_model_and_keeps_no_transcript() -> None:
    """Of an AI conversation the ids are kept; its messages, names and state are not."""
    payload = PAYLOAD | {
        "assistant_id": "assistant-1",
        "conversation_id": "conv-1",
        "llm_model": "openai/gpt-4o",
        "messages": [{"role": "user", "content": "my secret is 4711"}],
        "caller_name": "Jane Roe",
    }
    event = scheduled("call.conversation.ended", payload).event
    assert (event.assistant_id, event.conversation_id) == ("assistant-1", "conv-1")
    kept = encode(event).decode()
    for personal in ("secret", "4711", "Jane", "c2VjcmV0", "4915112345678", "312945"):
        assert personal not in kept


def test_a_conference_has_its_time_inside_the_payload() -> None:
    """conference.ended is read although its time is not where the others have it."""
    payload = {"call_session_id": "s", "conference_id": "c", "occurred_at": ENDED}
    event = scheduled("conference.ended", payload, occurred_at=None).event
    assert (event.ends, event.at_ms, event.conference_id) == (True, read_time_ms(ENDED), "c")


COST = {
    "call_session_id": "s",
    "call_leg_id": "l",
    "total_cost": "0.0106",
    "status": "success",
    "cost_parts": [
        {"call_part": "sip-trunking", "cost": "5.0E-3", "currency": "USD", "rate": "0.005"},
        {"call_part": "call-control", "cost": "0.0056", "currency": "USD"},
    ],
}


def test_a_cost_event_keeps_its_figures_and_pulls() -> None:
    """call.cost schedules, pulls the fetch forward, and its exact figures are kept."""
    reading = scheduled("call.cost", COST)
    reported = reading.event.reported
    assert reading.pulls
    assert not reading.event.ends
    assert reported
    assert (reported.total, reported.currency) == (Decimal("0.0106"), "USD")
    assert reported.parts[0] == Part("sip-trunking", Decimal("0.0050"))


def test_the_older_cost_event_has_numbers_and_no_wrapper() -> None:
    """The older shape, without `data` and with numbers, reads the same."""
    part = {"call_part": "call-control", "cost": 0.001, "currency": "USD", "rate": 0.001}
    payload = COST | {"total_cost": 0.001, "cost_parts": [part], "status": "valid"}
    body = json.dumps(
        {"event_type": "call.cost", "id": "e", "occurred_at": ENDED, "payload": payload}
    )
    reading = read(body.encode())
    assert isinstance(reading, Scheduling)
    assert reading.event.reported
    assert reading.event.reported.total == Decimal("0.001")


@pytest.mark.parametrize(
    "payload",
    [
        COST | {"total_cost": None, "cost_parts": None},
        COST | {"total_cost": "n/a", "cost_parts": []},
    ],
)
def test_a_cost_event_without_a_readable_cost_is_ignored(payload: dict[str, Any]) -> None:
    """A call.cost in which nothing is readable says nothing about the call."""
    assert isinstance(read(envelope("call.cost", payload)), Ignored)


def test_an_analysed_call_pulls_only_if_it_has_a_cost() -> None:
    """call.analyzed always schedules; only with figures does it say that cost exists."""
    total = {
        "total": "0.21",
        "currency": "USD",
        "breakdown": [{"product": "inference", "cost": "0.21"}],
    }
    with_cost = scheduled("call.analyzed", PAYLOAD | {"cost": total})
    without = scheduled("call.analyzed", PAYLOAD | {"cost": "No cost data available."})
    assert (with_cost.pulls, without.pulls) == (True, False)
    assert without.event.reported is None


TEXML = {
    "CallStatus": "completed",
    "CallSessionId": "session-2",
    "CallLegId": "leg-2",
    "ConnectionId": "99",
    "From": "+35319605860",
    "To": "+13129457420",
    "CallInitiatedAt": "2026-09-21T14:10:00Z",
    "EndTime": ENDED,
    "CallerId": "John Doe",
}


@pytest.mark.parametrize("status", ["completed", "no-answer", "busy", "canceled", "failed"])
def test_every_terminal_texml_status_schedules(status: str) -> None:
    """A TeXML callback with a terminal status schedules its session."""
    reading = read(urlencode(TEXML | {"CallStatus": status}).encode(), FORM + "; charset=utf-8")
    assert isinstance(reading, Scheduling)
    assert reading.session_id == "session-2"
    assert (reading.event.ends, reading.event.from_number) == (True, "…60")
    assert reading.event.to_country == "US"
    assert "Doe" not in encode(reading.event).decode()


@pytest.mark.parametrize(("status", "ends"), [("analyzed", False), ("conversation_ended", True)])
def test_texml_statuses_of_ai_calls_schedule(status: str, *, ends: bool) -> None:
    """The two AI statuses of TeXML schedule like their JSON counterparts."""
    reading = read(urlencode(TEXML | {"CallStatus": status}).encode(), FORM)
    assert isinstance(reading, Scheduling)
    assert (reading.event.ends, reading.pulls) == (ends, False)


@pytest.mark.parametrize("fields", [{"CallStatus": "paused"}, {"CallbackSource": "recording"}])
def test_other_texml_callbacks_are_ignored(fields: dict[str, str]) -> None:
    """A TeXML callback about something else is acknowledged."""
    assert isinstance(read(urlencode(fields).encode(), FORM), Ignored)


@pytest.mark.parametrize("kind", ["call.initiated", "call.answered"])
def test_a_call_that_begins_is_read_for_its_count(kind: str) -> None:
    """When it began, over which connection and whither; nothing of who calls."""
    begun = read(envelope(kind, PAYLOAD))
    assert isinstance(begun, Begun)
    assert (begun.session_id, begun.kind) == (PAYLOAD["call_session_id"], kind)
    assert (begun.connection_id, begun.to_country) == (PAYLOAD["connection_id"], "US")
    assert begun.at_ms == read_time_ms(PAYLOAD["start_time"])
    assert begun.destination == destination(PAYLOAD["to"], b"")
    assert begun.leg_id == PAYLOAD["call_leg_id"]


@pytest.mark.parametrize("status", ["queued", "initiated", "ringing", "answered", "in-progress"])
def test_a_texml_call_that_goes_on_is_read_for_its_count(status: str) -> None:
    """Whichever of these statuses the application asks for."""
    begun = read(urlencode(TEXML | {"CallStatus": status}).encode(), FORM)
    assert isinstance(begun, Begun)
    assert (begun.session_id, begun.connection_id) == ("session-2", "99")
    assert (begun.to_country, begun.at_ms) == ("US", read_time_ms(TEXML["CallInitiatedAt"]))


@pytest.mark.parametrize("direction", ["incoming", "inbound", "outgoing", None])
def test_only_what_is_said_to_go_out_was_dialled(direction: str | None) -> None:
    """An answer does not say it."""
    begun = read(envelope("call.initiated", PAYLOAD | {"direction": direction}))
    assert isinstance(begun, Begun)
    assert begun.is_dialled == (direction == "outgoing")
    form = TEXML | {"CallStatus": "ringing"} | ({"Direction": direction} if direction else {})
    told = read(urlencode(form).encode(), FORM)
    assert isinstance(told, Begun)
    assert told.is_dialled == (direction == "outgoing")


@pytest.mark.parametrize("missing", ["call_session_id", "connection_id"])
def test_a_beginning_that_says_too_little_is_ignored(missing: str) -> None:
    """Its end would not be known for its, or it is nobody's: its end counts."""
    without = {name: value for name, value in PAYLOAD.items() if name != missing}
    assert isinstance(read(envelope("call.initiated", without)), Ignored)


@pytest.mark.parametrize("kind", ["call.bridged", "message.received", "new.kind"])
def test_other_events_are_ignored_by_name(kind: str) -> None:
    """An event of no interest is acknowledged under its own name."""
    reading = read(envelope(kind, PAYLOAD))
    assert isinstance(reading, Ignored)
    assert reading.kind == kind


@pytest.mark.parametrize("session_id", [None, "", 5, [], {}, "a b", "x" * 200, "\u0000"])
def test_an_ended_call_without_a_session_is_unreadable(session_id: Any) -> None:
    """A call that ended, of which nobody can say which, is answered with what is wrong."""
    reading = read(envelope("call.hangup", PAYLOAD | {"call_session_id": session_id}))
    assert isinstance(reading, Unreadable)
    assert "session" in reading.reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"data": {}}',
        b'{"data": {"event_type": 5}}',
        b"\xff\xfe",
        b'{"data"',
        b"[" * 100_000,
        b'{"data":' * 5000,
    ],
)
def test_a_body_without_an_event_type_is_unreadable(body: bytes) -> None:
    """What has no event type is answered with what is wrong, and nothing raises."""
    assert isinstance(read(body), Unreadable)


JUNK: list[Any] = [None, 5, -1.5, True, [], {}, ["x"], {"a": {"b": 1}}, "x" * 5000, "\u202e", "nan"]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_a_bad_field_counts_as_absent(junk: Any) -> None:
    """Whatever stands in any other field, the call is scheduled."""
    payload = dict.fromkeys(PAYLOAD, junk) | {"call_session_id": "s", "cost": junk}
    reading = read(envelope("call.hangup", payload, id=junk, occurred_at=junk))
    assert isinstance(reading, Scheduling)
    assert reading.event.at_ms <= RECEIVED_MS


def test_a_call_cannot_end_in_the_future() -> None:
    """A time after the event was received is cut to when it was received."""
    assert scheduled("call.hangup", occurred_at="2999-01-01T00:00:00Z").event.at_ms == RECEIVED_MS
    assert scheduled("call.hangup", occurred_at="junk").event.at_ms == RECEIVED_MS


def test_an_event_is_named_by_its_id_or_its_body() -> None:
    """Same id, same name, whatever the attempt; no id, and the raw body names it."""
    first = scheduled("call.hangup")
    again = read(envelope("call.hangup", PAYLOAD).replace(b'"attempt": 1', b'"attempt": 2'))
    assert first.key == again.key
    without = envelope("call.hangup", PAYLOAD, id=None)
    keys = {read(without).key, read(without).key, read(without + b" ").key, first.key}
    assert len(keys) == 3
    assert scheduled("call.conversation.ended").key != first.key


@pytest.mark.parametrize(
    "content_type", ["text/html", "application/xml", "multipart/form-data", "junk"]
)
def test_another_content_type_is_not_read(content_type: str) -> None:
    """Only JSON and forms are read."""
    assert read(b"{}", content_type) == UnsupportedType()


@given(body=st.binary(max_size=500), content_type=st.sampled_from([JSON, FORM, None]))
def test_any_bytes_give_a_value(body: bytes, content_type: str | None) -> None:
    """Any bytes are a value or a refusal, never an exception."""
    assert isinstance(read(body, content_type), Scheduling | Ignored | Unreadable)


TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*PAYLOAD, "cost", "cost_parts", "total_cost", "occurred_at", "x"])


@given(
    kind=st.sampled_from(["call.hangup", "call.cost", "call.analyzed", "conference.ended"]),
    payload=TREE | st.dictionaries(NAMES, TREE, max_size=8),
    identity=TREE,
)
def test_wrong_types_anywhere_give_a_value(kind: str, payload: Any, identity: Any) -> None:
    """Any JSON in any place of a signed body is a value, and what is kept can be stored."""
    reading = read(envelope(kind, payload, id=identity))
    assert isinstance(reading, Scheduling | Ignored | Unreadable)
    if isinstance(reading, Scheduling):
        assert encode(reading.event)


@given(fields=st.dictionaries(st.sampled_from([*TEXML]), st.text(max_size=40)))
def test_any_form_gives_a_value(fields: dict[str, str]) -> None:
    """Any text in any field of a form is a value."""
    body = urlencode(fields, errors="surrogatepass").encode()
    assert isinstance(read(body, FORM), Scheduling | Ignored | Unreadable)
