"""Simulated prices against amounts that Telnyx has billed, and against its way to write them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.prices import PriceBook, billed_seconds, record_money, timed, tree_money

_AMOUNTS = st.decimals(min_value=0, max_value=10_000, places=9)


@pytest.mark.parametrize(
    ("seconds", "step", "billed"),
    [(0, 60, 0), (1, 60, 60), (35, 60, 60), (60, 60, 60), (62, 60, 120), (152, 6, 156)],
)
def test_bills_started_steps(seconds: int, step: int, billed: int) -> None:
    """35 seconds are charged as 60, 62 as 120; steps of six seconds fit the guide's example."""
    assert billed_seconds(seconds, step) == billed


def test_the_guides_amounts_fit_a_step_of_six_seconds() -> None:
    """0.0052 is 0.002 a minute for 152 s, begun steps of six seconds each."""
    assert timed(Decimal("0.002"), 152, step=6) == Decimal("0.0052")


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0", "0.0"),
        ("0.0000000", "0.0"),
        ("7", "7.0"),
        ("0.0401", "0.0401"),
        ("0.050", "0.05"),
        ("0.001315", "0.001315"),
        ("0.0001421", "1.421E-4"),
        ("0.0001687", "1.687E-4"),
        ("0.0000007", "7.0E-7"),
        ("0.0001", "1.0E-4"),
        ("1200", "1200.0"),
    ],
)
def test_records_write_small_money_scientifically(amount: str, written: str) -> None:
    """Below a thousandth records hold `1.421E-4`, as seen on live accounts."""
    assert record_money(Decimal(amount)) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        ("0", "0.000000"),
        ("0.0098", "0.009800"),
        ("0.2128", "0.212800"),
        ("0.0942421", "0.0942421"),
        ("0.0001421", "1.421E-4"),
        ("12", "12.000000"),
    ],
)
def test_trees_write_six_decimals_or_more(amount: str, written: str) -> None:
    """Session Analysis has six decimals, and never fewer than the amount needs."""
    assert tree_money(Decimal(amount)) == written


@given(_AMOUNTS)
def test_no_money_is_lost_in_writing(amount: Decimal) -> None:
    """Both ways of writing hold exactly the amount."""
    assert Decimal(record_money(amount)) == amount
    assert Decimal(tree_money(amount)) == amount


def test_turns_grow_dearer_up_to_a_limit() -> None:
    """The prompt is sent again with each turn, until the history is cut."""
    prices = PriceBook()
    costs = [prices.turn(number) for number in range(30)]
    assert costs == sorted(costs)
    assert costs[0] == Decimal("0.0010")
    assert costs[-1] == Decimal("0.0034")
