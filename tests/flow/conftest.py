"""One loop and one outside for each module of flow tests; each module starts its own processes."""

from collections.abc import AsyncIterator

import pytest

from tests.flow.stage import Outside, open_outside


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The tests of a module share a loop, so that what they share can run on it."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def outside(anyio_backend: object) -> AsyncIterator[Outside]:
    """A simulated Telnyx and Slack, and a Valkey of the module's own.

    It asks for the backend, so that tests which do not await may use what is built on it.
    """
    async with open_outside() as outside:
        yield outside
