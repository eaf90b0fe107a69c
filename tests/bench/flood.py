"""Signed webhooks during a flood of strangers' requests, which one core has to take all.

The figure that counts is the signed ones' slowest answer: Telnyx waits for two seconds.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from tests.bench.cores import LOAD_CORE, SERVER_CORE, on_core
from tests.bench.load import signed_requests
from tests.world.flood import KINDS, PATH
from tests.world.processes import Process, wait_until, web
from tests.world.signing import Signer
from tests.world.valkey import Valkey

SECONDS: Final = 6.0
SENDERS: Final = 8
"""Half of them keep their connection, half open one for each webhook."""
PAUSE_SECONDS: Final = 0.02
SEED: Final = 7
_SETTLE_SECONDS: Final = 1.0
_GIVEN_UP_SECONDS: Final = 10.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Signed:
    """What became of the signed ones, in seconds."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def at(self, share: float) -> float:
        """The latency in milliseconds that this share of them did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


@dataclass(frozen=True)
class Result:
    """One kind of flood."""

    kind: str
    sent_per_second: float
    opened_per_second: float
    answered: dict[str, int]
    busy: float
    """The share of its core that the web process used."""
    microseconds: float
    """Of its time, for each of the strangers' requests that were answered."""
    signed: Signed


def run() -> list[Result]:
    """Without a flood, and then each kind of it, each against a fresh process."""
    return [_measure(kind) for kind in ("", *KINDS)]


def _measure(kind: str) -> Result:
    with Valkey() as valkey:
        on_core(valkey.process.pid, LOAD_CORE)
        server = web(redis_url=valkey.url, public_key=Signer(SEED).public_key)
        with server:
            server.wait_ready()
            on_core(server.pid, SERVER_CORE)
            port = int(server.environ["TOLLWATCH_PORT"])
            with _flooding(kind, port) as flood:
                before = _cpu_seconds(server.pid)
                signed = uvloop.run(probe(port, SECONDS))
                busy = (_cpu_seconds(server.pid) - before) / SECONDS
                return _result(kind, flood, busy, signed)


def _result(kind: str, flood: Process | None, busy: float, signed: Signed) -> Result:
    found: dict[str, Any] = {"sent": 0, "opened": 0, "statuses": {}, "seconds": 1}
    if flood:
        flood.wait()
        found = json.loads(flood.lines[-1])
    seconds, statuses = found["seconds"], found["statuses"]
    per_second = sum(statuses.values()) / seconds
    return Result(
        kind or "none",
        found["sent"] / seconds,
        found["opened"] / seconds,
        statuses,
        busy,
        busy / per_second * 1e6 if per_second else 0,
        signed,
    )


@contextmanager
def _flooding(kind: str, port: int) -> Iterator[Process | None]:
    """The flood, at its height. It must not keep those from their core who measure."""
    if not kind:
        yield None
        return
    seconds = str(SECONDS + 2 * _SETTLE_SECONDS)
    command = [sys.executable, "-m", "tests.world.flood", kind, str(port), seconds]
    with Process("flood", command) as flood:
        on_core(flood.pid, LOAD_CORE)
        os.setpriority(os.PRIO_PROCESS, flood.pid, 10)
        height = time.monotonic() + _SETTLE_SECONDS
        wait_until(lambda: time.monotonic() > height, description="the flood's height")
        yield flood


def _cpu_seconds(pid: int) -> float:
    """User and system time so far.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def probe(port: int, seconds: float) -> Signed:
    """Signed webhooks at a steady pace for so long, and what became of them."""
    found, end = Signed(), time.monotonic() + seconds
    requests = signed_requests(Signer(SEED), int(SENDERS * seconds / PAUSE_SECONDS), PATH)
    senders = (_send(port, requests, end, found, keep=n % 2 == 0) for n in range(SENDERS))
    await asyncio.gather(*senders)
    return found


async def _send(port: int, requests: list[bytes], end: float, found: Signed, *, keep: bool) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while time.monotonic() < end:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_GIVEN_UP_SECONDS):
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                found.statuses[await _ask(*connection, requests.pop())] += 1
        except (OSError, EOFError, TimeoutError) as error:
            found.statuses[type(error).__name__] += 1
            connection = None
        found.seconds.append(time.perf_counter() - begun)
        if connection and not keep:
            connection[1].close()
            connection = None
        await asyncio.sleep(PAUSE_SECONDS)
    if connection:
        with closing(connection[1]):
            pass


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return head[9:12].decode()
