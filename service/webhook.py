"""The one public route: a signed webhook in, its session due in Redis, an answer out.

The answer is 2xx only after Redis has taken the event. Telnyx does not retry most 4xx, so whatever
we could not keep is a 5xx.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from service.connect import redis_fault
from service.door import (
    NOT_BELIEVED,
    TURNED_TOO_LARGE,
    UNSUPPORTED_TYPE,
    Answer,
    Head,
    RawHeaders,
    Turned,
    answer,
    look,
)
from service.events import Begun, Ignored, Scheduling, Unreadable, read_event
from service.intake import Bodies, BodyTooLarge, Crowded, Places
from service.logs import Digest, get_logger
from service.metrics import WebMetrics
from service.settings import WebSettings
from service.signature import Refusal, verify
from service.store import Recorded, Store

# Telnyx waits about two seconds and then counts the delivery as failed. A Redis that hangs hangs
# for all requests at once, so there must be time to answer a crowd.
_NUMBER_KEY_BYTES: Final = 32
_STORE_SECONDS: Final = 1.5
_TRY_AGAIN: Final = answer(503, {"error": "try again later"}, retry_after="5")
_BUSY: Final = {"error": "too many requests at once, try again later"}
_CROWDED: Final = answer(503, _BUSY, retry_after="5")
# The rest of its body may still come.
_GIVEN_UP: Final = answer(503, _BUSY, closes=True, retry_after="5")
_MERGED: Final = answer(202, {"status": "merged"})
_DUPLICATE: Final = answer(200, {"status": "duplicate"})
_BEGUN: Final = "the call goes on: it counts, and is looked at when it has ended"
_log = get_logger()


class Webhook:
    """The public port's app. `now` is the clock, in unix seconds.

    What strangers can cause as often as they like is logged through `strangers`.
    """

    def __init__(
        self,
        settings: WebSettings,
        store: Store,
        metrics: WebMetrics,
        strangers: Digest,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._strangers = strangers
        self._now = now
        # Of this process alone: what stands for numbers cannot be made again by anybody.
        self._number_key = secrets.token_bytes(_NUMBER_KEY_BYTES)
        self._bodies = Bodies(settings.max_body_bytes)
        self._places = Places(settings.max_in_flight)

    def turn_away(self, method: bytes, target: bytes, headers: RawHeaders) -> Answer | None:
        """The answer to a request that its head rules out, which is counted then; or None.

        `target` is what stands in the request's first line. Asked by the connection, which then
        never starts the app. What it cannot read at a glance is left to the app.
        """
        path = target.partition(b"?")[0]
        if not path.startswith(b"/") or b"%" in path:
            return None
        found = self._look(method, path, headers)
        return self._turned(found) if isinstance(found, Turned) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever it holds, it is never a 500."""
        begun = time.perf_counter()
        found = self._look(scope["method"].encode(), scope["path"].encode(), scope["headers"])
        if isinstance(found, Turned):
            response = self._turned(found)
        else:
            response = await self._take(found, receive)
            self._metrics.acknowledge_seconds.observe(time.perf_counter() - begun)
        headers = list(response.headers)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _look(self, method: bytes, path: bytes, headers: RawHeaders) -> Head | Turned:
        settings = self._settings
        return look(
            method,
            path,
            headers,
            now=self._now(),
            tolerance_seconds=settings.tolerance_seconds,
            max_body_bytes=settings.max_body_bytes,
        )

    def _turned(self, turned: Turned) -> Answer:
        if turned.refusal:
            return self._refused(turned.refusal)
        if turned.outcome:
            self._metrics.count_outcome(turned.outcome)
        if turned is TURNED_TOO_LARGE:
            self._strangers.warning("webhook too large")
        return turned.answer

    def _refused(self, refusal: Refusal) -> Answer:
        self._metrics.count_refusal(refusal)
        self._strangers.warning("webhook refused", reason=refusal.value)
        return NOT_BELIEVED

    async def _take(self, head: Head, receive: Receive) -> Answer:
        """Read the body, and what follows from it. Only then does it take a place."""
        try:
            body = await self._bodies.read(receive)
        except BodyTooLarge:
            return self._turned(TURNED_TOO_LARGE)
        except Crowded:
            self._metrics.count_limited(503)
            return _GIVEN_UP
        try:
            with self._places:
                refusal = verify(body, head.claim, self._settings.public_keys)
                return self._refused(refusal) if refusal else await self._read(body, head)
        except Crowded:
            self._metrics.count_limited(503)
            return _CROWDED

    async def _read(self, body: bytes, head: Head) -> Answer:
        received_ms = int(self._now() * 1000)
        reading = read_event(
            body,
            head.content_type,
            received_ms=received_ms,
            masked=self._settings.mask_numbers,
            number_key=self._number_key,
        )
        match reading:
            case Scheduling():
                self._metrics.count_kind(reading.event.kind)
                return await self._schedule(reading)
            case Begun():
                self._metrics.count_kind(reading.kind)
                return await self._count(reading)
            case Ignored(kind, reason):
                self._metrics.count_kind(kind)
                return self._ignored(kind, reason)
            case Unreadable(reason):
                _log.warning("webhook unreadable", reason=reason)
                return self._done("unreadable", answer(400, {"error": reason}))
            case _:
                return self._done("unsupported_type", UNSUPPORTED_TYPE)

    def _ignored(self, kind: str, reason: str) -> Answer:
        _log.info("webhook ignored", kind=kind, reason=reason)
        return self._done("ignored", answer(200, {"status": "ignored", "reason": reason}))

    async def _count(self, begun: Begun) -> Answer:
        """A call goes on. Where Redis cannot count it, its end will be counted instead."""
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self._store.begin(begun)
        except (RedisError, OSError, TimeoutError) as error:
            self._metrics.redis_errors.inc()
            known = {"session_id": begun.session_id, "kind": begun.kind}
            _log.warning("webhook not counted", error=redis_fault(error), **known)
        return self._ignored(begun.kind, _BEGUN)

    async def _schedule(self, scheduling: Scheduling) -> Answer:
        known = {
            "session_id": scheduling.session_id,
            "event_id": scheduling.key,
            "kind": scheduling.event.kind,
        }
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                recorded = await self._store.record(scheduling)
        except (RedisError, OSError, TimeoutError) as error:
            self._metrics.redis_errors.inc()
            _log.warning("webhook not kept", error=redis_fault(error), **known)
            return self._done("unavailable", _TRY_AGAIN)
        self._metrics.record_seconds.observe(time.perf_counter() - begun)
        _log.info("webhook", outcome=recorded.value, **known)
        match recorded:
            case Recorded.SCHEDULED:
                said = {"status": "scheduled", "session_id": scheduling.session_id}
                return self._done("scheduled", answer(202, said))
            case Recorded.MERGED:
                return self._done("merged", _MERGED)
            case Recorded.DUPLICATE | Recorded.KNOWN:
                return self._done("duplicate", _DUPLICATE)

    def _done(self, outcome: str, response: Answer) -> Answer:
        self._metrics.count_outcome(outcome)
        return response
