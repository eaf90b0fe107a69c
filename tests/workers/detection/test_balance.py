"""The account's balance is told of before it is gone, once for each rung of a fall."""

from decimal import Decimal

import pytest

from workers.detection.balance import (
    EMPTY,
    SOON,
    TOMORROW,
    Balance,
    RunOut,
    balance_notice,
    is_top_up,
    run_out,
)
from workers.detection.pace import DAY_MS, HOUR_MS

NOW = 1_773_489_600_000  # 2026-03-14T12:00Z


def has(available: str) -> Balance:
    return Balance(Decimal(available), Decimal(available) - 10, "USD")


def steady(an_hour: float) -> dict[int, float]:
    return {NOW // HOUR_MS - back: an_hour for back in range(1, 8 * 24)}


def test_it_runs_out_at_the_pace_of_the_last_days() -> None:
    """A dollar an hour: 48 last for two days, and 2,000 for longer than anybody asks."""
    found = run_out(has("48"), steady(1), NOW)
    assert found.days_left == pytest.approx(2, abs=0.05)
    assert run_out(has("2000"), steady(1), NOW).empty_ms is None
    assert run_out(has("2000"), steady(1), NOW).days_left == 30
    assert run_out(has("5"), {}, NOW).empty_ms is None


@pytest.mark.parametrize(
    ("available", "warning", "rung"),
    [
        *(("80", "3", 0), ("70", "3", SOON), ("23", "3", TOMORROW), ("0", "3", EMPTY)),
        *(("-7", "3", EMPTY), ("23", "0.5", 0), ("11", "0.5", TOMORROW), ("70", "5", SOON)),
    ],
)
def test_the_rungs(available: str, warning: str, rung: int) -> None:
    """Within the policy's days, within one, and nothing left."""
    assert run_out(has(available), steady(1), NOW).rung(Decimal(warning)) == rung


@pytest.mark.parametrize(
    ("before", "now", "anew"),
    [
        *(("10", "60", True), ("10", "10.9", False), ("10", "9", False), ("-5", "20", True)),
        *(("-5", "-1", False), ("0", "0", False), ("0", "1", True)),
    ],
)
def test_a_top_up_is_more_than_a_correction(before: str, now: str, anew: bool) -> None:
    """What comes back of a reservation begins nothing anew."""
    assert is_top_up(Decimal(before), Decimal(now)) is anew


def test_the_notice_says_what_an_empty_balance_does() -> None:
    """When, how much is left, and that calls stop; its id is that of the fall and the rung."""
    soon = balance_notice(RunOut(has("48"), NOW, NOW + 2 * DAY_MS), SOON, 7)
    assert soon.text == (
        "Telnyx's balance runs out on 2026-03-16 at about 12:00 UTC at this pace: "
        "48.00 USD available; an empty balance stops all calls"
    )
    assert (soon.id, soon.kind, soon.at_ms) == ("balance:7:1", "balance", NOW)
    empty = balance_notice(RunOut(has("0"), NOW, NOW), EMPTY, 7)
    assert "calls stop until it is topped up" in empty.text
