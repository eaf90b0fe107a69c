"""`tollwatch budget`: what is spent, and when it is used up."""

import asyncio
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from service.money import millionths
from service.spend import hour_name
from tests.samples import END_MS
from tests.workers.local_http import Vendor
from tests.workers.test_cli import KEY, Cli, telnyx, words  # noqa: F401 - a fixture
from tests.workers.test_display import lines_of, shown
from tests.world.valkey import Valkey
from workers.detection.balance import Balance, RunOut
from workers.detection.budget import Standing, period_of
from workers.detection.pace import DAY_MS
from workers.display import balance_view, budgets_view
from workers.policy import Budget, Scope

POLICY = """\
budgets:
- {per: day, amount: 30}
- {per: month, amount: 100, when: {assistant: assistant-1}}
"""
BALANCE = {"balance": "12.00", "available_credit": "12.00", "currency": "USD"}
HAS = {"data": BALANCE}


@pytest.fixture
def cli(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with budgets, in front of a Redis that has sums of today."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)

    async def fill() -> None:
        now_ms = int(time.time() * 1000)
        async with Redis.from_url(valkey.url) as redis:
            await redis.flushall()
            # Midnight may come before the command does.
            hours = {hour_name(now_ms), hour_name(now_ms + 60_000)}
            for name in {name[:length] for name in hours for length in (7, 10, 13)}:
                sums = {"account": str(millionths(Decimal("24.50")))}
                await redis.hset(keys.spend_key("USD", name), mapping=sums)

    asyncio.run(fill())
    return Cli({"REDIS_URL": valkey.url, "TOLLWATCH_POLICY": "policy.yaml"})


def test_budgets_without_a_key(cli: Cli) -> None:
    """Spend, share and forecast of each budget; without a key nothing is asked of Telnyx."""
    text, problems = cli.run("budget")
    assert problems == ""
    account, assistant = [line for line in text.splitlines() if "USD per" in line]
    assert words(account).startswith("30.00 USD per day all calls 24.50 ████████████████░░░░ 81 %")
    assert words(assistant) == (
        "100.00 USD per month assistant assistant-1 0.00 ░░░░░░░░░░░░░░░░░░░░ 0 % "
        "lasts for the month"
    )
    assert "Balance" not in text


def test_the_balance_comes_with_a_key(cli: Cli, telnyx: Vendor) -> None:  # noqa: F811
    """Asked for at this moment, with the day on which it runs out."""
    telnyx.answer("/balance", HAS)
    cli.environ |= {"TELNYX_API_KEY": KEY, "TELNYX_API_URL": telnyx.url}
    text, problems = cli.run("budget")
    assert problems == ""
    assert "Balance: 12.00 USD available; at this pace it runs out" in words(text)
    telnyx.answer("/balance", {}, status=403)
    text, problems = cli.run("budget")
    assert "30.00 USD per day" in text
    assert "Telnyx does not tell the balance: 403" in problems


def test_budgets_as_json(cli: Cli, telnyx: Vendor) -> None:  # noqa: F811
    """The same for programs; without a key there is no balance."""
    found = msgspec.json.decode(cli.run("budget", "--format", "json")[0])
    assert found["balance"] is None
    account, assistant = found["budgets"]
    assert (account["per"], account["amount"], account["spent"]) == ("day", "30", "24.5")
    assert (assistant["assistant"], assistant["used_up_at"]) == ("assistant-1", None)
    telnyx.answer("/balance", HAS)
    cli.environ |= {"TELNYX_API_KEY": KEY, "TELNYX_API_URL": telnyx.url}
    found = msgspec.json.decode(cli.run("budget", "--format", "json")[0])
    assert found["balance"]["available"] == "12"
    assert found["balance"]["empty_at"].endswith("+00:00")


def test_a_policy_without_budgets_says_so(cli: Cli) -> None:
    """The built-in policy has none, which is no failure."""
    text, problems = cli.run("budget", TOLLWATCH_POLICY="")
    assert (text, problems) == ("", "the policy has no budgets\n")


def test_how_budgets_look() -> None:
    """A bar is full when the budget is used up, and no sooner."""
    day = Budget(per="day", amount=Decimal(30))
    other = Budget(per="day", amount=Decimal(30), when=Scope(connection="7"))
    period = period_of("day", END_MS)
    found = [
        Standing(day, period, Decimal("29.99"), END_MS + 60_000),
        Standing(other, period, Decimal(45)),
    ]
    first, second = lines_of(shown(budgets_view(found, "USD", END_MS)))[-2:]
    assert words(first).endswith("███████████████████░ 99 % used up at about 14:10 UTC")
    assert words(second).endswith("connection 7 45.00 ████████████████████ 150 % used up")


@pytest.mark.parametrize(
    ("available", "empty_ms", "words"),
    [
        ("0", END_MS, "calls stop until it is topped up"),
        ("12", END_MS + DAY_MS, "at this pace it runs out on 2026-09-22 at about 14:10 UTC"),
        ("12", None, "at this pace it lasts for more than 30 days"),
    ],
)
def test_how_a_balance_looks(available: str, empty_ms: int | None, words: str) -> None:
    """Empty, for how long, or for longer than anybody asks."""
    balance = Balance(Decimal(available), Decimal(available), "USD")
    assert shown(balance_view(RunOut(balance, END_MS, empty_ms))).rstrip().endswith(words)
