"""A real web process under whatever bytes come to its port, however they come."""

import contextlib
import itertools
import re
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.fuzz.strategies import CONVERSATIONS, PATH, STRANGER, Conversation
from tests.world.flood import request
from tests.world.processes import Server, read_event, wait_until, web
from tests.world.signing import Signer
from tests.world.valkey import Valkey

TELNYX: Final = Signer(0)
ALLOWED: Final = {
    "100",
    "200",
    "202",
    "400",
    "401",
    "404",
    "405",
    "408",
    "413",
    "415",
    "431",
    "503",
}
# The failing one is in the message, and finding a smaller one takes minutes.
NO_SHRINKING: Final = (Phase.explicit, Phase.generate)
NOT_BELIEVED: Final = b'{"error":"not a valid signature"}'
AT_ONCE: Final = 25
MOST_SERIES: Final = 500
LABELS: Final = frozenset({"outcome", "kind", "reason", "status", "le", "process", "version"})
HEARD_SECONDS: Final = 0.04
MIB: Final = 1 << 20
_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")
_BODY_OF_401: Final = re.compile(rb"HTTP/1\.1 401 .*?\r\n\r\n(.{33})", re.DOTALL)
_RESET: Final = struct.pack("ii", 1, 0)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(valkey: Valkey) -> Iterator[Server]:
    """One process for all of it."""
    with web(redis_url=valkey.url, public_key=TELNYX.public_key) as process:
        process.wait_ready()
        yield process


def signed(by: str) -> bytes:
    """A sound request, by somebody, of a session of its own."""
    body = (
        b'{"data":{"event_type":"call.hangup","id":"%d","payload":{"call_session_id":"f-%d"}}}'
        % (next(_numbers), next(_numbers))
    )
    if by == "nobody":
        return request("no headers")
    headers = (TELNYX if by == "telnyx" else STRANGER).headers(body, at=time.time())
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def talk(port: int, conversations: list[Conversation]) -> list[bytes]:
    """Hold all of them at once; what was heard on each."""
    heard = [b""] * len(conversations)
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as selector:
        sockets = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            for _ in conversations
        ]
        for number, one in enumerate(sockets):
            one.setblocking(False)
            selector.register(one, selectors.EVENT_READ, number)
        said = [conversation.pieces(signed) for conversation in conversations]
        for pieces in itertools.zip_longest(*said):
            for one, piece in zip(sockets, pieces, strict=True):
                with contextlib.suppress(OSError):
                    one.send(piece or b"")
        for one, conversation in zip(sockets, conversations, strict=True):
            leave(one, conversation.leaves)
        listen(selector, heard)
    return heard


def leave(one: socket.socket, how: str) -> None:
    """Half-close, or reset; the others are closed at the end."""
    with contextlib.suppress(OSError):
        if how == "half":
            one.shutdown(socket.SHUT_WR)
        if how == "resets":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def listen(selector: selectors.BaseSelector, heard: list[bytes]) -> None:
    """For a moment; the process need not have an answer for everything."""
    end = time.monotonic() + HEARD_SECONDS
    while selector.get_map() and (left := end - time.monotonic()) > 0:
        for key, _events in selector.select(left):
            piece = b""
            with contextlib.suppress(OSError):
                piece = key.fileobj.recv(65_536)  # type: ignore[union-attr]
            heard[key.data] += piece
            if not piece:
                selector.unregister(key.fileobj)


def look_at(said: Conversation, heard: bytes) -> Counter[str]:
    """Every answer is documented, and those who are not believed hear the same."""
    statuses = [status.decode() for status in _ANSWER.findall(heard)]
    assert set(statuses) <= ALLOWED, (said, heard)
    assert set(_BODY_OF_401.findall(heard)) <= {NOT_BELIEVED}, (said, heard)
    return Counter(statuses)


def resident_bytes(pid: int) -> int:
    """The memory that the process takes. https://man7.org/linux/man-pages/man5/proc.5.html."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_no_bytes_harm_the_process(server: Server, record_property: Any) -> None:
    """Whatever comes in whatever pieces: no error, no forged line, no memory, and it goes on."""
    port, statuses, connections = (
        int(server.environ["TOLLWATCH_PORT"]),
        Counter[str](),
        Counter[int](),
    )
    for _ in range(20):
        talk(port, [Conversation(signed("telnyx"), (), "waits")] * AT_ONCE)
    before, files = resident_bytes(server.pid), open_files(server.pid)

    @settings(phases=NO_SHRINKING)
    @given(conversations=st.lists(CONVERSATIONS, min_size=AT_ONCE, max_size=AT_ONCE))
    def any_bytes(conversations: list[Conversation]) -> None:
        for said, heard in zip(conversations, talk(port, conversations), strict=True):
            statuses.update(look_at(said, heard))
            connections[bool(heard)] += 1
        assert server.is_running, server.last_lines

    any_bytes()
    assert ask(server, signed("telnyx")) == "202"
    grown = resident_bytes(server.pid) - before
    record_property(
        "inputs",
        f"{connections.total():,} conversations on sockets, {statuses.total():,} answers "
        f"{dict(statuses)}, {grown / MIB:.1f} MiB more memory",
    )
    # The rest is up to chance.
    assert {"202", "400", "401"} <= set(statuses)
    assert connections.total() >= 1000
    assert grown < 32 * MIB
    wait_until(lambda: open_files(server.pid) <= files, description="the end of all connections")
    look_at_log(server.lines)
    look_at_metrics(server)


def ask(server: Server, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", int(server.environ["TOLLWATCH_PORT"])), 10) as one:
        one.sendall(request)
        return one.recv(65_536)[9:12].decode()


def look_at_log(lines: list[str]) -> None:
    """Each line is one JSON object of ours, and none is an error."""
    for line in lines:
        fields = read_event(line)
        assert fields.keys() >= {"timestamp", "level", "event"}, line
        assert line.isprintable()
        assert fields["level"] in {"info", "warning"}, line
        assert fields["event"].startswith(("webhook", "started")), line
        assert "exception" not in fields


def look_at_metrics(server: Server) -> None:
    """No label has more values than were meant, and none is long."""
    samples = scrape(server)
    assert len(samples) < MOST_SERIES
    labels = {(name, value) for sample in samples for name, value in sample.labels.items()}
    assert max(len(value) for _, value in labels) <= 100
    assert {name for name, _ in labels} == LABELS


def scrape(server: Server) -> list[Sample]:
    text = httpx.get(f"{server.admin_url}/metrics", trust_env=False).text
    return [s for family in text_string_to_metric_families(text) for s in family.samples]


def test_metrics_stay_few(server: Server) -> None:
    """However many types of event a signed sender makes up, few of them get a name."""
    url = f"{server.url}{PATH}"
    with httpx.Client(trust_env=False) as client:
        for number in range(300):
            body = b'{"data":{"event_type":"made.up.%d"}}' % number
            headers = TELNYX.headers(body, at=time.time()) | {"content-type": "application/json"}
            assert client.post(url, content=body, headers=headers).status_code == 200
    kinds = [s for s in scrape(server) if s.name == "tollwatch_events_total"]
    assert len(kinds) <= 121
    assert max(s.value for s in kinds if s.labels["kind"] == "other") >= 170
    look_at_metrics(server)
