"""What it takes to learn what calls usually cost: Redis' memory, and the time for one session.

Calls to AI assistants from a simulated month, one after the other, as a worker learns them. Their
cohort is that of all such calls: none has more different ones, so none takes more memory.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from service import keys
from tests.world.month.customers import CUSTOMERS
from tests.world.month.month import make
from tests.world.month.table import TUNING_SEEDS
from tests.world.valkey import Valkey
from workers.baselines import Baselines
from workers.detection.baseline import DAY_MS, lesson_of, sheet_of
from workers.detection.measure import Measured, measure
from workers.detection.opinion import Gates, opinion_of
from workers.judge import Case, known_of
from workers.policy import BUILT_IN
from workers.recorded import read_line

CALLS: Final = (500, 5_000)
COHORT: Final = "*/*/*/assistant"
_CUSTOMER: Final = "many"
_TIMED: Final = 200
_RETENTION_MS: Final = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class Session:
    """One call, measured."""

    measured: Measured
    ended_ms: int

    @property
    def day(self) -> int:
        """Since 1970."""
        return self.ended_ms // DAY_MS


@dataclass(frozen=True, slots=True)
class Result:
    """Figures after so many calls: bytes and microseconds, the median of 200 sessions."""

    calls: int
    cohort_bytes: int
    fields: int
    finest_bytes: float
    """Of the finest cohorts, on average."""
    lesson_bytes: float
    """What one session has taught, with its key."""
    at_hand: float
    """Judging by baselines that are at hand: no round trip."""
    read: float
    """Judging by baselines that have to be read: one round trip."""
    learned: float
    """Learning: one round trip."""


def run() -> list[Result]:
    """Learns from 5,000 calls, and measures on the way."""
    with Valkey() as valkey:
        return asyncio.run(_run(valkey.url))


async def _run(url: str) -> list[Result]:
    sessions = list(islice(_sessions(), CALLS[-1] + _TIMED))
    results: list[Result] = []
    async with Redis.from_url(url) as redis:
        baselines = Baselines(redis, retention_ms=_RETENTION_MS)
        for number, session in enumerate(sessions[: CALLS[-1]], 1):
            await _learn(baselines, str(number), session)
            if number in CALLS:
                results.append(await _measured(redis, number, sessions[number : number + _TIMED]))
    return results


def _sessions() -> Any:
    for line in make(CUSTOMERS[_CUSTOMER], TUNING_SEEDS[0]).lines():
        recorded = read_line(msgspec.json.encode(line))
        case = Case(recorded.tree, recorded.call)
        known = known_of(recorded.call, recorded.tree)
        measured = measure(recorded.tree, known, case.duration_seconds)
        if measured.cohort.kind == "assistant":
            yield Session(measured, recorded.call.end_ms or 0)


async def _measured(redis: Redis, calls: int, sessions: Sequence[Session]) -> Result:
    sheets = [keys.sheet_key(COHORT, sheet_of(sessions[0].day) - back) for back in (0, 1)]
    finest = [
        await redis.memory_usage(name, samples=0)
        async for name in redis.scan_iter(f"{keys.BASELINE}*/US/assistant:*")
        if not name.decode().startswith(f"{keys.BASELINE}*")
    ]
    lessons = [
        await redis.memory_usage(keys.lesson_key(str(number)), samples=0)
        for number in range(1, _TIMED + 1)
    ]
    fields: list[int] = [await redis.hlen(key) for key in sheets]  # type: ignore[misc]
    gates = Gates.of(BUILT_IN)
    at_hand, cold = (Baselines(redis, retention_ms=_RETENTION_MS) for _ in range(2))

    async def judge(baselines: Baselines, session: Session) -> None:
        ladder = await baselines.ladder(session.measured.ladder, session.day)
        opinion_of(session.measured, ladder, gates)

    async def judge_cold(session: Session) -> None:
        await judge(Baselines(redis, retention_ms=_RETENTION_MS), session)

    for session in sessions:
        await judge(at_hand, session)
    return Result(
        calls=calls,
        cohort_bytes=sum([await redis.memory_usage(key, samples=0) or 0 for key in sheets]),
        fields=sum(fields),
        finest_bytes=sum(filter(None, finest)) / max(1, len(finest)),
        lesson_bytes=sum(filter(None, lessons)) / len(lessons),
        at_hand=await _microseconds(lambda session: judge(at_hand, session), sessions),
        read=await _microseconds(judge_cold, sessions),
        learned=await _microseconds(
            lambda session: _learn(cold, f"{calls}/{id(session)}", session), sessions
        ),
    )


async def _learn(baselines: Baselines, id: str, session: Session) -> None:
    lesson = lesson_of(session.measured, session.ended_ms)
    assert await baselines.learn(id, lesson, ended_ms=session.ended_ms)


async def _microseconds(
    work: Callable[[Session], Awaitable[None]], sessions: Sequence[Session]
) -> float:
    taken: list[float] = []
    for session in sessions:
        begun = time.perf_counter()
        await work(session)
        taken.append(time.perf_counter() - begun)
    return median(taken) * 1e6
