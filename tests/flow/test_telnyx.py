"""What Telnyx may answer, and that none of it loses a call or ends it with half a cost.

Faults are set for single sessions, so that the tests leave each other alone.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.records import Session, State
from tests.flow.stage import Outside, Stage, now, open_stage
from tests.world import envelopes
from tests.world.clock import later
from tests.world.faults import Fault
from tests.world.model import Call
from tests.world.server import LoopbackServer
from workers.analyze import MOST_FAILURES

pytestmark = pytest.mark.anyio

_SESSION_ANALYSIS = "/v2/session_analysis"


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Asks after 1 and 2 seconds."""
    async with open_stage(outside, ages="1,2") as stage:
        yield stage


# --- the question ---------------------------------------------------------------------------------


async def test_the_question_is_the_documented_one(stage: Stage) -> None:
    """The whole tree with its records is asked for, on the call's day, in exactly these words."""
    call = stage.past("ai_inbound")
    await stage.hang_up(call)
    request = await stage.first_asked(call)
    assert request.method == "GET"
    assert request.path == f"{_SESSION_ANALYSIS}/call-session/{call.session_id}"
    assert list(request.query.items()) == [
        ("include_children", "true"),
        ("max_depth", "5"),
        ("expand", "record"),
        ("date_time", f"{call.start:%Y-%m-%d}"),
    ]
    assert request.headers["user-agent"].startswith("tollwatch/")


async def test_a_session_id_cannot_change_the_question(stage: Stage) -> None:
    """An id that looks like a path or a query is asked for as the one path segment that it is."""
    id = "../metadata?max_depth=1#x"
    call = replace(stage.past("sip_inbound"), session_id=id)
    await stage.hang_up(call)
    requests = await stage.until(
        lambda: [r for r in stage.world.telnyx.requests if "max_depth=1" in r.path], "a question"
    )
    assert requests[0].path == f"{_SESSION_ANALYSIS}/call-session/{id}"
    assert requests[0].query["max_depth"] == "5"


@pytest.fixture(scope="module")
async def elsewhere() -> AsyncIterator[list[str]]:
    """Another host: its URL, and whatever it was asked."""
    seen: list[str] = []

    async def note(request: Request) -> JSONResponse:
        seen.append(str(request.url))
        return JSONResponse({})

    async with LoopbackServer(Starlette(routes=[Route("/{path:path}", note)])) as server:
        seen.append(f"http://localhost:{server.port}")
        yield seen


async def test_links_in_an_answer_are_not_followed(stage: Stage, elsewhere: list[str]) -> None:
    """What an answer left out is asked of Telnyx' own URL, wherever the answer's links point."""
    call = stage.past("cut")
    answer = await stage.client.get(
        f"{stage.world.telnyx_url}/session_analysis/call-session/{call.session_id}",
        params={"max_depth": 5},
        headers={"authorization": f"Bearer {stage.world.api_key}"},
    )
    host = elsewhere[0].encode()
    body = answer.content.replace(b'"/v2/', b'"%b/v2/' % host)
    assert body.count(host) > call.event_count / 2
    stage.world.telnyx.faults.garbage(body, path=call.session_id, times=None)
    await stage.hang_up(call)
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert (verdict.total, verdict.event_count) == (call.total, call.event_count)
    assert elsewhere[1:] == []


async def test_a_redirect_is_not_followed(stage: Stage, elsewhere: list[str]) -> None:
    """A redirect holds the session; the API key goes nowhere else."""
    call = stage.past("sip_inbound")
    stage.world.telnyx.faults.status(
        302, path=call.session_id, headers={"location": f"{elsewhere[0]}/v2/stolen"}
    )
    await stage.hang_up(call)
    await stage.held(call)
    assert elsewhere[1:] == []


# --- not yet, and never ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 409])
async def test_not_ready_is_asked_again_at_the_next_age(stage: Stage, status: int) -> None:
    """A session that Telnyx does not have yet is asked for again, and judged once it has."""
    call = stage.world.call("sip_inbound")
    stage.world.telnyx.faults.status(status, path=call.session_id)
    await stage.hang_up(call)
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    assert [request.fault for request in stage.asked(call)] == ["status", None]


async def test_a_cost_that_never_comes_is_unavailable(stage: Stage) -> None:
    """A session without any cost until the last age is listed as unavailable, and not judged."""
    call = stage.world.generator.make("sip_inbound", end=now(stage))
    await stage.hang_up(call)
    session = await stage.ended(call, State.UNAVAILABLE)
    assert session.verdict is None
    assert session.reason == "no cost came until the last age"
    assert await stage.postings(call) == []
    assert len(await stage.heard(call, "unavailable")) == 1


async def test_a_late_word_of_a_cost_opens_an_unavailable_session(stage: Stage) -> None:
    """When a cost event comes after all, the session is asked for again and judged."""
    call = stage.world.generator.make("sip_inbound", end=later(now(stage), -30))
    await stage.hang_up(call)
    await stage.ended(call, State.UNAVAILABLE)
    stage.world.telnyx.add(call)
    answer = await stage.post(envelopes.cost(call, call.legs[0], after_seconds=20))
    assert (answer.status_code, answer.json()["status"]) == (202, "scheduled")
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total


async def test_a_call_over_midnight_is_found_under_its_other_day(stage: Stage) -> None:
    """A call is looked for under its end's day too, not only its start's, at every age."""
    ended = now(stage)
    since_midnight = ended - ended.replace(hour=0, minute=0, second=0, microsecond=0)
    call = stage.world.call(
        "sip_inbound",
        end=ended,
        talk_seconds=int(since_midnight.total_seconds()) + 60,
        indexed_under="end",
    )
    await stage.hang_up(call)
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    before, after = (f"{day:%Y-%m-%d}" for day in (call.start, call.end))
    asked = [(request.query["date_time"], request.status) for request in stage.asked(call)]
    assert asked == [(before, 404), (after, 200)] * (len(asked) // 2)


# --- trouble of ours ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def dead(stage: Stage) -> tuple[Call, Session]:
    """A session about which every question was called a bad request, until it was given up."""
    call = stage.past("sip_inbound")
    body = json.dumps({"errors": [{"code": "10015", "message": "Bad Request"}]}).encode()
    fault = stage.world.telnyx.faults.status(400, path=call.session_id, body=body, times=None)
    await stage.hang_up(call)
    for failures in range(1, MOST_FAILURES):
        await stage.heard(call, "attempt failed", failures)
        await stage.hurry(call)
    session = await stage.ended(call, State.DEAD)
    fault.times = 0
    return call, session


async def test_a_wrong_question_is_given_up_in_the_end(
    stage: Stage, dead: tuple[Call, Session]
) -> None:
    """A request that Telnyx calls wrong uses up a try; the last makes a dead letter, with why."""
    call, session = dead
    assert "Bad Request" in session.reason
    assert session.verdict is None
    failures = await stage.heard(call, "attempt failed", MOST_FAILURES)
    assert [line["dead"] for line in failures] == [False] * (MOST_FAILURES - 1) + [True]


async def test_a_late_event_opens_a_dead_session(stage: Stage, dead: tuple[Call, Session]) -> None:
    """An event that comes after the last try starts the session anew, with all its tries."""
    call, _ = dead
    answer = await stage.post(envelopes.cost(call, call.legs[0], after_seconds=20))
    assert (answer.status_code, answer.json()["status"]) == (202, "scheduled")
    await stage.ended(call)
    assert await stage.failures(call) == 0


# --- trouble --------------------------------------------------------------------------------------

_TROUBLE: dict[str, Callable[[], Fault]] = {
    "status 408": lambda: Fault("status", status=408),
    "status 500": lambda: Fault("status", status=500),
    "status 503": lambda: Fault("status", status=503),
    "a proxy's page": lambda: Fault("html", status=502, body=b"<h1>Bad Gateway</h1>"),
    "a page that says 200": lambda: Fault("html", status=200, body=b"<h1>Hello</h1>"),
    "garbage": lambda: Fault("garbage", body=b"\x00\xff{not json"),
    "JSON of something else": lambda: Fault("garbage", body=b'{"data": []}'),
    "a reset": lambda: Fault("reset"),
    "a truncated body": lambda: Fault("truncate"),
    "an endless body": lambda: Fault("oversize", megabytes=16),
}


@pytest.mark.parametrize("trouble", _TROUBLE)
async def test_no_answer_ends_nothing(stage: Stage, trouble: str) -> None:
    """While there is no answer the session is held without using up a try or an age.

    Even the last age has passed here. Once Telnyx answers, the session gets its verdict.
    """
    call = stage.past("sip_inbound")
    fault = replace(_TROUBLE[trouble](), path=call.session_id, times=None)
    stage.world.telnyx.faults.add(fault)
    await stage.hang_up(call)
    await _held(stage, call)
    fault.times = 0
    await stage.hurry(call)
    await _all_judged(stage, [call])


async def _held(stage: Stage, call: Call) -> None:
    session = await stage.held(call)
    assert (session.state, session.watch.fetches) == (State.OPEN, ())
    assert await stage.failures(call) == 0


async def _all_judged(stage: Stage, calls: list[Call]) -> None:
    for call in calls:
        verdict = (await stage.ended(call)).verdict
        assert verdict
        assert verdict.total == call.total
