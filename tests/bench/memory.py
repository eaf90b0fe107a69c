"""Bytes of Redis' memory for each session, at the stages of its life.

The growth of `used_memory` over many sessions, divided by their number: everything counts, keys,
sorted sets and what the allocator rounds up. Typical calls to an AI assistant, with the three
events that Telnyx sends of each.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from redis.asyncio import Redis

from service import keys
from service.events import Scheduling, read_event
from service.queue import session_line
from service.records import State
from service.store import Store
from tests.world.answers import Habits, Question, answer
from tests.world.model import Call
from tests.world.valkey import Valkey
from tests.world.webhooks import events_for
from tests.world.world import World
from workers.analysis import decode_analysis
from workers.attempt import Found, NothingYet
from workers.decide import Rules, decide
from workers.policy import BUILT_IN
from workers.products import CALL_SESSION
from workers.settle import Schedule
from workers.tree import build_tree

SESSIONS: Final = 20_000
_PAGE: Final = 250
_RETENTION_MS: Final = 30 * 86_400_000
_AGES: Final = (90, 300, 1800)
_STAGES: Final = (
    ("asked for, no cost yet", False),
    ("has a cost, waits for a second answer", True),
    ("finished, with a verdict", True),
)
_RULES: Final = Rules(Schedule.of_seconds(_AGES), BUILT_IN)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one session takes at one stage of its life, in bytes; `own` is its hash alone."""

    stage: str
    used: float
    own: float


def run(sessions: int = SESSIONS) -> list[Figure]:
    """Bring that many sessions through their lives, and weigh them on the way."""
    with Valkey() as valkey:
        return asyncio.run(_run(valkey.url, sessions))


async def _run(url: str, sessions: int) -> list[Figure]:
    redis = Redis.from_url(url)
    store = Store(redis, retention_ms=_RETENTION_MS)
    async with World(seed=3) as world:
        end = datetime.now(UTC) - timedelta(days=1)
        calls = [world.call("ai_inbound", end=end) for _ in range(sessions)]
    end_ms = int(end.timestamp() * 1000)
    # Scripts and connections are not the sessions'.
    await _record(store, calls[:1], end_ms)
    await redis.flushall()
    before = await _used(redis)
    figures = []
    await _record(store, calls, end_ms)
    figures.append(await _weigh(redis, "not looked at yet", calls, before))
    by_id = {call.session_id: call for call in calls}
    for age, (stage, has_cost) in zip(_AGES, _STAGES, strict=True):
        await _look(redis, store, by_id, end_ms + age * 1000, has_cost=has_cost)
        figures.append(await _weigh(redis, stage, calls, before))
    await _check(store, calls)
    await redis.aclose()
    return figures


async def _record(store: Store, calls: Sequence[Call], end_ms: int) -> None:
    for call in calls:
        readings = [
            read_event(event.body(), event.content_type, received_ms=end_ms)
            for event in events_for(call, early=False, analyzed="none")
        ]
        scheduled = [reading for reading in readings if isinstance(reading, Scheduling)]
        assert len(scheduled) == 3, readings
        await asyncio.gather(*(store.record(each, now_ms=end_ms) for each in scheduled))


async def _look(
    redis: Redis, store: Store, calls: dict[str, Call], now_ms: int, *, has_cost: bool
) -> None:
    """One attempt at each, as a worker makes it."""
    line, page = session_line(redis), 0
    while claims := await line.claim(
        limit=_PAGE, lease_ms=1, token=f"w.{now_ms}.{page}", delay_ms=_AGES[0] * 1000, now_ms=now_ms
    ):
        page += 1
        for claim in claims:
            session = await store.take(claim.id, claim.token)
            assert session
            attempt = _found(calls[claim.id]) if has_cost else NothingYet("404 Not Found")
            conclusion = decide(session, attempt, _RULES, now_ms=now_ms)
            await store.conclude(session, claim.token, conclusion, now_ms=now_ms)


def _found(call: Call) -> Found:
    body = answer(call.root, Question(max_depth=5), Habits())
    analysis = decode_analysis(msgspec.json.encode(body))
    return Found(analysis, build_tree(analysis, CALL_SESSION))


async def _weigh(redis: Redis, stage: str, calls: Sequence[Call], before: int) -> Figure:
    used = (await _used(redis) - before) / len(calls)
    sample = calls[:: max(1, len(calls) // 100)]
    own = [await redis.memory_usage(keys.session_key(call.session_id), 0) for call in sample]
    return Figure(stage, used, sum(filter(None, own)) / len(own))


async def _used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def _check(store: Store, calls: Sequence[Call]) -> None:
    """A session that has not come to its end would flatter the figure."""
    for call in calls[:: max(1, len(calls) // 100)]:
        session = await store.session(call.session_id)
        if session is None or session.state is not State.VERDICT:
            raise SystemExit(f"{call.session_id} has no verdict")
