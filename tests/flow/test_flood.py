"""Strangers who send as fast as they can, and Telnyx, which waits for two seconds, in between."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.bench.flood import SEED as SENDERS_SEED
from tests.bench.flood import probe
from tests.flow.stage import Outside, Stage, half_a_webhook, hangups, open_stage
from tests.world.flood import KINDS
from tests.world.processes import Process
from tests.world.signing import Signer

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_SECONDS: Final = 1.5
_CONNECTIONS: Final = {"slow bodies": 1200, "idle connections": 1200}
"""More than the process takes, where that is the point; few enough for any machine, otherwise."""
_FEW: Final = 8
_TELNYX_WAITS_SECONDS: Final = 2.0


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """A web process that believes the benchmark's sender, too."""
    keys = f"{outside.world.public_key},{Signer(SENDERS_SEED).public_key}"
    settings = {"TELNYX_PUBLIC_KEY": keys}
    async with open_stage(outside, ages="1", workers=0, web=settings) as stage:
        yield stage


@asynccontextmanager
async def flooded(stage: Stage, kind: str) -> AsyncIterator[Process]:
    """While so many strangers do their worst."""
    port = stage.web.environ["TOLLWATCH_PORT"]
    count = str(_CONNECTIONS.get(kind, _FEW))
    command = [sys.executable, "-m", "tests.world.flood", kind, port, str(2 * _SECONDS)]
    with Process(kind, [*command, "--connections", count]) as flood:
        yield flood


@pytest.mark.parametrize("kind", KINDS)
async def test_signed_ones_are_answered_during_a_flood(stage: Stage, kind: str) -> None:
    """Whatever strangers do, every signed webhook is kept and answered while Telnyx waits."""
    async with flooded(stage, kind) as flood:
        signed = await probe(int(stage.web.environ["TOLLWATCH_PORT"]), _SECONDS)
        await asyncio.to_thread(flood.wait)
    found = json.loads(flood.lines[-1])
    assert found["opened"] >= _CONNECTIONS.get(kind, _FEW)
    assert set(signed.statuses) == {"202"}
    assert max(signed.seconds) < _TELNYX_WAITS_SECONDS


async def test_a_flood_is_few_lines_in_the_log(stage: Stage) -> None:
    """All of the strangers' requests are counted, and a line for each reason tells of them."""
    reasons = [line["reason"] for line in stage.log(event="webhook refused")]
    assert sorted(reasons) == sorted(set(reasons))
    for reason in ("no_signature", "wrong_signature"):
        refused = await stage.metric(stage.web, "tollwatch_refusals_total", reason=reason)
        assert refused > 100
        assert reason in reasons


async def test_after_a_flood_all_is_as_before(stage: Stage) -> None:
    """The process has no connection, memory or readiness less than before."""
    (event,) = hangups(stage.world.call("sip_inbound"))
    assert (await stage.post(event)).status_code == 202
    assert (await stage.ready(stage.web))[0] == 200


async def test_a_slow_body_takes_no_place(outside: Outside) -> None:
    """With one place, and a body under way that might be Telnyx's, another webhook is taken."""
    settings = {"TOLLWATCH_MAX_IN_FLIGHT": "1"}
    async with open_stage(outside, ages="1", database=1, workers=0, web=settings) as stage:
        _, writer = await half_a_webhook(stage, stage.world.call("sip_inbound"))
        (event,) = hangups(stage.world.call("sip_inbound"))
        assert (await stage.post(event)).status_code == 202
        writer.close()


async def test_the_rest_of_a_flood_is_summed_up(outside: Outside) -> None:
    """At its end at the latest, the process says how many more there were of each reason."""
    async with open_stage(outside, ages="1", database=2, workers=0) as stage:
        for _ in range(30):
            assert (await stage.send(b"{}", headers={})).status_code == 401
        await asyncio.to_thread(stage.web.terminate)
        told = [line.get("more") for line in stage.log(event="webhook refused")]
    assert told == [None, 29]
