"""`tollwatch baseline`, `feedback` and `backtest --warm`: what was learned, and what people say."""

import asyncio
import getpass
import os
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from service.records import Conclusion, State, Verdict, Watch
from service.store import Store
from tests.samples import scheduling
from tests.workers.detection.taught import ASSISTANT, DAY_MS, call_of, recorded
from tests.workers.test_cli import NASTY, Cli, words
from tests.world.valkey import Valkey
from workers.analysis import decode_analysis, encode_analysis
from workers.baselines import Baselines
from workers.detection.baseline import Lesson, lesson_of
from workers.detection.measure import measure
from workers.feedback import Feedback, FeedbackBook
from workers.lookup import Known, look_up

T = TypeVar("T")
RETENTION_MS = 30 * DAY_MS
NOW_MS = int(time.time() * 1000)
COHORT = f"{ASSISTANT}/outbound/US/assistant"


def lesson(minutes: int = 3, turns: int = 5, country: str = "US") -> Lesson:
    one = recorded(call_of(minutes, turns), NOW_MS, country=country)
    return lesson_of(measure(one.tree, one.call, 60 * minutes), NOW_MS)


class Learned:
    """A Redis in which something was learned, and the command line in front of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cli = Cli({"REDIS_URL": url})

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        return self.cli.run(*arguments, code=code)

    def do(self, work: Callable[[Redis, Baselines], Awaitable[T]]) -> T:
        async def body() -> T:
            async with Redis.from_url(self.url) as redis:
                return await work(redis, Baselines(redis, retention_ms=RETENTION_MS))

        return asyncio.run(body())

    def calls(self, cohort: str = COHORT) -> int:
        day = NOW_MS // DAY_MS
        return self.do(lambda _, known: known.baseline(cohort, day)).calls

    def known(self, session_id: str = "dear") -> Known:
        found = self.do(lambda redis, _: look_up(redis, session_id))
        assert found
        return found


async def fill(redis: Redis, baselines: Baselines) -> None:
    """40 usual calls; `dear` has a verdict and is kept apart, `open` waits, `bare` is nobody's."""
    await redis.flushall()
    for number in range(40):
        await baselines.learn(f"s{number}", lesson(2 + number % 3), ended_ms=NOW_MS)
    await baselines.learn("abroad", lesson(country="DE"), ended_ms=NOW_MS)
    await baselines.learn("dear", lesson(57, 412), ended_ms=NOW_MS, strange=True)
    store = Store(redis, retention_ms=RETENTION_MS)
    await store.record(scheduling("open", at_ms=NOW_MS, connection_id="7267"), now_ms=NOW_MS)
    for name in ("dear", "bare"):
        await store.record(scheduling(name, at_ms=NOW_MS), now_ms=NOW_MS)
        await redis.zrem(keys.ENDED, name)
        await redis.hset(keys.session_key(name), "token", "t")  # type: ignore[misc]
        taken = await store.take(name, "t")
        assert taken
        answer = msgspec.json.encode(call_of(57, 412))
        kept = encode_analysis(decode_analysis(answer)) if name == "dear" else None
        verdict = Verdict(NOW_MS, recorded(call_of(57, 412), NOW_MS).tree.total, "USD")
        done = Conclusion(State.VERDICT, Watch(), None, "", True, kept, verdict)
        await store.conclude(taken, "t", done, now_ms=NOW_MS)


@pytest.fixture
def learned(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learned:
    monkeypatch.chdir(tmp_path)
    here = Learned(valkey.url)
    here.do(fill)
    return here


# --- baseline -------------------------------------------------------------------------------------


def test_cohorts_are_listed(learned: Learned) -> None:
    """Each with calls, days, the usual cost of a session, and what 99 % are under."""
    text = words(learned.run("baseline")[0])
    assert f"{COHORT} 40 1 0.17 0.23" in text
    assert "account 41 1 0.17 0.23" in text
    text, told = learned.run("baseline", "--limit", "2", "--format", "json")
    rows = msgspec.json.decode(text)
    assert len(rows) == 2
    assert {"cohort", "calls", "days", "last_ms", "total"} == set(rows[0])
    assert told == "5 more cohorts: --limit shows them\n"


def test_one_cohort_is_shown_whole(learned: Learned) -> None:
    """How costs are spread, each measure, each product, price, model and country."""
    text, _ = learned.run("baseline", COHORT)
    told = words(text)
    assert "assistant-1's outbound calls to US: 40 calls in 1 day" in told
    assert "whole session 0.12 0.17 0.23 40" in told
    assert "AI minutes, a minute 0.051 0.051 0.051 40" in told
    assert "Inference, events 5 5 5 40" in told
    assert "AI minutes, billed for its started minutes 1.0 times" in told
    assert "product Inference 40 100 %" in told
    assert "rate SIP trunking to US: 0.005 40 100 %" in told
    assert "model small 40 100 %" in told
    assert "country US 40 100 %" in told
    bars = [line for line in text.splitlines() if " – " in line]
    assert len({line.index(" – ") for line in bars}) == 1
    assert max(line.count("█") for line in bars) == 40
    assert sum(int(line.split()[-2]) for line in bars if line.endswith("%")) in {99, 100, 101}


def test_a_cohort_is_found_by_a_part_of_its_name(learned: Learned) -> None:
    """A part that only one name has; for programs the figures are numbers."""
    found = msgspec.json.decode(learned.run("baseline", "1/outbound/US", "--format", "json")[0])
    assert found["cohort"] == COHORT
    assert found["measures"]["total"]["usual"] == pytest.approx(0.1725, rel=0.03)
    assert found["traits"]["model:small"] == 40
    assert sum(bar["calls"] for bar in found["histogram"]) == pytest.approx(40, rel=0.05)


def test_a_name_that_is_not_one_cohorts_is_refused(learned: Learned) -> None:
    """Nobody's, or that of several, which are named."""
    assert "nothing was learned of a cohort novel" in learned.run("baseline", "novel", code=1)[1]
    _, told = learned.run("baseline", "outbound", code=1)
    assert told.startswith("outbound is in the names of 5 cohorts: ")
    assert COHORT in told


def test_nothing_learned_is_said(learned: Learned) -> None:
    """An empty Redis is no error."""
    learned.do(lambda redis, _: redis.flushall())
    assert learned.run("baseline") == ("", "nothing has been learned yet\n")


# --- feedback -------------------------------------------------------------------------------------


def test_an_expected_session_widens_what_is_usual(learned: Learned) -> None:
    """It is counted, shown with who and why, and undone."""
    said, _ = learned.run("feedback", "dear", "expected", "--by", "ada", "--note", "a long demo")
    assert said == "expected: it counts 4 times among the usual calls, and less every day\n"
    assert learned.calls() == 44
    shown = words(learned.run("show", "dear")[0])
    assert "feedback expected, counted 4 times; by ada, " in shown
    assert "UTC: a long demo" in shown
    found = msgspec.json.decode(learned.run("show", "dear", "--format", "json")[0])
    assert found["feedback"]["by"] == "ada"
    assert learned.run("feedback", "dear", "undo")[0].startswith("undone")
    assert learned.calls() == 40
    assert learned.known().feedback is None
    assert "nothing was said" in learned.run("feedback", "dear", "undo", code=1)[1]


def test_an_anomaly_is_not_learned(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by whoever is logged in; a user without a name is a number."""
    assert learned.run("feedback", "dear", "anomaly")[0] == "anomaly: nothing is learned from it\n"
    said = learned.known().feedback
    assert said
    assert said.by == getpass.getuser()

    def nameless() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nameless)
    learned.run("feedback", "dear", "anomaly")
    again = learned.known().feedback
    assert again
    assert again.by == f"uid {os.getuid()}"


def test_a_session_of_a_backfill_is_one(learned: Learned) -> None:
    """What taught before the first webhook can be said to be an anomaly, too."""
    learned.run("feedback", "s7", "anomaly")
    assert learned.calls() == 39
    learned.run("feedback", "s7", "undo")
    assert learned.calls() == 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("unknown", "expected"), "no session unknown is known"),
        (("unknown", "planned", "--for", "2h"), "no session unknown is known"),
        (("open", "anomaly"), "session open has no verdict yet"),
        (("bare", "expected"), "session bare has taught nothing"),
        (("bare", "anomaly"), "session bare has taught nothing"),
    ],
)
def test_what_cannot_be_said_changes_nothing(
    learned: Learned, arguments: tuple[str, ...], words: str
) -> None:
    """One line says why, and nothing is kept."""
    assert words in learned.run("feedback", *arguments, code=1)[1]
    assert learned.run("feedback", "--list")[1] == "nothing has been said of any session\n"


def test_what_is_planned_mutes_the_sessions_assistant(learned: Learned) -> None:
    """From the call's end until so long from now; the records know whose it is."""
    before_ms = int(time.time() * 1000)
    said, _ = learned.run("feedback", "open", "planned", "--for", "2h", "--by", "ada")
    mute = (learned.known("open").feedback or Feedback("", "planned", "", 0)).mute
    assert mute
    assert (mute.cohort, mute.from_ms, mute.by) == ("7267", NOW_MS, "ada")
    assert before_ms <= mute.until_ms - 7_200_000 <= int(time.time() * 1000)
    assert said.startswith("planned: nobody is told of calls of 7267 that end from ")
    assert "feedback planned: 7267 is muted from " in words(learned.run("show", "open")[0])


@pytest.mark.parametrize(
    ("session", "options", "span"),
    [
        (
            "open",
            ("--from", "2026-03-17T10:00Z", "--until", "2026-03-17T18:00Z"),
            ("7267", 1_773_741_600_000, 1_773_770_400_000),
        ),
        (
            "open",
            ("--from", "2026-03-17T10:00Z", "--for", "90m"),
            ("7267", 1_773_741_600_000, 1_773_747_000_000),
        ),
        (
            "bare",
            ("--cohort", "account", "--from", "2026-03-17", "--for", "1d"),
            ("account", 1_773_705_600_000, 1_773_792_000_000),
        ),
    ],
)
def test_a_mute_has_the_span_that_was_asked_for(
    learned: Learned, session: str, options: tuple[str, ...], span: tuple[str, int, int]
) -> None:
    """Between two times, or so long from one."""
    learned.run("feedback", session, "planned", *options)
    mute = (learned.known(session).feedback or Feedback("", "planned", "", 0)).mute
    assert mute
    assert (mute.cohort, mute.from_ms, mute.until_ms) == span


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bare", "planned", "--for", "2h"), "neither assistant nor connection"),
        (("open", "planned"), "say how long"),
        (("open", "planned", "--for", "2h", "--until", "2026-03-17"), "say how long"),
        (("open", "planned", "--for", "long"), "--for: no duration"),
        (("open", "planned", "--until", "soon"), "--until: neither a duration"),
        (("open", "planned", "--until", "2026-03-17"), "end before it begins"),
        (("open", "expected", "--for", "2h"), "are for planned"),
        (("open",), "say which session, and what it is"),
        ((), "say which session, and what it is"),
        (("open", "--list"), "--list goes without SESSION"),
    ],
)
def test_bad_usage_is_told(learned: Learned, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2, and nothing is kept."""
    assert told in words(learned.run("feedback", *arguments, code=2)[1])
    assert learned.known("open").feedback is None


def test_an_analysis_that_cannot_be_read_is_told(learned: Learned) -> None:
    """Whose call it is stands in the records, so nothing is guessed without them."""
    learned.do(lambda redis, _: redis.set(keys.analysis_key("dear"), zlib.compress(b"junk")))
    _, told = learned.run("feedback", "dear", "planned", "--for", "2h", code=1)
    assert told.startswith("the stored analysis cannot be read: ")


def test_all_feedback_is_listed(learned: Learned) -> None:
    """The last said first, for people and for programs; what cannot be read is there, too."""
    learned.run("feedback", "dear", "expected", "--by", "ada")
    learned.run("feedback", "open", "planned", "--for", "2h", "--by", "bob", "--note", "fair")
    text = words(learned.run("feedback", "--list")[0])
    assert text.index("open planned") < text.index("dear expected")
    assert "bob 7267 is muted from" in text
    assert "ada counted 4 times" in text
    learned.run("feedback", "dear", "anomaly", "--by", "ada")
    learned.do(lambda redis, _: redis.hset(keys.FEEDBACK, "junk", "{"))  # type: ignore[arg-type, return-value]
    assert "junk cannot be read" in words(learned.run("feedback", "--list")[0])
    assert "ada teaches nothing" in words(learned.run("feedback", "--list")[0])
    lines = learned.run("feedback", "--list", "--format", "ndjson")[0].splitlines()
    rows = [msgspec.json.decode(line) for line in lines if line.startswith("{")]
    assert {row["session_id"]: row.get("kind") for row in rows} == {
        "dear": "anomaly",
        "open": "planned",
        "junk": None,
    }


def test_nothing_that_was_said_commands_the_terminal(learned: Learned) -> None:
    """Whatever stands in names and notes, and in cohorts' names, is shown as text."""
    nobody = f"{NASTY}/outbound/US/phone"

    async def spoil(redis: Redis, baselines: Baselines) -> None:
        book = FeedbackBook(redis, baselines, RETENTION_MS)
        await book.refuse(Feedback("dear", "anomaly", NASTY, NOW_MS, NASTY))
        nasty = lesson()
        await baselines.learn(
            "n",
            msgspec.structs.replace(
                nasty, ladder=(nobody, "account"), traits=frozenset({f"model:{NASTY}"})
            ),
            ended_ms=NOW_MS,
        )

    learned.do(spoil)
    for command in (["feedback", "--list"], ["baseline"], ["baseline", nobody], ["show", "dear"]):
        assert "x" in learned.run(*command)[0]


# --- backtest -------------------------------------------------------------------------------------


def test_a_warm_backtest_knows_what_the_workers_do(learned: Learned, tmp_path: Path) -> None:
    """What is dear by what is in Redis is told at once; a cold one knows nothing of it."""
    line: dict[str, Any] = {
        "started_at": "2026-03-17T10:00:00Z",
        "ended_at": "2026-03-17T10:57:00Z",
        "webhook": {
            "call_session_id": "s",
            "assistant_id": ASSISTANT,
            "direction": "outbound",
            "to_country": "US",
        },
        "analysis": call_of(57, 150),
    }
    file = tmp_path / "calls.ndjson"
    file.write_bytes(msgspec.json.encode(line))
    before = learned.do(lambda redis, _: redis.dbsize())

    def codes(*options: str) -> set[str]:
        text, _ = learned.run("backtest", str(file), "--format", "ndjson", *options)
        (judged,) = [msgspec.json.decode(each) for each in text.splitlines()]
        return {reason["code"] for reason in judged["reasons"]}

    assert "unusual_cost" in codes("--warm")
    assert "unusual_cost" not in codes()
    assert learned.do(lambda redis, _: redis.dbsize()) == before
