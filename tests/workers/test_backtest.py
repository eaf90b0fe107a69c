"""`tollwatch backtest`: a file of sessions judged in order of time, and what is said of it."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from service.records import Severity
from tests.samples import node
from tests.workers.detection.calls import (
    BEGIN_MS,
    HOUR_MS,
    MINUTE_MS,
    UNBOUND,
    line,
    recorded,
    steady,
    taught,
)
from workers.backtest import Backtest, OutOfOrder, passed
from workers.backtest_view import Tally
from workers.cli import app
from workers.policy import BUILT_IN, Budget

EVERY_MS = HOUR_MS // 4
POLICY = """
currency: USD
budgets:
  - per: day
    amount: 10
"""


def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """What it wrote to stdout and stderr, with no settings but these."""
    ours = ("REDIS_", "TELNYX_", "SLACK_", "TOLLWATCH_", "COLUMNS")
    unset = dict.fromkeys(name for name in os.environ if name.startswith(ours))
    result = CliRunner().invoke(
        app, ["backtest", *map(str, arguments)], env={**unset}, catch_exceptions=False
    )
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result.stdout, result.stderr


def file_of(directory: Path, *lines: dict[str, Any] | str) -> Path:
    path = directory / "calls.ndjson"
    text = (each if isinstance(each, str) else json.dumps(each) for each in lines)
    path.write_text("".join(f"{each}\n" for each in text))
    return path


def usual(calls: int) -> Iterable[dict[str, Any]]:
    return (line(number, BEGIN_MS + number * EVERY_MS) for number in range(calls))


def after(calls: int, **what: Any) -> dict[str, Any]:
    return line(calls, BEGIN_MS + calls * EVERY_MS, **what)


# --- the judge over a file ------------------------------------------------------------------------


def test_a_session_may_stand_some_minutes_late() -> None:
    """Within ten minutes the order may be another; a file out of order is refused in words."""
    test = Backtest(UNBOUND)
    test.session(recorded(1, BEGIN_MS))
    test.session(recorded(2, BEGIN_MS - 10 * MINUTE_MS))
    with pytest.raises(OutOfOrder, match="sort the file by ended_at"):
        test.session(recorded(3, BEGIN_MS - 10 * MINUTE_MS - 1))
    test.session(recorded(4, BEGIN_MS - 10 * MINUTE_MS))


@pytest.mark.parametrize(
    ("assistant", "connection", "counted"),
    [
        ("A", "C", ("A", "C")),
        ("A", None, ("A", "")),
        (None, "C", ("C", "C")),
        (None, None, ("", "")),
    ],
)
def test_a_call_counts_as_if_it_had_been_heard_of_when_it_began(
    assistant: str | None, connection: str | None, counted: tuple[str, str]
) -> None:
    """Over its connection, for its assistant where there is one."""
    session = recorded(0, BEGIN_MS)
    call = msgspec.structs.replace(
        session.call, assistant_id=assistant, connection_id=connection, start_ms=BEGIN_MS - 90_000
    )
    heard = passed(msgspec.structs.replace(session, call=call), "USD")
    assert (heard.entity, heard.connection) == counted


def test_facts_score_above_what_is_unlikely_by_a_little() -> None:
    """A crossed ceiling needs no history: 6 and more, the more the dearer."""
    policy = UNBOUND.model_copy(update={"max_session_cost": Decimal(1)})
    _, said = taught([recorded(0, minutes=20), recorded(1, minutes=80)], policy)
    assert 6 < said[0].score < said[1].score < 9
    _, quiet = taught([recorded(0)], policy)
    assert quiet[0].score == 0


def test_what_was_told_does_not_teach() -> None:
    """Nor does what somebody's ceiling told: the account's calls are those that were not."""
    policy = UNBOUND.model_copy(update={"max_session_cost": Decimal(1)})
    test, _ = taught([*steady(40), recorded(40, BEGIN_MS + 11 * HOUR_MS, minutes=30)], policy)
    assert test.memory.calls("account") == 40


def test_what_is_listed_does_not_teach_either() -> None:
    """Unlikely is unlikely, whether or not enough money is in it."""
    test, said = taught([*steady(200), recorded(200, BEGIN_MS + 60 * HOUR_MS, minutes=4)])
    assert said[-1].grounds.reasons
    assert said[-1].grounds.severity is None
    assert test.memory.calls("account") == 200


def test_what_only_crosses_a_ceiling_teaches() -> None:
    """Where every call crosses it, that is usual, and what departs from it is still found."""
    policy = UNBOUND.model_copy(update={"max_session_cost": Decimal("0.1")})
    test, _ = taught(steady(60), policy)
    assert test.memory.calls("account") == 60


def test_budgets_are_findings_in_order() -> None:
    """Each rung as it is crossed, by money that counts whatever is thought of the session."""
    policy = UNBOUND.model_copy(update={"budgets": (Budget(per="day", amount=Decimal(2)),)})
    test, _ = taught(steady(10), policy)
    assert [(f.kind, f.cohort, f.rung) for f in test.end()] == [
        ("budget", "account", rung) for rung in ("50", "80", "100")
    ]
    assert [f.at_ms for f in test.end()] == sorted(f.at_ms for f in test.end())


# --- ndjson ---------------------------------------------------------------------------------------


def test_ndjson_is_the_public_format(tmp_path: Path) -> None:
    """A line for each session, in the file's order, and after them one for each finding."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    late = line(40, BEGIN_MS + 38 * EVERY_MS + EVERY_MS // 2)
    file = file_of(tmp_path, *usual(40), late, "", after(41, minutes=30), after(42))
    stdout, _ = run(file, "--policy", policy, "--format", "ndjson")
    lines = [json.loads(each) for each in stdout.splitlines()]
    sessions, findings = lines[:43], lines[43:]
    assert [each["session_id"] for each in sessions] == [f"s{number}" for number in range(43)]
    for each in sessions:
        assert list(each) == [
            "session_id",
            "anomalous",
            "severity",
            "score",
            "excess",
            "reasons",
        ]
        assert each["anomalous"] == (each["severity"] is not None)
        assert isinstance(each["score"], int | float)
        assert Decimal(each["excess"]) >= 0
        assert each["score"] >= 0
        assert round(each["score"], 3) == each["score"]
    dear = sessions[41]
    assert (dear["anomalous"], dear["severity"]) == (True, "medium")
    assert Decimal(dear["excess"]) == pytest.approx(Decimal("2.80"), abs=Decimal("0.01"))
    for reason in dear["reasons"]:
        assert list(reason) == ["code", "text", "observed", "expected"]
        assert Decimal(reason["observed"]) > Decimal(reason["expected"])
    assert "3.00 USD, 15 times the usual" in dear["reasons"][0]["text"]
    assert [each["rung"] for each in findings] == ["50", "80", "100"]
    for each in findings:
        assert list(each) == [
            "kind",
            "cohort",
            "from",
            "to",
            "at",
            "score",
            "excess",
            "text",
            "rung",
        ]
        assert (each["kind"], each["cohort"]) == ("budget", "account")
        times = [datetime.fromisoformat(each[name]) for name in ("from", "at", "to")]
        assert times == sorted(times)
        assert all(time.tzinfo == UTC for time in times)
        assert Decimal(each["excess"]) >= 0


def test_a_line_stays_a_line(tmp_path: Path) -> None:
    """What strangers put into names breaks neither the lines nor a terminal."""
    name = "a\u2028b\x1b[31m\u202e"
    odd = after(40, extra=[node(name, "9", id="x")])
    stdout, _ = run(file_of(tmp_path, *usual(40), odd), "--format", "ndjson")
    assert len(stdout.splitlines()) == 41
    assert stdout.replace("\n", "").isprintable()
    table, _ = run(file_of(tmp_path, *usual(40), odd))
    assert "\x1b" not in table
    assert "\u202e" not in table


# --- the table ------------------------------------------------------------------------------------


def test_the_table_shows_the_worst_and_the_sums(tmp_path: Path) -> None:
    """What would have been alerted, how often, and the money in it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    file = file_of(tmp_path, *usual(60), after(60, minutes=30), after(61, minutes=60))
    stdout, _ = run(file, "--policy", policy)
    shown = " ".join(stdout.split())
    assert shown.index("s61") < shown.index("s60")
    assert "6.00 USD, 30 times the usual" in shown
    assert "high" in shown
    assert "What no single session shows" in shown
    assert "unusual_cost" in shown
    assert "62 sessions of 1 day for 21.00 USD: 2 alerts (32.26 per 1,000)" in shown
    assert "8.61 USD in excess" in shown


def test_a_quiet_file_is_one_sentence(tmp_path: Path) -> None:
    """No tables of nothing; of an empty file, that it is empty."""
    stdout, _ = run(file_of(tmp_path, *usual(1)))
    assert stdout == (
        "1 session of 1 day for 0.20 USD: 0 alerts (0.00 per 1,000) with 0.00 USD in excess, "
        "0 more listed, 0 findings\n"
    )
    assert run(file_of(tmp_path))[0] == "The file holds no sessions.\n"
    assert run(file_of(tmp_path), "--format", "ndjson")[0] == ""


def test_of_many_alerts_the_worst_are_kept() -> None:
    """Thirty, whatever their order, and the sums are of all."""
    policy = UNBOUND.model_copy(update={"max_session_cost": Decimal(1)})
    minutes = [20 + (37 * number) % 100 for number in range(100)]
    _, said = taught(
        (recorded(n, BEGIN_MS + n, minutes=each) for n, each in enumerate(minutes)), policy
    )
    tally = Tally("USD")
    for judged in said:
        tally.add(judged)
    assert [judged.total for judged in tally.largest] == [
        Decimal(each) / 10 for each in range(119, 89, -1)
    ]
    assert tally.alerts == 100
    assert sum(len(each) for each in tally.by_code.values()) == 100


def test_what_is_listed_is_counted_apart() -> None:
    """A reason without a severity is no alert."""
    _, said = taught([*steady(200), recorded(200, BEGIN_MS + 60 * HOUR_MS, minutes=4)])
    tally = Tally("USD")
    for judged in said:
        tally.add(judged)
    assert (tally.alerts, tally.listed) == (0, 1)
    assert said[-1].grounds.severity is None


# --- what is wrong with a file --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("{", "not a readable JSON document"),
        ('{"started_at": 1}', "not a session"),
        (line(2, BEGIN_MS) | {"ended_at": "soon"}, "2026-03-14T15:09:26Z"),
        (line(2, BEGIN_MS - HOUR_MS), "sort the file by ended_at"),
    ],
)
def test_a_fault_names_its_line(tmp_path: Path, second: dict[str, Any] | str, words: str) -> None:
    """File, line, what is wrong and what to do; what was judged before it has been told."""
    file = file_of(tmp_path, line(1, BEGIN_MS), second, line(3, BEGIN_MS))
    stdout, stderr = run(file, "--format", "ndjson", code=1)
    assert len(stdout.splitlines()) == 1
    assert f"{file}:2: " in stderr.replace("\n", "")
    told = " ".join(stderr.split())
    assert words in told
    assert "mend or remove the line" in told or "sort the file" in told


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, a name of nothing, a policy that is none, a format that is none."""
    file = file_of(tmp_path, *usual(1))
    assert "directory" in run(tmp_path, code=2)[1]
    assert "does not exist" in run(tmp_path / "nothing", code=2)[1]
    assert "xml" in run(file, "--format", "xml", code=2)[1]
    policy = tmp_path / "policy.yaml"
    policy.write_text("least_factor: 0.5")
    assert "must be at least 1" in " ".join(run(file, "--policy", policy, code=2)[1].split())


def test_the_help_says_what_it_does() -> None:
    """The file, the policy, the format."""
    text, _ = run("--help")
    assert all(word in text for word in ("FILE", "--policy", "--format", "tollwatch export"))


def test_the_built_in_policy_judges_what_no_policy_is_given_for(tmp_path: Path) -> None:
    """Its ceilings hold from the first line on."""
    stdout, _ = run(file_of(tmp_path, line(0, minutes=60)), "--format", "ndjson")
    (found,) = map(json.loads, stdout.splitlines())
    assert found["severity"] == Severity.MEDIUM
    assert Decimal(found["excess"]) == 6 - BUILT_IN.max_session_cost
