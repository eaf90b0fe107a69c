"""Sessions per second by one worker, against a Telnyx that takes 200 ms for each answer.

A session counts once it has settled, which takes two fetches, has been judged and is stored.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx
from redis.asyncio import Redis

from service import keys
from service.events import Scheduling
from service.records import Event, State
from service.store import Store
from tests.bench.cores import LOAD_CORE, SERVER_CORE, on_core
from tests.world.processes import Process, free_port, wait_until, wait_until_async, worker
from tests.world.valkey import Valkey

# Enough for the start of the process and the wait for the second age to weigh little.
SESSIONS: Final = 12_000
CONCURRENCY: Final = 400
LATENCY_MS: Final = 200
ENDED_SECONDS_AGO: Final = 600
# The first age has passed for all, so all are due at once. However late a first fetch is, there
# is an age two seconds after it, and the last one is never reached.
AGES: Final = ",".join(map(str, [*range(600, 1200, 2), 90_000]))


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    per_second: float
    seconds: float
    fetches: int


def run() -> Result:
    """Prepare, start the worker, wait for the last verdict."""
    port = free_port()
    command = [sys.executable, "-m", "tests.world", "--port", str(port)]
    world = Process("world", [*command, "--latency-ms", str(LATENCY_MS)])
    with Valkey() as valkey, world:
        on_core(valkey.process.pid, LOAD_CORE)
        on_core(world.pid, LOAD_CORE)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: any("SLACK" in line for line in world.lines), description="the world")
        return asyncio.run(_run(valkey, url))


async def _run(valkey: Valkey, url: str) -> Result:
    redis = Redis.from_url(valkey.url)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as control:
        about = (await control.get("/control/world")).json()
        await _prepare(control, Store(redis, retention_ms=86_400_000))
        seconds = await _work(valkey, redis, about)
        await _check(redis)
        fetches = (await control.get("/control/requests")).json()["count"]
    await redis.aclose()
    return Result(SESSIONS / seconds, seconds, fetches)


async def _prepare(control: httpx.AsyncClient, store: Store) -> None:
    order = {"kind": "guide", "count": SESSIONS, "events": "none"}
    answer = await control.post(
        "/control/calls", json={**order, "ended_seconds_ago": ENDED_SECONDS_AGO}
    )
    end_ms = int(time.time() * 1000) - ENDED_SECONDS_AGO * 1000
    event = Event(kind="call.hangup", at_ms=end_ms, ends=True, start_ms=end_ms - 152_000)
    sessions = [call["session_id"] for call in answer.json()["calls"]]
    ended = [Scheduling(session_id, "1", event, pulls=False) for session_id in sessions]
    await asyncio.gather(*(store.record(each, now_ms=end_ms) for each in ended))


async def _work(valkey: Valkey, redis: Redis, about: dict[str, Any]) -> float:
    settings = {
        "TOLLWATCH_FETCH_AFTER_SECONDS": AGES,
        "TOLLWATCH_RECHECK_AFTER_SECONDS": "0",
        "TOLLWATCH_WORKER_CONCURRENCY": str(CONCURRENCY),
    }
    process = worker(
        redis_url=valkey.url,
        api_url=about["telnyx_url"],
        api_key=about["api_key"],
        settings=settings,
    )
    with process:
        on_core(process.pid, SERVER_CORE)
        begun = time.perf_counter()

        async def is_done() -> Any:
            if not process.is_running:
                raise process.failure("while it worked")
            return not (await redis.zcard(keys.ENDED) + await redis.zcard(keys.DUE))

        await wait_until_async(is_done, description="all settled", timeout_seconds=180)
        return time.perf_counter() - begun


async def _check(redis: Redis) -> None:
    """A session that ended in another way than by settling would flatter the figure."""
    store = Store(redis, retention_ms=86_400_000)
    count = 0
    async for session_id in store.session_ids():
        session = await store.session(session_id)
        if session is None:
            raise SystemExit(f"{session_id} is gone")
        fetches = len(session.watch.fetches)
        settled = session.verdict is not None and session.verdict.settled
        if session.state is not State.VERDICT or fetches != 2 or not settled:
            raise SystemExit(f"{session.id}: {session.state}, {fetches} fetches, {settled=}")
        count += 1
    if count != SESSIONS:
        raise SystemExit(f"{count} of {SESSIONS} sessions were stored")
