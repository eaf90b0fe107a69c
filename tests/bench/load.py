"""A load generator quick enough to keep one server busy: prepared bytes over kept connections.

Runs as a process of its own (`python -m tests.bench.load`), on another core than the server. Each
connection sends a request, waits for the whole answer, and sends the next: a closed loop.
"""

import asyncio
import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

from tests.world.signing import Signer

_HEAD_END: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Tally:
    """Latencies in seconds, and statuses."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


class Connection(asyncio.Protocol):
    """One kept connection of the closed loop."""

    def __init__(self, requests: "list[bytes]", tally: Tally, done: asyncio.Event) -> None:
        self._requests = requests
        self._tally = tally
        self._done = done
        self._buffer = b""
        self._begun = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(_HEAD_END)
        if not found or len(rest) < _content_length(head):
            return
        self._tally.seconds.append(time.perf_counter() - self._begun)
        status = head[9:12].decode()
        self._tally.statuses[status] = self._tally.statuses.get(status, 0) + 1
        self._buffer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done.set()

    def _next(self) -> None:
        assert self._transport
        if not self._requests:
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(self._requests.pop())


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def signed_requests(signer: Signer, count: int, path: str) -> list[bytes]:
    """Hangups of so many sessions, each signed, as bytes on the wire."""
    return [_request(signer, path) for _ in range(count)]


def _request(signer: Signer, path: str) -> bytes:
    session_id, leg_id = str(uuid.uuid4()), str(uuid.uuid4())
    payload = {
        "call_control_id": "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg",
        "connection_id": "2694492062593582591",
        "call_leg_id": leg_id,
        "call_session_id": session_id,
        "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
        "from": "+35319605860",
        "to": "+13129457420",
        "start_time": "2026-09-21T14:10:20.000000Z",
        "state": "hangup",
        "hangup_cause": "normal_clearing",
        "hangup_source": "caller",
        "sip_hangup_cause": "200",
        "call_quality_stats": {
            "inbound": {"mos": "4.50", "jitter_max_variance": "2.74", "packet_count": "591"},
            "outbound": {"packet_count": "0", "skip_packet_count": "0"},
        },
    }
    data = {
        "record_type": "event",
        "event_type": "call.hangup",
        "id": str(uuid.uuid4()),
        "occurred_at": "2026-09-21T14:13:20.521992Z",
        "payload": payload,
    }
    meta = {"attempt": 1, "delivered_to": "https://example.test/webhooks/telnyx"}
    body = json.dumps({"data": data, "meta": meta}).encode()
    headers = signer.headers(body, at=time.time())
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def run(port: int, requests: list[bytes], connections: int) -> dict[str, object]:
    """Send all requests over so many connections; rate and latencies."""
    tally, loop = Tally(), asyncio.get_running_loop()
    ends = [asyncio.Event() for _ in range(connections)]
    begun = time.perf_counter()
    for end in ends:
        await loop.create_connection(
            lambda end=end: Connection(requests, tally, end),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
    await asyncio.gather(*(end.wait() for end in ends))
    elapsed = time.perf_counter() - begun
    ordered = sorted(tally.seconds)
    return {
        "per_second": len(ordered) / elapsed,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
        "statuses": tally.statuses,
    }


def main() -> None:
    """`python -m tests.bench.load PORT PATH COUNT CONNECTIONS SEED`: the result as JSON."""
    port, path, count, connections, seed = sys.argv[1:]
    requests = signed_requests(Signer(int(seed)), int(count), path)
    print(json.dumps(uvloop.run(run(int(port), requests, int(connections)))))


if __name__ == "__main__":
    main()
