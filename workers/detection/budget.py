"""Budgets: what all calls of a day or a month cost together, against what they may. Pure.

Days and months are those of UTC, and a call belongs to the one in which it ended. Each rung of a
budget is told once in a period, whatever comes later in whatever order. Money is added up in whole
millionths, so that its order does not matter either.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from service.money import ZERO, millionths, of_millionths
from service.records import ACCOUNT, moment
from workers.detection.finding import Finding
from workers.detection.pace import DAY_MS, HOUR_MS, pace_of
from workers.policy import Budget, Per
from workers.wording import priced

RUNGS: Final = (50, 80, 100)
"""In percent of the budget."""
WHOLE: Final = RUNGS[-1]

_PERCENT: Final = Decimal(100)
_TEN_MINUTES: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month of UTC: `2026-03-14`, `2026-03`. It ends before `end_ms`."""

    per: Per
    name: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one budget stands in one period."""

    budget: Budget
    period: Period
    spent: Decimal
    used_up_ms: int | None = None
    """When it is used up if calls go on as they do; None where it lasts."""

    @property
    def share(self) -> Decimal:
        """The part that is spent; 1 is all of it."""
        return self.spent / self.budget.amount

    @property
    def reached(self) -> tuple[int, ...]:
        """The rungs that are reached, ascending."""
        return tuple(rung for rung in RUNGS if self.spent * _PERCENT >= self.budget.amount * rung)


def period_of(per: Per, at_ms: int) -> Period:
    """The period in which a moment lies."""
    at = moment(at_ms).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return Period(per, f"{at:%Y-%m-%d}", _ms(at), _ms(at + timedelta(days=1)))
    first = at.replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(per, f"{first:%Y-%m}", _ms(first), _ms(following))


def standing(
    budget: Budget, period: Period, spent: Decimal, hours: Mapping[int, float], at_ms: int
) -> Standing:
    """Where a budget stands, with its forecast. `hours`: money by hour, as `pace_of` wants it."""
    used_up_ms = None
    if spent < budget.amount:
        pace = pace_of(hours, at_ms, period.start_ms)
        used_up_ms = pace.used_up_ms(float(budget.amount - spent), at_ms, period.end_ms)
    return Standing(budget, period, spent, used_up_ms)


def finding(stands: Standing, rung: int, currency: str, at_ms: int) -> Finding:
    """That a rung is reached."""
    budget, period = stands.budget, stands.period
    return Finding(
        id=f"budget:{period.name}:{budget.key}:{rung}",
        kind="budget",
        cohort=budget.when.cohort,
        from_ms=period.start_ms,
        to_ms=at_ms,
        at_ms=at_ms,
        score=float(stands.share),
        excess=max(ZERO, stands.spent - budget.amount),
        text=sentence(stands, currency, at_ms),
        rung=str(rung),
    )


def sentence(stands: Standing, currency: str, at_ms: int) -> str:
    """A budget and where it stands, in one sentence."""
    budget, period = stands.budget, stands.period
    named = "" if at_ms < period.end_ms else f" on {period.name}"
    spent = priced(stands.spent, currency)
    begin = f"Budget of {priced(budget.amount, currency)} per {period.per} for {_whose(budget)}"
    if stands.spent >= budget.amount:
        return f"{begin}: used up{named} ({spent}) at {_clock(at_ms)} UTC"
    used = f"{begin}: {int(stands.share * _PERCENT)} % used{named} ({spent}) at {_clock(at_ms)} UTC"
    return f"{used}; {outlook(stands, at_ms)}"


def outlook(stands: Standing, at_ms: int) -> str:
    """The forecast, in words."""
    if stands.used_up_ms is None:
        return f"at this pace it lasts for the {stands.period.per}"
    return f"at this pace it is used up {about(stands.used_up_ms, at_ms)}"


def about(moment_ms: int, now_ms: int) -> str:
    """A forecast moment, no more exact than it can be: "at about 17:30 UTC", with its day."""
    at = moment(moment_ms)
    at = at.replace(minute=at.minute // 10 * 10, second=0, microsecond=0)
    if moment(moment_ms) - at >= _TEN_MINUTES / 2:
        at += _TEN_MINUTES
    if at.date() == moment(now_ms).date():
        return f"at about {at:%H:%M} UTC"
    return f"on {at:%Y-%m-%d} at about {at:%H:%M} UTC"


class Budgets:
    """The budgets of one policy over a stream of calls: each as it crosses its rungs."""

    def __init__(self, budgets: Iterable[Budget], currency: str) -> None:
        self._currency = currency
        self._tallies = {budget: _Tally(budget) for budget in budgets}
        self._periods: dict[tuple[Per, int], Period] = {}

    def spent(
        self, at_ms: int, amount: Decimal, assistant_id: str | None, connection_id: str | None
    ) -> list[Finding]:
        """A call that ended at `at_ms` cost so much: the rungs that are reached by it."""
        found: list[Finding] = []
        if not self._tallies:
            return found
        count = millionths(amount)
        for budget, tally in self._tallies.items():
            if budget.when.includes(assistant_id, connection_id):
                found += tally.add(count, self._period(budget.per, at_ms), at_ms, self._currency)
        return found

    def spent_in(self, budget: Budget, at_ms: int) -> Decimal:
        """What has been spent in the budget's period of that moment."""
        return of_millionths(self._tallies[budget].spent[self._period(budget.per, at_ms)])

    def _period(self, per: Per, at_ms: int) -> Period:
        key = per, at_ms // DAY_MS
        if key not in self._periods:
            self._periods[key] = period_of(per, at_ms)
        return self._periods[key]


class _Tally:
    """What one budget's calls have cost."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent: defaultdict[Period, int] = defaultdict(int)
        self.hours: defaultdict[int, int] = defaultdict(int)
        self.told: defaultdict[Period, int] = defaultdict(int)
        """How many of the rungs."""

    def add(self, count: int, period: Period, at_ms: int, currency: str) -> list[Finding]:
        """So many millionths more; the rungs that are reached by them."""
        self.hours[at_ms // HOUR_MS] += count
        self.spent[period] += count
        told = self.told[period]
        reached = Standing(self.budget, period, of_millionths(self.spent[period])).reached
        if len(reached) <= told:
            return []
        self.told[period] = len(reached)
        hours = {hour: float(of_millionths(count)) for hour, count in self.hours.items()}
        spent = of_millionths(self.spent[period])
        stands = standing(self.budget, period, spent, hours, at_ms)
        return [finding(stands, rung, currency, at_ms) for rung in reached[told:]]


def _whose(budget: Budget) -> str:
    cohort = budget.when.cohort
    return f"the {cohort}" if cohort == ACCOUNT else cohort


def _clock(at_ms: int) -> str:
    return f"{moment(at_ms):%H:%M}"


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
