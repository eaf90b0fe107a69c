"""Slack's incoming webhook as a server: it takes what Slack takes, and remembers it.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
"""

import time
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.world import blockkit
from tests.world.clock import Clock
from tests.world.faults import Fault, Front

PATH: Final = "/services/T0/B0/SECRET"


@dataclass(frozen=True, slots=True)
class Posted:
    """What was posted, when, and what would page people in it."""

    at: float
    payload: dict[str, Any]
    mentions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The one-line fallback."""
        return str(self.payload.get("text", ""))

    @property
    def all_text(self) -> str:
        """Everything that can be read in it, for searching."""
        return "\n".join([self.text, *blockkit.texts(self.payload)])


@dataclass(frozen=True, slots=True)
class RefusedPost:
    """A post that Slack did not take, its word for why, and where."""

    at: float
    status: int
    word: str
    place: str = ""
    body: bytes = field(default=b"", repr=False)


class SlackWorld:
    """One channel behind one webhook; `app` is the server. Attributes may be set at any time."""

    def __init__(self, *, clock: Clock = time.time, path: str = PATH) -> None:
        self.path = path
        self.messages: list[Posted] = []
        self.refused: list[RefusedPost] = []
        self.per_second: float | None = None
        """Messages a second that the channel takes; None: all."""
        self.burst = 3
        self._clock = clock
        self._tokens: float = self.burst
        self._filled_at = clock()
        self.app = Front(
            Starlette(routes=[Route("/services/{rest:path}", self._post, methods=["POST"])]),
            clock,
            remembers=True,
        )
        self.faults = self.app.faults
        self.requests = self.app.requests

    @property
    def mentions(self) -> list[str]:
        """All that would have paged somebody; ought to be empty."""
        return [mention for message in self.messages for mention in message.mentions]

    def limit(self, per_second: float | None, burst: int = 3) -> None:
        """So many messages a second after a burst; beyond that 429 with `Retry-After`."""
        self.per_second = per_second
        self.burst = burst
        self._tokens = burst
        self._filled_at = self._clock()

    def refuse(self, status: int, word: str, *, times: int | None = 1) -> Fault:
        """One of Slack's final words: 403 `invalid_token`, 404 `no_service`, 410 and so on."""
        return self.faults.status(status, body=word.encode(), times=times)

    def clear(self) -> None:
        """Forgets all messages, refused posts and faults."""
        self.messages.clear()
        self.refused.clear()
        self.faults.clear()

    async def _post(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path != self.path:
            return self._refuse(404, "no_service", body)
        wait = self._wait_seconds()
        if wait:
            return self._refuse(429, "rate_limited", body, {"retry-after": str(ceil(wait))})
        if not request.headers.get("content-type", "").startswith("application/json"):
            return self._refuse(400, "invalid_payload", body, place="content type")
        try:
            payload = msgspec.json.decode(body)
            blockkit.check(payload)
        except msgspec.DecodeError:
            return self._refuse(400, "invalid_payload", body, place="not JSON")
        except blockkit.Refused as refused:
            return self._refuse(400, refused.word, body, place=refused.place)
        self.messages.append(Posted(self._clock(), payload, tuple(blockkit.mentions(payload))))
        return PlainTextResponse("ok")

    def _refuse(
        self,
        status: int,
        word: str,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        place: str = "",
    ) -> Response:
        self.refused.append(RefusedPost(self._clock(), status, word, place, body))
        return PlainTextResponse(word, status, headers)

    def _wait_seconds(self) -> float:
        """0 where one more message is allowed, which then counts."""
        if self.per_second is None:
            return 0.0
        now = self._clock()
        gained = (now - self._filled_at) * self.per_second
        self._tokens = min(float(self.burst), self._tokens + gained)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_second
