"""Trouble on demand in front of a simulated service, and a log of what it was asked.

The wrapper stands between server and application, where connections can be cut in the middle of an
answer.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Kind: TypeAlias = Literal[
    "status", "delay", "reset", "stall", "truncate", "garbage", "html", "oversize", "silence"
]
# What these begin with, a 200, says that the request was taken: a service that remembers what it
# takes must have taken it.
_TAKEN: Final = frozenset({"silence", "stall", "truncate"})

_SECRET_HEADERS: Final = frozenset({"authorization", "cookie"})
_KEPT_REQUESTS: Final = 50_000
_CHUNK_BYTES: Final = 64 * 1024
_HTML: Final = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
_PROMISED_BYTES: Final = 10_000
_JSON_START: Final = b'{"session_id": "'


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next `times` requests (None: until cleared) to a matching path."""

    kind: Kind
    path: str = ""
    """A part of the path; the empty one matches all."""
    times: int | None = 1
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    megabytes: int = 0
    taken: int = 0
    """How many requests it has hit."""


class Faults:
    """The rules in force; the oldest that matches is taken."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """One more rule."""
        self._rules.append(fault)
        return fault

    def clear(self) -> None:
        """No more trouble."""
        self._rules.clear()

    def status(
        self,
        status: int,
        *,
        path: str = "",
        times: int | None = 1,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """An answer with that status, by default without a body."""
        return self.add(
            Fault("status", path, times, status=status, body=body, headers=headers or {})
        )

    def silence(self, *, path: str = "", times: int | None = 1) -> Fault:
        """The request is taken, and the connection breaks before a word of the answer."""
        return self.add(Fault("silence", path, times))

    def delay(self, seconds: float, *, path: str = "", times: int | None = 1) -> Fault:
        """The right answer, late."""
        return self.add(Fault("delay", path, times, seconds=seconds))

    def reset(self, *, path: str = "", times: int | None = 1) -> Fault:
        """The connection is reset before any answer.

        Beware: aiohttp asks again by itself when a connection that it had used before is reset.
        """
        return self.add(Fault("reset", path, times))

    def stall(self, seconds: float = 3600.0, *, path: str = "", times: int | None = 1) -> Fault:
        """An answer that begins and does not go on; after so long the connection is reset."""
        return self.add(Fault("stall", path, times, seconds=seconds))

    def truncate(self, *, path: str = "", times: int | None = 1) -> Fault:
        """The connection is closed in the middle of the body."""
        return self.add(Fault("truncate", path, times))

    def garbage(
        self, body: bytes = b"\x00\xff{not json", *, path: str = "", times: int | None = 1
    ) -> Fault:
        """A 200 that says it is JSON and is not."""
        return self.add(Fault("garbage", path, times, body=body))

    def html(self, status: int = 200, *, path: str = "", times: int | None = 1) -> Fault:
        """A proxy's page."""
        return self.add(Fault("html", path, times, status=status, body=_HTML))

    def oversize(self, megabytes: int = 64, *, path: str = "", times: int | None = 1) -> Fault:
        """A 200 with a body that does not want to end, without a stated length."""
        return self.add(Fault("oversize", path, times, megabytes=megabytes))

    def take(self, path: str) -> Fault | None:
        """The rule for a request to that path; it is used up by one."""
        for fault in self._rules:
            if fault.path in path and (fault.times is None or fault.taken < fault.times):
                fault.taken += 1
                return fault
        return None


@dataclass(slots=True)
class Request:
    """A request as it came, without its secrets. `status` is None where it got no whole answer."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float
    fault: Kind | None = None
    status: int | None = None


class Front:
    """Wraps an application: logs each request, then lets the fault have its way, or the app.

    `latency_seconds` is what every answer takes at least. `remembers` says that the app is changed
    by what it is told, so that it has to hear a request whose answer is lost.
    """

    def __init__(
        self, app: ASGIApp, clock: Callable[[], float], *, remembers: bool = False
    ) -> None:
        self._app = app
        self._clock = clock
        self._remembers = remembers
        self.faults = Faults()
        self.latency_seconds = 0.0
        self.requests: deque[Request] = deque(maxlen=_KEPT_REQUESTS)
        self.request_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = self.faults.take(scope["path"])
        request = self._note(scope, fault)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            await send(message)

        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        if fault is None:
            await self._app(scope, receive, noting)
        elif fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, noting)
        else:
            if self._remembers and fault.kind in _TAKEN:
                await self._app(scope, receive, _to_nobody)
            await _TROUBLE[fault.kind](fault, receive, send)

    def _note(self, scope: Scope, fault: Fault | None) -> Request:
        headers = Headers(scope=scope)
        request = Request(
            method=scope["method"],
            path=scope["path"],
            query=dict(QueryParams(scope["query_string"])),
            headers={k: "…" if k in _SECRET_HEADERS else v for k, v in headers.items()},
            at=self._clock(),
            fault=fault.kind if fault else None,
        )
        self.requests.append(request)
        self.request_count += 1
        return request


async def _to_nobody(_message: Message) -> None:
    """An answer that is lost."""


class _Trouble(Protocol):
    async def __call__(self, fault: Fault, receive: Receive, send: Send) -> None: ...


async def _status(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin(send, fault.status, fault.headers, length=len(fault.body))
    await send({"type": "http.response.body", "body": fault.body})


async def _garbage(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin(send, 200, {"content-type": "application/json"}, length=len(fault.body))
    await send({"type": "http.response.body", "body": fault.body})


async def _html(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin(send, fault.status, {"content-type": "text/html"}, length=len(fault.body))
    await send({"type": "http.response.body", "body": fault.body})


async def _oversize(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin(send, 200, {"content-type": "application/json"})
    await send({"type": "http.response.body", "body": b"[", "more_body": True})
    for _ in range(fault.megabytes * 1024 * 1024 // _CHUNK_BYTES):
        await send(
            {"type": "http.response.body", "body": b"0," * (_CHUNK_BYTES // 2), "more_body": True}
        )
    await send({"type": "http.response.body", "body": b"0]"})


async def _reset(fault: Fault, receive: Receive, send: Send) -> None:
    _abort(send)
    await _gone(receive)


async def _stall(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin_and_break_off(send)
    try:
        await asyncio.wait_for(_gone(receive), fault.seconds)
    except TimeoutError:
        await _reset(fault, receive, send)


async def _truncate(fault: Fault, receive: Receive, send: Send) -> None:
    await _begin_and_break_off(send)
    _transport(send).close()
    await _gone(receive)


_TROUBLE: Final[Mapping[str, _Trouble]] = {
    "status": _status,
    "garbage": _garbage,
    "html": _html,
    "oversize": _oversize,
    "reset": _reset,
    "silence": _reset,
    "stall": _stall,
    "truncate": _truncate,
}


async def _begin(
    send: Send, status: int, headers: Mapping[str, str], *, length: int | None = None
) -> None:
    given = dict(headers)
    if length is not None:
        given["content-length"] = str(length)
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _begin_and_break_off(send: Send) -> None:
    await _begin(send, 200, {"content-type": "application/json"}, length=_PROMISED_BYTES)
    await send({"type": "http.response.body", "body": _JSON_START, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _abort(send: Send) -> None:
    """A reset instead of an orderly end: closing with a linger time of zero."""
    transport = _transport(send)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _transport(send: Send) -> Any:
    # ASGI has no word for this: uvicorn's `send` is a method of the request that knows its socket.
    return send.__self__.transport  # type: ignore[attr-defined]
