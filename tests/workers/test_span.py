"""Spans of time as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.span import Span, read_moment

NOW_MS = 1_790_000_000_000


@pytest.mark.parametrize(
    ("text", "ago_seconds"), [("45s", 45), ("90m", 5400), ("6h", 21_600), (" 2d ", 172_800)]
)
def test_a_duration_is_ago(text: str, ago_seconds: int) -> None:
    """Seconds, minutes, hours and days before now."""
    assert read_moment(text, now_ms=NOW_MS) == NOW_MS - ago_seconds * 1000


@pytest.mark.parametrize(
    "text", ["2026-03-17", "2026-03-17T00:00", "2026-03-17T00:00Z", "2026-03-17T02:00+02:00"]
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str) -> None:
    """ISO 8601, with a zone or without."""
    assert read_moment(text, now_ms=NOW_MS) == 1_773_705_600_000


@pytest.mark.parametrize("text", ["", "6", "h", "-6h", "6 weeks", "1.5h", "tomorrow", "6h6m"])
def test_anything_else_is_told(text: str) -> None:
    """With what it may be."""
    with pytest.raises(ValueError, match="neither a duration such as 90m"):
        read_moment(text, now_ms=NOW_MS)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_told(text: str) -> None:
    """No other error, whatever is typed."""
    with suppress(ValueError):
        assert isinstance(read_moment(text, now_ms=NOW_MS), int)


def test_a_span_holds_its_ends() -> None:
    """Both belong to it."""
    span = Span(10, 20)
    assert [at for at in (9, 10, 20, 21) if span.holds(at)] == [10, 20]
