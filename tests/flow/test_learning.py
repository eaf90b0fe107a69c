"""What calls usually cost is learned from them, and a call that departs from it is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.records import State
from tests.flow.stage import Outside, Stage, open_stage, severity_of
from tests.world.model import Call
from workers.baselines import Baselines
from workers.detection.leaning import LEAST_CALLS

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_USUAL = LEAST_CALLS + 5


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """A worker with nothing set."""
    async with open_stage(outside, ages="1") as stage:
        yield stage


def usual(stage: Stage) -> Call:
    """A call of two or three minutes to one connection."""
    return stage.past("sip_inbound", talk_seconds=150, connection_id="2852589112373314909")


async def learned(stage: Stage, day: int) -> int:
    """How many calls the account has learned from."""
    baselines = Baselines(stage.redis, retention_ms=1)
    return (await baselines.baseline("account", day)).calls


async def test_a_dear_call_is_told_by_what_its_like_have_cost(stage: Stage) -> None:
    """After some dozens of calls, and a restart of everything; it is far below any ceiling."""
    calls = [usual(stage) for _ in range(_USUAL)]
    day = int(calls[0].end.timestamp()) // 86_400
    await stage.hang_up(*calls)
    for call in calls:
        await stage.ended(call)

    async def all_learned() -> bool:
        return await learned(stage, day) == _USUAL

    await stage.until(all_learned, f"{_USUAL} calls being learned")
    stage.worker.kill()
    stage.valkey.restart()
    stage.worker.start()
    await asyncio.to_thread(stage.worker.wait_ready)
    assert await learned(stage, day) == _USUAL

    dear = stage.past("sip_inbound", talk_seconds=150 * 60, connection_id=calls[0].connection_id)
    assert 0.25 < dear.total < 1
    await stage.hang_up(dear)
    session = await stage.ended(dear)
    assert session.state is State.VERDICT
    (message,) = await stage.told(dear)
    assert severity_of(message) == "low"
    assert "times the usual" in message.all_text
    assert f"({_USUAL} calls " in message.all_text
    assert await learned(stage, day) == _USUAL, "it does not teach"
    for call in calls:
        assert await stage.told(call) == []
