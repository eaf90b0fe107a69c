"""Puts the web process together: settings in, the two apps out. Nothing is built at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from starlette.types import ASGIApp

from service.connect import redis_pool
from service.health import Health, create_admin, redis_check
from service.logs import Digest
from service.metrics import WebMetrics, create_registry
from service.protocol import Door
from service.settings import WebSettings
from service.store import Store
from service.webhook import Webhook

# Below Telnyx's patience, so that a slow Redis is answered with 503 and not with silence.
_REDIS_SECONDS: Final = 1.5
# One line for each reason in so many seconds, and one that counts the rest, whatever comes.
_DIGEST_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class WebProcess:
    """The public app with its door, the admin app, and what tells the latter to fail readiness."""

    public: ASGIApp
    door: Door
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
    replicas, strangers = settings.redis_replicas, Digest(_DIGEST_SECONDS)
    store = Store(redis, retention_ms=settings.retention_ms, replicas=replicas)
    webhook = Webhook(settings, store, metrics, strangers)
    health = Health(redis_check(redis, replicas=replicas))
    try:
        yield WebProcess(
            public=webhook,
            door=webhook.turn_away,
            admin=create_admin(health, registry),
            health=health,
            metrics=metrics,
        )
    finally:
        strangers.close()
        await pool.disconnect()
