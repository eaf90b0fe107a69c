"""Numbers as people read them: money, durations, and those of phones."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

_WHOLE: Final = 2
_ONE: Final = Decimal(1)
_CENT: Final = Decimal("0.01")
_FINE: Final = Decimal("0.0001")
_FINEST: Final = Decimal("0.0000001")


def amount(value: Decimal) -> str:
    """Money: cents from one unit up, four places below it, more where these would all be zero."""
    if abs(value) >= _ONE or value == 0:
        return f"{_round(value, _CENT):,f}"
    rounded = _round(value, _FINE if abs(value) >= _FINE else _FINEST)
    text = f"{rounded:f}".rstrip("0")
    whole, _, places = text.partition(".")
    return f"{whole}.{places:0<2}"


def rough(value: Decimal) -> str:
    """Money that is an estimate: below one unit two digits that count, "0.17", "0.0076"."""
    if value == 0 or abs(value) >= _ONE:
        return amount(value)
    step = Decimal(1).scaleb(value.adjusted() - 1)
    return amount(_round(value, max(step, _FINEST)))


def priced(value: Decimal, currency: str) -> str:
    """Money with its currency: "4.37 USD"."""
    return f"{amount(value)} {currency}"


def count(value: float) -> str:
    """How many there usually are: whole ones from two on, "1.5" below."""
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.1f}".removesuffix(".0")


def percent(share: Decimal) -> str:
    """A part of 1 as whole percent; "<1 %" for what is there but rounds to nothing."""
    whole = _round(share * 100, _ONE)
    return "<1 %" if share > 0 and whole == 0 else f"{whole:f} %"


def factor(observed: Decimal, limit: Decimal) -> str:
    """How many times the limit: "2.2 times", "20 times"; without a limit nothing."""
    if limit <= 0:
        return ""
    times = observed / limit
    return f"{_round(times, _ONE if times >= 10 else Decimal('0.1')):,f} times"  # noqa: PLR2004


def duration(seconds: int) -> str:
    """A duration: "45 s", "2 min 32 s", "1 h 05 min"."""
    minutes, rest = divmod(seconds, 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"


def party(number: str | None, country: str | None) -> str | None:
    """A number with its country, where that is known: "…78 (DE)".

    An address has none: if the call has, it is that of a number on another leg.
    """
    return f"{number} ({country})" if number and country and "@" not in number else number


def _round(value: Decimal, step: Decimal) -> Decimal:
    return value.quantize(step, rounding=ROUND_HALF_UP)
