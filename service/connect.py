"""Connections to Redis, by redis-py itself: arq's own way drops TLS options, time-outs and retries.

Reads the URL forms that redis-py knows, and Sentinel's, which neither of the two reads. Behind each
of them another server may be the master after a failover, so a connection that meets one which is
none is dropped, and the next try asks anew where the master is.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.replicas import TooFewReplicas

_SENTINEL: Final = {"redis+sentinel": False, "rediss+sentinel": True}
_PLAIN: Final = ("redis", "rediss", "unix")
_SENTINEL_PORT: Final = 26379
_SENTINEL_OPTIONS: Final = ("master", "sentinel_username", "sentinel_password")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
# A sentinel that is gone must leave time to ask the next.
_SENTINEL_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 1.0
_LOOK_PAUSE: Final = 10
_ONCE: Final = Retry(NoBackoff(), 0)
_LONGEST_PROBLEM: Final = 100


class BadRedisUrl(ValueError):
    """REDIS_URL cannot be read; the message says what to do and repeats no part of it."""


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Where the sentinels are, and which master they are asked for."""

    sentinels: tuple[tuple[str, int], ...]
    master: str
    db: int
    username: str | None
    password: str | None
    tls: bool
    options: Mapping[str, str]


class NotTheMaster(RedisConnectionError):
    """The server at the other end is not the master, or not any more."""


class _Kept(AbstractConnection):
    """A connection that leaves a replica, and whose loss is always an error of the connection's."""

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*args, **options)
        except RuntimeError as error:
            # What uvloop says of a closed transport; redis-py expects an OSError.
            raise RedisConnectionError("the connection was closed") from error

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _is_from_replica(error):
                raise
            await self.disconnect(nowait=True)
            raise NotTheMaster("this server is a replica") from error


class _Plain(_Kept, Connection):
    """Over TCP."""


class _Tls(_Kept, SSLConnection):
    """Over TLS."""


class _Unix(_Kept, UnixDomainSocketConnection):
    """Over a socket file."""


class _Discovered(SentinelManagedConnection):
    """A connection to whatever server the sentinels name."""

    async def connect_to(self, address: tuple[str, int]) -> None:
        # Each try that fails asks the sentinels anew. redis-py would first try the same address
        # three times, and all others who want a connection wait for it.
        retry, self.retry = self.retry, _ONCE
        try:
            await super().connect_to(address)  # type: ignore[no-untyped-call]
        finally:
            self.retry = retry


class _DiscoveredPlain(_Discovered, _Plain):
    """The same, over TCP."""


class _DiscoveredTls(_Discovered, _Tls):
    """The same, over TLS."""


class _SentinelPool(SentinelConnectionPool):
    """Connections to the master, which stay with no other.

    A master that was replaced while nothing was wrong with it takes writes for ten seconds more,
    and then forgets them. redis-py asks the sentinels only for a new connection.
    """

    _next_look = 0.0

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        if connection.is_connected and isinstance(connection, _Discovered):
            await self._look()
            if (connection.host, connection.port) != self.master_address:
                await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT002 - redis-py's
        await super().disconnect(inuse_connections)
        if inuse_connections:  # It is the end: redis-py forgets those to the sentinels.
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        if begun < self._next_look:
            return
        # What is connected goes on without sentinels.
        with contextlib.suppress(RedisError):
            await self.get_master_address()  # type: ignore[no-untyped-call]
        # Sentinels that hang hold everybody up, so they are asked the less often.
        now = clock()
        self._next_look = now + max(_LOOK_SECONDS, (now - begun) * _LOOK_PAUSE)


_KINDS: Final[Mapping[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _Plain,
    SSLConnection: _Tls,
    UnixDomainSocketConnection: _Unix,
}
# redis-py takes the word off what it has a class for.
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (OutOfMemoryError, "OOM"),
    (NotTheMaster, "READONLY"),
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
)


def redis_fault(error: Exception) -> str:
    """What is wrong with Redis, for logs and readiness: no address, no key, no value.

    In Redis' own word (OOM, READONLY, LOADING) where it has one.
    """
    name = type(error).__name__
    if isinstance(error, TooFewReplicas):
        return f"{name} {error}"
    if isinstance(error, NoPermissionError):
        return f"NOPERM {error}"[:_LONGEST_PROBLEM]
    tls = _tls_fault(error)
    if tls:
        return f"{name} TLS: {tls}"
    word = next((word for kind, word in _WORDS if isinstance(error, kind)), "")
    first = str(error).partition(" ")[0]
    own = first if isinstance(error, ResponseError) and first.isupper() else ""
    return f"{name} {word or own[:20]}".strip()


def _tls_fault(error: BaseException) -> str:
    """What is wrong with the encryption, if that is what lies behind the error."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, ssl.SSLError):
            # Each is there only where the TLS library has set it.
            said = (getattr(behind, name, None) for name in ("verify_message", "reason"))
            return next(filter(None, said), "failed")
        behind = behind.__cause__ or behind.__context__
    return ""


def _is_from_replica(error: ResponseError) -> bool:
    """Refused by a replica: a write, or anything while it has lost its master."""
    return isinstance(error, ReadOnlyError) or str(error).startswith("MASTERDOWN")


def check_redis_url(url: str) -> None:
    """Raises BadRedisUrl where no connection could be made of `url`."""
    scheme = url.partition("://")[0]
    if scheme in _SENTINEL:
        read_sentinel_url(url)
        return
    if scheme not in _PLAIN:
        known = ", ".join(f"{name}://" for name in (*_PLAIN, *_SENTINEL))
        raise BadRedisUrl(f"must begin with one of {known}")
    try:
        options = parse_url(url)
        has_target = scheme == "unix" or bool(urlsplit(url).hostname)
    except (ValueError, TypeError) as error:
        raise BadRedisUrl("not a Redis URL: check host, port, database and options") from error
    if not has_target or (scheme == "unix" and not options.get("path")):
        raise BadRedisUrl("names no host, or for unix:// no path")


def read_sentinel_url(url: str) -> SentinelUrl:
    """`redis+sentinel://[user:password@]host:port[,host:port…]/db?master=NAME`, read."""
    try:
        parts = urlsplit(url)
        credentials, _, hosts = parts.netloc.rpartition("@")
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        sentinels = tuple(_host_and_port(host) for host in hosts.split(","))
    except ValueError as error:
        raise BadRedisUrl("not a Sentinel URL: check hosts, ports and options") from error
    unknown = set(options) - {*_SENTINEL_OPTIONS, *_TLS_OPTIONS}
    if unknown:
        raise BadRedisUrl(f"unknown option: {', '.join(sorted(unknown))}")
    if not options.get("master"):
        raise BadRedisUrl("a Sentinel URL needs ?master=NAME, the name of the monitored master")
    username, _, password = credentials.partition(":")
    return SentinelUrl(
        sentinels=sentinels,
        master=options["master"],
        db=_database(parts),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=_SENTINEL[parts.scheme],
        options=options,
    )


def redis_pool(url: str, *, connections: int, timeout_seconds: float) -> ConnectionPool:
    """A pool that waits at most `timeout_seconds` for an answer and tries a lost connection again.

    Raises BadRedisUrl.
    """
    check_redis_url(url)
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 15,
        # A connection that the server closed while it was idle is found at its next use.
        "retry": Retry(ExponentialBackoff(cap=0.25, base=0.02), 2),
        "retry_on_error": [RedisConnectionError, RedisTimeoutError],
        "max_connections": connections,
    }
    if url.partition("://")[0] in _SENTINEL:
        return _sentinel_pool(read_sentinel_url(url), options)
    # As redis-py has it: what the URL says goes above the rest.
    options |= parse_url(url)
    kind = _KINDS[options.pop("connection_class", Connection)]
    if kind is _Unix:
        del options["socket_keepalive"]
    return ConnectionPool(connection_class=kind, **options)


def _sentinel_pool(url: SentinelUrl, options: dict[str, Any]) -> ConnectionPool:
    tls_options = {name: url.options[name] for name in _TLS_OPTIONS if name in url.options}
    seconds = min(_SENTINEL_SECONDS, options["socket_timeout"])
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        url.sentinels,
        sentinel_kwargs={
            "username": url.options.get("sentinel_username"),
            "password": url.options.get("sentinel_password"),
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            **({"ssl": True, **tls_options} if url.tls else {}),
        },
    )
    return _SentinelPool(  # type: ignore[no-untyped-call]
        url.master,
        sentinel,
        connection_class=_DiscoveredTls if url.tls else _DiscoveredPlain,
        db=url.db,
        username=url.username,
        password=url.password,
        **options,
        **(tls_options if url.tls else {}),
    )


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _database(parts: SplitResult) -> int:
    text = parts.path.strip("/") or "0"
    if not (text.isascii() and text.isdigit()):
        raise BadRedisUrl("the database, behind the /, must be a number")
    return int(text)
