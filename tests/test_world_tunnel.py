"""The way to a server that tests put something in between: what it leads to, and its end."""

import asyncio

import pytest

from tests.world.processes import wait_until_async
from tests.world.tunnel import tunnel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("steps", range(8))
async def test_nothing_stays_open_at_its_end(steps: int) -> None:
    """However far it has come with a client that has just gone, the server hears of the end."""
    open_ones: set[asyncio.StreamWriter] = set()
    came = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        open_ones.add(writer)
        await reader.read()
        writer.close()
        open_ones.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with tunnel(lambda: port) as way:
        _, client = await asyncio.open_connection("127.0.0.1", way)
        await wait_until_async(lambda: came, description="the server has the client")
        client.close()
        for _ in range(steps):
            await asyncio.sleep(0)
    await wait_until_async(lambda: not open_ones, description="the end", timeout_seconds=10)
    server.close()
