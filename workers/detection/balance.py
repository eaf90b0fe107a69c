"""When the account's balance runs out, and what is told of it. Pure.

An empty balance stops all calls, so it is the one budget that nobody chose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from service.money import ZERO
from service.records import Notice
from workers.detection.budget import about
from workers.detection.pace import DAY_MS, pace_of
from workers.wording import priced

FARTHEST_DAYS: Final = 30
"""A forecast beyond so many days is none."""

SOON, TOMORROW, EMPTY = 1, 2, 3
"""The rungs of a fall: within the policy's days, within one day, nothing left."""

# What comes back of a reservation is no top-up.
_TOP_UP_SHARE: Final = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has: `available` is what may still be spent, its credit line included."""

    available: Decimal
    balance: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class RunOut:
    """Where the balance stands, and when it is used up; None: it lasts for a month at least."""

    balance: Balance
    at_ms: int
    empty_ms: int | None

    @property
    def days_left(self) -> float:
        """At most FARTHEST_DAYS."""
        if self.empty_ms is None:
            return float(FARTHEST_DAYS)
        return max(0, self.empty_ms - self.at_ms) / DAY_MS

    def rung(self, warning_days: Decimal) -> int:
        """How far the fall has come; 0 for not yet worth a word."""
        if self.balance.available <= 0:
            return EMPTY
        days = self.days_left
        if self.empty_ms is None or days > warning_days:
            return 0
        return TOMORROW if days <= 1 else SOON


def run_out(balance: Balance, hours: Mapping[int, float], at_ms: int) -> RunOut:
    """The forecast, from the money of the last days by hour."""
    pace = pace_of(hours, at_ms, at_ms - DAY_MS)
    until_ms = at_ms + FARTHEST_DAYS * DAY_MS
    return RunOut(balance, at_ms, pace.used_up_ms(float(balance.available), at_ms, until_ms))


def is_top_up(before: Decimal, now: Decimal) -> bool:
    """Whether so much came in that a new fall begins."""
    return now - before > max(ZERO, before) * _TOP_UP_SHARE and now > 0


def balance_notice(found: RunOut, rung: int, since_ms: int) -> Notice:
    """What to tell at a rung of the fall that began at `since_ms`."""
    balance = found.balance
    left = priced(balance.available, balance.currency)
    if rung == EMPTY:
        text = f"Telnyx's balance is used up ({left} available): calls stop until it is topped up"
    else:
        when = about(found.empty_ms or found.at_ms, found.at_ms)
        text = (
            f"Telnyx's balance runs out {when} at this pace: {left} available; "
            "an empty balance stops all calls"
        )
    return Notice(
        id=f"balance:{since_ms}:{rung}",
        kind="balance",
        at_ms=found.at_ms,
        text=text,
        details=(
            f"Balance {priced(balance.balance, balance.currency)}, with the credit line {left}",
            "Top it up in Telnyx's portal; the forecast is made of what the last days took",
        ),
    )
