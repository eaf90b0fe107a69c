"""What most tests stand on: a real Valkey, an event loop as in production, quick properties."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from service.logs import configure_logs
from tests.world import processes
from tests.world.valkey import Valkey

settings.register_profile(
    "quick",
    max_examples=60,
    # A shared machine pauses at times; a deadline would fail the wrong tests.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=2000)
settings.register_profile("fuzz", parent=settings.get_profile("quick"), max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs were made up, and what became of them."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "inputs":
                terminalreporter.write_line(f"fuzzed: {value}")


@pytest.fixture(scope="session", autouse=True)
def logs() -> None:
    """Logs as in production: structlog's own tracebacks show all variables, which takes seconds."""
    configure_logs("json", "info")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Tests that await run on the loop that the processes run on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", autouse=True)
def unmeasured_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """No coverage of the processes of a module whose tests are all marked `no_cover`.

    It takes half as much CPU again, and they reach few lines that other tests' do not.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("no_cover"):
            patch.setattr(processes, "PASSED_ON_PREFIXES", ())
        yield


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One real server for all tests of this process."""
    with Valkey() as server:
        yield server


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """A connection to an empty database."""
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()
