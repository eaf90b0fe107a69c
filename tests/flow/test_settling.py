"""One session is one line of work, whatever comes of it in whatever order; and when it is believed.

Two pairs of processes: one that asks after 1, 2 and 3 seconds, and a patient one that would ask
after ten minutes, so that whatever it asks before was asked for a reason.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service import keys
from service.records import Session, State
from tests.flow.stage import (
    Outside,
    Stage,
    body_of,
    hangups,
    later_by,
    now,
    open_stage,
    severity_of,
    with_parts,
)
from tests.world import envelopes
from tests.world.clock import later
from tests.world.model import Call
from tests.world.webhooks import Delivery, events_for

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Asks after 1, 2 and 3 seconds."""
    async with open_stage(outside, ages="1,2,3") as stage:
        yield stage


@pytest.fixture(scope="module")
async def patient(outside: Outside) -> AsyncIterator[Stage]:
    """Asks after ten minutes."""
    async with open_stage(outside, ages="600,1200", database=1) as stage:
        yield stage


class Balancer:
    """What stands between Telnyx and us on a bad day: loses the first try, and the second answer.

    So each event is refused, then taken without Telnyx knowing, then a duplicate.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._tries: dict[str, int] = {}
        self.statuses: list[int] = []
        stage.world.mount(
            "/balancer", Starlette(routes=[Route("/balancer", self._pass, methods=["POST"])])
        )

    async def _pass(self, request: Request) -> Response:
        body = await request.body()
        event_id = json.loads(body)["data"]["id"]
        number = self._tries[event_id] = self._tries.get(event_id, 0) + 1
        if number == 1:
            return Response(status_code=503)
        names = ("content-type", "telnyx-signature-ed25519", "telnyx-timestamp")
        headers = {name: request.headers[name] for name in names}
        answer = await self._stage.client.post(self._stage.url, content=body, headers=headers)
        self.statuses.append(answer.status_code)
        return Response(answer.content, 504 if number == 2 else answer.status_code)


@pytest.fixture(scope="module")
async def rough(stage: Stage) -> tuple[Call, Session, Balancer]:
    """A call of two legs, all of whose events come several times, late and in disorder."""
    balancer = Balancer(stage)
    call = stage.world.call("doubled_charge")
    events = events_for(call, early=False, cost="new")
    async with stage.world.sender(
        f"{stage.world.url}/balancer", duplicates=1.0, time_scale=5
    ) as sender:
        await sender.send(events)
    return call, await stage.ended(call), balancer


async def test_an_event_is_kept_once_however_often_it_comes(
    rough: tuple[Call, Session, Balancer],
) -> None:
    """Lost answers, retries and doubled deliveries leave one record of each event."""
    _, session, balancer = rough
    assert sorted(event.kind for event in session.events) == ["call.cost"] * 2 + ["call.hangup"] * 2
    assert balancer.statuses.count(202) == len(session.events)
    assert set(balancer.statuses) == {200, 202}


async def test_legs_and_repetitions_come_to_one_verdict_and_one_alert(
    stage: Stage, rough: tuple[Call, Session, Balancer]
) -> None:
    """However its events came, a call is judged once and told once."""
    call, session, _ = rough
    assert session.verdict
    assert session.verdict.total == call.total
    assert len(await stage.told(call)) == 1
    assert len(await stage.heard(call, "verdict")) == 1


async def test_the_order_of_events_does_not_matter(stage: Stage) -> None:
    """Whichever leg is heard of first, start, end and legs of the call are the same."""
    call = stage.world.call("conference")
    events = hangups(call)
    Random(0).shuffle(events)
    for event in events:
        await stage.post(event)
    stored = (await stage.session(call)).call
    assert stored.legs == len(call.legs)
    assert stored.start_ms == int(min(leg.start for leg in call.legs).timestamp() * 1000)
    assert stored.end_ms == int(max(leg.end for leg in call.legs).timestamp() * 1000)


async def test_a_leg_that_ends_after_the_verdict_is_judged_anew(stage: Stage) -> None:
    """A transfer that goes on after the verdict reopens the session, and its cost is alerted."""
    whole = stage.world.generator.make("late_charge", end=now(stage))
    *sound, charge = whole.root.children
    call = stage.world.telnyx.add(with_parts(whole, sound))
    first, transfer = hangups(call)
    await stage.post(first)
    early = await stage.ended(call)
    stage.world.telnyx.forget(call.session_id)
    stage.world.telnyx.add(with_parts(whole, [*sound, replace(charge, posted_after_seconds=0)]))
    answer = await stage.post(later_by(transfer, 1.5))
    late = await stage.ended(call)
    assert (answer.status_code, answer.json()["status"]) == (202, "scheduled")
    assert [s.verdict and s.verdict.total for s in (early, late)] == [call.total, whole.total]
    assert len(await stage.told(call)) == 1


async def test_what_is_charged_after_the_verdict_is_found_a_day_later(stage: Stage) -> None:
    """One more look a day after the call's end, which here has come: its late charge is told."""
    whole = stage.world.generator.make("late_charge", end=now(stage))
    *sound, charge = whole.root.children
    call = stage.world.telnyx.add(with_parts(whole, sound))
    await stage.hang_up(call)
    early = await stage.ended(call)
    due = await stage.redis.zscore(keys.RECHECKS, call.session_id)
    assert due == early.end_ms + 86_400_000
    assert (await stage.show(call))["recheck_ms"] == due

    async def waits() -> bool:
        return await stage.metric(stage.worker, "tollwatch_pending", line="rechecks") >= 1

    await stage.until(waits, "the look that is ahead, among the figures")
    stage.world.telnyx.forget(call.session_id)
    stage.world.telnyx.add(with_parts(whole, [*sound, replace(charge, posted_after_seconds=0)]))
    await stage.redis.zadd(keys.RECHECKS, {call.session_id: early.end_ms}, xx=True)
    (message,) = await stage.until(lambda: stage.messages(call), "the late charge in Slack")
    assert "was charged after the session had settled" in message.all_text
    late = await stage.session(call)
    assert (late.state, late.verdict and late.verdict.total) == (State.VERDICT, whole.total)
    (line,) = await stage.heard(call, "looked at again")
    assert line["outcome"] == "changed"
    assert await stage.redis.zscore(keys.RECHECKS, call.session_id) is None


# --- when a cost is asked for ---------------------------------------------------------------------


def _word_of_a_cost(call: Call, kind: str) -> Delivery:
    """An event that tells of a cost, as late as all of it is known."""
    if kind == "call.cost":
        return envelopes.cost(call, call.legs[0], after_seconds=300)
    return envelopes.analyzed(call, call.legs[0], after_seconds=300)


@pytest.mark.parametrize("kind", ["call.cost", "call.analyzed"])
async def test_word_of_a_cost_pulls_the_fetch_forward(patient: Stage, kind: str) -> None:
    """An event that says a cost exists is followed by a fetch at once; an end alone waits."""
    ended, told = patient.world.call("ai_inbound"), patient.world.call("ai_inbound")
    await patient.hang_up(ended, told)
    assert (await patient.post(_word_of_a_cost(told, kind))).json() == {"status": "merged"}
    await patient.first_asked(told)
    assert patient.asked(ended) == []


async def test_analyzed_without_a_cost_pulls_nothing(patient: Stage) -> None:
    """`call.analyzed` with the words that there is no cost data leaves the fetch where it was."""
    vain, told = patient.world.call("ai_inbound"), patient.world.call("ai_inbound")
    await patient.hang_up(vain, told)
    await patient.post(envelopes.analyzed(vain, vain.legs[0], after_seconds=300, with_cost=False))
    await patient.post(_word_of_a_cost(told, "call.analyzed"))
    await patient.first_asked(told)
    assert patient.asked(vain) == []


async def test_what_can_only_grow_is_alerted_before_it_settles(patient: Stage) -> None:
    """A cost that a word of Telnyx showed to be too high is alerted ten minutes early."""
    call = patient.world.call("runaway_assistant", end=later(now(patient), -10))
    await patient.hang_up(call)
    await patient.post(envelopes.cost(call, call.legs[0], after_seconds=5))
    await patient.until(lambda: patient.messages(call), "an early alert")
    assert "so far" in patient.messages(call)[0].text
    assert (await patient.session(call)).state is State.OPEN


# --- when a cost is believed ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Calls that all end at once, each of which takes its time to settle."""

    growing: Call
    """Telnyx' first answer holds a part of its cost."""
    never: Call
    """The second still holds a part."""
    slightly_dearer: Call
    """`call.cost` reports 0.10 USD more than the tree holds."""
    dearer: Call
    """`call.cost` reports 0.40 USD more."""


@pytest.fixture(scope="module", autouse=True)
async def unsettled(stage: Stage) -> Unsettled:
    """They settle from the module's start on, while other tests run."""
    calls = stage.world.calls(["webrtc", "webrtc", "sip_inbound", "sip_inbound"], end=now(stage))
    found = Unsettled(*calls)
    _answer_in_turn(stage, found.growing, parts=[1])
    _answer_in_turn(stage, found.never, parts=[1, 2])
    await stage.hang_up(*calls)
    for call, difference in ((found.slightly_dearer, "0.10"), (found.dearer, "0.40")):
        await stage.post(_dearer(envelopes.cost(call, call.legs[0], after_seconds=1), difference))
    return found


async def test_a_cost_is_believed_when_two_answers_agree(
    stage: Stage, unsettled: Unsettled
) -> None:
    """While the cost grows from answer to answer the session waits; then it is settled."""
    call = unsettled.growing
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert (verdict.total, verdict.settled) == (call.total, True)
    await stage.heard(call, "verdict")
    assert [line["reason"] for line in stage.log(call, "waiting")] == [
        "one answer, waiting for a second that agrees",
        "the cost still grows",
    ]


async def test_the_last_age_ends_the_waiting(stage: Stage, unsettled: Unsettled) -> None:
    """A cost that grew until the last age is judged as it is then, and said not to be settled."""
    call = unsettled.never
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert (verdict.total, verdict.settled) == (call.total, False)


async def test_telnyx_reporting_another_cost_is_a_reason(
    stage: Stage, unsettled: Unsettled
) -> None:
    """A `call.cost` that differs from its leg's part of the tree shows in the stored verdict."""
    await stage.ended(unsettled.slightly_dearer)
    shown = await stage.show(unsettled.slightly_dearer)
    (reason,) = shown["verdict"]["reasons"]
    assert reason["code"] == "reported_difference"
    assert Decimal(reason["excess"]) == Decimal("0.10")
    assert shown["alerts"] == []


async def test_a_large_difference_is_alerted(stage: Stage, unsettled: Unsettled) -> None:
    """Where enough money is in such a difference, somebody is told."""
    await stage.ended(unsettled.dearer)
    (message,) = await stage.told(unsettled.dearer)
    assert severity_of(message) == "low"
    assert "call.cost reported" in message.all_text


def _answer_in_turn(stage: Stage, call: Call, *, parts: list[int]) -> None:
    """Let Telnyx answer first with so many parts of the session, then so many, then all."""
    for count in parts:
        body = body_of(with_parts(call, call.root.children[:count]).root)
        stage.world.telnyx.faults.garbage(body, path=call.session_id)


def _dearer(event: Delivery, difference: str) -> Delivery:
    payload = event.data["payload"]
    first, *others = payload["cost_parts"]
    first = {**first, "cost": str(Decimal(first["cost"]) + Decimal(difference))}
    dearer = {**payload, "cost_parts": [first, *others]}
    return replace(event, data={**event.data, "payload": dearer})
