"""What an operator may choose: limits, whole numbers, secrets in files, logs for people."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.flow.stage import Outside, Stage, open_stage, severity_of
from tests.world.calls import CallGenerator
from tests.world.webhooks import events_for

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_POLICY = """
max_session_cost: 100
severity: {low: 0.01, medium: 0.02, high: 1000, critical: 2000}
ceilings:
  - measure: product_events
    product: inference
    limit: 3
    when: {assistant: ASSISTANT}
"""


@pytest.fixture(scope="module")
def assistants() -> tuple[str, ...]:
    """The assistants of the simulated account; the first has a limit of its own."""
    return CallGenerator().assistant_ids


@pytest.fixture(scope="module")
async def stage(
    outside: Outside, tmp_path_factory: pytest.TempPathFactory, assistants: tuple[str, ...]
) -> AsyncIterator[Stage]:
    """Everything is chosen otherwise than by default."""
    directory = tmp_path_factory.mktemp("settings")

    def kept(name: str, value: str) -> dict[str, str]:
        """A secret that is read from a file, which ends in a line break."""
        path = Path(directory / name)
        path.write_text(f"{value}\n")
        return {name: "", f"{name}_FILE": str(path)}

    world = outside.world
    policy = directory / "policy.yaml"
    policy.write_text(_POLICY.replace("ASSISTANT", assistants[0]))
    both = {"TOLLWATCH_LOG_FORMAT": "console", "TOLLWATCH_MASK_NUMBERS": "false"}
    web = {**both, **kept("TELNYX_PUBLIC_KEY", world.public_key)}
    worker = {
        **both,
        **kept("TELNYX_API_KEY", world.api_key),
        **kept("SLACK_WEBHOOK_URL", world.slack_url),
        "TOLLWATCH_POLICY": str(policy),
        "TOLLWATCH_MAX_SESSION_COST": "2.50",
    }
    async with open_stage(outside, ages="1", web=web, worker=worker) as stage:
        yield stage


async def test_the_simplest_ceiling_overrides_the_policys(stage: Stage) -> None:
    """TOLLWATCH_MAX_SESSION_COST counts, and not what the policy says of the same."""
    call = stage.past("sip_inbound", talk_seconds=60 * 1000)
    assert 2.5 < call.total < 100
    await stage.hang_up(call)
    await stage.ended(call)
    (message,) = await stage.told(call)
    assert "the ceiling is 2.50" in message.all_text


async def test_a_policy_may_be_about_one_assistant(
    stage: Stage, assistants: tuple[str, ...]
) -> None:
    """A ceiling with a condition is for the calls that it names, and for no others."""
    limited, free = (
        stage.past("ai_inbound", talk_seconds=240, assistant_id=assistant)
        for assistant in assistants[:2]
    )
    for call in (limited, free):
        for event in events_for(call, early=False, analyzed=None):
            await stage.post(event)
        await stage.ended(call)
    assert [severity_of(message) for message in await stage.told(limited)] == ["medium"]
    assert await stage.told(free) == []


async def test_numbers_are_whole_where_that_is_chosen(stage: Stage) -> None:
    """With TOLLWATCH_MASK_NUMBERS=false an alert names who called whom in full."""
    call = stage.past("dear_destination")
    await stage.hang_up(call)
    await stage.ended(call)
    message = (await stage.told(call))[-1]
    assert call.legs[0].from_ in message.all_text
    assert call.legs[0].to in message.all_text


async def test_logs_may_be_for_people(stage: Stage) -> None:
    """With TOLLWATCH_LOG_FORMAT=console the lines are no JSON, and say the same."""
    call = stage.past("sip_inbound")
    await stage.hang_up(call)
    await stage.ended(call)

    def lines() -> list[str]:
        return [line for line in stage.worker.lines if call.session_id in line]

    await stage.until(lambda: "verdict" in "".join(lines()), "a line about the verdict")
    assert not any(line.startswith("{") for line in lines())
