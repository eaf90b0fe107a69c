"""`tollwatch backfill`: what it says, in front of lists with little in them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from tests.workers.local_http import Vendor
from tests.workers.test_cli import Cli, cli, delivered, telnyx, words  # noqa: F401 - fixtures
from tests.workers.trees import guide, wire
from tests.world.valkey import Valkey
from workers import past
from workers.ledger import LeaseLost

SINCE = ("--since", "14d")


class Command:
    """The command, with an empty Redis and a Telnyx whose lists are empty."""

    def __init__(self, cli: Cli, telnyx: Vendor, url: str) -> None:  # noqa: F811
        self.cli = cli
        self.telnyx = telnyx
        self.url = url
        self.list("webhook_deliveries")
        self.list("detail_records")

    def list(self, name: str, *rows: Any, status: int = 200) -> None:
        """What one of the lists holds, on its only page."""
        page = {"data": rows, "meta": {"total_pages": 1, "page_number": 1}}
        self.telnyx.answer(f"/{name}", page, status)

    def run(self, *arguments: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """What it wrote."""
        return self.cli.run("backfill", *arguments, code=code, REDIS_URL=self.url, **environ)

    def redis(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Let Redis do something."""

        async def body() -> Any:
            async with Redis.from_url(self.url) as redis:
                return await getattr(redis, name)(*arguments, **options)

        return asyncio.run(body())


@pytest.fixture
def command(cli: Cli, telnyx: Vendor, valkey: Valkey) -> Command:  # noqa: F811
    """Nothing is known; Telnyx knows of one call without a cost and of one with."""
    found = Command(cli, telnyx, valkey.url)
    found.redis("flushall")
    ago = timedelta(hours=5)
    found.list("webhook_deliveries", delivered("gone", ago=ago), delivered("had", ago=ago))
    telnyx.answer("/session_analysis/call-session/gone", {"errors": []}, 404)
    telnyx.answer("/session_analysis/call-session/had", wire(guide()))
    return found


def test_it_says_what_was_learned(command: Command) -> None:
    """As a table and as JSON; progress goes to stderr, with no line for each session."""
    text, told = command.run(*SINCE)
    table = [words(line) for line in text.splitlines()]
    assert {"found 2", "learned 1", "had no cost 1", "kept apart as strange 0"} <= set(table)
    assert table[-1].endswith("cohorts have a say (at least 20 calls)")
    assert "webhook_deliveries: page 1, back to " in told
    assert "found had" not in told
    assert told.splitlines()[-1] == "2 of 2 sessions"
    document = msgspec.json.decode(command.run(*SINCE, "--format", "json")[0])
    assert (document["outcome"], document["reason"], document["dry_run"]) == ("whole", None, False)
    assert document["sessions"] == {
        **dict.fromkeys(document["sessions"], 0),
        "before": 1,
        "no_cost": 1,
    }
    assert document["cohorts_with_a_say"] == 0 < document["cohorts"]


def test_it_says_what_it_would_do(command: Command) -> None:
    """As a table and as JSON; no session is asked for."""
    text, _ = command.run(*SINCE, "--dry-run")
    assert "would be asked of Telnyx 2" in words(text)
    document = msgspec.json.decode(command.run(*SINCE, "--dry-run", "--format", "json")[0])
    assert document == {
        "outcome": "whole",
        "reason": None,
        "dry_run": True,
        "found": 2,
        "before": 0,
        "waiting": 0,
        "stored": 0,
        "asked": 2,
    }
    assert not [path for path in command.telnyx.asked if "session_analysis" in str(path)]
    assert command.redis("keys", "tollwatch:backfill*") == []


def test_a_refusal_ends_it(command: Command) -> None:
    """With Telnyx's words, and an exit code."""
    command.list("webhook_deliveries", status=401)
    text, told = command.run(*SINCE, code=1)
    assert "found 0" in words(text)
    assert told.splitlines()[-1].startswith("stopped early (refused): webhook_deliveries: refused")
    assert told.endswith("called again, it goes on where it stopped\n")
    assert "called again" not in command.run(*SINCE, "--dry-run", code=1)[1]


def test_an_open_half_of_the_work_is_said(command: Command) -> None:
    """What is still to do after an early end."""
    command.telnyx.answer("/session_analysis/call-session/had", {}, 401)
    text, told = command.run(*SINCE, code=1)
    assert "still to do" in text
    assert "stopped early (refused): session_analysis: refused" in told


def test_somebody_else_is_at_it(command: Command) -> None:
    """Two would only get in each other's way."""
    command.redis("set", keys.BACKFILL_LEASE, "other", px=60_000)
    _, told = command.run(*SINCE, code=1)
    assert told.startswith("somebody else learns from the past just now")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LeaseLost, 1, "given up: Redis did not answer for long"),
        (KeyboardInterrupt, 130, "interrupted: called again, it goes on where it stopped"),
    ],
)
def test_what_breaks_it_off_is_said(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    code: int,
    said: str,
) -> None:
    """In one line, with an exit code of its own."""

    async def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(past, "learn", broken)
    assert said in command.run(*SINCE, code=code)[1]


def test_bad_usage_is_said(command: Command) -> None:
    """Nothing is asked then."""
    _, told = command.run("--since", "40d", "--until", "30d", code=2)
    assert "--until not older than 28 days" in told
    assert "no cost has settled" in command.run("--since", "2h", code=2)[1]
    hour = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert "no cost has settled" in command.run("--since", hour, code=2)[1]
    assert command.telnyx.asked == []


def test_a_policy_that_does_not_learn(command: Command) -> None:
    """Nothing would come of it."""
    with open("policy.yaml", "w") as policy:  # noqa: PTH123
        policy.write("learn: false\n")
    _, told = command.run(*SINCE, code=1, TOLLWATCH_POLICY="policy.yaml")
    assert told == "the policy says learn: false, so nothing is compared with what was learned\n"
