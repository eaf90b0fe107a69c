"""The one public route: a signed webhook in, its session due in Redis, an answer out.

The answer is 2xx only after Redis has taken the event. Telnyx does not retry most 4xx, so whatever
we could not keep is a 5xx.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.events import Ignored, Scheduling, Unreadable, read_event, supported
from service.logs import get_logger
from service.metrics import WebMetrics
from service.server import BodyTooLarge, TooLargeResponse, read_body
from service.settings import WebSettings
from service.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from service.store import Recorded, Store

# Telnyx waits about two seconds and then counts the delivery as failed.
_STORE_SECONDS: Final = 1.8
_RETRY_AFTER: Final = {"retry-after": "5"}
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Webhook:
    """The endpoint. `now` is the clock, in unix seconds."""

    settings: WebSettings
    store: Store
    metrics: WebMetrics
    now: Callable[[], float] = time.time

    async def receive(self, request: Request) -> Response:
        """Answer one request; whatever it holds, it is never a 500."""
        begun = time.perf_counter()
        response = await self._answer(request)
        self.metrics.acknowledge_seconds.observe(time.perf_counter() - begun)
        return response

    async def _answer(self, request: Request) -> Response:
        content_type = request.headers.get("content-type")
        if not supported(content_type):
            return self._done("unsupported_type", 415, {"error": "send JSON or a form"})
        try:
            body = await read_body(request, self.settings.max_body_bytes)
        except BodyTooLarge:
            self.metrics.webhooks.labels("too_large").inc()
            _log.warning("webhook too large", limit=self.settings.max_body_bytes)
            return TooLargeResponse()
        if not self._believed(request, body):
            return self._done("refused", 401, {"error": "not a valid signature"})
        return await self._read(body, content_type)

    def _believed(self, request: Request, body: bytes) -> bool:
        refusal = verify(
            body,
            request.headers.getlist(SIGNATURE_HEADER),
            request.headers.getlist(TIMESTAMP_HEADER),
            self.settings.public_keys,
            now=self.now(),
            tolerance_seconds=self.settings.tolerance_seconds,
        )
        if refusal:
            self.metrics.refusals.labels(refusal).inc()
            _log.warning("webhook refused", reason=refusal.value)
        return refusal is None

    async def _read(self, body: bytes, content_type: str | None) -> Response:
        received_ms = int(self.now() * 1000)
        reading = read_event(
            body, content_type, received_ms=received_ms, masked=self.settings.mask_numbers
        )
        match reading:
            case Scheduling():
                self.metrics.count_kind(reading.event.kind)
                return await self._schedule(reading)
            case Ignored(kind, reason):
                self.metrics.count_kind(kind)
                _log.info("webhook ignored", kind=kind, reason=reason)
                return self._done("ignored", 200, {"status": "ignored", "reason": reason})
            case Unreadable(reason):
                _log.warning("webhook unreadable", reason=reason)
                return self._done("unreadable", 400, {"error": reason})
            case _:
                return self._done("unsupported_type", 415, {"error": "send JSON or a form"})

    async def _schedule(self, scheduling: Scheduling) -> Response:
        known = {
            "session_id": scheduling.session_id,
            "event_id": scheduling.key,
            "kind": scheduling.event.kind,
        }
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                recorded = await self.store.record(scheduling)
        except (RedisError, OSError, TimeoutError) as error:
            self.metrics.redis_errors.inc()
            _log.warning("webhook not kept", error=type(error).__name__, **known)
            return self._done("unavailable", 503, {"error": "try again later"}, _RETRY_AFTER)
        self.metrics.record_seconds.observe(time.perf_counter() - begun)
        _log.info("webhook", outcome=recorded.value, **known)
        match recorded:
            case Recorded.SCHEDULED:
                answer = {"status": "scheduled", "session_id": scheduling.session_id}
                return self._done("scheduled", 202, answer)
            case Recorded.MERGED:
                return self._done("merged", 202, {"status": "merged"})
            case Recorded.DUPLICATE:
                return self._done("duplicate", 200, {"status": "duplicate"})

    def _done(
        self, outcome: str, status: int, body: dict[str, str], headers: dict[str, str] | None = None
    ) -> Response:
        self.metrics.webhooks.labels(outcome).inc()
        return JSONResponse(body, status_code=status, headers=headers)
