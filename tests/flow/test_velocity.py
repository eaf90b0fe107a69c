"""A surge is told within moments of its webhooks, while its calls go on and no cost is known."""

from collections.abc import AsyncIterator, Iterable
from itertools import product
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from service import keys
from tests.flow.stage import Outside, Stage, hangups, now, now_ms, open_stage
from tests.world import envelopes
from tests.world.clock import later
from tests.world.envelopes import Delivery
from tests.world.model import Call

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

HOUR_MS = 3_600_000
CALLS = 30


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Two workers, who ask for no cost within an hour, and know the past days of a connection."""
    async with Redis.from_url(outside.redis_url()) as redis:
        await _six_an_hour(redis, connection_of(outside))
    async with open_stage(outside, ages="3600", workers=2) as stage:
        yield stage


async def _six_an_hour(redis: Redis, connection_id: str) -> None:
    """All to neighbouring numbers, the last of them some minutes ago; no assistant took any."""
    names = ("velocity|account", f"velocity|{connection_id}", f"one_prefix|{connection_id}")
    this_hour, this_minute = now_ms() // HOUR_MS, now_ms() // 60_000
    async with redis.pipeline() as pipe:
        for hour, name in product(range(this_hour - 8 * 24, this_hour), names):
            amounts = {"c": 6, "k": 6, "u": 1_200_000, "q": 6 * 2000**2}
            mapping = {f"{what}{hour}": amount for what, amount in amounts.items()}
            pipe.sadd(f"{keys.CALLS_ROSTER}{hour // 24}", name)
            pipe.hset(f"{keys.CALLS_DAY}{hour // 24}:{name}", mapping=mapping)
        for minute, name in product(range(this_minute - 300, this_minute - 10, 10), names):
            pipe.hset(f"{keys.CALLS_MINUTE}{minute}", name, "1")
        pipe.hset(keys.CALLS_TAKERS, connection_id, f"0 {now_ms()} {connection_id}")
        await pipe.execute()


def connection_of(outside: Outside) -> str:
    """The one over which the calls of this module go."""
    return outside.world.generator.connection_ids[0]


@pytest.fixture(scope="module")
async def calls(outside: Outside, stage: Stage) -> list[Call]:
    """Thirty calls that began within the last minutes and go on."""
    end, connection_id = later(now(stage), -1), connection_of(outside)
    made = [
        stage.world.call("sip_inbound", end=end, connection_id=connection_id, talk_seconds=90)
        for _ in range(CALLS)
    ]
    await deliver(stage, [envelopes.initiated(call, leg) for call in made for leg in call.legs])
    return made


async def deliver(stage: Stage, events: Iterable[Delivery]) -> None:
    """Each of them twice."""
    for event, attempt in product(events, (1, 2)):
        assert (await stage.post(event, attempt=attempt)).is_success


async def test_a_surge_is_told_before_its_calls_end(stage: Stage, calls: list[Call]) -> None:
    """In one message, whichever worker looks, with the money that such calls usually cost."""

    def messages() -> list[str]:
        texts = [message.all_text for message in stage.world.slack.messages]
        return [text for text in texts if "calls in 5 minutes, usual 0." in text]

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
    """And so do the legs of one call, and its end."""
    await deliver(stage, [event for call in calls for event in hangups(call)])
    this_minute = now_ms() // 60_000
    minutes = [keys.CALLS_MINUTE + str(this_minute - ago) for ago in range(9)]
    counted = [await cast("Any", stage.redis.hget(key, "velocity|account")) for key in minutes]
    assert sum(int(count or 0) for count in counted) == len(calls)
