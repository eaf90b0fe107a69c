"""The public file of sessions: what a line holds, and that nothing personal gets into it."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import Scheduling, read_event
from service.records import Event, Reported, State
from tests.samples import END_MS, START_MS, analysis, event, node, session
from workers.analysis import Unreadable
from workers.history import line_of

LEG = node("sip-trunking", "6.13", id="leg", cli="+4915112345678", cld="+13129457421")
BODY = msgspec.json.encode(analysis(node("call-session", "0", LEG, id="s")))


def read(line: bytes) -> Any:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return msgspec.json.decode(line)


def test_a_line_holds_the_call_and_its_cost() -> None:
    """Times, the payload of the webhook as far as it was kept, the analysis; numbers masked."""
    found = session(
        event(
            "call.conversation.ended",
            at_ms=END_MS - 400,
            assistant_id="assistant-1",
            conversation_id="conv-1",
            model="openai/gpt-4o",
            duration_seconds=119,
        ),
        event(
            start_ms=START_MS,
            leg_id="leg-1",
            connection_id="7267",
            from_number="+4915112345678",
            to_number="…21",
            from_country="DE",
            to_country="US",
            direction="inbound",
            cause="normal_clearing",
        ),
        state=State.VERDICT,
    )
    line = read(line_of(found, BODY))
    assert line == {
        "started_at": "2026-09-21T14:11:20.000Z",
        "ended_at": "2026-09-21T14:13:20.000Z",
        "webhook": {
            "call_session_id": "s",
            "call_leg_id": "leg-1",
            "connection_id": "7267",
            "assistant_id": "assistant-1",
            "conversation_id": "conv-1",
            "from": "…78",
            "to": "…21",
            "from_country": "DE",
            "to_country": "US",
            "direction": "inbound",
            "start_time": "2026-09-21T14:11:20.000Z",
            "occurred_at": "2026-09-21T14:13:20.000Z",
            "hangup_cause": "normal_clearing",
            "llm_model": "openai/gpt-4o",
            "duration_sec": 119,
        },
        "analysis": line["analysis"],
    }
    record = line["analysis"]["root"]["children"][0]["record"]
    assert (record["cli"], record["cld"]) == ("…78", "…21")
    assert line["analysis"]["cost"] == {"total": "6.13", "currency": "USD"}


def test_what_is_not_known_is_not_there() -> None:
    """Without a start the duration tells it; absent values have no keys."""
    found = session(event(duration_seconds=60), state=State.VERDICT)
    line = read(line_of(found, BODY))
    assert line["started_at"] == "2026-09-21T14:12:20.000Z"
    assert set(line["webhook"]) == {"call_session_id", "occurred_at", "duration_sec"}


def test_what_is_no_analysis_is_refused() -> None:
    """A line has its cost or is none."""
    with pytest.raises(Unreadable):
        line_of(session(), b"[]")


PRINTABLE = st.characters(exclude_categories=("C", "Z"))
TEXT = st.text(PRINTABLE, min_size=1, max_size=30).filter(str.isprintable)
EVENTS = st.builds(
    Event,
    kind=st.sampled_from(["call.hangup", "call.cost", "texml.completed"]),
    at_ms=st.integers(END_MS - 1000, END_MS),
    ends=st.booleans(),
    start_ms=st.none() | st.integers(START_MS, START_MS + 1000),
    leg_id=st.none() | TEXT,
    connection_id=st.none() | TEXT,
    assistant_id=st.none() | TEXT,
    to_number=st.none() | TEXT,
    to_country=st.none() | st.sampled_from(["DE", "+882"]),
    direction=st.sampled_from([None, "inbound", "outbound"]),
    cause=st.none() | TEXT,
    model=st.none() | TEXT,
    reported=st.none() | st.builds(Reported, total=st.just(Decimal("0.10"))),
    duration_seconds=st.none() | st.integers(1, 10_000),
)


@given(events=st.lists(EVENTS, min_size=1, max_size=4))
def test_the_webhook_says_of_the_call_what_was_stored(events: list[Event]) -> None:
    """Read as a webhook again, a line's payload makes the same call, but for the number of legs."""
    found = session(*events, state=State.VERDICT)
    line = read(line_of(found, BODY))
    body = msgspec.json.encode({"event_type": "call.hangup", "payload": line["webhook"]})
    again = read_event(body, None, received_ms=END_MS)
    assert isinstance(again, Scheduling)
    call, told = found.call, session(again.event).call
    same = ("start_ms", "end_ms", "direction", "connection_id", "assistant_id", "duration_seconds")
    assert [getattr(told, name) for name in same] == [getattr(call, name) for name in same]
    assert line["webhook"].get("to_country") == call.to_country
