"""Money from outside, read exactly: Telnyx sends strings, scientific ones too, or numbers."""

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

ZERO: Final = Decimal(0)

# Beyond these a figure is junk, not money; without a bound `1E+999999` would fill the memory
# when it is added up or printed.
_LARGEST: Final = Decimal("1E+15")
_MOST_COUNTED: Final = Decimal(1_000_000)
_LEAST_COUNTED: Final = -_MOST_COUNTED
_MILLION: Final = Decimal(1_000_000)
_MOST_TEXT: Final = 64
_MOST_PLACES: Final = 24


def money(value: Any) -> Decimal | None:
    """An exact finite amount, or None where `value` is none (absent, junk, NaN, absurdly large).

    Accepts "0.0401", "7.0E-7", 0, 0.0038: `call.cost` came with numbers in an older version.
    """
    if isinstance(value, str):
        return _decimal(value) if len(value) <= _MOST_TEXT else None
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    if isinstance(value, int) and abs(value) > _LARGEST:
        return None
    # repr of a float gives back the digits that were sent; Decimal(float) would not.
    return _decimal(repr(value) if isinstance(value, float) else str(value))


# Rates and costs repeat from call to call, and are a fifth of the work on a tree.
@lru_cache(maxsize=8192)
def _decimal(text: str) -> Decimal | None:
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        return None
    if not amount.is_finite() or abs(amount) > _LARGEST:
        return None
    # A zero keeps the places of what it was made from, without a tuple of all digits.
    places = -(amount * 0).adjusted()
    return amount if places <= _MOST_PLACES else None


def plain(amount: Decimal) -> str:
    """The amount without an exponent and without trailing zeros: "0.00000070" is "0.0000007"."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


def millionths(amount: Decimal) -> int:
    """The amount as whole millionths, which can be added up in any order and in Redis.

    At most a million either way: no call costs more, and sums of these stay within 64 bits.
    """
    bounded = max(_LEAST_COUNTED, min(_MOST_COUNTED, amount))
    return int((bounded * _MILLION).to_integral_value())


def of_millionths(count: int) -> Decimal:
    """The amount of so many millionths."""
    return Decimal(count) / _MILLION
