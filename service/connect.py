"""Connections to Redis, by redis-py itself: arq's own way drops TLS options, time-outs and retries.

Reads the URL forms that redis-py knows, and Sentinel's, which neither of the two reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_SENTINEL: Final = {"redis+sentinel": False, "rediss+sentinel": True}
_PLAIN: Final = ("redis", "rediss", "unix")
_SENTINEL_PORT: Final = 26379
_SENTINEL_OPTIONS: Final = ("master", "sentinel_username", "sentinel_password")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


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
    return ConnectionPool.from_url(url, **options)


def _sentinel_pool(url: SentinelUrl, options: dict[str, Any]) -> ConnectionPool:
    tls = {"ssl": True, **{name: url.options[name] for name in _TLS_OPTIONS if name in url.options}}
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        url.sentinels,
        sentinel_kwargs={
            "username": url.options.get("sentinel_username"),
            "password": url.options.get("sentinel_password"),
            **timeouts,
            **(tls if url.tls else {}),
        },
    )
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        url.master,
        sentinel,
        db=url.db,
        username=url.username,
        password=url.password,
        **options,
        **(tls if url.tls else {}),
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
