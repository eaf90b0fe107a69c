"""Expected: how often a call counts, so that its like are usual, and no more than that."""

import pytest

from tests.workers.detection.taught import DAY_MS, FIRST_MS, call_of, recorded, said_of, taught
from workers.detection.baseline import Heap, Lesson, lesson_of
from workers.detection.measure import measure
from workers.detection.memory import Memory
from workers.detection.widening import times_to_widen


@pytest.mark.parametrize(
    ("ladder", "age_days", "times"),
    [
        ([187, 187, 500], 0, 4),
        ([187, 187, 500], 7, 8),
        ([5_000, 9_000], 0, 50),
        ([50_000], 0, 500),
        ([30, 5_000], 0, 4),
        ([12, 5_000], 0, 4),
        ([1, 5_000], 0, 2),
        ([0, 0], 0, 2),
        ([3, 3, 3], 14, 2),
        ([187], -1, 4),
    ],
)
def test_how_often_it_counts(ladder: list[int], age_days: int, times: int) -> None:
    """One percent, or enough for a week; an older call weighs less; never most of the calls."""
    assert times_to_widen(ladder, age_days) == times


def lesson(minutes: int, turns: int) -> Lesson:
    one = recorded(call_of(minutes, turns), FIRST_MS + 4 * DAY_MS)
    measured = measure(one.tree, one.call, 60 * minutes)
    return lesson_of(measured, FIRST_MS + 4 * DAY_MS)


def taught_of(calls: int, minutes: int, turns: int, memory: Memory) -> Memory:
    """The same, and so many calls alike besides; nothing is fitted yet, as when Redis is read."""
    more, read = lesson(minutes, turns), Memory()
    for name in more.ladder:
        for sheet in memory.sheets()[name].values():
            sheet.learn(Heap(more.day, [more] * calls))
        read.begin_with(name, memory.sheets()[name], {})
    return read


@pytest.mark.parametrize("usual", [0, 1_000])
def test_its_like_are_not_told_any_more(usual: int) -> None:
    """What was expected once is quiet the next time, where few calls are known and where many."""
    test = taught()
    for number in range(3):
        test.memory = taught_of(usual // 3, 2 + number, 4 + number, test.memory)
    long = call_of(30, 50)
    assert said_of(test, long).severity is not None
    times = times_to_widen([181 + usual])
    test.memory = taught_of(times, 30, 50, test.memory)
    assert said_of(test, long).severity is None
    if usual:
        # A few calls do not say well how far they go.
        assert said_of(test, call_of(300, 500)).severity is not None
