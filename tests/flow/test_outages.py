"""Telnyx fails for all, or wants to be asked less: work waits, hammers nobody, drains by itself.

What is shared by all workers (the rate limit, the breaker) decides here, so each test has a stage
of its own.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import pytest

from service.records import State
from tests.flow.stage import Outside, Stage, open_stage
from tests.world.model import Call
from tests.world.telnyx import TelnyxWorld

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_SESSIONS: Final = 30
_DATABASES: Final = itertools.count(1)
# Those first asked at once, then one question at a time: five, ten, twenty seconds apart.
_FEW: Final = {"TOLLWATCH_WORKER_CONCURRENCY": "5", "TOLLWATCH_OUTAGE_NOTICE_SECONDS": "1"}


@contextmanager
def _refused_key(telnyx: TelnyxWorld) -> Iterator[None]:
    right, telnyx.api_key = telnyx.api_key, "KEY_of_another_account"
    try:
        yield
    finally:
        telnyx.api_key = right


@contextmanager
def _out_of_funds(telnyx: TelnyxWorld) -> Iterator[None]:
    telnyx.disabled = True
    try:
        yield
    finally:
        telnyx.disabled = False


@contextmanager
def _server_errors(telnyx: TelnyxWorld) -> Iterator[None]:
    fault = telnyx.faults.status(503, times=None)
    try:
        yield
    finally:
        fault.times = 0


@contextmanager
def _resets(telnyx: TelnyxWorld) -> Iterator[None]:
    fault = telnyx.faults.reset(times=None)
    try:
        yield
    finally:
        fault.times = 0


@contextmanager
def _cut_bodies(telnyx: TelnyxWorld) -> Iterator[None]:
    fault = telnyx.faults.truncate(times=None)
    try:
        yield
    finally:
        fault.times = 0


_OUTAGES: Final = {
    "a refused key": (_refused_key, "refused"),
    "no funds": (_out_of_funds, "refused"),
    "server errors": (_server_errors, "down"),
    "resets": (_resets, "down"),
    "bodies cut off": (_cut_bodies, "down"),
}


@pytest.mark.parametrize("name", _OUTAGES)
async def test_an_outage_holds_the_line_and_is_told_once(outside: Outside, name: str) -> None:
    """While Telnyx fails for all hardly anything is asked and no try is used up.

    The operators hear of it once; when it is over, every session gets its verdict by itself.
    """
    begin, kind = _OUTAGES[name]
    async with open_stage(
        outside, ages="1", database=next(_DATABASES), workers=2, worker=_FEW
    ) as stage:
        calls = [stage.past("sip_inbound") for _ in range(_SESSIONS)]
        before = len(stage.world.slack.messages)
        with begin(stage.world.telnyx):
            await stage.hang_up(*calls)
            await stage.until(partial(_is_out, stage, kind), "an outage in the metrics")
            await stage.until(
                lambda: len(stage.world.slack.messages) > before, "a word to the operators"
            )
            # Five at once for each worker, what those had claimed that failed first, the probes.
            assert sum(bool(stage.asked(call)) for call in calls) < _SESSIONS / 2
            for call in calls:
                session = await stage.session(call)
                assert (session.state, session.watch.fetches) == (State.OPEN, ())
                assert await stage.failures(call) == 0
        for call in calls:
            verdict = (await stage.ended(call)).verdict
            assert verdict
            assert verdict.total == call.total
        told = stage.world.slack.messages[before:]
        assert len(told) == 1
        assert "Telnyx" in told[0].text
        assert await stage.metric(stage.worker, "tollwatch_telnyx_outage_seconds", kind=kind) >= 0


async def _is_out(stage: Stage, kind: str) -> bool:
    name = "tollwatch_telnyx_outage_seconds"
    return all([await stage.metric(w, name, kind=kind) > 0 for w in stage.workers])


async def test_a_bad_session_holds_up_no_other(outside: Outside) -> None:
    """A session whose every question breaks waits alone: those that come after it are judged."""
    async with open_stage(outside, ages="1", database=next(_DATABASES), worker=_FEW) as stage:
        bad = [stage.past("sip_inbound") for _ in range(2)]
        for call, status in zip(bad, (500, 403), strict=True):
            stage.world.telnyx.faults.status(status, path=call.session_id, times=None)
        await stage.hang_up(*bad)
        for call in bad:
            await stage.held(call)
        calls = [stage.past("sip_inbound") for _ in range(10)]
        await stage.hang_up(*calls)
        await _all_judged(stage, calls)
        for call in bad:
            assert (await stage.session(call)).state is State.OPEN
            assert await stage.failures(call) == 0


# --- the rate limit -------------------------------------------------------------------------------


async def test_a_known_rate_limit_is_kept_by_all_workers_together(outside: Outside) -> None:
    """Two workers with more work than the limit allows draw no 429 once they know the limit."""
    window_seconds, limit = 4, 10
    async with open_stage(outside, ages="1", database=next(_DATABASES), workers=2) as stage:
        stage.world.telnyx.limit(limit, window_seconds=window_seconds)
        try:
            first = stage.past("sip_inbound")
            await stage.hang_up(first)
            await stage.ended(first)
            calls = [stage.past("sip_inbound") for _ in range(3 * limit)]
            await stage.hang_up(*calls)
            await _all_judged(stage, calls)
        finally:
            stage.world.telnyx.limit(None)
        asked = [request for call in calls for request in stage.asked(call)]
        assert {request.status for request in asked} == {200}
        windows = Counter(request.at // window_seconds for request in asked)
        # What is left of a window is spent at once, not spread.
        assert max(windows.values()) >= limit / 2
        judged = [[e for e in w.events if e["event"] == "verdict"] for w in stage.workers]
        assert all(judged)


async def test_a_429_costs_no_try(outside: Outside) -> None:
    """Sessions that met a limit nobody knew of wait for a later window, and all get verdicts."""
    async with open_stage(outside, ages="1", database=next(_DATABASES)) as stage:
        stage.world.telnyx.limit(2, window_seconds=1)
        try:
            calls = [stage.past("sip_inbound") for _ in range(6)]
            await stage.hang_up(*calls)
            await _all_judged(stage, calls)
        finally:
            stage.world.telnyx.limit(None)
        for call in calls:
            assert await stage.failures(call) == 0
            for refused in (r for r in stage.asked(call) if r.status == 429):
                again = next(r for r in stage.asked(call) if r.at > refused.at)
                assert again.at // 1 > refused.at // 1


async def _all_judged(stage: Stage, calls: list[Call]) -> None:
    for call in calls:
        verdict = (await stage.ended(call)).verdict
        assert verdict
        assert verdict.total == call.total
