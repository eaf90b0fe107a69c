"""Webhooks that never came: found by the worker's own search and by hand, whatever comes."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from service import keys
from service.records import State
from tests.flow.stage import (
    ALL_POSTED_BY_AGE_ONE,
    TOLLWATCH,
    Outside,
    Stage,
    hangups,
    now,
    open_stage,
    severity_of,
)
from tests.world.clock import later
from tests.world.lists import Attempt
from tests.world.model import Call
from tests.world.processes import Process, Server
from tests.world.webhooks import events_for
from tests.world.world import World
from workers.listings import DETAIL_RECORD

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_SEARCHES = {"TOLLWATCH_RECONCILE_MINUTES": "30"}
_FOUND = "webhook never came"
_SEARCHED = "searched for webhooks that never came"
_databases = iter(range(1, 16))


@asynccontextmanager
async def _stage(outside: Outside, **options: Any) -> AsyncIterator[Stage]:
    """A Telnyx of its own, of which nothing is known yet."""
    async with World(time_scale=ALL_POSTED_BY_AGE_ONE) as world:
        options = {"worker": _SEARCHES, **options}
        yours = Outside(world, outside.valkey)
        async with open_stage(yours, ages="1,2", database=next(_databases), **options) as stage:
            yield stage


def _past(stage: Stage, kind: str = "sip_inbound", *, minutes: float = 10) -> Call:
    """A call that ended so long ago that Telnyx has given up telling of it."""
    return stage.world.call(kind, end=later(now(stage), -60 * minutes))


async def _search_now(stage: Stage) -> None:
    """Let the time pass until the next search."""
    await _hset(stage, {"tried": 0})


async def _hset(stage: Stage, fields: Mapping[str, int]) -> None:
    # redis-py types one method for its blocking and its asyncio client at once.
    await cast("Any", stage.redis.hset(keys.RECONCILE, mapping=dict(fields)))


async def _searched(stage: Stage, times: int) -> dict[str, Any]:
    """The log line of that search, once it has ended."""
    await stage.until(lambda: len(stage.log(event=_SEARCHED)) >= times, f"search {times}")
    return stage.log(event=_SEARCHED)[times - 1]


def _asked(stage: Stage, record_type: str) -> list[str]:
    """The numbers of the pages that were asked for."""
    return [
        request.query["page[number]"]
        for request in stage.world.telnyx.requests
        if request.query.get("filter[record_type]") == record_type
    ]


def _by_hand(stage: Stage, *arguments: str) -> Process:
    """`tollwatch reconcile`, not started yet."""
    names = ("REDIS_URL", "TELNYX_API_KEY", "TELNYX_API_URL")
    environ = {name: stage.worker.environ[name] for name in names}
    return Process("tollwatch", [TOLLWATCH, "reconcile", *arguments], environ)


async def _done(process: Process, code: int = 0) -> list[str]:
    """What it wrote."""
    process.start()
    assert await asyncio.to_thread(process.wait) == code, process.last_lines
    return process.lines


async def _report(stage: Stage, since: str = "1h") -> dict[str, Any]:
    """What a search by hand says as JSON; what it tells on its way comes before."""
    lines = await _done(_by_hand(stage, "--since", since, "--format", "json"))
    report: dict[str, Any] = json.loads("\n".join(lines[lines.index("{") :]))
    return report


# --- the worker's own search ----------------------------------------------------------------------


async def test_a_worker_finds_what_never_came(outside: Outside) -> None:
    """Lost webhooks and calls never told of get their verdicts and alerts; the rest is let be."""
    async with _stage(outside) as stage:
        deliveries = stage.world.telnyx.deliveries
        assert (await _searched(stage, 1))["found"] == 0
        lost, untold, sound = _past(stage, "wrong_rate"), _past(stage, "webrtc"), _past(stage)
        arrived = _past(stage, "ai_inbound")
        deliveries.never_arrived([*events_for(lost), *events_for(sound)])
        for event in events_for(arrived):
            ended = event.occurred_at.timestamp()
            deliveries.add(event, [Attempt(stage.url, 202, ended, ended + 0.1)])
            assert (await stage.post(event)).is_success
        before = await stage.ended(arrived)

        await _search_now(stage)
        told = await _searched(stage, 2)
        assert (told["outcome"], told["found"], told["unreadable"]) == ("whole", 3, 0)
        for call in (lost, untold, sound):
            verdict = (await stage.ended(call)).verdict
            assert verdict
            assert verdict.total == call.total
            assert len(stage.log(call, _FOUND)) == 1
        assert lost.expects
        [message] = await stage.told(lost)
        assert severity_of(message) in lost.expects.severities
        assert {event.kind for event in (await stage.session(untold)).events} == {DETAIL_RECORD}
        assert await stage.session(arrived) == before
        assert stage.log(arrived, _FOUND) == []

        await _search_now(stage)
        told = await _searched(stage, 3)
        assert (told["found"], told["merged"]) == (0, 0)
        await _metrics_agree(stage)


async def _metrics_agree(stage: Stage) -> None:
    """Searches, sessions by list, and when the last search was whole."""
    runs = await stage.metric(stage.worker, "tollwatch_reconciliations_total", outcome="whole")
    by_list = [
        await stage.metric(stage.worker, "tollwatch_reconciled_sessions_total", source=source)
        for source in ("webhook_deliveries", "call-control", "sip-trunking", "webrtc")
    ]
    at = await stage.metric(stage.worker, "tollwatch_reconciled_timestamp_seconds")
    assert (runs, by_list[0], sum(by_list)) == (3, 2, 3)
    assert abs(stage.world.clock() - at) < 60


async def test_several_workers_search_once(outside: Outside) -> None:
    """Whichever comes first; the others wait for the next time."""
    async with _stage(outside, workers=2) as stage:
        await _searched(stage, 1)
        for turn in (2, 3):
            await _search_now(stage)
            await _searched(stage, turn)
        assert len(stage.log(event=_SEARCHED)) == 3
        asked = [r for r in stage.world.telnyx.requests if r.path.endswith("webhook_deliveries")]
        # Nothing is there, which is verified with fewer filters each time.
        assert len(asked) == 9


async def test_another_worker_goes_on_where_one_was_killed(outside: Outside) -> None:
    """It asks for the page at which the first one died, and all is found."""
    async with _stage(outside, workers=2) as stage:
        await _searched(stage, 1)
        calls = [_past(stage) for _ in range(230)]
        stage.world.telnyx.latency_seconds = 0.3
        await _search_now(stage)
        before = len(_asked(stage, "sip-trunking"))
        await stage.until(lambda: len(_asked(stage, "sip-trunking")) - before >= 3, "three pages")
        holder = (await stage.redis.get(keys.RECONCILE_LEASE) or b"").decode()
        [victim] = [w for w in stage.workers if f".{w.pid}." in holder]
        [survivor] = [worker for worker in stage.workers if worker is not victim]
        await asyncio.to_thread(victim.kill)
        seen = _asked(stage, "sip-trunking")[before:]
        stage.world.telnyx.latency_seconds = 0
        done = len(_searches(survivor))
        # The lease of the dead ends within 20 s, and the other one is there within 2.
        await stage.until(lambda: len(_searches(survivor)) > done, "a search by the other", 30)
        rest = _asked(stage, "sip-trunking")[before + len(seen) :]
        assert seen == ["1", "2", "3"][: len(seen)]
        # Killed before or after it had noted the third page.
        assert rest[0] in {"3", "4"}
        found = {line["session_id"] for line in stage.log(event=_FOUND)}
        assert found <= {call.session_id for call in calls}
        assert {await stage.store.session(call.session_id) is None for call in calls} == {False}


def _searches(worker: Server) -> list[dict[str, Any]]:
    return [line for line in worker.events if line["event"] == _SEARCHED]


async def test_a_worker_that_is_told_to_stop_leaves_the_search(outside: Outside) -> None:
    """At once: the lease is given back, and the progress is there for the next."""
    patient = {**_SEARCHES, "TOLLWATCH_GRACE_SECONDS": "60"}
    async with _stage(outside, worker=patient) as stage:
        await _searched(stage, 1)
        for _ in range(130):
            _past(stage)
        stage.world.telnyx.latency_seconds = 0.5
        await _search_now(stage)
        before = len(_asked(stage, "sip-trunking"))
        await stage.until(lambda: len(_asked(stage, "sip-trunking")) > before + 1, "two pages")
        # The next page never comes: who gives the search the grace that sessions have is killed.
        stage.world.telnyx.faults.stall(path="detail_records", times=None)
        assert await asyncio.to_thread(stage.worker.terminate) == 0
        assert not await stage.redis.exists(keys.RECONCILE_LEASE)
        fields = await cast("Any", stage.redis.hgetall(keys.RECONCILE))
        assert b'"page":2' in fields[b"schedule:sip-trunking"]


# --- what Telnyx may say --------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", ["refused", "empty"])
async def test_lists_without_filters_are_searched_all_the_same(
    outside: Outside, unknown: Any
) -> None:
    """Whether Telnyx refuses a filter or answers with nothing."""
    async with _stage(outside) as stage:
        await _searched(stage, 1)
        stage.world.telnyx.knows_filters = False
        stage.world.telnyx.unknown_filters = unknown
        lost, untold = _past(stage), _past(stage, "ai_outbound")
        stage.world.telnyx.deliveries.never_arrived(hangups(lost))
        await _search_now(stage)
        told = await _searched(stage, 2)
        assert (told["outcome"], told["found"]) == ("whole", 2)
        for call in (lost, untold):
            assert (await stage.ended(call)).state is State.VERDICT


async def test_a_disabled_account_is_said_and_the_next_search_finds(outside: Outside) -> None:
    """In the log and in a metric, by hand with an exit code; nothing is lost by it."""
    async with _stage(outside) as stage:
        await _searched(stage, 1)
        call = _past(stage)
        stage.world.telnyx.disabled = True
        await _search_now(stage)
        told = await _searched(stage, 2)
        assert (told["outcome"], told["level"]) == ("refused", "warning")
        assert "Account is disabled D17" in told["reason"]
        name = "tollwatch_reconciliations_total"
        assert await stage.metric(stage.worker, name, outcome="refused") == 1
        lines = await _done(_by_hand(stage, "--since", "1h"), code=1)
        assert "stopped early (refused)" in lines[-1]
        assert "Account is disabled D17" in lines[-1]
        stage.world.telnyx.disabled = False
        await _search_now(stage)
        assert (await _searched(stage, 3))["found"] == 1
        await stage.ended(call)


async def test_rate_limits_are_kept(outside: Outside) -> None:
    """No question is refused, though the search needs many windows; each list has its own."""
    async with _stage(outside, worker={}) as stage:
        telnyx = stage.world.telnyx
        telnyx.limit(4, 2.0, ["detail_records", "webhook_deliveries"])
        calls = [_past(stage) for _ in range(230)]
        telnyx.deliveries.never_arrived(hangups(calls[0]))
        report = await _report(stage)
        assert report["total"]["scheduled"] == 230
        lists = [r for r in telnyx.requests if not r.path.startswith("/v2/session_analysis")]
        assert len(lists) > 8
        assert {request.status for request in lists} == {200}


# --- by hand --------------------------------------------------------------------------------------


async def test_a_search_by_hand_finds_what_never_came(outside: Outside) -> None:
    """Of all that Telnyx could not deliver each session is found, once, and gets its verdict."""
    async with _stage(outside, worker={}) as stage:
        calls = [stage.past(kind) for kind in ("ai_inbound", "doubled_charge", "conference")]
        async with stage.sender(lost=lambda _: True) as sender:
            outcomes = await sender.send([e for call in calls for e in events_for(call)])
        assert not any(outcome.delivered for outcome in outcomes)
        dry = await _done(_by_hand(stage, "--since", "1h", "--dry-run"))
        assert dry[-1] == "3 sessions would be scheduled"
        assert await stage.redis.zcard(keys.SESSIONS) == 0
        first, second = await _report(stage), await _report(stage)
        assert (first["outcome"], first["total"]["scheduled"]) == ("whole", 3)
        assert (second["total"]["scheduled"], second["total"]["merged"]) == (0, 0)
        for call in calls:
            verdict = (await stage.ended(call)).verdict
            assert verdict
            assert verdict.total == call.total


async def test_a_killed_search_by_hand_goes_on(outside: Outside) -> None:
    """Called again it asks for the page at which it died, and tells of the whole span."""
    async with _stage(outside, worker={}) as stage:
        for _ in range(230):
            _past(stage)
        stage.world.telnyx.latency_seconds = 0.2
        process = _by_hand(stage, "--since", "1h")
        process.start()
        await stage.until(
            lambda: [line for line in process.lines if "sip-trunking: page 3" in line], "page 3"
        )
        await asyncio.to_thread(process.kill)
        seen = len(_asked(stage, "sip-trunking"))
        stage.world.telnyx.latency_seconds = 0
        lines = await _done(_by_hand(stage, "--since", "1h"), code=1)
        assert lines == [
            "another search is under way, by a worker or by hand: try again in a while"
        ]
        # Let the time pass for which the lease of the dead lasts.
        await stage.redis.delete(keys.RECONCILE_LEASE)
        report = await _report(stage)
        assert (report["outcome"], report["total"]["scheduled"]) == ("whole", 230)
        pages = _asked(stage, "sip-trunking")
        assert pages[:seen] == [str(number + 1) for number in range(seen)]
        # What it had asked for last it may not have noted any more.
        assert pages[seen] in {str(seen), str(seen + 1)}


async def test_an_interrupted_search_by_hand_says_so(outside: Outside) -> None:
    """Ctrl-C gives the lease back; called again, it goes on."""
    async with _stage(outside, worker={}) as stage:
        call = _past(stage)
        stage.world.telnyx.latency_seconds = 1
        process = _by_hand(stage, "--since", "1h")
        process.start()
        await stage.until(lambda: process.lines, "the first page")
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait) == 130
        assert process.lines[-1] == "interrupted: called again, it goes on where it stopped"
        stage.world.telnyx.latency_seconds = 0
        assert (await _report(stage))["total"]["scheduled"] == 1
        await stage.ended(call)
