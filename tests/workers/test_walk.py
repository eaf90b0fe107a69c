"""Going through a list: where it ends, what to do without filters, and where to go on."""

from dataclasses import replace as changed

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from workers.listings import Row
from workers.span import Span
from workers.walk import (
    SOURCES,
    Progress,
    Source,
    Tally,
    Walk,
    after_nothing,
    after_page,
    after_refusal,
    by_hand,
    by_schedule,
    finished,
)

HOUR = 3_600_000
SINCE, UNTIL = 1_790_000_000_000, 1_790_000_000_000 + 6 * HOUR
SPAN = Span(SINCE, UNTIL)
DELIVERIES, RECORDS = SOURCES[0], SOURCES[1]
BARE = changed(RECORDS, ladder=(frozenset(),))


def rows(*times: int | None) -> tuple[Row, ...]:
    return tuple(Row(at) for at in times)


# --- what is asked --------------------------------------------------------------------------------


def test_deliveries_are_asked_for_in_telnyxs_words() -> None:
    """All filters, then fewer, in whole seconds that leave nothing out."""
    query = DELIVERIES.query(Span(SINCE + 1, UNTIL + 1), 0, 3)
    types = "call.hangup,call.conversation.ended,conference.ended,call.analyzed,call.cost"
    assert query == {
        "page[number]": "3",
        "page[size]": "250",
        "filter[event_type]": types,
        "filter[finished_at][gte]": "2026-09-21T14:13:20Z",
        "filter[finished_at][lte]": "2026-09-21T20:13:21Z",
    }
    assert set(DELIVERIES.query(SPAN, 1, 1)) == {"page[number]", "page[size]", "filter[event_type]"}
    assert set(DELIVERIES.query(SPAN, 2, 1)) == {"page[number]", "page[size]"}


def test_records_are_asked_for_by_type_and_end() -> None:
    """The type is asked for even where no other filter is known: it is mandatory."""
    query = RECORDS.query(SPAN, 0, 1)
    assert query["filter[record_type]"] == "call-control"
    assert query["page[size]"] == "50"
    assert query["filter[finished_at][gte]"] == "2026-09-21T14:13:20Z"
    bare = {"filter[record_type]": "call-control", "page[number]": "1", "page[size]": "50"}
    assert RECORDS.query(SPAN, 1, 1) == bare


def test_assistants_records_have_a_field_of_their_own_for_the_end() -> None:
    """They lack `finished_at`."""
    [source] = [source for source in SOURCES if source.name == "ai-voice-assistant"]
    assert "filter[completed_at][gte]" in source.query(SPAN, 0, 1)


# --- the next page --------------------------------------------------------------------------------


def test_a_page_leads_to_the_next() -> None:
    """And shows how far back the walk has come, and that its filters work."""
    walk = after_page(RECORDS, Walk(SPAN), rows(UNTIL, UNTIL - HOUR, None), None)
    assert walk == Walk(SPAN, page=2, trusted=True, reached_ms=UNTIL - HOUR)
    walk = after_page(RECORDS, walk, rows(UNTIL), None)
    assert (walk.page, walk.reached_ms) == (3, UNTIL - HOUR)


def test_the_last_page_is_the_one_that_telnyx_says() -> None:
    """Unless it has been passed already, which makes no sense: then an empty page is the end."""
    assert after_page(RECORDS, Walk(SPAN, page=3), rows(UNTIL), 3).page == 0
    assert after_page(RECORDS, Walk(SPAN, page=4), rows(UNTIL), 3).page == 5


@pytest.mark.parametrize("source", SOURCES)
def test_a_page_that_is_older_than_the_span_is_the_last(source: Source) -> None:
    """By more than the list may be out of order, and with no row that could be younger."""
    old = SINCE - source.slack_ms - 1
    assert after_page(source, Walk(SPAN), rows(old, old - HOUR), None).page == 0
    assert after_page(source, Walk(SPAN), rows(old, old + 1), None).page == 2
    assert after_page(source, Walk(SPAN), rows(None), None).page == 2


def test_an_empty_first_page_is_believed_without_filters_only() -> None:
    """A filter that the list does not know has led to no rows before."""
    walk = after_nothing(DELIVERIES, Walk(SPAN))
    assert (walk.page, walk.level) == (1, 1)
    walk = after_nothing(DELIVERIES, walk)
    assert (walk.page, walk.level) == (1, 2)
    assert after_nothing(DELIVERIES, walk).page == 0


def test_an_empty_page_of_filters_that_work_is_the_end() -> None:
    """They have brought rows before."""
    assert after_nothing(DELIVERIES, Walk(SPAN, page=2)).page == 0
    assert after_nothing(DELIVERIES, Walk(SPAN, trusted=True)).page == 0


def test_a_refused_first_page_is_asked_for_with_fewer_filters() -> None:
    """Until there are none left to do without."""
    walk = after_refusal(RECORDS, Walk(SPAN))
    assert walk == Walk(SPAN, level=1)
    assert after_refusal(RECORDS, walk) is None


def test_a_refused_later_page_narrows_the_span() -> None:
    """What has been seen is not asked for again, so that the pages begin anew."""
    deep = Walk(SPAN, page=200, trusted=True, reached_ms=UNTIL - HOUR)
    walk = after_refusal(RECORDS, deep)
    assert walk
    assert (walk.page, walk.wanted, walk.span) == (1, Span(SINCE, UNTIL - HOUR), SPAN)
    assert after_refusal(RECORDS, replace(walk, page=2)) is None
    assert after_refusal(RECORDS, replace(deep, level=1)) is None


@given(st.lists(st.integers(SINCE - 10 * HOUR, UNTIL + HOUR), max_size=60), st.booleans())
def test_every_row_in_the_span_is_seen(ends: list[int], turned: bool) -> None:
    """In a list in order of the end, or of a start that may be four hours earlier."""
    ordered = sorted(ends, key=lambda at: at - (at % 4 * HOUR if turned else 0), reverse=True)
    walk, seen = Walk(SPAN), set[int]()
    while walk.page:
        page = ordered[(walk.page - 1) * 5 : walk.page * 5]
        seen |= set(page)
        empty = after_nothing(BARE, walk)
        walk = after_page(BARE, walk, rows(*page), None) if page else empty
    assert {at for at in ends if SPAN.holds(at)} <= seen


# --- where to go on -------------------------------------------------------------------------------


def scheduled(progress: Progress, now: int, *, oldest: int = 0) -> Progress:
    return by_schedule(RECORDS, progress, oldest_ms=oldest, until_ms=now)


def test_the_first_search_goes_back_by_the_overlap() -> None:
    """As if one had ended now."""
    assert scheduled(Progress(), UNTIL).walk == Walk(Span(UNTIL - RECORDS.overlap_ms, UNTIL))


def test_a_search_begins_where_the_last_ended_less_the_overlap() -> None:
    """However long ago that was; but never before what is kept."""
    done = Progress(done=Span(SINCE - HOUR, SINCE))
    assert scheduled(done, UNTIL).walk == Walk(Span(SINCE - RECORDS.overlap_ms, UNTIL))
    assert scheduled(done, UNTIL, oldest=SINCE + 5).walk == Walk(Span(SINCE + 5, UNTIL))
    # A clock that was set back.
    assert scheduled(done, SINCE - HOUR).walk == Walk(
        Span(SINCE - HOUR - RECORDS.overlap_ms, SINCE - HOUR)
    )


def test_a_broken_off_search_goes_on() -> None:
    """At its page; only what is not kept any more is left out."""
    walk = Walk(SPAN, page=7, trusted=True, tally=Tally(pages=6, rows=300))
    left = scheduled(Progress(walk=walk), UNTIL + HOUR, oldest=SINCE + 1)
    assert left.walk == replace(walk, span=Span(SINCE + 1, UNTIL))


def test_a_search_by_hand_goes_on_where_it_stopped() -> None:
    """The span that is meant has moved on by a little, as `6h` does."""
    walk = Walk(SPAN, page=7)
    wanted = Span(SINCE + 60_000, UNTIL + 60_000)
    assert by_hand(RECORDS, Progress(walk=walk), wanted).walk == walk
    rest = by_hand(RECORDS, finished(Progress(walk=walk), walk), wanted)
    # What was listed late since the first stop is read, too.
    left = Walk(Span(max(wanted.since_ms, UNTIL - RECORDS.overlap_ms), UNTIL + 60_000))
    assert rest.walk == left
    assert left.span.since_ms < UNTIL
    assert by_hand(RECORDS, finished(rest, left), wanted).walk is None


def test_a_search_by_hand_goes_on_in_its_rest() -> None:
    """Also where it stopped in what came after a first stop."""
    rest = Walk(Span(UNTIL, UNTIL + HOUR), page=3)
    progress = Progress(done=SPAN, walk=rest)
    assert by_hand(RECORDS, progress, Span(SINCE + 1, UNTIL + 2 * HOUR)).walk == rest


def test_another_span_by_hand_begins_anew() -> None:
    """Earlier than what was begun, apart from it, or ending before it."""
    progress = Progress(walk=Walk(SPAN, page=7))
    for wanted in (
        Span(SINCE - 1, UNTIL),
        Span(UNTIL + 1, UNTIL + 2),
        Span(SINCE, UNTIL - 1),
    ):
        assert by_hand(RECORDS, progress, wanted) == Progress(walk=Walk(wanted))


def test_what_is_done_adds_up() -> None:
    """Spans that join, and what was found in them."""
    first, second = Walk(SPAN, tally=Tally(rows=2)), Walk(Span(UNTIL, UNTIL + 9))
    done = finished(finished(Progress(), first), second)
    assert done == Progress(done=Span(SINCE, UNTIL + 9), tally=Tally(rows=2))
    apart = finished(done, Walk(Span(UNTIL + 100, UNTIL + 200)))
    assert apart.done == Span(UNTIL + 100, UNTIL + 200)


def test_progress_survives_being_stored() -> None:
    """All of it, as JSON."""
    progress = Progress(
        done=SPAN, walk=Walk(SPAN, page=3, level=1, trusted=True, reached_ms=5, before_ms=9)
    )
    raw = msgspec.json.encode(progress)
    assert msgspec.json.decode(raw, type=Progress) == progress
