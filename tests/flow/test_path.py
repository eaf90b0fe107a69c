"""The whole path: a call ends, and the channel hears of it exactly when it cost too much."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from service.records import Severity, rank
from tests.flow.stage import Outside, Stage, now, open_stage, severity_of
from tests.world.calls import ANOMALIES, KINDS
from tests.world.model import Call, Node
from tests.world.webhooks import Outcome, events_for

pytestmark = pytest.mark.anyio

# Costs that take Telnyx up to 220 s are there after 2.2 s: partial at the first age, whole at the
# second. The late charge comes between the second and the third. Where the first ask is itself
# late, the second follows by 2 s: having seen the recording (1.9 s) it cannot miss the charge.
_TIME_SCALE = 100.0
_AGES = "1,3,5,6"
_LATEST_PART_SECONDS = 360.0


@dataclass(frozen=True, slots=True)
class Day:
    """One call of every kind and with every anomaly, all over at the same moment."""

    stage: Stage
    calls: dict[str, Call]
    outcomes: list[Outcome]


@pytest.fixture(scope="module")
async def day(outside: Outside) -> AsyncIterator[Day]:
    """All calls end, and Telnyx delivers their events in disorder and some of them twice."""
    world = outside.world
    world.telnyx.time_scale = _TIME_SCALE
    async with open_stage(outside, ages=_AGES) as stage:
        made = (world.generator.make(kind, end=now(stage)) for kind in (*KINDS, *ANOMALIES))
        calls = [world.telnyx.add(replace(call, root=_hurried(call.root))) for call in made]
        async with stage.sender(duplicates=0.3) as sender:
            outcomes = await sender.send([event for call in calls for event in events_for(call)])
        names = (*KINDS, *ANOMALIES)
        yield Day(stage, dict(zip(names, calls, strict=True)), outcomes)


async def test_every_event_is_acknowledged(day: Day) -> None:
    """Telnyx gets a 2xx for each event at the first attempt, duplicates included."""
    assert {tuple(outcome.statuses) for outcome in day.outcomes} == {(200,), (202,)}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sound_call_ends_in_its_exact_cost_and_silence(day: Day, kind: str) -> None:
    """The verdict of a sound call is its whole cost to the last digit, and nobody is told."""
    call = day.calls[kind]
    session = await day.stage.ended(call)
    assert session.verdict
    assert (session.verdict.total, session.verdict.severity) == (call.total, None)
    assert await day.stage.postings(call) == []


@pytest.mark.parametrize("kind", [*KINDS, *ANOMALIES])
async def test_a_verdict_rests_on_a_whole_and_settled_tree(day: Day, kind: str) -> None:
    """A verdict is given once the answers agree, with all events that Telnyx counts."""
    verdict = (await day.stage.ended(day.calls[kind])).verdict
    assert verdict
    assert (verdict.settled, verdict.complete, verdict.provisional) == (True, True, False)
    assert verdict.event_count == day.calls[kind].event_count


@pytest.mark.parametrize("anomaly", ANOMALIES)
async def test_an_anomalous_call_is_alerted_with_its_severity(day: Day, anomaly: str) -> None:
    """An anomaly is posted with the severity that is due, at most once for each, rising."""
    call = day.calls[anomaly]
    await day.stage.ended(call)
    said = [severity_of(message) for message in await day.stage.told(call)]
    ranks = [rank(Severity(severity)) for severity in said]
    assert ranks == sorted(set(ranks))
    assert call.expects
    assert said[-1] in call.expects.severities


@pytest.mark.parametrize("anomaly", ANOMALIES)
async def test_a_verdict_names_what_is_wrong(day: Day, anomaly: str) -> None:
    """The reasons of an anomalous call's verdict hold the one that was built into it."""
    call = day.calls[anomaly]
    verdict = (await day.stage.ended(call)).verdict
    assert verdict
    assert call.expects
    assert {reason.code for reason in verdict.reasons} & call.expects.reasons


@pytest.mark.parametrize("anomaly", ANOMALIES)
async def test_an_alert_states_what_the_call_cost(day: Day, anomaly: str) -> None:
    """An alert states the call's whole cost, or says that it is the cost so far."""
    call = day.calls[anomaly]
    await day.stage.ended(call)
    message = (await day.stage.told(call))[-1]
    whole = f"{call.total:.2f}" if call.total >= 1 else f"{call.total:.4f}".rstrip("0")
    said = message.all_text
    assert f" {whole} USD for one call," in said or " USD for one call so far" in said


async def test_a_late_charge_is_still_found(day: Day) -> None:
    """A charge that comes after two looks at the cost is in the verdict."""
    call = day.calls["late_charge"]
    session = await day.stage.ended(call)
    assert session.verdict
    assert session.verdict.total == call.total


async def test_a_failed_call_costs_nothing(day: Day) -> None:
    """A call that nobody answered ends with a verdict of 0."""
    session = await day.stage.ended(day.calls["failed"])
    assert session.verdict
    assert session.verdict.total == Decimal(0)


async def test_slack_hears_of_anomalous_calls_only(day: Day) -> None:
    """When all is done, every message is about one of the anomalous calls, and each has one."""
    stage, calls = day.stage, day.calls
    for call in calls.values():
        await stage.ended(call)
        await stage.told(call)
    alerted = {name for name, call in calls.items() if stage.messages(call)}
    assert alerted == set(ANOMALIES)
    assert len(stage.world.slack.messages) == sum(len(stage.messages(c)) for c in calls.values())


async def test_slack_takes_every_message_and_none_pages_anybody(day: Day) -> None:
    """Every message is within Slack's rules, and mentions nobody."""
    for anomaly in ANOMALIES:
        await day.stage.told(day.calls[anomaly])
    assert (day.stage.world.slack.refused, day.stage.world.slack.mentions) == ([], [])


def _hurried(node: Node) -> Node:
    """The same costs, none of which comes after the third age."""
    return replace(
        node,
        posted_after_seconds=min(node.posted_after_seconds, _LATEST_PART_SECONDS),
        children=tuple(map(_hurried, node.children)),
    )
