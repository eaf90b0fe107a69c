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


def test_a_clock_that_was_wrong_does_not_fill_the_memory() -> None:
    """Neither by hours of long ago, which are left out, nor by those of a far future."""
    hours = Hours(BEGIN)
    hours.add(BEGIN, 1)
    hours.add(0, 1)
    assert dict(hours.items()) == {BEGIN: 1}
    hours.add(BEGIN + 60_000_000, 1)
    assert dict(hours.items()) == {BEGIN + 60_000_000: 1}
    assert len(hours) < 2 * HOURS_KEPT
