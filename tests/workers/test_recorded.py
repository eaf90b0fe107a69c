"""The public file of sessions, read: a line, an odd line, and no line."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Call
from tests.samples import END_MS, START_MS, analysis, event, node, session
from tests.workers.detection.calls import BEGIN_MS, MINUTE_MS, line
from workers.analysis import Unreadable
from workers.backtest import Backtest
from workers.history import line_of
from workers.policy import BUILT_IN
from workers.recorded import Recorded, read_line

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def read(document: Any) -> Recorded:
    return read_line(msgspec.json.encode(document))


def changed(*path: str, to: Any) -> dict[str, Any]:
    """A sound line with one value changed, or taken away."""
    document = line(minutes=2)
    inner: Any = document
    for name in path[:-1]:
        inner = inner[name]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return document


def test_a_line_tells_the_call_and_its_cost() -> None:
    """Whatever the webhook says of the call, and the tree as Telnyx' answer."""
    document = line(
        7,
        minutes=2,
        connection_id=1234,
        assistant_id="a1",
        direction="incoming",
        duration_sec=119,
    )
    found = read(document)
    assert found.call == Call(
        "s7",
        start_ms=BEGIN_MS - 2 * MINUTE_MS,
        end_ms=BEGIN_MS,
        direction="incoming",
        connection_id="1234",
        assistant_id="a1",
        to_number="+4930123456",
        to_country="DE",
        duration_seconds=119,
    )
    assert found.tree.total == Decimal("0.2")
    assert found.called == "+4930123456"


def test_the_webhook_names_the_session() -> None:
    """An analysis may have been asked for by another id."""
    assert read(changed("webhook", "call_session_id", to="other")).call.session_id == "other"


def test_what_export_writes_is_read_again() -> None:
    """The same call, although its numbers are masked and its countries stand beside them."""
    ended = event(
        start_ms=START_MS,
        leg_id="leg-1",
        connection_id="7267",
        assistant_id="a1",
        to_number="…21",
        to_country="+882",
        direction="inbound",
        duration_seconds=118,
    )
    body = msgspec.json.encode(analysis(node("call-session", "6.13", id="s", call_sec=118)))
    found = read_line(line_of(session(ended), body))
    assert found.call == Call(
        "s",
        start_ms=START_MS,
        end_ms=END_MS,
        direction="inbound",
        connection_id="7267",
        assistant_id="a1",
        to_number="…21",
        to_country="+882",
        duration_seconds=118,
    )
    assert found.tree.total == Decimal("6.13")


@pytest.mark.parametrize("name", ["call_session_id", "connection_id", "to", "direction"])
def test_any_field_of_the_webhook_may_be_missing(name: str) -> None:
    """Or be of another kind than Telnyx sends; the session's id is then the tree's."""
    odds: tuple[Any, ...] = (..., None, 5.5, [], {"a": 1})
    for odd in odds:
        found = read(changed("webhook", name, to=odd))
        assert found.call.session_id == "s0"
        assert found.tree.total == Decimal("0.2")


@pytest.mark.parametrize(
    ("country", "read_as"),
    [("FR", "FR"), ("+882", "+882"), ("fr", "DE"), ("a:b/c", "DE"), ("", "DE"), (7, "DE")],
)
def test_only_countries_are_countries(country: Any, read_as: str) -> None:
    """What else stands there is no country: the number may tell it."""
    assert read(changed("webhook", "to_country", to=country)).call.to_country == read_as


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("analysis", "root", "children"), None),
        (("analysis", "root", "children"), 5),
        (("analysis", "root", "record"), None),
        (("analysis", "root", "record"), "none"),
        (("analysis", "root", "cost"), []),
        (("analysis", "cost"), "free"),
        (("analysis", "meta"), ...),
        (("analysis", "cost", "total"), 0.2),
        (("analysis", "cost", "total"), "2.0E-1"),
    ],
)
def test_odd_analyses_are_read(path: tuple[str, ...], odd: Any) -> None:
    """No children, no records, money as numbers: what is odd in it is left out."""
    found = read(changed(*path, to=odd))
    assert found.tree.events[0].product == "call-session"
    assert 0 <= found.tree.total <= Decimal("0.2")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{", "not a readable JSON document"),
        (b"\xff\xfe", "not a readable JSON document"),
        (b'{"started_at": "", "ended_at": "", "analysis": ' + b"[" * 10**5, "not a"),
        (b"[]", "not a session: Expected `object`, got `array`"),
        (msgspec.json.encode(changed("webhook", to=...)), "missing required field `webhook`"),
        (msgspec.json.encode(changed("ended_at", to=5)), "`$.ended_at`"),
        (msgspec.json.encode(changed("ended_at", to="soon")), "2026-03-14T15:09:26Z"),
        (msgspec.json.encode(changed("started_at", to="")), "2026-03-14T15:09:26Z"),
        (msgspec.json.encode(changed("ended_at", to="9999-12-31T23:59:59Z")), "2026-03-14"),
        (msgspec.json.encode(changed("analysis", to=None)), "without a root node"),
        (msgspec.json.encode(changed("analysis", "root", to=[])), "without a root node"),
    ],
)
def test_what_is_no_session_says_why(document: bytes, words: str) -> None:
    """Not JSON, no webhook, no times, no tree: in words, and never another error."""
    with pytest.raises(Unreadable) as caught:
        read_line(document)
    assert words in str(caught.value)


@given(
    st.sampled_from(
        [
            ("started_at",),
            ("webhook",),
            ("webhook", "to"),
            ("webhook", "duration_sec"),
            ("analysis",),
            ("analysis", "root"),
            ("analysis", "root", "children"),
            ("analysis", "cost", "total"),
            ("analysis", "meta", "event_count"),
        ]
    ),
    JSON,
)
def test_anything_is_read_or_refused_in_words(path: tuple[str, ...], odd: Any) -> None:
    """Whatever stands in a line, it is a session or it is not."""
    with suppress(Unreadable):
        found = read(changed(*path, to=odd))
        assert found.call.duration_seconds >= 0
        assert found.tree.events


@pytest.mark.parametrize(
    ("to", "called"), [("…21", None), ("+4915112345678", "+4915112345678"), (None, None)]
)
def test_a_masked_number_is_nobodys(to: str | None, called: str | None) -> None:
    """Such as "…21" are many: calls to them are not calls to one number."""
    assert read(changed("webhook", "to", to=to)).called == called


def test_the_last_year_that_is_read_can_be_judged() -> None:
    """All that looks ahead of a call finds a calendar there."""
    judged = Backtest(BUILT_IN).session(read(changed("ended_at", to="9998-12-31T23:59:59Z")))
    assert judged.total == Decimal("0.2")
