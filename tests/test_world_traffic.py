"""The traffic for a product that runs elsewhere: calls end, a URL is told, alerts are printed."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.world.processes import wait_until_async
from tests.world.server import LoopbackServer
from tests.world.signing import SIGNATURE_HEADER
from tests.world.traffic import Traffic
from tests.world.world import World

pytestmark = pytest.mark.anyio


class Receiver:
    """Takes webhooks, or refuses them."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[Request] = []
        self._status = status
        route = Route("/webhooks/telnyx", self._take, methods=["POST"])
        self.server = LoopbackServer(Starlette(routes=[route]))

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self.server.port}/webhooks/telnyx"

    async def _take(self, request: Request) -> PlainTextResponse:
        self.requests.append(request)
        return PlainTextResponse("no thanks", self._status)


@asynccontextmanager
async def _traffic(world: World, url: str) -> AsyncIterator[io.StringIO]:
    """What is printed while calls end."""
    output, stop = io.StringIO(), asyncio.Event()
    traffic = Traffic(world, url, Console(file=output, width=100))
    running = asyncio.create_task(traffic.run(until=stop))
    try:
        yield output
    finally:
        stop.set()
        await running


async def test_calls_end_and_their_signed_webhooks_are_sent() -> None:
    """One call after another ends, Telnyx knows each, and the URL is told of it."""
    receiver = Receiver()
    async with World(time_scale=1000) as world, receiver.server:
        async with _traffic(world, receiver.url) as output:
            await wait_until_async(lambda: len(world.telnyx.calls) > 1, description="two calls")
            await wait_until_async(lambda: len(receiver.requests) > 1, description="webhooks")
        assert all(SIGNATURE_HEADER in request.headers for request in receiver.requests)
        assert output.getvalue().count("has ended") == len(world.telnyx.calls)
        assert "was not taken" not in output.getvalue()


async def test_what_slack_is_told_is_printed() -> None:
    """A message to the simulated Slack is drawn."""
    receiver = Receiver()
    async with (
        World(time_scale=1000) as world,
        receiver.server,
        httpx.AsyncClient() as client,
        _traffic(world, receiver.url) as output,
    ):
        await client.post(world.slack_url, json={"text": "8.05 USD for one call"})
        await wait_until_async(
            lambda: "8.05 USD for one call" in output.getvalue(), description="the alert"
        )


async def test_a_webhook_that_is_refused_is_said() -> None:
    """Where the product refuses a webhook, the answer is printed."""
    receiver = Receiver(401)
    async with (
        World(time_scale=1000) as world,
        receiver.server,
        _traffic(world, receiver.url) as output,
    ):
        await wait_until_async(
            lambda: "was not taken: 401 no thanks" in output.getvalue(), description="the word"
        )


async def test_the_simulated_outside_may_be_reached_from_other_machines() -> None:
    """With `host` it listens on every address, not on loopback alone."""
    async with World(host="0.0.0.0") as world, httpx.AsyncClient() as client:
        port = world.url.rpartition(":")[2]
        assert (await client.get(f"http://127.0.0.2:{port}/")).status_code == 404
