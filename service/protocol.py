"""One HTTP connection, bounded in all that uvicorn leaves to the client.

uvicorn reads HTTP well and fast, but a client decides how much memory a head takes, how long head
and body take to arrive, how many requests it sends ahead, and how long it leaves an answer unread.
Here each of these has a limit. And an answer sent before the request was read whole does arrive:
closing at once would reset the connection, and the client would see a broken pipe instead of it.

A request that its head rules out is answered here and now, by the endpoint's door, without a task,
a body or a place. When there are too many connections, those that have kept us waiting longest make
room: whoever opens thousands of them waits for itself. And receiving is given only so much time
in each pass of the loop; then all wait in line, so that what is being worked on goes on.

Times are kept as one deadline per connection; the server looks at all of them ten times a second.
That is cheaper than a timer for each step of each request.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Final, TypeAlias, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.door import Answer, RawHeaders

RETRY_AFTER_SECONDS: Final = 5
_ANSWERS: Final = {
    400: b"not a valid HTTP request",
    408: b"the request took too long to arrive",
    431: b"the request's head is too large",
    503: b"too many connections, try again later",
}

# Method, target and headers (names in lower case) of a request; the answer where they rule it out.
Door: TypeAlias = Callable[[bytes, bytes, RawHeaders], Answer | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one endpoint grants its clients.

    `connections` are open at once, idle ones included. For one more, some that wait for their
    client are closed; if there are none, it is answered with 503.
    `head_bytes` and `fields` bound a request's head, URL included, and likewise its trailers and
    each chunk's extensions.
    `head_seconds` runs from the connection, or from the first byte of a further request.
    `body_seconds` runs from the end of the head to the end of the body.
    `idle_seconds` is how long a connection is kept between requests.
    `unread_seconds` is how long a client may leave answers unread once the buffers are full.
    `linger_seconds` and `linger_bytes` bound what is read, and dropped, after an early answer.
    `pipelined` requests of one connection may wait for their turn, and no more are answered by the
    door in one.
    `turn_seconds` is how long receiving may take in one pass of the loop, all connections together.
    """

    connections: int = 1000
    head_bytes: int = 16_384
    fields: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    idle_seconds: float = 75.0
    unread_seconds: float = 20.0
    linger_seconds: float = 10.0
    linger_bytes: int = 67_108_864
    pipelined: int = 16
    turn_seconds: float = 0.002


class _Refused(Exception):
    """Ends the parser from inside one of its callbacks."""


@dataclass(frozen=True, slots=True)
class _Door:
    """The transport as uvicorn sees it: what closing means is our own, and writing is safe.

    When a client goes away, uvicorn tells only the last of its requests. uvloop's transport raises
    when another one answers: a traceback in the log for whoever sends two requests and hangs up.
    """

    wire: asyncio.Transport
    close: Callable[[], None]

    def write(self, data: bytes) -> None:
        """Write, if there is anybody to read."""
        if not self.wire.is_closing():
            self.wire.write(data)

    def is_closing(self) -> bool:
        """Whether nobody reads any more."""
        return self.wire.is_closing()


class Turns:
    """Shares out the passes of the loop among an endpoint's connections.

    A pass serves all sockets that have something, and only then what is being worked on; a webhook
    takes some passes to Redis and back. So a pass that receives for long delays every answer.
    What comes after `seconds` of receiving waits in line, first come, first served, and is not read
    further meanwhile.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = 0.0
        self._line: deque[tuple[BoundedProtocol, bytes]] = deque()
        self._next: asyncio.Handle | None = None

    def receive(self, connection: "BoundedProtocol", data: bytes) -> None:
        """Let the connection receive now, or later."""
        if self._line or self._spent >= self._seconds:
            connection.queue_up()
            self._line.append((connection, data))
        else:
            self._serve(connection, data)
        if self._next is None:
            self._next = connection.loop.call_soon(self._pass)

    def _pass(self) -> None:
        """A new pass has begun."""
        self._spent, self._next = 0.0, None
        while self._line and self._spent < self._seconds:
            connection, data = self._line.popleft()
            if connection.step_up():
                self._serve(connection, data)
        if self._line:
            self._next = self._line[0][0].loop.call_soon(self._pass)

    def _serve(self, connection: "BoundedProtocol", data: bytes) -> None:
        begun = perf_counter()
        connection.receive(data)
        self._spent += perf_counter() - begun


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within `limits`; `refused` hears the status of each refusal made here."""

    limits: Limits
    refused: Callable[[int], None]
    door: Door
    turns: Turns

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._wire: asyncio.Transport = cast("asyncio.Transport", None)
        self._now = self.loop.time
        # When the client's current step began and is overdue, and when its unread answers are.
        self.since = 0.0
        self.deadline = inf
        self.unread_deadline = inf
        # No request's head has been read yet.
        self._first = True
        # Where the parser is: between the first and last byte of a request, and past its head.
        self._receiving = False
        self._in_body = False
        # Whether the door has answered the request that the parser is in; how many in this turn.
        self._turned_away = False
        self._turned_now = 0
        # Requests whose heads are read and whose answers are not complete.
        self._unanswered = 0
        # Bytes that have led to nothing yet: to no head, no chunk, no piece of a body.
        self._pending_bytes = 0
        self._dropped_bytes = 0
        self._too_large = False
        # How many pieces of what was received wait for their turn.
        self._in_line = 0
        # Nothing is parsed any more; and beyond that, the last answer is out.
        self._deaf = False
        self._lingering = False

    # What the loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in the place of others that only wait for their client.

        Where all are being worked on it is refused with 503 and Retry-After, which a client or
        balancer understands; a bare close would look like a fault of the network.
        """
        super().connection_made(transport)
        self._wire = transport
        self.transport = cast("asyncio.Transport", _Door(transport, self._close))
        self._await_client(self.limits.head_seconds)
        if len(self.connections) > self.limits.connections:
            self._make_room()
        if len(self.connections) > self.limits.connections:
            self._refuse(503)

    def data_received(self, data: bytes) -> None:
        """Something has come; whether it is looked at now is for the turns to say."""
        self.turns.receive(self, data)

    def queue_up(self) -> None:
        """What has come has to wait, and nothing more is read: now the client waits for us."""
        self._in_line += 1
        self.since = self._now()
        self._wire.pause_reading()

    def step_up(self) -> bool:
        """It is our turn; whether the client is still there."""
        self._in_line -= 1
        if self._wire.is_closing():
            return False
        if not self._in_line and not self.flow.read_paused:
            self._wire.resume_reading()
        return True

    def receive(self, data: bytes) -> None:
        """Parse, or drop what is no longer of interest."""
        self._turned_now = 0
        self._receive(data)

    def _receive(self, data: bytes | memoryview) -> None:
        if self._deaf:
            self._drop(len(data))
            return
        if len(data) > self.limits.head_bytes:
            # Piece by piece, so that the limits are looked at before much has been built.
            self._receive_pieces(data)
            return
        self._pending_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:
            # We speak nothing but HTTP/1.1. The request is answered as such; what follows it is not
            # parsed, since the parser has taken it for another protocol.
            self._stop_listening()
        except HttpParserError:
            if not self._deaf:
                self._fail(431 if self._too_large else 400)
        else:
            if self._receiving:
                self._check_received(len(data))

    def pause_writing(self) -> None:
        """The client leaves answers unread."""
        super().pause_writing()
        self.unread_deadline = self._now() + self.limits.unread_seconds

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.unread_deadline = inf

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a request. The very first one's time runs since the connection."""
        super().on_message_begin()
        self._receiving = True
        self._turned_away = False
        if not self._first and not self._unanswered:
            self._await_client(self.limits.head_seconds)

    def on_headers_complete(self) -> None:
        """Answer at the door, start the app, or queue behind requests that were sent before."""
        limits = self.limits
        if self._deaf or len(self.pipeline) >= limits.pipelined:
            raise _Refused
        if len(self.headers) > limits.fields or self._pending_bytes > limits.head_bytes:
            self._measure_head()
        answer = None if self._must_queue() else self._ask_door()
        if answer is None:
            super().on_headers_complete()
            self._unanswered += 1
        # Trailers go nowhere: the app has its headers already.
        self.headers = []
        self._first = False
        self._in_body = True
        self._pending_bytes = 0
        self._await_client(limits.body_seconds)
        if answer is not None:
            self._turn_away(answer)

    def on_chunk_header(self) -> None:
        """A chunk's size and extensions are read."""
        self._pending_bytes = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._pending_bytes = 0
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if not self._turned_away:
            super().on_message_complete()
        self._receiving = self._in_body = False
        self._pending_bytes = 0
        if self._unanswered:
            self.deadline = inf
        elif not self._lingering:
            self._await_client(self.limits.idle_seconds)

    # What the request's cycle, the server's tick and the server's end call.

    def on_response_complete(self) -> None:
        """Turn to the next request, or wait for one.

        Replaces uvicorn's, whose keep-alive timer is lost when the rest of a body comes after the
        answer: the connection would then stay for ever.
        """
        self.server_state.total_requests += 1
        if self._lingering or self._wire.is_closing():
            return
        self._unanswered -= 1
        self._dropped_bytes = 0
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._in_body:
            self._await_rest()
        else:
            limits = self.limits
            self._await_client(limits.head_seconds if self._receiving else limits.idle_seconds)

    def expire(self) -> None:
        """A deadline has passed."""
        now = self._now()
        if self._in_line and self.unread_deadline > now:
            # It is due as soon as it has had its turn.
            return
        if self._deaf or self._wire.is_closing() or self.unread_deadline <= now:
            self._wire.abort()
        elif not self._receiving:
            self._hang_up()
        elif self.flow.read_paused or self._unanswered > 1:
            # It is we who do not read, since the app has enough to do.
            self.deadline = now + self.limits.body_seconds
        else:
            self._fail(408)

    def shutdown(self) -> None:
        """Close now, or after the answers under way."""
        if self._unanswered:
            super().shutdown()
        else:
            self._hang_up()

    def abort(self) -> None:
        """Cut the connection off."""
        self._wire.abort()

    # What it looks at while it receives.

    def _receive_pieces(self, data: bytes | memoryview) -> None:
        view, size = memoryview(data), self.limits.head_bytes
        for start in range(0, len(data), size):
            if not self._wire.is_closing():
                self._receive(view[start : start + size])

    def _measure_head(self) -> None:
        """The head, or what was received with its end, is large: look closer."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.head_bytes or len(self.headers) > self.limits.fields:
            self._too_large = True
            raise _Refused

    def _check_received(self, count: int) -> None:
        """Look at a request of which only a part is here: endless lines reach no callback."""
        limits = self.limits
        if self._pending_bytes > limits.head_bytes or len(self.headers) > limits.fields:
            self._fail(431)
        elif self._in_body and not self._unanswered:
            self._drop(count)

    def _await_client(self, seconds: float) -> None:
        """It is the client's turn, for so long."""
        self.since = self._now()
        self.deadline = self.since + seconds

    def _await_rest(self) -> None:
        """The answer is out before the whole request was in."""
        self.deadline = min(self.deadline, self._now() + self.limits.linger_seconds)

    # What the door answers.

    def _must_queue(self) -> bool:
        """Whether others are to be answered first, or their answers are not even read."""
        return bool(self._unanswered) or self.flow.write_paused or self.parser.should_upgrade()

    def _ask_door(self) -> Answer | None:
        answer = self.door(self.parser.get_method(), self.url, self.headers)
        if answer is not None:
            self._turned_now += 1
            if self._turned_now > self.limits.pipelined:
                raise _Refused
        return answer

    def _turn_away(self, answer: Answer) -> None:
        """Send an answer as uvicorn would have sent the app's; the body is dropped as it comes."""
        self._turned_away = True
        self._dropped_bytes = 0
        keeps = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        ends = not keeps and not answer.closes
        headers = [*answer.headers, (b"connection", b"close")] if ends else answer.headers
        body = b"" if self.parser.get_method() == b"HEAD" else answer.body
        self._write_answer(answer.status, headers, body)
        if answer.closes or ends:
            self._linger()
        else:
            self._await_rest()

    def _write_answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        known = [*self.server_state.default_headers, *headers]
        lines = [b"%b: %b\r\n" % header for header in known]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))

    # Who makes room.

    def _make_room(self) -> None:
        """Close those whose client has let us wait the longest, a few at once since we look at all.

        A client that has just connected, or just had its answer, is the last to go.
        """
        others = [one for one in self._others() if one.waits_for_client()]
        most = 1 + self.limits.connections // 50
        for one in heapq.nsmallest(most, others, key=lambda one: one.since):
            self.refused(503)
            one.abort()
            self.connections.discard(one)

    def _others(self) -> list["BoundedProtocol"]:
        known = cast("list[BoundedProtocol]", list(self.connections))
        return [one for one in known if one is not self]

    def waits_for_client(self) -> bool:
        """Whether nothing is lost but what the client has not finished, or has had."""
        return self._in_body or not self._unanswered

    # How it ends.

    def _fail(self, status: int) -> None:
        """Answer with `status` if an answer is due, and end; nothing more can be understood."""
        if not self._in_body:
            if self._unanswered:
                self._stop_listening()
            else:
                self._refuse(status)
        elif self._unanswered == 1 and not self.cycle.response_started:
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
            self._refuse(status)
        else:
            self._wire.abort()

    def _stop_listening(self) -> None:
        """Answer what has been understood, then close."""
        self._deaf = True
        self.cycle.keep_alive = False
        self.deadline = inf

    def _refuse(self, status: int) -> None:
        self.refused(status)
        body = b'{"error":"%b"}' % _ANSWERS[status]
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if status == 503:  # noqa: PLR2004 - the one refusal that is not the client's fault
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
        self._write_answer(status, headers, body)
        self._linger()

    def _close(self) -> None:
        """Close as uvicorn wants it, unless bytes may be under way that nobody has read."""
        if self._wire.is_closing() or not (self._receiving or self._deaf or self.pipeline):
            self._hang_up()
        elif not self._lingering:
            self._linger()

    def _linger(self) -> None:
        """Say that no more will be said, and drop what still comes, until the client closes."""
        self._deaf = self._lingering = True
        self._unanswered = 0
        self.pipeline.clear()
        self._await_client(self.limits.linger_seconds)
        self.flow.resume_reading()
        # The client may be gone already, which its loop has not told us yet.
        with contextlib.suppress(OSError, RuntimeError):
            self._wire.write_eof()

    def _drop(self, count: int) -> None:
        self._dropped_bytes += count
        if self._dropped_bytes > self.limits.linger_bytes:
            self._wire.abort()

    def _hang_up(self) -> None:
        # Closing waits for what is still unsent; the deadline ends that too.
        self.deadline = self._now() + self.limits.linger_seconds
        self._wire.close()


def bounded(given: Limits, report: Callable[[int], None], keeper: Door) -> type[BoundedProtocol]:
    """The protocol for one endpoint; uvicorn makes an instance for each connection."""

    class Bounded(BoundedProtocol):
        limits = given
        refused = staticmethod(report)
        door = staticmethod(keeper)
        turns = Turns(given.turn_seconds)

    return Bounded
