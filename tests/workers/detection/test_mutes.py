"""Mutes: what is planned is not told, and nothing else is silenced."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Call
from workers.detection.finding import Finding
from workers.detection.mutes import Mute, mute_of_call, mute_of_finding, words_of

CAMPAIGN = Mute("assistant-1", 1_000, 2_000, "ada", "spring campaign")
TRUNK = Mute("7267", 1_500, 3_000, "ada")
ALL = Mute("account", 5_000, 6_000, "bob")
MUTES = (CAMPAIGN, TRUNK, ALL)


def call(end_ms: int | None, assistant: str | None = "assistant-1", connection: str = "1") -> Call:
    return Call("s", end_ms=end_ms, assistant_id=assistant, connection_id=connection)


def finding(cohort: str, from_ms: int, to_ms: int, kind: str = "velocity") -> Finding:
    return Finding("f", kind, cohort, from_ms, to_ms, to_ms, 9.0, Decimal(5), "x")


@pytest.mark.parametrize(
    ("muted", "mute"),
    [
        (call(1_000), CAMPAIGN),
        (call(1_999), CAMPAIGN),
        (call(999), None),
        (call(2_000), None),
        (call(None), None),
        (call(1_200, "assistant-2"), None),
        (call(1_200, None), None),
        (call(1_600, "assistant-2", "7267"), TRUNK),
        (call(1_600, "assistant-1", "7267"), TRUNK),
        (call(5_500, None), ALL),
    ],
)
def test_a_call_is_muted_by_who_made_it_and_when_it_ended(muted: Call, mute: Mute | None) -> None:
    """Its assistant or connection, or the account; of several mutes the one that ends last."""
    assert mute_of_call(MUTES, muted) == mute


@pytest.mark.parametrize(
    ("found", "mute"),
    [
        (finding("assistant-1", 0, 1_000), CAMPAIGN),
        (finding("assistant-1", 1_999, 4_000), CAMPAIGN),
        (finding("assistant-1", 0, 999), None),
        (finding("assistant-1", 2_000, 4_000), None),
        (finding("assistant-2", 1_200, 1_300), None),
        (finding("DE", 5_200, 5_300), ALL),
        (finding("account", 1_200, 1_300), None),
        (finding("assistant-1", 1_200, 1_300, "drop"), CAMPAIGN),
        (finding("assistant-1", 1_200, 1_300, "budget"), None),
    ],
)
def test_a_finding_is_muted_where_its_time_was_planned(found: Finding, mute: Mute | None) -> None:
    """A surge or a drop of what is muted is no news; money that is spent counts all the same."""
    assert mute_of_finding(MUTES, found) == mute


def test_a_mute_says_who_and_until_when() -> None:
    """The remark names the person, whom it mutes, its end in UTC and the note."""
    mute = Mute("assistant-1", 0, 1_790_000_000_000, "ada", "spring campaign")
    assert words_of(mute) == (
        "no alert: planned by ada, who muted assistant-1 until 2026-09-21 14:13 UTC: "
        "spring campaign"
    )


TIMES = st.integers(0, 50)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "account"]), TIMES, TIMES)), TIMES)
def test_a_call_is_muted_exactly_within_a_mute_of_its_own(
    spans: list[tuple[str, int, int]], end_ms: int
) -> None:
    """Whatever mutes there are, in any order, and with spans of any kind."""
    mutes = [Mute(cohort, begin, end, "x") for cohort, begin, end in spans]
    within = any(c != "b" and begin <= end_ms < end for c, begin, end in spans)
    assert (mute_of_call(mutes, call(end_ms, "a", "c")) is not None) == within


@pytest.mark.parametrize(
    ("muted", "cohort", "takers", "is_muted"),
    [
        (["7267"], "assistant-1", {"7267": "assistant-1"}, True),
        (["7267"], "assistant-1", {"7267": "assistant-2"}, False),
        (["7267"], "assistant-1", {"7267": "assistant-1", "9": "assistant-1"}, False),
        (["7267", "9"], "assistant-1", {"7267": "assistant-1", "9": "assistant-1"}, True),
        (["assistant-1"], "7267", {"7267": "assistant-1"}, True),
        (["assistant-2"], "7267", {"7267": "assistant-1"}, False),
        (["7267"], "account", {"7267": "assistant-1"}, False),
        (["7267"], "assistant-1", {"7267": ""}, False),
        (["7267"], "assistant-1", {"7267": "assistant-1", "9": ""}, False),
        (["assistant-1"], "7267", {"7267": ""}, False),
        (["7267"], "7267", {"7267": "7267", "9": ""}, True),
    ],
)
def test_a_mute_is_of_the_same_calls_under_either_name(
    muted: list[str], cohort: str, takers: dict[str, str], is_muted: bool
) -> None:
    """A connection's calls are its assistant's; an assistant's are those of all its connections."""
    mutes = [Mute(each, 1_000, 2_000, "ada") for each in muted]
    found = mute_of_finding(mutes, finding(cohort, 1_200, 1_300), takers)
    assert (found is not None) == is_muted
