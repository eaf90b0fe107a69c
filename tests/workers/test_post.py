"""Posting: once, whatever happens around it."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.queue import Claim, alert_line
from service.records import (
    Alert,
    Call,
    Conclusion,
    Delivery,
    Reason,
    Severity,
    State,
    Verdict,
    Watch,
)
from service.store import Posting, Store
from tests.samples import END_MS, scheduling
from workers.metrics import WorkerMetrics
from workers.post import Poster
from workers.slack_answer import Outcome, Permanent, Posted, RateLimited, Transient

pytestmark = pytest.mark.anyio


class Slack:
    """Answers as it is told, and counts."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.payloads: list[Any] = []

    async def post(self, payload: Any) -> Outcome:
        self.payloads.append(payload)
        return self._outcomes.pop(0)


class Forgetful(Store):
    """A store whose notes fail at first: Redis goes away just after Slack has answered."""

    failures = 2

    async def deliver(self, *args: Any, **kwargs: Any) -> int | None:
        if self.failures:
            self.failures -= 1
            raise RedisConnectionError("gone")
        return await super().deliver(*args, **kwargs)


def alert() -> Alert:
    reason = Reason("session_cost", "dear", Decimal(9), Decimal(5), Decimal(4), Severity.MEDIUM)
    verdict = Verdict(
        at_ms=END_MS,
        total=Decimal(9),
        currency="USD",
        severity=Severity.MEDIUM,
        excess=Decimal(4),
        reasons=(reason,),
    )
    return Alert("s:medium", Call("s"), verdict, Severity.MEDIUM, END_MS)


@pytest.fixture
async def claim(redis: Redis) -> Callable[..., Any]:
    """Leases the one alert there is; call it again after it was put off."""
    store = Store(redis, retention_ms=1000)
    await store.record(scheduling(), now_ms=END_MS)
    await redis.hset(keys.session_key("s"), "token", "t")  # type: ignore[misc]
    session = await store.take("s", "t")
    assert session
    done = Conclusion(State.VERDICT, Watch(), None, "", answered=True, alert=alert())
    await store.conclude(session, "t", done, now_ms=END_MS)

    async def lease(now_ms: int = END_MS) -> Claim:
        (found,) = await alert_line(redis).claim(
            limit=1, lease_ms=1000, token=f"p{now_ms}", now_ms=now_ms
        )
        return found

    return lease


def poster(redis: Redis, slack: Slack | None, store: type[Store] = Store) -> Poster:
    return Poster(
        store(redis, retention_ms=1000),
        slack,  # type: ignore[arg-type]
        WorkerMetrics(CollectorRegistry()),
        lambda: END_MS,
    )


async def outcome(redis: Redis) -> Posting:
    posting = await Store(redis, retention_ms=1000).posting("s:medium")
    assert posting
    return posting


async def test_a_posted_alert_is_remembered(redis: Redis, claim: Any) -> None:
    """After Slack's ok the alert is posted, and due no more."""
    slack = Slack(Posted())
    assert await poster(redis, slack).post(await claim()) == "posted"
    assert (await outcome(redis)).delivery is Delivery.POSTED
    assert await redis.zcard(keys.OUTBOX) == 0


async def test_a_redis_that_goes_away_after_the_ok_leads_to_no_second_post(
    redis: Redis, claim: Any
) -> None:
    """The note is tried until it is taken; the message is not sent again."""
    slack = Slack(Posted())
    assert await poster(redis, slack, Forgetful).post(await claim()) == "posted"
    assert len(slack.payloads) == 1
    assert (await outcome(redis)).delivery is Delivery.POSTED


async def test_a_new_lease_on_a_posted_alert_only_notes_it(redis: Redis, claim: Any) -> None:
    """If the lease ended before the note, the same worker's next job notes it without posting."""
    slack = Slack(Posted())
    mine = poster(redis, slack)
    stale = await claim()
    again = await claim(END_MS + 1000)
    mine._posted.add("s:medium")
    assert await mine.post(stale) == "lost"
    assert await mine.post(again) == "posted"
    assert slack.payloads == []


@pytest.mark.parametrize(
    ("said", "counted", "least", "most"),
    [
        (RateLimited(30), "rate_limited", 30, 30),
        (Transient("503"), "transient", 2, 5),
        (Transient("no answer", maybe_posted=True), "transient", 450, 900),
    ],
)
async def test_what_may_work_later_is_put_off(
    redis: Redis, claim: Any, said: Outcome, counted: str, least: int, most: int
) -> None:
    """A rate limit is waited out; an outage backs off; a maybe is repeated late, if at all."""
    assert await poster(redis, Slack(said)).post(await claim()) == counted
    score = await redis.zscore(keys.OUTBOX, "s:medium")
    assert score is not None
    assert least <= (score - END_MS) / 1000 <= most
    assert (await outcome(redis)).delivery is Delivery.WAITING


async def test_what_slack_will_never_take_is_kept_as_refused(redis: Redis, claim: Any) -> None:
    """A permanent refusal is kept with its reason, and not tried again."""
    assert await poster(redis, Slack(Permanent("no_service"))).post(await claim()) == "refused"
    found = await outcome(redis)
    assert (found.delivery, found.reason) == (Delivery.REFUSED, "no_service")
    assert await redis.zcard(keys.OUTBOX) == 0


async def test_without_slack_an_alert_is_kept(redis: Redis, claim: Any) -> None:
    """With no webhook set, the alert is kept as such."""
    assert await poster(redis, None).post(await claim()) == "kept"
    assert (await outcome(redis)).delivery is Delivery.KEPT


async def test_a_record_that_cannot_be_read_waits(redis: Redis, claim: Any) -> None:
    """An alert of a newer version is put off, not lost and not hammered."""
    await redis.hset(keys.alert_key("s:medium"), "alert", "{}")  # type: ignore[misc]
    slack = Slack()
    assert await poster(redis, slack).post(await claim()) == "failed"
    score = await redis.zscore(keys.OUTBOX, "s:medium")
    assert score is not None
    assert score > END_MS + 400_000
    assert slack.payloads == []
