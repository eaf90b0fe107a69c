"""Posting: once, whatever happens around it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import keys
from service.outbox import Flood, Outbox
from service.queue import Claim
from service.records import Delivery, Notice, Severity
from service.store import Posting, Store
from tests.alerts import RETENTION_MS, alert_of, decide
from tests.samples import END_MS
from tests.world import blockkit
from tests.world.processes import wait_until_async
from workers.metrics import WorkerMetrics
from workers.post import Poster
from workers.slack_answer import Closed, Outcome, Posted, RateLimited, Rejected, Transient

pytestmark = pytest.mark.anyio

FLOOD = Flood(cooldown_ms=0, burst=2, per_hour=30)


class Slack:
    """Answers as it is told, and keeps what it was sent."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.payloads: list[Any] = []

    async def post(self, payload: Any) -> Outcome:
        self.payloads.append(payload)
        blockkit.check(payload)
        return self._outcomes.pop(0)


class Hanging(Slack):
    """Takes the message and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def post(self, payload: Any) -> Outcome:
        self.payloads.append(payload)
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


class Forgetful(Outbox):
    """An outbox whose notes fail while Redis is away."""

    is_away = True
    failed = 0

    async def close(self, *args: Any, **kwargs: Any) -> int | None:
        if self.is_away:
            self.failed += 1
            self.is_away = self.failed < 3
            raise RedisConnectionError("gone")
        return await super().close(*args, **kwargs)


@dataclass
class Office:
    """One worker's poster and outbox, at a time that only moves when told to."""

    redis: Redis
    slack: Slack | None
    kind: type[Outbox] = Outbox
    now: int = END_MS
    numbers: int = 0
    poster: Poster = field(init=False)
    outbox: Outbox = field(init=False)
    metrics: WorkerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = self.kind(
            self.redis,
            retention_ms=RETENTION_MS,
            flood=FLOOD,
            head_start_seconds=0,
            now_ms=lambda: self.now,
        )
        self.metrics = WorkerMetrics(CollectorRegistry())
        slack: Any = self.slack
        self.poster = Poster(self.outbox, slack, self.metrics, lambda: self.now)

    async def claim(self) -> Claim:
        self.numbers += 1
        (found,) = await self.outbox.claim(
            limit=1, lease_ms=1000, token=f"{id(self)}.{self.numbers}"
        )
        return found

    async def post(self) -> str:
        return await self.poster.post(await self.claim())

    async def idle(self) -> bool:
        return not await self.outbox.claim(limit=1, lease_ms=1000, token="none")

    def fates(self, fate: Delivery) -> float:
        return float(self.metrics.fates.labels(fate)._value.get())


@pytest.fixture
async def office(redis: Redis) -> Callable[..., Awaitable[Office]]:
    """Opens an office with one alert in the outbox."""

    async def open_office(slack: Slack | None, kind: type[Outbox] = Outbox) -> Office:
        await decide(redis, alert_of())
        return Office(redis, slack, kind)

    return open_office


async def outcome(redis: Redis, id: str = "s:medium") -> Posting[Any]:
    posting = await Store(redis, retention_ms=1000).item(id)
    assert posting
    return posting


async def test_a_posted_alert_is_remembered(redis: Redis, office: Any) -> None:
    """After Slack's ok the alert is posted, counted, and due no more."""
    mine = await office(Slack(Posted()))
    assert await mine.post() == "posted"
    assert (await outcome(redis)).delivery is Delivery.POSTED
    assert mine.fates(Delivery.POSTED) == 1
    assert await redis.zcard(keys.OUTBOX) == 0


# --- Redis that goes away -------------------------------------------------------------------------


async def test_a_redis_that_goes_away_after_the_ok_leads_to_no_second_post(
    redis: Redis, office: Any
) -> None:
    """The note is tried until it is taken; the message is not sent again."""
    mine = await office(Slack(Posted()), Forgetful)
    assert await mine.post() == "posted"
    assert len(mine.slack.payloads) == 1
    assert (await outcome(redis)).delivery is Delivery.POSTED


async def test_a_note_outlives_its_job_and_its_lease(redis: Redis, office: Any) -> None:
    """A job that is cut off while Redis is away notes all the same, once Redis is back.

    A new lease on the alert that the same worker gets meanwhile waits for that, and posts nothing.
    """
    mine = await office(Slack(Posted()), Forgetful)
    job = asyncio.create_task(mine.post())
    await wait_until_async(lambda: mine.outbox.failed, description="a note that failed")
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    mine.now += 1000
    again = await mine.claim()
    assert (again.id, again.taken_over) == ("s:medium", True)
    assert await mine.poster.post(again) == "posted"
    assert len(mine.slack.payloads) == 1
    assert (await outcome(redis)).delivery is Delivery.POSTED
    assert mine.fates(Delivery.POSTED) == 1
    assert await mine.idle()


async def test_a_lost_lease_posts_nothing(redis: Redis, office: Any) -> None:
    """Who comes too late to its own claim leaves the message to its new holder."""
    mine = await office(Slack())
    stale = await mine.claim()
    mine.now += 1000
    await mine.claim()
    assert await mine.poster.post(stale) == "lost"
    assert mine.slack.payloads == []


async def test_a_post_that_is_cut_off_is_repeated_late(redis: Redis, office: Any) -> None:
    """A rollout that does not wait for Slack leaves the alert in doubt, and not due at once."""
    mine = await office(Hanging())
    job = asyncio.create_task(mine.post())
    await mine.slack.asked.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert await redis.zcard(keys.ASIDE) == 1
    assert (await outcome(redis)).repeated
    assert await mine.idle()


# --- what Slack says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "counted", "least", "most"),
    [
        (RateLimited(30), "rate_limited", 30, 30),
        (Transient("503"), "transient", 2.5, 5),
        (Closed("no_service"), "closed", 2.5, 5),
    ],
)
async def test_the_channels_troubles_put_off_the_channel(
    redis: Redis, office: Any, said: Outcome, counted: str, least: float, most: float
) -> None:
    """A rate limit, an outage and a revoked webhook hold everything back, and lose nothing."""
    mine = await office(Slack(said))
    await decide(redis, alert_of("other", Severity.LOW))
    assert await mine.post() == counted
    due = await redis.hget(keys.SLACK, "next")  # type: ignore[misc]
    assert due
    assert least <= (int(due) - END_MS) / 1000 <= most
    mine.now = int(due) - 1
    assert await mine.idle()
    assert (await outcome(redis)).delivery is Delivery.WAITING


async def test_a_channel_that_stays_shut_is_asked_ever_less_and_never_given_up(
    redis: Redis, office: Any
) -> None:
    """The waits double up to a quarter of an hour; after weeks the alert is told all the same."""
    mine = await office(Slack(*[Closed("invalid_token")] * 40, Posted()))
    waits = []
    for _ in range(40):
        assert await mine.post() == "closed"
        due = int(await redis.hget(keys.SLACK, "next"))  # type: ignore[misc]
        waits.append((due - mine.now) / 1000)
        mine.now = due
    assert 450 <= min(waits[10:]) <= max(waits) <= 900
    mine.now += 30 * 86_400_000
    assert await mine.post() == "posted"
    assert (await outcome(redis)).tries == 41


async def test_a_doubt_repeats_only_its_own_message_late(redis: Redis, office: Any) -> None:
    """What Slack may have taken comes again in a quarter of an hour, and says so; others go on."""
    mine = await office(Slack(Transient("no answer", maybe_posted=True), Posted(), Posted()))
    await decide(redis, alert_of("other", Severity.LOW))
    assert await mine.post() == "in_doubt"
    again = await redis.zscore(keys.ASIDE, "s:medium")
    assert again
    assert 450 <= (again - END_MS) / 1000 <= 900
    assert await mine.post() == "posted"
    assert (await outcome(redis, "other:low")).delivery is Delivery.POSTED
    mine.now = int(again)
    assert await mine.post() == "posted"
    first, _, repeated = (payload["text"] for payload in mine.slack.payloads)
    assert "perhaps told before" in repeated
    assert "perhaps told before" not in first
    assert (await outcome(redis)).repeated


async def test_doubts_in_a_row_are_the_channels_trouble(redis: Redis, office: Any) -> None:
    """If one message after another gets no answer, the channel is put off, too."""
    mine = await office(Slack(*[Transient("no answer", maybe_posted=True)] * 2))
    await decide(redis, alert_of("other", Severity.LOW))
    assert await mine.post() == "in_doubt"
    assert await mine.post() == "in_doubt"
    due = int(await redis.hget(keys.SLACK, "next"))  # type: ignore[misc]
    assert due - mine.now >= 2500


async def test_blocks_that_slack_rejects_are_told_plainly(redis: Redis, office: Any) -> None:
    """A payload that Slack calls bad is sent once more as its text alone, in the same try."""
    mine = await office(Slack(Rejected("invalid_blocks", certain=True), Posted()))
    assert await mine.post() == "posted"
    assert [sorted(payload) for payload in mine.slack.payloads] == [["blocks", "text"], ["text"]]
    assert (await outcome(redis)).delivery is Delivery.POSTED


async def test_what_slack_rejects_even_plainly_is_kept_as_refused(
    redis: Redis, office: Any
) -> None:
    """Only a message whose text alone is bad to Slack is refused, and is in nobody's way."""
    mine = await office(Slack(*[Rejected("400: invalid_payload", certain=True)] * 2, Posted()))
    await decide(redis, alert_of("other", Severity.LOW))
    assert await mine.post() == "refused"
    found = await outcome(redis)
    assert (found.delivery, found.reason) == (Delivery.REFUSED, "400: invalid_payload")
    assert mine.fates(Delivery.REFUSED) == 1
    assert await mine.post() == "posted"


async def test_a_400_that_no_word_explains_is_the_channels(redis: Redis, office: Any) -> None:
    """If the plain text is rejected too, and not by Slack's own word, the alert waits."""
    mine = await office(Slack(*[Rejected("400 Bad Request", certain=False)] * 2))
    assert await mine.post() == "closed"
    assert (await outcome(redis)).delivery is Delivery.WAITING


async def test_without_slack_an_alert_is_kept(redis: Redis, office: Any) -> None:
    """With no webhook set, the alert is kept as such."""
    mine = await office(None)
    assert await mine.post() == "kept"
    assert (await outcome(redis)).delivery is Delivery.KEPT


# --- other messages -------------------------------------------------------------------------------


async def test_a_summary_tells_all_of_its_alerts(redis: Redis, office: Any) -> None:
    """With the last token one message names the number and the sum; each alert is summarized."""
    mine = await office(Slack(Posted(), Posted()))
    for number in range(4):
        alert = alert_of(f"s{number}", Severity.LOW, excess="0.1", assistant_id="bot")
        await decide(redis, alert)
    assert await mine.post() == "posted"
    assert await mine.post() == "posted"
    assert mine.slack.payloads[1]["text"].startswith("Low: 4 calls, 0.40 USD too much in all")
    assert mine.fates(Delivery.SUMMARIZED) == 4
    found = await outcome(redis, "s2:low")
    assert (found.delivery, found.summary) == (Delivery.SUMMARIZED, "1")


async def test_a_summary_leaves_out_what_was_told_meanwhile(redis: Redis, office: Any) -> None:
    """An alert whose own post was noted late is not told again by the summary that took it in."""
    mine = await office(Slack(Posted(), Posted()))
    for number in range(3):
        await decide(redis, alert_of(f"s{number}", Severity.LOW))
    await mine.post()
    summary = await mine.claim()
    late = Claim("s0:low", "long gone", 0, taken_over=False)
    assert await mine.outbox.close(late, Delivery.POSTED) == 1
    assert await mine.poster.post(summary) == "posted"
    assert mine.slack.payloads[1]["text"].startswith("Low: 2 calls")
    assert (await outcome(redis, "s0:low")).delivery is Delivery.POSTED


async def test_a_summary_of_what_was_told_already_is_not_sent(redis: Redis, office: Any) -> None:
    """If nothing is left of it, there is no message."""
    mine = await office(Slack(Posted()))
    for number in range(2):
        await decide(redis, alert_of(f"s{number}", Severity.LOW))
    await mine.post()
    summary = await mine.claim()
    for number in range(2):
        late = Claim(f"s{number}:low", "long gone", 0, taken_over=False)
        await mine.outbox.close(late, Delivery.POSTED)
    assert await mine.poster.post(summary) == "kept"
    assert len(mine.slack.payloads) == 1


async def test_a_summary_counts_what_it_cannot_read(redis: Redis, office: Any) -> None:
    """An alert of a newer version is counted, told of, and listed."""
    mine = await office(Slack(Posted(), Posted()))
    for number in range(3):
        await decide(redis, alert_of(f"s{number}", Severity.LOW))
    await redis.hset(keys.alert_key("s1:low"), "alert", "{}")  # type: ignore[misc]
    await mine.post()
    await mine.post()
    assert mine.slack.payloads[1]["text"].startswith("Low: 2 calls")
    assert "1 of the alerts cannot be read" in str(mine.slack.payloads[1]["blocks"])


async def test_a_notice_is_posted(redis: Redis) -> None:
    """A notice to the operators says what it is about, and its details."""
    notice = Notice("n", "outage", END_MS, "Telnyx refuses our key", ("401 since 14:02",))
    await Store(redis, retention_ms=1000).notify(notice, now_ms=END_MS)
    mine = Office(redis, Slack(Posted()))
    assert await mine.post() == "posted"
    (payload,) = mine.slack.payloads  # type: ignore[union-attr]
    assert payload["text"] == "tollwatch: Telnyx refuses our key"
    assert "401 since 14:02" in str(payload["blocks"])
    assert (await outcome(redis, "n:notice")).delivery is Delivery.POSTED


async def test_a_record_that_cannot_be_read_waits(redis: Redis, office: Any) -> None:
    """An alert of a newer version is put aside, not lost and not hammered; others go on."""
    mine = await office(Slack(Posted()))
    await decide(redis, alert_of("other", Severity.LOW))
    await redis.hset(keys.alert_key("s:medium"), "alert", "{}")  # type: ignore[misc]
    assert await mine.post() == "failed"
    assert await redis.zscore(keys.ASIDE, "s:medium") == END_MS + 900_000
    assert await mine.post() == "posted"
    assert len(mine.slack.payloads) == 1
