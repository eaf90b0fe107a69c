"""When money will have gone, from what its hours have cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.detection.pace import DAY_MS, HOUR_MS, Pace, pace_of

DAY = 20_000
MIDNIGHT = DAY * DAY_MS
FIRST_HOUR = DAY * 24


def hours_of(days: int, by_hour: dict[int, float]) -> dict[int, float]:
    """So many days before that midnight, all alike."""
    return {
        FIRST_HOUR - 24 * day + hour: money
        for day in range(1, days + 1)
        for hour, money in by_hour.items()
    }


def test_a_steady_pace_is_a_division() -> None:
    """A dollar an hour uses up six in six hours, from the middle of an hour, too."""
    pace = pace_of(hours_of(7, dict.fromkeys(range(24), 1.0)), MIDNIGHT, MIDNIGHT)
    for begin in (MIDNIGHT, MIDNIGHT + HOUR_MS // 2):
        found = pace.used_up_ms(6, begin, begin + DAY_MS)
        assert found is not None
        assert abs(found - begin - 6 * HOUR_MS) < 10


def test_the_hours_of_a_day_differ() -> None:
    """Who calls from nine to five only has spent nothing more by eight in the morning."""
    office = hours_of(3, dict.fromkeys(range(9, 17), 1.0))
    pace = pace_of(office, MIDNIGHT, MIDNIGHT)
    assert pace.used_up_ms(2, MIDNIGHT, MIDNIGHT + DAY_MS) == MIDNIGHT + 11 * HOUR_MS
    assert pace.used_up_ms(8.1, MIDNIGHT, MIDNIGHT + DAY_MS) is None


def test_a_surge_comes_sooner() -> None:
    """Where today costs three times the usual, so will what is left of it, or nearly."""
    usual = hours_of(7, dict.fromkeys(range(24), 1.0))
    noon = MIDNIGHT + 12 * HOUR_MS
    today = {FIRST_HOUR + hour: 3.0 for hour in range(12)}
    calm = pace_of(usual | {FIRST_HOUR + hour: 1.0 for hour in range(12)}, noon, MIDNIGHT)
    surge = pace_of(usual | today, noon, MIDNIGHT)
    assert calm.by_hour == pytest.approx((1.0,) * 24)
    assert surge.by_hour == pytest.approx((39 / 15,) * 24)


def test_a_first_call_is_no_forecast_of_a_flood() -> None:
    """Ten minutes into the day one dear call does not make sixfold hours of the rest."""
    usual = hours_of(7, dict.fromkeys(range(24), 1.0))
    pace = pace_of(usual | {FIRST_HOUR: 2.0}, MIDNIGHT + 600_000, MIDNIGHT)
    assert max(pace.by_hour) < 2


def test_the_first_day_has_its_mean() -> None:
    """With nothing to compare with, the hours to come are as those that were."""
    begun = {FIRST_HOUR + 6: 4.0, FIRST_HOUR + 7: 4.0}
    pace = pace_of(begun, MIDNIGHT + 10 * HOUR_MS, MIDNIGHT)
    assert pace.by_hour == pytest.approx((2.0,) * 24)
    early = pace_of(begun, MIDNIGHT + 7 * HOUR_MS, MIDNIGHT)
    assert early.by_hour == pytest.approx((8 / 3,) * 24), "one hour counts as three"
    assert pace_of({}, MIDNIGHT, MIDNIGHT).used_up_ms(1, MIDNIGHT, MIDNIGHT + DAY_MS) is None


def test_after_days_without_cost_there_is_a_mean_too() -> None:
    """A week that cost nothing is no reason to divide by it."""
    quiet = hours_of(7, dict.fromkeys(range(24), 0.0)) | {FIRST_HOUR: 169.0}
    pace = pace_of(quiet, MIDNIGHT + HOUR_MS, MIDNIGHT)
    assert pace.by_hour == pytest.approx((1.0,) * 24)


@given(
    st.lists(st.floats(0, 100), min_size=24, max_size=24),
    st.floats(0, 1000),
    st.floats(0, 1000),
    st.integers(0, DAY_MS),
)
def test_more_money_lasts_no_shorter(by_hour: list[float], a: float, b: float, at: int) -> None:
    """The moment is not before now, and never earlier for more money."""
    pace = Pace(tuple(by_hour))
    until = at + 40 * DAY_MS
    less, more = (pace.used_up_ms(left, at, until) for left in sorted((a, b)))
    assert at <= (less if less is not None else until) <= (more if more is not None else until)
