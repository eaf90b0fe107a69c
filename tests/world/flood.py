"""Strangers who send as much as one core can: `python -m tests.world.flood KIND PORT SECONDS`.

They do not hold the account's key. Prints how much was sent and answered, as JSON.
"""

import argparse
import contextlib
import json
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tests.world.signing import Signer

PATH: Final = "/webhooks/telnyx"
KINDS: Final = {
    "no headers": "requests without a signature, sixteen at once",
    "wrong signature": "well-formed and fresh, signed with another key",
    "slow bodies": "the same, but each body comes a byte at a time and never ends",
    "idle connections": "connections that say nothing; when one is closed, another is opened",
    "new connections": "a connection for each request without a signature",
}
CONNECTIONS: Final = {
    "no headers": 64,
    "wrong signature": 64,
    "slow bodies": 2000,
    "idle connections": 2000,
    "new connections": 64,
}
_AHEAD: Final = 16
_DRIBBLE_SECONDS: Final = 0.5
_BODY: Final = b'{"data":{"event_type":"call.hangup","id":"1","payload":{"call_session_id":"s"}}}'
_STRANGER: Final = Signer(31_337)

_Ready: TypeAlias = "list[tuple[selectors.SelectorKey, int]]"


def request(kind: str, *, length: int = len(_BODY)) -> bytes:
    """One request of that kind, with the beginning of its body."""
    lines = [f"POST {PATH} HTTP/1.1", "host: localhost", "content-type: application/json"]
    if kind in {"wrong signature", "slow bodies"}:
        signed = _STRANGER.headers(_BODY, at=time.time())
        lines += [f"{name}: {value}" for name, value in signed.items()]
    lines += [f"content-length: {length}", "", ""]
    return "\r\n".join(lines).encode() + (_BODY if length == len(_BODY) else b"{")


@dataclass(slots=True)
class Stranger:
    """One connection: what it has still to hear."""

    socket: socket.socket
    awaited: int = 0


@dataclass
class Flood:
    """So many connections of one kind to one port."""

    kind: str
    port: int
    connections: int
    sent: int = 0
    opened: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._request = self._prepared()
        self._dribbled = time.monotonic()

    def _prepared(self) -> bytes:
        match self.kind:
            case "slow bodies":
                return request(self.kind, length=100_000)
            case "idle connections":
                return b""
            case "no headers" | "wrong signature":
                return request(self.kind) * _AHEAD
            case _:
                return request(self.kind)

    def run(self, seconds: float) -> None:
        """Flood for so long."""
        end = time.monotonic() + seconds
        with contextlib.ExitStack() as closing:
            closing.callback(self._close)
            while time.monotonic() < end:
                # Some at a time, so that those which are there already have their turn.
                for _ in range(min(64, self.connections - len(self._selector.get_map()))):
                    self._open()
                self._turn(self._selector.select(0.05))

    def _turn(self, ready: _Ready) -> None:
        for key, _events in ready:
            self._hear(key.data)
        if self.kind == "slow bodies" and time.monotonic() - self._dribbled > _DRIBBLE_SECONDS:
            self._dribbled = time.monotonic()
            for key in list(self._selector.get_map().values()):
                self._say(key.data, b"x")

    def _open(self) -> None:
        one = Stranger(socket.socket())
        one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # To loopback this is done at once, unless the server's queue is full.
        one.socket.settimeout(0.2)
        try:
            one.socket.connect(("127.0.0.1", self.port))
        except OSError:
            one.socket.close()
            return
        one.socket.setblocking(False)
        self.opened += 1
        self._selector.register(one.socket, selectors.EVENT_READ, one)
        self._ask(one)

    def _ask(self, one: Stranger) -> None:
        count = _AHEAD if self.kind in {"no headers", "wrong signature"} else 1
        if self._request and self._say(one, self._request):
            self.sent += count
            one.awaited = count

    def _say(self, one: Stranger, data: bytes) -> bool:
        try:
            one.socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            self._forget(one)
            return False
        return True

    def _hear(self, one: Stranger) -> None:
        try:
            heard = one.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._forget(one)
            return
        answers = heard.split(b"HTTP/1.1 ")[1:]
        self.statuses.update(answer[:3].decode() for answer in answers)
        one.awaited -= len(answers)
        if one.awaited <= 0 and self.kind != "slow bodies":
            self._forget(one) if self.kind == "new connections" else self._ask(one)

    def _forget(self, one: Stranger) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(one.socket)
        one.socket.close()

    def _close(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._forget(key.data)
        self._selector.close()


def main() -> None:
    """Flood, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--connections", type=int)
    given = parser.parse_args()
    flood = Flood(given.kind, given.port, given.connections or CONNECTIONS[given.kind])
    begun = time.monotonic()
    flood.run(given.seconds)
    seconds = time.monotonic() - begun
    found = {"sent": flood.sent, "opened": flood.opened, "statuses": flood.statuses}
    print(json.dumps({**found, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
