"""Whoever looks at the counts first tells what they show, and nobody tells it again."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from service import keys
from service.counting import CALLS, DAYS_KEPT, SHAPES
from service.destination import country_of
from service.dialled import destination
from service.events import Begun
from service.owning import taker_in
from service.records import Conclusion, Spend, State, Watch
from service.store import Store
from tests.samples import scheduling
from workers.detection.mutes import Mute
from workers.detection.replay import Replay
from workers.detection.velocity import (
    DROP,
    HOUR_MS,
    MINUTE_MS,
    Episode,
    Key,
    Passed,
    Velocity,
)
from workers.lookout import Lookout
from workers.metrics import WorkerMetrics

pytestmark = pytest.mark.anyio

DAY_MS = 24 * HOUR_MS
NOW_MS = 20_494 * DAY_MS + 10 * HOUR_MS + 16 * MINUTE_MS
"""On a Tuesday."""
SERIES = ("velocity|account", "velocity|A")


def lookout_of(redis: Redis, *mutes: Mute) -> Lookout:
    store = Store(redis, retention_ms=DAYS_KEPT * DAY_MS)

    async def planned() -> Sequence[Mute]:
        return mutes

    metrics = WorkerMetrics(CollectorRegistry())
    return Lookout(store, redis, metrics, Decimal("0.01"), "USD", planned)


@pytest.fixture
async def counted(redis: Redis) -> Redis:
    """Eight days with six calls in each hour, the last of it a minute before the look."""
    first = NOW_MS // HOUR_MS - 8 * 24
    pipe = redis.pipeline()
    for hour in range(first, NOW_MS // HOUR_MS):
        for series in SERIES:
            key = f"{keys.CALLS_DAY}{hour // 24}:{series}"
            pipe.sadd(f"{keys.CALLS_ROSTER}{hour // 24}", series)
            amounts = {"c": 6, "k": 6, "u": 1_200_000, "q": 6 * 2000**2}
            pipe.hset(key, mapping={f"{name}{hour}": n for name, n in amounts.items()})
            pipe.expire(key, 1000)
    for minute in range(NOW_MS // MINUTE_MS - 300, NOW_MS // MINUTE_MS, 10):
        for series in SERIES:
            pipe.hset(f"{keys.CALLS_MINUTE}{minute}", series, "1")
    await pipe.execute()
    return redis


async def surge(redis: Redis, calls: int = 30) -> None:
    """So many calls of one assistant have just ended, as the web process records them."""
    store = Store(redis, retention_ms=DAYS_KEPT * DAY_MS)
    for number in range(calls):
        call = scheduling(f"s{number}", at_ms=NOW_MS - 1000 * number, assistant_id="A")
        await store.record(call, now_ms=NOW_MS)


async def told(redis: Redis) -> list[str]:
    """Ids of what the operators were told."""
    return sorted([id.decode() for id in await redis.zrange(keys.ALERTS, 0, -1)])


async def test_a_usual_hour_tells_nothing(counted: Redis) -> None:
    """Six calls an hour, as ever."""
    assert await lookout_of(counted).look(now_ms=NOW_MS) == []


async def test_a_surge_is_told_once_by_whoever_looks(counted: Redis) -> None:
    """Before any cost is known; another worker, and the next looks, go on with the episode."""
    await surge(counted)
    one, other = lookout_of(counted), lookout_of(counted)
    (found,) = await one.look(now_ms=NOW_MS)
    assert (found.kind, found.cohort) == ("velocity", "A")
    assert "30 calls in 5 minutes, usual 0.5 at this hour; about 6." in found.text
    assert await other.look(now_ms=NOW_MS + MINUTE_MS) == []
    assert await one.look(now_ms=NOW_MS + 2 * MINUTE_MS) == []
    assert await told(counted) == [f"{found.id}:notice"]
    assert one.metrics.findings.labels("velocity")._value.get() == 1


async def test_a_charge_of_yesterday_that_comes_today_is_known_at_the_next_look(
    counted: Redis,
) -> None:
    """Though what calls cost was asked before."""
    await surge(counted)
    lookout, hour = lookout_of(counted), NOW_MS // HOUR_MS
    await lookout.look(now_ms=NOW_MS)
    series = lookout._velocity.series[Key(CALLS, "A")]
    before = series.costs(hour).micros
    yesterday = f"{keys.CALLS_DAY}{hour // 24 - 1}:velocity|A"
    # redis-py types one method for its blocking and its asyncio client at once.
    await cast("Any", counted.hincrby(yesterday, f"u{hour - 11}", 500))
    await lookout.look(now_ms=NOW_MS + MINUTE_MS)
    assert series.costs(hour).micros == before + 500


async def test_calls_are_valued_as_the_backtest_values_them(redis: Redis) -> None:
    """The same calls, counted by a store and by one process: each series knows the same costs."""
    random = Random(1)
    backtest = Velocity(currency="USD")
    store = Store(redis, retention_ms=DAYS_KEPT * DAY_MS)
    for number in range(60):
        at_ms = NOW_MS - (60 - number) * MINUTE_MS // 2
        called = random.choice(["+37120000149", "+37120000777", "+4915112345678", None])
        owner = random.choice(["assistant-1", "C", ""])
        seconds, cost = random.choice([8, 90]), Decimal(random.randrange(0, 9_000_000)) / 1000
        to = destination(called, b"secret")
        country = country_of(called)
        call = scheduling(
            f"s{number}",
            at_ms=at_ms,
            assistant_id=owner if owner.startswith("a") else None,
            connection_id=owner if owner == "C" else None,
            to_country=country,
            duration_seconds=seconds,
        )
        await store.record(replace(call, destination=to), now_ms=at_ms)
        await _conclude(store, redis, f"s{number}", cost)
        where = (to.prefix, to.number, to.block) if to else ("", "", "")
        backtest.call(Passed(at_ms, None, owner, country or "", *where, seconds, cost))
    lookout = lookout_of(redis)
    await lookout.look(now_ms=NOW_MS)
    assert _costs(lookout._velocity) == _costs(backtest)
    assert {key.kind for key in backtest.series} == {CALLS, *SHAPES}


async def test_calls_that_are_heard_beginning_are_valued_likewise(redis: Redis) -> None:
    """By three connections: an assistant's, nobody's, and one of several."""
    random = Random(2)
    takers: dict[str, list[str | None]] = {
        "C": ["assistant-1", None],
        "D": [None],
        "E": ["assistant-2", "assistant-3"],
    }
    replayed = Velocity(currency="USD")
    replay = Replay(replayed)
    store = Store(redis, retention_ms=DAYS_KEPT * DAY_MS)
    for number in range(60):
        began_ms = NOW_MS - (240 - 2 * number) * MINUTE_MS
        end_ms = began_ms + random.choice([8, 90]) * 1000
        called = random.choice(["+37120000149", "+37120000777", "+4915112345678", None])
        connection = random.choice("CDE")
        taken_by = random.choice(takers[connection])
        to, country = destination(called, b"secret"), country_of(called)
        cost = Decimal(random.randrange(0, 9_000_000)) / 1000
        begun = Begun(
            f"s{number}", "call.initiated", began_ms, connection, country, to, f"leg{number}", True
        )
        await store.begin(begun, now_ms=began_ms)
        call = scheduling(
            f"s{number}",
            at_ms=end_ms,
            start_ms=began_ms,
            assistant_id=taken_by,
            connection_id=connection,
            to_country=country,
        )
        await store.record(replace(call, destination=to), now_ms=end_ms)
        await _conclude(store, redis, f"s{number}", cost)
        where = (to.prefix, to.number, to.block) if to else ("", "", "")
        owner = taken_by or connection
        replay.add(Passed(end_ms, began_ms, owner, country or "", *where, None, cost, connection))
    replay.finish()
    lookout = lookout_of(redis)
    await lookout.look(now_ms=NOW_MS)
    assert _costs(lookout._velocity) == _costs(replayed)
    assert {key.kind for key in replayed.series} == {CALLS, *SHAPES}


async def _conclude(store: Store, redis: Redis, id: str, cost: Decimal) -> None:
    await cast("Any", redis.hset(keys.session_key(id), "token", "t"))
    session = await store.take(id, "t")
    assert session
    spent = Spend(cost, "USD", session.end_ms)
    done = Conclusion(State.VERDICT, Watch(), None, "", answered=True, spend=spent)
    assert (await store.conclude(session, "t", done, now_ms=NOW_MS)).is_written


def _costs(velocity: Velocity) -> dict[Key, tuple[Any, ...]]:
    return {
        key: (series.known, series.micros, series.squares)
        for key, series in velocity.series.items()
    }


async def test_whoever_looks_next_knows_by_whom_it_was_told(counted: Redis) -> None:
    """An id from outside may hold anything that can be printed."""
    known = {
        Key(CALLS, "A b|c"): Episode(1, 2, 3.0, told=True),
        Key(CALLS, "account"): Episode(4, 5, 6.0, told=True, by=Key(CALLS, "A b|c")),
        Key(DROP, "B"): Episode(7, 8, 9.0, told=False),
    }
    one, other = lookout_of(counted), lookout_of(counted)
    await one._read(NOW_MS)
    one._velocity.episodes = dict(known)
    await one._write(8, {})
    await other._read(NOW_MS)
    assert other._velocity.episodes == known


async def test_two_that_look_at_once_tell_once(counted: Redis) -> None:
    """Both have read before either tells, in two minutes: the second finds that it is known."""
    await surge(counted)
    one, other = lookout_of(counted), lookout_of(counted)
    for each, now_ms in ((one, NOW_MS), (other, NOW_MS + MINUTE_MS)):
        await each._read(now_ms)
    for each, now_ms in ((one, NOW_MS), (other, NOW_MS + MINUTE_MS)):
        for finding in each._velocity.look(now_ms):
            await each._tell(finding, now_ms)
    assert len(await told(counted)) == 1


async def test_what_is_planned_is_not_told(counted: Redis) -> None:
    """Neither the assistant's surge nor the account's, of which it is most."""
    await surge(counted)
    quiet = lookout_of(counted, Mute("A", NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, "ada"))
    assert await quiet.look(now_ms=NOW_MS) == []
    assert await quiet.look(now_ms=NOW_MS + MINUTE_MS) == []
    assert await told(counted) == []


async def test_calls_that_no_event_names_an_assistant_of_have_not_fallen_away(
    redis: Redis,
) -> None:
    """Two assistants share connection C, and some of its calls nobody takes: they count for it."""
    store = Store(redis, retention_ms=DAYS_KEPT * DAY_MS)
    for number in range(6 * 24 * 6):
        end_ms = NOW_MS - (6 * 24 * 6 - number) * 10 * MINUTE_MS
        fields: dict[str, Any] = {"connection_id": "C", "at_ms": end_ms}
        for name, assistant in (("plain", None), ("taken", "AB"[number % 2])):
            call = scheduling(f"{name}{number}", assistant_id=assistant, **fields)
            await store.record(call, now_ms=end_ms)
        await _conclude(store, redis, f"plain{number}", Decimal("0.01"))
    assert [found.text for found in await lookout_of(redis).look(now_ms=NOW_MS)] == []


@pytest.mark.parametrize(
    ("noted", "taker"),
    [
        (f"0 {NOW_MS} A", "A"),
        (f"{NOW_MS - DAY_MS} {NOW_MS} A b", "A b"),
        (f"{NOW_MS - DAY_MS + 1} {NOW_MS} A", ""),
        (f"{NOW_MS} {NOW_MS} C", "C"),
        (f"0 {NOW_MS - 5 * DAY_MS} A", None),
        ("A", None),
        ("", None),
    ],
)
def test_who_takes_a_connections_calls_is_read(noted: str, taker: str | None) -> None:
    """As the script reads it; what an older version wrote is not known."""
    assert taker_in(noted.encode(), "C", NOW_MS) == taker


async def test_a_planned_connection_is_planned_for_who_takes_its_calls(counted: Redis) -> None:
    """Whoever mutes by the connection does not know for whom its calls count."""
    await surge(counted)
    await cast("Any", counted.hset(keys.CALLS_TAKERS, "C", f"0 {NOW_MS} A"))
    quiet = lookout_of(counted, Mute("C", NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, "ada"))
    assert await quiet.look(now_ms=NOW_MS) == []


async def test_what_goes_on_after_the_plan_is_told(counted: Redis) -> None:
    """A mute that ended before, or is another's, silences nothing, and leaves no episode behind."""
    await surge(counted)
    over = Mute("A", NOW_MS - HOUR_MS, NOW_MS - 30 * MINUTE_MS, "ada")
    others = Mute("B", NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, "ada")
    quiet = lookout_of(counted, Mute("A", NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, "ada"))
    assert await quiet.look(now_ms=NOW_MS) == []
    (found,) = await lookout_of(counted, over, others).look(now_ms=NOW_MS + MINUTE_MS)
    assert found.cohort == "A"


async def test_a_worker_that_lost_its_answer_tells_nothing_twice(counted: Redis) -> None:
    """The episode is written with what is told of it; should it be lost, the id is the same."""
    await surge(counted)
    await lookout_of(counted).look(now_ms=NOW_MS)
    await counted.delete(keys.CALLS_EPISODES)
    again = lookout_of(counted)
    assert len(await again.look(now_ms=NOW_MS)) == 1
    assert len(await told(counted)) == 1
    assert again.metrics.findings.labels("velocity")._value.get() == 0


async def test_a_worker_that_dies_after_telling_leaves_the_episode(
    counted: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted in the step that tells: whoever looks a minute later goes on with it."""
    await surge(counted)
    with monkeypatch.context() as death:

        async def die(*_: Any) -> None:
            raise ConnectionError

        death.setattr(Lookout, "_write", die)
        with pytest.raises(ConnectionError):
            await lookout_of(counted).look(now_ms=NOW_MS)
    assert await lookout_of(counted).look(now_ms=NOW_MS + MINUTE_MS) == []
    assert len(await told(counted)) == 1


async def test_what_was_odd_is_remembered(counted: Redis) -> None:
    """Bursts are kept with the series' day, so that they do not teach what is usual."""
    await surge(counted)
    await lookout_of(counted).look(now_ms=NOW_MS)
    hour = NOW_MS // HOUR_MS
    day = f"{keys.CALLS_DAY}{hour // 24}:velocity|A"
    assert int(await cast("Any", counted.hget(day, f"b5:{hour}"))) == 30
    later = lookout_of(counted)
    assert await later.look(now_ms=NOW_MS + MINUTE_MS) == []


async def test_calls_that_fall_away_are_told(counted: Redis) -> None:
    """Nothing comes for hours, so nobody counts: looking is enough."""
    later_ms = NOW_MS + 5 * HOUR_MS
    (found,) = await lookout_of(counted).look(now_ms=later_ms)
    assert found.kind == "drop"
    assert await lookout_of(counted).look(now_ms=later_ms + 30 * MINUTE_MS) == []


async def test_what_is_remembered_of_a_day_without_calls_ends_too(counted: Redis) -> None:
    """All that looking writes has a time to live."""
    await lookout_of(counted).look(now_ms=NOW_MS + 20 * HOUR_MS)
    for key in await counted.keys("tollwatch:calls:day:*"):
        assert await counted.pttl(key) > 0


async def test_one_worker_looks_for_all(counted: Redis) -> None:
    """Whoever is first; the others wait for the next time."""
    await surge(counted)
    one, other = lookout_of(counted), lookout_of(counted)
    await one.turn(now_ms=NOW_MS)
    await counted.delete(keys.ALERTS)
    await other.turn(now_ms=NOW_MS)
    assert not await counted.exists(keys.ALERTS)
    assert await counted.pttl(keys.CALLS_LOOK) > 0
    await counted.delete(keys.CALLS_LOOK)
    await one.turn(now_ms=NOW_MS + 1)
    assert not await counted.exists(keys.CALLS_LOOK)


async def test_old_episodes_go(counted: Redis) -> None:
    """What was over long ago is no longer kept."""
    old = f"{NOW_MS - 9 * DAY_MS} {NOW_MS - 9 * DAY_MS} 5 1"
    await cast("Any", counted.hset(keys.CALLS_EPISODES, "velocity|B", old))
    await lookout_of(counted).look(now_ms=NOW_MS)
    assert not await counted.exists(keys.CALLS_EPISODES)


async def test_a_day_on_which_nobody_looked_is_read_whole(counted: Redis) -> None:
    """After an hour all is read anew, and minutes as far back as they matter."""
    lookout = lookout_of(counted)
    await lookout.look(now_ms=NOW_MS)
    await surge(counted)
    assert len(await lookout.look(now_ms=NOW_MS + MINUTE_MS)) == 1
    assert await lookout.look(now_ms=NOW_MS + 2 * HOUR_MS) == []


async def test_what_a_newer_version_keeps_is_left_alone(counted: Redis) -> None:
    """A field or a word more does no harm."""
    hour = NOW_MS // HOUR_MS
    day = f"{keys.CALLS_DAY}{hour // 24}:velocity|A"
    await cast("Any", counted.hset(day, f"x{hour}", "1"))
    begun = f"{NOW_MS} {NOW_MS} 5 1 more"
    await cast("Any", counted.hset(keys.CALLS_EPISODES, "velocity|A", begun))
    await surge(counted)
    assert await lookout_of(counted).look(now_ms=NOW_MS) == []
