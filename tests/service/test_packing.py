"""Packed documents come back as they were, and junk is said to be junk."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys, packing
from service.packing import EVENTS, pack, unpack
from service.records import Event, decode_event, encode, encode_event
from service.store import Store
from tests.samples import END_MS, scheduling

TYPICAL = Event(
    kind="call.conversation.ended",
    at_ms=END_MS,
    ends=True,
    leg_id="d2c34f12-e8ae-4da6-9f55-0abad7f58a6e",
    connection_id="2455640513989476173",
    assistant_id="assistant-a17f1e02-c701-4375-8a5f-f3f27f8c7821",
    conversation_id="6f1d8ad4-cd21-4764-9e1d-f7ed401cf753",
    from_number="…47",
    to_number="…76",
    from_country="US",
    to_country="DE",
    cause="customer_disconnect",
    model="moonshotai/Kimi-K2.6",
    duration_seconds=211,
)


@given(document=st.binary(max_size=3000), dictionary=st.sampled_from(list(packing._DICTIONARIES)))
def test_what_is_packed_comes_back(document: bytes, dictionary: int) -> None:
    """Whatever the document, packing loses nothing."""
    assert unpack(pack(document, dictionary)) == document


@given(document=st.binary().map(lambda rest: b"{" + rest))
def test_what_is_plain_passes(document: bytes) -> None:
    """A JSON object that is not packed, as in tests and by hand, is read as it is."""
    assert unpack(document) == document


@given(junk=st.binary().filter(lambda junk: junk[:1] != b"{"))
def test_junk_is_a_value_error(junk: bytes) -> None:
    """Bytes that nobody packed are either refused as such or a document of some kind."""
    try:
        unpack(junk)
    except ValueError:
        return
    assert junk[0] in packing._DICTIONARIES


@pytest.mark.parametrize(
    "junk", [b"", b"\x09", b"\x01\xff\xff", pack(encode(TYPICAL), EVENTS)[:-4]]
)
def test_what_cannot_be_read_is_said(junk: bytes) -> None:
    """Nothing, a newer dictionary, no deflate, a part of one."""
    with pytest.raises(ValueError, match="packed"):
        unpack(junk)


def test_what_grows_beyond_measure_is_refused() -> None:
    """A few bytes cannot become many megabytes."""
    with pytest.raises(ValueError, match="cut off"):
        unpack(pack(b"{" + b" " * 2_000_000, EVENTS))


def test_a_typical_event_takes_a_third() -> None:
    """The event that an AI call's end brings fits two pieces."""
    packed = encode_event(TYPICAL)
    assert decode_event(packed) == TYPICAL
    assert len(packed) <= 128 < len(encode(TYPICAL)) / 3


def test_dictionaries_never_change() -> None:
    """What is stored is only readable with the very dictionary that it was packed with."""
    digests = {
        number: hashlib.sha256(words).hexdigest()[:16]
        for number, words in packing._DICTIONARIES.items()
    }
    assert digests == {
        1: "83f91adc2df2b5c2",
        2: "25db8f134abe962c",
        3: "a9973a484683758d",
        4: "08dd1c904119326d",
    }


@pytest.mark.anyio
async def test_events_are_put_together_from_their_pieces(redis: Redis) -> None:
    """A session with events of all lengths reads as it was recorded, in one compact block."""
    store = Store(redis, retention_ms=1000)
    events = [
        scheduling(key=f"k{number}", connection_id="x" * number, leg_id=str(number) * 11)
        for number in range(0, 300, 30)
    ]
    for each in events:
        await store.record(each, now_ms=END_MS)
    session = await store.session("s")
    assert session
    by_key = sorted(events, key=lambda each: each.key)
    assert list(session.events) == [each.event for each in by_key]
    assert await redis.object("encoding", keys.session_key("s")) == b"listpack"
