"""What Slack may answer, and that an alert is told once, or kept where it cannot be told.

Every call here ended a while ago, so that its first fetch gives the verdict; and there is one
channel, so that each test clears up the trouble it makes.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from service.records import Delivery
from tests.flow.stage import Outside, Stage, body_of, open_stage
from tests.world.faults import Fault, Kind
from tests.world.model import Call, Node
from tests.world.webhooks import events_for

pytestmark = pytest.mark.anyio

_HOSTILE = "<!channel> <@U0123> *b* `c` ```d``` & <https://example.com|click>"


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """Asks after a second."""
    async with open_stage(outside, ages="1") as stage:
        yield stage


@pytest.fixture(autouse=True)
def channel(stage: Stage) -> None:
    """Nothing wrong with Slack, and nothing posted yet."""
    stage.world.slack.clear()
    stage.world.slack.requests.clear()


async def test_an_alert_says_what_on_call_needs_to_know(stage: Stage) -> None:
    """One message holds total, reason, excess, products, call and advice, and a line for phones."""
    call = stage.past("inference_loop")
    await stage.hang_up(call)
    await stage.ended(call)
    (message,) = await stage.told(call)
    assert call.session_id in message.text
    told = message.all_text
    for words in (
        f"{call.total:.2f} USD",
        f"Inference occurred {len(call.of_type('inference'))} times, the ceiling is 200",
        "*In excess:*",
        "AI minutes",
        call.session_id,
        str(call.assistant_id or call.connection_id)[:8],
        f"…{call.legs[0].from_[-2:]}",
        f"tollwatch show {call.session_id}",
    ):
        assert words in told


# --- trouble --------------------------------------------------------------------------------------


async def test_a_rate_limit_puts_the_post_off(stage: Stage) -> None:
    """After 429 with Retry-After the alert is posted once, and not before that has passed."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.status(429, headers={"retry-after": "1"})
    await stage.hang_up(call)
    await stage.ended(call)
    assert len(await stage.told(call)) == 1
    refused, taken = stage.world.slack.requests
    assert taken.at - refused.at >= 1


@pytest.mark.parametrize("trouble", ["status", "reset", "truncate", "html"])
async def test_a_passing_trouble_is_outwaited(stage: Stage, trouble: Kind) -> None:
    """After errors and broken connections the alert is tried again later, and posted once."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.add(Fault(trouble, status=500, times=2))
    await stage.hang_up(call)
    await stage.ended(call)
    for tries in (1, 2):
        await _waits(stage, call, tries)
        await stage.hurry_alerts()
    assert len(await stage.told(call)) == 1
    assert len(stage.world.slack.requests) == 3


@pytest.mark.parametrize(("status", "word"), [(404, "no_service"), (403, "invalid_token")])
async def test_a_final_word_is_kept_and_not_repeated(stage: Stage, status: int, word: str) -> None:
    """What Slack will never take is not tried again; it is counted, logged, and kept to be seen."""
    call = stage.past("wrong_rate")
    before = await _posts(stage, "refused")
    stage.world.slack.refuse(status, word, times=None)
    await stage.hang_up(call)
    await stage.ended(call)
    assert await stage.told(call) == []
    (shown,) = (await stage.show(call))["alerts"]
    assert (shown["delivery"], word in shown["reason"]) == ("refused", True)
    assert await _posts(stage, "refused") == before + 1
    assert [line["alert_id"] for line in stage.log(call, "alert refused")] == [shown["alert"]["id"]]
    assert len(stage.world.slack.requests) == 1


async def test_a_slack_that_hangs_holds_up_no_verdict(stage: Stage) -> None:
    """While posts get no answer, sessions are judged as ever; later all of them are told once."""
    hanging = stage.world.slack.faults.stall(times=None)
    calls = [stage.past("wrong_rate") for _ in range(6)]
    await stage.hang_up(*calls)
    for call in calls:
        await stage.ended(call)
    assert stage.world.slack.messages == []
    hanging.times = 0
    async with stage.world.down():
        pass
    await stage.until(lambda: len(stage.log(event="alert waits")) >= hanging.taken, "a cut post")
    await stage.hurry_alerts()
    for call in calls:
        assert len(await stage.told(call)) == 1


async def test_no_post_costs_another_question(stage: Stage) -> None:
    """However often an alert is tried, Telnyx was asked about the call once."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.status(500)
    await stage.hang_up(call)
    await _waits(stage, call, 1)
    await stage.hurry_alerts()
    await stage.told(call)
    assert len(stage.asked(call)) == 1


# --- hostile words --------------------------------------------------------------------------------


async def test_nothing_from_outside_can_page_people(stage: Stage) -> None:
    """Markup in ids, names and products is shown as text: it mentions nobody and breaks nothing."""
    call = _hostile(stage.past("dear_destination"))
    stage.world.telnyx.faults.garbage(body_of(call.root), path=call.session_id, times=None)
    for event in events_for(call, early=False):
        assert (await stage.post(event)).status_code == 202
    message, *_ = await stage.until(lambda: stage.world.slack.messages, "a message")
    assert stage.world.slack.mentions == []
    assert stage.world.slack.refused == []
    assert "&lt;!channel&gt;" in message.all_text


def _hostile(call: Call) -> Call:
    """The same call, with markup wherever Telnyx or its customer chooses a word."""
    return replace(
        call,
        session_id=_HOSTILE.replace(" ", "_"),
        connection_id=_HOSTILE,
        assistant_id=_HOSTILE,
        legs=tuple(
            replace(leg, connection_id=_HOSTILE, from_=_HOSTILE, to=_HOSTILE, hangup_cause=_HOSTILE)
            for leg in call.legs
        ),
        root=_hostile_node(call.root),
    )


def _hostile_node(node: Node) -> Node:
    children = tuple(map(_hostile_node, node.children))
    record = {**node.record, "record_type": _HOSTILE, "connection_id": _HOSTILE, "cli": _HOSTILE}
    return replace(
        node, product=_HOSTILE, event_name=_HOSTILE, id=_HOSTILE, record=record, children=children
    )


# --- no Slack at all ------------------------------------------------------------------------------


async def test_without_slack_alerts_are_kept_and_logged(outside: Outside) -> None:
    """Without SLACK_WEBHOOK_URL the worker says so at start, and logs and keeps each alert."""
    async with open_stage(outside, ages="1", database=1, slack=False) as stage:
        await stage.until(
            lambda: "SLACK_WEBHOOK_URL" in "".join(stage.worker.lines), "a warning at the start"
        )
        call = stage.past("wrong_rate")
        await stage.hang_up(call)
        await stage.ended(call)
        await stage.told(call)
        assert [p.delivery for p in await stage.postings(call)] == [Delivery.KEPT]
        (line,) = await stage.heard(call, "alert kept")
        assert f"{call.total:.2f} USD" in line["text"]
    assert stage.messages(call) == []


async def _waits(stage: Stage, call: Call, tries: int) -> None:
    """Until so many tries at the call's alert have failed, and it waits for the next."""

    async def look() -> bool:
        postings = await stage.postings(call)
        return [(p.tries, p.delivery, p.token) for p in postings] == [
            (tries, Delivery.WAITING, None)
        ]

    await stage.until(look, f"{tries} failed tries at the alert")


async def _posts(stage: Stage, outcome: str) -> float:
    return await stage.metric(stage.worker, "tollwatch_posts_total", outcome=outcome)
