"""Poison: an analysis that breaks our code ends as a dead letter, and everything else goes on."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service import keys
from service.records import Session, State
from tests.flow.stage import Outside, Stage, open_stage
from tests.world.envelopes import PERSONAL_DATA
from tests.world.model import Call
from workers.analyze import MOST_FAILURES

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A stage whose worker breaks on the calls in `file`; `call` is one that died of it."""

    stage: Stage
    file: Path
    call: Call
    session: Session
    others: list[Call]


@pytest.fixture(scope="module")
async def poisoned(
    outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Poisoned]:
    """Calls that ended while one of them was given up, step by step."""
    file = tmp_path_factory.mktemp("poison") / "sessions"
    file.write_text("")
    spoiled = {"POISON": str(file)}
    async with open_stage(
        outside, ages="1", worker=spoiled, worker_module="tests.flow.poisoned"
    ) as stage:
        call = stage.past("ai_inbound")
        file.write_text(call.session_id)
        others = [stage.past("sip_inbound") for _ in range(MOST_FAILURES)]
        await stage.hang_up(call)
        for failures, other in enumerate(others[1:], 1):
            await stage.heard(call, "attempt failed", failures)
            await stage.hang_up(other)
            await stage.ended(other)
            await stage.hurry(call)
        session = await stage.ended(call, State.DEAD)
        await stage.hang_up(others[0])
        yield Poisoned(stage, file, call, session, others)


async def test_others_go_on(poisoned: Poisoned) -> None:
    """While one session breaks our code again and again, all others get their verdicts."""
    for other in poisoned.others:
        verdict = (await poisoned.stage.ended(other)).verdict
        assert verdict
        assert verdict.total == other.total


async def test_it_ends_as_a_dead_letter_with_its_reason(poisoned: Poisoned) -> None:
    """The error's class is the kind, its words the reason, with no number in them."""
    (line,) = (await poisoned.stage.tollwatch("dead", "list", "--format", "ndjson")).splitlines()
    letter = json.loads(line)
    assert (letter["session_id"], letter["kind"], letter["failures"]) == (
        poisoned.call.session_id,
        "ZeroDivisionError",
        MOST_FAILURES,
    )
    assert (
        letter["reason"]
        == f"ZeroDivisionError: the call from …78 at {poisoned.call.total.normalize()}"
    )
    assert poisoned.session.reason == letter["reason"]


async def test_the_traceback_is_in_the_log(poisoned: Poisoned) -> None:
    """Each failure is logged with where it happened."""
    failures = await poisoned.stage.heard(poisoned.call, "attempt failed", MOST_FAILURES)
    assert all("in poisoned" in json.dumps(line) for line in failures)
    assert [line["dead"] for line in failures][-1]


async def test_the_answer_is_kept_without_people_in_it(poisoned: Poisoned) -> None:
    """What Telnyx answered can be looked at for a week, with no number, name or word of anybody."""
    call, stage = poisoned.call, poisoned.stage
    text = await stage.tollwatch("dead", "show", call.session_id, "--raw")
    (answer, *_) = json.loads(text)
    assert answer["asked"] == f"session_analysis/call-session/{call.session_id}"
    assert answer["body"]["root"]["id"] == call.session_id
    assert answer["body"]["cost"]["total"]
    parties = [party.lstrip("+") for leg in call.legs for party in (leg.from_, leg.to)]
    phones = [party for party in parties if party.isdigit()]
    assert [found for found in {*PERSONAL_DATA, *phones} if found in text] == []
    left_ms = await stage.redis.pttl(keys.raw_key(call.session_id))
    assert 0 < left_ms <= 7 * 86_400_000
    shown = json.loads(await stage.tollwatch("dead", "show", call.session_id, "--format", "json"))
    assert shown["raw_key"] == keys.raw_key(call.session_id)


async def test_operators_are_told_once(poisoned: Poisoned) -> None:
    """The metric shows it, and one notice for its kind says so, however often it is looked for."""
    stage, kind = poisoned.stage, {"kind": "ZeroDivisionError"}
    await stage.until(lambda: stage.log(event="dead letters"), "the notice")
    assert await stage.metric(stage.worker, "tollwatch_dead_letters", **kind) == 1
    assert await stage.metric(stage.worker, "tollwatch_sessions_ended_total", state="dead") == 1
    assert [line["kind"] for line in stage.log(event="dead letters")] == ["ZeroDivisionError"]


async def test_it_is_retried_once_the_bug_is_gone(poisoned: Poisoned) -> None:
    """With the bug mended, a retry beside running workers leads to the verdict, and to no list."""
    stage, call = poisoned.stage, poisoned.call
    kind = ("--reason", "ZeroDivisionError")
    said = await stage.tollwatch("dead", "retry", *kind, "--dry-run")
    assert said == "1 dead letter would be retried: ZeroDivisionError 1"
    assert (await stage.session(call)).state is State.DEAD
    poisoned.file.write_text("")
    said = await stage.tollwatch("dead", "retry", *kind)
    assert said == "1 dead letter retried: ZeroDivisionError 1"
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    assert await stage.failures(call) == 0
    assert await stage.redis.exists(keys.DEAD, keys.DEAD_KINDS, keys.DEAD_SINCE) == 0
    found = await stage.tollwatch("dead", "retry", call.session_id)
    assert found.splitlines()[0] == "0 dead letters retried"


async def test_what_stands_in_no_line_is_found(outside: Outside) -> None:
    """A session that was lost from its line while nobody worked is brought back by a worker."""
    async with open_stage(outside, ages="1", database=1, workers=0) as stage:
        call = stage.past("sip_inbound")
        await stage.hang_up(call)
        await stage.redis.delete(keys.ENDED)
    async with open_stage(outside, ages="1", database=1) as stage:
        assert (await stage.ended(call)).verdict
        (line,) = stage.log(event="put back into its line")
        assert line["session_id"] == call.session_id
        swept = await stage.metric(stage.worker, "tollwatch_swept_total", line="sessions")
        assert swept == 1
