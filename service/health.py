"""The admin port of both processes: alive, ready, and what the metrics say."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_CHECK_SECONDS: Final = 2.0
_PROBE_KEY: Final = "tollwatch:ready"
_PROBE_MS: Final = 60_000


class Health:
    """Whether the process can do its work. `check` returns what is wrong, or None."""

    def __init__(self, check: Callable[[], Awaitable[str | None]]) -> None:
        self._check = check
        self.stopping = False

    async def problem(self) -> str | None:
        """What is wrong now, or None."""
        if self.stopping:
            return "shutting down"
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._check()
        except TimeoutError:
            return f"no answer within {_CHECK_SECONDS:.0f} s"


def redis_check(redis: Redis) -> Callable[[], Awaitable[str | None]]:
    """Whether Redis takes a write: one that only answers reads cannot keep a call."""

    async def check() -> str | None:
        try:
            await redis.set(_PROBE_KEY, "1", px=_PROBE_MS)
        except (RedisError, OSError) as error:
            # The class and Redis' own first word (OOM, READONLY, LOADING); never the address.
            return f"Redis: {type(error).__name__} {str(error).partition(' ')[0][:20]}".strip()
        return None

    return check


def create_admin(health: Health, registry: CollectorRegistry) -> Starlette:
    """The app of the admin port."""

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problem = await health.problem()
        if problem:
            return JSONResponse({"status": "not ready", "problem": problem}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
