"""No flood: caps, cool-down and summaries with real workers, and what faults do to them.

Alerts come in as a concluded session leaves them; thousands of calls would take minutes.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial

import pytest

from service import keys
from service.records import Delivery, Notice, Severity
from tests.alerts import alert_of, decide
from tests.flow.stage import Outside, Stage, now_ms, open_outside, open_stage
from tests.world.processes import Server

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_CAPS = {
    "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "3600",
    "TOLLWATCH_ALERT_BURST": "5",
    "TOLLWATCH_ALERTS_PER_HOUR": "30",
}


@pytest.fixture(scope="module")
async def capped(outside: Outside) -> AsyncIterator[Stage]:
    """Two workers that may post five messages at once and thirty an hour."""
    async with open_stage(outside, ages="1", database=10, workers=2, worker=_CAPS) as stage:
        yield stage


@pytest.fixture(autouse=True)
async def channel(capped: Stage) -> None:
    """Nothing in Redis, and a Slack that is well."""
    await capped.redis.flushdb()
    capped.world.slack.clear()
    capped.world.slack.requests.clear()


async def _decide(stage: Stage, severity: Severity, *, excess: str = "4", bot: str = "") -> str:
    id = secrets.token_hex(8)
    alert = alert_of(id, severity, excess=excess, assistant_id=bot or None, at_ms=now_ms())
    await decide(stage.redis, alert)
    return alert.id


async def _fates(stage: Stage, ids: list[str]) -> set[Delivery]:
    found = [await stage.store.item(id) for id in ids]
    return {posting.delivery for posting in found if posting}


async def _all_told(stage: Stage, ids: list[str]) -> None:
    async def told() -> bool:
        # The members of a summary under way are in no line, so their fates have to be looked at.
        untold = {Delivery.WAITING, Delivery.FOLDED}
        return await stage.nothing_waits() and not untold & await _fates(stage, ids)

    await stage.until(told, "an end of all alerts", 60)


async def test_2500_dear_calls_at_once_make_a_handful_of_messages(capped: Stage) -> None:
    """There are no more messages than the burst; one names number and total of all the rest.

    Every alert is in the list with its fate, and none is told twice.
    """
    until_all_are_there = capped.world.slack.refuse(500, "rollup_error", times=None)
    ids: list[str] = []
    while len(ids) < 2500:
        deciding = (_decide(capped, Severity.HIGH, excess="6.01") for _ in range(100))
        ids += await asyncio.gather(*deciding)
    until_all_are_there.times = 0
    await capped.hurry_alerts()
    await _all_told(capped, ids)
    messages = capped.world.slack.messages
    assert len(messages) <= 5
    assert await _fates(capped, ids) == {Delivery.POSTED, Delivery.SUMMARIZED}
    alone = [message for message in messages if "for one call" in message.text]
    (summary,) = [message for message in messages if message not in alone]
    rest = 2500 - len(alone)
    assert summary.text.startswith(f"High: {rest:,} calls, {Decimal('6.01') * rest:,} USD too much")
    assert "tollwatch alerts --summary" in summary.all_text
    assert capped.world.slack.refused == []


async def test_one_cause_is_told_once_and_a_rise_at_once(capped: Stage) -> None:
    """Of an assistant's calls the first is told, the others are counted; a worse one is told."""
    first = await _decide(capped, Severity.MEDIUM, bot="bot")
    await _all_told(capped, [first])
    others = [await _decide(capped, Severity.MEDIUM, bot="bot") for _ in range(50)]

    async def folded() -> bool:
        return await _fates(capped, others) == {Delivery.FOLDED}

    await capped.until(folded, "fifty folded alerts")
    worse = await _decide(capped, Severity.CRITICAL, bot="bot")
    await _told_within(capped, worse, 20)
    assert len(capped.world.slack.messages) == 2
    # The hour is over.
    await capped.redis.zadd(keys.FOLDED, dict.fromkeys(others, now_ms()), xx=True)
    await _all_told(capped, others)
    summary = capped.world.slack.messages[-1]
    assert "50 calls, 200.00 USD too much" in summary.text
    assert "their causes had been told before" in summary.text


async def test_after_an_outage_the_worst_comes_first_and_no_flood(capped: Stage) -> None:
    """What came while Slack was down is told in order of severity, within the caps."""
    down = capped.world.slack.faults.status(503, times=None)
    ids = [
        await _decide(capped, severity)
        for severity in (*([Severity.LOW] * 30), Severity.MEDIUM, Severity.CRITICAL, Severity.HIGH)
    ]
    await capped.store.notify(
        Notice("flood", "outage", now_ms(), "Telnyx is away"), now_ms=now_ms()
    )
    await capped.until(lambda: down.taken, "a post in vain")
    down.times = 0
    await capped.hurry_alerts()
    await _all_told(capped, ids)
    told = [message.text.partition(":")[0] for message in capped.world.slack.messages]
    assert told == ["tollwatch", "Critical", "High", "Medium", "Low"]
    assert "30 calls" in capped.world.slack.messages[-1].text


async def test_a_worker_killed_in_the_middle_of_a_post_is_taken_over(outside: Outside) -> None:
    """The alert is posted by another worker within half a minute, and says that it may be there."""
    async with open_stage(outside, ages="1", database=11, workers=2) as stage:
        hanging = stage.world.slack.faults.delay(60)
        id = await _decide(stage, Severity.HIGH)
        await stage.until(lambda: hanging.taken, "a post that hangs")
        holder = await _holder(stage)
        holder.kill()
        killed_ms = now_ms()
        hanging.times = 0
        await _told_within(stage, id, 30)
        assert now_ms() - killed_ms < 30_000
        assert "perhaps told before" in stage.world.slack.messages[-1].text
        (survivor,) = [worker for worker in stage.workers if worker is not holder]
        assert await stage.metric(survivor, "tollwatch_takeovers_total") == 1


async def test_redis_that_goes_away_after_the_ok_leads_to_no_second_message() -> None:
    """Slack has taken the message while Redis was away for longer than the lease: it is noted.

    The other worker, which meets the same Redis, leaves the message to the one that has to note.
    """
    async with open_outside() as outside, open_stage(outside, ages="1", workers=2) as stage:
        slow = stage.world.slack.faults.delay(2)
        id = await _decide(stage, Severity.HIGH)
        await stage.until(lambda: slow.taken, "a post under way")
        stage.valkey.stop()
        noting = partial(stage.log, event="posted, but not noted yet")
        await stage.until(noting, "a note that fails", 30)
        stage.valkey.start()
        # The lease ended in the meantime: what twenty seconds would have done.
        ended = await stage.redis.hget(keys.SLACK, "until")  # type: ignore[misc]
        if ended:
            past = str(now_ms() - 1)
            await stage.redis.hset(keys.SLACK, "until", past)  # type: ignore[misc]
        await _told_within(stage, id, 30)
        assert len(stage.world.slack.messages) == 1
        posting = await stage.store.item(id)
        assert posting
        assert not posting.repeated


async def _told_within(stage: Stage, id: str, seconds: float) -> None:
    async def posted() -> bool:
        found = await stage.store.item(id)
        return found is not None and found.delivery is Delivery.POSTED

    await stage.until(posted, f"a post of {id}", seconds)


async def _holder(stage: Stage) -> Server:
    """The worker that has the channel."""
    token = (await stage.redis.hget(keys.SLACK, "token") or b"").decode()  # type: ignore[misc]
    for worker in stage.workers:
        ids = [line["worker_id"] for line in worker.events if "worker_id" in line]
        if token.startswith(ids[0]):
            return worker
    raise AssertionError(token)
