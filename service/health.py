"""The admin port of both processes: alive, ready, and what the metrics say."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service.connect import redis_fault
from service.keys import READY
from service.replicas import ReplicatedScript

_CHECK_SECONDS: Final = 2.0
_PROBE_MS: Final = 60_000
# All that the scripts call. What Redis refuses in general it refuses before a script's first write,
# but a missing permission would end a script halfway: so it is found out beforehand.
SCRIPT_COMMANDS: Final = (
    "DEL EXISTS GET HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HSET HSETNX INCR LRANGE "
    "PERSIST PEXPIRE RPUSH SADD SCARD SET TIME UNLINK ZADD ZCARD ZRANGE ZRANGEBYSCORE ZREM ZSCAN "
    "ZSCORE"
)
# Redis 6 has no acl_check_cmd; a command that it does not know cannot be forbidden either.
_PROBE: Final = """
for command in string.gmatch(redis.acl_check_cmd and ARGV[2] or '', '%S+') do
  local known, allowed = pcall(redis.acl_check_cmd, command, KEYS[1])
  if known and not allowed then
    return {err = 'NOPERM no permission to run ' .. command}
  end
end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
"""


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


def redis_check(redis: Redis, *, replicas: int = 0) -> Callable[[], Awaitable[str | None]]:
    """Whether Redis takes a write, as it takes a call's: one that only reads cannot keep a call.

    `replicas`: so many must have it.
    """
    probe = ReplicatedScript(redis, _PROBE, replicas=replicas)

    async def check() -> str | None:
        try:
            await probe(keys=[READY], args=[_PROBE_MS, SCRIPT_COMMANDS])
        except (RedisError, OSError) as error:
            return f"Redis: {redis_fault(error)}"
        return None

    return check


def create_admin(health: Health, registry: CollectorRegistry) -> Starlette:
    """The app of the admin port."""
    ready = Gauge(
        "tollwatch_ready",
        "1 while the process can do its work: Redis takes what it writes; else 0",
        registry=registry,
    )

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        problem = await health.problem()
        if problem:
            return JSONResponse({"status": "not ready", "problem": problem}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def metrics(_request: Request) -> Response:
        # Looked at now: a process that is not ready gets no webhook on which Redis could fail.
        ready.set(0 if await health.problem() else 1)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
