"""What is left when all is done, in Redis, in logs, at Slack and in metrics; and what is not."""

import asyncio
import json
import re
import signal
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from tests.flow.stage import Outside, Stage, half_a_webhook, now, open_stage
from tests.world.calls import ANOMALIES, KINDS
from tests.world.model import Call
from tests.world.webhooks import PERSONAL_DATA, events_for

pytestmark = pytest.mark.anyio

_PLACES = ("redis", "logs", "slack", "metrics", "tollwatch show")
_RETENTION_SECONDS = 30 * 86_400
_MINUTES_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Key:
    """One key of Redis: its seconds to live (-1: no end), and what it holds."""

    seconds: int
    content: str


@dataclass(frozen=True, slots=True)
class Remains:
    """Everything that can be found afterwards."""

    calls: list[Call]
    keyspace: dict[str, Key]
    lines: list[str]
    texts: dict[str, str]
    """By place."""

    @property
    def events(self) -> list[dict[str, object]]:
        """The log lines, read."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture(scope="module")
async def remains(outside: Outside) -> AsyncIterator[Remains]:
    """Calls of every kind, with all their events and a good deal of trouble, from start to end."""
    debug = {"TOLLWATCH_LOG_LEVEL": "debug", "TOLLWATCH_GRACE_SECONDS": "1"}
    async with open_stage(outside, ages="1,2", web=debug, worker=debug) as stage:
        calls = stage.world.calls((*KINDS, *ANOMALIES), end=now(stage))
        await _trouble(stage, calls)
        async with stage.sender(duplicates=0.2) as sender:
            events = [event for call in calls for event in events_for(call, cost="new")]
            await sender.send([*events, *(e for c in calls for e in events_for(c, texml=True))])
        for call in calls:
            await stage.ended(call)
            await stage.told(call)
        keyspace = await _keyspace(stage.redis)
        texts = {
            "redis": "\n".join(f"{name} {key.content}" for name, key in keyspace.items()),
            "slack": _of_slack(stage),
            "metrics": await _metrics(stage),
            "tollwatch show": json.dumps([await stage.show(call) for call in calls[::6]]),
        }
        await _end(stage)
        lines = [line for server in (stage.web, stage.worker) for line in server.lines]
        yield Remains(calls, keyspace, lines, {**texts, "logs": "\n".join(lines)})


async def _trouble(stage: Stage, calls: list[Call]) -> None:
    """Whatever makes the processes say more than usual."""
    world, (first, second, *_) = stage.world, calls
    for event in events_for(first):
        await stage.send(event.body(), headers={})
        await stage.send(event.body()[1:])
    echo = f"Key {world.api_key} may not ask about {first.legs[0].from_}"
    body = msgspec.json.encode({"errors": [{"code": "10009", "title": "No", "detail": echo}]})
    world.telnyx.faults.status(503, path=first.session_id, body=body)
    world.telnyx.faults.reset(path=second.session_id)
    world.slack.faults.status(500, body=b"no_text at /services/T0/B0/SECRET")
    (worker_id,) = (line["worker_id"] for line in stage.worker.events if "worker_id" in line)
    # A job that arq knows nothing of: it says so in a line of its own.
    await stage.redis.zadd(f"arq:queue:{worker_id}:1", {"stray": 1})
    with stage.valkey.paused():
        await stage.post(events_for(first)[0])
