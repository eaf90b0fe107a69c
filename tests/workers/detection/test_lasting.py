"""When what was strange is the new normal, and when it was an accident."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.detection.lasting import Evidence, is_lasting

Seen = list[tuple[int, int | None]]
SEEN = st.lists(
    st.tuples(st.integers(0, 60), st.none() | st.integers(-5, 5)), min_size=1, max_size=60
)


def evidence(seen: Seen) -> Evidence:
    found = Evidence()
    for hour, bucket in seen:
        found.add(hour, bucket)
    return found


def sums(found: Evidence) -> tuple[dict[int, int], dict[int, int]]:
    hours = {hour: calls for hour, calls in found.hours.items() if calls}
    return hours, {bucket: calls for bucket, calls in found.buckets.items() if calls}


@given(SEEN, st.randoms(use_true_random=False))
def test_evidence_adds_up_in_any_order(seen: Seen, rng: Random) -> None:
    """Calls that were strange are counted, whoever comes first."""
    other = seen.copy()
    rng.shuffle(other)
    assert evidence(seen) == evidence(other)


@given(SEEN, st.tuples(st.integers(0, 60), st.none() | st.integers(-5, 5)))
def test_evidence_can_be_taken_back(seen: Seen, more: tuple[int, int | None]) -> None:
    """What is found to be no evidence leaves none."""
    found = evidence(seen)
    found.add(*more)
    found.add(*more, times=-1)
    assert sums(found) == sums(evidence(seen))


@pytest.mark.parametrize(
    ("calls", "hours", "others", "lasting"),
    [
        (8, 4, 8, True),  # most of the calls have it
        (8, 4, 9, False),  # just less than half
        (7, 4, 0, False),  # too few
        (8, 3, 0, False),  # over too short a time
        (400, 3, 0, False),  # however many there are
        (12, 8, 588, True),  # it goes on and on, in one of fifty
        (12, 8, 589, False),
        (11, 8, 100, False),
        (12, 7, 100, False),
    ],
)
def test_enough_evidence_is_a_change(calls: int, hours: int, others: int, lasting: bool) -> None:
    """Either most calls have it, or some have it over many hours; in all else it is no change."""
    found = evidence([(place % hours, None) for place in range(calls)])
    assert is_lasting(found, {0: others}) is lasting


def test_only_the_days_on_which_it_was_seen_are_compared() -> None:
    """A change of today is not outvoted by the weeks before it."""
    today = evidence([(24 * 20 + place % 5, None) for place in range(10)])
    assert is_lasting(today, {20: 9} | dict.fromkeys(range(20), 500))


@given(SEEN, st.integers(0, 60), st.dictionaries(st.integers(0, 2), st.integers(0, 40)))
def test_one_more_never_speaks_against_a_change(
    seen: Seen, hour: int, days: dict[int, int]
) -> None:
    """On a day on which it was seen, more of the same only is more evidence."""
    before = evidence(seen)
    if is_lasting(before, days) and hour // 24 in {each // 24 for each, _ in seen}:
        assert is_lasting(evidence([*seen, (hour, None)]), days)


def test_an_accident_a_week_is_never_usual() -> None:
    """However long it goes on: the quiet days between count, and what is old is no evidence."""
    found = Evidence()
    for week in range(60):
        found.add(week * 7 * 24, 5)
    assert not is_lasting(found, dict.fromkeys(range(60 * 7), 10))


def test_what_came_and_ended_long_ago_is_no_evidence() -> None:
    """Only the last two weeks tell what is usual now."""
    found = evidence([(hour, None) for hour in range(12)])
    assert is_lasting(found, {})
    found.add(20 * 24, None)
    assert not is_lasting(found, {})
