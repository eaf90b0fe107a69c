"""Of Telnyx's answer only named fields are read, tolerantly, and only harmless ones are kept."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.trees import guide, personal_record, wire
from workers.analysis import Unreadable, decode_analysis, encode_analysis

RECORD = personal_record("secret words")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"3", b"[]", b"{}", b'{"root": null}', b'{"root": []}', b"\xff", b"\x00"],
)
def test_what_has_no_root_is_unreadable(body: bytes) -> None:
    """Without a root node there is no analysis, and the refusal says so in words."""
    with pytest.raises(Unreadable) as refusal:
        decode_analysis(body)
    assert str(refusal.value)


@pytest.mark.parametrize("opening", [b"[", b'{"root":', b'{"root":{"children":[', b'{"a":'])
def test_endless_nesting_is_unreadable(opening: bytes) -> None:
    """A body made to overflow the stack is refused like any other junk."""
    with pytest.raises(Unreadable):
        decode_analysis(opening * 100_000)


def test_deep_nesting_beside_the_tree_is_no_crash() -> None:
    """A record may hold anything; what is not read is skipped or refused, never a crash."""
    body = b'{"root":{"record":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}}"
    with pytest.raises(Unreadable):
        decode_analysis(body)


@given(st.binary(max_size=300))
def test_bytes_are_an_analysis_or_unreadable(body: bytes) -> None:
    """No other error ever comes out."""
    try:
        decode_analysis(body)
    except Unreadable:
        return


def test_only_named_fields_are_read() -> None:
    """A transcript in a record gets no further than the decoder."""
    analysis = decode_analysis(wire(guide(), record=RECORD, messages=["secret words"]))
    assert "secret" not in repr(analysis)


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_kept_holds_nothing_personal(masked: bool) -> None:
    """Names, headers, client state and words are gone; numbers too, unless a setting wants them."""
    analysis = decode_analysis(wire(guide(), record=RECORD))
    kept = encode_analysis(analysis, masked=masked)
    assert b"secret" not in kept
    assert b"custom_headers" not in kept
    assert (b"4915112345678" in kept) is not masked
    record = msgspec.json.decode(kept)["root"]["record"]
    assert record["cli"] == ("…78" if masked else "+4915112345678")
    assert record["rate"] == "0.002"


def test_a_sip_address_is_masked_wherever_it_stands() -> None:
    """A caller is not always a number, and not always text."""
    for party in (
        "sip:ada@example.com",
        4915112345678,
        ["+4915112345678"],
        {"n": "+4915112345678"},
    ):
        analysis = decode_analysis(wire(guide(), record={"cli": party, "cld": None}))
        kept = encode_analysis(analysis)
        assert b"ada" not in kept
        assert b"112345" not in kept


def test_keeping_twice_changes_nothing() -> None:
    """What was kept is read and kept again as it is."""
    kept = encode_analysis(decode_analysis(wire(guide(), record=RECORD)))
    assert encode_analysis(decode_analysis(kept)) == kept


def test_an_odd_field_keeps_the_rest() -> None:
    """Where one part has a wrong type, all others are still read."""
    data = msgspec.json.decode(wire(guide(), record=RECORD))
    data["root"]["children"][0]["cost"] = "free"
    data["meta"] = []
    analysis = decode_analysis(msgspec.json.encode(data))
    assert analysis.meta is None
    assert analysis.root.children is not None
    assert [child.cost is None for child in analysis.root.children] == [True, False, False, False]
    assert "secret" not in repr(analysis)
