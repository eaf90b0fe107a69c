"""A surge is told within moments of its webhooks, while no cost of it is known."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from service import keys
from tests.flow.stage import Outside, Stage, hangups, now, now_ms, open_stage
from tests.world.clock import later
from tests.world.model import Call

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
CALLS = 30


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Two workers, who ask for no cost within an hour."""
    async with open_stage(outside, ages="3600", workers=2) as stage:
        yield stage


@pytest.fixture(scope="module")
async def calls(stage: Stage) -> list[Call]:
    """A connection that had six calls in each hour of the past days has thirty at once.

    Each event is delivered twice.
    """
    connection_id = stage.world.generator.connection_ids[0]
    end = later(now(stage), -1)
    made = [
        stage.world.call("sip_inbound", end=end, connection_id=connection_id) for _ in range(CALLS)
    ]
    hours = range(now_ms() // HOUR_MS - 8 * 24, now_ms() // HOUR_MS)
    async with stage.redis.pipeline() as pipe:
        for hour in hours:
            for cohort in ("account", connection_id):
                series = f"velocity|{cohort}"
                amounts = {"c": 6, "k": 6, "u": 1_200_000, "q": 6 * 2000**2}
                pipe.sadd(f"{keys.CALLS_ROSTER}{hour // 24}", series)
                mapping = {f"{name}{hour}": amount for name, amount in amounts.items()}
                pipe.hset(f"{keys.CALLS_DAY}{hour // 24}:{series}", mapping=mapping)
        await pipe.execute()
    for call in made:
        for event in hangups(call):
            for attempt in (1, 2):
                assert (await stage.post(event, attempt=attempt)).is_success
    return made


async def test_a_surge_is_told_without_waiting_for_its_cost(
    stage: Stage, calls: list[Call]
) -> None:
    """In one message, whichever worker looks, with the money that such calls usually cost."""

    def messages() -> list[str]:
        texts = [message.all_text for message in stage.world.slack.messages]
        return [text for text in texts if "calls in 5 minutes, usual 0.5" in text]

    await stage.until(messages, "the surge in Slack", 60)
    assert len(messages()) == 1
    assert f"Connection {calls[0].connection_id}: " in messages()[0]
    assert "About many calls together" in messages()[0]
    assert not stage.world.telnyx.requests
    told = [
        await stage.metric(w, "tollwatch_findings_total", kind="velocity") for w in stage.workers
    ]
    assert sum(told) == 1


async def test_what_is_delivered_twice_counts_once(stage: Stage, calls: list[Call]) -> None:
    """And so do the legs of one call."""
    counted = 0
    for key in await stage.redis.keys(f"{keys.CALLS_MINUTE}*"):
        fields = await cast("Any", stage.redis.hgetall(key.decode()))
        counted += int(fields[b"velocity|account"])
    assert counted == len(calls)
