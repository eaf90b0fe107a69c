"""`tollwatch backfill`: the past is learned by hand, whatever comes."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from service import keys
from tests.flow.stage import TOLLWATCH, Outside
from tests.world.clock import later, utc
from tests.world.model import Call
from tests.world.processes import Process, wait_until_async
from tests.world.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_DATABASE = 15
_WINDOW_SECONDS = 2.0


@dataclass
class Past:
    """A Telnyx that knows of calls, and a Redis that knows of none."""

    world: World
    redis: Redis
    environ: dict[str, str]

    def calls(self, count: int, kind: str = "ai_inbound") -> list[Call]:
        """An hour apart, the last of them some hours ago."""
        end = utc(self.world.clock() - 5 * 3600)
        return [self.world.call(kind, end=later(end, -3600 * each)) for each in range(count)]

    def command(self, *arguments: str) -> Process:
        """`tollwatch backfill`, not started yet."""
        given = ("backfill", "--since", "14d", *arguments)
        return Process("tollwatch", [TOLLWATCH, *given], self.environ)

    async def run(self, *arguments: str, code: int = 0) -> list[str]:
        """What it wrote."""
        process = self.command(*arguments)
        process.start()
        assert await asyncio.to_thread(process.wait) == code, process.last_lines
        return process.lines

    async def report(self, *arguments: str) -> dict[str, Any]:
        """What it says as JSON."""
        lines = await self.run("--format", "json", *arguments)
        report: dict[str, Any] = json.loads("\n".join(lines[lines.index("{") :]))
        return report

    def asked(self) -> list[Any]:
        """The questions for sessions."""
        return [r for r in self.world.telnyx.requests if "/session_analysis/" in r.path]

    async def keys(self) -> set[str]:
        return {key.decode() for key in await self.redis.keys("tollwatch:*")}


@pytest.fixture
async def past(outside: Outside) -> AsyncIterator[Past]:
    """Of a Telnyx of its own."""
    url = outside.redis_url(_DATABASE)
    redis = Redis.from_url(url)
    await redis.flushdb()
    async with World() as world:
        environ = {
            "REDIS_URL": url,
            "TELNYX_API_KEY": world.api_key,
            "TELNYX_API_URL": world.telnyx_url,
        }
        yield Past(world, redis, environ)
    await redis.aclose()


async def test_the_past_is_learned_within_a_rate_limit(past: Past) -> None:
    """No question is refused, a part of each window is left to workers; the numbers add up."""
    past.calls(30)
    past.world.telnyx.limit(24, _WINDOW_SECONDS, ["analysis"])
    report = await past.report()
    assert (report["outcome"], report["found"], report["left"]) == ("whole", 30, 0)
    assert report["sessions"]["learned"] + report["sessions"]["apart"] == 30
    assert report["cohorts_with_a_say"] >= 1
    assert {request.status for request in past.world.telnyx.requests} == {200}
    windows = Counter(int(request.at // _WINDOW_SECONDS) for request in past.asked())
    # A quarter is theirs. The first answers tell of the limit while others are under way.
    assert max(count for window, count in windows.items() if window > min(windows)) <= 18
    assert len(past.asked()) == 30
    families = {keys.family_of(key) for key in await past.keys()}
    names = {family.name for family in families if family}
    assert not names & {keys.SESSIONS, keys.DUE, keys.ENDED, keys.OUTBOX, keys.ALERTS}


async def test_an_interrupted_run_goes_on(past: Past) -> None:
    """Ctrl-C gives the lease back; called again, no session is asked for that was done."""
    calls = past.calls(240, "sip_inbound")
    past.world.telnyx.latency_seconds = 0.25
    with past.command() as process:
        await wait_until_async(
            lambda: "100 of 240 sessions" in process.lines, description="a hundred sessions"
        )
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait) == 130
        assert process.lines[-1] == "interrupted: called again, it goes on where it stopped"
        assert not await past.redis.exists(keys.BACKFILL_LEASE)
    past.world.telnyx.latency_seconds = 0
    before = len(past.asked())
    report = await past.report()
    assert (report["found"], report["left"]) == (240, 0)
    asked = [request.path for request in past.asked()]
    assert len(set(asked)) == len(calls)
    # A hundred were done, and the last of them perhaps not noted yet. What was asked for ahead, or
    # refused for a moment, is asked for again.
    assert len(set(asked[before:])) <= 240 - 100 + 1
