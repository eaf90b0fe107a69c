"""What is left when all is done, in Redis, in logs, at Slack and in metrics; and what is not."""

import asyncio
import contextlib
import json
import re
import signal
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import cast

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from service.counting import DAYS_KEPT
from service.packing import unpack
from service.records import encode
from service.store import Store
from tests.flow.stage import Outside, Stage, half_a_webhook, hangups, now, open_stage
from tests.world.calls import ANOMALIES, KINDS
from tests.world.model import Call
from tests.world.telnyx import API_KEY
from tests.world.webhooks import PERSONAL_DATA, events_for
from workers.baselines import SHEET_KEPT_MS

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_PLACES = ("redis", "logs", "slack", "metrics", "tollwatch show")
_RETENTION_SECONDS = 30 * 86_400
_MINUTES_SECONDS = 15 * 60
_COUNTS = "tollwatch:calls:"
_COUNTED_SECONDS = DAYS_KEPT * 86_400


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
    async with open_stage(outside, ages="1,2", balance=True, web=debug, worker=debug) as stage:
        calls = stage.world.calls((*KINDS, *ANOMALIES), end=now(stage))
        await _trouble(stage, calls)
        async with stage.sender(duplicates=0.2) as sender:
            events = [event for call in calls for event in events_for(call, cost="new")]
            await sender.send([*events, *(e for c in calls for e in events_for(c, texml=True))])
        # The first is held back for some seconds, by an outage that only it meets.
        await stage.ended(calls[0])
        for call in calls:
            await stage.ended(call)
            await stage.hurry_alerts()
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
    world, first = stage.world, calls[0]
    for event in events_for(first):
        await stage.send(event.body(), headers={})
        await stage.send(event.body()[1:])
    echo = f"Key {world.api_key} may not ask about {first.legs[0].from_}"
    body = msgspec.json.encode({"errors": [{"code": "10009", "title": "No", "detail": echo}]})
    world.telnyx.faults.status(503, path=first.session_id, body=body)
    world.slack.faults.status(500, body=f"no_text at {world.slack_url}".encode())
    (worker_id,) = (line["worker_id"] for line in stage.worker.events if "worker_id" in line)
    # A job that arq knows nothing of: it says so in a line of its own, once it looks for work.
    await stage.redis.zadd(f"arq:queue:{worker_id}:1", {"stray": 1})
    await stage.hang_up(stage.past("sip_inbound"))
    await stage.until(lambda: "stray" in "".join(stage.worker.lines), "a line of arq's")

    async def is_idle() -> bool:
        return not await stage.redis.keys("arq:retry:*")

    # A job that Redis' end cuts off leaves arq's count of its tries for a day.
    await stage.until(is_idle, "the end of all jobs")
    stage.valkey.stop()
    await stage.post(events_for(first)[0])
    await stage.post(hangups(first)[0])
    await stage.until(lambda: stage.log(event="Redis failed"), "a line about Redis")
    stage.valkey.start()


async def _end(stage: Stage) -> None:
    """A last webhook never comes whole, which makes uvicorn say that it has to cancel it."""
    _, writer = await half_a_webhook(stage, stage.past("sip_inbound"))
    for server in (stage.web, stage.worker):
        server.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait)
    writer.close()


async def _keyspace(redis: Redis) -> dict[str, Key]:
    names = [name async for name in redis.scan_iter()]
    found = {name.decode(): (await redis.ttl(name), await _content(redis, name)) for name in names}
    return {name: Key(ttl, text) for name, (ttl, text) in found.items() if text is not None}


async def _content(redis: Redis, name: bytes) -> str | None:
    """All that is below the key, as text; what is packed is unpacked. None: its time has ended."""
    match await redis.type(name):
        case b"none":
            return None
        case b"string":
            found = await redis.get(name)
            if found is None:
                return None
            if name.decode().startswith(keys.LESSON):
                found = unpack(found.split(b" ", 2)[2])
            with contextlib.suppress(zlib.error):
                found = zlib.decompress(found)
            parts = [found]
        case b"hash":
            # redis-py types one method for its blocking and its asyncio client at once.
            stored = await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(name.decode()))
            parts = [part for field in stored.items() for part in field]
            parts += await _unpacked(redis, name)
        case b"zset":
            parts = await redis.zrange(name, 0, -1)
        case b"set":
            parts = list(await cast("Awaitable[set[bytes]]", redis.smembers(name.decode())))
        case other:
            raise AssertionError(f"{name!r} is a {other!r}")
    return b"\n".join(parts).decode(errors="replace")


async def _unpacked(redis: Redis, name: bytes) -> list[bytes]:
    """The records of a session, which are packed in its hash; none of another key's."""
    id = keys.Family(keys.SESSION + "{id}").id_of(name.decode())
    session = await Store(redis, retention_ms=1).session(id) if id else None
    if session is None:
        return []
    return [encode(part) for part in (*session.events, session.watch, session.verdict)]


def _of_slack(stage: Stage) -> str:
    slack = stage.world.slack
    bodies = [refused.body.decode() for refused in slack.refused]
    return json.dumps([message.payload for message in slack.messages] + bodies, ensure_ascii=False)


async def _metrics(stage: Stage) -> str:
    pages = [
        await stage.client.get(f"{server.admin_url}/metrics")
        for server in (stage.web, stage.worker)
    ]
    return "\n".join(page.text for page in pages)


# --- what must not be there -----------------------------------------------------------------------


@pytest.mark.parametrize("place", _PLACES)
def test_nothing_personal_is_left(remains: Remains, place: str) -> None:
    """No transcript, name, client state, SIP header or whole number of any call is found."""
    text = remains.texts[place]
    numbers = {number for call in remains.calls for number in _parties(call)}
    assert [found for found in {*PERSONAL_DATA, *numbers} if found in text] == []


def _parties(call: Call) -> Iterable[str]:
    """What names a person of who took part: a number's digits, a SIP address's user."""
    for party in (party for leg in call.legs for party in (leg.from_, leg.to)):
        user, at, _ = party.partition("@")
        if not user.startswith("assistant-"):
            yield user + at if at else user.lstrip("+")


@pytest.mark.parametrize("place", _PLACES)
def test_no_secret_is_left(remains: Remains, place: str) -> None:
    """Neither Telnyx' key nor the path of Slack's webhook is found, whatever was answered."""
    assert [found for found in (API_KEY, "T0/B0", "SECRET") if found in remains.texts[place]] == []


@pytest.mark.parametrize("place", ["redis", "slack", "tollwatch show"])
def test_numbers_are_told_by_their_last_digits(remains: Remains, place: str) -> None:
    """What is left of a number are its last two digits."""
    assert re.search(r"…\d\d\b", remains.texts[place].replace("\\u2026", "…"))


# --- logs -----------------------------------------------------------------------------------------

_OF_A_SESSION = frozenset(
    {
        "webhook",
        "webhook not kept",
        "waiting",
        "verdict",
        "unavailable",
        "attempt failed",
        "attempt without effect",
        "attempt lost Redis",
        "attempt broken off",
        "alert decided",
        "alert waits",
        "alert posted",
        "alert kept",
        "alert refused",
    }
)


def test_every_line_is_one_json_object(remains: Remains) -> None:
    """Every line that the processes wrote has a time, a level and an event."""
    for line in remains.lines:
        assert line.startswith('{"timestamp":"')
        assert json.loads(line).keys() >= {"timestamp", "level", "event"}


@pytest.mark.parametrize("logger", ["uvicorn.error", "arq.worker"])
def test_lines_of_libraries_are_among_them(remains: Remains, logger: str) -> None:
    """What uvicorn and arq say comes in the same shape, with the name of who said it."""
    assert [line for line in remains.events if line.get("logger") == logger]


def test_every_line_about_a_session_carries_its_id(remains: Remains) -> None:
    """A line that has to do with a session names it, and always in the same field."""
    ids = {call.session_id for call in remains.calls}
    for line, raw in zip(remains.events, remains.lines, strict=True):
        named = {id for id in ids if id in raw}
        assert named <= {line.get("session_id")}
        if line["event"] in _OF_A_SESSION:
            assert line.get("session_id")


def test_a_sessions_life_can_be_read_from_the_log(remains: Remains) -> None:
    """One id finds what happened to a call in both processes, from its webhook to its alert."""
    call = next(call for call in remains.calls if call.anomaly == "wrong_rate")
    told = [line["event"] for line in remains.events if line.get("session_id") == call.session_id]
    # Whether it waited depends on how soon a worker had time for it; others surely did.
    assert set(told) >= {"webhook", "verdict", "alert decided", "alert posted"}
    waited = {line.get("session_id") for line in remains.events if line["event"] == "waiting"}
    assert waited & {call.session_id for call in remains.calls}


# --- Redis ----------------------------------------------------------------------------------------


def test_nothing_is_due_any_more(remains: Remains) -> None:
    """When all is done the lines of work are empty."""
    assert {keys.ENDED, keys.DUE, keys.OUTBOX} & set(remains.keyspace) == set()


def test_every_key_is_documented(remains: Remains) -> None:
    """Redis holds no key that `service/keys.py` does not describe.

    The account's and those of what was learned are among them.
    """
    assert {keys.BALANCE, keys.BALANCE_LEASE, keys.COHORTS} <= set(remains.keyspace)
    assert [name for name in remains.keyspace if keys.family_of(name) is None] == []


def test_every_key_comes_to_an_end(remains: Remains) -> None:
    """Every key ends by itself, but for indexes, which housekeeping trims, and the channel."""
    endless = {name for name, key in remains.keyspace.items() if key.seconds < 0}
    assert endless == {keys.SESSIONS, keys.ALERTS, keys.SLACK, keys.RECHECKS}


def test_what_is_kept_is_kept_for_the_retention(remains: Remains) -> None:
    """Sessions, analyses and alerts last as long as they must, and all else for minutes.

    Sums, counts and what was learned, which no call can be told from, are not among it.
    """
    for name, key in remains.keyspace.items():
        if name.startswith((keys.SPEND, keys.BALANCE)):
            assert 0 < key.seconds <= 365 * 86_400
        elif name.startswith((keys.BASELINE, keys.STRANGE, keys.COHORTS)):
            assert 0 < key.seconds <= SHEET_KEPT_MS // 1000
        elif name.startswith((keys.SESSION, keys.ANALYSIS, keys.ALERT, keys.LESSON)):
            assert _RETENTION_SECONDS - 300 < key.seconds <= _RETENTION_SECONDS
        elif name.startswith(_COUNTS):
            assert key.seconds <= _COUNTED_SECONDS
        else:
            assert key.seconds <= _MINUTES_SECONDS
