"""What people say of sessions: kept with who and when, its effect, and taken back exactly."""

import asyncio
import time
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys
from tests.world.valkey import Valkey
from workers.baselines import Baselines
from workers.detection.baseline import DAY_MS, Lesson
from workers.detection.mutes import Mute
from workers.feedback import Feedback, FeedbackBook, Kind, NothingTaught, feedback_on

pytestmark = pytest.mark.anyio

RETENTION_MS = 30 * DAY_MS
NOW_MS = int(time.time() * 1000)
DAY = NOW_MS // DAY_MS
LADDER = ("a/inbound/US/assistant", "account")
ODD = ("account", "country:CU")


def lesson(bucket: int = -60) -> Lesson:
    return Lesson(LADDER, DAY, (("total", bucket),), frozenset({"country:US"}))


def word(
    kind: Kind, id: str = "odd", *, until_ms: int = NOW_MS + 1_000, note: str = ""
) -> Feedback:
    mute = Mute("a", NOW_MS - 1_000, until_ms, "ada") if kind == "planned" else None
    return Feedback(id, kind, "ada", NOW_MS, note, mute)


class Desk:
    """A book over baselines that were taught usual calls, and an odd one to speak of."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.now = 0.0
        self.baselines = Baselines(redis, retention_ms=RETENTION_MS)
        self.book = FeedbackBook(redis, self.baselines, RETENTION_MS, lambda: self.now)

    async def teach(self, usual: int = 40) -> None:
        await self.redis.flushall()
        for number in range(usual):
            await self.baselines.learn(f"s{number}", lesson(), ended_ms=NOW_MS)
        await self.baselines.learn("odd", lesson(0), ended_ms=NOW_MS, strange=True, causes=(ODD,))

    async def say(self, said: Feedback) -> Feedback:
        does = {"expected": self.book.expect, "anomaly": self.book.refuse}
        return await does.get(said.kind, self.book.plan)(said)

    async def learned(self) -> dict[str, Any]:
        """All that was learned, field by field."""
        found = [key async for key in self.redis.scan_iter() if b":lesson:" not in key]
        hashes = [k for k in found if k.startswith((b"tollwatch:baseline", b"tollwatch:strange"))]
        return {k.decode(): await cast("Any", self.redis.hgetall(k)) for k in hashes}


@pytest.fixture
async def desk(redis: Redis) -> Desk:
    made = Desk(redis)
    await made.teach()
    return made


async def test_what_is_expected_counts_as_often_as_it_takes(desk: Desk) -> None:
    """Its lesson is among the usual ones so often that a quantile is there; it is no evidence."""
    before = await desk.baselines.baseline("account", DAY)
    said = await desk.say(word("expected", note="a long demo"))
    assert said.times == 4
    after = await desk.baselines.baseline("account", DAY)
    assert after.calls == before.calls + said.times
    assert after.spreads["total"].high > before.spreads["total"].high
    assert "country:CU" in before.traits
    assert "country:CU" not in after.traits
    assert await feedback_on(desk.redis, "odd") == said


async def test_saying_it_twice_counts_once(desk: Desk) -> None:
    """A command that was broken off is repeated: it sets what it changes, and adds nothing."""
    await desk.teach(10)
    first = await desk.say(word("expected"))
    learned = await desk.learned()
    assert await desk.say(word("expected")) == first
    assert await desk.learned() == learned


async def test_an_anomaly_teaches_nothing(desk: Desk) -> None:
    """What it taught is taken back; a country that it alone had is as new as before."""
    usual = await desk.baselines.baseline("account", DAY)
    await desk.say(word("anomaly", "s7"))
    assert (await desk.baselines.baseline("account", DAY)).calls == usual.calls - 1
    await desk.say(word("anomaly"))
    assert "country:CU" not in (await desk.baselines.baseline("account", DAY)).traits


async def test_nothing_can_be_said_of_what_taught_nothing(desk: Desk) -> None:
    """Without a lesson there is nothing to widen or to take back; nothing is kept of it."""
    for said in (word("expected", "unknown"), word("anomaly", "unknown")):
        with pytest.raises(NothingTaught):
            await desk.say(said)
    assert await desk.book.listed() == []


async def test_undoing_nothing_says_so(desk: Desk) -> None:
    """Whoever undoes what was not said learns that; what was said is gone after it was undone."""
    assert not await desk.book.undo("odd")
    await desk.say(word("anomaly"))
    assert await desk.book.undo("odd")
    assert await feedback_on(desk.redis, "odd") is None


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["expected", "anomaly", "planned"]), st.booleans())))
def test_undo_takes_back_all_of_it(valkey: Valkey, words: list[tuple[Kind, bool]]) -> None:
    """Whatever was said before, of one session or two, after undo all is as it was learned."""

    async def body() -> None:
        async with Redis.from_url(valkey.url) as redis:
            desk = Desk(redis)
            await desk.teach(8)
            learned = await desk.learned()
            for kind, is_odd in words:
                await desk.say(word(kind, "odd" if is_odd else "s1"))
            await desk.book.undo("odd")
            await desk.book.undo("s1")
            assert await desk.learned() == learned
            assert await redis.exists(keys.FEEDBACK, keys.FEEDBACK_ENDS) == 0

    asyncio.run(body())


async def test_mutes_are_at_most_a_minute_old(desk: Desk) -> None:
    """Another process' mute is heard of within a minute, one's own at once."""
    other = FeedbackBook(desk.redis, desk.baselines, RETENTION_MS, lambda: desk.now)
    assert await other.mutes() == ()
    planned = await desk.say(word("planned"))
    await desk.say(word("anomaly", "s1"))
    assert await desk.book.mutes() == (planned.mute,)
    desk.now = 60.0
    assert await other.mutes() == ()
    desk.now = 60.1
    assert await other.mutes() == (planned.mute,)
    await desk.book.undo("odd")
    assert await desk.book.mutes() == ()


async def test_each_word_is_kept_for_the_retention(desk: Desk) -> None:
    """Of a mute from its end on; the next word removes what is over, and time all of it."""
    await desk.say(word("anomaly", "s1"))
    await desk.say(word("planned", until_ms=NOW_MS + 5 * DAY_MS))
    for key in (keys.FEEDBACK, keys.FEEDBACK_ENDS):
        assert 34.9 * DAY_MS < await desk.redis.pttl(key) <= 35.1 * DAY_MS
    await desk.redis.zadd(keys.FEEDBACK_ENDS, {"s1": NOW_MS - 1})
    await desk.say(word("anomaly", "s2"))
    assert sorted(id for id, _ in await desk.book.listed()) == ["odd", "s2"]
    await desk.book.undo("odd")
    assert await desk.redis.pttl(keys.FEEDBACK) <= 30 * DAY_MS


async def test_what_cannot_be_read_hides_nothing(desk: Desk) -> None:
    """Junk in Redis is listed as such, at the end, and mutes nothing."""
    await cast("Any", desk.redis.hset(keys.FEEDBACK, "junk", "{"))
    said = await desk.say(word("planned"))
    assert await desk.book.listed() == [("odd", said), ("junk", None)]
    assert await desk.book.mutes() == (said.mute,)
