"""The simulated outside as a whole: servers, trouble, and the process that benchmarks use."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.world.clock import later, utc
from tests.world.control import Control
from tests.world.faults import Fault
from tests.world.processes import Process, wait_until, wait_until_async
from tests.world.signing import SIGNATURE_HEADER
from tests.world.world import World

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {world.api_key}"}
    async with httpx.AsyncClient(base_url=world.url, headers=headers, timeout=5) as client:
        yield client


def _guide(world: World) -> str:
    call = world.call("guide", end=later(utc(world.clock()), -3600))
    return f"/v2/session_analysis/call-session/{call.session_id}"


class TestWorld:
    """Everything on one port."""

    async def test_serves_telnyx_and_slack(self) -> None:
        """Both URLs are as a worker is told them."""
        async with World(seed=1) as world, _client(world) as client:
            path = _guide(world).removeprefix("/v2")
            assert (await client.get(world.telnyx_url + path)).status_code == 200
            assert (await client.post(world.slack_url, json={"text": "x"})).text == "ok"
            assert (await client.get("/elsewhere")).status_code == 404
        assert len(world.slack.messages) == 1

    async def test_calls_end_now_and_are_known(self) -> None:
        """A call that was just made is not analysed yet."""
        async with World() as world, _client(world) as client:
            call = world.call("ai_inbound")
            assert abs(call.end.timestamp() - world.clock()) < 5
            path = f"/v2/session_analysis/call-session/{call.session_id}"
            assert (await client.get(path)).status_code == 404

    async def test_goes_down_and_comes_back_on_the_same_port(self) -> None:
        """While it is down connections are refused; what it knew it still knows."""
        async with World() as world, _client(world) as client:
            path = _guide(world)
            async with world.down():
                with pytest.raises(httpx.ConnectError):
                    await client.get(path)
            assert (await client.get(path)).status_code == 200

    async def test_a_stop_does_not_wait_for_what_hangs(self) -> None:
        """A stalled answer is cut when the world ends."""
        async with World() as world:
            world.telnyx.faults.stall()
            client = httpx.AsyncClient(base_url=world.url)
            task = asyncio.create_task(client.get("/v2/session_analysis/metadata"))
            await wait_until_async(lambda: world.telnyx.requests, description="the request")
        with pytest.raises(httpx.TransportError):
            await task
        await client.aclose()

    async def test_the_same_seed_is_the_same_account(self) -> None:
        """Key pair and ids depend on the seed alone."""
        assert World(seed=5).public_key == World(seed=5).public_key != World(seed=6).public_key
        assert World(seed=5).call("guide").session_id == World(seed=5).call("guide").session_id


class TestFaults:
    """Trouble, seen by a client over a real connection."""

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (Fault("reset"), httpx.ReadError),
            (Fault("truncate"), httpx.RemoteProtocolError),
            (Fault("stall", seconds=0.05), httpx.TransportError),
            (Fault("stall", seconds=60), httpx.ReadTimeout),
        ],
    )
    async def test_breaks_connections(self, fault: Fault, error: type[Exception]) -> None:
        """The client gets no whole answer, and the log has no status for it that was whole."""
        async with World() as world, _client(world) as client:
            path = _guide(world)
            world.telnyx.faults.add(fault)
            with pytest.raises(error):
                await client.get(path, timeout=0.5)
            assert world.telnyx.requests[-1].fault == fault.kind
            assert world.telnyx.requests[-1].status is None
            assert (await client.get(path)).status_code == 200

    async def test_answers_nonsense(self) -> None:
        """Garbage that says it is JSON, a proxy's page, and a body of many megabytes."""
        async with World() as world, _client(world) as client:
            path, faults = _guide(world), world.telnyx.faults
            faults.garbage()
            faults.html(502)
            faults.oversize(2)
            garbage, html, oversize = [await client.get(path) for _ in range(3)]
        assert garbage.headers["content-type"] == "application/json"
        assert html.status_code == 502
        assert html.text.startswith("<!DOCTYPE html>")
        assert len(oversize.content) > 2 * 1024 * 1024

    async def test_rules_apply_by_path_and_number(self) -> None:
        """One rule for some paths, so many times; the others go through."""
        async with World() as world, _client(world) as client:
            path = _guide(world)
            rule = world.telnyx.faults.status(503, path="/metadata", times=2)
            metadata = "/v2/session_analysis/metadata"
            statuses = [
                (await client.get(url)).status_code
                for url in (metadata, path, metadata, metadata, path)
            ]
            assert statuses == [503, 200, 503, 200, 200]
            assert rule.taken == 2

    async def test_lasts_until_it_is_cleared(self) -> None:
        """Without a number a rule stays."""
        async with World() as world, _client(world) as client:
            path = _guide(world)
            world.telnyx.faults.status(500, times=None)
            before = [(await client.get(path)).status_code for _ in range(3)]
            world.telnyx.faults.clear()
            assert before == [500] * 3
            assert (await client.get(path)).status_code == 200

    async def test_takes_its_time(self) -> None:
        """Latency and a single delay are real time, and the answer is the right one."""
        async with World(latency_seconds=0.02) as world, _client(world) as client:
            path = _guide(world)
            world.telnyx.faults.delay(0.03)
            got = await client.get(path)
            assert got.status_code == 200
            assert got.elapsed.total_seconds() >= 0.05


class TestControl:
    """The API of the process."""

    async def test_makes_calls_with_signed_webhooks(self) -> None:
        """By kind, by kinds or by the usual mix; with the events that are wanted."""
        async with World() as world, _client(world) as client:
            Control(world)

            async def make(order: dict[str, Any]) -> list[dict[str, Any]]:
                got = await client.post("/control/calls", json=order)
                return list(got.json()["calls"])

            two = await make({"kind": "ai_inbound", "count": 2})
            mixed = await make({"kinds": {"failed": 1, "wrong_rate": 2}, "events": "none"})
            usual = await make({"count": 5, "events": "all", "ended_seconds_ago": 3600})
            assert [call["kind"] for call in two] == ["ai_inbound"] * 2
            assert [w["event_type"] for w in two[0]["webhooks"]] == ["call.hangup"]
            assert SIGNATURE_HEADER in two[0]["webhooks"][0]["headers"]
            assert [call["anomaly"] for call in mixed] == [None, "wrong_rate", "wrong_rate"]
            assert not mixed[0]["webhooks"]
            assert all(len(call["webhooks"]) >= 2 for call in usual)
            assert len(world.telnyx.calls) == 10
            path = f"/v2/session_analysis/call-session/{usual[0]['session_id']}"
            assert (await client.get(path)).status_code == 200

    async def test_shows_what_happened_and_makes_trouble(self) -> None:
        """Slack's messages, Telnyx's requests, faults on demand."""
        async with World() as world, _client(world) as client:
            Control(world)
            path = _guide(world)
            fault = {"on": "telnyx", "kind": "status", "status": 503, "times": None}
            await client.post("/control/faults", json=fault)
            broken = await client.get(path)
            await client.delete("/control/faults")
            mended = await client.get(path)
            await client.post(world.slack_url, json={"text": "one"})
            await client.post(world.slack_url, json={})
            slack = (await client.get("/control/slack")).json()
            requests = (await client.get("/control/requests")).json()
            about = (await client.get("/control/world")).json()
        assert (broken.status_code, mended.status_code) == (503, 200)
        assert slack["messages"][0]["payload"] == {"text": "one"}
        assert slack["refused"] == [[400, "no_text", "neither text nor blocks"]]
        assert [request["fault"] for request in requests["requests"]] == ["status", None]
        assert about["public_key"] == world.public_key
        assert about["calls"] == 1


def test_runs_as_a_process() -> None:
    """It says its settings, serves, and ends on SIGTERM without a word."""
    command = [sys.executable, "-m", "tests.world", "--seed", "9", "--rate-limit", "40"]
    with Process("world", command) as process:
        wait_until(lambda: len(process.lines) >= 4, description="the world's settings")
        settings = dict(line.split("=", 1) for line in process.lines)
        headers = {"Authorization": f"Bearer {settings['TELNYX_API_KEY']}"}
        url = f"{settings['TELNYX_API_URL']}/session_analysis/metadata"
        got = httpx.get(url, headers=headers)
        assert got.headers["x-ratelimit-limit"] == "40, 40;w=60"
        assert settings["TELNYX_PUBLIC_KEY"] == World(seed=9).public_key
        assert process.terminate() == 0
    assert len(process.lines) == 4
