"""Whatever Telnyx answers, what is kept of it names nobody and still has its shape."""

import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samples import assistant_call
from tests.world.envelopes import PERSONAL_DATA
from workers.analysis import decode_analysis
from workers.scrub import MOST_BYTES, masked, scrubbed

SEPARATORS = ["", " ", "-", ".", " (0) ", "/", ") ", "\u00a0", "–", "  "]
AROUND = st.text(st.characters(exclude_categories=["N", "Cs"]), max_size=12)
NAMES = st.sampled_from(
    ["cost", "record", "id", "cli", "transcript", "caller_name", "x", "event_name", "note", "rate"]
)


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, str]:
    """A phone number as people write it, and its digits."""
    groups = draw(st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=3, max_size=5))
    digits = "".join(groups)
    if not 7 <= len(digits) <= 15:
        digits = (digits * 7)[:12]
        groups = [digits[at : at + 4] for at in (0, 4, 8)]
    written = draw(st.sampled_from(["", "+", "00", "("])) + draw(st.sampled_from(SEPARATORS)).join(
        groups
    )
    return written, digits


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any JSON, with names that mean something to us and names that do not."""
    keys = st.one_of(NAMES, st.text(max_size=8))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
) | st.text(max_size=30)


def flat(value: Any) -> str:
    """Everything that the value says, names and all."""
    return msgspec.json.encode(value).decode()


def shape(value: Any) -> Any:
    """How the value is built, whatever is in it."""
    match value:
        case dict():
            return {str(place): shape(item) for place, item in enumerate(value.values())}
        case list():
            return [shape(item) for item in value]
        case _:
            return None


@given(body=st.binary(max_size=300))
def test_no_bytes_break_it(body: bytes) -> None:
    """Whatever bytes come, something that can be encoded comes out."""
    msgspec.json.encode(scrubbed(body))


@given(value=values(PLAIN))
def test_the_shape_is_kept(value: Any) -> None:
    """Objects and lists stay as they are, with as much in them."""
    assert shape(scrubbed(msgspec.json.encode(value))) == shape(value)


@given(value=values(PLAIN))
def test_scrubbing_is_done_once(value: Any) -> None:
    """What was scrubbed is not made less by another look, but for the lengths that are told."""
    once = scrubbed(msgspec.json.encode(value))
    assert shape(scrubbed(msgspec.json.encode(once))) == shape(once)


@given(number=numbers(), before=AROUND, after=AROUND, data=st.data())
def test_no_phone_number_survives(
    number: tuple[str, str], before: str, after: str, data: st.DataObject
) -> None:
    """A number is found in no value and no name, however it was written and wherever it stood."""
    written, digits = number
    text = before + written + after
    as_number = int(digits) if digits[0] != "0" else text
    leaf = st.sampled_from([text, as_number])
    value = data.draw(values(leaf))
    for body in (
        msgspec.json.encode(value),
        msgspec.json.encode({text: value}),
        text.encode(),
        b"<p>" + text.encode() + b"</p>",
    ):
        parts = re.split(r'[",:{}\[\]]', _LENGTHS.sub("", flat(scrubbed(body))))
        assert not [part for part in parts if digits in re.sub(r"\D", "", part)]


# What scrubbing itself tells.
_LENGTHS = re.compile(r"\[\d+ (characters|bytes)\]")


@given(user=st.from_regex(r"[a-z]{3,12}\.?[a-z]{0,8}", fullmatch=True), name=NAMES)
def test_no_address_survives(user: str, name: str) -> None:
    """Of a SIP or mail address the user goes, and the host stays."""
    for written in (f"sip:{user}@sip.example.com;transport=udp", f"{user}@example.com"):
        said = flat(scrubbed(msgspec.json.encode({name: f"{written}"})))
        assert f"{user}@" not in said


@pytest.mark.parametrize(
    "kept",
    [
        "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "12345678-1234-4234-8234-123456789012",
        "/v2/session_analysis/call-session/12345678-1234-4234-8234-123456789012",
        "2694492062593582591",
        "assistant-d9082b56-ba2d-4ad1-a50c-58661eb1463d",
        "2026-09-21T14:10:20.000000Z",
        "2026-09-21",
        "0.0942421",
        "1.687E-4",
        "ai_voice_assistant_minutes",
    ],
)
def test_what_names_nobody_is_kept(kept: str) -> None:
    """Ids, times and amounts are what one needs, and stay as they are."""
    assert masked(kept) == kept
    assert scrubbed(msgspec.json.encode({"id": kept})) == {"id": kept}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("+4915112345678", "…78"),
        ("tel:+1 (555) 123-4567 now", "tel:…67 now"),
        ("sip:ada@sip.example.com", "…@sip.example.com"),
        ("ask ada@example.com or 030/1234567", "ask …@example.com or …67"),
        ("\u0664\u0669\u0661\u0665\u0661\u0661\u0662\u0663", "…\u0662\u0663"),
    ],
)
def test_numbers_are_masked_where_they_stand(text: str, left: str) -> None:
    """What is around a number or an address stays."""
    assert masked(text) == left


def test_an_analysis_stays_one() -> None:
    """A real answer keeps what is to be looked at, and can be decoded again."""
    body = msgspec.json.encode(assistant_call("0.001", "1.5E-4"))
    kept = scrubbed(body)
    assert kept == msgspec.json.decode(body) | {"root": kept["root"]}
    assert decode_analysis(msgspec.json.encode(kept)) == decode_analysis(body)


def test_words_of_people_are_gone() -> None:
    """What is personal by its name goes with all below it; under an unknown name, sentences do."""
    people = {
        "messages": [{"role": "user", "content": "hello", "at": 5}],
        "caller_name": "Ada",
        "client_state": "aGVsbG8=",
        "sip_headers": {"X-Custom": "Ada", "deep": [["Lovelace"]]},
        "surprise": "my name is Ada",
        "code": "normal_clearing",
        "event_name": "a product of two words",
        "transcript": "",
        "amount": 1.5,
    }
    assert scrubbed(msgspec.json.encode(people)) == {
        "messages": [{"role": "[4 characters]", "content": "[5 characters]", "at": "[number]"}],
        "caller_name": "[3 characters]",
        "client_state": "[8 characters]",
        "sip_headers": {"X-Custom": "[3 characters]", "deep": [["[8 characters]"]]},
        "surprise": "[14 characters]",
        "code": "normal_clearing",
        "event_name": "a product of two words",
        "transcript": "",
        "amount": Decimal("1.5"),
    }


def test_what_the_simulated_telnyx_says_of_people_is_gone() -> None:
    """All the personal data that the world puts into its webhooks goes, under whatever name."""
    document = {f"x{place}": words for place, words in enumerate(PERSONAL_DATA)}
    said = flat(scrubbed(msgspec.json.encode({"messages": [document, [*PERSONAL_DATA]]})))
    assert [words for words in PERSONAL_DATA if words in said] == []


def test_amounts_keep_every_digit() -> None:
    """A number is kept as it was written, since that may be what broke us."""
    assert (
        flat(scrubbed(b'{"rate":1.10,"x":1e-30}')).replace("E", "e")
        == '{"rate":"1.10","x":"1e-30"}'
    )


def test_names_that_mask_alike_stay_apart() -> None:
    """Two numbers as names are still two entries."""
    assert scrubbed(b'{"+4915112345678":1,"+4915112345178":2}') == {"…78": 1, "…78'": 2}


def test_what_is_no_json_is_cut_and_masked() -> None:
    """Of an error page the beginning is kept; of half a document, without its sentences."""
    assert scrubbed(b"<html>call +4915112345678</html>") == "<html>call …78</html>"
    assert len(scrubbed(b"x" * 90_000)) == 2000
    half = b'{"transcript":"hello I am Ada","id":"abc","content":"and then'
    assert scrubbed(half) == (
        '{"transcript":"[16 characters]","id":"abc","content":"[9 characters]"'
    )


def test_too_much_is_only_counted() -> None:
    """A document of megabytes is not walked."""
    assert scrubbed(b"[" * (MOST_BYTES + 1)) == "[1048577 bytes]"


def test_a_deep_document_has_a_floor() -> None:
    """Nesting that no analysis has is cut off, whether JSON allows it or not."""
    assert "[deeper]" in flat(scrubbed(b"[" * 200 + b"]" * 200))
    scrubbed(b"[" * 100_000 + b"]" * 100_000)
