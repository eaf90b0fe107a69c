"""What a worker does besides work: metrics and notices of dead letters, the net, the retention."""

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from service import keys
from service.dead import Count
from service.store import Store
from tests.samples import END_MS, scheduling
from tests.service.test_dead import RETENTION_MS, die
from workers.housekeeping import Housekeeping
from workers.metrics import WorkerMetrics
from workers.notices import dead_letter_notice

pytestmark = pytest.mark.anyio

MINUTE = 60_000


class Scene:
    """A store, and somebody who keeps house."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.store = Store(redis, retention_ms=RETENTION_MS)
        self.registry = CollectorRegistry()
        self.housekeeping = Housekeeping(
            self.store, redis, WorkerMetrics(self.registry), rechecks=True
        )

    async def notices(self) -> list[str]:
        found = [
            name.decode() async for name in self.redis.scan_iter(f"{keys.ALERT}*{keys.IS_NOTICE}")
        ]
        return sorted(name.removeprefix(keys.ALERT).removesuffix(keys.IS_NOTICE) for name in found)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


async def test_the_gauge_shows_the_dead_by_kind(scene: Scene) -> None:
    """Each kind has its number, and none any more once the last is gone; two are always there."""
    await die(scene.redis, scene.store, "a", "b")
    await scene.housekeeping.turn(now_ms=END_MS)
    assert scene.metric("tollwatch_dead_letters", kind="Boom") == 2
    assert scene.metric("tollwatch_dead_letters", kind="WrongRequest") == 0
    await scene.store.dead.drop(["a", "b"], now_ms=END_MS)
    await scene.housekeeping.turn(now_ms=END_MS + 1)
    assert scene.metric("tollwatch_dead_letters", kind="Boom") is None


async def test_the_first_of_a_kind_is_told_once(scene: Scene) -> None:
    """One notice for a kind, whoever looks how often, until none is left; then the next is told."""
    await die(scene.redis, scene.store, "a", now_ms=END_MS)
    other = Housekeeping(
        scene.store, scene.redis, WorkerMetrics(CollectorRegistry()), rechecks=True
    )
    for housekeeping in (scene.housekeeping, other, scene.housekeeping):
        await housekeeping.turn(now_ms=END_MS)
    await die(scene.redis, scene.store, "b", now_ms=END_MS + 7)
    await die(scene.redis, scene.store, "c", kind="Bang", now_ms=END_MS + 8)
    await scene.housekeeping.turn(now_ms=END_MS + 9)
    told = [f"dead:Bang:{END_MS + 8}", f"dead:Boom:{END_MS}"]
    assert await scene.notices() == told
    await scene.store.dead.drop(["a", "b"], now_ms=END_MS)
    await die(scene.redis, scene.store, "d", now_ms=END_MS + 99)
    await scene.housekeeping.turn(now_ms=END_MS + 100)
    assert await scene.notices() == [*told, f"dead:Boom:{END_MS + 99}"]


@pytest.mark.parametrize(("number", "words"), [(1, "1 dead letter "), (3, "3 dead letters ")])
def test_a_notice_says_what_to_do(number: int, words: str) -> None:
    """How many, of what kind, and which commands to use."""
    notice = dead_letter_notice(Count("KeyError", number, END_MS))
    assert notice.text.startswith(words)
    assert "KeyError" in notice.text
    assert "tollwatch dead retry --reason KeyError" in " ".join(notice.details)
    assert (notice.id, notice.at_ms) == (f"dead:KeyError:{END_MS}", END_MS)


async def test_the_net_is_cast_every_few_minutes(scene: Scene) -> None:
    """What is lost is put back and counted by the next walk, not at every turn."""
    await scene.store.record(scheduling(), now_ms=END_MS)
    await scene.housekeeping.turn(now_ms=END_MS)
    await scene.redis.zrem(keys.ENDED, "s")
    await scene.housekeeping.turn(now_ms=END_MS + MINUTE)
    assert await scene.redis.zscore(keys.DUE, "s") is None
    await scene.housekeeping.turn(now_ms=END_MS + 5 * MINUTE)
    assert await scene.redis.zscore(keys.DUE, "s")
    assert scene.metric("tollwatch_swept_total", line="sessions") == 1
    assert scene.metric("tollwatch_swept_total", line="alerts") == 0


async def test_a_long_walk_takes_several_turns(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn takes some pages, and the next goes on where it stopped."""
    monkeypatch.setattr("workers.housekeeping._PAGES_A_TURN", 1)
    ids = [f"s{number}" for number in range(2000)]
    for id in ids:
        await scene.store.record(scheduling(id), now_ms=END_MS)
    await scene.redis.delete(keys.ENDED)
    await scene.housekeeping.turn(now_ms=END_MS)
    first = await scene.redis.zcard(keys.DUE)
    assert 0 < first < len(ids)
    for turn in range(1, 20):
        await scene.housekeeping.turn(now_ms=END_MS + turn)
    assert await scene.redis.zcard(keys.DUE) == len(ids)


async def test_expired_letters_are_counted(scene: Scene) -> None:
    """The retention ends dead letters, which is counted."""
    await die(scene.redis, scene.store, "a")
    await scene.housekeeping.turn(now_ms=END_MS)
    await scene.housekeeping.turn(now_ms=END_MS + RETENTION_MS)
    assert scene.metric("tollwatch_dead_letters_expired_total") == 1
    assert await scene.store.session("a") is None


async def test_second_looks_that_nobody_wants_are_forgotten(scene: Scene) -> None:
    """Where the setting is off they are taken back; otherwise those of sessions that are gone."""
    await scene.store.record(scheduling(), now_ms=END_MS)
    await scene.redis.zadd(keys.RECHECKS, {"s": END_MS, "gone": END_MS})
    await scene.housekeeping.turn(now_ms=END_MS)
    assert await scene.redis.zcard(keys.RECHECKS) == 1
    metrics = WorkerMetrics(CollectorRegistry())
    off = Housekeeping(scene.store, scene.redis, metrics, rechecks=False)
    await off.turn(now_ms=END_MS)
    assert await scene.redis.zcard(keys.RECHECKS) == 0
