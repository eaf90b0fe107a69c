"""A worker learns from its verdicts what calls usually cost, and judges the next ones by that."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.queue import Claim
from service.records import Severity, State, Verdict
from service.store import Store
from tests.samples import END_MS, assistant_call, scheduling
from workers.analysis import decode_analysis
from workers.analyze import Analyst
from workers.answer import Ready
from workers.baselines import Baselines
from workers.decide import Rules
from workers.detection.baseline import DAY_MS
from workers.feedback import FeedbackBook
from workers.learning import Learning
from workers.metrics import WorkerMetrics
from workers.policy import Policy
from workers.settle import Schedule

pytestmark = pytest.mark.anyio

DAY = END_MS // DAY_MS
HOUR_MS = 3_600_000
RETENTION_MS = 86_400_000
USUAL = 25
"""Calls after which an account has a say."""


class Telnyx:
    """What each call costs."""

    def __init__(self) -> None:
        self.costs: dict[str, Any] = {}

    async def analysis(self, _type: str, id: str, **_: object) -> Ready:
        return Ready(decode_analysis(msgspec.json.encode(self.costs[id])))


class Scene:
    """Calls to one assistant that come to their verdicts, one after the other."""

    def __init__(self, redis: Redis, **policy: Any) -> None:
        self.redis = redis
        self.store = Store(redis, retention_ms=RETENTION_MS)
        self.telnyx = Telnyx()
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.baselines = Baselines(
            redis, retention_ms=RETENTION_MS, on_read=self.metrics.observe_read
        )
        self.now_ms = END_MS
        self.analyst = Analyst(
            self.store,
            self.telnyx,  # type: ignore[arg-type]
            Rules(Schedule.of_seconds((90, 300), DAY_MS // 1000), Policy(**policy)),
            self.metrics,
            lambda: self.now_ms,
            Learning(self.baselines, self.store, self.metrics),
            FeedbackBook(redis, self.baselines, RETENTION_MS),
        )

    async def call(
        self, id: str, sip: str = "0.0052", *, end_ms: int = END_MS, **cost: Any
    ) -> Verdict:
        """One call, from its webhook to its verdict."""
        await self.webhook(id, "1", end_ms)
        self.telnyx.costs[id] = assistant_call("0.01", "0.01", sip=sip, **cost)
        return await self.verdict(id, end_ms)

    async def webhook(self, id: str, key: str, end_ms: int = END_MS) -> None:
        event = scheduling(id, key, at_ms=end_ms, start_ms=end_ms - 152_000, assistant_id="bot")
        await self.store.record(event, now_ms=end_ms)

    async def verdict(self, id: str, end_ms: int = END_MS) -> Verdict:
        for age in (90, 300):
            await self.attempt(id, end_ms + age * 1000)
        session = await self.store.session(id)
        assert session
        assert session.state is State.VERDICT
        assert session.verdict
        return session.verdict

    async def attempt(self, id: str, now_ms: int) -> str:
        self.now_ms = now_ms
        rev = await self.redis.hget(keys.session_key(id), "rev")  # type: ignore[misc]
        fields = {"token": "t", "claimed": rev}
        await self.redis.hset(keys.session_key(id), mapping=fields)  # type: ignore[misc]
        return await self.analyst.analyze(Claim(id, "t", now_ms, taken_over=False))

    async def usual(self) -> None:
        for number in range(USUAL):
            await self.call(f"usual {number}")

    async def calls(self) -> int:
        return (await self.baselines.baseline("account", DAY)).calls

    async def told(self) -> list[str]:
        """The ids of all alerts and notices."""
        return sorted([id async for id in self.store.alert_ids()])

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"tollwatch_{name}", labels) or 0.0


@pytest.fixture
def scene(redis: Redis) -> Scene:
    return Scene(redis)


async def test_a_dear_call_is_found_by_its_like(scene: Scene) -> None:
    """Far below the ceiling: it is told why, does not teach, and is counted as kept apart."""
    await scene.usual()
    verdict = await scene.call("dear", "2.00")
    assert verdict.severity is Severity.MEDIUM
    assert verdict.reasons[0].code == "unusual_cost"
    assert verdict.reasons[0].learned_from
    assert "times the usual 0.21 for assistant bot's inbound calls" in verdict.reasons[0].text
    assert await scene.told() == ["dear:medium"]
    assert await scene.calls() == USUAL
    assert scene.value("lessons_total", outcome="learned") == USUAL
    assert scene.value("lessons_total", outcome="apart") == 1
    assert scene.value("baseline_reads_total", outcome="miss") < USUAL
    assert scene.value("baseline_reads_total", outcome="hit") > 0


async def test_a_late_leg_and_one_more_look_do_not_teach_twice(scene: Scene) -> None:
    """A session with a second and a third verdict is one call."""
    await scene.call("a")
    await scene.webhook("a", "2", END_MS + 50_000)
    scene.telnyx.costs["a"] = assistant_call("0.01", "0.02")
    await scene.verdict("a", END_MS + 50_000)
    scene.telnyx.costs["a"] = assistant_call("0.01", "0.03")
    assert await scene.attempt("a", END_MS + DAY_MS) == "rechecked"
    assert await scene.calls() == 1


async def test_one_more_look_is_judged_by_the_like_too(scene: Scene) -> None:
    """A charge that came late may be unusual as well."""
    await scene.usual()
    await scene.call("a")
    scene.telnyx.costs["a"] = assistant_call("0.01", "0.01", sip="2.00")
    await scene.attempt("a", END_MS + DAY_MS)
    session = await scene.store.session("a")
    assert session
    assert session.verdict
    assert {"late_charge", "unusual_cost"} <= {reason.code for reason in session.verdict.reasons}


async def test_a_provisional_cost_is_not_compared(scene: Scene) -> None:
    """While more may come nothing is held against it, and nothing is learned."""
    await scene.webhook("a", "1")
    scene.telnyx.costs["a"] = assistant_call("0.01")
    await scene.attempt("a", END_MS + 90_000)
    assert scene.value("baseline_reads_total", outcome="miss") == 0
    assert await scene.calls() == 0


async def test_a_cut_cost_teaches_nothing(scene: Scene) -> None:
    """A tree of which something is missing would teach that calls are cheap."""
    await scene.webhook("a", "1")
    cut = assistant_call("0.01")
    cut["meta"]["event_count"] = 9
    scene.telnyx.costs["a"] = cut
    verdict = await scene.verdict("a")
    assert not verdict.complete
    assert await scene.calls() == 0


async def test_learning_can_be_turned_off(redis: Redis) -> None:
    """With `learn: false` nothing is read, written or judged."""
    scene = Scene(redis, learn=False)
    await scene.usual()
    assert (await scene.call("dear", "2.00")).severity is None
    assert scene.value("baseline_reads_total", outcome="miss") == 0
    learned = (keys.BASELINE, keys.STRANGE, keys.COHORTS, keys.LESSON)
    assert [key for key in await redis.keys() if key.decode().startswith(learned)] == []


async def test_the_new_normal_is_told_once(scene: Scene) -> None:
    """A price that stays is adopted: the operators hear of it, with the old one, and alerts end."""
    await scene.usual()
    verdicts = [
        await scene.call(f"new {number}", "1.00", end_ms=END_MS + number // 6 * HOUR_MS)
        for number in range(36)
    ]
    assert verdicts[0].severity
    assert verdicts[-1].severity is None
    notices = [id for id in await scene.told() if id.startswith("new_normal:")]
    assert notices == ["new_normal:bot/inbound/?/assistant:total:notice"]
    found = await scene.store.item(notices[0])
    assert found
    assert found.subject.text == (
        "A cost of 1.21 USD instead of 0.21 is the new normal for assistant bot's inbound calls: "
        "25 calls since 2026-09-21 14:00 UTC"
    )
    assert (
        "With it: SIP trunking at 1.00 USD instead of 0.0051 is the new normal for assistant "
        "bot's inbound calls"
    ) in found.subject.details
    await scene.call("later", "1.00", end_ms=END_MS + 7 * HOUR_MS)
    assert [id for id in await scene.told() if id.startswith("new_normal:")] == notices


async def test_a_day_has_a_maximum_of_learned_alerts(redis: Redis) -> None:
    """Beyond it verdicts keep their reasons and say why nobody was told; facts are told as ever."""
    scene = Scene(redis, most_alerts_per_day=1)
    await scene.usual()
    await scene.call("first", "2.00")
    second = await scene.call("second", "2.10")
    assert second.severity is Severity.MEDIUM
    assert second.reasons[0].code == "unusual_cost"
    assert second.remarks[-1].startswith("Nobody was told: on this day there was 1 such alert")
    await scene.call("third", "2.20")
    await scene.call("fact", "9.00")
    day = "2026-09-21"
    assert await scene.told() == [
        "fact:high",
        "fact:medium",
        "first:medium",
        f"most_alerts:{day}:notice",
    ]
    notice = await scene.store.item(f"most_alerts:{day}:notice")
    assert notice
    assert "(1) have been made" in notice.subject.text
    assert scene.value("alerts_capped_total") == 2
    assert scene.value("alerts_decided_total", severity="medium") == 2
    await scene.call("tomorrow", "2.00", end_ms=END_MS + DAY_MS)
    assert "tomorrow:medium" in await scene.told()
    assert 0 < await redis.pttl(keys.learned_key(day)) <= 2 * DAY_MS


async def test_none_may_be_wanted(redis: Redis) -> None:
    """With a maximum of 0 what was learned is listed only, and there is nothing to say of it."""
    scene = Scene(redis, most_alerts_per_day=0)
    await scene.usual()
    verdict = await scene.call("dear", "2.00")
    assert verdict.severity
    assert "most_alerts_per_day: 0" in verdict.remarks[-1]
    assert verdict.excess > Decimal(1)
    assert await scene.told() == []


async def test_ceilings_hold_whatever_breaks_in_what_was_learned(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug or junk there is counted, and the session is judged by what is certain, at once."""

    def broken(*_: Any) -> Any:
        raise KeyError("billed")

    await scene.usual()
    for name in ("workers.learning.opinion_of", "workers.judge.reasons_of"):
        with monkeypatch.context() as patch:
            patch.setattr(name, broken)
            verdict = await scene.call(name, "9.00")
        assert "session_cost" in {reason.code for reason in verdict.reasons}, name
    assert scene.value("opinions_failed_total") == 2
    assert len([id for id in await scene.told() if id.endswith(":high")]) == 2
    assert await scene.calls() == USUAL


async def test_a_lost_redis_is_no_broken_opinion(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known for a moment is asked for again."""

    async def gone(*_: Any) -> Any:
        raise RedisConnectionError

    monkeypatch.setattr(scene.baselines, "ladder", gone)
    with pytest.raises(RedisConnectionError):
        await scene.call("a")
    assert scene.value("opinions_failed_total") == 0
