"""What the webhook endpoint is measured against, on the same server, loop and settings.

`bare` answers and does nothing else; `enqueue_job` calls arq's `enqueue_job` with the body, and
neither verifies nor deduplicates. `python -m tests.bench.endpoints KIND PORT REDIS_URL`.
"""

import sys
from typing import Final

import uvloop
from arq.connections import ArqRedis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.connect import redis_pool
from service.server import Endpoint, serve

PATH: Final = "/webhooks/telnyx"


def bare() -> ASGIApp:
    """Reads the body and answers."""

    async def receive(request: Request) -> Response:
        await request.body()
        return JSONResponse({"status": "scheduled"}, status_code=202)

    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


def enqueue(redis_url: str) -> ASGIApp:
    """Hands the body to arq."""
    arq = ArqRedis(pool_or_conn=redis_pool(redis_url, connections=300, timeout_seconds=5))

    async def receive(request: Request) -> Response:
        await arq.enqueue_job("analyze", (await request.body()).decode(), _defer_by=90)
        return JSONResponse({"status": "scheduled"}, status_code=202)

    return Starlette(routes=[Route(PATH, receive, methods=["POST"])])


def main() -> None:
    """Serve one of them until SIGTERM."""
    kind, port, redis_url = sys.argv[1:]
    app = bare() if kind == "bare" else enqueue(redis_url)
    uvloop.run(serve(Endpoint(app, "127.0.0.1", int(port))))


if __name__ == "__main__":
    main()
