"""Every status, header and body of Telnyx has one meaning, and none is an accident."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.trees import guide, wire
from workers.answer import (
    Invalid,
    Meaning,
    NotReady,
    RateLimit,
    RateLimited,
    Ready,
    Refused,
    Transient,
    clean,
    meaning_of,
    rate_limit_of,
)
from workers.tree import build_tree

NOW = datetime(2026, 3, 17, 10, 0, 0, tzinfo=UTC)
KEY = "KEY0189ABCDEF0123456789ABCDEF01234567_abcdefGHIJKLmnopqrstuv"


def read(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Meaning:
    return meaning_of(status, headers or {}, body, now=NOW)


def errors(**fields: Any) -> bytes:
    return msgspec.json.encode({"errors": [fields]})


def limited(**headers: str) -> RateLimited:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    meaning = read(429, headers=named)
    assert isinstance(meaning, RateLimited)
    return meaning


def test_a_tree_is_ready() -> None:
    """A 200 with a tree is an analysis."""
    meaning = read(200, wire(guide()))
    assert isinstance(meaning, Ready)
    assert str(build_tree(meaning.analysis).total) == "0.2128"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"<html>", b'{"root": 1}', b"\xff\xfe", b'{"root": {']
)
def test_an_unreadable_200_teaches_nothing(body: bytes) -> None:
    """A 200 whose body is no tree is asked for again, for nothing was learnt."""
    assert isinstance(read(200, body), Transient)


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_a_tree_of_absurd_depth_is_unreadable(depth: int) -> None:
    """Nesting beyond what a decoder bears is an unreadable body, not a crash."""
    assert isinstance(read(200, b'{"root": {"children": [' * depth), Transient)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, NotReady) for status in (404, 409)),
        *((status, Refused) for status in (401, 402, 403)),
        *((status, Invalid) for status in (400, 405, 406, 410, 414, 422, 451, 499)),
        *((status, Transient) for status in (500, 502, 503, 504, 520, 599)),
        *((status, Transient) for status in (301, 302, 303, 307, 308, 304)),
        *((status, Transient) for status in (408, 425, 100, 201, 202, 204, 206, 0, 600, 999)),
        (429, RateLimited),
    ],
)
def test_the_status_decides(status: int, kind: type) -> None:
    """Each status has its meaning, whatever the error code says: Telnyx's codes are ambiguous."""
    for code in ("10011", "10005", 10011, None):
        assert type(read(status, errors(code=code, title="Too many requests"))) is kind


def test_the_names_are_those_of_the_metrics() -> None:
    """Each meaning has the short name that it is counted under."""
    names = [read(s).name for s in (404, 429, 401, 500, 400)] + [read(200, wire(guide())).name]
    assert names == ["not_ready", "rate_limited", "refused", "transient", "invalid", "ready"]


def test_an_account_without_funds_is_refused_in_its_own_words() -> None:
    """A 403 carries what Telnyx says, so that the operator reads "disabled" and not "403"."""
    meaning = read(403, errors(code="20012", title="Account is disabled D17"))
    assert isinstance(meaning, Refused)
    assert meaning.reason == "403 Forbidden: 20012, Account is disabled D17"


def test_both_shapes_of_errors_are_read() -> None:
    """Session Analysis says `message` where the rest of Telnyx says `title`."""
    as_message = read(404, errors(code="10005", message="Event not found", detail="no such"))
    as_title = read(404, errors(code="10005", title="Event not found", detail="no such"))
    assert as_message == as_title
    assert isinstance(as_message, NotReady)
    assert as_message.reason == "404 Not Found: 10005, Event not found, no such"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502 Bad gateway</html>",
        b'{"errors": "x"}',
        b'{"errors": [1, null, []]}',
        b'{"errors": [{"code": {"a": 1}, "title": ["x"], "detail": null}]}',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_body_without_errors_gives_the_status_in_words(body: bytes) -> None:
    """A proxy's page is never repeated as a reason."""
    meaning = read(502, body)
    assert isinstance(meaning, Transient)
    assert meaning.reason == "502 Bad Gateway"


def test_a_reason_is_short_and_of_one_line() -> None:
    """A reason cannot flood or forge a log line, or turn its reading direction."""
    meaning = read(400, errors(detail="a\x00b\r\n\x1b[31m\u202egnp" + "word " * 1000))
    assert isinstance(meaning, Invalid)
    assert meaning.reason.isprintable()
    assert len(meaning.reason) == 200


@pytest.mark.parametrize(
    "text",
    [f"No such key {KEY}", f"Bearer {KEY} is wrong", f"key={KEY}!", "token " + "a1" * 30],
)
def test_a_reason_holds_no_secret(text: str) -> None:
    """A key that Telnyx repeats in its error does not get into a log."""
    meaning = read(401, errors(detail=text))
    assert isinstance(meaning, Refused)
    assert "ABCDEF" not in meaning.reason
    assert "a1a1" not in meaning.reason
    assert "[hidden]" in meaning.reason


def test_a_reason_keeps_ids_and_masks_numbers() -> None:
    """A session id in a reason helps; a phone number is personal."""
    words = clean("4c9d22b0-1e4b-11f1-83a0-02420aef51a1 called +4915112345678")
    assert words == "4c9d22b0-1e4b-11f1-83a0-02420aef51a1 called …78"


def test_the_rate_limit_is_read_from_its_headers() -> None:
    """Telnyx's three headers give limit, remaining, reset and window, on every answer."""
    headers = {
        "x-ratelimit-limit": "40, 40;w=60",
        "x-ratelimit-remaining": "12",
        "x-ratelimit-reset": "17",
    }
    expected = RateLimit(limit=40, remaining=12, reset_seconds=17, window_seconds=60)
    for status in (200, 404, 429, 401, 500, 400):
        assert read(status, wire(guide()), headers).rate_limit == expected


def test_no_headers_mean_no_known_limit() -> None:
    """Where nothing is said, no limit is made up."""
    assert rate_limit_of({}) is None
    assert rate_limit_of({"x-ratelimit-limit": "lots", "x-ratelimit-reset": "soon"}) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x_ratelimit_reset": "17"}, 17),
        ({"x_ratelimit_reset": "17", "x_ratelimit_limit": "40, 40;w=60"}, 17),
        ({"x_ratelimit_limit": "40, 40;w=20"}, 20),
        ({"retry_after": "5"}, 5),
        ({"retry_after": "5", "x_ratelimit_reset": "17"}, 5),
        ({"retry_after": "2.7"}, 2),
        ({"retry_after": "Tue, 17 Mar 2026 10:01:30 GMT"}, 90),
        ({"retry_after": "Tue, 17 Mar 2026 09:00:00 GMT"}, 1),
        ({"retry_after": "Tue, 17 Mar 2027 09:00:00 GMT"}, 3600),
        ({"retry_after": "0"}, 1),
        ({"retry_after": "7200"}, 3600),
        ({"x_ratelimit_reset": "0"}, 1),
        ({}, 60),
        ({"retry_after": "soon"}, 60),
        ({"retry_after": "-5"}, 60),
        ({"retry_after": "1e9"}, 60),
        ({"retry_after": "٣"}, 60),
        ({"retry_after": "9" * 5000}, 60),
        ({"retry_after": "junk", "x_ratelimit_reset": "17"}, 17),
        # A point in time instead of a duration is junk, too: an hour's wait would be wrong.
        ({"x_ratelimit_reset": "1773741600"}, 60),
    ],
)
def test_a_rate_limit_says_how_long_to_wait(headers: dict[str, str], seconds: int) -> None:
    """Junk gives a minute, and no header makes us hammer or wait for more than an hour."""
    assert limited(**headers).retry_after_seconds == seconds


@given(
    st.integers(-1, 1000),
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
        ),
        st.text(max_size=60),
    ),
)
def test_nothing_raises(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever comes has a meaning; a wait stays within its bounds."""
    meaning = read(status, body, headers)
    if isinstance(meaning, RateLimited):
        assert 1 <= meaning.retry_after_seconds <= 3600
    if not isinstance(meaning, Ready):
        assert len(meaning.reason) <= 200
        assert meaning.reason.isprintable()
