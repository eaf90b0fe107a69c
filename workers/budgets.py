"""Watches the budgets: reads what has been spent, shows it, and tells of each rung once.

All of it is derived from the sums in Redis and not from the call that crossed a rung: a worker that
dies right after that call takes no notice with it.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from service.keys import spend_key
from service.logs import get_logger
from service.money import plain
from service.records import Notice, moment
from service.spend import Spending, Sum, kept_ms, told_field
from service.store import Rung, Store
from workers.detection.budget import WHOLE, Period, Standing, finding, period_of, standing
from workers.detection.pace import DAYS_KNOWN
from workers.metrics import WorkerMetrics
from workers.policy import Budget, Policy
from workers.wording import amount

_LOOK_MS: Final = 5_000
# Costs come up to some hours late: of a period that has just ended it is worth saying that its
# budget was used up, and nothing less.
_LATE_MS: Final = 6 * 3_600_000

_log = get_logger()


async def standings(spending: Spending, policy: Policy, now_ms: int) -> list[Standing]:
    """Every budget in its present period, with its forecast."""
    currency = policy.currency
    periods = [(budget, period_of(budget.per, now_ms)) for budget in dict.fromkeys(policy.budgets)]
    sums = await _sums(spending, currency, periods)
    return [
        await _forecast(spending, currency, budget, period, found, now_ms)
        for (budget, period), found in zip(periods, sums, strict=True)
    ]


def brief(stands: Standing, currency: str) -> dict[str, Any]:
    """One budget for other programs."""
    budget, used_up_ms = stands.budget, stands.used_up_ms
    return {
        "per": budget.per,
        "period": stands.period.name,
        **dict(budget.when.conditions),
        "amount": plain(budget.amount),
        "spent": plain(stands.spent),
        "currency": currency,
        "used_up_at": moment(used_up_ms).isoformat() if used_up_ms is not None else None,
    }


@dataclass(slots=True)
class BudgetWatch:
    """To be given a turn every few seconds. Redis' errors pass through."""

    store: Store
    spending: Spending
    policy: Policy
    metrics: WorkerMetrics
    _looked_ms: int | None = field(default=None, init=False)

    async def turn(self, *, now_ms: int) -> None:
        """Look at every budget, if it is time to."""
        if self._looked_ms is not None and now_ms - self._looked_ms < _LOOK_MS:
            return
        self._looked_ms = now_ms
        periods = [
            (budget, period)
            for budget in dict.fromkeys(self.policy.budgets)
            for period in _periods(budget, now_ms)
        ]
        sums = await _sums(self.spending, self.policy.currency, periods)
        for (budget, period), found in zip(periods, sums, strict=True):
            stands = Standing(budget, period, found.spent)
            is_present = now_ms < period.end_ms
            if is_present:
                self._show(stands)
            rung = max(stands.reached, default=0)
            if rung > found.told and (is_present or rung == WHOLE):
                await self._tell(budget, period, found, rung, now_ms)

    def _show(self, stands: Standing) -> None:
        budget = stands.budget
        labels = (budget.per, budget.when.cohort, amount(budget.amount))
        self.metrics.budget_share.labels(*labels).set(float(stands.share))

    async def _tell(
        self, budget: Budget, period: Period, found: Sum, rung: int, now_ms: int
    ) -> None:
        currency = self.policy.currency
        stands = await _forecast(self.spending, currency, budget, period, found, now_ms)
        crossed = finding(stands, rung, currency, now_ms)
        notice = Notice(
            id=crossed.id,
            kind=crossed.kind,
            at_ms=now_ms,
            text=crossed.text,
            details=("Where all budgets stand: tollwatch budget",),
        )
        told = Rung(
            spend_key(currency, period.name),
            told_field(budget.key),
            rung,
            kept_ms(period.name),
        )
        if await self.store.notify(notice, now_ms=now_ms, rung=told):
            _log.warning("budget", rung=rung, period=period.name, spent=found.spent)


def _periods(budget: Budget, now_ms: int) -> tuple[Period, ...]:
    """The present one, and the one before where costs of it still come in."""
    return tuple(
        dict.fromkeys((period_of(budget.per, now_ms), period_of(budget.per, now_ms - _LATE_MS)))
    )


async def _sums(
    spending: Spending, currency: str, periods: list[tuple[Budget, Period]]
) -> list[Sum]:
    if not periods:
        return []
    wanted = [(period.name, budget.when.key, budget.key) for budget, period in periods]
    return await spending.sums(currency, wanted)


async def _forecast(
    spending: Spending,
    currency: str,
    budget: Budget,
    period: Period,
    found: Sum,
    now_ms: int,
) -> Standing:
    (hours,) = await spending.hours(currency, [budget.when.key], now_ms, days=DAYS_KNOWN)
    return standing(budget, period, found.spent, hours, now_ms)
