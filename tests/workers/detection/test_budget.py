"""A budget is told at its rungs: each once in a period, whatever the order of the calls."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.money import millionths, of_millionths
from workers.detection.budget import (
    RUNGS,
    Budgets,
    Standing,
    about,
    finding,
    outlook,
    period_of,
    sentence,
)
from workers.detection.finding import Finding
from workers.policy import Budget, Per, Scope


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = at("2026-03-14T12:00")
DAILY = Budget(per="day", amount=Decimal(30))
MONTHLY = Budget(per="month", amount=Decimal(100))


def spend(budgets: Budgets, money: str, at_ms: int = NOON, **call: str) -> list[str]:
    found = budgets.spent(at_ms, Decimal(money), call.get("assistant"), call.get("connection"))
    return [f"{each.cohort} {each.rung}" for each in found]


@pytest.mark.parametrize(
    ("per", "moment", "name", "start", "end"),
    [
        ("day", "2026-03-14T23:59:59.999", "2026-03-14", "2026-03-14", "2026-03-15"),
        ("day", "2026-03-15T00:00", "2026-03-15", "2026-03-15", "2026-03-16"),
        ("month", "2026-02-28T12:00", "2026-02", "2026-02-01", "2026-03-01"),
        ("month", "2026-12-31T23:59", "2026-12", "2026-12-01", "2027-01-01"),
    ],
)
def test_days_and_months_are_utcs(per: Per, moment: str, name: str, start: str, end: str) -> None:
    """A period begins at a midnight of UTC and ends before the next one's."""
    period = period_of(per, at(moment))
    assert (period.name, period.start_ms, period.end_ms) == (name, at(start), at(end))


def test_each_rung_is_told_at_its_crossing() -> None:
    """At 50, 80 and 100 percent, reached exactly or passed; and not again."""
    budgets = Budgets([DAILY], "USD")
    assert spend(budgets, "14.99") == []
    assert spend(budgets, "0.01") == ["account 50"]
    assert spend(budgets, "8.99") == []
    assert spend(budgets, "0.02") == ["account 80"]
    assert spend(budgets, "20") == ["account 100"]
    assert spend(budgets, "20") == []


def test_one_call_may_cross_several() -> None:
    """Each of them is a finding; whoever tells people has the choice."""
    assert spend(Budgets([DAILY], "USD"), "31") == ["account 50", "account 80", "account 100"]


def test_a_period_begins_anew() -> None:
    """The next day has its own rungs, and the month goes on."""
    budgets = Budgets([DAILY, MONTHLY], "USD")
    assert spend(budgets, "28", at("2026-03-14T12:00")) == ["account 50", "account 80"]
    assert spend(budgets, "28", at("2026-03-15T12:00")) == [
        "account 50",
        "account 80",
        "account 50",
    ]
    assert spend(budgets, "28", at("2026-04-01T00:00")) == ["account 50", "account 80"]
    assert budgets.spent_in(MONTHLY, NOON) == 56


def test_a_refund_does_not_make_a_rung_new() -> None:
    """What falls below a rung and passes it again is not told twice."""
    budgets = Budgets([DAILY], "USD")
    assert spend(budgets, "15") == ["account 50"]
    assert spend(budgets, "-5") == []
    assert spend(budgets, "5") == []


def test_a_budget_counts_its_own_calls() -> None:
    """Those of its assistant, of its connection, or of both at once; a stranger's for none."""
    budgets = Budgets(
        [
            Budget(per="day", amount=Decimal(1), when=Scope(assistant="a")),
            Budget(per="day", amount=Decimal(1), when=Scope(connection="c")),
            Budget(per="day", amount=Decimal(1), when=Scope(assistant="a", connection="c")),
        ],
        "USD",
    )
    assert spend(budgets, "9") == []
    assert spend(budgets, "0.5", assistant="a") == ["a 50"]
    assert spend(budgets, "0.5", connection="c") == ["c 50"]
    assert spend(budgets, "0.5", assistant="a", connection="c") == [
        "a 80",
        "a 100",
        "c 80",
        "c 100",
        "a, c 50",
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.decimals("0", "20", places=7), st.sampled_from("ab")),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_does_not_matter(calls: list[tuple[int, Decimal, str]], rng: object) -> None:
    """Sums and rungs are the same in any order, each rung is told once, and none too early."""
    of_a = Budget(per="day", amount=Decimal(30), when=Scope(assistant="a"))
    shuffled = list(calls)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    told: list[list[str]] = []
    sums: list[list[Decimal]] = []
    for order in (calls, shuffled):
        budgets = Budgets([DAILY, of_a], "USD")
        found: list[Finding] = []
        for day, money, assistant in order:
            moment = NOON + day * 86_400_000
            found += budgets.spent(moment, money, assistant, None)
        told.append([each.id for each in found])
        days = [NOON + day * 86_400_000 for day in range(3)]
        sums.append([budgets.spent_in(budget, day) for budget in (DAILY, of_a) for day in days])
    assert sorted(told[0]) == sorted(told[1])
    assert len(set(told[0])) == len(told[0])
    assert sums[0] == sums[1]
    reached = sum(
        len(Standing(budget, period_of("day", NOON), spent).reached)
        for budget, spent in zip([DAILY] * 3 + [of_a] * 3, sums[0], strict=True)
    )
    assert len(told[0]) == reached


@given(st.decimals("0", "60", places=2), st.decimals("0", "60", places=2))
def test_more_spent_reaches_no_fewer_rungs(a: Decimal, b: Decimal) -> None:
    """The rungs reached are the first ones, and grow with what is spent."""
    less, more = (Standing(DAILY, period_of("day", NOON), s).reached for s in sorted((a, b)))
    assert less == RUNGS[: len(less)]
    assert more[: len(less)] == less


@given(st.decimals("-1000000", "1000000", places=6))
def test_millionths_are_exact(amount: Decimal) -> None:
    """What has six places comes back; more than a million a call is a million."""
    assert of_millionths(millionths(amount)) == amount
    assert millionths(amount + 2_000_001) == 10**12


# --- in words ------------------------------------------------------------------------------------


def stand(spent: str, used_up: str | None = None, budget: Budget = DAILY) -> Standing:
    used_up_ms = at(used_up) if used_up else None
    return Standing(budget, period_of(budget.per, NOON), Decimal(spent), used_up_ms)


def test_the_sentence_has_the_money_and_the_forecast() -> None:
    """How much, whose, how far, and when it ends; the share is never rounded up to a rung."""
    now = at("2026-03-14T14:10")
    assert sentence(stand("24.113", "2026-03-14T17:33"), "USD", now) == (
        "Budget of 30.00 USD per day for the account: 80 % used (24.11 USD) at 14:10 UTC; "
        "at this pace it is used up at about 17:30 UTC"
    )
    assert sentence(stand("29.99"), "USD", now) == (
        "Budget of 30.00 USD per day for the account: 99 % used (29.99 USD) at 14:10 UTC; "
        "at this pace it lasts for the day"
    )
    assert sentence(stand("30"), "EUR", now) == (
        "Budget of 30.00 EUR per day for the account: used up (30.00 EUR) at 14:10 UTC"
    )


def test_a_month_names_the_day() -> None:
    """A forecast for another day says which; one of a period that is over says that of it."""
    budget = Budget(per="month", amount=Decimal(100), when=Scope(assistant="assistant-1"))
    late = stand("50", "2026-03-20T23:56", budget)
    assert outlook(late, NOON) == "at this pace it is used up on 2026-03-21 at about 00:00 UTC"
    assert sentence(stand("104", budget=DAILY), "USD", at("2026-03-15T00:20")) == (
        "Budget of 30.00 USD per day for the account: used up on 2026-03-14 (104.00 USD) at "
        "00:20 UTC"
    )
    assert sentence(late, "USD", NOON).startswith(
        "Budget of 100.00 USD per month for assistant-1: 50 % used (50.00 USD) at 12:00 UTC; "
    )
    assert about(at("2026-03-14T17:35"), NOON) == "at about 17:40 UTC"


def test_a_finding_is_named_by_its_budget() -> None:
    """The same rung of the same budget has the same id, wherever it is found; a changed one not."""
    found = finding(stand("33", budget=DAILY), 100, "USD", NOON)
    assert found.id == "budget:2026-03-14:account:30:100"
    assert (found.kind, found.cohort, found.rung) == ("budget", "account", "100")
    assert (str(found.excess), found.from_ms, found.to_ms) == ("3", at("2026-03-14"), NOON)
    assert DAILY.key != Budget(per="day", amount=Decimal(31)).key
    scopes = [Scope(), Scope(assistant="a"), Scope(connection="a"), Scope(assistant="b")]
    assert len({scope.key for scope in scopes}) == 4
    assert all(len(scope.key) == 8 for scope in scopes[1:])


def test_the_forecast_looks_at_the_hours() -> None:
    """Half of it gone by noon of the first day: at this pace the day's end sees it used up."""
    budgets = Budgets([Budget(per="day", amount=Decimal(30))], "USD")
    told = []
    for hour in range(12):
        moment = at(f"2026-03-14T{hour:02}:30")
        told += budgets.spent(moment, Decimal("1.5"), None, None)
    (half,) = told
    assert half.text == (
        "Budget of 30.00 USD per day for the account: 50 % used (15.00 USD) at 09:30 UTC; "
        "at this pace it is used up at about 19:00 UTC"
    )
