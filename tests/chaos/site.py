"""Everything that runs: two web processes, three workers, a Valkey, and the simulated outside.

And what the harness needs to know of it from moment to moment: who has leased what, and when the
work last went on.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service import keys
from service.outbox import HEAD_START_SECONDS
from service.store import Store
from tests.chaos import process as launcher
from tests.chaos.accounting import (
    TAKEOVER_SECONDS,
    Ending,
    Excuse,
    Held,
    Interval,
    Takeover,
    overlap,
    unnoted_since,
)
from tests.chaos.ledger import Ledger
from tests.chaos.traffic import AGES, TIME_SCALE, Traffic
from tests.world import processes
from tests.world.processes import ProcessFailed, Server
from tests.world.valkey import Valkey
from tests.world.world import World

T = TypeVar("T")

GRACE_SECONDS: Final = 5
_LATENCY_SECONDS: Final = 0.15
"""What every answer of Telnyx takes, so that there is always work in flight."""
_CALLS_PER_SECOND: Final = 2.5
_READY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_KEPT_MS: Final = 86_400_000
_SETTINGS: Final = {"TOLLWATCH_GRACE_SECONDS": str(GRACE_SECONDS)}
_WORKER_SETTINGS: Final = {
    "TOLLWATCH_FETCH_AFTER_SECONDS": AGES,
    # Most sessions are looked at once more while faults go on.
    "TOLLWATCH_RECHECK_AFTER_SECONDS": "12",
    # Each alert stands for itself as far as may be, so that each can be accounted for: no folding,
    # and a summary only when the bucket is empty after all.
    "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0",
    "TOLLWATCH_ALERT_BURST": "1000",
    "TOLLWATCH_ALERTS_PER_HOUR": "3600",
    # What Telnyx gave up is not to be found again: that would hide what was lost.
    "TOLLWATCH_RECONCILE_MINUTES": "0",
    **_SETTINGS,
}
# All is learned, under every fault; but only what was injected is expected to alert, so nothing of
# what was learned may matter.
_POLICY: Final = """
least_factor: 1000000
most_alerts_per_day: 0
"""
_VALKEY: Final = {
    # The promise is about what Redis acknowledged durably: with `everysec`, a server that is killed
    # may forget what it had acknowledged in its last second.
    "appendfsync": "always",
}


class LoadingValkey(Valkey):
    """A server that can be made to take its time to load its data, answering LOADING meanwhile."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, options=_VALKEY)
        self.data = data

    def start_slowly(self, microseconds_per_command: int) -> None:
        """`start`, with a pause after each command that is loaded."""
        self._options["key-load-delay"] = str(microseconds_per_command)
        try:
            self.start()
        finally:
            del self._options["key-load-delay"]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on what: a session, or what Slack is being told, and its holder's token."""

    line: str
    id: str
    token: str

    def is_of(self, worker_id: str | None) -> bool:
        """Whether that worker holds it."""
        return worker_id is not None and self.token.startswith(f"{worker_id}.")


@dataclass(slots=True)
class Site:
    """All of it, up and running, and what the faults note while they are at work."""

    world: World
    slack_world: World
    """A second outside, of which only Slack is used, so that it can be away alone."""
    valkey: LoadingValkey
    redis: Redis
    store: Store
    webs: tuple[Server, ...]
    workers: tuple[Server, ...]
    ledger: Ledger
    traffic: Traffic
    begun: float = field(default_factory=time.monotonic)
    endings: list[Ending] = field(default_factory=list)
    stopped_posts: list[tuple[Lease, str, float]] = field(default_factory=list)
    """Who was posting what when it was killed or paused, and when that was."""
    cut_posts: list[Excuse] = field(default_factory=list)
    redis_away: list[Interval] = field(default_factory=list)
    taken_over: list[tuple[str, Lease, float, float | None]] = field(default_factory=list)
    """Kind of fault, a dead worker's lease, when it died, and when another had it."""
    crashes: list[str] = field(default_factory=list)
    hindrances: list[Interval] = field(default_factory=list)
    """When Redis or Telnyx was away for everybody, by the monotonic clock."""
    memory_at_start: dict[str, float] = field(default_factory=dict)
    held_since: dict[Lease, tuple[float, float]] = field(default_factory=dict)
    """By lease, when it was seen first and last, by the monotonic clock."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held, in orderly rounds, by what keeps everybody from working."""
    handled: set[str] = field(default_factory=set)
    """Processes to which something is being done: that they end is no surprise."""
    _watches: set["asyncio.Task[None]"] = field(default_factory=set)

    # --- processes ---

    @property
    def servers(self) -> tuple[Server, ...]:
        """Workers and web processes."""
        return (*self.workers, *self.webs)

    async def up(self, server: Server) -> None:
        """Start it, and wait until it is ready. Raises ProcessFailed."""
        # From this thread: a child ends with the thread that started it.
        server.start()
        await asyncio.to_thread(server.wait_ready, "", _READY_SECONDS)

    async def told_to_stop(self, server: Server, number: signal.Signals) -> None:
        """SIGTERM, and the end of it noted."""
        begun = time.monotonic()
        server.send_signal(number)
        try:
            code: int | None = await asyncio.to_thread(server.wait, _READY_SECONDS)
        except ProcessFailed:
            code = None
            await asyncio.to_thread(server.kill)
        self.endings.append(Ending(server.name, code, time.monotonic() - begun))

    def crashed(self) -> Iterable[Server]:
        """The processes that ended by themselves."""
        return [s for s in self.servers if not s.is_running and s.name not in self.handled]

    async def memory(self) -> dict[str, float]:
        """By process, MiB that it holds in memory."""
        return {s.name: await asyncio.to_thread(_resident_mib, s.pid) for s in self.servers}

    # --- what is in flight ---

    async def peek(self, question: Callable[[Redis], Awaitable[T]]) -> T | None:
        """Redis' answer, or None while it gives none."""
        try:
            return await question(self.redis)
        except (RedisError, OSError, RuntimeError):  # The last is uvloop's, of a closed transport.
            return None

    async def leases(self, worker: Server | None = None) -> list[Lease]:
        """What is leased at this moment, by that worker if named; nothing while Redis is away."""
        held = await self.peek(_leases) or []
        return [lease for lease in held if worker is None or self.holds(worker, lease)]

    async def exact_leases(self, worker: Server) -> list[Lease]:
        """What that worker, which stands still, has leased. Redis' errors pass through."""
        return [lease for lease in await _leases(self.redis) if self.holds(worker, lease)]

    def holds(self, worker: Server, lease: Lease) -> bool:
        """Whether it is that worker's, as it runs now."""
        return lease.is_of(self.ledger.worker_ids.get(worker.name))

    async def in_flight(self) -> int:
        """Leased work and webhooks without an answer."""
        return len(await self.leases()) + self.traffic.under_way()

    async def until(
        self, condition: Callable[[], Any], seconds: float, look_seconds: float = _LOOK_SECONDS
    ) -> bool:
        """Whether the condition (it may be a coroutine function) came to hold in that time."""
        deadline = time.monotonic() + seconds
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(look_seconds)

    # --- who died, and what follows from it ---

    def excuse(self, leases: Iterable[Lease], cause: str) -> None:
        """Who was posting these cannot tell whether Slack took them: once more is excused."""
        at = time.monotonic()
        self.stopped_posts += [(x, cause, at) for x in leases if x.line == keys.OUTBOX]

    def excuses(self) -> list[Excuse]:
        """All of them, now that it is known when Redis was away."""
        unix = time.time() - time.monotonic()
        found = list(self.cut_posts)
        for lease, cause, at in self.stopped_posts:
            session_id, _, severity = lease.id.rpartition(":")
            since = unnoted_since(at, self.redis_away) + unix
            found.append(Excuse(session_id, severity, cast("Any", cause), since))
        return found

    def watch_takeovers(self, kind: str, leases: Iterable[Lease]) -> None:
        """Note after how long each of a dead worker's leases is another's."""
        for lease in leases:
            task = asyncio.create_task(self._watch(kind, lease))
            self._watches.add(task)
            task.add_done_callback(self._watches.discard)

    async def takeovers_seen(self) -> None:
        """Returns when all that were watched for have come, or are as good as lost."""
        while self._watches:
            await asyncio.wait(self._watches)

    def takeovers(self) -> list[Takeover]:
        """All that were watched for, now that all hindrances are known."""
        found = []
        for kind, lease, since, until in self.taken_over:
            # A begun post is left to its holder a little longer, who may only have to note it.
            extra = HEAD_START_SECONDS if lease.line == keys.OUTBOX else 0.0
            name, allowed = lease.id.partition(":")[0], TAKEOVER_SECONDS + extra
            seconds = None if until is None else until - since
            hindered = overlap(since, until or since, self.hindrances)
            found.append(Takeover(kind, name, seconds, hindered, allowed))
        return found

    def note_leases(self, leases: Iterable[Lease]) -> None:
        """Who has what at this moment."""
        now = time.monotonic()
        for lease in leases:
            since, _ = self.held_since.get(lease, (now, now))
            self.held_since[lease] = (since, now)

    def longest_held(self) -> list[Held]:
        """For how long each lease on a session was seen."""
        return [
            Held(lease.id, until - since, overlap(since, until, self.hindrances))
            for lease, (since, until) in self.held_since.items()
            if lease.line == keys.DUE
        ]

    def moment(self, at: float | None = None) -> float:
        """Seconds since the beginning."""
        return (time.monotonic() if at is None else at) - self.begun

    async def _watch(self, kind: str, lease: Lease) -> None:
        since = time.monotonic()

        async def is_taken() -> bool:
            found = await self.peek(lambda redis: _token(redis, lease))
            return found is not None and found != lease.token

        taken = await self.until(is_taken, 90)
        self.taken_over.append((kind, lease, since, time.monotonic() if taken else None))


@asynccontextmanager
async def open_site(directory: Path, *, seed: int, skew_seconds: float) -> AsyncIterator[Site]:
    """All of it, ready. `directory` gets the logs and Valkey's data.

    The clocks of the second worker and the second web process are ahead by `skew_seconds`, that of
    the third worker is as much behind. A web process may not be behind by more than the ages here
    allow: it takes no end of a call for true that lies in its future.
    """
    ledger = Ledger(directory)
    poison = directory / "poison"
    policy = directory / "policy.yaml"
    policy.write_text(_POLICY, encoding="utf-8")
    with LoadingValkey(directory / "valkey") as valkey:
        async with (
            World(seed=seed, time_scale=TIME_SCALE, latency_seconds=_LATENCY_SECONDS) as world,
            World(seed=seed) as slack_world,
            _client(valkey.url) as redis,
        ):
            webs = (
                _web(1, world, valkey, ledger, 0.0),
                _web(2, world, valkey, ledger, skew_seconds),
            )
            skews = (0.0, skew_seconds, -skew_seconds)
            workers = tuple(
                _worker(n, world, slack_world, valkey, ledger, policy, _wrong(poison, skew))
                for n, skew in enumerate(skews, 1)
            )
            urls = (f"{webs[0].url}/webhooks/telnyx", f"{webs[1].url}/webhooks/telnyx")
            traffic = Traffic(world, urls, seed=seed, poison=poison, per_second=_CALLS_PER_SECOND)
            store = Store(redis, retention_ms=_KEPT_MS)
            site = Site(world, slack_world, valkey, redis, store, webs, workers, ledger, traffic)
            async with traffic:
                try:
                    await asyncio.gather(*map(site.up, site.servers))
                    site.memory_at_start = await site.memory()
                    yield site
                finally:
                    left = [server for server in site.servers if server.is_running]
                    await asyncio.gather(*(asyncio.to_thread(s.terminate) for s in left))


def _client(url: str) -> Redis:
    # Short waits: the harness looks again by itself.
    client: Redis = Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=1,
        retry=Retry(ConstantBackoff(0.05), 2),
        retry_on_error=[RedisConnectionError],
    )
    return client


def _wrong(poison: Path, skew_seconds: float) -> dict[str, str]:
    return {launcher.POISON: str(poison), launcher.CLOCK: f"{skew_seconds:g}"}


def _web(number: int, world: World, valkey: Valkey, ledger: Ledger, skew_seconds: float) -> Server:
    name = f"web {number}"
    server = processes.web(
        redis_url=valkey.url,
        public_key=world.public_key,
        settings={**_SETTINGS, launcher.CLOCK: f"{skew_seconds:g}"},
        on_line=ledger.listener(name),
    )
    server.name = name
    server.command[-1:] = [launcher.__name__, "web"]
    return server


def _worker(
    number: int,
    world: World,
    slack_world: World,
    valkey: Valkey,
    ledger: Ledger,
    policy: Path,
    wrong: Mapping[str, str],
) -> Server:
    name = f"worker {number}"
    server = processes.worker(
        redis_url=valkey.url,
        api_url=world.telnyx_url,
        api_key=world.api_key,
        slack_url=slack_world.slack_url,
        settings={**_WORKER_SETTINGS, "TOLLWATCH_POLICY": str(policy), **wrong},
        on_line=ledger.listener(name),
        name=name,
    )
    server.command[-1:] = [launcher.__name__, "worker"]
    return server


async def _leases(redis: Redis) -> list[Lease]:
    ids = [id.decode() for id in await redis.zrange(keys.DUE, 0, -1)]
    async with redis.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hget(keys.SESSION + id, "token")
        pipe.hmget(keys.SLACK, ["token", "item"])
        *tokens, (poster, item) = await pipe.execute()
    found = [
        Lease(keys.DUE, id, token.decode()) for id, token in zip(ids, tokens, strict=True) if token
    ]
    # One lease covers all of Slack.
    if poster and item:
        found.append(Lease(keys.OUTBOX, item.decode(), poster.decode()))
    return found


async def _token(redis: Redis, lease: Lease) -> str:
    key = keys.SESSION + lease.id if lease.line == keys.DUE else keys.SLACK
    found = await cast("Awaitable[bytes | None]", redis.hget(key, "token"))
    return (found or b"").decode()


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # Not Linux, or it has just ended.
        return 0.0
    return pages * 4096 / 1024 / 1024
