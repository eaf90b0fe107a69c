"""A backlog of 100,000 sessions after three days without a worker, drained while calls go on.

What is shown: how fast, that the oldest come first, that calls which end now do not wait behind
them, and that a worker's memory does not grow with the backlog.
"""

import asyncio
import itertools
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from redis.asyncio import Redis

from service import keys
from service.events import Scheduling
from service.records import Event
from service.store import Store
from tests.bench.cores import LOAD_CORE, SERVER_CORE, on_core
from tests.world.processes import Process, Server, free_port, wait_until, wait_until_async, worker
from tests.world.valkey import Valkey

SESSIONS: Final = 100_000
CONCURRENCY: Final = 200
AWAY_SECONDS: Final = 3 * 86_400
# One call a second ends while the backlog is drained.
FRESH_EVERY_SECONDS: Final = 1.0
_AGES: Final = "1,2"
_BATCH: Final = 5_000
_PATIENCE_SECONDS: Final = 1_500.0


@dataclass(frozen=True, slots=True)
class Result:
    """One run. Places count claimed sessions, seconds are of the wall."""

    sessions: int
    seconds: float
    fresh: int
    slowest_fresh_seconds: float
    """From the moment at which a call that ended meanwhile was due until its verdict."""
    overtaken_by: int
    """How many of the backlog were judged meanwhile, at most."""
    displaced: int
    """By how many places a verdict of the backlog came too late, at most."""
    start_mib: float
    peak_mib: float
    end_mib: float

    @property
    def per_second(self) -> float:
        """Verdicts of the backlog a second."""
        return self.sessions / self.seconds


@dataclass(slots=True)
class Verdicts:
    """The worker's log: which session was judged when."""

    at: dict[str, float] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Note a verdict."""
        if '"event":"verdict"' in line:
            self.at[json.loads(line)["session_id"]] = time.time()


def run(count: int = SESSIONS) -> Result:
    """Prepare the backlog, start one worker, and wait until nothing is due any more."""
    port = free_port()
    command = [sys.executable, "-m", "tests.world", "--port", str(port)]
    # Costs are there when the call ends.
    world = Process("world", [*command, "--time-scale", "1000"])
    with Valkey() as valkey, world:
        on_core(valkey.process.pid, LOAD_CORE)
        on_core(world.pid, LOAD_CORE)
        wait_until(lambda: any("SLACK" in line for line in world.lines), description="the world")
        return asyncio.run(_run(valkey, f"http://127.0.0.1:{port}", count))


async def _run(valkey: Valkey, url: str, count: int) -> Result:
    redis = Redis.from_url(valkey.url)
    store = Store(redis, retention_ms=30 * 86_400_000)
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as control:
        about = (await control.get("/control/world")).json()
        backlog: list[str] = []
        while len(backlog) < count:
            order = min(_BATCH, count - len(backlog))
            backlog += await _ended(control, store, order, AWAY_SECONDS - len(backlog) // 10)
        verdicts = Verdicts()
        process = _worker(valkey, about, verdicts)
        with process:
            on_core(process.pid, SERVER_CORE)
            result = await _drain(control, store, redis, process, backlog, verdicts)
    await redis.aclose()
    return result


def _worker(valkey: Valkey, about: dict[str, Any], verdicts: Verdicts) -> Server:
    return worker(
        redis_url=valkey.url,
        api_url=about["telnyx_url"],
        api_key=about["api_key"],
        settings={
            "TOLLWATCH_FETCH_AFTER_SECONDS": _AGES,
            "TOLLWATCH_WORKER_CONCURRENCY": str(CONCURRENCY),
            "TOLLWATCH_RECONCILE_MINUTES": "0",
        },
        on_line=verdicts.read,
    )


async def _ended(
    control: httpx.AsyncClient, store: Store, count: int, seconds_ago: float
) -> list[str]:
    """So many calls that ended then, a millisecond apart, recorded as the web process does."""
    order = {"kind": "failed", "count": count, "events": "none"}
    answer = await control.post("/control/calls", json={**order, "ended_seconds_ago": seconds_ago})
    sessions: list[str] = [call["session_id"] for call in answer.json()["calls"]]
    end_ms = int((time.time() - seconds_ago) * 1000)
    for number, session_id in enumerate(sessions):
        event = Event(kind="call.hangup", at_ms=end_ms + number, ends=True)
        ended = Scheduling(session_id, "1", event, pulls=False)
        await store.record(ended, now_ms=end_ms + number)
    return sessions


async def _drain(
    control: httpx.AsyncClient,
    store: Store,
    redis: Redis,
    process: Server,
    backlog: Sequence[str],
    verdicts: Verdicts,
) -> Result:
    await asyncio.to_thread(process.wait_ready)
    start_mib = peak_mib = _mib(process.pid)
    begun, fresh = time.time(), dict[str, float]()
    last, deadline = backlog[-1], begun + _PATIENCE_SECONDS
    for number in itertools.count(1):
        if last in verdicts.at and len(verdicts.at) >= len(backlog):
            break
        if time.time() > deadline or not process.is_running:
            raise SystemExit(f"{len(verdicts.at):,} of {len(backlog):,} sessions were judged")
        (session_id,) = await _ended(control, store, 1, 2.5)
        fresh[session_id] = time.time()
        peak_mib = max(peak_mib, _mib(process.pid))
        await asyncio.sleep(max(0.0, begun + number * FRESH_EVERY_SECONDS - time.time()))
    seconds = max(verdicts.at[each] for each in backlog) - begun

    async def is_done() -> Any:
        return not (await redis.zcard(keys.ENDED) + await redis.zcard(keys.DUE))

    await wait_until_async(is_done, description="an empty line", timeout_seconds=60)
    await wait_until_async(lambda: fresh.keys() <= verdicts.at.keys(), description="all verdicts")
    return Result(
        sessions=len(backlog),
        seconds=seconds,
        fresh=len(fresh),
        slowest_fresh_seconds=max(verdicts.at[each] - due for each, due in fresh.items()),
        overtaken_by=_overtaken(backlog, fresh, verdicts),
        displaced=_displaced(backlog, verdicts),
        start_mib=start_mib,
        peak_mib=peak_mib,
        end_mib=_mib(process.pid),
    )


def _displaced(backlog: Sequence[str], verdicts: Verdicts) -> int:
    judged = sorted(backlog, key=lambda each: verdicts.at[each])
    wanted = {each: place for place, each in enumerate(backlog)}
    return max(place - wanted[each] for place, each in enumerate(judged))


def _overtaken(backlog: Sequence[str], fresh: Mapping[str, float], verdicts: Verdicts) -> int:
    times = sorted(verdicts.at[each] for each in backlog)
    return max(
        bisect_left(times, verdicts.at[each]) - bisect_left(times, due)
        for each, due in fresh.items()
    )


def _mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the worker is gone")
