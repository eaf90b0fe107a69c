"""Runs the apps of one process on uvicorn: hardened, on one loop, with an orderly start and end.

uvicorn's own `run` serves one app, and stops as soon as it is told to. Behind a load balancer that
loses requests: readiness has to fail first, while the port still answers, and the admin port has to
tell so until the end.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.protocol import BoundedProtocol, Door, Limits, bounded

_LIMITS: Final = Limits()
_BACKLOG: Final = 2048
# Connections to Redis and to the vendors, and whatever else is open.
_OTHER_FILES: Final = 2000
_LATE_COMERS_SECONDS: Final = 0.05


class PortInUse(Exception):
    """An endpoint's port is taken, or cannot be listened on; the message is one line for people."""


def _ignore(_value: object = None) -> None:
    pass


def _let_in(_method: bytes, _target: bytes, _headers: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An app, and where it listens (port 0: any free one).

    `refused` hears the status of each request that the connection's limits have refused. `door`
    may answer a request by its head alone: see `service.protocol`.
    """

    app: ASGIApp
    host: str
    port: int
    limits: Limits = _LIMITS
    refused: Callable[[int], None] = _ignore
    door: Door = _let_in


async def serve(
    *endpoints: Endpoint,
    stop: asyncio.Event | None = None,
    work: asyncio.Future[None] | None = None,
    on_start: Callable[[tuple[int, ...]], None] = _ignore,
    on_stop: Callable[[], None] = _ignore,
    drain_seconds: float = 3.0,
    finish_seconds: int = 20,
) -> None:
    """Serve until SIGTERM, SIGINT, `stop` or the end of `work`.

    `on_start` gets the ports, in order, once all of them answer. At the end `on_stop` is called, to
    fail readiness; requests are still taken for `drain_seconds`, or until a second signal; then the
    endpoints stop in order, each giving its requests `finish_seconds`. The last one is the admin
    endpoint: it stops after the others, and after `work`, whose exception is raised then.

    Raises PortInUse before anything has started; `work` is cancelled then.
    """
    stop, hurry = stop or asyncio.Event(), asyncio.Event()
    allow_files(sum(endpoint.limits.connections for endpoint in endpoints))
    try:
        sockets = _listen(endpoints)
    except PortInUse:
        if work is not None:
            work.cancel()
        raise
    servers = [
        _Server(*pair, finish_seconds=finish_seconds)
        for pair in zip(endpoints, sockets, strict=True)
    ]
    with _signals(stop, hurry):
        try:
            for server in servers:
                await server.start()
            on_start(tuple(server.port for server in servers))
            await _until(stop, work)
            on_stop()
            if stop.is_set():
                await _wait(hurry, drain_seconds)
        finally:
            for server in servers[:-1]:
                await server.stop()
            if work is not None:
                stop.set()
                await asyncio.wait([work])
            await servers[-1].stop()
    if work is not None:
        work.result()


class _Server(uvicorn.Server):
    """uvicorn's server in parts: `serve` decides when they run, and which signals there are."""

    def __init__(self, endpoint: Endpoint, listener: socket.socket, *, finish_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                _forgiving(endpoint.app),
                http=bounded(endpoint.limits, endpoint.refused, endpoint.door),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                # Its "Started", "Waiting" and "Finished" say nothing that `on_start` does not.
                log_level=logging.WARNING,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=finish_seconds,
            )
        )
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._ticking: asyncio.Task[None] | None = None
        self.port: int = listener.getsockname()[1]

    async def start(self) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._listener])
        self._ticking = asyncio.create_task(self.main_loop())

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second: who is overdue; then uvicorn's own chores."""
        now = self._loop.time()
        for connection in self._connections():
            if connection.deadline <= now or connection.unread_deadline <= now:
                connection.expire()
        return await super().on_tick(counter)

    async def stop(self) -> None:
        """Stop accepting, let requests finish, close; whatever is left is cut off."""
        if self._ticking is None:
            self._listener.close()
            return
        self._ticking.cancel()
        await asyncio.wait([self._ticking])
        telling = asyncio.create_task(self._tell_late_comers())
        await self.shutdown(sockets=[self._listener])
        telling.cancel()
        await asyncio.wait([telling])
        for connection in self._connections():
            connection.abort()

    async def _tell_late_comers(self) -> None:
        """Shut down those connections, too, that were accepted as the listener closed.

        uvicorn tells only the ones that it knows at that moment: the others would go on, request
        after request, until all the time to finish is over.
        """
        told: set[BoundedProtocol] = set()
        while True:
            await asyncio.sleep(_LATE_COMERS_SECONDS)
            for connection in set(self._connections()) - told:
                connection.shutdown()
                told.add(connection)

    def _connections(self) -> list[BoundedProtocol]:
        return cast("list[BoundedProtocol]", list(self.server_state.connections))


def allow_files(connections: int) -> None:
    """Make the process' limit of open files fit for so many connections, as far as it may.

    The usual one is 1,024. Where it is reached no connection is accepted, and none makes room.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Windows has none

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def _forgiving(app: ASGIApp) -> ASGIApp:
    """The app, without a traceback in the log for every client that goes away halfway."""
    # One for all requests: it has no state.
    suppressed = contextlib.suppress(ClientDisconnect)

    async def forgiving(scope: Scope, receive: Receive, send: Send) -> None:
        with suppressed:
            await app(scope, receive, send)

    return forgiving


def _listen(endpoints: Sequence[Endpoint]) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(_listener(end.host, end.port)) for end in endpoints]
        opened.pop_all()
        return sockets


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PortInUse(f"cannot listen on {host} port {port}: {reason}") from error


async def _until(stop: asyncio.Event, work: asyncio.Future[None] | None) -> None:
    stopping = asyncio.create_task(stop.wait())
    awaited: list[asyncio.Future[Any]] = [stopping] if work is None else [stopping, work]
    try:
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, hurry: asyncio.Event) -> Iterator[None]:
    """The first signal sets `stop`, a further one `hurry`. Only a main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def heard(*_: object) -> None:
        loop.call_soon_threadsafe((hurry if stop.is_set() else stop).set)

    # Not `add_signal_handler`: Windows has none, and it leaves no way back to the former handler.
    before = {sig: signal.signal(sig, heard) for sig in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
