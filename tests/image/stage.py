"""The image's two processes on the stage of the flow tests, in place of this checkout's."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
from redis.asyncio import Redis

from service.store import Store
from tests.flow.stage import Outside, Stage, running
from tests.image.build import Image
from tests.image.container import Container, Limits
from tests.world.processes import free_port

WORKER: Final = ("python", "-m", "workers")
_MEBIBYTE: Final = 1024 * 1024
# As compose.yaml allows them.
WEB_LIMITS: Final = Limits(memory_bytes=192 * _MEBIBYTE)
WORKER_LIMITS: Final = Limits(memory_bytes=384 * _MEBIBYTE)


def web(image: Image, root: Path, outside: Outside, **settings: str) -> Container:
    """What the image starts by itself."""
    environ = {"TELNYX_PUBLIC_KEY": outside.world.public_key, "TOLLWATCH_PORT": str(free_port())}
    return _container("web", image, root, outside, image.config["Cmd"], {**environ, **settings})


def worker(image: Image, root: Path, outside: Outside, **settings: str) -> Container:
    """The image's other process."""
    world = outside.world
    environ = {
        "TELNYX_API_URL": world.telnyx_url,
        "TELNYX_API_KEY": world.api_key,
        "SLACK_WEBHOOK_URL": world.slack_url,
        # Each call stands for itself, as in the flow tests.
        "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0",
        "TOLLWATCH_RECONCILE_MINUTES": "0",
    }
    return _container("worker", image, root, outside, WORKER, {**environ, **settings})


@asynccontextmanager
async def open_stage(
    outside: Outside, web_container: Container, worker_container: Container
) -> AsyncIterator[Stage]:
    """Both, ready; told to stop at the end."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(outside.redis_url()))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=10, trust_env=False))
        await stack.enter_async_context(running(web_container, worker_container))
        store = Store(redis, retention_ms=86_400_000)
        workers = (worker_container,)
        yield Stage(outside.world, outside.valkey, redis, store, web_container, workers, client)


async def seconds_to_ready(container: Container) -> float:
    """Start it, and wait until it is ready: the whole time, that of its container included."""
    begun = time.monotonic()
    container.start()
    await asyncio.to_thread(container.wait_ready)
    return time.monotonic() - begun


def _container(
    name: str,
    image: Image,
    root: Path,
    outside: Outside,
    command: tuple[str, ...],
    settings: Mapping[str, str],
) -> Container:
    admin_port = str(free_port())
    environ = {
        **image.environ,
        "REDIS_URL": outside.redis_url(),
        "TOLLWATCH_HOST": "127.0.0.1",
        "TOLLWATCH_ADMIN_PORT": admin_port,
        **settings,
    }
    return Container(
        name,
        root,
        command,
        environ,
        cwd=image.config["WorkingDir"],
        limits=WEB_LIMITS if name == "web" else WORKER_LIMITS,
        url=f"http://127.0.0.1:{environ.get('TOLLWATCH_PORT', '')}".rstrip(":"),
        admin_url=f"http://127.0.0.1:{admin_port}",
    )
