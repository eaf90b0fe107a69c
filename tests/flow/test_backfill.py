"""`tollwatch backfill`: the past is learned by hand, whatever comes."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service import keys
from tests.flow.stage import TOLLWATCH, Outside
from tests.world.clock import later, utc
from tests.world.model import Call
from tests.world.processes import Process, wait_until_async
from tests.world.world import World

pytestmark = pytest.mark.anyio

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
        given = [TOLLWATCH, "backfill", "--since", "14d", *arguments]
        return Process("tollwatch", given, self.environ)

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


async def test_the_past_is_learned_within_half_of_a_rate_limit(past: Past) -> None:
    """No question is refused, no window is more than half used; the numbers add up."""
    past.calls(30)
    past.world.telnyx.limit(20, _WINDOW_SECONDS)
    dry = await past.run("--dry-run")
    assert "would be asked of Telnyx 30" in " ".join(" ".join(dry).split())
    assert past.asked() == []
    assert {key for key in await past.keys() if ":telnyx:" not in key} == set()
    report = await past.report()
    assert (report["outcome"], report["found"], report["left"]) == ("whole", 30, 0)
    assert report["sessions"]["learned"] + report["sessions"]["apart"] == 30
    assert report["cohorts_with_a_say"] >= 1
    assert {request.status for request in past.world.telnyx.requests} == {200}
    windows = Counter(int(request.at // _WINDOW_SECONDS) for request in past.asked())
    # The first answers tell of the limit while others are under way.
    assert max(windows.values()) <= 20
    assert sum(windows.values()) == 30
    families = {keys.family_of(key) for key in await past.keys()}
    names = {family.name for family in families if family}
    assert not names & {keys.SESSIONS, keys.DUE, keys.ENDED, keys.OUTBOX, keys.ALERTS}


async def test_an_interrupted_run_goes_on(past: Past) -> None:
    """Ctrl-C gives the lease back; called again, no session is asked for that was done."""
    calls = past.calls(120, "sip_inbound")
    past.world.telnyx.latency_seconds = 0.1
    process = past.command()
    process.start()
    done = [line for line in process.lines if line.startswith("100 of")]

    def is_half_way() -> bool:
        done[:] = [line for line in process.lines if line.startswith("100 of")]
        return bool(done)

    await wait_until_async(is_half_way, description="a hundred sessions")
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait) == 130
    assert process.lines[-1] == "interrupted: called again, it goes on where it stopped"
    assert not await past.redis.exists(keys.BACKFILL_LEASE)
    past.world.telnyx.latency_seconds = 0
    report = await past.report()
    assert (report["found"], report["left"]) == (120, 0)
    # Those that were asked for ahead may be asked for twice.
    asked = Counter(request.path for request in past.asked())
    assert len(asked) == len(calls)
    assert sum(asked.values()) <= 120 + 16
    assert (await past.report())["sessions"] == {
        **dict.fromkeys(report["sessions"], 0),
        "before": 120,
    }


async def test_what_keeps_it_from_learning_is_said(past: Past, tmp_path: Path) -> None:
    """With an exit code: a refusal, somebody else at it, a policy that does not learn, bad usage."""
    past.calls(1)
    past.world.telnyx.disabled = True
    lines = await past.run(code=1)
    assert "stopped early (refused)" in lines[-1]
    assert "Account is disabled D17" in lines[-1]
    await past.redis.set(keys.BACKFILL_LEASE, "other", px=60_000)
    assert (await past.run(code=1))[-1].startswith("somebody else learns from the past")
    policy = tmp_path / "policy.yaml"
    policy.write_text("learn: false\n")
    past.environ["TOLLWATCH_POLICY"] = str(policy)
    assert (await past.run(code=1))[-1].startswith("the policy says learn: false")
    del past.environ["TOLLWATCH_POLICY"]
    past.environ["TOLLWATCH_FETCH_AFTER_SECONDS"] = "90,1900000"
    assert "no cost has settled" in (await past.run(code=2))[-1]
