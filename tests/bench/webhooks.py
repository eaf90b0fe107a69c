"""Webhooks acknowledged per second on one core, beside the least and the usual one could do."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.cores import LOAD_CORE, SERVER_CORE, on_core
from tests.bench.endpoints import PATH
from tests.world.processes import ROOT, Process, clean_environ, free_port, wait_until, web
from tests.world.signing import Signer
from tests.world.valkey import Valkey

KINDS: Final = ("bare", "enqueue_job", "tollwatch")
REQUESTS: Final = 15_000
CONNECTIONS: Final = 64
ROUNDS: Final = 3
SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one endpoint."""

    kind: str
    per_second: float
    p50_ms: float
    p99_ms: float
    accepted: int


def run(rounds: int = ROUNDS) -> list[list[Result]]:
    """Each round measures all kinds one after the other, so that a ratio is of one moment."""
    return [[_measure(kind) for kind in KINDS] for _ in range(rounds)]


def _measure(kind: str) -> Result:
    with Valkey() as valkey:
        on_core(valkey.process.pid, LOAD_CORE)
        with _serving(kind, valkey) as port:
            found = _load(port)
    accepted = found["statuses"].get("202", 0)
    if accepted != REQUESTS:
        raise SystemExit(f"{kind}: {REQUESTS} requests, answers {found['statuses']}")
    return Result(kind, found["per_second"], found["p50_ms"], found["p99_ms"], accepted)


@contextmanager
def _serving(kind: str, valkey: Valkey) -> Iterator[int]:
    process, port = _server(kind, valkey)
    with process:
        on_core(process.pid, SERVER_CORE)
        wait_until(lambda: _answers(process, port), description=f"{kind} answers")
        yield port


def _server(kind: str, valkey: Valkey) -> tuple[Process, int]:
    if kind == "tollwatch":
        server = web(redis_url=valkey.url, public_key=Signer(SEED).public_key)
        return server, int(server.environ["TOLLWATCH_PORT"])
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.endpoints", kind, str(port), valkey.url]
    return Process(kind, command), port


def _answers(process: Process, port: int) -> bool:
    if not process.is_running:
        raise process.failure("before it answered")
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _load(port: int) -> dict[str, Any]:
    arguments = [str(port), PATH, str(REQUESTS), str(CONNECTIONS), str(SEED)]
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.bench.load", *arguments],
        cwd=ROOT,
        env=clean_environ({}),
        capture_output=True,
        check=True,
        timeout=120,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
