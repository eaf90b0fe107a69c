"""What calls have cost in an hour, a day and a month: each session counts once, as it stands."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from service import keys
from service.records import ACCOUNT, Conclusion, Notice, Spend, State, Watch
from service.spend import DAY_KEPT_MS, HOUR_KEPT_MS, MONTH_KEPT_MS, Spending, counted, kept_ms
from service.store import Concluded, Rung, Store
from tests.samples import END_MS, scheduling

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000
HOUR, DAY, MONTH = "2026-09-21T14", "2026-09-21", "2026-09"


def spend(amount: str, *scopes: str, end_ms: int = END_MS) -> Spend:
    return Spend(Decimal(amount), "USD", end_ms, (ACCOUNT, *scopes))


class Scene:
    """A store whose sessions get verdicts."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = Store(redis, retention_ms=DAY_MS)
        self._events = 0

    async def take(self, session_id: str, token: str) -> Any:
        """A worker begins with the session, of which there is news."""
        self._events += 1
        await self.store.record(scheduling(session_id, str(self._events)), now_ms=END_MS)
        await self.redis.hset(keys.session_key(session_id), "token", token)  # type: ignore[misc]
        return await self.store.take(session_id, token)

    async def conclude(self, session: Any, token: str, counts: Spend | None) -> Concluded:
        done = Conclusion(State.VERDICT, Watch(), None, "", answered=True, spend=counts)
        return await self.store.conclude(session, token, done, now_ms=END_MS)

    async def verdict(self, session_id: str, counts: Spend | None) -> Concluded:
        return await self.conclude(await self.take(session_id, "t"), "t", counts)

    async def sums(self, scope: str = ACCOUNT, periods: Sequence[str] = (HOUR, DAY, MONTH)) -> Any:
        wanted = [(period, scope, "") for period in periods]
        return [str(each.spent) for each in await Spending(self.redis).sums("USD", wanted)]


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


async def test_verdicts_add_up(scene: Scene) -> None:
    """In the hour, the day and the month of the call's end, for the account and each scope."""
    await scene.verdict("a", spend("0.1000004", "AbCdEf12"))
    await scene.verdict("b", spend("0.2000006"))
    await scene.verdict("c", spend("7", end_ms=END_MS + DAY_MS))
    assert await scene.sums() == ["0.300001", "0.300001", "7.300001"]
    assert await scene.sums("AbCdEf12") == ["0.1", "0.1", "0.1"]
    assert await scene.sums("unknown") == ["0", "0", "0"]


async def test_a_second_verdict_replaces_the_first(scene: Scene) -> None:
    """A late leg adds its difference, moves what it moves, and an equal verdict changes nothing."""
    await scene.verdict("a", spend("0.10", "AbCdEf12"))
    await scene.verdict("a", spend("0.35", "GhIjKl34"))
    assert await scene.sums() == ["0.35"] * 3
    assert await scene.sums("AbCdEf12") == ["0"] * 3
    assert await scene.sums("GhIjKl34") == ["0.35"] * 3
    await scene.verdict("a", spend("0.35", "GhIjKl34"))
    assert await scene.sums() == ["0.35"] * 3
    await scene.verdict("a", None)
    assert await scene.sums() == ["0.35"] * 3
    await scene.verdict("a", spend("0.05", end_ms=END_MS + DAY_MS))
    assert await scene.sums() == ["0", "0", "0.05"]


async def test_a_worker_that_was_killed_has_counted_all_or_nothing(scene: Scene) -> None:
    """Its successor counts once, and what the dead one may still say is not heard."""
    first = await scene.take("a", "first")
    # Killed here: the lease ends, and another worker takes the session up.
    second = await scene.take("a", "second")
    assert await scene.conclude(second, "second", spend("0.10")) is Concluded.CONCLUDED
    assert await scene.conclude(first, "first", spend("0.10")) is Concluded.LOST
    # The answer to the conclusion got lost, so it is sent again.
    assert await scene.conclude(second, "second", spend("0.10")) is Concluded.LOST
    assert await scene.sums() == ["0.1"] * 3


async def test_old_news_counts_for_nothing(scene: Scene) -> None:
    """What was decided before another event came is not written, and not counted."""
    taken = await scene.take("a", "t")
    await scene.store.record(scheduling("a", "late"), now_ms=END_MS)
    assert await scene.conclude(taken, "t", spend("0.10")) is Concluded.CHANGED
    assert await scene.sums() == ["0"] * 3


async def test_sums_end(scene: Scene, redis: Redis) -> None:
    """Hours, days and months have lifetimes; what has ended is not begun again by taking back."""
    await scene.verdict("a", spend("0.10"))
    lifetimes = {HOUR: HOUR_KEPT_MS, DAY: DAY_KEPT_MS, MONTH: MONTH_KEPT_MS}
    for period, lifetime in lifetimes.items():
        assert kept_ms(period) == lifetime
        assert lifetime - 10_000 < await redis.pttl(keys.spend_key("USD", period)) <= lifetime
    await redis.delete(keys.spend_key("USD", HOUR))
    await scene.verdict("a", spend("0.10", end_ms=END_MS + DAY_MS))
    assert not await redis.exists(keys.spend_key("USD", HOUR))
    assert await scene.sums() == ["0", "0", "0.1"]


async def test_absurd_amounts_are_bounded(scene: Scene) -> None:
    """A call counts for a million at most, and a refund takes off what it gave back."""
    await scene.verdict("a", spend("1e15"))
    await scene.verdict("b", spend("-2.5"))
    assert await scene.sums() == ["999997.5"] * 3


async def test_the_hours_are_read_by_scope(scene: Scene, redis: Redis) -> None:
    """The hours of the last days, for several scopes in one round trip; without cost: none."""
    await scene.verdict("a", spend("0.10", "AbCdEf12"))
    await scene.verdict("b", spend("3", end_ms=END_MS - 2 * DAY_MS))
    await scene.verdict("c", spend("5", end_ms=END_MS - 9 * DAY_MS))
    account, scope = await Spending(redis).hours("USD", [ACCOUNT, "AbCdEf12"], END_MS, days=8)
    this = END_MS // 3_600_000
    assert account == {this: 0.1, this - 48: 3.0}
    assert scope == {this: 0.1}


def test_what_a_session_remembers_is_short() -> None:
    """Up to three scopes fit into what Redis keeps in one compact block."""
    text = counted(spend("12.345678", *["AbCdEf12"] * 3))
    assert text.startswith("12345678 USD:2026-09-21T14 account ")
    assert len(text) <= 64


async def test_of_rungs_the_highest_is_told(redis: Redis) -> None:
    """What is below one that was told does not follow, under whatever id, and it ends in time."""
    store = Store(redis, retention_ms=DAY_MS)

    async def tell(level: int, id: str) -> bool:
        notice = Notice(id, "budget", END_MS, "so much")
        rung = Rung(keys.BALANCE, "told", level, 60_000)
        return await store.notify(notice, now_ms=END_MS, rung=rung)

    assert await tell(50, "a")
    assert not await tell(50, "b")
    assert await tell(100, "c")
    assert not await tell(80, "d")
    assert 0 < await redis.pttl(keys.BALANCE) <= 60_000
    assert [id async for id in store.alert_ids()] == ["c:notice", "a:notice"]
