"""Both processes and the command line, started from the image as a cluster would start them."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest

from service import __version__
from service.records import State
from tests.flow.stage import (
    ALL_POSTED_BY_AGE_ONE,
    Outside,
    Stage,
    hangups,
    now,
    open_outside,
    severity_of,
)
from tests.image import figures
from tests.image.build import Image
from tests.image.container import Container
from tests.image.stage import open_stage, seconds_to_ready, web, worker
from tests.world.clock import later
from tests.world.processes import ProcessFailed, wait_until_async

pytestmark = pytest.mark.anyio

_AGES: Final = {"TOLLWATCH_FETCH_AFTER_SECONDS": "1,2"}
_QUIET: Final = {"TOLLWATCH_DRAIN_SECONDS": "0"}
_CALLS: Final = 300
_NO_CAPABILITIES: Final = "0000000000000000"
# Less than Kubernetes' own grace period.
_GRACE_SECONDS: Final = 25.0


@pytest.fixture(scope="module")
async def outside(anyio_backend: object) -> AsyncIterator[Outside]:
    """Telnyx, Slack and a Valkey, which are not in the image."""
    async with open_outside(time_scale=ALL_POSTED_BY_AGE_ONE) as outside:
        yield outside


@pytest.fixture(scope="module")
async def stage(outside: Outside, image: Image, root: Path) -> AsyncIterator[Stage]:
    """The image's web process and its worker, ready."""
    async with open_stage(
        outside, web(image, root, outside, **_QUIET), worker(image, root, outside, **_AGES)
    ) as stage:
        yield stage


@pytest.fixture
def containers(stage: Stage) -> list[Container]:
    """The two containers."""
    found = [server for server in (stage.web, stage.worker) if isinstance(server, Container)]
    assert len(found) == 2
    return found


async def test_they_are_ready_soon(outside: Outside, image: Image, root: Path) -> None:
    """Each process is ready some moments after its container was started, and needs no more."""
    for container in (web(image, root, outside, **_QUIET), worker(image, root, outside)):
        measured = [await _seconds_to_ready(container) for _ in range(3)]
        waited, worked = (sorted(seconds)[1] for seconds in zip(*measured, strict=True))
        figures.note(f"{container.name}: start to ready", f"{waited:.2f} s")
        figures.note(f"{container.name}: of a processor until then", f"{worked:.2f} s")
        assert worked < 5


async def test_they_have_no_rights(containers: list[Container]) -> None:
    """They run as the image's user, without capabilities, without a way to any, filtered."""
    for container in containers:
        status = container.status()
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert {status[f"Cap{kind}"] for kind in ("Eff", "Prm", "Inh", "Bnd", "Amb")} == {
            _NO_CAPABILITIES
        }
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert status["NSpid"].split()[-1] == "1"


async def test_they_can_write_nowhere(containers: list[Container]) -> None:
    """The root is read-only, temporary directories included."""
    for container in containers:
        for path in ("/app/x", "/tmp/x", "/var/tmp/x", "/etc/x"):  # noqa: S108 - they must fail
            code = f"import errno\ntry: open({path!r}, 'w')\nexcept OSError as e: exit(e.errno)"
            assert await asyncio.to_thread(container.execute, ["python", "-c", code]) in {13, 30}


async def test_certificates_can_be_verified(containers: list[Container]) -> None:
    """The image knows certificate authorities: rediss:// and https:// work without a setting."""
    code = "import ssl; exit(not ssl.create_default_context().get_ca_certs())"
    for container in containers:
        assert await asyncio.to_thread(container.execute, ["python", "-c", code]) == 0


async def test_an_expensive_call_is_alerted(stage: Stage) -> None:
    """A signed webhook goes in, and an alert comes out."""
    call = stage.past("runaway_assistant")
    await stage.hang_up(call)
    await stage.ended(call)
    said = await stage.told(call)
    assert call.expects
    assert severity_of(said[-1]) in call.expects.severities


async def test_an_unsigned_webhook_is_refused(stage: Stage) -> None:
    """Without a signature nothing is taken."""
    answer = await stage.send(b"{}", headers={})
    assert answer.status_code == httpx.codes.UNAUTHORIZED


async def test_the_command_line_works_in_it(stage: Stage, image: Image, root: Path) -> None:
    """`tollwatch` says its version, and shows the sessions of the Redis that it is given."""
    assert await _said(root, image, "--version") == [f"tollwatch {__version__}"]
    call = stage.past("sip_inbound")
    await stage.hang_up(call)
    await stage.ended(call)
    url = {"REDIS_URL": f"{stage.valkey.url.rpartition('/')[0]}/0"}
    assert call.session_id in "\n".join(
        await _said(root, image, "show", call.session_id, "--format", "json", **url)
    )


async def test_bad_settings_are_named(image: Image, root: Path) -> None:
    """A container that lacks its settings says which, and ends with 2."""
    for module, name in (("service", "TELNYX_PUBLIC_KEY"), ("workers", "TELNYX_API_KEY")):
        container = Container(module, root, ["python", "-m", module], image.environ)
        container.start()
        assert await asyncio.to_thread(container.wait) == 2
        assert container.lines == [f"{name}: required, but not set"]


async def test_memory_suffices_under_load(stage: Stage, containers: list[Container]) -> None:
    """Some hundred calls at once are judged within the memory that compose.yaml grants."""
    for container in containers:
        figures.note(f"{container.name}: memory at rest", _memory(container, "VmRSS"))
    calls = stage.world.generator.mix(_CALLS, end=later(now(stage), -30))
    for call in calls:
        stage.world.telnyx.add(call)
    begun = time.monotonic()
    async with stage.sender() as sender:
        await sender.send([event for call in calls for event in hangups(call)])
        assert all(outcome.delivered for outcome in sender.outcomes)
    for call in calls:
        await stage.ended(call, State.VERDICT, 60)
    for container in containers:
        figures.note(
            f"{container.name}: most memory, {_CALLS} calls at once", _memory(container, "VmHWM")
        )
    figures.note(f"{_CALLS} calls judged in", f"{time.monotonic() - begun:.1f} s")


async def test_they_end_in_order(outside: Outside, image: Image, root: Path) -> None:
    """Told to end, web still takes webhooks while it drains; both finish and exit with 0."""
    first, second = web(image, root, outside), worker(image, root, outside, **_AGES)
    async with open_stage(outside, first, second) as stage:
        call = stage.past("runaway_assistant")
        begun = time.monotonic()
        first.tell(signal.SIGTERM)
        await stage.until(lambda: stage.log(event="stopping"), "web knowing that it stops")
        assert (await stage.ready(first))[0] == httpx.codes.SERVICE_UNAVAILABLE
        await stage.hang_up(call)
        assert await asyncio.to_thread(first.wait, _GRACE_SECONDS) == 0
        web_seconds = time.monotonic() - begun
        await stage.ended(call)
        begun = time.monotonic()
        second.tell(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait, _GRACE_SECONDS) == 0
        worker_seconds = time.monotonic() - begun
        assert first.events[-1]["event"] == second.events[-1]["event"] == "stopped"
    figures.note("web: SIGTERM to its end, 3 s of draining included", f"{web_seconds:.1f} s")
    figures.note("worker: SIGTERM to its end", f"{worker_seconds:.1f} s")


async def test_they_may_be_told_to_end_while_they_start(
    outside: Outside, image: Image, root: Path
) -> None:
    """A pod that is deleted at once does not wait for the end of its grace period."""
    for container in (web(image, root, outside), worker(image, root, outside)):
        container.start()
        await wait_until_async(partial(_tell_again, container), description="its end")
        assert (container.returncode, container.events) == (0, [])


def _tell_again(container: Container) -> bool:
    """Whether it has ended; it is told to, since it may have been too early the last time."""
    with contextlib.suppress(ProcessFailed, ProcessLookupError):
        container.tell(signal.SIGTERM)
    return not container.is_running


async def _seconds_to_ready(container: Container) -> tuple[float, float]:
    """By the clock, and of a processor."""
    try:
        return await seconds_to_ready(container), container.cpu_seconds()
    finally:
        assert await asyncio.to_thread(container.terminate) == 0


async def _said(root: Path, image: Image, *arguments: str, **environ: str) -> list[str]:
    """What `tollwatch` prints."""
    container = Container(
        "tollwatch", root, ["tollwatch", *arguments], {**image.environ, **environ}
    )
    container.start()
    assert await asyncio.to_thread(container.wait) == 0, container.last_lines
    return container.lines


def _memory(container: Container, name: str) -> str:
    kibibytes = int(container.status()[name].split()[0])
    return figures.mebibytes(kibibytes * 1024)
