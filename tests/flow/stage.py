"""What flow tests play on: real web and worker processes, a real Valkey, the simulated outside."""

import asyncio
import json
import sys
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast, overload

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from service import keys
from service.connect import redis_pool
from service.records import Alert, Session, Severity, State
from service.records import Delivery as Fate
from service.store import Posting, Store
from tests.world import envelopes, processes
from tests.world.answers import Habits, Question, answer
from tests.world.clock import iso_micros, later, utc
from tests.world.faults import Request
from tests.world.model import Call, Node
from tests.world.processes import PATIENCE_SECONDS, Process, Server, wait_until_async
from tests.world.slack import Posted
from tests.world.valkey import Valkey
from tests.world.webhooks import Delivery, Sender
from tests.world.world import World

T = TypeVar("T")

ALL_POSTED_BY_AGE_ONE: Final = 240.0
"""A time scale at which every part of a call has been posted within a second of its end."""
_COMMON: Final = {"TOLLWATCH_GRACE_SECONDS": "3"}
_WORKER: Final = {
    # Each call stands for itself: none may be folded into another's alert.
    "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0",
    "TOLLWATCH_ALERT_BURST": "1000",
    "TOLLWATCH_RECONCILE_MINUTES": "0",
}
_NOT_ASKED_MS: Final = 3_600_000
_SHOWN_LINES: Final = 15
TOLLWATCH: Final = Path(sys.executable).with_name("tollwatch")


@dataclass(slots=True)
class Outside:
    """What is there before any process is: Telnyx, Slack, and a Valkey that keeps its data."""

    world: World
    valkey: Valkey

    def redis_url(self, database: int = 0) -> str:
        """For REDIS_URL: stages on databases of their own do not see each other."""
        return f"{self.valkey.url.rpartition('/')[0]}/{database}"


@asynccontextmanager
async def open_outside(*, time_scale: float = ALL_POSTED_BY_AGE_ONE) -> AsyncIterator[Outside]:
    """A Valkey and a world."""
    with Valkey(persistent=True) as valkey:
        async with World(time_scale=time_scale) as world:
            yield Outside(world, valkey)


@dataclass(slots=True)
class Stage:
    """One web process and its workers, and how a test talks to them."""

    world: World
    valkey: Valkey
    redis: Redis
    store: Store
    web: Server
    workers: Sequence[Server]
    client: httpx.AsyncClient

    @property
    def worker(self) -> Server:
        """The first worker."""
        return self.workers[0]

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"{self.web.url}/webhooks/telnyx"

    # --- Telnyx speaks ---

    def past(self, kind: str, **options: Any) -> Call:
        """A call whose cost is all there and whose last age has passed, at ages of seconds."""
        return self.world.call(kind, end=later(now(self), -30), **options)

    async def post(self, event: Delivery, *, attempt: int = 1) -> httpx.Response:
        """One signed event, delivered once."""
        return await self.send(event.body(attempt), content_type=event.content_type)

    async def send(
        self,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Any body; signed, unless `headers` say otherwise."""
        signed = self.world.signer.headers(body, at=time.time()) if headers is None else headers
        given = {"content-type": content_type, **signed}
        return await self.client.post(self.url, content=body, headers=given)

    async def hang_up(self, *calls: Call) -> None:
        """The calls' legs have ended, and nothing else is said of them."""
        for event in (event for call in calls for event in hangups(call)):
            assert (await self.post(event)).status_code == httpx.codes.ACCEPTED

    def sender(self, **options: Any) -> Sender:
        """Telnyx's own way of delivering: shuffled, some twice, refused ones again."""
        return self.world.sender(self.url, **options)

    # --- what becomes of it ---

    @overload
    async def until(
        self,
        condition: Callable[[], Coroutine[Any, Any, T]],
        description: str,
        timeout_seconds: float = ...,
    ) -> T: ...

    @overload
    async def until(
        self, condition: Callable[[], T], description: str, timeout_seconds: float = ...
    ) -> T: ...

    async def until(
        self,
        condition: Callable[[], Any],
        description: str,
        timeout_seconds: float = PATIENCE_SECONDS,
    ) -> Any:
        """`wait_until`, which shows the processes' last lines where it waits in vain."""
        try:
            return await wait_until_async(
                condition, description=description, timeout_seconds=timeout_seconds
            )
        except TimeoutError as late:
            lines = [line for server in self._servers for line in server.lines[-_SHOWN_LINES:]]
            raise TimeoutError("\n".join([f"{late}; the last lines:", *lines])) from None

    async def session(self, call: Call) -> Session:
        """What is stored of the call now."""
        found = await self.store.session(call.session_id)
        assert found, f"nothing is known of {call.session_id}"
        return found

    async def ended(
        self,
        call: Call,
        state: State = State.VERDICT,
        timeout_seconds: float = PATIENCE_SECONDS,
    ) -> Session:
        """What is stored of the call once it has come to its end."""

        async def look() -> Session | None:
            found = await self.store.session(call.session_id)
            return found if found and found.state is state else None

        wanted = f"the state {state} of {call.kind} {call.session_id}"
        found = await self.until(look, wanted, timeout_seconds)
        assert found
        return found

    async def held(self, call: Call) -> Session:
        """What is stored of the call once an ask has brought no answer and nobody works on it."""

        async def look() -> Session | None:
            found = await self.store.session(call.session_id)
            return found if found and found.watch.held and not await self.token(call) else None

        found = await self.until(look, f"{call.session_id} being held")
        assert found
        return found

    async def token(self, call: Call) -> str:
        """The token of who works on the call, or nothing."""
        return await self._field(call, "token")

    async def failures(self, call: Call) -> int:
        """How many tries the call has used up."""
        return int(await self._field(call, "failures") or 0)

    async def _field(self, call: Call, name: str) -> str:
        # redis-py types one method for its blocking and its asyncio client at once.
        found = self.redis.hget(keys.session_key(call.session_id), name)
        return (await cast("Awaitable[bytes | None]", found) or b"").decode()

    async def hurry(self, call: Call) -> None:
        """Let the time pass for which the call would wait; nobody may be at work on it."""
        moved = await self.redis.zadd(keys.DUE, {call.session_id: now_ms()}, xx=True, ch=True)
        assert moved, f"{call.session_id} does not wait"

    async def hurry_alerts(self) -> None:
        """Let the time pass for which the channel waits, and what was put aside."""
        await self._field_gone(keys.SLACK, "next")
        for id in await self.redis.zrange(keys.ASIDE, 0, -1):
            await self.redis.zadd(keys.ASIDE, {id: now_ms()}, xx=True)

    async def nothing_waits(self) -> bool:
        """Whether all that was to be told has been."""
        sets = (keys.OUTBOX, keys.ASIDE, keys.FOLDED)
        return not any([await self.redis.zcard(name) for name in sets])

    async def _field_gone(self, key: str, name: str) -> None:
        await cast("Awaitable[int]", self.redis.hdel(key, name))

    async def postings(self, call: Call) -> list[Posting[Alert]]:
        """The alerts that were decided for the call, and what became of them."""
        ids = (f"{call.session_id}:{severity}" for severity in Severity)
        found = [await self.store.posting(id) for id in ids]
        return [posting for posting in found if posting]

    async def told(self, call: Call) -> list[Posted]:
        """What Slack was told of the call, once nothing waits to be told any more."""

        async def all_told() -> bool:
            waiting = {Fate.WAITING, Fate.FOLDED}
            return all(p.delivery not in waiting for p in await self.postings(call))

        await self.until(all_told, f"the posting of all alerts of {call.session_id}")
        return self.messages(call)

    def messages(self, call: Call) -> list[Posted]:
        """What Slack has about the call so far."""
        return [m for m in self.world.slack.messages if call.session_id in m.all_text]

    def asked(self, call: Call) -> list[Request]:
        """What Telnyx was asked about the session itself."""
        path = f"/call-session/{call.session_id}"
        return [r for r in self.world.telnyx.requests if r.path.endswith(path)]

    async def first_asked(self, call: Call) -> Request:
        """The first question about the call, once it was asked."""
        requests = await self.until(lambda: self.asked(call), f"a question for {call.session_id}")
        return requests[0]

    # --- what the processes say ---

    def log(self, call: Call | None = None, event: str = "") -> list[dict[str, Any]]:
        """The processes' log lines, those of one call or one event if named."""
        lines = [line for server in self._servers for line in server.events]
        return [
            line
            for line in lines
            if (call is None or line.get("session_id") == call.session_id)
            and (not event or line["event"] == event)
        ]

    async def show(self, call: Call) -> dict[str, Any]:
        """What `tollwatch show` says of the call."""
        shown: dict[str, Any] = json.loads(
            await self.tollwatch("show", call.session_id, "--format", "json")
        )
        return shown

    async def tollwatch(self, *arguments: str) -> str:
        """What the command line says to that, beside the processes."""
        command: list[str | Path] = [TOLLWATCH, *arguments]
        process = Process("tollwatch", command, {"REDIS_URL": self.web.environ["REDIS_URL"]})
        process.start()
        assert await asyncio.to_thread(process.wait) == 0, process.last_lines
        return "\n".join(process.lines)

    async def heard(self, call: Call, event: str, times: int = 1) -> list[dict[str, Any]]:
        """The log lines of one event in the call's life, once there are so many.

        A line comes a moment after what it tells of.
        """
        await self.until(
            lambda: len(self.log(call, event)) >= times, f"{event!r} about {call.session_id}"
        )
        return self.log(call, event)

    async def metric(self, server: Server, name: str, **labels: str) -> float:
        """The value of one sample; 0 where there is none yet."""
        text = (await self.client.get(f"{server.admin_url}/metrics")).text
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return sum(s.value for s in samples if s.name == name and s.labels == labels)

    async def ready(self, server: Server) -> tuple[int, str]:
        """Status and body of its readiness."""
        answer = await self.client.get(f"{server.admin_url}/readyz")
        return answer.status_code, answer.text

    @property
    def _servers(self) -> tuple[Server, ...]:
        return (self.web, *self.workers)


@asynccontextmanager
async def open_stage(
    outside: Outside,
    *,
    ages: str,
    database: int = 0,
    redis_url: str = "",
    workers: int = 1,
    slack: bool = True,
    balance: bool = False,
    web: Mapping[str, str] | None = None,
    worker: Mapping[str, str] | None = None,
    worker_module: str = "workers",
) -> AsyncIterator[Stage]:
    """Processes that are ready. `web` and `worker` are settings above the usual ones.

    `redis_url` is for processes that reach the outside's Redis another way, or reach another one.
    Without `balance` the account's is not asked for: such a question might meet another's trouble.
    """
    world, redis_url = outside.world, redis_url or outside.redis_url(database)
    web_process = processes.web(
        redis_url=redis_url, public_key=world.public_key, settings={**_COMMON, **(web or {})}
    )
    settings = {"TOLLWATCH_FETCH_AFTER_SECONDS": ages, **_COMMON, **_WORKER, **(worker or {})}
    worker_processes = [
        processes.worker(
            redis_url=redis_url,
            api_url=world.telnyx_url,
            api_key=world.api_key,
            slack_url=world.slack_url if slack else None,
            settings=settings,
            name=f"worker {number}",
            module=worker_module,
        )
        for number in range(1, workers + 1)
    ]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(_patient(redis_url))
        client = await stack.enter_async_context(
            httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False)
        )
        if not balance:
            await redis.set(keys.BALANCE_LEASE, "1", px=_NOT_ASKED_MS)
        await stack.enter_async_context(running(*worker_processes, web_process))
        store = Store(redis, retention_ms=86_400_000)
        yield Stage(
            world, outside.valkey, redis, store, web_process, tuple(worker_processes), client
        )


@asynccontextmanager
async def _patient(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the tests' own, for servers that they restart, too."""
    pool = redis_pool(redis_url, connections=5000, timeout_seconds=5)
    pool.connection_kwargs["retry"] = Retry(ConstantBackoff(0.05), 20)
    async with Redis(connection_pool=pool) as redis:
        yield redis
    await pool.disconnect()


@asynccontextmanager
async def running(*servers: Server) -> AsyncIterator[None]:
    """The processes, ready. Waiting is done in threads: the outside has to go on answering.

    At the end each that still runs is told to stop. Raises ProcessFailed where one does not obey.
    """
    try:
        for server in servers:
            server.start()
        for server in servers:
            await asyncio.to_thread(server.wait_ready)
        yield
    finally:
        left = [server for server in servers if server.is_running]
        await asyncio.gather(*(asyncio.to_thread(server.terminate) for server in left))
    for server in left:
        if server.returncode:
            raise server.failure("when it was told to stop")


async def half_a_webhook(
    stage: Stage, call: Call
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a webhook has come but for its last byte, a space."""
    body = hangups(call)[0].body() + b" "
    lines = [
        "POST /webhooks/telnyx HTTP/1.1",
        "host: x",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "expect: 100-continue",
        *(f"{k}: {v}" for k, v in stage.world.signer.headers(body, at=time.time()).items()),
    ]
    host, _, port = stage.web.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*lines, "", ""]).encode())
    # That it asks for the body shows that the request has begun.
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(body[:-1])
    return reader, writer


def now(stage: Stage) -> datetime:
    """The outside's clock."""
    return utc(stage.world.clock())


def now_ms() -> int:
    """The clock as the product keeps time."""
    return int(time.time() * 1000)


def hangups(call: Call) -> list[Delivery]:
    """The events that say that each leg has ended."""
    return [envelopes.hangup(call, leg) for leg in call.legs]


def later_by(event: Delivery, seconds: float) -> Delivery:
    """The same event, as if it had occurred so much later."""
    occurred = later(event.occurred_at, seconds)
    data = {**event.data, "occurred_at": iso_micros(occurred)}
    return replace(event, occurred_at=occurred, data=data)


def severity_of(message: Posted) -> str:
    """The severity that a message begins with."""
    return message.text.partition(":")[0].lower()


def body_of(root: Node) -> bytes:
    """What Telnyx answers about a session with that tree."""
    return msgspec.json.encode(answer(root, Question(max_depth=5), Habits()))


def with_parts(call: Call, parts: Iterable[Node]) -> Call:
    """The same call, with other parts below its root."""
    return replace(call, root=replace(call.root, children=tuple(parts)))
