"""The kinds of faults: each begins, notes what work it hit, lasts for a while, and ends.

Faults aim: a kind that needs something in flight waits for it before it strikes. What it met is
counted by what met it (an error that Redis returned, a question that Telnyx refused, a lease whose
holder died), and never assumed.
"""

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis

from service import keys
from tests.chaos.accounting import Excuse
from tests.chaos.ledger import REDIS_TROUBLE
from tests.chaos.observe import read_message, told
from tests.chaos.schedule import LAST_LANE, Kind, Strike
from tests.chaos.site import Lease, Site
from tests.world.faults import Fault
from tests.world.processes import Server, free_port

LEASE_SECONDS: Final = 20.0
"""The product's lease: who is silent for longer has lost what it held."""
TELNYX_LANE: Final = "telnyx"
_AIM_SECONDS: Final = 75.0
"""For so long a fault waits for work that it can hit: others may be keeping everybody from it."""
_TRIES: Final = 5
_RETRY_SECONDS: Final = 0.03
_RESTART_SECONDS: Final = 0.5
_BURST: Final = 6
_SLOW_QUESTIONS: Final = 6
_LOAD_SECONDS: Final = 3.0
_PADDING: Final = 6000
_SLACK_DELAY_SECONDS: Final = 1.0
_STALL_SECONDS: Final = 4.0
_ANSWER_SECONDS: Final = 0.25
"""What Slack took so shortly before it went away may have got no answer."""
_USED_UP: Final = {
    "x-ratelimit-limit": "40, 40;w=60",
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": "2",
}
_ALL: Final = 1 << 30


@dataclass(slots=True)
class Hit:
    """What a strike hit: work in flight as it began, and what met it."""

    what: str
    in_flight: int = 0
    met: int = 0
    began: float = field(default_factory=time.monotonic)
    """By the monotonic clock; later than it was called, where it had to wait for work to hit."""


@dataclass(frozen=True, slots=True)
class Caught:
    """A worker that stands still, and all that it has leased."""

    worker: Server
    held: list[Lease]


Begin: TypeAlias = Callable[[Site, Strike, Hit], AbstractAsyncContextManager[None]]
Recovered: TypeAlias = Callable[[Site, float], bool]


@dataclass(frozen=True, slots=True)
class Way:
    """How a kind strikes, and how to tell that the work goes on after it."""

    kind: Kind
    what: str
    """What meets it, in words."""
    begin: Begin
    recovered: Recovered
    back: Recovered | None = None
    """For what keeps everybody from working, through no fault of theirs: how to tell that it is
    there again."""


# --- workers --------------------------------------------------------------------------------------


@asynccontextmanager
async def _worker_killed(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """At any moment at which it works on something."""
    async with _killed(site, strike, hit, await _caught(site, strike)):
        yield


@asynccontextmanager
async def _worker_killed_asking(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """While Telnyx has not answered it yet."""
    slow = site.world.telnyx.faults.delay(2.0, times=_SLOW_QUESTIONS)
    await site.until(lambda: slow.taken, _AIM_SECONDS)
    caught = await _caught(site, strike, keys.DUE)
    slow.times = slow.taken
    async with _killed(site, strike, hit, caught):
        yield


@asynccontextmanager
async def _worker_killed_posting(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Between Slack's answer and the note of it: the one moment that may repeat an alert."""
    slack = site.slack_world.slack
    slow = slack.faults.delay(_SLACK_DELAY_SECONDS, times=_ALL)
    caught: Caught | None = None
    for _ in range(_TRIES):
        before = told(slack)
        await _met_again(site, slow)
        caught = await _caught(site, strike, keys.OUTBOX)
        if caught is None or await _has_told(site, caught, before):
            break
        # It had not begun to post, or had done so already.
        _released(site, caught.worker)
        caught = None
    slow.times = 0
    async with _killed(site, strike, hit, caught):
        hit.met = int(caught is not None)
        yield


@asynccontextmanager
async def _worker_stopped(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """A rollout: SIGTERM, and a new one a moment later."""
    caught = await _caught(site, strike)
    if caught is None:
        yield
        return
    victim, held = caught.worker, caught.held
    hit.in_flight = hit.met = len(held)
    victim.send_signal(signal.SIGCONT)
    await site.told_to_stop(victim, signal.SIGTERM)
    # What it could not finish it has given back.
    left = [lease for lease in await site.leases() if lease in held]
    site.watch_takeovers(strike.kind, left)
    yield
    await _back(site, victim)


@asynccontextmanager
async def _worker_paused(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """For longer than its lease; when it goes on, it believes that it still holds it."""
    caught = await _caught(site, strike)
    if caught is None:
        yield
        return
    victim, held = caught.worker, caught.held
    hit.in_flight = hit.met = len(held)
    site.excuse(held, "paused")
    site.watch_takeovers(strike.kind, held)
    try:
        yield
    finally:
        _released(site, victim)


@asynccontextmanager
async def _killed(
    site: Site, strike: Strike, hit: Hit, caught: Caught | None
) -> AsyncIterator[None]:
    """SIGKILL of one that stands still, so that what it held is known exactly."""
    if caught is None:
        yield
        return
    hit.in_flight = hit.met = len(caught.held)
    _die(site, strike, caught)
    await asyncio.to_thread(caught.worker.wait)
    await asyncio.sleep(_RESTART_SECONDS)
    yield
    await _back(site, caught.worker)


def _die(site: Site, strike: Strike, caught: Caught) -> None:
    caught.worker.send_signal(signal.SIGKILL)
    site.excuse(caught.held, "killed")
    site.watch_takeovers(strike.kind, caught.held)


async def _back(site: Site, server: Server) -> None:
    await site.up(server)
    site.handled.discard(server.name)


async def _caught(site: Site, strike: Strike, line: str = "") -> Caught | None:
    """A worker that was made to stand still with work in its hands, of that line if named.

    None where nobody had any for too long. Which of the busy ones, chance decides.
    """
    rng, found = Random(strike.pick), list[Caught]()

    async def is_one_caught() -> bool:
        held = [lease for lease in await site.leases() if not line or lease.line == line]
        free = [w for w in site.workers if w.name not in site.handled]
        busy = [w for w in free if any(site.holds(w, lease) for lease in held)]
        if busy:
            found.extend(await _stopped_at_work(site, rng.choice(busy), line))
        return bool(found)

    await site.until(is_one_caught, _AIM_SECONDS)
    return found[0] if found else None


async def _stopped_at_work(site: Site, worker: Server, line: str) -> list[Caught]:
    """The worker with what it held as it was stopped; nothing where it was quicker."""
    site.handled.add(worker.name)
    worker.send_signal(signal.SIGSTOP)
    held = await site.peek(lambda _: site.exact_leases(worker)) or []
    if any(not line or lease.line == line for lease in held):
        return [Caught(worker, held)]
    # Or Redis would not say, and then nobody could tell what is excused.
    _released(site, worker)
    return []


async def _met_again(site: Site, fault: Fault) -> None:
    """Returns when Slack has been asked to take one more message, and has not answered yet."""
    seen = fault.taken
    _provoke_alerts(site)
    await site.until(lambda: fault.taken > seen, _AIM_SECONDS)


async def _has_told(site: Site, caught: Caught, before: set[tuple[str, str]]) -> bool:
    """Whether Slack takes what the worker, which stands still, was posting."""
    slack = site.slack_world.slack
    alerts = (lease.id for lease in caught.held if lease.line == keys.OUTBOX)
    held = {(id, severity) for id, _, severity in (alert.rpartition(":") for alert in alerts)}
    return await site.until(lambda: held & (told(slack) - before), _SLACK_DELAY_SECONDS + 1)


def _released(site: Site, victim: Server) -> None:
    victim.send_signal(signal.SIGCONT)
    site.handled.discard(victim.name)


# --- web processes --------------------------------------------------------------------------------


@asynccontextmanager
async def _web_killed(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """While webhooks are under way to it."""
    victim = await _busy_web(site, strike, hit)
    victim.send_signal(signal.SIGKILL)
    await asyncio.to_thread(victim.wait)
    yield
    await _back(site, victim)


@asynccontextmanager
async def _web_stopped(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """A rollout: SIGTERM while webhooks are under way, and a new one a moment later."""
    victim = await _busy_web(site, strike, hit)
    await site.told_to_stop(victim, signal.SIGTERM)
    yield
    await _back(site, victim)


async def _busy_web(site: Site, strike: Strike, hit: Hit) -> Server:
    victim = Random(strike.pick).choice([w for w in site.webs if w.name not in site.handled])
    site.handled.add(victim.name)
    url = f"{victim.url}/webhooks/telnyx"
    for _ in range(_TRIES):
        site.traffic.burst(_BURST, url)
        if await site.until(lambda: site.traffic.under_way(url) >= _BURST, 1, look_seconds=0):
            break
    hit.in_flight = hit.met = site.traffic.under_way(url)
    return victim


# --- Redis ----------------------------------------------------------------------------------------


@asynccontextmanager
async def _redis_restarted(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Ended cleanly, away for a while, and back with its data."""
    async with _redis_trouble(site, hit):
        await asyncio.to_thread(site.valkey.stop)
        yield
        await asyncio.to_thread(site.valkey.start)


@asynccontextmanager
async def _redis_restarted_posted(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Away between Slack's answer and the note of it: the note has to wait, nothing is repeated."""
    slack = site.slack_world.slack
    slow = slack.faults.delay(_SLACK_DELAY_SECONDS, times=_ALL)
    await _met_again(site, slow)
    slow.times = slow.taken
    async with _aimed(site, hit):
        before = len(slack.messages)
        await asyncio.to_thread(site.valkey.stop)
        yield
        hit.met = len(slack.messages) - before
        await asyncio.to_thread(site.valkey.start)


@asynccontextmanager
async def _redis_killed(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Killed, away for a while, and back with all that it had acknowledged."""
    async with _redis_trouble(site, hit):
        await asyncio.to_thread(site.valkey.kill)
        yield
        await asyncio.to_thread(site.valkey.start)


@asynccontextmanager
async def _redis_paused(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """It takes connections and commands, and answers only when it goes on."""
    async with _redis_trouble(site, hit):
        with site.valkey.paused():
            yield


@asynccontextmanager
async def _redis_loading(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Restarted, and slow to read its data."""
    commands = await _padded(site)
    delay = int(_LOAD_SECONDS * 1e6 / commands)
    async with _aimed(site, hit):
        await asyncio.to_thread(site.valkey.stop)
        await asyncio.to_thread(site.valkey.start_slowly, delay)
        # Its statistics begin with the process.
        hit.met = await _errors(site.redis, "LOADING")
        yield


async def _padded(site: Site) -> int:
    """How many commands there are to load: enough of them, and not all since the beginning.

    Valkey looks at its clients only once in a thousand.
    """
    await site.redis.bgrewriteaof()  # type: ignore[no-untyped-call]

    async def is_rewritten() -> bool:
        found: Any = await site.redis.info("persistence")
        return not found["aof_rewrite_in_progress"]

    await site.until(is_rewritten, _AIM_SECONDS)
    async with site.redis.pipeline(transaction=False) as pipe:
        for number in range(_PADDING):
            pipe.set("chaos:padding", number, px=60_000)
        await pipe.execute()
    return _PADDING + int(await site.redis.dbsize())


@asynccontextmanager
async def _redis_full(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """OOM: it has no memory for writes."""
    async with _refusing(site, hit, "OOM"):
        await site.redis.config_set("maxmemory", "1mb")
        yield
        await site.redis.config_set("maxmemory", "0")


@asynccontextmanager
async def _redis_read_only(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """READONLY: it is the replica of a master that is not there, so it keeps what it has."""
    async with _refusing(site, hit, "READONLY"):
        await site.redis.slaveof("127.0.0.1", free_port())
        yield
        await site.redis.slaveof()


@asynccontextmanager
async def _redis_misconfigured(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """MISCONF: it could not write a snapshot, for a directory has the file's name."""
    in_the_way = site.valkey.data / "dump.rdb"
    async with _refusing(site, hit, "MISCONF"):
        in_the_way.mkdir()
        await site.redis.config_set("save", "3600 1000000")
        await site.redis.bgsave()

        async def has_failed() -> bool:
            found: Any = await site.redis.info("persistence")
            return bool(found["rdb_last_bgsave_status"] == "err")

        await site.until(has_failed, _AIM_SECONDS)
        yield
        await site.redis.config_set("save", "")
        shutil.rmtree(in_the_way)


@asynccontextmanager
async def _redis_trouble(site: Site, hit: Hit) -> AsyncIterator[None]:
    """What meets it is what the processes say that they could not do."""
    async with _aimed(site, hit):
        before = site.ledger.count(*REDIS_TROUBLE)
        yield
        await site.until(lambda: site.ledger.count(*REDIS_TROUBLE) > before, 5)
        hit.met = site.ledger.count(*REDIS_TROUBLE) - before


@asynccontextmanager
async def _refusing(site: Site, hit: Hit, error: str) -> AsyncIterator[None]:
    """What meets it is what Redis counts of its own refusals."""
    async with _aimed(site, hit):
        before = await _errors(site.redis, error)
        yield
        hit.met = await _errors(site.redis, error) - before


@asynccontextmanager
async def _aimed(site: Site, hit: Hit) -> AsyncIterator[None]:
    await site.until(site.leases, _AIM_SECONDS)
    hit.in_flight = await site.in_flight()
    hit.began = time.monotonic()
    yield


async def _errors(redis: Redis, name: str) -> int:
    found: Any = (await redis.info("errorstats")).get(f"errorstat_{name}", {})
    return int(found.get("count", 0))


# --- Telnyx ---------------------------------------------------------------------------------------


def _telnyx_fails(make: Callable[[Site], Fault]) -> Begin:
    """Every question meets the fault; the simulator counts them."""

    @asynccontextmanager
    async def begin(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
        hit.in_flight = await _asking(site)
        fault = make(site)
        try:
            await site.until(lambda: fault.taken, _AIM_SECONDS)
            yield
        finally:
            fault.times = 0
        hit.met = fault.taken

    return begin


@asynccontextmanager
async def _telnyx_unauthorized(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """The key is revoked."""
    telnyx = site.world.telnyx
    right, telnyx.api_key = telnyx.api_key, "KEY_another"
    async with _refused_questions(site, hit, 401):
        yield
        telnyx.api_key = right


@asynccontextmanager
async def _telnyx_disabled(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """The account is out of funds."""
    site.world.telnyx.disabled = True
    async with _refused_questions(site, hit, 403):
        yield
        site.world.telnyx.disabled = False


@asynccontextmanager
async def _refused_questions(site: Site, hit: Hit, status: int) -> AsyncIterator[None]:
    since = site.world.clock()
    hit.in_flight = await _asking(site)

    def refused() -> int:
        return sum(r.status == status for r in _asked_since(site, since))

    await site.until(refused, _AIM_SECONDS)
    yield
    hit.met = refused()


def _asked_since(site: Site, at: float) -> list[Any]:
    found = []
    for request in reversed(site.world.telnyx.requests):
        if request.at < at:
            break
        found.append(request)
    return found


async def _asking(site: Site) -> int:
    return sum(lease.line == keys.DUE for lease in await site.leases())


# --- Slack ----------------------------------------------------------------------------------------


def _slack_fails(make: Callable[[Site], Fault]) -> Begin:
    """Every post meets the fault; the simulator counts them."""

    @asynccontextmanager
    async def begin(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
        fault = make(site)
        hit.in_flight = await _waiting_alerts(site)
        try:
            await _until_posting(site, lambda: fault.taken)
            yield
        finally:
            fault.times = 0
        hit.met = fault.taken

    return begin


@asynccontextmanager
async def _slack_down(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """Nothing listens there any more."""

    def waiting() -> int:
        return site.ledger.count("alert waits", "alert in doubt")

    before, since = waiting(), site.slack_world.clock() - _ANSWER_SECONDS
    async with site.slack_world.down():
        site.cut_posts += [
            Excuse(m.session_id, m.severity, "cut", since)
            for m in map(read_message, site.slack_world.slack.messages)
            if m.session_id and m.at >= since
        ]
        hit.in_flight = await _waiting_alerts(site)
        await _until_posting(site, lambda: waiting() > before)
        yield
    hit.met = waiting() - before


@asynccontextmanager
async def _slack_limited(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """A storm of 429."""
    site.slack_world.slack.limit(0.5, burst=0)
    async with _refused_posts(site, hit, 429):
        yield
        site.slack_world.slack.limit(None)


@asynccontextmanager
async def _slack_revoked(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """The webhook is no more: 404 `no_service` for all."""
    slack = site.slack_world.slack
    right, slack.path = slack.path, "/services/T0/B0/ANOTHER"
    async with _refused_posts(site, hit, 404):
        yield
        slack.path = right


@asynccontextmanager
async def _refused_posts(site: Site, hit: Hit, status: int) -> AsyncIterator[None]:
    refused = site.slack_world.slack.refused
    before = len(refused)
    hit.in_flight = await _waiting_alerts(site)

    def count() -> int:
        return sum(post.status == status for post in refused[before:])

    await _until_posting(site, count)
    yield
    hit.met = count()


async def _until_posting(site: Site, met: Callable[[], Any]) -> None:
    _provoke_alerts(site)
    await site.until(met, _AIM_SECONDS)


def _provoke_alerts(site: Site) -> None:
    site.traffic.happen("wrong_rate", at_once=True)


async def _waiting_alerts(site: Site) -> int:
    async def count(redis: Redis) -> int:
        return int(await redis.zcard(keys.OUTBOX))

    return await site.peek(count) or 0


# --- everything -----------------------------------------------------------------------------------


@asynccontextmanager
async def _everything_killed(site: Site, strike: Strike, hit: Hit) -> AsyncIterator[None]:
    """All processes and Redis at once, with work in all states; then all of them again."""
    site.handled.update(server.name for server in site.servers)
    stopped: list[Caught] = []

    async def is_work_caught() -> bool:
        for worker in site.workers:
            worker.send_signal(signal.SIGSTOP)
        stopped[:] = [Caught(worker, await site.exact_leases(worker)) for worker in site.workers]
        return any(caught.held for caught in stopped)

    while not await is_work_caught():
        for worker in site.workers:
            worker.send_signal(signal.SIGCONT)
        await asyncio.sleep(_RETRY_SECONDS)
    for caught in stopped:
        hit.met += len(caught.held)
        _die(site, strike, caught)
    hit.in_flight = hit.met + site.traffic.under_way()
    for web in site.webs:
        web.send_signal(signal.SIGKILL)
    await asyncio.to_thread(site.valkey.kill)
    await asyncio.gather(*(asyncio.to_thread(server.wait) for server in site.servers))
    yield
    await asyncio.to_thread(site.valkey.start)
    await asyncio.gather(*(_back(site, server) for server in site.servers))


# --- how to tell that the work goes on ------------------------------------------------------------


def _webhooks_taken(site: Site, since: float) -> bool:
    return site.traffic.taken_at > since


def _questions_answered(site: Site, since: float) -> bool:
    at = site.world.clock() - (time.monotonic() - since)
    return any(r.status in {200, 404} and not r.fault for r in _asked_since(site, at))


def _alerts_told(site: Site, since: float) -> bool:
    at = site.slack_world.clock() - (time.monotonic() - since)
    messages = site.slack_world.slack.messages
    return bool(messages) and messages[-1].at > at


def _all_go_on(site: Site, since: float) -> bool:
    return _webhooks_taken(site, since) and _questions_answered(site, since)


# --- all of them ----------------------------------------------------------------------------------

_LEASES: Final = "leases of the dead"


def _way(
    name: str,
    lane: str,
    what: str,
    begin: Begin,
    recovered: Recovered,
    *,
    seconds: tuple[float, float],
    recovery: float,
    back: Recovered | None = None,
) -> Way:
    return Way(Kind(name, lane, *seconds, recovery), what, begin, recovered, back)


def _worker_way(name: str, what: str, begin: Begin) -> Way:
    return _way(name, "workers", what, begin, _questions_answered, seconds=(0.2, 1.0), recovery=5)


def _redis_way(
    name: str, what: str, begin: Begin, seconds: tuple[float, float] = (1.5, 3.5)
) -> Way:
    return _way(
        name, "redis", what, begin, _all_go_on, seconds=seconds, recovery=3, back=_webhooks_taken
    )


def _telnyx_way(name: str, what: str, begin: Begin) -> Way:
    return _way(
        name,
        TELNYX_LANE,
        what,
        begin,
        _questions_answered,
        seconds=(1.5, 3.0),
        recovery=6,
        back=_questions_answered,
    )


def _slack_way(name: str, what: str, begin: Begin) -> Way:
    return _way(name, "slack", what, begin, _alerts_told, seconds=(1.5, 3.0), recovery=5)


WAYS: Final = (
    _worker_way("worker SIGKILL", _LEASES, _worker_killed),
    _worker_way("worker SIGKILL, asking", _LEASES, _worker_killed_asking),
    _worker_way("worker SIGKILL, posted", "alerts told, not noted", _worker_killed_posting),
    _worker_way("worker SIGTERM", "leases at that moment", _worker_stopped),
    _way(
        "worker SIGSTOP",
        "pauses",
        "leases that ended",
        _worker_paused,
        _questions_answered,
        seconds=(LEASE_SECONDS + 2, LEASE_SECONDS + 6),
        recovery=1,
    ),
    _way(
        "web SIGKILL",
        "web",
        "webhooks under way",
        _web_killed,
        _webhooks_taken,
        seconds=(0.2, 2.0),
        recovery=5,
    ),
    _way(
        "web SIGTERM",
        "web",
        "webhooks under way",
        _web_stopped,
        _webhooks_taken,
        seconds=(0.2, 2.0),
        recovery=5,
    ),
    _redis_way("Redis restart", "failed operations", _redis_restarted),
    _redis_way(
        "Redis restart, posted",
        "alerts told, not noted",
        _redis_restarted_posted,
        seconds=(2.0, 3.5),
    ),
    _redis_way("Redis SIGKILL", "failed operations", _redis_killed),
    _redis_way(
        # Long enough for what waits for it to give up.
        "Redis SIGSTOP",
        "failed operations",
        _redis_paused,
        seconds=(3.0, 4.5),
    ),
    _redis_way("Redis LOADING", "refused commands", _redis_loading),
    _redis_way("Redis OOM", "refused commands", _redis_full),
    _redis_way("Redis READONLY", "refused commands", _redis_read_only),
    _redis_way("Redis MISCONF", "refused commands", _redis_misconfigured),
    _telnyx_way(
        "Telnyx 5xx",
        "questions",
        _telnyx_fails(lambda site: site.world.telnyx.faults.status(503, times=_ALL)),
    ),
    _telnyx_way(
        "Telnyx stalls",
        "questions",
        _telnyx_fails(lambda site: site.world.telnyx.faults.stall(_STALL_SECONDS, times=_ALL)),
    ),
    _telnyx_way(
        "Telnyx resets",
        "questions",
        _telnyx_fails(lambda site: site.world.telnyx.faults.reset(times=_ALL)),
    ),
    _telnyx_way(
        "Telnyx 429",
        "questions",
        # Somebody else has used up what the account may ask.
        _telnyx_fails(
            lambda site: site.world.telnyx.faults.status(429, times=_ALL, headers=_USED_UP)
        ),
    ),
    _telnyx_way("Telnyx 401", "questions refused", _telnyx_unauthorized),
    _telnyx_way("Telnyx 403", "questions refused", _telnyx_disabled),
    _slack_way(
        "Slack 5xx",
        "posts",
        _slack_fails(lambda site: site.slack_world.slack.faults.status(503, times=_ALL)),
    ),
    _slack_way(
        "Slack slow",
        "posts",
        _slack_fails(
            lambda site: site.slack_world.slack.faults.delay(_SLACK_DELAY_SECONDS, times=_ALL)
        ),
    ),
    _slack_way("Slack down", "posts put off", _slack_down),
    _slack_way("Slack 429", "posts refused", _slack_limited),
    _slack_way("Slack revoked", "posts refused", _slack_revoked),
    _way(
        "all killed",
        LAST_LANE,
        _LEASES,
        _everything_killed,
        _all_go_on,
        seconds=(0.5, 1.5),
        recovery=6,
        back=_webhooks_taken,
    ),
)
"""Every kind of fault that strikes at a moment of its own."""

BY_NAME: Final = {way.kind.name: way for way in WAYS}
