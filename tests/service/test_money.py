"""Money is exact, or there is none."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.money import money, plain


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("0.0401", "0.0401"),
        ("7.0E-7", "0.0000007"),
        ("1.687E-4", "0.0001687"),
        (" 0.05 ", "0.05"),
        ("-0.01", "-0.01"),
        ("0", "0"),
        (0, "0"),
        (3, "3"),
        (0.0038, "0.0038"),
        (1e-07, "0.0000001"),
        (Decimal("1.10"), "1.1"),
        ("1E+3", "1000"),
    ],
)
def test_amounts_are_read_exactly(value: Any, amount: str) -> None:
    """Strings, scientific ones, and the numbers of an older version."""
    assert money(value) == Decimal(amount)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "free",
        "0.0065 per call",
        "NaN",
        "sNaN",
        "Infinity",
        "-inf",
        "1E+999999",
        "1E-999999",
        "1E+16",
        10**16,
        10**400,
        1e300,
        float("nan"),
        float("inf"),
        "9" * 65,
        "1,000.00",
        "0x10",
        True,
        False,
        [],
        {},
        b"1",
        "No cost data available.",
    ],
)
def test_junk_is_no_amount(value: Any) -> None:
    """What is not plainly money is absent, and cannot fill the memory when it is printed."""
    assert money(value) is None


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals())
def test_nothing_raises(value: Any) -> None:
    """Any scalar is a finite amount or none."""
    amount = money(value)
    assert amount is None or (amount.is_finite() and len(plain(amount)) < 100)


AMOUNTS = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=12)


@given(AMOUNTS)
def test_a_printed_amount_reads_as_the_same(amount: Decimal) -> None:
    """Printing loses nothing, uses no exponent and leaves no zeros behind."""
    text = plain(amount)
    assert money(text) == amount
    assert "E" not in text
    assert text != "-0"
    if "." in text:
        assert not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.00000070", "0.0000007"), ("-0", "0"), ("0E-9", "0"), ("1E+3", "1000"), ("100", "100")],
)
def test_amounts_are_printed_plainly(amount: str, text: str) -> None:
    """People read 0.0000007 and 100, not 7.0E-7 and 1E+2."""
    assert plain(Decimal(amount)) == text
