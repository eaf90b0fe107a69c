"""Connections to Redis: what they are made of, and that they stay with no replica."""

import asyncio
import itertools
import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, NoPermissionError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service import connect
from service.connect import NotTheMaster, redis_fault, redis_pool
from service.health import SCRIPT_COMMANDS, redis_check
from service.replicas import TooFewReplicas
from tests.world.processes import ROOT, wait_until, wait_until_async
from tests.world.valkey import Sentinel, Valkey

pytestmark = pytest.mark.anyio


def client(url: str) -> Redis:
    """A client on a pool as the processes have it, which is closed with the client."""
    return Redis.from_pool(redis_pool(url, connections=5, timeout_seconds=2))


def is_master(server: Valkey) -> bool:
    return b"role:master" in server.ask("INFO replication")


def _behind(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemoryError("command not allowed"), "OutOfMemoryError OOM"),
        (BusyLoadingError("Valkey is loading"), "BusyLoadingError LOADING"),
        (ResponseError("MISCONF Valkey is configured"), "ResponseError MISCONF"),
        (ResponseError("tollwatch:session:1 is what I say"), "ResponseError"),
        (NotTheMaster("a replica"), "NotTheMaster READONLY"),
        (TooFewReplicas(0, 2), "TooFewReplicas 0 of 2 replicas have it"),
        (NoPermissionError("no permission to run HDEL"), "NOPERM no permission to run HDEL"),
        (RedisConnectionError("Error 111 connecting to 10.0.0.1:6379"), "ConnectionError"),
        (RedisTimeoutError("Timeout reading from 10.0.0.1:6379"), "TimeoutError"),
        (
            _behind(RedisConnectionError("to 10.0.0.1"), ssl.SSLError(1, "[SSL] wrong version")),
            "ConnectionError TLS: failed",
        ),
    ],
)
def test_what_is_wrong_is_said_without_addresses(error: Exception, said: str) -> None:
    """In Redis' own word where it has one; no address, no key."""
    assert redis_fault(error) == said


async def test_a_socket_file_will_do(tmp_path: Path) -> None:
    """unix:// leads to a server on the same machine."""
    path = tmp_path / "valkey.sock"
    with Valkey(options={"unixsocket": str(path)}):
        async with client(f"unix://{path}?db=1") as redis:
            assert await redis.set("k", "1")


async def test_a_demoted_master_is_left(valkey: Valkey) -> None:
    """A connection that is told READONLY is dropped: the next one may reach another server."""
    with Valkey() as server:
        async with client(server.url) as redis:
            assert await redis.set("k", "1")
            (connection,) = redis.connection_pool._available_connections
            server.obey("REPLICAOF 127.0.0.1 1")
            with pytest.raises(NotTheMaster):
                await redis.set("k", "2")
            assert not connection.is_connected
            server.obey("REPLICAOF NO ONE")
            assert await redis.set("k", "3")


async def test_a_connection_that_was_closed_beneath_is_made_anew(valkey: Valkey) -> None:
    """Whatever the event loop says of it: a command is sent again."""
    async with client(valkey.url) as redis:
        connection = await redis.connection_pool.get_connection()
        await connection.connect()
        connection._writer.transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(RedisConnectionError):
            await connection.send_command("PING")
        await connection.connect()
        connection._writer.transport.abort()
        await redis.connection_pool.release(connection)
        assert await redis.ping()


async def test_a_replica_without_its_master_is_left() -> None:
    """Where a replica is told not to answer without its master, it is no better than READONLY."""
    with Valkey(options={"replica-serve-stale-data": "no"}) as server:
        server.obey("REPLICAOF 127.0.0.1 1")
        async with client(server.url) as redis:
            with pytest.raises(NotTheMaster):
                await redis.get("k")


async def test_sentinel_is_followed_though_nothing_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a master that was replaced in good health is given up for the new one."""
    monkeypatch.setattr(connect, "_LOOK_SECONDS", 0.0)
    with Valkey() as master, Valkey(replica_of=master) as replica, Sentinel(master) as sentinel:
        wait_until(sentinel.knows_replica, description="a replica that could be the master")
        async with client(sentinel.url) as redis:
            await redis.set("k", "1")
            sentinel.fail_over()

            written = itertools.count()

            async def arrived() -> Any:
                value = str(next(written))
                await redis.set("k", value)
                there = replica.ask("GET k").endswith(f"\r\n{value}\r\n".encode())
                return there and is_master(replica)

            await wait_until_async(arrived, description="a write to the new master")
            assert is_master(master), "it was left before it said READONLY"
            sentinel.stop()
            assert await redis.set("k", "3"), "what is connected goes on without sentinels"


# --- what its user may do -------------------------------------------------------------------------


def test_readiness_knows_what_the_scripts_call() -> None:
    """Each command that a script calls is among those whose permission is looked at."""
    texts = (
        file.read_text() for room in ("service", "workers") for file in (ROOT / room).glob("*.py")
    )
    called = {name for text in texts for name in re.findall(r"redis\.call\(\s*'(\w+)'", text)}
    assert called == set(SCRIPT_COMMANDS.split())


async def test_a_permission_that_is_missing_is_named(valkey: Valkey) -> None:
    """Readiness says which command is forbidden."""
    valkey.obey("ACL SETUSER few reset on nopass ~tollwatch:* +@all -zadd")
    async with client(valkey.url.replace("redis://", "redis://few:any@")) as redis:
        assert await redis_check(redis)() == "Redis: NOPERM no permission to run ZADD"
    valkey.obey("ACL DELUSER few")
