"""Expected: how often a call counts, so that its like are usual, and no more than that."""

from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.detection.taught import DAY_MS, FIRST_MS, call_of, recorded, said_of, taught
from workers.detection.baseline import Lesson, lesson_of, spread_of
from workers.detection.measure import measure
from workers.detection.memory import Memory
from workers.detection.sketch import log_middle_of
from workers.detection.widening import times_to_widen


@pytest.mark.parametrize(
    ("ladder", "times"),
    [
        ([187, 187, 500], 2),
        ([5_000, 9_000], 50),
        ([50_000], 500),
        ([30, 5_000], 2),
        ([12, 5_000], 4),
        ([1, 5_000], 2),
        ([0, 0], 2),
        ([3, 3, 3], 2),
    ],
)
def test_how_often_it_counts(ladder: list[int], times: int) -> None:
    """One percent, twice at least; never most of a cohort's calls."""
    assert times_to_widen(ladder) == times


@given(st.integers(20, 20_000))
def test_it_is_as_likely_as_one_in_a_hundred(calls: int) -> None:
    """Of any number of calls, the value widened to is within the spread then."""
    counts = {0: float(calls), 100: float(times_to_widen([calls]))}
    spread = spread_of(counts)
    z = (log_middle_of(100) - spread.middle) / spread.deviation
    assert z <= NormalDist().inv_cdf(0.991)


def lesson(minutes: int, turns: int) -> Lesson:
    one = recorded(call_of(minutes, turns), FIRST_MS + 4 * DAY_MS)
    measured = measure(one.tree, one.call, 60 * minutes)
    return lesson_of(measured, FIRST_MS + 4 * DAY_MS)


def taught_of(calls: int, minutes: int, turns: int, memory: Memory) -> Memory:
    """The same, and so many calls alike besides; nothing is fitted yet, as when Redis is read."""
    more, read = lesson(minutes, turns), Memory()
    for name in more.ladder:
        for sheet in memory.sheets[name].values():
            sheet.learn([more], calls)
        read.begin_with(name, memory.sheets[name], {})
    return read


@pytest.mark.parametrize("usual", [0, 1_000])
def test_its_like_are_not_told_any_more(usual: int) -> None:
    """What was expected once is quiet the next time, where few calls are known and where many."""
    test = taught()
    for number in range(3):
        test.memory = taught_of(usual // 3, 2 + number, 4 + number, test.memory)
    long = call_of(30, 50)
    assert said_of(test, long).severity is not None
    times = times_to_widen([187 + usual])
    test.memory = taught_of(times, 30, 50, test.memory)
    assert said_of(test, long).severity is None
    if usual:
        # Among few calls the widest quantile that is believed is not far out.
        assert said_of(test, call_of(300, 500)).severity is not None
