"""Posts to Slack's incoming webhook; building the message is somebody else's work.

The webhook's URL is all it takes to write into the channel, so it is a secret. httpx logs the URL
of every request and puts it into its errors; it is therefore shown only the host, and the real URL
is put in behind it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
from pydantic import SecretStr

from workers.slack_answer import Outcome, outcome_of, unanswered
from workers.transport import Timeouts, Unanswered, exchange, open_client

_MOST_BYTES: Final = 65_536
_CONNECTIONS: Final = 10
_TIMEOUTS: Final = Timeouts(connect=5, pool=10, read=60, total=75)


class SlackClient:
    """One incoming webhook, as an async context manager."""

    def __init__(
        self, webhook_url: SecretStr | str, *, version: str = "0", timeouts: Timeouts = _TIMEOUTS
    ) -> None:
        secret = SecretStr(webhook_url) if isinstance(webhook_url, str) else webhook_url
        self._shown = httpx.URL(secret.get_secret_value()).copy_with(
            path="/", query=None, fragment=None, username=None, password=None
        )
        self._total_seconds = timeouts.total
        self._client = open_client(
            timeouts,
            connections=_CONNECTIONS,
            headers={"User-Agent": f"tollwatch/{version}", "Content-Type": "application/json"},
            reuse=False,
            wrap=partial(_Addressed, secret),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def post(self, payload: Mapping[str, Any]) -> Outcome:
        """Post one message. A cancellation passes through; every other failure is an outcome."""
        body = msgspec.json.encode(payload)
        request = self._client.build_request("POST", self._shown, content=body)
        try:
            answer = await exchange(
                self._client, request, total_seconds=self._total_seconds, most_bytes=_MOST_BYTES
            )
        except Unanswered as error:
            return unanswered(error.reason, maybe_sent=error.maybe_sent, status=error.status)
        return outcome_of(answer.status, answer.headers, answer.body, now=datetime.now(UTC))


class _Addressed(httpx.AsyncBaseTransport):
    """Sends every request to the secret URL; the client above it only knows the shown one."""

    def __init__(self, secret: SecretStr, inner: httpx.AsyncBaseTransport) -> None:
        self._secret = secret
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        addressed = httpx.Request(
            request.method,
            self._secret.get_secret_value(),
            headers=request.headers,
            content=request.content,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(addressed)

    async def aclose(self) -> None:
        await self._inner.aclose()
