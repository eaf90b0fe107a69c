"""What is injected: the seeds, the rates and the sizes. Fixed before any detector was tuned.

A detector and its alternatives are tuned on the months of `TUNING_SEEDS` and reported on those of
`REPORTING_SEEDS`. Nothing here may be changed to make a figure better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

TUNING_SEEDS: Final = (101, 102)
REPORTING_SEEDS: Final = (201, 202, 203)

Size: TypeAlias = Literal["easy", "medium", "hard", "barely"]
SIZES: Final[tuple[Size, ...]] = get_args(Size)

SESSION_SHARE: Final = 0.009
"""How many of a customer's sessions get an anomaly of their own."""
FIRST_HOURS: Final = 24
"""Nothing is injected before; nothing before is scored."""
LEAST_EXCESS: Final = Decimal("0.02")
"""USD that an anomaly is about, at least, unless it is barely visible."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """One kind's injection sizes. `what` says what the numbers mean."""

    what: str
    easy: float
    medium: float
    hard: float
    barely: float

    def of(self, size: Size) -> float:
        """The number for a size."""
        amount: float = getattr(self, size)
        return amount


SESSION_KINDS: Final[Mapping[str, Sizes]] = MappingProxyType(
    {
        # a dear session
        "dear_session": Sizes("duration, in times the flow's 99.9 % quantile", 8, 4, 2, 1.2),
        "dear_minute": Sizes("cost per minute, in times the call's own", 10, 5, 3, 1.5),
        # a dear part
        "dear_product": Sizes("text-to-speech, in times the call's own", 400, 150, 60, 3),
        "inference_loop": Sizes("inference turns, in times the call's own", 25, 8, 4, 1.8),
        "dear_event": Sizes("cost of an inference turn, in times the call's own", 20, 8, 4, 1.5),
        # a wrong price
        "wrong_rate": Sizes("unit rate of one part, in times the right one", 20, 5, 2, 1.06),
        # a wrong bill
        "double_charge": Sizes("USD of the part that is charged twice", 0.10, 0.05, 0.02, 0.001),
        "overbilled": Sizes("billed time, in times the right one", 30, 8, 3, 1.01),
        "late_charge": Sizes("USD, hours after the end", 1.0, 0.25, 0.05, 0.004),
        "sum_mismatch": Sizes("USD that an event's children lack", 0.5, 0.1, 0.03, 0.002),
        "total_mismatch": Sizes("USD that the total is too high", 0.5, 0.1, 0.03, 0.002),
        # something new
        "new_product": Sizes("USD of a product never seen", 1.0, 0.3, 0.05, 0.003),
        "new_country": Sizes("rank of the country, from the dearest", 0, 1, 2, 3),
        "new_model": Sizes("cost of a turn, in times the known model's", 10, 4, 2, 1),
        # something missing
        "missing_inference": Sizes("inference turns that are missing, at least", 30, 18, 10, 1),
        "missing_cost": Sizes("USD that were not charged, at least", 0.3, 0.15, 0.05, 0.001),
    }
)

NEW_COUNTRIES: Final = ("satellite", "CU", "LV mobile", "FR landline")
"""Of a new country, by its size."""

SPAN_KINDS: Final[Mapping[str, Sizes]] = MappingProxyType(
    {
        "surge": Sizes("calls per 5 minutes, in times the customer's busiest usual", 12, 6, 3, 1),
        "fraud": Sizes("calls within the hour, at night", 120, 50, 25, 8),
        "drop": Sizes("share of the calls that is left", 0.0, 0.05, 0.2, 0.6),
        "shared_rate": Sizes(
            "rate of one product for all calls, in times the right one", 3, 2, 1.4, 1.03
        ),
    }
)

SURGE_MINUTES: Final = 30
SURGE_LEAST: Final[Mapping[Size, float]] = MappingProxyType(
    {"easy": 30, "medium": 15, "hard": 8, "barely": 4}
)
SURGE_MOST: Final = 40
"""More calls per 5 minutes than any surge has."""
DROP_HOURS: Final[Mapping[Size, float]] = MappingProxyType(
    {"easy": 6, "medium": 4, "hard": 4, "barely": 3}
)
SHARED_RATE_HOURS: Final = 12
FRAUD_SHAPES: Final = ("short_calls", "one_number", "one_prefix")

# A budget has no sizes: its rungs are crossed or not.
BUDGET_RUNGS: Final = (50, 80, 100)
KINDS: Final = (*SESSION_KINDS, *SPAN_KINDS, "budget")
