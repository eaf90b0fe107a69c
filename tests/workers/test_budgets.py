"""Budgets are told of by whoever looks, from what Redis holds, each rung once."""

from decimal import Decimal

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from service import keys
from service.queue import Claim
from service.records import State
from service.spend import Spending
from service.store import Store
from tests.samples import END_MS, assistant_call, scheduling
from workers.analysis import decode_analysis
from workers.analyze import Analyst
from workers.answer import Ready
from workers.baselines import Baselines
from workers.budgets import BudgetWatch, standings
from workers.decide import Rules
from workers.feedback import FeedbackBook
from workers.learning import Learning
from workers.metrics import WorkerMetrics
from workers.policy import Budget, Policy, Scope
from workers.settle import Schedule

pytestmark = pytest.mark.anyio

SCHEDULE = Schedule.of_seconds((90, 300))
LATER_MS = END_MS + 400_000
ANSWER = assistant_call("4.00", seconds=3600)
TOTAL = Decimal(ANSWER["cost"]["total"])


class Telnyx:
    """Every call costs the same."""

    async def analysis(self, *_: object, **__: object) -> Ready:
        return Ready(decode_analysis(msgspec.json.encode(ANSWER)))


class Scene:
    """Calls that come to their verdicts, and a watch on the budgets."""

    def __init__(self, redis: Redis, *budgets: Budget) -> None:
        self.redis = redis
        self.policy = Policy(budgets=budgets)
        self.store = Store(redis, retention_ms=86_400_000)
        self.now_ms = END_MS
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.watch = BudgetWatch(self.store, Spending(redis), self.policy, self.metrics)

    async def call(self, id: str, assistant: str | None = None, *, end_ms: int = END_MS) -> None:
        """One call, from its webhook to its verdict, as a worker does it."""
        event = scheduling(id, at_ms=end_ms, start_ms=end_ms - 9_000, assistant_id=assistant)
        await self.store.record(event, now_ms=end_ms)
        baselines = Baselines(self.redis, retention_ms=86_400_000)
        analyst = Analyst(
            self.store,
            Telnyx(),  # type: ignore[arg-type]
            Rules(SCHEDULE, self.policy),
            metrics := WorkerMetrics(CollectorRegistry()),
            lambda: self.now_ms,
            Learning(baselines, self.store, metrics),
            FeedbackBook(self.redis, baselines, 86_400_000),
        )
        for age in (90, 300):
            self.now_ms = end_ms + age * 1000
            fields = {"token": "t", "claimed": "1"}
            await self.redis.hset(keys.session_key(id), mapping=fields)  # type: ignore[misc]
            await analyst.analyze(Claim(id, "t", self.now_ms, taken_over=False))
        session = await self.store.session(id)
        assert session
        assert session.state is State.VERDICT

    async def told(self) -> list[str]:
        found = [
            await self.store.item(id)
            async for id in self.store.alert_ids()
            if id.endswith(keys.IS_NOTICE)
        ]
        return [each.subject.text for each in reversed(found) if each]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def budget(share: str, scope: Scope | None = None) -> Budget:
    """One of which a call takes so many hundredths."""
    amount = (TOTAL * 100 / Decimal(share)).quantize(Decimal("0.0001"))
    return Budget(per="day", amount=amount, when=scope or Scope())


async def test_a_verdict_counts_and_its_rungs_are_told(redis: Redis) -> None:
    """From the webhook to the notice: the money of two calls crosses 50 percent, and then 80."""
    scene = Scene(redis, budget("41.1"))
    await scene.call("a")
    await scene.watch.turn(now_ms=LATER_MS)
    assert await scene.told() == []
    await scene.call("b")
    await scene.watch.turn(now_ms=LATER_MS + 5_000)
    (text,) = await scene.told()
    assert ": 82 % used (" in text
    assert "at this pace it is used up at about" in text
    share = scene.metric(
        "tollwatch_budget_share",
        per="day",
        scope="account",
        amount=f"{scene.policy.budgets[0].amount:.2f}",
    )
    assert share == pytest.approx(0.822, abs=0.001)
    await scene.watch.turn(now_ms=LATER_MS + 10_000)
    assert len(await scene.told()) == 1, "50 percent does not follow"
    await scene.call("c")
    await scene.watch.turn(now_ms=LATER_MS + 12_000)
    assert len(await scene.told()) == 1, "it is not yet time to look"
    await scene.watch.turn(now_ms=LATER_MS + 15_000)
    assert ": used up (" in (await scene.told())[1]


async def test_a_worker_killed_after_the_verdict_takes_no_notice_with_it(redis: Redis) -> None:
    """Another worker, or the same one anew, tells of what the dead one counted; and only one."""
    scene = Scene(redis, budget("60"))
    await scene.call("a")
    for _ in range(2):
        other = BudgetWatch(
            scene.store, Spending(redis), scene.policy, WorkerMetrics(CollectorRegistry())
        )
        await other.turn(now_ms=LATER_MS)
    assert len(await scene.told()) == 1


async def test_each_budget_has_its_calls(redis: Redis) -> None:
    """An assistant's budget counts its own calls and no others."""
    scene = Scene(
        redis, budget("60", Scope(assistant="other")), budget("50", Scope(assistant="mine"))
    )
    await scene.call("a", "mine")
    await scene.watch.turn(now_ms=LATER_MS)
    (text,) = await scene.told()
    assert "per day for mine: " in text
    stands = await standings(Spending(redis), scene.policy, LATER_MS)
    assert [(each.budget.when.cohort, float(each.share)) for each in stands] == [
        ("other", 0.0),
        ("mine", pytest.approx(0.5, abs=0.001)),
    ]
    assert stands[0].used_up_ms is None


async def test_of_yesterday_only_the_whole_is_told(redis: Redis) -> None:
    """Costs that come after midnight tell that the day's budget was used up, and nothing less."""
    evening = END_MS - 15 * 3_600_000  # 2026-09-20T23:13Z
    midnight = evening + 50 * 60_000
    scene = Scene(redis, budget("50"))
    await scene.call("a", end_ms=evening)
    await scene.watch.turn(now_ms=midnight)
    assert await scene.told() == []
    await scene.call("b", end_ms=evening)
    await scene.watch.turn(now_ms=midnight + 60_000)
    (text,) = await scene.told()
    assert ": used up on 2026-09-20 (" in text
    assert scene.metric("tollwatch_budget_share", per="day", scope="account", amount="8.38") == 0


async def test_what_came_much_later_is_no_news(redis: Redis) -> None:
    """Hours into the next day nobody is told of a day that is over."""
    scene = Scene(redis, budget("100"))
    await scene.call("a", end_ms=END_MS - 24 * 3_600_000)
    await scene.watch.turn(now_ms=END_MS)
    assert await scene.told() == []


async def test_money_in_another_currency_is_not_added(redis: Redis) -> None:
    """What cannot be compared with a budget counts for none."""
    scene = Scene(redis, budget("100"))
    scene.policy = scene.policy.model_copy(update={"currency": "EUR"})
    await scene.call("a")
    assert [name async for name in redis.scan_iter(keys.SPEND + "*")] == []


async def test_without_budgets_nothing_is_asked(redis: Redis) -> None:
    """A policy without budgets costs no round trip."""
    scene = Scene(redis)
    await redis.aclose()
    await scene.watch.turn(now_ms=LATER_MS)
    assert await standings(Spending(redis), scene.policy, LATER_MS) == []
