"""Pages of Telnyx's lists: what a row tells of a call, and that no row breaks the others."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import LISTED, Scheduling, read_event, read_time_ms
from service.records import encode
from tests.world import envelopes
from tests.world.calls import ANOMALIES, KINDS, CallGenerator
from tests.world.envelopes import PERSONAL_DATA, Delivery
from tests.world.lists import Attempt, DeliveryLog
from tests.world.webhooks import events_for
from workers.analysis import Unreadable
from workers.listings import (
    DETAIL_RECORD,
    Listing,
    Row,
    decode_listing,
    fingerprint,
    read_delivery,
    read_record,
)

NOW_MS = 1_790_000_000_000
TYPES = ("ai-voice-assistant", "call-control", "sip-trunking", "webrtc")
# As seen on a live account; its `session_id` is not that of the call.
WEBRTC = {
    "finished_at": "2024-12-11T17:43:24Z",
    "call_sec": 50,
    "dest_number": "+18008648331",
    "cld": "+18008648331",
    "id": "4b679aae-b7e7-11ef-9fe0-02420aef3920",
    "direction": "outbound",
    "cli": "+15127376291",
    "telnyx_leg_id": "4b679aae-b7e7-11ef-9fe0-02420aef3920",
    "session_id": "63149763-3850-4f9a-b9cf-7babe1be98f8",
    "record_type": "webrtc_detail_record",
    "telnyx_session_id": "4b679edc-b7e7-11ef-adfb-02420aef3920",
    "connection_id": "2519141575053804765",
    "started_at": "2024-12-11T17:42:30Z",
    "caller_number": "+1512-737-6291",
    "caller_name": "Erika Mustermann",
}

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def delivery(webhook: Any, **fields: Any) -> dict[str, Any]:
    times = {"started_at": "2026-03-17T10:00:00.000Z", "finished_at": "2026-03-17T10:00:15.000Z"}
    return {"record_type": "webhook_delivery", "webhook": webhook, **times, **fields}


def of_delivery(row: Any) -> Row:
    return read_delivery(row, now_ms=NOW_MS, masked=True)


def of_record(row: Any, record_type: str = "call-control") -> Row:
    return read_record(row, record_type, now_ms=NOW_MS, masked=True)


def told(row: Row) -> Scheduling:
    assert row.told
    return row.told


# --- pages ----------------------------------------------------------------------------------------


def test_a_page_has_rows_and_says_how_many_pages_there_are() -> None:
    """What is no row is left to whoever reads the rows; figures that make no sense are none."""
    body = b'{"data": [{"a": 1}, 2], "meta": {"total_pages": 3}}'
    assert decode_listing(body) == Listing(({"a": 1}, 2), 3)
    for pages in (b"0", b"-1", b"true", b'"3"', b"null"):
        assert decode_listing(b'{"data": [], "meta": {"total_pages": %b}}' % pages) == Listing(())
    assert decode_listing(b'{"data": []}') == Listing(())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data": {}}', b"\xff", b"[" * 100_000, b'{"data": null}']
)
def test_what_is_no_page_is_unreadable(body: bytes) -> None:
    """Without a list there is nothing to go on."""
    with pytest.raises(Unreadable):
        decode_listing(body)


@given(junk)
def test_no_row_breaks_the_reading(row: Any) -> None:
    """Whatever a row is, it is read, of no interest, or broken."""
    for read in (of_delivery(row), of_delivery(delivery(row)), of_record(row)):
        assert read.told is None
        assert read.broken or not read.unless_told


@given(st.sampled_from(TYPES), st.data())
def test_no_field_breaks_the_reading(record_type: str, data: st.DataObject) -> None:
    """Whatever stands in a record's fields, it tells of its session or is broken."""
    names = st.sampled_from(sorted(WEBRTC))
    row = {**WEBRTC, **data.draw(st.dictionaries(names, junk, max_size=6))}
    read = of_record(row, record_type)
    assert read.broken is (read.told is None)
    if read.told:
        assert read.told.event.at_ms <= NOW_MS
        encode(read.told.event)


def test_the_same_rows_have_the_same_mark() -> None:
    """A list that does not turn its pages shows."""
    assert fingerprint(({"a": 1},)) == fingerprint(({"a": 1},)) != fingerprint(({"a": 2},))


# --- webhook deliveries ---------------------------------------------------------------------------


def events() -> list[Delivery]:
    generator = CallGenerator(3)
    calls = [generator.make(kind) for kind in (*KINDS, *ANOMALIES)]
    return [event for call in calls for event in events_for(call, cost="new")]


def rows_of(*deliveries: Delivery) -> list[dict[str, Any]]:
    log = DeliveryLog()
    log.never_arrived(deliveries)
    return log.rows()


def test_a_listed_event_is_the_same_as_its_webhook() -> None:
    """Key, session and event are what the web process would have read of the very bytes."""
    for event in events():
        [row] = rows_of(event)
        read = of_delivery(row)
        webhook = read_event(event.body(), event.content_type, received_ms=NOW_MS)
        if isinstance(webhook, Scheduling):
            assert read.told == webhook
            assert not read.unless_told
        else:
            assert read == Row(read.at_ms)


def test_the_older_shape_and_a_wrapped_one_are_the_same_event() -> None:
    """However the list wraps the webhook, its id makes it one event."""
    [call] = [CallGenerator(3).make("sip_outbound")]
    older = envelopes.cost(call, call.legs[0], after_seconds=9, older=True)
    newer = envelopes.cost(call, call.legs[0], after_seconds=9)
    [plain] = rows_of(newer)
    wrapped = {**plain, "webhook": {"data": dict(newer.data), "meta": {"attempt": 2}}}
    keys = {told(of_delivery(row)).key for row in (plain, wrapped, *rows_of(older))}
    assert len(keys) == 1


def test_nothing_personal_of_a_listed_webhook_is_kept() -> None:
    """Transcripts, names, client state and headers end in the reader, as they do for webhooks."""
    reads = [of_delivery(row) for row in rows_of(*events())]
    kept = b"".join(encode(read.told.event) for read in reads if read.told)
    assert not [text for text in PERSONAL_DATA if text.encode() in kept]
    # Of satellite phones the calling code is kept, as other numbers' country is.
    assert not re.search(rb"\+\d{4}", kept)


def test_a_delivery_is_when_its_last_attempt_ended() -> None:
    """The end of the last attempt; its start, or the event's own time, where that is missing."""
    [event] = [e for e in events() if e.event_type == "conference.ended"][:1]
    finished, started = "2026-03-17T10:00:15.000Z", "2026-03-17T10:00:00.000Z"
    assert of_delivery(delivery(dict(event.data))).at_ms == read_time_ms(finished)
    row = delivery(dict(event.data), finished_at=None)
    assert of_delivery(row).at_ms == read_time_ms(started)
    row = delivery(dict(event.data), finished_at=None, started_at="soon")
    assert of_delivery(row).at_ms == told(of_delivery(row)).event.at_ms


def test_an_event_without_an_id_counts_only_for_an_unknown_session() -> None:
    """Its webhook was known by its very bytes, which the list does not give back."""
    payload = {"call_session_id": "s"}
    row = delivery({"event_type": "call.hangup", "payload": payload})
    read = of_delivery(row)
    assert read.unless_told
    assert told(read).key.startswith(LISTED)
    assert of_delivery(row) == read


@pytest.mark.parametrize("as_text", [False, True])
def test_a_listed_texml_callback_is_read_as_the_form_that_it_was(as_text: bool) -> None:
    """As fields or as the body itself; it names no event, so it counts for unknown sessions."""
    call = CallGenerator(3).make("sip_outbound")
    form = envelopes.texml_status(call, call.legs[0])
    webhook = form.body().decode() if as_text else {**form.data, "CallerId": None}
    read = of_delivery(delivery(webhook))
    assert read.unless_told
    assert (told(read).session_id, told(read).event.kind) == (call.session_id, form.event_type)


def test_a_webhook_as_text_is_read_too() -> None:
    """Where the list gives the body as it was sent."""
    [event] = [e for e in events() if e.event_type == "call.hangup"][:1]
    read = of_delivery(delivery(event.body().decode()))
    assert told(read).key == told(of_delivery(delivery(dict(event.data)))).key


@pytest.mark.parametrize(
    "webhook", [None, 7, [], {}, "", {"event_type": "call.hangup", "payload": {}}]
)
def test_a_delivery_that_cannot_be_read_is_broken(webhook: Any) -> None:
    """No webhook in it, or one of which nothing can be made."""
    assert of_delivery(delivery(webhook)).broken


def test_attempts_of_one_delivery_are_one_event() -> None:
    """However often it was tried, and however often it is listed."""
    [event] = [e for e in events() if e.event_type == "call.hangup"][:1]
    log = DeliveryLog()
    for tries in (1, 3):
        log.add(event, [Attempt("https://x.test", 503, n, n + 1) for n in range(tries)])
    first, second = (told(of_delivery(row)) for row in log.rows())
    assert (first.session_id, first.key) == (second.session_id, second.key)


# --- detail records -------------------------------------------------------------------------------


def test_a_record_tells_of_an_ended_call() -> None:
    """Session, leg, times, parties, direction: as a hangup would, under a kind of its own."""
    read = of_record(WEBRTC, "webrtc")
    event = told(read).event
    assert told(read).session_id == WEBRTC["telnyx_session_id"]
    assert (event.kind, event.ends, event.leg_id) == (DETAIL_RECORD, True, WEBRTC["id"])
    assert event.at_ms == read.at_ms == read_time_ms(WEBRTC["finished_at"])
    assert event.start_ms == read_time_ms(WEBRTC["started_at"])
    assert (event.from_number, event.to_number) == ("…91", "…31")
    assert (event.direction, event.duration_seconds) == ("outbound", 50)
    assert event.connection_id == WEBRTC["connection_id"]
    assert read.unless_told
    assert not told(read).pulls


def test_numbers_are_whole_where_a_setting_says_so() -> None:
    """As for webhooks."""
    read = read_record(WEBRTC, "webrtc", now_ms=NOW_MS, masked=False)
    assert told(read).event.to_number == "+18008648331"


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_is_told_of_by_its_records(kind: str) -> None:
    """Each kind of call leaves a record that names its session and its end, in all its types."""
    call = CallGenerator(5).make(kind)
    nodes = [(name, node) for name in TYPES for node in call.of_type(name)]
    assert nodes
    for name, node in nodes:
        event = told(of_record(dict(node.record), name)).event
        assert told(of_record(dict(node.record), name)).session_id == call.session_id
        assert abs(event.at_ms - call.end.timestamp() * 1000) < 1000 * call.duration_seconds + 1000
        assert event.leg_id in {leg.leg_id for leg in call.legs}
        assert (event.conversation_id is not None) is (name == "ai-voice-assistant")


def test_a_record_has_one_key_however_often_it_is_listed() -> None:
    """And another than that of another leg, or of another type."""
    later = {**WEBRTC, "cost": "0.004", "billed_sec": 120}
    other = {**WEBRTC, "id": "x", "telnyx_leg_id": "x"}
    rows = [(WEBRTC, "webrtc"), (later, "webrtc"), (other, "webrtc"), (WEBRTC, "sip-trunking")]
    keys = [told(of_record(row, name)).key for row, name in rows]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert all(key.startswith(LISTED) for key in keys)


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"finished_at": None, "completed_at": "2024-12-11T17:43:20Z"}, "2024-12-11T17:43:20Z"),
        ({"finished_at": "", "ended_at": "2024-12-11T10:43:20-07:00"}, "2024-12-11T17:43:20Z"),
        ({"finished_at": None}, "2024-12-11T17:43:20Z"),
        ({"finished_at": None, "call_sec": None, "duration_sec": 50}, "2024-12-11T17:43:20Z"),
    ],
)
def test_the_end_is_found_under_every_name(fields: dict[str, Any], end: str) -> None:
    """Or follows from start and duration."""
    assert of_record({**WEBRTC, **fields}).at_ms == read_time_ms(end)


@pytest.mark.parametrize(
    "fields",
    [
        {"finished_at": None, "call_sec": None},
        {"finished_at": None, "call_sec": -1},
        {"finished_at": None, "call_sec": 10**9},
        {"finished_at": None, "started_at": None},
        {"telnyx_session_id": ""},
        {"telnyx_session_id": "a b"},
    ],
)
def test_a_record_without_end_or_session_is_broken(fields: dict[str, Any]) -> None:
    """It proves of no call that it ended."""
    assert of_record({**WEBRTC, **fields}).broken


def test_a_call_cannot_have_ended_in_the_future() -> None:
    """A clock ahead of ours counts as now."""
    read = of_record({**WEBRTC, "finished_at": "2199-01-01T00:00:00Z"})
    assert read.at_ms == told(read).event.at_ms == NOW_MS


def test_sessions_are_named_by_either_field() -> None:
    """Some types say `call_session_id`; a leg is the record's own id only in some."""
    row = {name: value for name, value in WEBRTC.items() if name not in _NAMES}
    read = of_record({**row, "call_session_id": "s", "call_leg_id": "leg"})
    assert (told(read).session_id, told(read).event.leg_id) == ("s", "leg")
    for record_type, leg in (("sip-trunking", WEBRTC["id"]), ("call-control", None)):
        read = of_record({**row, "call_session_id": "s"}, record_type)
        assert told(read).event.leg_id == leg


_NAMES = ("telnyx_session_id", "telnyx_leg_id")


def test_a_listing_survives_the_wire() -> None:
    """Rows are JSON of any kind, and none is lost on the way."""
    rows: list[Any] = [WEBRTC, None, 3, "x", []]
    assert decode_listing(msgspec.json.encode({"data": rows})).rows == tuple(rows)
