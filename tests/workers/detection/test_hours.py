"""Amounts by hour, side by side: like a dictionary of hours, but for what is too old to matter."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from workers.detection.hours import HOURS_KEPT, Hours

BEGIN = 490_000
LATEST = BEGIN + 1000
ADDED = st.lists(st.tuples(st.integers(BEGIN - 100, LATEST), st.integers(1, 9)), max_size=40)


def filled(added: list[tuple[int, int]]) -> tuple[Hours, Counter[int]]:
    hours, plain = Hours(BEGIN), Counter[int]()
    for hour, amount in added:
        hours.add(hour, amount)
        plain[hour] += amount
    return hours, plain


@given(ADDED, st.integers(BEGIN - 300, LATEST + 300))
def test_each_hour_has_what_was_added_to_it_in_any_order(
    added: list[tuple[int, int]], asked: int
) -> None:
    hours, plain = filled(added)
    assert dict(hours.items()) == dict(plain)
    assert hours[asked] == plain[asked]


@given(ADDED, st.integers(BEGIN, LATEST), st.integers(0, 28))
def test_the_same_hour_of_the_days_before_comes_latest_first(
    added: list[tuple[int, int]], hour: int, days: int
) -> None:
    hours, plain = filled(added)
    hours.reach(hour - 24 * days, hour + 1)
    wanted = [plain[hour - 24 * day] for day in range(days)]
    assert hours.same(hour, days) == wanted


@given(ADDED, st.integers(BEGIN - 200, LATEST + 200), st.integers(0, 800))
def test_a_stretch_adds_up(added: list[tuple[int, int]], first: int, length: int) -> None:
    hours, plain = filled(added)
    wanted = sum(plain[hour] for hour in range(first, first + length))
    assert hours.total(first, first + length) == wanted


@given(ADDED, st.integers(BEGIN - 200, LATEST + 200), ADDED)
def test_what_is_forgotten_is_nothing_and_the_rest_stays(
    added: list[tuple[int, int]], before: int, later: list[tuple[int, int]]
) -> None:
    hours, plain = filled(added)
    hours.forget(before)
    kept = Counter({hour: amount for hour, amount in plain.items() if hour >= before})
    assert dict(hours.items()) == dict(kept)
    for hour, amount in later:
        hours.add(hour, amount)
        kept[hour] += amount
    assert dict(hours.items()) == dict(kept)


def test_a_clock_that_was_wrong_neither_fills_the_memory_nor_empties_it() -> None:
    """Hours of long ago or of a far future are left out, and what comes after them is not."""
    hours = Hours(BEGIN)
    for hour in (BEGIN, 0, BEGIN + 60_000_000, BEGIN + 1):
        hours.add(hour, 1)
    assert dict(hours.items()) == {BEGIN: 1, BEGIN + 1: 1}
    assert len(hours) < HOURS_KEPT


def test_what_is_asked_far_from_what_is_known_does_not_fill_the_memory() -> None:
    hours = Hours(BEGIN)
    for hour in (BEGIN, BEGIN - 60_000_000, BEGIN + 60_000_000):
        hours.add(BEGIN, 1)
        hours.reach(hour, hour + 1)
        assert len(hours) < HOURS_KEPT


def test_the_first_hour_may_be_long_after_the_begin() -> None:
    """A shape has been looked for since its calls were counted, and may come much later."""
    hours = Hours(BEGIN)
    hours.add(BEGIN + 10_000, 1)
    assert dict(hours.items()) == {BEGIN + 10_000: 1}
