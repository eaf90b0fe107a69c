"""How the processes start, say how they are, stop, and get over what is done to them."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from service.records import State
from tests.flow.stage import Outside, Stage, hangups, now, open_stage
from tests.world import processes
from tests.world.model import Call
from tests.world.processes import Server, free_port

pytestmark = pytest.mark.anyio


# --- how they start -------------------------------------------------------------------------------

_SECRET = "a-secret-that-must-not-be-repeated"
_BAD_FOR_BOTH = {
    "REDIS_URL": f"http://user:{_SECRET}@localhost",
    "TOLLWATCH_LOG_LEVEL": "loud",
    "TOLLWATCH_RETENTION_DAYS": "0",
    "TOLLWATCH_GRACE_SECONDS": "",
}
_BAD_FOR_WEB = {
    "TELNYX_PUBLIC_KEY": _SECRET,
    "TOLLWATCH_MAX_BODY_BYTES": "1.5",
    "TOLLWATCH_WEBHOOK_TOLERANCE_SECONDS": "-1",
}
_BAD_FOR_WORKER = {
    "TELNYX_API_KEY": "",
    "TELNYX_API_URL": "ftp://example.com",
    "SLACK_WEBHOOK_URL": _SECRET,
    "TOLLWATCH_FETCH_AFTER_SECONDS": "300,90",
    "TOLLWATCH_WORKER_CONCURRENCY": "none",
    "TOLLWATCH_MAX_SESSION_COST": "-5",
}


@pytest.fixture
def taken_ports() -> Iterator[dict[str, str]]:
    """Ports that are in use: whoever tried to open them would say so."""
    with contextlib.ExitStack() as opened:
        names = ("TOLLWATCH_PORT", "TOLLWATCH_ADMIN_PORT")
        sockets = [opened.enter_context(socket.socket()) for _ in names]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        ports = (str(listener.getsockname()[1]) for listener in sockets)
        yield dict(zip(names, ports, strict=True))


def _web(**settings: str) -> Server:
    return processes.web(redis_url="redis://127.0.0.1:1/0", public_key="", settings=settings)


def _worker(**settings: str) -> Server:
    return processes.worker(
        redis_url="redis://127.0.0.1:1/0", api_url="", api_key="KEY", settings=settings
    )


@pytest.mark.parametrize(
    ("make", "bad"), [(_web, _BAD_FOR_WEB), (_worker, _BAD_FOR_WORKER)], ids=["web", "worker"]
)
async def test_bad_settings_are_all_named_before_a_port_opens(
    make: Callable[..., Server], bad: Mapping[str, str], taken_ports: dict[str, str]
) -> None:
    """A process with bad settings says each on a line of its own, repeats none, and exits with 2."""
    settings = _BAD_FOR_BOTH | bad
    process = make(**settings, **taken_ports)
    process.start()
    assert await asyncio.to_thread(process.wait) == 2
    wrong = {name for name in settings if name != "TOLLWATCH_GRACE_SECONDS"}
    assert [line.partition(":")[0] for line in process.lines].sort() == sorted(wrong).sort()
    assert {line.partition(":")[0] for line in process.lines} == wrong
    assert _SECRET not in "\n".join(process.lines)


async def test_a_bad_policy_is_refused_with_its_lines(
    tmp_path: Path, taken_ports: dict[str, str]
) -> None:
    """A worker with a bad policy says each fault with file and line, and exits with 2."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("currency: dollars\nmax_session_cost: -1\nseverity: {lwo: 1}\n")
    process = _worker(TOLLWATCH_POLICY=str(policy), TELNYX_API_URL="http://x", **taken_ports)
    process.start()
    assert await asyncio.to_thread(process.wait) == 2
    assert [line[: len(f"TOLLWATCH_POLICY: {policy}:1")] for line in process.lines] == [
        f"TOLLWATCH_POLICY: {policy}:{number}" for number in (1, 2, 3)
    ]
