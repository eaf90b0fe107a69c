"""Puts the web process together: settings in, the two apps out. Nothing is built at import."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.connect import redis_pool
from service.health import Health, create_admin, redis_check
from service.metrics import WebMetrics, create_registry
from service.server import InFlightLimit
from service.settings import WebSettings
from service.store import Store
from service.webhook import Webhook

WEBHOOK_PATH: Final = "/webhooks/telnyx"
# Below Telnyx's patience, so that a slow Redis is answered with 503 and not with silence.
_REDIS_SECONDS: Final = 1.5
_RETRY_AFTER_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class WebProcess:
    """The public app, the admin app, and what tells the latter to fail readiness."""

    public: ASGIApp
    admin: ASGIApp
    health: Health
    metrics: WebMetrics


@asynccontextmanager
async def create_web(settings: WebSettings) -> AsyncIterator[WebProcess]:
    """The web process and its connections, which are closed at the end."""
    pool = redis_pool(
        settings.redis_url.get_secret_value(),
        connections=settings.max_in_flight + 10,
        timeout_seconds=_REDIS_SECONDS,
    )
    redis = Redis(connection_pool=pool)
    registry = create_registry("web")
    metrics = WebMetrics(registry)
    replicas = settings.redis_replicas
    store = Store(redis, retention_ms=settings.retention_ms, replicas=replicas)
    webhook = Webhook(settings, store, metrics)
    health = Health(redis_check(redis, replicas=replicas))
    try:
        yield WebProcess(
            public=InFlightLimit(
                create_public(webhook),
                settings.max_in_flight,
                _RETRY_AFTER_SECONDS,
                refused=metrics.count_limited,
            ),
            admin=create_admin(health, registry),
            health=health,
            metrics=metrics,
        )
    finally:
        await pool.disconnect()


def create_public(webhook: Webhook) -> Starlette:
    """The app of the public port: one route, and JSON for everything else."""
    app = Starlette(
        routes=[Route(WEBHOOK_PATH, webhook.receive, methods=["POST"])],
        exception_handlers={404: _error("no such path"), 405: _error("POST only")},
    )
    # Telnyx follows redirects with a GET, which would lose the event: a wrong path is a 404.
    app.router.redirect_slashes = False
    return app


def _error(text: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(_request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        return JSONResponse(
            {"error": text}, status_code=status, headers=getattr(error, "headers", None)
        )

    return handler
