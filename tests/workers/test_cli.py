"""The command line: answers on stdout, one clear line on stderr, and the right exit code."""

import asyncio
import csv
import io
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from service import keys
from service.outbox import Flood, Outbox
from service.queue import Claim, session_line
from service.records import (
    Alert,
    Conclusion,
    Delivery,
    Fetch,
    Notice,
    Reason,
    Severity,
    Share,
    State,
    Verdict,
    Watch,
)
from service.store import Store
from tests.alerts import RETENTION_MS, alert_of, decide
from tests.samples import END_MS, START_MS, analysis, assistant_call, node, scheduling
from tests.workers.local_http import Vendor, vendor
from tests.workers.trees import chain, guide, wire
from tests.world.valkey import Valkey
from tests.world.world import World
from workers.cli import alerts, app
from workers.export import COLUMNS
from workers.ledger import LeaseLost, Ledger
from workers.policy import Policy

KEY = "KEY0189ABCDEF0123456789ABCDEF01234567_abcdefGHIJKLmnopqrstuv"
SESSION = "/session_analysis/call-session/s"
TOLLWATCH = Path(sys.executable).with_name("tollwatch")


@pytest.fixture
def telnyx() -> Iterator[Vendor]:
    """A Telnyx that holds the guide's example as session `s`."""
    with vendor() as here:
        here.answer(SESSION, wire(guide()))
        yield here


class Cli:
    """The command line in an empty directory, with no settings but those given."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def run(self, *arguments: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """What it wrote to stdout and stderr. It must end with this exit code."""
        ours = ("REDIS_", "TELNYX_", "SLACK_", "TOLLWATCH_", "COLUMNS")
        unset = dict.fromkeys(name for name in os.environ if name.startswith(ours))
        settings = {**unset, **self.environ, **environ}
        result = CliRunner().invoke(app, arguments, env=settings, catch_exceptions=False)
        assert result.exit_code == code, (result.stdout, result.stderr)
        assert KEY not in result.output
        shown = (result.stdout + result.stderr).replace("\n", "")
        assert shown.isprintable()
        return result.stdout, result.stderr


@pytest.fixture
def cli(telnyx: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with a key, in front of that Telnyx."""
    monkeypatch.chdir(tmp_path)
    return Cli({"TELNYX_API_KEY": KEY, "TELNYX_API_URL": telnyx.url})


def words(text: str) -> str:
    return " ".join(text.split())


# --- help, version, usage ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        *([], ["analyze"], ["record-types"], ["check"], ["show"], ["sessions"], ["reconcile"]),
        *(["export"], ["budget"], ["backtest"], ["backfill"], ["baseline"], ["feedback"]),
        *(["policy"], ["policy", "check"]),
        *(["dead"], *(["dead", command] for command in ("list", "show", "retry", "drop"))),
    ],
)
def test_there_is_help_on_all_levels(cli: Cli, command: list[str]) -> None:
    """Each command explains itself, by either name of the option."""
    text, _ = cli.run(*command, "--help")
    assert text.startswith("Usage: ")
    assert cli.run(*command, "-h")[0] == text


def test_the_help_lists_the_columns(cli: Cli) -> None:
    """The documented columns of csv are those there are."""
    assert f"columns of csv: {', '.join(COLUMNS)}." in words(cli.run("analyze", "--help")[0])


def test_help_is_there_at_once() -> None:
    """The help waits for no HTTP client, no Redis and no settings."""
    code = "import sys, workers.cli; print([m for m in sys.modules if m in sys.argv])"
    heavy = ["httpx", "aiohttp", "redis", "pydantic", "msgspec", "arq", "workers.telnyx"]
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_console_script() -> None:
    """The installed script says which version it is."""
    done = subprocess.run(  # noqa: S603 - our own words
        [TOLLWATCH, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tollwatch ")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["nonsense"], ["analyze"], ["analyze", "call-session"], ["show"], ["policy", "check"]),
        ["analyze", "call-session", "s", "--max-depth", "0"],
        ["analyze", "call-session", "s", "--max-depth", "6"],
        ["analyze", "call-session", "s", "--format", "xml"],
        ["analyze", "call-session", "s", "--expand", "all"],
        ["analyze", "call-session", "s", "--date-time", "yesterday"],
        ["sessions", "--state", "asleep"],
        ["sessions", "--limit", "0"],
        ["--env", "/does/not/exist", "sessions"],
    ],
)
def test_bad_usage_is_two(cli: Cli, arguments: list[str]) -> None:
    """Whoever asks wrongly is told so, before anything is asked of anybody."""
    _, told = cli.run(*arguments, code=2)
    assert "Error: " in told


# --- analyze -------------------------------------------------------------------------------------


def test_a_tree_is_printed_with_its_verdict(cli: Cli, telnyx: Vendor) -> None:
    """Cost, shares, products and what the policy says, asked for as the worker asks."""
    text, told = cli.run("analyze", "call-session", "s")
    assert text.startswith("session-0  0.2128 USD  11 events")
    assert "└── Call control  0.1973  93 %  own 0.0052" in text
    assert words(text).endswith("Verdict nothing to alert")
    assert told == ""
    (asked,) = telnyx.asked
    assert asked.query == "include_children=true&max_depth=5&expand=record"
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_the_options_reach_telnyx(cli: Cli, telnyx: Vendor) -> None:
    """Depth, children, records and the UTC day of a time are handed on."""
    options = ("--max-depth", "2", "--no-include-children", "--expand", "none")
    text, _ = cli.run(
        "analyze", "call-session", "s", *options, "--date-time", "2026-03-17T23:30:00-02:00"
    )
    assert telnyx.asked[0].query == (
        "include_children=false&max_depth=2&expand=none&date_time=2026-03-18"
    )
    assert "only a part of the tree was asked for" in text


def test_a_day_is_a_day(cli: Cli, telnyx: Vendor) -> None:
    """A date without a time is taken as it is."""
    cli.run("analyze", "call-session", "s", "--date-time", "2026-03-17")
    assert telnyx.asked[0].query.endswith("&date_time=2026-03-17")


def test_a_tree_deeper_than_telnyx_goes_is_completed(cli: Cli, telnyx: Vendor) -> None:
    """As in the worker, what one answer leaves out is asked for from further down."""
    deep = chain(7)
    telnyx.answer(SESSION, wire(deep, levels=5))
    leaf = [*deep.walk()][4]
    telnyx.answer(f"/session_analysis/call-control/{leaf.id}", wire(leaf))
    text, _ = cli.run("analyze", "call-session", "s", "--format", "ndjson")
    assert len(text.splitlines()) == 7


def test_a_tree_that_cannot_be_completed_is_shown(cli: Cli, telnyx: Vendor) -> None:
    """What there is is shown, with a word about what is missing and why."""
    deep = chain(7)
    telnyx.answer(SESSION, wire(deep, levels=5))
    leaf = [*deep.walk()][4]
    telnyx.answer(f"/session_analysis/call-control/{leaf.id}", {}, 429)
    text, _ = cli.run("analyze", "call-session", "s")
    assert "also: the rest was not to be had: 429" in text
    assert "incomplete: events are missing" in text


def test_a_dear_call_is_judged(cli: Cli, telnyx: Vendor) -> None:
    """The verdict names each reason; a ceiling of the environment and a policy file count."""
    telnyx.answer(SESSION, assistant_call(*["0.001"] * 250))
    text, _ = cli.run("analyze", "call-session", "s")
    assert "Inference occurred 250 times, the ceiling is 200" in text
    text, _ = cli.run("analyze", "call-session", "s", TOLLWATCH_MAX_SESSION_COST="0.10")
    assert "the ceiling is 0.10  session_cost" in text
    Path("policy.yaml").write_text("ceilings: []")
    text, _ = cli.run("analyze", "call-session", "s", "--policy", "policy.yaml")
    assert "nothing to alert" in text


def test_a_part_is_judged_as_a_part(cli: Cli, telnyx: Vendor) -> None:
    """A tree that is no session's is judged, with a word about what that means."""
    telnyx.answer("/session_analysis/inference/turn", analysis(node("inference", "0.001")))
    text, _ = cli.run("analyze", "inference", "turn")
    assert "judged as if this inference were the whole session" in text


def test_csv_and_ndjson_hold_a_row_for_each_event(cli: Cli) -> None:
    """Both are complete and agree with each other."""
    rows = list(
        csv.DictReader(io.StringIO(cli.run("analyze", "call-session", "s", "--format", "csv")[0]))
    )
    lines = cli.run("analyze", "call-session", "s", "--format", "ndjson")[0].splitlines()
    objects = [msgspec.json.decode(line) for line in lines]
    assert [row["id"] for row in rows] == [found["id"] for found in objects]
    assert sum(Decimal(row["event_cost"]) for row in rows) == Decimal("0.2128")


def test_json_is_the_analysis_without_personal_data(cli: Cli, telnyx: Vendor) -> None:
    """What is exported is what is kept: masked numbers, no names, no transcript."""
    leg = node("sip-trunking", "0.1", cli="+4915112345678", caller_name="Ada", transcript="secret")
    telnyx.answer(SESSION, analysis(node("call-session", "0", leg, id="s")))
    for format in ("json", "ndjson", "csv", "tree"):
        text, _ = cli.run("analyze", "call-session", "s", "--format", format)
        assert not [word for word in ("5112345", "Ada", "secret") if word in text]
    document = msgspec.json.decode(cli.run("analyze", "call-session", "s", "--format", "json")[0])
    assert document["root"]["children"][0]["record"]["cli"] == "…78"


@pytest.mark.parametrize("format", ["tree", "json", "csv", "ndjson"])
def test_what_telnyx_sends_cannot_command_the_terminal(
    cli: Cli, telnyx: Vendor, format: str
) -> None:
    """Control sequences in ids, names and models are shown as something else."""
    nasty = "[red]x\x1b[2J\x9b2J\u202e\r"
    leg = node(nasty, "0.1", id=nasty, model=nasty, rate_measured_in=nasty)
    telnyx.answer(SESSION, analysis(node("call-session", "0", leg, id=nasty)))
    assert "[red]x" in cli.run("analyze", "call-session", "s", "--format", format)[0]


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        (404, {"errors": [{"message": "Event not found"}]}, "or not yet (404 Not Found"),
        (409, {}, "or not yet (409 Conflict)"),
        (401, {"errors": [{"title": "bad key"}]}, "check TELNYX_API_KEY"),
        (403, {"errors": [{"title": "Account is disabled D17"}]}, "Account is disabled D17"),
        (400, {"errors": [{"message": "Invalid record type"}]}, "`tollwatch record-types`"),
        (429, {}, "ask again in 17 s"),
        (500, {}, "500 Internal Server Error"),
        (200, b"<html>", "check TELNYX_API_URL"),
        (302, b"", "redirects are not followed"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    cli: Cli, telnyx: Vendor, status: int, body: Any, word: str
) -> None:
    """Nothing on stdout, one line on stderr, exit code 1."""
    telnyx.answer(SESSION, body, status)
    telnyx.headers["x-ratelimit-reset"] = "17"
    text, told = cli.run("analyze", "call-session", "s", code=1)
    assert text == ""
    assert told.count("\n") == 1
    assert word in told


def test_a_misspelt_record_type_has_a_hint(cli: Cli) -> None:
    """Where Telnyx does not know it, what was meant is said."""
    assert "did you mean call-session?" in cli.run("analyze", "callsesion", "s", code=1)[1]
    assert "--date-time" in cli.run("analyze", "x", "s", "--date-time", "2026-03-17", code=1)[1]


@pytest.mark.parametrize("id", ["..", "a\nb", "x" * 300, ""])
def test_an_impossible_id_is_not_asked_for(cli: Cli, telnyx: Vendor, id: str) -> None:
    """An id can change neither path nor host of the question."""
    cli.run("analyze", "call-session", id, code=1)
    assert telnyx.asked == []


def test_nobody_there(cli: Cli) -> None:
    """An API that cannot be reached is said in one line."""
    _, told = cli.run("analyze", "call-session", "s", code=1, TELNYX_API_URL="http://127.0.0.1:1")
    assert told.count("\n") == 1
    assert "check TELNYX_API_URL" in told


def test_all_bad_settings_are_named(cli: Cli, telnyx: Vendor) -> None:
    """One line each, exit code 2, and nothing is asked; what is not needed does not count."""
    _, told = cli.run(
        *("analyze", "call-session", "s"),
        code=2,
        TELNYX_API_KEY="",
        TELNYX_API_URL="ftp://x",
        TOLLWATCH_MAX_SESSION_COST="-1",
        REDIS_URL="nonsense",
    )
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "TELNYX_API_KEY",
        "TELNYX_API_URL",
        "TOLLWATCH_MAX_SESSION_COST",
    ]
    assert telnyx.asked == []


def test_a_bad_policy_is_a_bad_setting(cli: Cli) -> None:
    """Every fault of the policy, with its place, before anything is asked."""
    Path("policy.yaml").write_text("currency: 1\nseverity: 2")
    _, told = cli.run("analyze", "call-session", "s", code=2, TOLLWATCH_POLICY="policy.yaml")
    assert [line.partition(" ")[0] for line in told.splitlines()] == [
        "policy.yaml:1:11:",
        "policy.yaml:2:11:",
    ]


def test_settings_may_be_in_a_file(cli: Cli, telnyx: Vendor, tmp_path: Path) -> None:
    """`.env` is read where it lies, another by option; the environment goes before both."""
    cli.environ = {}
    cli.run("analyze", "call-session", "s", code=2)
    (tmp_path / ".env").write_text(f"TELNYX_API_KEY={KEY}\nTELNYX_API_URL=http://127.0.0.1:1\n")
    cli.run("analyze", "call-session", "s", TELNYX_API_URL=telnyx.url)
    (tmp_path / ".env").rename(tmp_path / "other")
    cli.run("--env", "other", "analyze", "call-session", "s", TELNYX_API_URL=telnyx.url)
    assert len(telnyx.asked) == 2


# --- record types --------------------------------------------------------------------------------

RECORD_TYPE = {
    "record_type": "ai-voice-assistant",
    "aliases": ["ai-assistant"],
    "product": "AI Voice Assistant",
    "event": "ai-voice-assistant",
    "child_relationships": [
        {
            "child_record_type": "inference",
            "cost_rollup": True,
            "traversal_enabled": False,
            "via": {"local_field": "conversation_id", "parent_field": "id"},
        }
    ],
    "parent_relationships": [{"parent_record_type": "call-control"}],
    "meta": {"max_recommended_depth": 3},
}


def test_record_types_are_listed(cli: Cli, telnyx: Vendor) -> None:
    """All of them with their children, as a table and as JSON."""
    telnyx.answer("/session_analysis/metadata", {"record_types": [RECORD_TYPE]})
    text, _ = cli.run("record-types")
    assert "ai-assistant" in text
    assert "conversation_id = id" in text
    document = msgspec.json.decode(cli.run("record-types", "--format", "json")[0])
    assert document["record_types"][0]["children"][0]["cost_rollup"] is True


def test_one_record_type_is_shown(cli: Cli, telnyx: Vendor) -> None:
    """With relationships both ways, and the depth that Telnyx recommends."""
    telnyx.answer("/session_analysis/metadata/ai-voice-assistant", RECORD_TYPE)
    text, _ = cli.run("record-types", "ai-voice-assistant")
    assert "recommended depth 3" in words(text)
    assert "inference yes no conversation_id = id" in words(text)
    text, _ = cli.run("record-types", "ai-voice-assistant", "--format", "json")
    assert msgspec.json.decode(text)["recommended_depth"] == 3


def test_an_unknown_record_type_is_an_error(cli: Cli) -> None:
    """With a hint where one comes to mind; no metadata at all is another matter."""
    _, told = cli.run("record-types", "inferense", code=1)
    assert "no record type 'inferense'" in told
    assert "did you mean inference?" in told
    assert "check TELNYX_API_URL" in cli.run("record-types", code=1)[1]


# --- sessions in Redis ---------------------------------------------------------------------------


class Kept:
    """A Redis with a few sessions in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, work: Callable[[Redis, Store], Coroutine[Any, Any, None]]) -> None:
        """Do something with it."""

        async def body() -> None:
            async with Redis.from_url(self.url) as redis:
                await work(redis, Store(redis, retention_ms=86_400_000))

        asyncio.run(body())


async def fill(redis: Redis, store: Store) -> None:
    """`open` waits, `done` has a verdict and an alert, `broken` cannot be read."""
    await redis.flushall()
    for number, name in enumerate(("broken", "open", "done")):
        item = scheduling(
            name,
            start_ms=START_MS,
            leg_id=f"leg-{name}",
            from_number="+4915112345678",
            to_number="…21",
        )
        await store.record(item, now_ms=END_MS + number)
    await redis.hset(keys.session_key("broken"), "watch", "junk")  # type: ignore[misc]
    line = session_line(redis)
    claims = await line.claim(limit=9, lease_ms=1000, token="t", now_ms=END_MS + 1000)
    claim = next(claim for claim in claims if claim.id == "done")
    taken = await store.take("done", claim.token)
    assert taken
    verdict = Verdict(at_ms=END_MS, total=Decimal("6.13"), currency="USD", severity=Severity.HIGH)
    decided = Alert("done:high", taken.call, verdict, Severity.HIGH, END_MS)
    fetched = Fetch(at_ms=END_MS + 90_000, ready=True, planned=True, total=Decimal("6.13"))
    leg = node("sip-trunking", "6.13", id="leg", cli="+4915112345678")
    await store.conclude(
        taken,
        claim.token,
        Conclusion(
            state=State.VERDICT,
            watch=Watch(end_ms=END_MS, fetches=(fetched,)),
            next_due_ms=None,
            reason="",
            answered=True,
            analysis=msgspec.json.encode(analysis(node("call-session", "0", leg, id="done"))),
            verdict=verdict,
            alert=decided,
        ),
        now_ms=END_MS + 2000,
    )
    await line.release({c.id: c.token for c in claims if c.id != "done"}, after_ms=3_600_000)


@pytest.fixture
def kept(cli: Cli, valkey: Valkey) -> Kept:
    """Sessions of all kinds; no Telnyx key is needed to read them."""
    here = Kept(valkey.url)
    here.run(fill)
    cli.environ = {"REDIS_URL": valkey.url}
    return here


def test_a_session_is_shown(cli: Cli, kept: Kept) -> None:
    """Call, events, fetches, verdict, tree and alerts, with every number masked."""
    text = words(cli.run("show", "done")[0])
    for word in (
        "Session done: has its verdict",
        "from …78 to …21",
        "1 min 30 s planned",
        "high, 0.00 USD in excess",
        "SIP trunking 6.13 100 %",
        "waits to be posted",
    ):
        assert word in text
    assert "5112345" not in text


def test_a_session_as_json(cli: Cli, kept: Kept) -> None:
    """The same for programs, masked as well, though whole numbers were stored."""
    text, _ = cli.run("show", "done", "--format", "json")
    found = msgspec.json.decode(text)
    assert (found["session_id"], found["state"], found["total"]) == ("done", "verdict", "6.13")
    assert found["call"]["from_number"] == "…78"
    assert found["alerts"][0]["alert"]["call"]["from_number"] == "…78"
    assert found["analysis"]["root"]["children"][0]["record"]["cli"] == "…78"
    assert "5112345" not in text


def test_an_open_session_is_shown(cli: Cli, kept: Kept) -> None:
    """Without a verdict and a tree, and with the time of its next look."""
    text = words(cli.run("show", "open")[0])
    assert "waits for its cost" in text
    assert "next look 20" in text
    assert "Alerts none" in text
    assert msgspec.json.decode(cli.run("show", "open", "--format", "json")[0])["analysis"] is None


def test_a_session_that_is_not_there(cli: Cli, kept: Kept) -> None:
    """One line says what that may mean; one that cannot be read is another matter."""
    text, told = cli.run("show", "nobody\x1b", code=1)
    assert text == ""
    assert told.startswith("no session nobody")
    assert "cannot be read" in cli.run("show", "broken", code=1)[1]


def test_a_broken_analysis_hides_nothing_else(cli: Cli, kept: Kept) -> None:
    """The session is shown all the same, with a word about its tree."""

    async def spoil(redis: Redis, _: Store) -> None:
        await redis.set(keys.analysis_key("done"), zlib.compress(b"junk"))

    kept.run(spoil)
    text, told = cli.run("show", "done")
    assert "has its verdict" in text
    assert told == "the stored analysis cannot be read\n"
    assert msgspec.json.decode(cli.run("show", "done", "--format", "json")[0])["analysis"] is None


def test_sessions_are_listed(cli: Cli, kept: Kept) -> None:
    """The latest changed first; one that cannot be read is there, too, and hides no other."""
    text, _ = cli.run("sessions")
    rows = [line.split() for line in text.splitlines() if line.strip()][2:]
    assert [row[:2] for row in rows] == [
        ["done", "verdict"],
        ["open", "open"],
        ["broken", "cannot"],
    ]
    text, _ = cli.run("sessions", "--format", "ndjson")
    found = [msgspec.json.decode(line) for line in text.splitlines()]
    assert [session["state"] for session in found] == ["verdict", "open", "unreadable"]
    assert (found[0]["total"], found[0]["severity"]) == ("6.13", "high")


def test_sessions_are_chosen(cli: Cli, kept: Kept) -> None:
    """By state, and no more than wanted; none at all is said on stderr."""

    def ids(*options: str) -> list[str]:
        text, _ = cli.run("sessions", "--format", "ndjson", *options)
        return [msgspec.json.decode(line)["session_id"] for line in text.splitlines()]

    assert ids("--state", "open") == ["open"]
    assert ids("--limit", "2") == ["done", "open"]
    assert ids("--state", "dead") == []
    assert cli.run("sessions", "--state", "dead") == ("", "no sessions\n")


def test_alerts_are_listed_with_their_fate(cli: Cli, kept: Kept) -> None:
    """Each alert with what became of it; chosen by fate; none at all is said on stderr."""
    text, _ = cli.run("alerts", "--format", "ndjson")
    found = [msgspec.json.decode(line) for line in text.splitlines()]
    assert [(each["session_id"], each["delivery"]) for each in found] == [("done", "waiting")]
    assert cli.run("alerts")[0]
    assert cli.run("alerts", "--delivery", "refused") == ("", "no alerts\n")
    (whole,) = msgspec.json.decode(cli.run("alerts", "--format", "json")[0])
    assert (whole["kind"], whole["repeated"]) == ("alert", False)


def test_summaries_and_notices_are_listed_too(cli: Cli, kept: Kept) -> None:
    """A summary and a notice are lines of the list; `--summary` lists what a summary tells."""

    async def tell(redis: Redis, store: Store) -> None:
        await decide(redis, alert_of("other", Severity.LOW))
        await store.notify(Notice("n", "outage", END_MS + 5, "Telnyx is away"), now_ms=END_MS + 5)
        outbox = Outbox(redis, retention_ms=RETENTION_MS, flood=Flood(0, 1, 3600))
        for token in ("1", "2"):
            claims: list[Claim] = []
            while not claims:
                claims = await outbox.claim(limit=1, lease_ms=1000, token=token)
            await outbox.begin(claims[0])
            await outbox.close(claims[0], Delivery.POSTED)

    kept.run(tell)

    def listed(*options: str) -> list[dict[str, Any]]:
        text, _ = cli.run("alerts", "--format", "ndjson", *options)
        return [msgspec.json.decode(line) for line in text.splitlines()]

    assert {each["kind"] for each in listed()} == {"alert", "notice", "summary"}
    told = [
        (each["session_id"], each["delivery"], each["summary"]) for each in listed("--summary", "1")
    ]
    assert told == [("done", "summarized", "1"), ("other", "summarized", "1")]
    assert len(listed("--delivery", "summarized")) == 2
    assert listed("--summary", "99") == []


def test_the_fates_are_those_of_the_records() -> None:
    """Each fate can be asked for."""
    wanted, _ = get_args(get_type_hints(alerts)["delivery"])
    assert set(get_args(wanted)) == set(Delivery)


NASTY = "[red]x\x1b[2J\x1b]0;title\x07\x9b2J\u202e\u2028\r\n{forged}"


async def fill_with_nasty(redis: Redis, store: Store) -> None:
    """A session in whose every field, id included, stands what would command a terminal."""
    await redis.flushall()
    texts: dict[str, Any] = dict.fromkeys(
        ("leg_id", "connection_id", "assistant_id", "from_number", "to_number", "cause"), NASTY
    )
    await store.record(scheduling(NASTY, kind=NASTY, **texts), now_ms=END_MS)
    (claim,) = await session_line(redis).claim(
        limit=1, lease_ms=1000, token="t", now_ms=END_MS + 1000
    )
    taken = await store.take(NASTY, claim.token)
    assert taken
    reason = Reason(NASTY, NASTY, Decimal(2), Decimal(1), Decimal(1), Severity.HIGH, NASTY)
    verdict = Verdict(
        at_ms=END_MS,
        total=Decimal(2),
        currency=NASTY,
        severity=Severity.HIGH,
        reasons=(reason,),
        remarks=(NASTY,),
        products=(Share(NASTY, Decimal(2), Decimal(1), 1),),
    )
    leg = node(NASTY, "2", id=NASTY, model=NASTY, rate_measured_in=NASTY)
    await store.conclude(
        taken,
        claim.token,
        Conclusion(
            state=State.VERDICT,
            watch=Watch(end_ms=END_MS, held=2, reason=NASTY),
            next_due_ms=None,
            reason=NASTY,
            answered=True,
            analysis=msgspec.json.encode(analysis(node("call-session", "0", leg, id=NASTY))),
            verdict=verdict,
            alert=Alert(f"{NASTY}:high", taken.call, verdict, Severity.HIGH, END_MS),
        ),
        now_ms=END_MS + 2000,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("show", NASTY),
        ("show", NASTY, "--format", "json"),
        ("sessions",),
        ("sessions", "--format", "ndjson"),
        ("alerts",),
        ("alerts", "--format", "ndjson"),
    ],
    ids=lambda command: " ".join(command).replace(NASTY, "SESSION"),
)
def test_what_is_stored_cannot_command_the_terminal(
    cli: Cli, kept: Kept, command: tuple[str, ...]
) -> None:
    """Whatever came into Redis, each command shows it, and the terminal obeys none of it."""
    kept.run(fill_with_nasty)
    assert "x" in cli.run(*command)[0]


def test_a_session_that_nobody_could_type_is_not_found_politely(cli: Cli, kept: Kept) -> None:
    """What was asked for is not obeyed either when it is repeated in the answer."""
    assert "no session" in cli.run("show", NASTY, code=1)[1]


def test_the_states_are_those_of_the_records() -> None:
    """Each state can be asked for."""
    help_text = CliRunner().invoke(app, ["sessions", "--help"]).stdout
    assert f"<{'|'.join(State)}>" in help_text


@pytest.mark.parametrize(
    "command",
    [
        ["show", "s"],
        ["sessions"],
        ["baseline"],
        ["feedback", "s", "anomaly"],
        ["feedback", "--list"],
    ],
)
def test_a_redis_that_is_not_there_is_one_line(cli: Cli, command: list[str]) -> None:
    """What is wrong and what to do, without a trace; a bad URL is a bad setting."""
    _, told = cli.run(*command, code=1, REDIS_URL="redis://user:hunter2@127.0.0.1:1/0")
    assert told.count("\n") == 1
    assert "tollwatch check" in told
    assert "hunter2" not in told
    assert cli.run(*command, code=2, REDIS_URL="x")[1].startswith("REDIS_URL: ")


# --- check and policy ----------------------------------------------------------------------------


def test_check_fails_if_something_does(cli: Cli, telnyx: Vendor, valkey: Valkey) -> None:
    """A table on stdout; exit code 1 for a failure, 0 for warnings alone."""
    telnyx.answer("/session_analysis/metadata", {"record_types": []})
    text, _ = cli.run("check", REDIS_URL=valkey.url)
    assert "accepted; Telnyx knows 0 record types" in text
    assert "TELNYX_PUBLIC_KEY is missing" in text
    telnyx.answer("/session_analysis/metadata", {}, 401)
    text, told = cli.run("check", "--slack", code=1, REDIS_URL=valkey.url)
    assert "401 Unauthorized" in text
    assert told == "2 checks failed\n"


def test_a_policys_faults_are_printed_by_place(cli: Cli) -> None:
    """Every fault on a line that editors can follow, exit code 1."""
    Path("bad.yaml").write_text('max_session_cost: .nan\n"\\e[31mx": 1\nceilings: 3\n')
    text, told = cli.run("policy", "check", "bad.yaml", code=1)
    assert text.splitlines() == [
        "bad.yaml:1:19: must be a number, such as 2.50",
        r"bad.yaml:2:1: unknown key '\x1b[31mx'; known: " + ", ".join(Policy.model_fields),
        "bad.yaml:3:11: must be a list, each entry with - before it",
    ]
    assert told == ""
    text, _ = cli.run("policy", "check", "none.yaml", code=1)
    assert text == "none.yaml:1:1: cannot be read: No such file or directory\n"


def test_a_good_policy_says_what_will_apply(cli: Cli) -> None:
    """A table of all limits, warnings before it, exit code 0."""
    Path("good.yaml").write_text("ceilings:\n- {measure: product_cost, product: fx, limit: 2}")
    text, _ = cli.run("policy", "check", "good.yaml")
    assert text.startswith("good.yaml:2:36: warning: 'fx' is no record type")
    assert "product_cost fx 2.00 USD every call" in words(text)


# --- the whole thing -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_installed_command_against_the_simulated_telnyx() -> None:
    """A process of its own analyses a call of the simulated world, to the last digit."""
    async with World(seed=7) as world:
        call = world.call("ai_inbound", end=datetime.now(UTC) - timedelta(days=1))
        process = await asyncio.create_subprocess_exec(
            *(TOLLWATCH, "--env", os.devnull, "analyze", "call-session", call.session_id),
            *("--format", "csv"),
            env={"TELNYX_API_KEY": world.api_key, "TELNYX_API_URL": world.telnyx_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert len(rows) == call.event_count
    assert sum(Decimal(row["event_cost"]) for row in rows) == call.total


# --- the search for missed webhooks ---------------------------------------------------------------


class Search:
    """`tollwatch reconcile`, with an empty Redis and a Telnyx whose lists are empty."""

    def __init__(self, cli: Cli, telnyx: Vendor, url: str) -> None:
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
        return self.cli.run("reconcile", *arguments, code=code, REDIS_URL=self.url, **environ)

    def redis(self, work: Callable[[Redis], Any]) -> Any:
        """Do something with Redis."""

        async def body() -> Any:
            async with Redis.from_url(self.url) as redis:
                return await work(redis)

        return asyncio.run(body())


@pytest.fixture
def search(cli: Cli, telnyx: Vendor, valkey: Valkey) -> Search:
    """Nothing is known, and nothing happened."""
    found = Search(cli, telnyx, valkey.url)
    found.redis(lambda redis: redis.flushall())
    return found


def delivered(session_id: str, *, ago: timedelta) -> dict[str, Any]:
    """A delivery of a hangup that nobody took."""
    at = (datetime.now(UTC) - ago).isoformat()
    payload = {"call_session_id": session_id, "from": "+4915112345678"}
    webhook = {"event_type": "call.hangup", "id": session_id, "occurred_at": at}
    return {"webhook": {**webhook, "payload": payload}, "started_at": at, "finished_at": at}


def test_a_search_says_what_it_found(search: Search) -> None:
    """As a table, with a line for each list, and as JSON; progress goes to stderr."""
    search.list("webhook_deliveries", delivered("lost", ago=timedelta(minutes=9)), "junk")
    text, told = search.run("--since", "90m")
    assert text.splitlines()[-1] == "1 session scheduled"
    assert [line.split()[0] for line in text.splitlines()[4:9]] == [
        *("webhook_deliveries", "call-control", "sip-trunking", "webrtc", "ai-voice-assistant")
    ]
    assert "webhook_deliveries: found lost, ended " in told
    assert "webhook_deliveries: page 1, back to " in told
    assert "webrtc: page 2, no rows" in told
    document = msgspec.json.decode(search.run("--since", "90m", "--format", "json")[0])
    assert (document["outcome"], document["reason"], document["dry_run"]) == ("whole", None, False)
    assert document["lists"][0]["known"] == document["lists"][0]["unreadable"] == 1
    assert document["total"]["scheduled"] == 0


def test_a_dry_search_changes_nothing(search: Search) -> None:
    """It says what would be scheduled."""
    search.list("webhook_deliveries", delivered("lost", ago=timedelta(minutes=9)))
    text, _ = search.run("--since", "90m", "--dry-run")
    assert "to schedule" in text
    assert text.splitlines()[-1] == "1 session would be scheduled"
    assert search.redis(lambda redis: redis.keys()) == []


def test_numbers_of_found_calls_are_masked(search: Search) -> None:
    """Unless the setting says otherwise."""
    search.list("webhook_deliveries", delivered("lost", ago=timedelta(minutes=9)))
    search.run("--since", "90m")
    stored = search.redis(lambda redis: redis.hgetall(keys.session_key("lost")))
    assert b"4915112345678" not in b"".join(stored.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "soon"], "--since: neither a duration such as 90m"),
        (["--since", "1h", "--until", "6"], "--until: neither a duration such as 90m"),
        (["--since", "1h", "--until", "2h"], "--since must be before --until"),
        (["--since", "3d", "--until", "2d"], "--since must be before --until"),
    ],
)
def test_a_span_that_is_none_is_bad_usage(search: Search, arguments: list[str], said: str) -> None:
    """It is said, and nothing is asked."""
    _, told = search.run(*arguments, code=2, TOLLWATCH_RETENTION_DAYS="1")
    assert said in told
    assert search.telnyx.asked == []


def test_nothing_before_the_retention_is_searched(search: Search) -> None:
    """That is said; the rest is searched."""
    search.list("webhook_deliveries", delivered("old", ago=timedelta(hours=25)))
    text, told = search.run("--since", "3d", TOLLWATCH_RETENTION_DAYS="1")
    assert told.startswith("nothing is kept of calls before ")
    assert text.splitlines()[-1] == "0 sessions scheduled"


def test_a_search_that_stops_early_says_why(search: Search) -> None:
    """What was found so far, the reason, and exit code 1."""
    search.list("webhook_deliveries", delivered("lost", ago=timedelta(minutes=9)))
    search.list("detail_records", status=403)
    text, told = search.run("--since", "90m", code=1)
    assert "1 session scheduled" in text
    assert "stopped early (refused): detail_records: refused: 403 Forbidden" in told
    assert told.endswith("called again, it goes on where it stopped\n")
    _, told = search.run("--since", "90m", "--dry-run", code=1)
    assert "called again" not in told


def test_one_searches_at_a_time(search: Search) -> None:
    """Who comes second is told."""
    search.redis(lambda redis: redis.set(keys.RECONCILE_LEASE, "somebody"))
    _, told = search.run("--since", "90m", code=1)
    assert told.startswith("another search is under way")
    assert search.telnyx.asked == []


def test_a_search_that_loses_its_lease_gives_up(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have begun: it says so instead of going on."""

    async def lost(*_: Any) -> None:
        raise LeaseLost

    monkeypatch.setattr(Ledger, "write", lost)
    _, told = search.run("--since", "90m", code=1)
    assert told.splitlines()[-1].startswith("given up: Redis did not answer for long")


def test_a_search_without_redis_is_one_line(search: Search) -> None:
    """Which says what to check."""
    search.url = "redis://127.0.0.1:1/0"
    _, told = search.run("--since", "90m", code=1)
    assert told.startswith("Redis: ")
    assert len(told.splitlines()) == 1


# --- export --------------------------------------------------------------------------------------

NOW_MS = int(time.time() * 1000)


async def past(redis: Redis, store: Store) -> None:
    """Calls of the last days: `s00`, the latest, to `s59`; some are left out for some reason."""
    await redis.flushall()
    for number in range(60):
        at_ms = NOW_MS - 60_000 - number * 3_600_000
        item = scheduling(f"s{number:02}", at_ms=at_ms, start_ms=at_ms - 60_000, to_number="…21")
        await store.record(item, now_ms=NOW_MS)
    line = session_line(redis)
    claims = await line.claim(limit=99, lease_ms=1000, token="t", now_ms=NOW_MS)
    body = msgspec.json.encode(analysis(node("call-session", "0", id="s")))
    for claim in claims:
        if claim.id == "s07":
            continue
        taken = await store.take(claim.id, claim.token)
        assert taken
        has_cost = claim.id != "s08"
        end = Conclusion(
            state=State.VERDICT if has_cost else State.UNAVAILABLE,
            watch=Watch(end_ms=taken.end_ms),
            next_due_ms=None,
            reason="",
            answered=True,
            analysis=body if has_cost else None,
        )
        await store.conclude(taken, claim.token, end, now_ms=NOW_MS)
    await redis.set(keys.analysis_key("s09"), "junk")
    await redis.zadd(keys.SESSIONS, {"gone": NOW_MS})


@pytest.fixture
def archive(cli: Cli, valkey: Valkey) -> Kept:
    """Sixty calls of sixty hours."""
    here = Kept(valkey.url)
    here.run(past)
    cli.environ = {"REDIS_URL": valkey.url, "TOLLWATCH_RETENTION_DAYS": "7"}
    return here


def ids_of(text: str) -> list[str]:
    return [msgspec.json.decode(line)["webhook"]["call_session_id"] for line in text.splitlines()]


def test_sessions_are_exported_by_end(cli: Cli, archive: Kept) -> None:
    """Each finished one is a line, the earliest end first; what is left out is counted."""
    text, told = cli.run("export", "--since", "7d")
    left_out = {"s07", "s08", "s09"}
    assert ids_of(text) == [f"s{n:02}" for n in range(59, -1, -1) if f"s{n:02}" not in left_out]
    assert told == (
        "57 sessions written; left out: 1 unfinished, 1 without an analysis, 1 not readable\n"
    )


def test_a_span_of_sessions_is_exported(cli: Cli, archive: Kept) -> None:
    """Only calls that ended within it, both ends included."""
    text, told = cli.run("export", "--since", "5h", "--until", "3h")
    assert ids_of(text) == ["s04", "s03"]
    assert told == "2 sessions written\n"


def test_an_export_is_a_file_when_it_is_whole(cli: Cli, archive: Kept, tmp_path: Path) -> None:
    """It goes into the file, and nothing to stdout; what cannot be written is said in one line."""
    path = tmp_path / "sessions.ndjson"
    text, told = cli.run("export", "--since", "3h", "--out", str(path))
    assert (text, told) == ("", "3 sessions written\n")
    assert ids_of(path.read_text()) == ["s02", "s01", "s00"]
    assert list(tmp_path.iterdir()) == [path]
    nowhere = tmp_path / "no" / "sessions.ndjson"
    _, told = cli.run("export", "--since", "3h", "--out", str(nowhere), code=1)
    assert told.startswith(f"cannot write to {nowhere}: No such file")


def test_an_export_that_breaks_off_leaves_the_older_file(
    cli: Cli, archive: Kept, tmp_path: Path
) -> None:
    """Without Redis nothing is written, and an earlier export stays."""
    path = tmp_path / "sessions.ndjson"
    path.write_text("older")
    arguments = ("export", "--since", "3h", "--out", str(path))
    _, told = cli.run(*arguments, code=1, REDIS_URL="redis://127.0.0.1:1/0")
    assert told.startswith("Redis: ")
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_goes_through_a_pipe(cli: Cli, archive: Kept, tmp_path: Path) -> None:
    """What is no file is written to and stays what it is; a link leads to its file."""
    pipe, link, path = (tmp_path / name for name in ("pipe", "link", "file"))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        cli.run("export", "--since", "3h", "--out", str(pipe))
        assert ids_of(os.read(reader, 65_536).decode()) == ["s02", "s01", "s00"]
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    link.symlink_to(path)
    path.write_text("older")
    cli.run("export", "--since", "1h", "--out", str(link))
    assert link.is_symlink()
    assert ids_of(path.read_text()) == ["s00"]


def test_whoever_reads_an_export_may_stop(archive: Kept) -> None:
    """A pipe that closes early ends it, with no words about Redis and no traceback."""
    command = f"'{TOLLWATCH}' export --since 7d | head -c 1"
    environ = {"REDIS_URL": archive.url, "PATH": os.environ["PATH"]}
    done = subprocess.run(  # noqa: S602 - a pipe is what is tried
        command, shell=True, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{"
    assert "Redis" not in done.stderr
    assert "Traceback" not in done.stderr
