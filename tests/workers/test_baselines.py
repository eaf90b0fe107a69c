"""What was learned, in Redis: the same as in one process, whoever writes and in whatever order."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from tests.world.valkey import Valkey
from workers import baselines as module
from workers.baselines import Baselines
from workers.detection.baseline import DAY_MS, DAYS, EMPTY, Baseline, Lesson, fit
from workers.detection.lasting import HOUR_MS, Change
from workers.detection.leaning import LEAST_CALLS
from workers.detection.memory import Memory
from workers.sheets import LONGEST_NAME

pytestmark = pytest.mark.anyio

DAY = 20_790
LADDER = ("r/inbound/US/phone", "r/inbound/*/phone", "account")
RETENTION_MS = 86_400_000


def lesson(
    day: int = DAY, bucket: int = -60, *traits: str, ladder: Sequence[str] = LADDER
) -> Lesson:
    return Lesson(
        ladder=tuple(ladder),
        day=day,
        buckets=(("total", bucket), ("cost:inference", bucket - 3)),
        traits=frozenset({"product:inference", "country:US", *traits}),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One session of a stream."""

    lesson: Lesson
    strange: bool = False
    causes: tuple[tuple[str, str], ...] = ()
    hour: int = 0

    @property
    def ended_ms(self) -> int:
        return self.lesson.day * DAY_MS + self.hour * HOUR_MS


def remember(memory: Memory, call: Call) -> None:
    """As a backtest learns."""
    memory.learn(call.lesson, strange=call.strange)
    buckets = dict(call.lesson.buckets)
    for cohort, cause in call.causes:
        memory.evidence(cohort, cause).add(call.ended_ms // HOUR_MS, buckets.get(cause))


async def teach(baselines: Baselines, id: str, call: Call) -> bool:
    return await baselines.learn(
        id, call.lesson, ended_ms=call.ended_ms, strange=call.strange, causes=call.causes
    )


class Seconds:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def baselines(redis: Redis) -> Baselines:
    return Baselines(redis, retention_ms=RETENTION_MS)


async def snapshot(redis: Redis) -> dict[bytes, Any]:
    """All that is learned, without who taught it."""
    found: dict[bytes, Any] = {}
    for pattern in (keys.BASELINE, keys.STRANGE):
        async for key in redis.scan_iter(pattern + "*"):
            found[key] = await redis.hgetall(key)  # type: ignore[misc]
    return found


# --- the same as in one process -------------------------------------------------------------------

_ENTITIES = st.sampled_from(["r", "s"])
_TRAITS = st.lists(
    st.sampled_from(["model:gpt", "rate:inference:US:0.5", "free:", "product:a:b"]), unique=True
)


@st.composite
def calls(draw: st.DrawFn, *, odd: bool) -> Call:
    entity = draw(_ENTITIES)
    day = DAY // DAYS * DAYS + draw(st.integers(-DAYS, DAYS - 1))
    ladder = (f"{entity}/inbound/US/phone", "*/*/*/phone", "account")
    learned = lesson(day, draw(st.integers(-90, 90)), *draw(_TRAITS), ladder=ladder)
    strange = odd and draw(st.booleans())
    causes = (
        draw(st.lists(st.tuples(st.sampled_from(ladder), st.sampled_from(["total", "free:"])),
                      max_size=2, unique=True))
        if strange else []
    )  # fmt: skip
    return Call(learned, strange, tuple(causes), draw(st.integers(0, 23)))


@pytest.fixture
def url(valkey: Valkey) -> str:
    return valkey.url


def in_both(url: str, stream: Sequence[Call], order: Sequence[int]) -> tuple[Any, ...]:
    """What Redis and one process know after the stream; Redis hears of it in another order."""
    memory = Memory()
    for call in stream:
        remember(memory, call)

    async def run() -> tuple[Any, ...]:
        async with Redis.from_url(url) as redis:
            await redis.flushall()
            # Two workers, each of which learns what comes to it.
            workers = [Baselines(redis, retention_ms=RETENTION_MS) for _ in range(2)]
            for place in order:
                assert await teach(workers[place % 2], str(place), stream[place])
            loaded = await workers[0].memory(DAY)
            fitted = {name: await workers[0].baseline(name, DAY) for name in memory.sheets()}
            known = {each.name: each.calls for each in await workers[0].cohorts(DAY)}
            return loaded.sheets(), loaded.strange(), fitted, known

    found = asyncio.run(run())
    wanted = (
        memory.sheets(),
        memory.strange(),
        {n: fit(n, s, memory.strange().get(n, {}), DAY) for n, s in memory.sheets().items()},
        {n: sum(sheet.calls for sheet in s.values()) for n, s in memory.sheets().items()},
    )
    return found, wanted


@settings(max_examples=25)
@given(stream=st.lists(calls(odd=True), max_size=40))
def test_redis_knows_what_one_process_knows(url: str, stream: list[Call]) -> None:
    """Of a stream of usual and strange calls all sheets, evidence and baselines are the same."""
    stream = sorted(stream, key=lambda call: call.lesson.day)
    found, wanted = in_both(url, stream, range(len(stream)))
    assert found == wanted


@settings(max_examples=15)
@given(stream=st.lists(calls(odd=False), max_size=30), random=st.randoms(use_true_random=False))
def test_updates_commute(url: str, stream: list[Call], random: random.Random) -> None:
    """In whatever order calls come, the same is known after them."""
    stream = sorted(stream, key=lambda call: call.lesson.day)
    order = list(range(len(stream)))
    random.shuffle(order)
    found, wanted = in_both(url, stream, order)
    assert found == wanted


async def test_a_strange_call_teaches_those_without_a_say(baselines: Baselines) -> None:
    """A cohort learns from strange calls as long as it has few."""
    other = ("s/inbound/US/phone", *LADDER[1:])
    for number in range(LEAST_CALLS):
        await baselines.learn(str(number), lesson(ladder=other), ended_ms=DAY * DAY_MS)
    await baselines.learn("odd", lesson(), ended_ms=DAY * DAY_MS, strange=True)
    counts = {each.name: each.calls for each in await baselines.cohorts(DAY)}
    assert counts == {
        "r/inbound/US/phone": 1,
        "s/inbound/US/phone": LEAST_CALLS,
        "r/inbound/*/phone": LEAST_CALLS,
        "account": LEAST_CALLS,
    }


# --- once -----------------------------------------------------------------------------------------


async def test_a_session_teaches_once(redis: Redis, baselines: Baselines) -> None:
    """Whoever comes with it again, and with whatever lesson: another worker, a backfill."""
    call = Call(lesson())
    assert await teach(baselines, "a", call)
    before = await snapshot(redis)
    again = replace(call, lesson=lesson(DAY + 1, 50))
    assert not await teach(Baselines(redis, retention_ms=RETENTION_MS), "a", again)
    assert await snapshot(redis) == before


async def test_a_lesson_is_taken_back(redis: Redis, baselines: Baselines) -> None:
    """With all of it, evidence included; it does not teach again, but can be restored."""
    await teach(baselines, "a", Call(lesson(bucket=7)))
    usual = await snapshot(redis)
    odd = Call(lesson(), strange=True, causes=((LADDER[0], "total"), (LADDER[1], "free:")))
    await teach(baselines, "b", odd)
    taught = await snapshot(redis)
    assert taught != usual

    assert await baselines.unlearn("b")
    assert await snapshot(redis) == usual
    assert not await baselines.unlearn("b"), "nothing is left to take back"
    assert not await teach(baselines, "b", odd)
    assert await baselines.restore("b")
    assert await snapshot(redis) == taught
    assert not await baselines.restore("b")


async def test_what_never_taught_is_not_taken_back(redis: Redis, baselines: Baselines) -> None:
    """Of a session that is not known nothing changes."""
    assert not await baselines.unlearn("a")
    assert not await baselines.widen("a", 5)
    assert await baselines.lesson("a") is None
    assert await redis.keys() == []


async def test_a_lesson_counts_more(redis: Redis, baselines: Baselines) -> None:
    """What a person calls expected counts as so many calls, however often it is said."""
    odd = Call(lesson(), strange=True, causes=((LADDER[0], "total"),))
    await teach(baselines, "a", odd)
    before = await snapshot(redis)
    assert await baselines.widen("a", 5)
    assert not await baselines.widen("a", 5)
    found = await baselines.baseline(LADDER[0], DAY)
    assert (found.calls, found.traits["country:US"]) == (5, 5)
    assert found.changes == ()
    assert await redis.exists(keys.strange_key(LADDER[0])) == 0, "it is no evidence any more"
    assert await baselines.restore("a")
    assert await snapshot(redis) == before


async def test_what_has_ended_is_not_begun_by_taking_back(
    redis: Redis, baselines: Baselines
) -> None:
    """Sheets that are gone meanwhile stay gone."""
    await teach(baselines, "a", Call(lesson(), causes=((LADDER[0], "total"),)))
    for key in await snapshot(redis):
        await redis.delete(key)
    assert await baselines.unlearn("a")
    assert await snapshot(redis) == {}


# --- bounds ---------------------------------------------------------------------------------------


async def test_a_full_hash_counts_on(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fields that it has, and its calls in any case; what is new finds no room."""
    text = module._LEARN.replace(f"< {module.MOST_FIELDS}", "< 3")
    monkeypatch.setattr(module, "_LEARN", text)
    baselines = Baselines(redis, retention_ms=RETENTION_MS)
    await teach(baselines, "a", Call(lesson(bucket=1)))
    await teach(baselines, "b", Call(lesson(DAY + 1, 2)))
    await teach(baselines, "c", Call(lesson(DAY + 1, 1)))
    sheets = (await baselines.memory(DAY)).sheets()["account"][DAY // DAYS]
    assert (sheets.calls, sheets.days) == (3, {DAY: 1, DAY + 1: 2})
    assert list(sheets.sketches["total"]) == [1]
    assert sheets.traits["country:US"] == 3
    assert await baselines.unlearn("b")
    left = (await baselines.memory(DAY)).sheets()["account"][DAY // DAYS]
    assert (left.calls, list(left.sketches["total"])) == (2, [1])


async def test_evidence_that_is_full_begins_anew(redis: Redis, baselines: Baselines) -> None:
    """What was strange long ago leaves room for what is now: a change can still be learned."""
    await teach(baselines, "a", Call(lesson()))
    old = {f"h{hour}:country:US": 1 for hour in range(module.MOST_FIELDS)}
    await cast("Any", redis.hset(keys.STRANGE + "account", mapping=old))
    await teach(baselines, "b", Call(lesson(), strange=True, causes=(("account", "country:CU"),)))
    (cause,) = (await baselines.memory(DAY)).strange()["account"]
    assert cause == "country:CU"


async def test_names_from_outside_are_bounded(redis: Redis, baselines: Baselines) -> None:
    """A name that is too long is not learned, and its cohort only counts in the coarser ones."""
    long = "x" * (LONGEST_NAME + 1)
    odd = lesson(DAY, 1, f"model:{long}", ladder=(f"{long}/inbound/US/phone", "account"))
    await teach(baselines, "a", Call(odd, causes=(("account", f"model:{long}"),)))
    assert [each.name for each in await baselines.cohorts(DAY)] == ["account"]
    assert all(len(key) < 200 for key in await redis.keys())
    assert "model" not in str(await snapshot(redis))


async def test_the_number_of_cohorts_is_bounded(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one takes the place of one that was not seen for a week, and else counts in coarser."""
    text = module._LEARN.replace(f">= {module.MOST_COHORTS}", ">= 3")
    monkeypatch.setattr(module, "_LEARN", text)
    baselines = Baselines(redis, retention_ms=RETENTION_MS)

    async def call(entity: str, day: int) -> None:
        ladder = (f"{entity}/outbound/DE/phone", "account")
        each = Call(lesson(day, ladder=ladder), causes=((ladder[0], "total"),))
        await teach(baselines, f"{entity}{day}", each)

    async def known() -> list[str]:
        return sorted(each.name[0] for each in await baselines.cohorts(DAY))

    await call("r", DAY - 10)
    await call("s", DAY - 2)
    await call("t", DAY - 4)
    assert await known() == ["a", "r", "s"], "nobody was away for a week"
    await call("t", DAY)
    assert await known() == ["a", "s", "t"]
    assert not [key for key in await snapshot(redis) if b":r/" in key], "it went with all it had"
    assert (await baselines.baseline("account", DAY)).calls == 4, "all are counted there"


async def test_all_of_it_ends(redis: Redis, baselines: Baselines) -> None:
    """Each key has a lifetime, and those of the sheets begin anew with each call."""
    await teach(baselines, "a", Call(lesson(), causes=((LADDER[0], "total"),)))
    assert {keys.family_of(key.decode()).name for key in await redis.keys()} == {  # type: ignore[union-attr]
        "tollwatch:baseline:{sheet}",
        "tollwatch:strange:{cohort}",
        "tollwatch:cohorts",
        "tollwatch:lesson:{id}",
    }
    for key in await redis.keys():
        assert await redis.pttl(key) > 0, key


# --- at hand --------------------------------------------------------------------------------------


async def test_what_is_at_hand_is_a_minute_old(redis: Redis) -> None:
    """A ladder is read once a minute, in one round trip, and is then the same object."""
    heard: list[bool] = []
    seconds = Seconds()
    mine = Baselines(redis, retention_ms=RETENTION_MS, on_read=heard.append, seconds=seconds)
    others = Baselines(redis, retention_ms=RETENTION_MS)
    for number in range(10):
        await teach(others, str(number), Call(lesson()))
    first = await mine.ladder(LADDER, DAY)
    await teach(others, "x", Call(lesson()))
    assert await mine.ladder(LADDER, DAY) is first
    seconds.now = 61
    assert (await mine.ladder(LADDER, DAY)).calls == 11
    assert heard == [False, True, False]


async def test_what_this_process_learns_it_knows(redis: Redis) -> None:
    """A new trait at once, and more calls when there are enough of them."""
    heard: list[bool] = []
    baselines = Baselines(redis, retention_ms=RETENTION_MS, on_read=heard.append)
    assert (await baselines.ladder(LADDER, DAY)).baselines == (EMPTY,) * len(LADDER)
    for number in range(20):
        await teach(baselines, str(number), Call(lesson()))
    await baselines.ladder(LADDER, DAY)
    heard.clear()
    await teach(baselines, "few", Call(lesson()))
    assert (await baselines.ladder(LADDER, DAY)).calls == 20
    await teach(baselines, "new", Call(lesson(DAY, -60, "model:gpt")))
    assert "model:gpt" in (await baselines.ladder(LADDER, DAY)).baselines[0].traits
    await teach(baselines, "apart", Call(lesson(), strange=True, causes=(("account", "total"),)))
    await baselines.unlearn("few")
    assert (await baselines.ladder(LADDER, DAY)).calls == 21
    assert heard == [True, False, False]
    assert (await baselines.ladder(LADDER, DAY + DAYS)).baselines != ()
    assert heard[-1] is False, "another day's sheets"


async def test_sessions_that_want_the_same_read_it_once(redis: Redis) -> None:
    """Many at once cost one reading, and one that gives up takes it from nobody."""
    baselines = Baselines(redis, retention_ms=RETENTION_MS)
    await teach(baselines, "a", Call(lesson()))
    reads: list[Sequence[str]] = []
    read = baselines._read

    async def counted(names: Sequence[str], day: int) -> Any:
        reads.append(names)
        return await read(names, day)

    baselines._read = counted  # type: ignore[method-assign]
    other = ("s/inbound/US/phone", *LADDER[1:])
    tasks = [asyncio.create_task(baselines.ladder(names, DAY)) for names in (LADDER, LADDER, other)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    first, second = await asyncio.gather(*tasks[1:])
    assert reads == [list(LADDER), [other[0]]]
    assert first.calls == second.calls == 1
    assert first.baselines[1] is second.baselines[1]


async def test_what_is_learned_during_a_reading_is_not_overlooked(redis: Redis) -> None:
    """What was asked for before it is kept only if nothing in it was new."""
    baselines = Baselines(redis, retention_ms=RETENTION_MS)
    for number in range(20):
        await teach(baselines, str(number), Call(lesson()))
    read, meanwhile = baselines._read, iter([Call(lesson()), Call(lesson(DAY, 1, "model:gpt"))])
    heard: list[int] = []

    async def slow(names: Sequence[str], day: int) -> Any:
        found = await read(names, day)
        heard.append(len(names))
        for call in meanwhile:
            await teach(baselines, f"meanwhile {len(heard)}", call)
            break
        return found

    baselines._read = slow  # type: ignore[method-assign]
    assert (await baselines.ladder(LADDER, DAY)).calls == 20
    assert (await baselines.ladder(LADDER, DAY)).calls == 20, "one more is no reason to read"
    await baselines.widen("0", 2)
    assert "model:gpt" not in (await baselines.ladder(LADDER, DAY)).baselines[0].traits
    assert "model:gpt" in (await baselines.ladder(LADDER, DAY)).baselines[0].traits
    assert heard == [3, 3, 3]


async def test_evidence_during_a_reading_is_not_overlooked(redis: Redis) -> None:
    """Who asks after it does not join who asked before it."""
    baselines = Baselines(redis, retention_ms=RETENTION_MS)
    await teach(baselines, "0", Call(lesson()))
    read, odd = baselines._read, Call(lesson(), strange=True, causes=((LADDER[0], "product:x"),))
    heard: list[Sequence[str]] = []

    async def slow(names: Sequence[str], day: int) -> Any:
        found = await read(names, day)
        heard.append(names)
        if len(heard) == 1:
            await teach(baselines, "odd", odd)
        return found

    baselines._read = slow  # type: ignore[method-assign]
    await baselines.ladder(LADDER, DAY)
    assert "product:x" in (await baselines.ladder(LADDER, DAY)).baselines[0].traits
    assert heard[1][0] == LADDER[0]


async def test_a_reading_that_fails_fails_for_all_who_wait(redis: Redis) -> None:
    """And the next one tries anew."""
    baselines = Baselines(redis, retention_ms=RETENTION_MS)
    read = baselines._read

    async def broken(*_: Any) -> Any:
        raise RedisConnectionError("gone")

    baselines._read = broken  # type: ignore[method-assign, assignment]
    both = (baselines.ladder(LADDER, DAY) for _ in range(2))
    found = await asyncio.gather(*both, return_exceptions=True)
    assert [type(each) for each in found] == [RedisConnectionError] * 2
    baselines._read = read  # type: ignore[method-assign]
    assert (await baselines.ladder(LADDER, DAY)).calls == 0


async def test_memory_of_this_process_is_bounded(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is at hand, that goes which was not asked for longest."""
    monkeypatch.setattr(module, "_MOST_FITTED", 3)
    monkeypatch.setattr(module, "_MOST_LADDERS", 1)
    heard: list[bool] = []
    baselines = Baselines(redis, retention_ms=RETENTION_MS, on_read=heard.append)
    for entity in "rsr":
        await baselines.ladder((f"{entity}/1", f"{entity}/2", "account"), DAY)
    assert heard == [False, False, False]


# --- the new normal -------------------------------------------------------------------------------


async def test_a_lasting_change_is_found(baselines: Baselines) -> None:
    """Once there is enough evidence, with since when it goes on; a trait that is not, is not."""
    causes = ((LADDER[0], "rate:x:US:2"), (LADDER[0], "total"))
    for hour in range(8):
        odd = Call(lesson(), strange=True, causes=causes[: 1 + (hour == 3)], hour=hour)
        await teach(baselines, str(hour), odd)
    assert await baselines.changes(causes, DAY) == [
        Change(LADDER[0], "rate:x:US:2", 8, DAY * DAY_MS)
    ]
    assert await baselines.changes((("nobody", "total"),), DAY) == []
    found: Baseline = await baselines.baseline(LADDER[0], DAY)
    assert found.changes == ("rate:x:US:2",)


async def test_who_has_taught_is_known_for_as_long_as_a_backfill_reaches(
    baselines: Baselines, redis: Redis
) -> None:
    """However short the retention: else a backfill would teach the same session again."""
    await teach(baselines, "a", Call(lesson()))
    assert await redis.pttl(keys.lesson_key("a")) > DAYS * DAY_MS
