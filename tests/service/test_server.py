"""What clients on raw sockets see of the hardened server, and how it stops."""

import asyncio
import contextlib
import json
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self, cast

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service.door import TOO_LARGE, Answer, RawHeaders, answer
from service.intake import Bodies, BodyTooLarge, Crowded, Places
from service.protocol import BoundedProtocol, Limits, Turns
from service.server import Endpoint, PortInUse, serve
from tests.world.processes import PATIENCE_SECONDS

MOST: Final = 1024
MIB: Final = 1 << 20
# Short where the test waits for the limit; a moment longer than a busy machine pauses. And in each
# pass of the loop only one client has its turn.
SHORT: Final = Limits(
    connections=8,
    head_seconds=0.5,
    body_seconds=0.5,
    idle_seconds=0.5,
    unread_seconds=0.5,
    turn_seconds=1e-9,
)
LOOPS: Final = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@dataclass
class Toy:
    """An app whose slow request waits until the test lets it go."""

    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    places: Places = field(default_factory=lambda: Places(100))
    bodies: Bodies = field(default_factory=lambda: Bodies(MOST))
    seen: list[dict[str, str]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    async def body(self, request: Request) -> Response:
        self.entered.release()
        self.seen.append(dict(request.headers))
        if int(request.headers.get("content-length", "0")) > MOST:
            return self.too_large()
        try:
            return PlainTextResponse(str(len(await self.bodies.read(request.receive))))
        except BodyTooLarge:
            return self.too_large()

    def too_large(self) -> Response:
        headers = {name.decode(): value.decode() for name, value in TOO_LARGE.headers}
        return Response(TOO_LARGE.body, TOO_LARGE.status, headers)

    async def slow(self, request: Request) -> Response:
        self.entered.release()
        try:
            with self.places:
                await self.release.wait()
        except Crowded:
            return PlainTextResponse("crowded", 503)
        return PlainTextResponse(request.url.query or "slow")

    def door(self, _method: bytes, target: bytes, _headers: RawHeaders) -> Answer | None:
        return GATED.get(target)

    async def late(self, request: Request) -> Response:
        """Read all, and only then wait."""
        await request.body()
        return await self.slow(request)

    async def large(self, _request: Request) -> Response:
        self.entered.release()
        return PlainTextResponse("x" * 32 * MIB)

    async def ready(self, _request: Request) -> Response:
        return JSONResponse({}, status_code=503 if self.stopping else 200)

    def stop(self) -> None:
        self.stopping = True

    def public(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/body", self.body, methods=["GET", "POST"]),
                Route("/slow", self.slow, methods=["GET", "POST"]),
                Route("/large", self.large),
                Route("/late", self.late),
            ]
        )

    def admin(self) -> Starlette:
        return Starlette(routes=[Route("/readyz", self.ready)])


@dataclass
class Running:
    """The toy, served in a thread of its own."""

    toy: Toy
    loop: asyncio.AbstractEventLoop
    end: asyncio.Event
    thread: threading.Thread
    port: int = 0
    admin_port: int = 0

    def client(self) -> "Client":
        return Client(self.port)

    def entered(self) -> None:
        """Wait until one more request has reached the app."""
        assert self.toy.entered.acquire(timeout=PATIENCE_SECONDS)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.toy.release.set)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.end.set)

    def ended(self) -> bool:
        self.thread.join(PATIENCE_SECONDS)
        return not self.thread.is_alive()


@dataclass(frozen=True)
class Received:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A raw socket that can read one response after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def answer(self) -> Received:
        while b"\r\n\r\n" not in self.unread:
            self.receive()
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0"))
        while len(self.unread) < length:
            self.receive()
        body, self.unread = self.unread[:length], self.unread[length:]
        return Received(int(first.split(" ")[1]), headers, body)

    def receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self.unread)
        self.unread += data

    def ended(self) -> bytes:
        """What comes until the server closes; fails when it does not close."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return self.unread

    def readable(self, seconds: float) -> bool:
        return bool(select.select([self.socket], [], [], seconds)[0])

    def dribble(self, piece: bytes) -> None:
        """Send `piece` again and again, slowly, until the server says something or closes."""
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                self.send(piece)
                if self.readable(0.05):
                    return
        pytest.fail("the server let the client dribble on")

    def flood(self, piece: bytes, most_bytes: int) -> int:
        """Send `piece` again and again until the server resets; returns how much was taken."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most_bytes:
                sent += self.socket.send(piece)
        return sent


def get(path: str = "/body", *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: toy", *headers, "", ""]
    return "\r\n".join(lines).encode()


def post(length: int, *headers: str) -> bytes:
    """The head of a request with a body."""
    lines = ["POST /body HTTP/1.1", "Host: toy", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


CHUNKED: Final = b"POST /body HTTP/1.1\r\nHost: toy\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def running(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    limits: Limits = SHORT,
    *,
    drain_seconds: float = 0,
    finish_seconds: int = 20,
) -> Iterator[Running]:
    """The toy's two endpoints, until the block ends."""
    ports: list[tuple[int, ...]] = []
    started = threading.Event()
    server: Running

    def on_start(known: tuple[int, ...]) -> None:
        ports.append(known)
        started.set()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: server.loop) as runner:
            runner.run(serving())

    async def serving() -> None:
        toy = server.toy
        await serve(
            Endpoint(
                toy.public(), "127.0.0.1", 0, limits, refused=toy.refused.append, door=toy.door
            ),
            Endpoint(toy.admin(), "127.0.0.1", 0),
            stop=server.end,
            on_start=on_start,
            on_stop=toy.stop,
            drain_seconds=drain_seconds,
            finish_seconds=finish_seconds,
        )

    server = Running(Toy(), new_loop(), asyncio.Event(), threading.Thread(target=run))
    server.thread.start()
    try:
        assert started.wait(PATIENCE_SECONDS)
        server.port, server.admin_port = ports[0]
        yield server
    finally:
        if server.thread.is_alive():
            server.release()
            server.stop()
        assert server.ended()


@pytest.fixture(params=list(LOOPS))
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Both event loops that the service may run on."""
    return LOOPS[request.param]


@pytest.fixture
def server(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Running]:
    """The toy, within short limits."""
    with running(new_loop) as one:
        yield one


def test_connection_is_kept(server: Running) -> None:
    """One request after the other is answered on the same connection."""
    with server.client() as client:
        answers = [client.send(post(3) + b"abc").answer() for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"3")] * 3


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    """Requests sent at once are answered one by one, in their order."""
    server.release()
    with server.client() as client:
        client.send(b"".join(get(f"/slow?{number}") for number in range(8)))
        assert [client.answer().body for _ in range(8)] == [b"%d" % n for n in range(8)]


def test_pipelining_is_bounded(server: Running) -> None:
    """Of a thousand requests sent at once, one runs and the allowed number waits; then it ends."""
    with server.client() as client:
        client.send(get("/slow") * 1000)
        server.entered()
        server.release()
        assert client.ended().count(b"HTTP/1.1 200") == 1 + SHORT.pipelined


def test_expect_100_continue(server: Running) -> None:
    """A client that asks first is told to go on, and its body arrives."""
    with server.client() as client:
        assert client.send(post(3, "Expect: 100-continue")).answer().status == 100
        assert client.send(b"abc").answer().body == b"3"


def test_too_large_body_is_not_asked_for(server: Running) -> None:
    """A client that asks before it sends too much gets 413, not 100."""
    with server.client() as client:
        assert client.send(post(MOST + 1, "Expect: 100-continue")).answer().status == 413


@pytest.mark.parametrize(
    "start",
    [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX"],
    ids=["URL", "header value", "header name"],
)
def test_endless_line(server: Running, start: bytes) -> None:
    """A line of the head that never ends is refused with 431."""
    with server.client() as client:
        client.send(start + b"x" * 300_000)
        assert client.answer().status == 431


def test_endless_line_after_a_request(server: Running) -> None:
    """The head of a later request on the same connection is bounded, too."""
    with server.client() as client:
        client.send(get()).answer()
        client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000)
        assert client.answer().status == 431


def test_many_headers(server: Running) -> None:
    """A head of very many small fields is refused with 431."""
    with server.client() as client:
        client.send(b"GET /body HTTP/1.1\r\n" + b"a:b\r\n" * 1000 + b"\r\n")
        answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (431, "close")


def test_large_but_allowed_head(server: Running) -> None:
    """A head just within the limit is read, even behind a body in the same packet."""
    head = get("/body", *(f"X-{number}: {'x' * 1000}" for number in range(15)))
    with server.client() as client:
        client.send(post(3) + b"abc" + head)
        assert [client.answer().status, client.answer().status] == [200, 200]


@pytest.mark.parametrize(
    "tail",
    [b"1;x=" + b"x" * 300_000, b"0\r\nX: " + b"x" * 300_000, b"0\r\n" + b"a:b\r\n" * 1000],
    ids=["chunk extension", "trailer", "trailers"],
)
def test_endless_framing_of_a_body(server: Running, tail: bytes) -> None:
    """What frames a chunked body, beside the body itself, is bounded like the head."""
    with server.client() as client:
        client.send(CHUNKED)
        server.entered()
        assert client.send(tail).answer().status == 431


def test_small_chunks(server: Running) -> None:
    """A body in many small chunks, whose framing outweighs it, is no misuse."""
    with server.client() as client:
        client.send(CHUNKED)
        for _ in range(MOST // 8):
            client.send(b"1;extension=" + b"x" * 1000 + b"\r\na\r\n")
        assert client.send(b"0\r\n\r\n").answer().body == b"%d" % (MOST // 8)


def test_trailers_are_no_headers(server: Running) -> None:
    """What comes after a chunked body is never seen as a header, of this request or the next."""
    with server.client() as client:
        client.send(CHUNKED + b"0\r\nX-Late: 1\r\n\r\n" + get())
        client.answer()
        client.answer()
    assert [sorted(headers) for headers in server.toy.seen] == [
        ["host", "transfer-encoding"],
        ["host"],
    ]


def test_memory_under_a_flood_of_headers(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """64 MiB of header bytes cost no memory worth mention."""
    piece = b"ab:cd\r\n" * 65536
    with running(new_loop) as server, server.client() as client:
        client.send(get()).answer()
        tracemalloc.start()
        try:
            client.send(b"GET / HTTP/1.1\r\n").flood(piece, 64 * MIB)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * MIB


def test_junk(server: Running) -> None:
    """What is no HTTP is answered with 400."""
    with server.client() as client:
        assert client.send(b"\x16\x03\x01 hello\r\n\r\n").answer().status == 400


def test_junk_behind_a_request(server: Running) -> None:
    """Junk sent behind a request does not get in the way of the request's own answer."""
    with server.client() as client:
        client.send(get("/slow") + b"\x00junk\r\n\r\n")
        server.entered()
        server.release()
        assert client.answer().body == b"slow"
        assert client.ended() == b""


def test_junk_in_a_body(server: Running) -> None:
    """A chunked body that breaks its framing is answered with 400."""
    with server.client() as client:
        client.send(CHUNKED)
        server.entered()
        assert client.send(b"no length\r\n").answer().status == 400


def test_upgrade(server: Running) -> None:
    """A wish to speak another protocol is passed over: the request is answered, then it ends."""
    with server.client() as client:
        client.send(get("/body", "Connection: Upgrade", "Upgrade: websocket"))
        assert client.answer().status == 200
        assert client.ended() == b""


def test_refusals_are_reported(server: Running) -> None:
    """Each refusal made by the connection's limits is told by its status."""
    with server.client() as client:
        client.send(b"junk\r\n\r\n").answer()
    assert server.toy.refused == [400]


def test_dribbled_head(server: Running) -> None:
    """A head that arrives too slowly ends with 408."""
    with server.client() as client:
        client.send(b"GET /body HTTP/1.1\r\nX: ").dribble(b"x")
        assert client.answer().status == 408


def test_dribbled_second_head(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The time for a later head counts from its first byte."""
    with running(new_loop, Limits(head_seconds=0.5)) as server, server.client() as client:
        client.send(get()).answer()
        client.send(b"GET /body HTTP/1.1\r\nX: ").dribble(b"x")
        assert client.answer().status == 408


def test_dribbled_body(server: Running) -> None:
    """A body that arrives too slowly ends with 408."""
    with server.client() as client:
        client.send(post(1000)).dribble(b"x")
        assert client.answer().status == 408


def test_dribbled_body_after_its_answer(server: Running) -> None:
    """A body that nobody waits for does not keep the connection either."""
    with server.client() as client:
        client.send(post(MOST * 100).replace(b"/body", b"/unknown"))
        assert client.answer().status == 404
        client.dribble(b"x")
        assert client.ended() == b""


def test_slow_app_is_not_the_clients_fault(server: Running) -> None:
    """A request received whole is answered, however long the app takes."""
    with server.client() as client, server.client() as idle:
        client.send(get("/slow"))
        server.entered()
        idle.ended()
        server.release()
        assert client.answer().status == 200


def test_app_that_does_not_read_is_not_the_clients_fault(server: Running) -> None:
    """A body that has not arrived because the app has not asked for it is not late."""
    with server.client() as client, server.client() as idle:
        client.send(post(400_000).replace(b"/body", b"/slow") + b"x" * 400_000)
        server.entered()
        idle.ended()
        with server.client() as idle_again:
            idle_again.ended()
        server.release()
        assert client.answer().status == 200


def test_silent_connection(server: Running) -> None:
    """A connection that never sends a byte is closed."""
    with server.client() as client:
        assert client.ended() == b""


def test_idle_connection(server: Running) -> None:
    """A kept connection without a further request is closed."""
    with server.client() as client:
        client.send(get()).answer()
        assert client.ended() == b""


def test_idle_connection_after_a_late_body(server: Running) -> None:
    """A kept connection is closed also when its body came after the answer."""
    with server.client() as client:
        client.send(post(3).replace(b"/body", b"/unknown")).answer()
        client.send(b"abc")
        assert client.ended() == b""


def test_unread_answer(server: Running) -> None:
    """A client that does not read its answer is cut off."""
    with server.client() as client:
        client.send(get("/large"))
        server.entered()
        with server.client() as later:
            later.ended()
        assert len(client.ended()) < 32 * MIB


@pytest.mark.parametrize("head", [post(50 * MIB), CHUNKED], ids=["Content-Length", "chunked"])
def test_too_large_body_sent_whole(
    new_loop: Callable[[], asyncio.AbstractEventLoop], head: bytes
) -> None:
    """A client that sends 50 MiB before it reads gets its 413."""
    piece = (b"100000\r\n" if head == CHUNKED else b"") + b"x" * MIB
    piece += b"\r\n" if head == CHUNKED else b""
    with running(new_loop, Limits()) as server, server.client() as client:
        client.send(head)
        for _ in range(50):
            client.send(piece)
        answer = client.answer()
    assert (answer.status, answer.headers["connection"], json.loads(answer.body)) == (
        413,
        "close",
        {"error": "the body is too large"},
    )


def test_too_large_body_sent_slowly(server: Running) -> None:
    """A client still sending after the 413 has arrived can read it at its leisure."""
    with server.client() as client:
        client.send(post(100 * MOST))
        assert client.readable(PATIENCE_SECONDS)
        for _ in range(100):
            client.send(b"x" * MOST)
        assert client.answer().status == 413


def test_drain_is_bounded_in_bytes(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client that goes on sending after its answer is cut off."""
    limits = Limits(linger_bytes=MIB)
    with running(new_loop, limits) as server, server.client() as client:
        client.send(post(10_000 * MIB))
        # What the kernel's buffers hold comes on top.
        assert client.flood(b"x" * MIB, 1000 * MIB) < 50 * MIB


def test_body_nobody_waits_for_is_bounded(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A client whose answer leaves the connection open cannot send its body for ever either."""
    limits = Limits(linger_bytes=MIB)
    with running(new_loop, limits) as server, server.client() as client:
        client.send(post(10_000 * MIB).replace(b"/body", b"/unknown"))
        assert client.flood(b"x" * MIB, 1000 * MIB) < 50 * MIB


def test_drain_is_bounded_in_time(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client that dribbles on after its answer is cut off."""
    limits = Limits(linger_seconds=0.3)
    with running(new_loop, limits) as server, server.client() as client:
        client.send(post(10_000 * MIB)).answer()
        closed = select.poll()
        closed.register(client.socket, 0)
        with pytest.raises(ConnectionError):  # noqa: PT012 - any of the bytes may be the last
            for _ in range(200):
                client.send(b"x")
                closed.poll(50)


def test_connections_that_are_worked_on_keep_their_place(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Where every connection has a request in work, one more is answered with 503, Retry-After."""
    with (
        running(new_loop, Limits(connections=2)) as server,
        server.client() as first,
        server.client() as second,
    ):
        for client in (first, second):
            client.send(get("/slow"))
            server.entered()
        with server.client() as third:
            refusal = third.answer()
        server.release()
        assert [first.answer().status, second.answer().status] == [200, 200]
    assert (refusal.status, refusal.headers["retry-after"]) == (503, "5")
    assert server.toy.refused == [503]


def test_one_that_waits_longest_makes_room(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """For one connection too many, the one closes whose client has let us wait the longest."""
    with (
        running(new_loop, Limits(connections=3)) as server,
        server.client() as idle,
        server.client() as busy,
        server.client() as fresh,
    ):
        busy.send(get("/slow"))
        server.entered()
        idle.send(get()).answer()
        # The loop's clock counts milliseconds.
        for _ in range(100):
            fresh.send(get()).answer()
        with server.client() as another:
            assert another.send(get()).answer().status == 200
            assert idle.ended() == b""
            assert fresh.send(get()).answer().status == 200
        server.release()
        assert busy.answer().status == 200


@pytest.mark.parametrize("begun", [b"", b"GET /bo", post(100), post(100) + b"x"])
def test_unfinished_requests_make_room(
    new_loop: Callable[[], asyncio.AbstractEventLoop], begun: bytes
) -> None:
    """Any number of clients that connect and dawdle do not keep one out that does not."""
    with running(new_loop, Limits(connections=5)) as server, contextlib.ExitStack() as opened:
        for _ in range(50):
            opened.enter_context(server.client()).send(begun)
        with server.client() as client:
            assert client.send(post(3) + b"abc").answer().body == b"3"


def test_far_too_many_connections(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Connections that wait for their refusal to be read are bounded, too."""
    with running(new_loop, Limits(connections=1)) as server, contextlib.ExitStack() as opened:
        busy = opened.enter_context(server.client()).send(get("/slow"))
        server.entered()
        clients = [opened.enter_context(server.client()) for _ in range(20)]
        # All but the last have made room for the one after them.
        for client in clients[:-1]:
            client.ended()
        assert clients[-1].answer().status == 503
        server.release()
        assert busy.answer().status == 200


def test_client_that_goes_away(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away in the middle of a body leaves no error in the log."""
    with server.client() as client:
        client.send(post(10))
        server.entered()
    with server.client() as later:
        later.ended()
    assert [record.message for record in caplog.records] == []


def test_client_that_goes_away_with_more_to_come(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does one that had sent further requests ahead, when the first of them is answered."""
    with server.client() as client:
        client.send(get("/late") + get("/late"))
        server.entered()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with server.client() as later:
        later.ended()
        server.release()
    with server.client() as later:
        later.ended()
    assert [record.message for record in caplog.records] == []


def test_request_in_flight_finishes(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A request that runs when the server stops gets its answer, and the connection ends."""
    with running(new_loop) as server, server.client() as client, server.client() as idle:
        client.send(get("/slow"))
        server.entered()
        idle.send(get()).answer()
        server.stop()
        idle.ended()
        server.release()
        answer = client.answer()
        assert server.ended()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_no_new_connections_while_finishing(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Once the port is closed, a new connection is refused, and readiness is still told."""
    limits = Limits()
    with running(new_loop, limits) as server, server.client() as client, server.client() as idle:
        client.send(get("/slow"))
        server.entered()
        idle.send(get()).answer()
        server.stop()
        idle.ended()
        with pytest.raises(ConnectionRefusedError):
            server.client()
        with Client(server.admin_port) as admin:
            assert admin.send(get("/readyz")).answer().status == 503


def test_who_connects_as_the_port_closes_is_told_to_go() -> None:
    """Connections that come until the very end are ended with it, and do not go on.

    Several times, since few of them come at the moment that matters. On uvloop, as in production:
    asyncio's own loop forgets those that it had accepted in its last turn.
    """
    for _ in range(5):
        with running(uvloop.new_event_loop, Limits()) as server, contextlib.ExitStack() as opened:
            clients: list[Client] = []
            with contextlib.suppress(ConnectionError):
                for number in range(300):
                    clients.append(opened.enter_context(server.client()))
                    clients[-1].send(get())
                    if number == 100:
                        server.stop()
            for client in clients:
                client.ended()


def test_finishing_is_bounded(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A request that does not finish is cut off, and the server stops."""
    with running(new_loop, finish_seconds=1) as server, server.client() as client:
        client.send(get("/slow"))
        server.entered()
        server.stop()
        assert server.ended()


def test_port_in_use(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A taken port is told in one line, and no other port stays open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        endpoints = [Endpoint(Toy().public(), "127.0.0.1", number) for number in (0, port)]
        with (
            asyncio.Runner(loop_factory=new_loop) as runner,
            pytest.raises(PortInUse, match=rf"^cannot listen on 127\.0\.0\.1 port {port}: .+$"),
        ):
            runner.run(serve(*endpoints))


def test_end_of_work_ends_the_server(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """When the work beside which an endpoint is served fails, serving ends with its exception."""

    async def work() -> None:
        raise LookupError

    async def serving() -> None:
        endpoint = Endpoint(Toy().admin(), "127.0.0.1", 0)
        await serve(endpoint, work=asyncio.ensure_future(work()))

    with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(LookupError):
        runner.run(serving())


# --- the door -------------------------------------------------------------------------------------

GATED: Final = {
    b"/turned": answer(401, {"error": "no"}),
    b"/turned-and-closed": answer(413, {"error": "too much"}, closes=True),
    b"/turned-large": answer(401, {"error": "x" * 4 * MIB}),
}


def turned(length: int, path: str = "/turned", *headers: str) -> bytes:
    return post(length, *headers).replace(b"/body", path.encode())


def test_a_turned_request_never_reaches_the_app(server: Running) -> None:
    """A request that its head rules out is answered before its body; the connection is kept."""
    with server.client() as client:
        assert client.send(turned(5)).answer().body == b'{"error":"no"}'
        assert client.send(b"abcde" + turned(3) + b"abc").answer().status == 401
        assert client.send(post(3) + b"abc").answer().body == b"3"
    assert len(server.toy.seen) == 1


def test_a_turned_client_that_asks_first(server: Running) -> None:
    """A client that asks before it sends is told at once."""
    with server.client() as client:
        assert client.send(turned(5, "/turned", "Expect: 100-continue")).answer().status == 401


@pytest.mark.parametrize("kind", ["HTTP/1.0", "Connection: close", "closing answer"])
def test_a_turned_request_that_closes(server: Running, kind: str) -> None:
    """Where client or answer wish it, the connection ends after the answer, and nothing follows."""
    request = turned(3, "/turned-and-closed" if kind == "closing answer" else "/turned")
    if kind == "HTTP/1.0":
        request = request.replace(b"HTTP/1.1", b"HTTP/1.0")
    if kind == "Connection: close":
        request = turned(3, "/turned", kind)
    with server.client() as client:
        client.send(request + b"abc" + turned(3) + b"abc")
        assert client.answer().headers["connection"] == "close"
        assert client.ended() == b""


def test_a_turned_head_request_has_no_body(server: Running) -> None:
    """HEAD is answered without a body by the door, too."""
    with server.client() as client:
        client.send(b"HEAD /turned HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.ended().endswith(b"\r\n\r\n")


def test_the_gate_answers_in_turn(server: Running) -> None:
    """A request behind one that is being worked on is not answered before it."""
    with server.client() as client:
        client.send(get("/slow") + turned(0))
        server.entered()
        server.release()
        # The app has no such path: it is asked, since the door was not.
        assert [client.answer().status, client.answer().status] == [200, 404]


def test_gated_pipelining_is_bounded(server: Running) -> None:
    """Of a thousand ruled-out requests sent at once, a few are answered; then it ends."""
    with server.client() as client:
        client.send(turned(0) * 1000)
        assert client.ended().count(b" 401 ") == SHORT.pipelined


def test_gated_answers_that_nobody_reads_are_bounded(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A client that sends and never reads is cut off, and its answers take no memory."""
    with running(new_loop, Limits(unread_seconds=0.5)) as server, server.client() as client:
        client.send(get()).answer()
        tracemalloc.start()
        try:
            client.send(turned(0, "/turned-large") * 16)
            client.flood(b"GET /body HTTP/1.1\r\n" + b"x" * MIB, 64 * MIB)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # One answer is written, and its copy is joined with its head.
    assert peak < 20 * MIB


def test_a_turned_body_is_bounded(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The body of a ruled-out request is dropped, but not for ever."""
    with running(new_loop, Limits(linger_bytes=MIB)) as server, server.client() as client:
        client.send(turned(10_000 * MIB)).answer()
        assert client.flood(b"x" * MIB, 1000 * MIB) < 50 * MIB


def test_a_dribbled_gated_body(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The body of a ruled-out request has little time."""
    with running(new_loop, Limits(linger_seconds=0.3)) as server, server.client() as client:
        client.send(turned(1000)).answer()
        client.dribble(b"x")
        assert client.ended() == b""


@pytest.mark.parametrize(("most", "limit"), [("most", 2900), ("500", 500)])
def test_files_suffice_for_the_connections(most: str, limit: int) -> None:
    """The limit of open files is raised to what the connections need, as far as it is allowed."""
    script = (
        "import resource; from service.server import allow_files;"
        "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {most}));"
        "allow_files(900); allow_files(10); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)  # noqa: S603
    assert int(done.stdout) == limit


# --- turns ----------------------------------------------------------------------------------------


def test_everybody_has_a_turn(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Where receiving has no time but for one client, all are answered, pipelined ones in order."""
    with (
        running(new_loop, Limits(turn_seconds=1e-9)) as server,
        contextlib.ExitStack() as opened,
    ):
        server.release()
        clients = [opened.enter_context(server.client()) for _ in range(40)]
        for client in clients:
            client.send(post(MOST) + b"x" * (MOST // 2))
        for client in clients:
            client.send(b"x" * (MOST // 2) + turned(3) + b"abc" + get("/slow?last"))
        for client in clients:
            answers = [client.answer() for _ in range(3)]
            assert [answer.status for answer in answers][::2] == [200, 200]
            assert [answer.body for answer in answers][::2] == [b"%d" % MOST, b"last"]


def test_a_flood_does_not_hold_up_what_is_being_worked_on() -> None:
    """While a pass's time is spent, a piece waits in line; what runs already goes on between."""
    order: list[str] = []

    class Connection:
        loop = asyncio.new_event_loop()

        def __init__(self, name: str) -> None:
            self.name = name

        def queue_up(self) -> None:
            order.append(f"{self.name} waits")

        def step_up(self) -> bool:
            return self.name != "gone"

        def receive(self, data: bytes) -> None:
            order.append(self.name)

    turns = Turns(1e-9)
    for name in ("first", "gone", "second", "third"):
        turns.receive(cast("BoundedProtocol", Connection(name)), b"")
    assert order == ["first", "gone waits", "second waits", "third waits"]
    Connection.loop.call_soon(order.append, "work")
    Connection.loop.call_soon(lambda: Connection.loop.call_soon(order.append, "more work"))
    for _ in range(5):
        Connection.loop.run_until_complete(asyncio.sleep(0))
    Connection.loop.close()
    assert order[4:] == ["second", "work", "third", "more work"]


# --- signals --------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(loop: str) -> Iterator[tuple["subprocess.Popen[str]", int, int]]:
    """The toy in a process of its own, and its two ports."""
    command = [sys.executable, "-m", __name__, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:  # noqa: S603
        try:
            port, admin_port = line(started).split()
            yield started, int(port), int(admin_port)
        finally:
            started.kill()


def line(started: "subprocess.Popen[str]") -> str:
    assert started.stdout is not None
    return started.stdout.readline()


@pytest.mark.parametrize("loop", list(LOOPS))
def test_readiness_fails_before_the_port_closes(loop: str) -> None:
    """After the signal readiness fails, while new connections are still served."""
    with process(loop) as (started, port, admin_port):
        started.send_signal(signal.SIGTERM)
        assert line(started) == "stopping\n"
        with Client(admin_port) as admin, Client(port) as client:
            readiness = admin.send(get("/readyz")).answer().status
            status = client.send(get()).answer().status
    assert (readiness, status) == (503, 200)


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(loop: str, number: signal.Signals) -> None:
    """A signal stops the process in order; a second one shortens the wait; the exit code is 0."""
    with process(loop) as (started, _port, _admin_port):
        started.send_signal(number)
        assert line(started) == "stopping\n"
        started.send_signal(number)
        assert started.wait(PATIENCE_SECONDS) == 0


def main(loop: str) -> None:
    """The process that is sent signals: it says its ports, and when it begins to stop."""
    toy = Toy()

    def on_stop() -> None:
        toy.stop()
        print("stopping", flush=True)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(
            serve(
                Endpoint(toy.public(), "127.0.0.1", 0),
                Endpoint(toy.admin(), "127.0.0.1", 0),
                on_start=lambda ports: print(*ports, flush=True),
                on_stop=on_stop,
                drain_seconds=1000,
            )
        )


if __name__ == "__main__":
    main(sys.argv[1])
