"""The demonstration's own rules: what it plays, when it is content, and how it shows that."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any

import pytest
from rich.console import Console, RenderableType

from tests.world import demo, display
from tests.world.board import Board, Row, Stage
from tests.world.calls import ANOMALIES, KINDS, Call, CallGenerator

_END = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)


def _call(kind: str) -> Call:
    return CallGenerator(1).make(kind, end=_END)


def _row(kind: str, **changes: Any) -> Row:
    row = Board().add(_call(kind))
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def _judged(kind: str, **changes: Any) -> Row:
    row = _row(kind, stage=Stage.JUDGED)
    row.total = row.call.total
    if row.call.expects:
        row.severity = max(row.call.expects.severities)
        row.reasons = row.call.expects.reasons
        row.alerts = [row.severity]
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def _stage(row: Row) -> Stage:
    """Asked anew each time: a type checker does not know that log lines change it."""
    return row.stage


def _shown(drawn: RenderableType, width: int = 110) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


class TestScenario:
    """What is played."""

    def test_plays_every_kind_and_every_anomaly_once(self) -> None:
        """Nothing is left out; the guide's call comes first."""
        assert sorted(demo.scenario()) == sorted([*KINDS, *ANOMALIES])
        assert demo.scenario()[0] == "guide"

    def test_goes_on_after_the_scenario(self) -> None:
        """The endless show begins with one of each."""
        kinds: Iterator[str] = demo.endless(Random(0))
        count = len(demo.scenario())
        assert list(islice(kinds, count)) == demo.scenario()
        assert set(islice(kinds, 200)) & set(ANOMALIES)

    @pytest.mark.parametrize("kind", [*KINDS, *ANOMALIES])
    def test_costs_post_between_the_looks(self, kind: str) -> None:
        """All is there at the second look, but for the late charge, which the last one finds."""
        _, second, last = map(int, demo._AGES.split(","))
        root = demo.hurried(_call(kind).root)
        latest = max(node.posted_after_seconds for node in root.walk()) / demo._TIME_SCALE
        assert (second < latest < last) if kind == "late_charge" else (latest < second)

    def test_the_late_charge_is_no_surprise_to_two_looks_that_agree(self) -> None:
        """Something posts between the first two looks, so that the third is needed."""
        first, second, _ = map(int, demo._AGES.split(","))
        root = demo.hurried(_call("late_charge").root)
        posted = [node.posted_after_seconds / demo._TIME_SCALE for node in root.walk()]
        assert any(first + 1 < seconds < second for seconds in posted)


class TestBoard:
    """What is learnt from log lines and from Slack."""

    def test_follows_a_call_to_its_verdict(self) -> None:
        """Ended, waiting, judged, told: each step comes from a line of its own."""
        board = Board()
        row = board.add(_call("dear_destination"))
        about = {"session_id": row.call.session_id}
        assert board.read_web({"event": "webhook", "outcome": "scheduled", **about}) is row
        assert _stage(row) is Stage.ENDED
        waiting = {"event": "waiting", "reason": "no cost yet", "next_due_ms": 5000, **about}
        assert board.read_worker(waiting) is row
        assert (row.stage, row.reason, row.next_ask) == (Stage.WAITING, "no cost yet", 5.0)
        verdict = {
            "event": "verdict",
            "total": str(row.call.total),
            "severity": "high",
            "reasons": ["session_cost"],
            **about,
        }
        assert board.read_worker(verdict) is row
        assert len(board.faults()) == 1
        text = f"HIGH: a call cost too much (session {row.call.session_id})"
        assert board.read_alert({"text": text}) is row
        assert board.is_done
        assert board.faults() == []

    def test_a_late_leg_opens_a_call_again(self) -> None:
        """A session that is scheduled once more is not done any more; a merged event is no news."""
        board = Board()
        row = board.add(_call("failed"))
        row.stage = Stage.UNAVAILABLE
        about = {"event": "webhook", "session_id": row.call.session_id}
        assert board.read_web({"outcome": "merged", **about}) is None
        assert _stage(row) is Stage.UNAVAILABLE
        assert board.read_web({"outcome": "scheduled", **about}) is row
        assert _stage(row) is Stage.ENDED
        assert board.webhooks == {"merged": 1, "scheduled": 1}

    @pytest.mark.parametrize(
        "fields",
        [
            {"event": "verdict", "session_id": "of another"},
            {"event": "started"},
            {"event": "attempt failed", "dead": False},
            {},
        ],
    )
    def test_takes_no_notice_of_other_lines(self, fields: dict[str, Any]) -> None:
        """What is not about one of its calls changes nothing."""
        board = Board()
        board.add(_call("guide"))
        assert board.read_worker(fields) is None
        assert board.read_web(fields) is None

    def test_forgets_only_what_is_done(self) -> None:
        """An endless show keeps the latest calls, and those that are under way."""
        board = Board()
        generator = CallGenerator(2)
        rows = [board.add(generator.make("failed", end=_END)) for _ in range(5)]
        for row in rows[1:]:
            row.stage = Stage.JUDGED
        board.forget(keep=2)
        assert list(board.rows.values()) == [rows[0], *rows[3:]]


class TestFaults:
    """What the scenario does not let pass."""

    @pytest.mark.parametrize("kind", ["guide", "dear_destination", "failed"])
    def test_are_none_where_all_is_as_injected(self, kind: str) -> None:
        """Silence where nothing is wrong, the right alert where something is."""
        assert list(_judged(kind).faults()) == []

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (_row("guide", stage=Stage.WAITING, reason="no cost yet"), "only as far as"),
            (_judged("guide", total=None), "its cost is 0.2128"),
            (_judged("guide", alerts=["low"]), "must stay silent"),
            (_judged("runaway_assistant", alerts=[]), "must alert"),
            (_judged("runaway_assistant", alerts=["of no severity"]), "not as"),
            (_judged("runaway_assistant", alerts=["low", "low"]), "more than once"),
            (_judged("runaway_assistant", reasons=frozenset({"other"})), "anomalous for other"),
        ],
    )
    def test_are_named(self, row: Row, said: str) -> None:
        """Each way of being wrong has its sentence."""
        assert any(said in fault for fault in row.faults())

    def test_hold_alerts_of_nobodys_call(self) -> None:
        """An alert that belongs to no call is one too many."""
        board = Board()
        assert board.read_alert({"text": "HIGH: something"}) is None
        assert board.faults() == ["an alert of no known call: HIGH: something"]

    def test_decide_the_exit_code(self) -> None:
        """0 only where nothing differs."""
        console = Console(file=io.StringIO())
        assert demo._conclude([], console, once=True) == 0
        assert demo._conclude(["something differs"], console, once=True) == 1


class TestDisplay:
    """What the spectator sees."""

    def test_shows_a_row_for_each_call(self) -> None:
        """State, cost and outcome of each; a narrow terminal does without the parties."""
        rows = [
            _judged("guide"),
            _judged("dear_destination"),
            _row("failed", stage=Stage.WAITING, reason="no cost yet", next_ask=12.0),
        ]
        shown = _shown(display.table(rows, now=10.0))
        for text in ("guide", "0.2128", "✓ quiet", "2:32", "2 s · no cost yet", "→"):
            assert text in shown
        assert "→" not in _shown(display.table(rows, now=10.0, narrow=True), width=79)

    def test_numbers_are_masked(self) -> None:
        """As everywhere in tollwatch, two digits are shown."""
        call = _call("ai_inbound")
        from_, to = call.legs[0].from_, call.legs[0].to
        assert display.parties(call) == f"••{from_[-2:]} → ••{to[-2:]}"
        assert display.parties(replace(call, legs=())) == ""

    def test_tells_of_each_step_in_a_line(self) -> None:
        """Without a terminal every step is a line of its own."""
        assert "call ended" in display.news(_row("guide", stage=Stage.ENDED)).plain
        assert "judged: 0.2128 USD, ✓ quiet" in display.news(_judged("guide")).plain
        unavailable = _row("guide", stage=Stage.UNAVAILABLE, reason="no cost came")
        assert "no cost came" in display.news(unavailable).plain

    def test_reports_what_became_of_each_anomaly(self) -> None:
        """Told, forgotten, or not there yet."""
        board = Board()
        rows = [_judged("wrong_rate"), _judged("inference_loop"), _row("late_charge")]
        rows[1].alerts, rows[1].severity = [], None
        board.rows = {str(number): row for number, row in enumerate(rows)}
        lines = _shown(display.report(board)).splitlines()
        assert [line.strip()[0] for line in lines[-3:]] == ["✓", "✗", "…"]

    def test_the_live_view_keeps_to_the_terminal(self) -> None:
        """However many calls there are, the live part is not higher than the terminal."""
        board = Board()
        generator = CallGenerator(3)
        for _ in range(60):
            board.add(generator.make("failed", end=_END)).stage = Stage.JUDGED
        console = Console(width=120, height=24, file=io.StringIO())
        with console.capture() as captured:
            console.print(display.LiveView(board, "headline"))
        shown = captured.get()
        assert len(shown.splitlines()) <= 24
        assert "60 calls" in shown
        assert "headline" in shown
