"""The one way out: HTTP bounded in time and size, whose every failure is one exception.

httpx's own pool slows down under concurrency, so its client runs here over aiohttp's. That pairing
has edges which this module rounds off, so that no caller has to know them:

- the transport knows no write time-out, and no read time-out ends a body that dribbles a byte at a
  time: a total time-out covers the whole exchange;
- it reports a reset and a disconnect as `ConnectTimeout`: the cause, not the wrapper, is named;
- both libraries keep cookies: neither does here, for one client serves many sessions.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

_IDLE_SECONDS: Final = 15.0

_FAILURES: Final = (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError)
_NEVER_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)

Wrap = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]


class Unanswered(Exception):
    """No whole answer came. The message is a class name or our own words, never a URL or a header.

    `maybe_sent` is False only where no connection was ever made. `status` is what the answer began
    with, if it came so far.
    """

    def __init__(self, reason: str, *, maybe_sent: bool, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.maybe_sent = maybe_sent
        self.status = status


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each phase of one exchange, and for all of it."""

    connect: float = 5.0
    pool: float = 10.0
    """Until a connection is at hand, waiting for a free one and making it included."""
    read: float = 20.0
    total: float = 30.0

    @property
    def phases(self) -> httpx.Timeout:
        """As httpx wants it; writing is bounded by `total` alone."""
        return httpx.Timeout(None, connect=self.connect, read=self.read, pool=self.pool)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that came whole. `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def open_client(
    timeouts: Timeouts,
    *,
    connections: int,
    headers: Mapping[str, str],
    reuse: bool = True,
    wrap: Wrap | None = None,
) -> httpx.AsyncClient:
    """A client that follows no redirect and keeps no cookie.

    With `reuse` off every exchange has a connection of its own: a POST on a kept one that the other
    side is just closing cannot be told from a POST that was taken.
    """
    tls = httpx.create_ssl_context()

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=connections,
            ssl=tls,
            force_close=not reuse,
            keepalive_timeout=_IDLE_SECONDS if reuse else None,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    transport = AiohttpTransport(verify=tls, client=session)
    return httpx.AsyncClient(
        transport=wrap(transport) if wrap else transport,
        timeout=timeouts.phases,
        # gzip and no more: what httpx offers by itself grows with the packages that happen to be
        # installed, and a bound on the body needs a format that inflates by a bounded factor.
        headers={"Accept": "application/json", "Accept-Encoding": "gzip", **headers},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
    )


async def exchange(
    client: httpx.AsyncClient, request: httpx.Request, *, total_seconds: float, most_bytes: int
) -> Answer:
    """The whole answer to the request. Raises Unanswered; a cancellation passes through."""
    watch = asyncio.timeout(total_seconds)
    began: list[int] = []
    try:
        async with watch:
            return await _receive(client, request, most_bytes, began)
    except _FAILURES as error:
        status = began[0] if began else None
        if watch.expired():
            words = f"no whole answer within {total_seconds:g} s"
            raise Unanswered(words, maybe_sent=True, status=status) from None
        cause = error.__cause__ or error
        raise Unanswered(
            type(cause).__name__,
            maybe_sent=status is not None or not isinstance(cause, _NEVER_SENT),
            status=status,
        ) from None


async def _receive(
    client: httpx.AsyncClient, request: httpx.Request, most_bytes: int, began: list[int]
) -> Answer:
    response = await client.send(request, stream=True)
    began.append(response.status_code)
    try:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most_bytes:
                raise Unanswered(f"a body of more than {most_bytes} bytes", maybe_sent=True)
        return Answer(response.status_code, response.headers, bytes(body))
    finally:
        await response.aclose()
