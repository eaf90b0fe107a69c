"""Whose likes a call is compared with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Call
from tests.samples import node
from tests.workers.detection.calls import recorded
from workers.detection.cohort import ACCOUNT, UNANSWERED, Cohort, cohort_of
from workers.judge import known_of
from workers.recorded import Recorded

NAMES = st.text(st.characters(exclude_characters="*/"), min_size=1, max_size=20)


def cohort(call: Recorded) -> Cohort:
    return cohort_of(call.tree, known_of(call.call, call.tree))


def test_the_finest_cohort_names_all_four() -> None:
    """Assistant or connection, direction, destination, kind."""
    assert cohort(recorded()) == Cohort("c1", "outbound", "DE", "phone")
    by_assistant = recorded(assistant_id="a1", turns=(0.01,))
    assert cohort(by_assistant) == Cohort("a1", "outbound", "DE", "assistant")


def test_coarser_ones_leave_out_one_after_the_other() -> None:
    """From one entity's calls to one country, to the whole account."""
    assert Cohort("c1", "outbound", "DE", "phone").ladder == (
        "c1/outbound/DE/phone",
        "c1/outbound/*/phone",
        "*/outbound/DE/phone",
        "*/*/*/phone",
        ACCOUNT,
    )


@given(NAMES, NAMES, NAMES)
def test_a_ladder_has_five_rungs(entity: str, direction: str, country: str) -> None:
    """And each of them is another cohort, whatever the names are."""
    ladder = Cohort(entity, direction, country, "phone").ladder
    assert len(set(ladder)) == 5
    assert ladder[-1] == ACCOUNT


@pytest.mark.parametrize(
    ("said", "direction"),
    [
        ("outgoing", "outbound"),
        ("outbound-api", "outbound"),
        ("incoming", "inbound"),
        ("INBOUND", "inbound"),
        ("", "?"),
        ("sideways", "sideways"),
    ],
)
def test_directions_have_one_name(said: str, direction: str) -> None:
    """Telnyx has several words for the same."""
    assert cohort(recorded(direction=said)).direction == direction


def test_what_is_not_known_is_a_question_mark() -> None:
    """A call of nobody to nowhere has its likes, too."""
    nobody = recorded(connection_id=None, to=None, direction=None)
    assert cohort(nobody) == Cohort("?", "?", "?", "phone")


def test_a_call_that_nobody_took_has_likes_of_its_own() -> None:
    """Without a second of talk it costs next to nothing, and is no measure for others."""
    assert cohort(recorded(minutes=0)).kind == UNANSWERED
    # The webhook may know better than the records.
    talked = cohort_of(recorded(minutes=0).tree, Call("s", duration_seconds=9, connection_id="c1"))
    assert talked.kind == "phone"


@pytest.mark.parametrize(
    ("product", "kind"),
    [
        ("ai-voice-assistant", "assistant"),
        ("conference", "conference"),
        ("conference-participant", "conference"),
        ("webrtc", "webrtc"),
        ("sip-trunking", "phone"),
    ],
)
def test_the_kind_is_what_the_call_mainly_was(product: str, kind: str) -> None:
    """By the products in it."""
    assert cohort(recorded(extra=[node(product, "0.01", id="x")])).kind == kind
