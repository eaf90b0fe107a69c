"""What calls cost at Telnyx, and how it writes money: so that simulated bills look like real ones.

All rates are in USD. Time is billed by started steps, most products by started minutes: 35 s count
as 60, 62 s as 120. Some products of Telnyx's own example fit a step of six seconds, so the step is
a parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final

ZERO: Final = Decimal(0)
_SMALLEST_PLAIN: Final = Decimal("0.001")
_LEAST_DECIMALS: Final = 6

DESTINATIONS: Final[Mapping[str, Decimal]] = MappingProxyType(
    {
        "US": Decimal("0.005"),
        "US toll-free": Decimal("0.0035"),
        "CA": Decimal("0.0055"),
        "GB landline": Decimal("0.0092"),
        "GB mobile": Decimal("0.0215"),
        "DE landline": Decimal("0.0231"),
        "DE mobile": Decimal("0.0401"),
        "NG mobile": Decimal("0.117"),
        "FR landline": Decimal("0.0078"),
        "FR mobile": Decimal("0.0312"),
        "MX mobile": Decimal("0.0212"),
        "LV mobile": Decimal("0.3650"),
        "SO mobile": Decimal("0.6820"),
        # Nobody calls these on purpose with an AI assistant.
        "CU": Decimal("0.8920"),
        "premium": Decimal("2.4500"),
        "satellite": Decimal("6.1500"),
    }
)
"""Outbound SIP per minute, by where the call goes."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Unit rates. Every `..._per_minute` is billed by started `step_seconds`."""

    step_seconds: int = 60
    assistant_per_minute: Decimal = Decimal("0.05")
    call_control_per_minute: Decimal = Decimal("0.002")
    webrtc_per_minute: Decimal = Decimal("0.002")
    recording_per_minute: Decimal = Decimal("0.002")
    conference_per_minute: Decimal = Decimal("0.002")
    sip_inbound_per_minute: Decimal = Decimal("0.0032")
    sip_outbound_per_minute: Mapping[str, Decimal] = field(default_factory=lambda: DESTINATIONS)
    speech_to_text_per_minute: Decimal = Decimal("0.015")
    """Nothing is charged for it inside assistant calls."""
    text_to_speech_per_character: Decimal = Decimal("7.0E-7")
    machine_detection_per_call: Decimal = Decimal("0.0065")
    first_turn: Decimal = Decimal("0.0010")
    turn_growth: Decimal = Decimal("0.00024")
    dearest_turn: Decimal = Decimal("0.0034")

    def billed_seconds(self, seconds: float) -> int:
        """The seconds that are charged for: started steps. 35 -> 60, 62 -> 120, 0 -> 0."""
        return billed_seconds(seconds, self.step_seconds)

    def timed(self, per_minute: Decimal, seconds: float) -> Decimal:
        """What so many seconds cost at a rate per minute."""
        return timed(per_minute, seconds, self.step_seconds)

    def turn(self, number: int) -> Decimal:
        """One inference turn, the first being 0: dearer each time, as the prompt is sent again."""
        return min(self.first_turn + self.turn_growth * number, self.dearest_turn)

    def speech(self, characters: int) -> Decimal:
        """Text-to-speech for so many characters."""
        return self.text_to_speech_per_character * characters


def billed_seconds(seconds: float, step: int = 60) -> int:
    """Seconds, rounded up to started steps."""
    return int(-(-seconds // step) * step)


def timed(per_minute: Decimal, seconds: float, step: int = 60) -> Decimal:
    """The exact cost of the started steps; nothing is rounded."""
    return per_minute * billed_seconds(seconds, step) / 60


def record_money(amount: Decimal) -> str:
    """Money as Telnyx's detail records write it: `0.0401`, `0.05`, but `1.421E-4`, `7.0E-7`.

    That is how Java prints a double: scientific below a thousandth, always with one decimal.
    """
    if amount == 0:
        return "0.0"
    if abs(amount) >= _SMALLEST_PLAIN:
        plain = f"{amount.normalize():f}"
        return plain if "." in plain else f"{plain}.0"
    mantissa, _, exponent = f"{amount.normalize():E}".partition("E")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}E{int(exponent)}"


def tree_money(amount: Decimal) -> str:
    """Money as Session Analysis writes it: six decimals, `0.009800`; more where they are needed.

    Amounts below a thousandth come as the records have them: scientific notation occurs here too.
    """
    if amount and abs(amount) < _SMALLEST_PLAIN:
        return record_money(amount)
    digits = amount.normalize().as_tuple().exponent
    decimals = max(_LEAST_DECIMALS, -digits if isinstance(digits, int) else 0)
    return f"{amount:.{decimals}f}"
