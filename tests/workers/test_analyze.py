"""One attempt at a session: what Telnyx answers, what breaks, and what is kept of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.queue import MOST_ORPHANED, Claim
from service.records import State
from service.store import Store
from tests.samples import END_MS, assistant_call, scheduling
from workers import analyze
from workers.analysis import decode_analysis
from workers.analyze import MOST_FAILURES, Analyst
from workers.answer import Invalid, Meaning, NotReady, RateLimited, Ready, Refused, Transient
from workers.baselines import Baselines
from workers.decide import Rules
from workers.detection.mutes import Mute
from workers.evidence import Evidence, note_answer, read_raw
from workers.feedback import Feedback, FeedbackBook
from workers.learning import Learning
from workers.metrics import WorkerMetrics
from workers.policy import BUILT_IN
from workers.settle import Schedule

pytestmark = pytest.mark.anyio

# The scene is in the past, and Redis forgets by its own clock.
_EVER_MS = 3650 * 86_400_000
RULES = Rules(Schedule.of_seconds((90, 300, 1800)), BUILT_IN)


class Telnyx:
    """Answers as it is told; the last answer stays."""

    def __init__(self, *meanings: Meaning | Exception) -> None:
        self._meanings = list(meanings)
        self.days: list[Any] = []

    async def analysis(
        self, record_type: str, event_id: str, *, date_time: Any = None, permitted: bool = False
    ) -> Meaning:
        self.days.append(date_time)
        said = self._meanings.pop(0) if len(self._meanings) > 1 else self._meanings[0]
        if isinstance(said, Exception):
            raise said
        return said


LAST = Rules(Schedule.of_seconds((90, 300, 1800), 86_400), BUILT_IN)


class Scene:
    """A due session, its analyst, and a clock that stands where it is put."""

    def __init__(self, redis: Redis, telnyx: Telnyx, rules: Rules = RULES) -> None:
        self.redis = redis
        self.store = Store(redis, retention_ms=86_400_000)
        self.now_ms = END_MS
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.baselines = Baselines(redis, retention_ms=86_400_000)
        self.feedback = FeedbackBook(redis, self.baselines, _EVER_MS)
        self.analyst = Analyst(
            self.store,
            telnyx,  # type: ignore[arg-type]
            rules,
            self.metrics,
            lambda: self.now_ms,
            Learning(self.baselines, self.store, self.metrics),
            self.feedback,
        )

    async def attempt(self, age_seconds: int) -> str:
        self.now_ms = END_MS + age_seconds * 1000
        await self.redis.hset(keys.session_key("s"), "token", "t")  # type: ignore[misc]
        await self.redis.hset(keys.session_key("s"), "claimed", "1")  # type: ignore[misc]
        return await self.analyst.analyze(Claim("s", "t", self.now_ms, taken_over=False))

    async def state(self) -> State:
        session = await self.store.session("s")
        assert session
        return session.state

    async def due_in(self) -> float:
        score = await self.redis.zscore(keys.DUE, "s")
        assert score is not None
        return float(score - self.now_ms) / 1000


@pytest.fixture
async def scene(redis: Redis) -> Callable[..., Scene]:
    """Sets the scene with what Telnyx will say."""
    await Store(redis, retention_ms=1000).record(
        scheduling(at_ms=END_MS, start_ms=END_MS - 120_000), now_ms=END_MS
    )
    return lambda *meanings, **rules: Scene(redis, Telnyx(*meanings), **rules)


def cost(sip: str = "0.0052") -> Ready:
    return Ready(decode_analysis(msgspec.json.encode(assistant_call("0.01", sip=sip))))


async def test_two_equal_answers_are_a_verdict(scene: Any) -> None:
    """Waiting after the first, settled after the second."""
    stage = scene(cost())
    assert await stage.attempt(90) == "waiting"
    assert await stage.attempt(300) == "settled"
    assert await stage.state() is State.VERDICT


async def test_a_cost_that_vanished_is_judged_as_it_was_seen(scene: Any) -> None:
    """If Telnyx no longer knows a session whose cost it has shown, that cost is the verdict's."""
    stage = scene(cost(), NotReady(404, "gone"))
    await stage.attempt(90)
    assert await stage.attempt(1800) == "settled"
    session = await stage.store.session("s")
    assert session.verdict.event_count == 5
    assert not session.verdict.settled
    assert any("no longer shows" in remark for remark in session.verdict.remarks)


async def test_no_cost_until_the_last_age_is_said(scene: Any) -> None:
    """A session of which nothing ever came ends as unavailable."""
    stage = scene(NotReady(404, "unknown"))
    assert await stage.attempt(90) == "waiting"
    assert await stage.attempt(1800) == "unavailable"
    assert await stage.state() is State.UNAVAILABLE


async def test_an_answer_is_as_old_as_its_question(scene: Any) -> None:
    """What was asked before the last age is no final word, however late its answer is decided."""
    stage = scene(cost())
    answer = stage.analyst.telnyx.analysis

    async def slow(*args: Any, **kwargs: Any) -> Meaning:
        stage.now_ms = END_MS + 1_900_000
        meaning: Meaning = await answer(*args, **kwargs)
        return meaning

    stage.analyst.telnyx.analysis = slow
    assert await stage.attempt(300) == "waiting"
    assert await stage.state() is State.OPEN


async def test_the_date_is_left_out_from_the_second_age_on(scene: Any) -> None:
    """At the first age only the call's day is asked for, later also without one."""
    stage = scene(NotReady(404, "unknown"))
    await stage.attempt(90)
    await stage.attempt(300)
    telnyx = stage.analyst.telnyx
    day = telnyx.days[0]
    assert day is not None
    assert telnyx.days == [day, day, None]


@pytest.mark.parametrize(
    ("meaning", "least", "most"),
    [
        (RateLimited(17, "429"), 17, 18),
        (Refused(403, "D17"), 2, 5),
        (Transient("502"), 2, 5),
    ],
)
async def test_what_is_not_an_answer_holds_the_session(
    scene: Any, meaning: Meaning, least: float, most: float
) -> None:
    """A rate limit, a refusal, an outage: however late it is, the session stays open and waits."""
    stage = scene(meaning)
    assert await stage.attempt(99_999) == "held"
    assert await stage.state() is State.OPEN
    assert least <= await stage.due_in() <= most


async def test_a_hanging_telnyx_is_an_outage(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all questions together take too long, the session is held and no try is used up."""
    stage = scene(cost())

    async def hang(*_: Any, **__: Any) -> Meaning:
        await asyncio.Event().wait()
        raise AssertionError

    stage.analyst.telnyx.analysis = hang
    monkeypatch.setattr(analyze, "_ASK_SECONDS", 0.01)
    assert await stage.attempt(90) == "held"
    assert await stage.redis.hget(keys.session_key("s"), "failures") is None


@pytest.mark.parametrize("trouble", [Invalid(400, "bad id"), ZeroDivisionError("a bug")])
async def test_our_own_failures_end_in_a_dead_letter(scene: Any, trouble: Any) -> None:
    """Each failure of ours waits four times as long as the last; the sixth is the end."""
    stage = scene(trouble)
    waits = []
    for _ in range(MOST_FAILURES - 1):
        assert await stage.attempt(90) == "failed"
        waits.append(await stage.due_in())
    assert waits == [30, 120, 480, 1920, 7680]
    assert await stage.attempt(90) == "dead"
    session = await stage.store.session("s")
    assert session.state is State.DEAD
    assert session.reason


async def test_the_answer_that_broke_us_is_kept(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exception after an answer, the answer is kept, scrubbed; the reason is clean, too."""
    stage = scene(cost())
    ask = stage.analyst.telnyx.analysis

    async def asked(*args: Any, **kwargs: Any) -> Meaning:
        note_answer("call-session/s", 200, b'{"root":{"cli":"+4915112345678"}}')
        found: Meaning = await ask(*args, **kwargs)
        return found

    def judge(*_: Any, **__: Any) -> Any:
        raise ValueError("cannot read '+49 151 12345678'")

    stage.analyst.telnyx.analysis = asked
    monkeypatch.setattr("workers.decide.judge", judge)
    assert await stage.attempt(90) == "failed"
    raw, _ = await stage.store.raw("s")
    assert b"5112345" not in read_raw(raw)
    assert b'"cli":"' in read_raw(raw)
    session = await stage.store.session("s")
    assert session.reason == "ValueError: cannot read '…78'"


async def test_without_an_answer_none_is_kept(scene: Any) -> None:
    """A failure before anything was answered keeps nothing; its kind is the error's class."""
    stage = scene(ZeroDivisionError("a bug"))
    for _ in range(MOST_FAILURES):
        await stage.attempt(90)
    assert await stage.store.raw("s") is None
    (count,) = await stage.store.dead.counts()
    assert (count.kind, count.number) == ("ZeroDivisionError", 1)


async def test_a_date_that_telnyx_dislikes_is_left_out(scene: Any) -> None:
    """A 400 to a question with a date is asked again without it before it counts."""
    stage = scene(Invalid(400, "date_time"), cost())
    assert await stage.attempt(90) == "waiting"


async def test_a_record_that_cannot_be_read_uses_up_tries(scene: Any) -> None:
    """A session whose record is broken becomes a dead letter, and is not retried for ever."""
    stage = scene(cost())
    await stage.redis.hset(keys.session_key("s"), "watch", "{")
    outcomes = [await stage.attempt(90) for _ in range(MOST_FAILURES)]
    assert outcomes == ["failed"] * (MOST_FAILURES - 1) + ["dead"]


async def test_a_lost_redis_is_no_failure(scene: Any) -> None:
    """When Redis goes away in an attempt, nothing is counted: the lease ends by itself."""
    stage = scene(RedisConnectionError("gone"))
    with pytest.raises(RedisConnectionError):
        await stage.attempt(90)
    assert await stage.redis.hget(keys.session_key("s"), "failures") is None


async def test_a_lease_of_somebody_else_is_left_alone(scene: Any) -> None:
    """Without the lease an attempt does nothing and asks nothing."""
    stage = scene(cost())
    claim = Claim("s", "not-mine", END_MS, taken_over=False)
    assert await stage.analyst.analyze(claim) == "lost"
    assert stage.analyst.telnyx.days == []


async def test_news_during_an_attempt_make_it_void(scene: Any) -> None:
    """If an event comes while Telnyx is asked, nothing is concluded and the session is due."""
    stage = scene(cost())
    ask = stage.analyst.telnyx.analysis

    async def interrupted(*args: Any, **kwargs: Any) -> Meaning:
        await stage.store.record(scheduling(key="2", at_ms=END_MS), now_ms=END_MS)
        found: Meaning = await ask(*args, **kwargs)
        return found

    stage.analyst.telnyx.analysis = interrupted
    assert await stage.attempt(90) == "changed"
    session = await stage.store.session("s")
    assert session.watch.fetches == ()
    assert await stage.due_in() == 0


async def test_what_no_worker_survives_is_a_dead_letter(scene: Any) -> None:
    """A session in whose attempt ten workers in a row have ended is not tried an eleventh time."""
    stage = scene(cost())
    await stage.redis.hset(keys.session_key("s"), mapping={"token": "t", "claimed": "1"})
    claim = Claim("s", "t", END_MS, taken_over=True, orphaned=MOST_ORPHANED)
    assert await stage.analyst.analyze(claim) == "dead"
    assert stage.analyst.telnyx.days == []
    session = await stage.store.session("s")
    assert (session.state, session.reason) == (
        State.DEAD,
        "10 workers in a row ended while they worked on it",
    )
    (count,) = await stage.store.dead.counts()
    assert (count.kind, count.number) == ("WorkerEnded", 1)


async def test_an_answer_that_cannot_be_kept_hides_no_failure(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If keeping the answer breaks as well, the try is counted all the same."""

    def broken(_self: Evidence) -> bytes:
        raise ValueError("broken, too")

    monkeypatch.setattr(Evidence, "raw", broken)
    stage = scene(RuntimeError("broken"))
    assert await stage.attempt(90) == "failed"
    assert await stage.redis.hget(keys.session_key("s"), "failures") == b"1"


# --- one more look, long after the verdict --------------------------------------------------------

DAY = 86_400


@pytest.mark.parametrize(
    ("last", "outcome", "is_new"),
    [
        (cost(), "unchanged", False),
        (cost(sip="2.0052"), "changed", True),
        (NotReady(404, "gone"), "unknown", False),
    ],
)
async def test_the_last_look_ends_the_session_again(
    scene: Any, last: Meaning, outcome: str, *, is_new: bool
) -> None:
    """It is one attempt, counted by what came of it, and no second end of the session."""
    stage = scene(cost(), cost(), last, rules=LAST)
    await stage.attempt(90)
    await stage.attempt(300)
    assert await stage.redis.zscore(keys.RECHECKS, "s") == END_MS + DAY * 1000
    before = await stage.store.session("s")
    await stage.redis.delete(keys.RECHECKS)
    assert await stage.attempt(DAY) == "rechecked"
    after = await stage.store.session("s")
    assert after.state is State.VERDICT
    assert (after.verdict != before.verdict) is is_new
    assert await stage.redis.zcard(keys.RECHECKS) == await stage.redis.zcard(keys.DUE) == 0
    value = stage.registry.get_sample_value
    assert value("tollwatch_rechecks_total", {"outcome": outcome}) == 1
    assert value("tollwatch_sessions_ended_total", {"state": "verdict"}) == 1
    assert value("tollwatch_reasons_total", {"code": "late_charge"}) == is_new
    assert value("tollwatch_verdict_age_seconds_count") == 1


async def test_the_last_look_waits_for_an_answer(scene: Any) -> None:
    """While none can be had it waits among its like, for another day at most."""
    stage = scene(cost(), cost(), Transient("502"), rules=LAST)
    await stage.attempt(90)
    await stage.attempt(300)
    assert await stage.attempt(DAY) == "held"
    assert await stage.redis.zscore(keys.RECHECKS, "s") > stage.now_ms
    assert await stage.redis.zcard(keys.DUE) == 0
    await stage.redis.delete(keys.RECHECKS)
    assert await stage.attempt(2 * DAY) == "rechecked"
    assert await stage.redis.zcard(keys.RECHECKS) == 0
    value = stage.registry.get_sample_value
    assert value("tollwatch_rechecks_total", {"outcome": "given_up"}) == 1
    assert await stage.state() is State.VERDICT


async def plan(stage: Scene, cohort: str, from_ms: int, until_ms: int) -> None:
    """Somebody plans calls of that cohort in that time."""
    mute = Mute(cohort, from_ms, until_ms, "ada", "a demo")
    await stage.feedback.plan(Feedback("other", "planned", "ada", from_ms, "a demo", mute))


@pytest.mark.parametrize(
    ("cohort", "from_ms", "told"),
    [
        ("account", END_MS, False),
        ("account", END_MS + 1, True),
        ("somebody", END_MS, True),
    ],
)
async def test_what_is_planned_is_not_told(
    scene: Any, cohort: str, from_ms: int, told: bool
) -> None:
    """Above the highest ceiling, too; the verdict keeps its reasons and says who has muted it."""
    stage = scene(cost("9.00"))
    await plan(stage, cohort, from_ms, END_MS + 60_000)
    await stage.attempt(90)
    await stage.attempt(300)
    session = await stage.store.session("s")
    assert session
    assert session.verdict
    assert "session_cost" in [reason.code for reason in session.verdict.reasons]
    assert session.verdict.severity is not None
    assert bool([id async for id in stage.store.alert_ids()]) is told
    assert bool(session.alerted) is told
    assert any("planned by ada" in remark for remark in session.verdict.remarks) is not told
    muted = stage.registry.get_sample_value("tollwatch_alerts_muted_total")
    assert bool(muted) is not told
