"""One run: a storm of faults over a steady flow of calls, then quiet, then the accounting."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, cast

from redis.asyncio import Redis

from service import keys
from service.records import State
from tests.chaos import observe
from tests.chaos.accounting import (
    Observation,
    Struck,
    Violation,
    overlap,
    violations,
)
from tests.chaos.faults import BY_NAME, TELNYX_LANE, WAYS, Hit
from tests.chaos.schedule import LAST_LANE, Round, Strike, plan, rounds_in
from tests.chaos.site import Site, open_site

SHORTEST_ROUND_SECONDS: Final = 60.0
# Of the whole run: starting the processes, what faults take longer than planned, and letting the
# work drain at the end.
_OVERHEAD_SECONDS: Final = 60.0
_RECOVERY_SECONDS: Final = 100.0
_WATCH_SECONDS: Final = 0.25
_NATURAL_SECONDS: Final = 10.0
"""How long the work drains by itself before what waits for back-offs is hurried."""
_DRAIN_SECONDS: Final = 60.0
_HURRIED_AHEAD_MS: Final = 1500
# Time in which an alert that nobody should get would still come.
_QUIET_SECONDS: Final = 1.5
# Kinds that are at work all the time.
POISON, CLOCKS, MUDDLE = "poison", "wrong clocks", "webhooks twice, late, muddled"
_WARM_UP_SECONDS: Final = 2.0

SKEW_SECONDS: Final = 150.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How long, from which seed, and how wrong two of the three workers' clocks are."""

    minutes: float = 2.0
    seed: int = 0
    skew_seconds: float = SKEW_SECONDS


@dataclass(slots=True)
class Drain:
    """How the work came to its end when all faults were over."""

    seconds: float = 0.0
    natural_left: int = 0
    """Open sessions and waiting alerts when hurrying began."""
    hurried_failures: int = 0
    """Times that the wait after a failure of its own was cut short."""
    hurried_holds: int = 0
    """Times that the wait after an outage or a refusal was cut short."""
    hurried_alerts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why those that were hurried waited."""


@dataclass(slots=True)
class Result:
    """What was seen, what of it is not as it must be, and figures for people."""

    options: Options
    seen: Observation
    violations: list[Violation]
    drain: Drain
    seconds: float
    webhooks: dict[str, int]
    memory: dict[str, tuple[float, float]]
    lines: dict[str, list[str]] = field(default_factory=dict)
    """For each session that a violation names, all that the processes said of it."""


def schedule(options: Options) -> tuple[Round, ...]:
    """The strikes of a run, the same for the same seed and length."""
    storm = options.minutes * 60 - _OVERHEAD_SECONDS
    rounds, seconds = rounds_in(storm, shortest_seconds=SHORTEST_ROUND_SECONDS)
    kinds = [way.kind for way in WAYS]
    return plan(kinds, seed=options.seed, rounds=rounds, round_seconds=seconds)


async def run(options: Options, directory: Path, say: Say) -> Result:
    """One run; `say` is told of each strike as it happens. Raises ProcessFailed at the start."""
    begun = time.monotonic()
    async with open_site(directory, seed=options.seed, skew_seconds=options.skew_seconds) as site:
        watching = asyncio.create_task(_watch(site))
        calling = asyncio.create_task(site.traffic.run())
        await asyncio.sleep(_WARM_UP_SECONDS)
        strikes: list[_Raw] = []
        for number, of_round in enumerate(schedule(options), 1):
            say(f"{site.moment():6.1f} s  round {number}")
            strikes += await _storm(site, of_round, say, orderly=number % 2 == 1)
        say(f"{site.moment():6.1f} s  the faults are over")
        await site.traffic.stop()
        await calling
        drain = await _drain(site)
        await site.takeovers_seen()
        memory = await site.memory()
        site.handled.update(server.name for server in site.servers)
        await asyncio.gather(
            *(site.told_to_stop(server, signal.SIGTERM) for server in site.servers)
        )
        watching.cancel()
        seen = await _observe(site, [*_net(site, strikes), *_constant(site)])
        found = violations(seen)
        named = sorted({v.session_id for v in found if v.session_id})
        return Result(
            options,
            seen,
            found,
            drain,
            time.monotonic() - begun,
            _webhooks(site),
            {name: (site.memory_at_start[name], mib) for name, mib in memory.items()},
            {id: site.ledger.about(id) for id in named},
        )


@dataclass(frozen=True, slots=True)
class _Raw:
    """A strike as it was, in times of the monotonic clock."""

    kind: str
    ended: float
    recovered: float | None
    hit: Hit


# --- the storm ------------------------------------------------------------------------------------


async def _storm(site: Site, of_round: Round, say: Say, *, orderly: bool) -> list[_Raw]:
    """The lanes of a round beside each other, then what strikes everything.

    In an orderly one, such as the only one of a short run, Redis and Telnyx are away one after the
    other, and what needs work to hit waits for both: so each kind is sure to hit something.
    """
    begun = time.monotonic()
    lanes: dict[str, list[Strike]] = {}
    for strike in of_round:
        lanes.setdefault(strike.lane, []).append(strike)
    last = lanes.pop(LAST_LANE, [])
    struck = await asyncio.gather(
        *(_lane(site, lane, begun, say, orderly=orderly) for lane in lanes.values())
    )
    at_last = await _lane(site, last, begun, say, orderly=orderly)
    return sorted([*chain(*struck), *at_last], key=lambda raw: raw.hit.began)


async def _lane(
    site: Site, strikes: list[Strike], begun: float, say: Say, *, orderly: bool
) -> list[_Raw]:
    struck = []
    for strike in strikes:
        await asyncio.sleep(max(0.0, begun + strike.at_seconds - time.monotonic()))
        if not orderly:
            struck.append(await _strike(site, strike, say))
        elif BY_NAME[strike.kind].back:
            async with site.turn:
                struck.append(await _strike(site, strike, say))
        else:
            async with site.turn:
                pass
            struck.append(await _strike(site, strike, say))
    return struck


async def _strike(site: Site, strike: Strike, say: Say) -> _Raw:
    way, hit = BY_NAME[strike.kind], Hit(BY_NAME[strike.kind].what)
    async with way.begin(site, strike, hit):
        say(f"{site.moment():6.1f} s  {strike.kind} …")
        await asyncio.sleep(strike.seconds)
    ended = time.monotonic()
    back = way.back
    if back:
        await site.until(lambda: back(site, ended), _RECOVERY_SECONDS)
        site.hindrances.append((hit.began, time.monotonic()))
        if strike.lane != TELNYX_LANE:
            site.redis_away.append(site.hindrances[-1])
    recovered = await site.until(lambda: way.recovered(site, ended), _RECOVERY_SECONDS)
    now = time.monotonic()
    said = f"met {hit.met} {hit.what}, work went on after {now - ended:.1f} s"
    say(f"{site.moment():6.1f} s  {strike.kind} over: {said}")
    return _Raw(strike.kind, ended, now if recovered else None, hit)


def _net(site: Site, strikes: list[_Raw]) -> list[Struck]:
    """The strikes as they are told of, now that all hindrances are known."""
    found = []
    for raw in strikes:
        others = [interval for interval in site.hindrances if interval[0] != raw.hit.began]
        until = raw.recovered or raw.ended
        found.append(
            Struck(
                kind=raw.kind,
                at_seconds=site.moment(raw.hit.began),
                lasted_seconds=raw.ended - raw.hit.began,
                in_flight=raw.hit.in_flight,
                met=raw.hit.met,
                met_what=raw.hit.what,
                recovered_seconds=None if raw.recovered is None else until - raw.ended,
                hindered_seconds=overlap(raw.ended, until, others),
            )
        )
    return found


async def _watch(site: Site) -> None:
    """Whether a process has ended by itself, and who has leased what."""
    while True:
        site.note_leases(await site.leases())
        for server in site.crashed():
            site.handled.add(server.name)
            site.crashes.append(str(server.failure()))
        await asyncio.sleep(_WATCH_SECONDS)


def _constant(site: Site) -> list[Struck]:
    """What was wrong all the time, in the shape of faults."""
    tries = sum(site.ledger.failed_tries.values())
    wrong = sum(site.ledger.counts[worker.name, "verdict"] for worker in site.workers[1:])
    muddled = site.traffic.sent_twice + site.traffic.sent_late
    lasted = site.moment()
    return [
        Struck(POISON, 0.0, lasted, 0, tries, "attempts that failed", 0.0),
        Struck(CLOCKS, 0.0, lasted, 0, wrong, "verdicts by wrong clocks", 0.0),
        Struck(MUDDLE, 0.0, lasted, 0, muddled, "events twice or late", 0.0),
    ]


# --- the end of it --------------------------------------------------------------------------------


async def _drain(site: Site) -> Drain:
    """Until nothing is open, at first by itself; then waits for back-offs are cut short."""
    drain = Drain()
    begun = time.monotonic()
    candidates = {expected.session_id for expected in site.traffic.expected}
    while time.monotonic() - begun < _DRAIN_SECONDS:
        open_sessions, waiting = await _left(site, candidates)
        if not open_sessions and not waiting:
            break
        natural = time.monotonic() - begun < _NATURAL_SECONDS
        if natural:
            drain.natural_left = len(open_sessions) + len(waiting)
        await _hurry(site, open_sessions, waiting, drain, failures_only=natural)
        await asyncio.sleep(_WATCH_SECONDS)
    drain.seconds = time.monotonic() - begun
    await asyncio.sleep(_QUIET_SECONDS)
    return drain


async def _left(site: Site, candidates: set[str]) -> tuple[list[str], list[str]]:
    """Of the candidates the open sessions and the untold alerts; who has neither leaves the set."""
    sessions, untold = [], []
    for id in sorted(candidates):
        session = await site.store.session(id)
        is_open = session is not None and session.state is State.OPEN
        alerts = [t for t in await observe.alerts(site.store, [id]) if not t.is_settled]
        if is_open:
            sessions.append(id)
        untold += [f"{id}:{told.severity}" for told in alerts]
        if not is_open and not alerts:
            candidates.discard(id)
    return sessions, untold


async def _hurry(
    site: Site, sessions: list[str], waiting: list[str], drain: Drain, *, failures_only: bool
) -> None:
    for id in sessions:
        failed = await _field(site.redis, keys.SESSION + id, "failures") not in {"", "0"}
        if (failed or not failures_only) and await _bring_forward(site.redis, id):
            drain.hurried_failures += failed
            drain.hurried_holds += not failed
            drain.reasons[await _field(site.redis, keys.SESSION + id, "reason")] += 1
    if waiting and not failures_only:
        drain.hurried_alerts += await _hurry_alerts(site.redis)


async def _hurry_alerts(redis: Redis) -> int:
    """Cut short what the channel waits, and what messages do that Slack may have taken."""
    now_ms = int(time.time() * 1000)
    aside = await redis.zrangebyscore(keys.ASIDE, now_ms + _HURRIED_AHEAD_MS, "+inf")
    if aside:
        await redis.zadd(keys.ASIDE, dict.fromkeys(aside, now_ms), xx=True)
    waits_until = float(await _field(redis, keys.SLACK, "next") or 0)
    if waits_until < now_ms + _HURRIED_AHEAD_MS:
        return len(aside)
    await cast("Awaitable[int]", redis.hdel(keys.SLACK, "next"))
    return len(aside) + 1


async def _bring_forward(redis: Redis, session_id: str) -> bool:
    """Make it due now, unless it is at work or due soon."""
    now_ms = int(time.time() * 1000)
    due = await redis.zscore(keys.DUE, session_id)
    if due is None or due < now_ms + _HURRIED_AHEAD_MS:
        return False
    if await _field(redis, keys.SESSION + session_id, "token"):
        return False
    return bool(await redis.zadd(keys.DUE, {session_id: now_ms}, xx=True, ch=True))


async def _field(redis: Redis, key: str, name: str) -> str:
    found = await cast("Awaitable[bytes | None]", redis.hget(key, name))
    return (found or b"").decode()


async def _observe(site: Site, strikes: list[Struck]) -> Observation:
    traffic, slack = site.traffic, site.slack_world.slack
    expected = tuple(traffic.expected)
    ids = [each.session_id for each in expected]
    lessons, learned = await observe.lessons(site.redis, int(time.time()) // 86_400)
    return Observation(
        kinds=[way.kind.name for way in WAYS] + [POISON, CLOCKS, MUDDLE],
        expected=expected,
        accepted=traffic.accepted(),
        ignored=traffic.ignored(),
        outcomes=await observe.outcomes(site.store, ids),
        alerts=await observe.alerts(site.store, ids),
        messages=[observe.read_message(posted) for posted in slack.messages],
        excuses=site.excuses(),
        refusals=observe.refused_for_good(slack),
        strikes=strikes,
        takeovers=site.takeovers(),
        longest_held=site.longest_held(),
        endings=site.endings,
        failed_tries=dict(site.ledger.failed_tries),
        complaints=site.ledger.complaints,
        crashes=site.crashes,
        statuses=traffic.statuses,
        lessons=lessons,
        learned=learned,
    )


def _webhooks(site: Site) -> dict[str, int]:
    traffic, statuses = site.traffic, site.traffic.statuses
    outcomes = traffic.outcomes
    return {
        "events": len(outcomes),
        "attempts": statuses.total(),
        "answered 2xx": sum(n for s, n in statuses.items() if isinstance(s, int) and s < 300),
        "answered 503": statuses[503],
        "without an answer": sum(n for s, n in statuses.items() if isinstance(s, str)),
        "events tried again": sum(len(outcome.statuses) > 1 for outcome in outcomes),
        "events given up": sum(not outcome.delivered for outcome in outcomes),
        "sent twice": traffic.sent_twice,
        "sent late": traffic.sent_late,
    }
