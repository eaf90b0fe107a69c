"""The account's balance: asked for now and then by one worker, and told of before it is gone."""

from decimal import Decimal
from math import isnan

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from service import keys
from service.gate import Gates
from service.money import millionths
from service.records import ACCOUNT
from service.spend import Spending, hour_name
from service.store import Store
from tests.samples import END_MS
from tests.world.world import World
from workers.analysis import Unreadable
from workers.answer import Refused, Transient
from workers.balance import decode_balance
from workers.detection.balance import Balance
from workers.funds import ASK_MS, BalanceWatch, Purse
from workers.metrics import WorkerMetrics
from workers.telnyx import TelnyxClient

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Telnyx:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answer: Balance | Refused | Transient = Transient("nothing yet")
        self.asked = 0

    async def balance(self) -> Balance | Refused | Transient:
        self.asked += 1
        return self.answer


class Scene:
    """A watch on a balance, a clock that stands where it is put, and what was told."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = Store(redis, retention_ms=DAY_MS)
        self.telnyx = Telnyx()
        self.registry = CollectorRegistry()
        self.now_ms = END_MS
        self.watch = self.another()

    def another(self) -> BalanceWatch:
        """One more worker's watch."""
        return BalanceWatch(
            self.redis,
            self.store,
            Purse(self.redis, Spending(self.redis)),
            self.telnyx,  # type: ignore[arg-type]
            WorkerMetrics(self.registry if not hasattr(self, "watch") else CollectorRegistry()),
            Decimal(3),
            lambda: self.now_ms,
        )

    async def calls_cost(self, an_hour: str, hours: int = 8 * 24) -> None:
        """What the hours before have cost."""
        async with self.redis.pipeline() as pipe:
            for back in range(1, hours):
                key = keys.spend_key("USD", hour_name(END_MS - back * HOUR_MS))
                pipe.hset(key, ACCOUNT, str(millionths(Decimal(an_hour))))
                pipe.pexpire(key, DAY_MS)
            await pipe.execute()

    async def hears(self, available: str, *, after_ms: int = 0) -> list[str]:
        """It is time to ask, and Telnyx tells so much; what was told that had not been."""
        before = await self.told()
        self.now_ms += after_ms
        self.telnyx.answer = Balance(Decimal(available), Decimal(available), "USD")
        await self.redis.delete(keys.BALANCE_LEASE)
        await self.watch.turn()
        return (await self.told())[len(before) :]

    async def told(self) -> list[str]:
        found = [await self.store.item(id) async for id in self.store.alert_ids()]
        return [each.subject.text for each in reversed(found) if each]

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(name)
        assert value is not None
        return value


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


async def test_each_rung_of_a_fall_is_told_once(scene: Scene) -> None:
    """Three days before, one day before, and when it is empty; a top-up begins anew."""
    await scene.calls_cost("1")
    assert await scene.hears("74") == []
    (soon,) = await scene.hears("70", after_ms=ASK_MS)
    assert soon.startswith("Telnyx's balance runs out on 2026-09-24")
    assert soon.endswith("70.00 USD available; an empty balance stops all calls")
    assert await scene.hears("69", after_ms=ASK_MS) == []
    assert await scene.hears("71", after_ms=ASK_MS) == [], "no top-up, but a correction"
    (tomorrow,) = await scene.hears("9", after_ms=ASK_MS)
    assert "runs out" in tomorrow
    (empty,) = await scene.hears("-0.5", after_ms=ASK_MS)
    assert "used up" in empty
    assert await scene.hears("-0.6", after_ms=ASK_MS) == []
    assert await scene.hears("500", after_ms=ASK_MS) == []
    assert len(await scene.hears("10", after_ms=2 * DAY_MS)) == 1


async def test_what_takes_from_the_balance_beside_calls_counts(scene: Scene) -> None:
    """Its own fall is the pace where our calls cost less: messages and numbers are paid from it."""
    await scene.calls_cost("0.01", hours=48)
    told = [await scene.hears(str(300 - 10 * hour), after_ms=HOUR_MS) for hour in range(25)]
    hours = await scene.watch.purse.spending.hours("USD", ["balance"], scene.now_ms, days=2)
    assert sorted(hours[0].values()) == [0, *[10] * 24]
    assert [len(texts) for texts in told].count(1) == 2
    assert scene.metric("tollwatch_balance_days_left") == pytest.approx(6 / 24, abs=0.1)


async def test_what_fell_while_nobody_asked_is_no_pace(scene: Scene) -> None:
    """The calls of these days come to their verdicts, and count in their own hours."""
    await scene.calls_cost("1")
    assert await scene.hears("420") == []
    assert await scene.hears("300", after_ms=5 * DAY_MS) == []
    assert scene.metric("tollwatch_balance_days_left") > 10


async def test_one_fee_is_no_pace(scene: Scene) -> None:
    """A monthly fee, taken at once on a quiet account, does not make it run out tomorrow."""
    await scene.calls_cost("0.10")
    await scene.hears("100")
    assert await scene.hears("80", after_ms=ASK_MS) == []


async def test_one_worker_asks_every_ten_minutes(scene: Scene, redis: Redis) -> None:
    """However many there are, and the others show what it heard."""
    assert isnan(scene.metric("tollwatch_balance"))
    scene.telnyx.answer = Balance(Decimal(48), Decimal(40), "USD")
    await scene.another().turn()
    for _ in range(3):
        await scene.watch.turn()
    assert scene.telnyx.asked == 1
    assert 0 < await redis.pttl(keys.BALANCE_LEASE) <= ASK_MS
    assert scene.metric("tollwatch_balance") == 48
    assert scene.metric("tollwatch_balance_days_left") == 30
    assert scene.metric("tollwatch_balance_heard_timestamp_seconds") == END_MS / 1000
    await scene.calls_cost("1")
    await scene.hears("48")
    scene.now_ms += DAY_MS
    await scene.watch.turn()
    assert scene.metric("tollwatch_balance_days_left") == pytest.approx(1, abs=0.1)


async def test_a_failure_is_quiet(scene: Scene, redis: Redis) -> None:
    """No notice, no error, nothing forgotten; and not asked again at once."""
    await scene.hears("48")
    await redis.delete(keys.BALANCE_LEASE)
    scene.telnyx.answer = Refused(403, "Account is disabled")
    for _ in range(3):
        await scene.watch.turn()
    assert scene.telnyx.asked == 2
    assert await scene.told() == []
    assert scene.metric("tollwatch_balance") == 48


async def test_another_currency_begins_anew(scene: Scene) -> None:
    """Amounts in two currencies are no fall."""
    await scene.hears("48")
    await scene.redis.delete(keys.BALANCE_LEASE)
    scene.telnyx.answer = Balance(Decimal(1), Decimal(1), "EUR")
    await scene.watch.turn()
    (falls,) = await scene.watch.purse.spending.hours("EUR", ["balance"], END_MS, days=1)
    assert list(falls.values()) == [0]


async def test_the_simulated_account_runs_dry(redis: Redis) -> None:
    """Over HTTP and through a gate of its own: calls are charged, and the operators hear of it."""
    async with World(seed=5) as world:
        scene = Scene(redis)
        call = world.call("guide")
        world.telnyx.funds = call.total
        world.telnyx.time_scale = 1e9
        world.telnyx.limit(1)
        telnyx = TelnyxClient(world.telnyx_url, world.api_key, version="0", gates=Gates(redis))
        async with telnyx:
            watch = scene.another()
            watch.telnyx = telnyx
            await watch.turn()
            assert "used up (0.00 USD available)" in (await scene.told())[0]
            for _ in range(3):
                await redis.delete(keys.BALANCE_LEASE)
                await watch.turn()
            asked = [r.status for r in world.telnyx.requests if r.path == "/v2/balance"]
            assert asked == [200, 429], "the gate lets no third question through"


# --- the answer on the wire ----------------------------------------------------------------------

WHOLE = (
    b'{"data": {"record_type": "balance", "balance": "300.00", "credit_limit": "100.00", '
    b'"available_credit": "400.00", "pending": "10.00", "currency": "USD", "new": [1]}}'
)


def test_the_answer_is_read() -> None:
    """What may be spent is the balance and the credit line together; more fields do no harm."""
    assert decode_balance(WHOLE) == Balance(Decimal("400.00"), Decimal("300.00"), "USD")


@pytest.mark.parametrize(
    ("data", "available", "balance", "currency"),
    [
        ('{"balance": "3"}', 3, 3, "USD"),
        ('{"balance": "3", "credit_limit": "4", "currency": "EUR"}', 7, 3, "EUR"),
        ('{"available_credit": "5", "balance": null}', 5, 5, "USD"),
        ('{"balance": -2.5, "currency": 7}', Decimal("-2.5"), Decimal("-2.5"), "USD"),
        ('{"balance": "1", "currency": "U:S"}', 1, 1, "USD"),
    ],
)
def test_missing_fields_are_made_do_without(
    data: str, available: Decimal, balance: Decimal, currency: str
) -> None:
    """One of the two amounts is enough."""
    found = decode_balance(f'{{"data": {data}}}'.encode())
    assert found == Balance(Decimal(available), Decimal(balance), currency)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data": 1}', b'{"data": {"balance": "lots"}}', b"\xff"]
)
def test_what_says_no_amount_is_unreadable(body: bytes) -> None:
    """It teaches nothing, as any other unreadable answer."""
    with pytest.raises(Unreadable):
        decode_balance(body)
