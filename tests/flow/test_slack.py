"""What Slack may answer, and that an alert is told once, or kept where it cannot be told.

Every call here ended a while ago, so that its first fetch gives the verdict; and there is one
channel, so that each test clears up the trouble it makes.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

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
async def channel(stage: Stage) -> None:
    """Nothing wrong with Slack, nothing that waits for it, and nothing posted yet."""
    stage.world.slack.clear()
    await stage.hurry_alerts()
    await stage.until(stage.nothing_waits, "an empty outbox")
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


async def test_a_storm_of_rate_limits_is_sat_out(stage: Stage) -> None:
    """While every post earns a 429 the channel is asked no faster than it says; none is lost."""
    storm = stage.world.slack.faults.status(429, headers={"retry-after": "1"}, times=None)
    calls = [stage.past("wrong_rate") for _ in range(5)]
    await stage.hang_up(*calls)
    await stage.until(lambda: storm.taken >= 3, "three refused posts")
    storm.times = 0
    for call in calls:
        await stage.ended(call)
        assert len(await stage.told(call)) == 1
    times = [request.at for request in stage.world.slack.requests if request.status == 429]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))


@pytest.mark.parametrize("trouble", ["status", "html"])
async def test_a_passing_trouble_is_outwaited(stage: Stage, trouble: Kind) -> None:
    """After errors the alert is tried again later, and posted once."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.add(Fault(trouble, status=500, times=2))
    await stage.hang_up(call)
    await stage.ended(call)
    for tries in (1, 2):
        await _waits(stage, call, tries)
        await stage.hurry_alerts()
    (message,) = await stage.told(call)
    assert "perhaps told before" not in message.text
    assert len(stage.world.slack.requests) == 3


async def test_a_lost_body_behind_a_200_is_an_ok(stage: Stage) -> None:
    """Slack has taken what it says 200 to: the message is not repeated."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.truncate()
    await stage.hang_up(call)
    await stage.ended(call)
    assert len(await stage.told(call)) == 1
    assert len(stage.world.slack.requests) == 1


async def test_what_slack_may_have_taken_is_repeated_late_and_says_so(stage: Stage) -> None:
    """A message without an answer holds up no other; its repetition says that it may be one."""
    doubtful, other = stage.past("wrong_rate"), stage.past("wrong_rate")
    stage.world.slack.faults.silence()
    await stage.hang_up(doubtful)
    await _waits(stage, doubtful, 1)
    await stage.hang_up(other)
    await stage.ended(other)
    assert len(await stage.told(other)) == 1
    (posting,) = await stage.postings(doubtful)
    assert (posting.delivery, posting.repeated) == (Delivery.WAITING, True)
    await stage.hurry_alerts()
    first, repeated = await stage.told(doubtful)
    assert "perhaps told before" not in first.all_text
    assert "perhaps told before" in repeated.text


async def test_a_revoked_webhook_loses_nothing(stage: Stage) -> None:
    """While the webhook is revoked alerts wait, whatever comes; restored, the worst comes first.

    An error is logged, and the metrics say that the channel is shut, and since when.
    """
    before = await _posts(stage, "closed")
    revoked = stage.world.slack.refuse(403, "invalid_token", times=None)
    low, high = stage.past("dear_destination"), stage.past("runaway_assistant")
    await stage.hang_up(low)
    await _waits(stage, low, 1)
    await stage.hang_up(high)
    await stage.ended(high)
    assert await _posts(stage, "closed") == before + 1
    assert [line["alert_id"] for line in await stage.heard(low, "Slack's channel is shut")]
    name = "tollwatch_slack_failing_since_timestamp_seconds"

    async def failing() -> bool:
        return bool(await stage.metric(stage.worker, name))

    await stage.until(failing, "a gauge that says since when Slack fails")
    revoked.times = 0
    await stage.hurry_alerts()
    for call in (low, high):
        assert len(await stage.told(call)) == 1


async def test_what_slack_will_never_take_is_kept_and_not_repeated(stage: Stage) -> None:
    """Only a message whose plain text is refused, too, is given up: counted, logged, kept."""
    call = stage.past("wrong_rate")
    before = await _posts(stage, "refused")
    stage.world.slack.refuse(400, "invalid_payload", times=2)
    await stage.hang_up(call)
    await stage.ended(call)
    assert await stage.told(call) == []
    (shown,) = (await stage.show(call))["alerts"]
    assert (shown["delivery"], "invalid_payload" in shown["reason"]) == ("refused", True)
    assert await _posts(stage, "refused") == before + 1
    (line,) = await stage.heard(call, "alert refused")
    assert line["alert_id"] == shown["alert"]["id"]
    assert len(stage.world.slack.requests) == 2


async def test_blocks_that_slack_refuses_are_told_as_text(stage: Stage) -> None:
    """A message whose blocks Slack does not like is told as its one line."""
    call = stage.past("wrong_rate")
    stage.world.slack.refuse(400, "invalid_blocks")
    await stage.hang_up(call)
    await stage.ended(call)
    (message,) = await stage.told(call)
    assert list(message.payload) == ["text"]


async def test_a_slack_that_hangs_holds_up_no_verdict(stage: Stage) -> None:
    """While a post gets no answer, sessions are judged as ever; later all of them are told once."""
    hanging = stage.world.slack.faults.delay(60)
    calls = [stage.past("wrong_rate") for _ in range(6)]
    await stage.hang_up(*calls)
    for call in calls:
        await stage.ended(call)
    await stage.until(lambda: hanging.taken, "a post that hangs")
    assert stage.world.slack.messages == []
    async with stage.world.down():
        pass
    await stage.until(lambda: stage.log(event="alert in doubt"), "a cut post")

    async def hurried() -> bool:
        # More than once: the next post may have met a Slack that was just coming back.
        await stage.hurry_alerts()
        return await stage.nothing_waits()

    await stage.until(hurried, "all alerts to be told")
    for call in calls:
        assert len(await stage.told(call)) == 1


async def test_no_post_costs_another_question(stage: Stage) -> None:
    """However often an alert is tried, Telnyx is not asked about the call again."""
    call = stage.past("wrong_rate")
    stage.world.slack.faults.status(500)
    await stage.hang_up(call)
    await _waits(stage, call, 1)
    asked = len(stage.asked(call))
    await stage.hurry_alerts()
    await stage.told(call)
    assert len(stage.asked(call)) == asked > 0


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
        return [(p.tries, p.delivery) for p in postings] == [(tries, Delivery.WAITING)]

    await stage.until(look, f"{tries} failed tries at the alert")


async def _posts(stage: Stage, outcome: str) -> float:
    return await stage.metric(stage.worker, "tollwatch_posts_total", outcome=outcome)
