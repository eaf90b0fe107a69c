"""The detection benchmark's own arithmetic: a wrong figure would flatter a detector."""

import json
import math
import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench.detection import counts, data, evaluate, features, report, rules, tollwatch
from tests.bench.detection.counts import Step
from tests.bench.detection.data import Recording
from tests.bench.detection.evaluate import CountSteps, Sessions, Spans
from tests.bench.detection.features import FEATURES, Session
from tests.bench.detection.intervals import Comparison, compare, wilson
from tests.bench.detection.scoring import (
    Count,
    Quality,
    Truth,
    alerts,
    allowed_false,
    curve,
    found,
    normal_scores,
    quality,
    recall_at,
    threshold_for,
)
from tests.bench.detection.timeline import (
    GRACE_SECONDS,
    SETTLING_SECONDS,
    Alert,
    Match,
    Stretch,
    match,
)
from tests.world.calls import CallGenerator
from tests.world.month import files
from tests.world.month.files import Written

NORMAL = Truth()
EASY = Truth("loop", "easy")
BARELY = Truth("loop", "barely")
NEUTRAL = Truth(neutral=True)

_SCORES = st.lists(st.integers(min_value=0, max_value=20).map(float), min_size=1, max_size=60)
_TRUTHS = st.sampled_from([NORMAL, EASY, BARELY, NEUTRAL, Truth("other", "hard")])


class TestScoring:
    """Sessions."""

    @given(_SCORES, st.integers(min_value=0, max_value=70))
    def test_a_threshold_is_the_lowest_that_keeps_to_the_limit(
        self, scores: list[float], allowed: int
    ) -> None:
        """No more false alerts than allowed, and any lower threshold would have more."""
        threshold = threshold_for(scores, allowed)
        assert sum(alerts(scores, threshold)) <= allowed
        if threshold > -math.inf:
            assert sum(score >= threshold for score in scores) > allowed

    def test_one_in_a_thousand(self) -> None:
        """Fractions of an alert are not allowed."""
        assert [allowed_false(normal, 1.0) for normal in (999, 1000, 2999)] == [0, 1, 2]

    def test_neutral_sessions_count_for_nothing(self) -> None:
        """An alert about a call of a surge is neither right nor false."""
        truths = [NORMAL, EASY, NEUTRAL, NORMAL]
        alerted = [False, True, True, True]
        assert quality(truths, alerted) == Quality(Count(1, 1), Count(1, 2))
        assert normal_scores(truths, [1, 2, 3, 4]) == [1, 4]

    def test_barely_visible_anomalies_are_asked_for_apart(self) -> None:
        """They are in no figure that does not name their size."""
        truths = [EASY, BARELY]
        assert quality(truths, [True, False]).recall == Count(1, 1)
        assert quality(truths, [True, False], sizes=("barely",)).recall == Count(0, 1)
        assert found(truths, [True, False], kind="loop") == [True]

    def test_figures_of_one_kind(self) -> None:
        """Two of four found with one false alert: precision 2/3, recall 1/2, F1 4/7."""
        truths = [EASY] * 4 + [NORMAL] * 500
        got = quality(truths, [True] * 2 + [False] * 2 + [True] + [False] * 499, kind="loop")
        assert got.recall.share == 0.5
        assert got.precision == pytest.approx(2 / 3)
        assert got.f1 == pytest.approx(4 / 7)
        assert got.false_per_1000 == 2.0

    def test_nothing_to_find_and_nothing_alerted(self) -> None:
        """No division by zero; who says nothing says nothing wrong."""
        got = quality([NORMAL], [False])
        assert (got.recall.share, got.precision, got.f1) == (0.0, 1.0, 0.0)

    @given(st.lists(st.tuples(_TRUTHS, st.integers(0, 9).map(float)), min_size=1, max_size=60))
    def test_a_curve_is_what_its_thresholds_give(self, pairs: list[tuple[Truth, float]]) -> None:
        """Each point is the recall and precision of alerting at the score of an anomaly."""
        truths, scores = [t for t, _ in pairs], [s for _, s in pairs]
        wanted = {s for t, s in pairs if t.kind == "loop" and t.size == "easy"}
        by_hand = []
        for score in sorted(wanted, reverse=True):
            got = quality(truths, [s >= score for s in scores], kind="loop")
            by_hand.append((got.recall.share, got.precision))
        assert curve(truths, scores, kind="loop") == by_hand

    def test_recall_at_a_rate_of_false_alerts(self) -> None:
        """At one in a thousand the highest normal score may alert, no second one."""
        truths = [NORMAL] * 1000 + [EASY] * 3
        scores = [9.0, 5.0, *[0.0] * 998, 10.0, 6.0, 4.0]
        assert recall_at(truths, scores, 0.5) == Count(1, 3)
        assert recall_at(truths, scores, 1.0) == Count(2, 3)


class TestIntervals:
    """Sampling error."""

    def test_wilson_as_published(self) -> None:
        """The interval of 81 in 263, from Newcombe's comparison of methods (1998)."""
        low, high = wilson(81, 263)
        assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
        low, high = wilson(0, 20)
        assert (low, round(high, 4)) == (0.0, 0.1611)

    @given(st.integers(0, 500), st.integers(0, 500))
    def test_the_share_lies_inside(self, some: int, more: int) -> None:
        """Also where all or none were found."""
        low, high = wilson(some, some + more)
        share = some / (some + more) if some + more else 0.5
        assert 0 <= low <= share + 1e-12
        assert share - 1e-12 <= high <= 1

    def test_only_what_one_alone_found_decides(self) -> None:
        """Six against none is beyond chance, five against none is not."""
        assert compare([True] * 50 + [False] * 6, [True] * 50 + [True] * 6).is_behind
        assert not compare([True] * 50 + [False] * 5, [True] * 50 + [True] * 5).is_behind
        assert Comparison(0, 5).chance == pytest.approx(1 / 32)
        assert not Comparison(6, 0).is_behind
        assert Comparison(0, 0).chance == 1.0


HOUR = 3600.0
SURGE = Stretch("surge", "easy", 10 * HOUR, 10.5 * HOUR)


def _velocity(at: float, kind: str = "velocity") -> Alert:
    return Alert(kind, at, at - 300, at)


class TestTimeline:
    """Spans."""

    def test_the_first_alert_counts(self) -> None:
        """The delay is from the span's start."""
        told = [_velocity(SURGE.start + 900), _velocity(SURGE.start + 240)]
        got = match([SURGE], told)
        assert got.recall("surge") == Count(1, 1)
        assert got.delay_seconds("surge") == 240
        assert got.false == ()

    @pytest.mark.parametrize(
        "alert",
        [
            _velocity(SURGE.start - 1),
            Alert("velocity", SURGE.start - 60, SURGE.start - 300, SURGE.end),
            _velocity(SURGE.end + GRACE_SECONDS + 1),
            _velocity(SURGE.start + 300, "drop"),
        ],
    )
    def test_too_early_too_late_and_something_else_are_false(self, alert: Alert) -> None:
        """They find nothing."""
        got = match([SURGE], [alert])
        assert got.recall("surge") == Count(0, 1)
        assert got.false == (alert,)
        assert got.delay_seconds("surge") is None

    def test_a_session_of_the_span_finds_it(self) -> None:
        """An alert of any other session does not, and is no finding."""
        end = SURGE.start + 60
        told = Alert("session", end + SETTLING_SECONDS, end, end, within="surge")
        assert match([SURGE], [told]).delay_seconds("surge") == 360
        other = replace(told, within=None)
        assert match([SURGE], [other]) == Match(((SURGE, None),), (), ())

    def test_what_a_campaign_causes_is_false_and_counted_apart(self) -> None:
        """It is planned: nobody should have been told."""
        campaign = replace(SURGE, kind="campaign", fine=True)
        told = _velocity(SURGE.start + 300)
        got = match([campaign], [told])
        assert got.found_at == ()
        assert got.false == got.false_in_fine == (told,)

    def test_money_that_ran_for_a_dear_session_is_not_false(self) -> None:
        """A velocity alert that covers its end is about something true; a drop is not."""
        told = _velocity(HOUR)
        assert match([], [told], [HOUR - 10]).false == ()
        assert match([], [told], [HOUR - 400]).false == (told,)
        drop = _velocity(HOUR, "drop")
        assert match([], [drop], [HOUR - 10]).false == (drop,)

    def test_each_rung_of_a_budget_once(self) -> None:
        """A second alert of the same rung is false, and so is one that comes too early."""
        rungs = [
            Stretch("budget", "easy", at * HOUR, 24 * HOUR, shape=shape)
            for at, shape in ((8, "50"), (12, "80"))
        ]
        told = [
            Alert("budget", at * HOUR, 0, 24 * HOUR, shape=shape)
            for at, shape in ((8, "50"), (9, "50"), (11, "80"), (12.1, "80"))
        ]
        got = match(rungs, told)
        assert got.recall("budget") == Count(2, 2)
        assert got.false == (told[1], told[2])
        assert [at for _, at in got.found_at] == [8 * HOUR, 12.1 * HOUR]

    def test_a_change_of_price_may_be_told(self) -> None:
        """More money at once is what a new price looks like."""
        change = replace(SURGE, kind="price_change", fine=True)
        assert match([change], [_velocity(SURGE.start + 300)]).false == ()


def _session(at: float, total: float = 0.1, cohort: str = "a", *, answered: bool = True) -> Session:
    values = (total, total / 2, 5.0, 2.5, 0.002, 0.005, 0.05, 0.001, 1.0)
    return Session(f"s{at}", cohort, at - 60, at, answered, values)


def _noisy(count: int) -> list[Session]:
    """Costs vary by a factor of three, in a fixed pattern."""
    return [_session(60.0 * n, 0.1 * (1 + (n * 7 % 11) / 5)) for n in range(1, count + 1)]


class TestAlternatives:
    """The ways to do without tollwatch get a fair chance, and no look into the future."""

    @pytest.mark.parametrize("place", range(5))
    def test_a_dear_call_scores_highest(self, place: int) -> None:
        """Whatever the alternative, forty times the usual cost stands out; learning comes after."""
        sessions = [*_noisy(200), _session(60_000.0, 6.0), *_noisy(5)]
        scores = rules.simple()[place].scores(sessions)
        assert scores.index(max(scores)) == 200
        assert len(scores) == len(sessions)

    @pytest.mark.parametrize("place", range(5))
    def test_the_future_changes_nothing(self, place: int) -> None:
        """Scores of a beginning are those that it has in the whole."""
        sessions = _noisy(150)
        whole = rules.simple()[place].scores(sessions)
        beginning = rules.simple()[place].scores(sessions[:90])
        assert whole[:90] == beginning

    @pytest.mark.parametrize("place", range(1, 5))
    def test_unanswered_calls_are_left_out(self, place: int) -> None:
        """They score nothing and teach nothing."""
        sessions = _noisy(100)
        silent = [_session(s.ended, 0.0, answered=False) for s in sessions]
        mixed = [each for pair in zip(sessions, silent, strict=True) for each in pair]
        scores = rules.simple()[place].scores(mixed)
        assert scores[::2] == rules.simple()[place].scores(sessions)
        assert set(scores[1::2]) == {0.0}

    def test_a_cohort_without_a_past_is_judged_by_the_account(self) -> None:
        """Unless it is told to stay alone."""
        sessions = [*_noisy(100), _session(60_000.0, 6.0, cohort="new")]
        for detector in rules.simple():
            last = detector.scores(sessions)[-1]
            assert (last == 0.0) == (detector.name == "median/MAD")

    def test_telnyx_example_alerts_as_theirs_does(self) -> None:
        """Twice the first day's mean, or a dollar: at its own threshold of one."""
        detector = rules.TelnyxExample()
        first_day = [_session(60.0 * n, 0.1) for n in range(1, 10)]
        later = [_session(200_000.0, cost) for cost in (0.15, 0.21, 1.01)]
        scores = detector.scores([*first_day, *later])[-3:]
        assert alerts(scores, detector.own_threshold) == [False, True, True]

    def test_a_window_forgets(self) -> None:
        """Only the last values count for its quantiles."""
        window = rules.Window(3)
        for value in (9.0, 1.0, 2.0, 3.0):
            window.add([value] * len(FEATURES))
        assert window.quantiles(1.0) == [3.0] * len(FEATURES)
        assert window.deviations([2.0] * len(FEATURES)) == [1.0] * len(FEATURES)


class TestFeatures:
    """What the alternatives see."""

    def test_the_guides_example(self) -> None:
        """Telnyx's example of 152 seconds: total, turns, and rates per billed minute."""
        call = CallGenerator().make("guide")
        analysis: Any = {
            "session_id": call.session_id,
            "cost": {"total": str(call.total)},
            "root": _as_answered(call.root),
        }
        webhook = {"assistant_id": "assistant-1", "connection_id": "7"}
        times = {"started_at": call.start.isoformat(), "ended_at": call.end.isoformat()}
        session = features.read({**times, "webhook": webhook, "analysis": analysis})
        values = dict(zip(FEATURES, session.values, strict=True))
        assert session.cohort == "assistant-1"
        assert session.answered
        assert session.total == 0.2128
        assert values["inference_count"] == 5
        assert values["inference_each"] == pytest.approx(0.0121 / 5)
        assert values["assistant_rate"] == pytest.approx(0.06)
        assert values["per_minute"] == pytest.approx(0.2128 / (152 / 60))
        assert values["billed_ratio"] == 1.0


def _as_answered(node: Any) -> dict[str, Any]:
    return {
        "cost": {"event_cost": str(node.cost)},
        "record": dict(node.record),
        "children": [_as_answered(child) for child in node.children],
    }


class TestCounts:
    """The alternatives for surges and drops."""

    @pytest.mark.parametrize("name", list(counts.COUNTERS))
    def test_a_surge_stands_out_at_once(self, name: str) -> None:
        """Thirty calls where two are usual score highest, in their very step."""
        series = [2, 1, 3, 2] * 72 * 8
        series[2000] = 30
        many = [many for many, _ in counts.COUNTERS[name]().scores(series)]
        assert many.index(max(many)) in {2000, 2001}
        assert many[2000] > 3 * max(many[300:2000])

    @pytest.mark.parametrize("name", list(counts.COUNTERS))
    def test_a_drop_stands_out(self, name: str) -> None:
        """An hour without any call where forty are usual scores higher than any before."""
        series = [4, 3, 4, 3] * 72 * 8
        series[2000:2012] = [0] * 12
        few = [few for _, few in counts.COUNTERS[name]().scores(series)]
        assert max(few[2000:2012]) > max(3.0, *few[300:2000])

    @pytest.mark.parametrize("name", list(counts.COUNTERS))
    def test_the_future_changes_no_count(self, name: str) -> None:
        """Scores of a beginning are those that it has in the whole."""
        series = [n % 5 for n in range(900)]
        whole = list(counts.COUNTERS[name]().scores(series))
        assert list(counts.COUNTERS[name]().scores(series[:600])) == whole[:600]

    def test_steps_near_each_other_are_one_finding(self) -> None:
        """It is told at the end of its first step; after a quiet hour a new one begins."""
        ends = (300.0, 600.0, 4000.0, 4000.0 + 3601)
        scored = zip(ends, (9, 5, 9, 9), strict=True)
        steps = [Step("velocity", "account", end, score) for end, score in scored]
        low, high = {"velocity": 4.0, "drop": 4.0}, {"velocity": 6.0, "drop": 6.0}
        assert [(a.at, a.start, a.end) for a in counts.findings(steps, low)] == [
            (300, 0, 4000),
            (7601, 7301, 7601),
        ]
        assert len(counts.findings(steps, high)) == 3
        assert counts.findings(steps, {"velocity": 9.0, "drop": 0.0}) == []

    def test_a_weekend_is_not_a_workday(self) -> None:
        """In the first week a quiet Saturday is no drop, since no weekend is known yet."""
        series = [5] * (5 * 288) + [0] * 288 + [5] * 20
        few = [few for _, few in counts.HourOfWeek().scores(series)]
        assert max(few[5 * 288 : 6 * 288]) == 0.0

    def test_series_of_the_account_and_of_large_cohorts(self) -> None:
        """Rare cohorts have none of their own."""
        day = [_session(float(at), cohort="a") for at in range(300, 86_400, 900)]
        burst = [_session(90_000.0 + n, cohort="a") for n in range(40)]
        few = [_session(95_000.0 + n, cohort="b") for n in range(5)]
        found_in = {
            step.cohort
            for step in counts.steps([*day, *burst, *few], counts.HourOfWeek, 0.0, above=5.0)
        }
        assert found_in == {"account", "a"}


def _fake(tmp_path: Path, output: str, code: int = 0) -> list[str]:
    """A command that keeps its arguments and says the output."""
    (tmp_path / "output").write_text(output)
    script = tmp_path / "fake.py"
    script.write_text(
        "import pathlib, sys\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "here.joinpath('arguments').write_text('\\n'.join(sys.argv[1:]))\n"
        "if '--policy' in sys.argv:\n"
        "    policy = pathlib.Path(sys.argv[sys.argv.index('--policy') + 1])\n"
        "    here.joinpath('policy').write_text(policy.read_text())\n"
        "sys.stdout.write(here.joinpath('output').read_text())\n"
        "sys.stderr.write('what is wrong')\n"
        f"sys.exit({code})\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return [sys.executable, str(script)]


def _said(session_id: str, score: float, *, anomalous: bool) -> str:
    reasons = [{"code": "dear", "text": "t", "observed": "1", "expected": "0.2"}]
    return json.dumps(
        {
            "session_id": session_id,
            "anomalous": anomalous,
            "severity": "low" if anomalous else None,
            "score": score,
            "excess": "0.80",
            "reasons": reasons if anomalous else [],
        }
    )


def _finding(kind: str, **more: str) -> str:
    times = {"from": "2026-02-03T10:00:00Z", "to": "2026-02-03T10:30:00Z"}
    finding = {"kind": kind, "cohort": "account", **times, "score": 7, "excess": "1", "text": "t"}
    return json.dumps({**finding, **more})


class TestAdapter:
    """How `tollwatch backtest` is run and read, with made-up output."""

    def test_runs_and_reads(self, tmp_path: Path) -> None:
        """The file, a policy with the budget, and NDJSON; sessions first, then findings."""
        output = "\n".join(
            [
                _said("s1", 0.5, anomalous=False),
                _said("s2", 8, anomalous=True),
                _finding("call_velocity", at="2026-02-03T10:04:00Z"),
                _finding("drop"),
                _finding("budget", rung="80"),
            ]
        )
        command = _fake(tmp_path, output)
        got = tollwatch.backtest(tmp_path / "month.ndjson", ["s1", "s2"], "30", command)
        assert [(s.session_id, s.anomalous, s.score) for s in got.sessions] == [
            ("s1", False, 0.5),
            ("s2", True, 8.0),
        ]
        assert got.sessions[1].reasons == ("dear",)
        velocity, drop, budget = got.findings
        assert (velocity.kind, velocity.at - velocity.start) == ("velocity", 240)
        assert (drop.kind, drop.at) == ("drop", drop.end)
        assert (budget.kind, budget.shape) == ("budget", "80")
        file, *options = (tmp_path / "arguments").read_text().splitlines()
        assert file == str(tmp_path / "month.ndjson")
        assert options[0::2][0] == "--policy"
        assert options[2:] == ["--format", "ndjson"]
        assert "30" in (tmp_path / "policy").read_text()

    @pytest.mark.parametrize(
        "output",
        [
            "not json",
            '{"session_id": "s1"}',
            '{"kind": "drop"}',
            "[]",
            f"{_finding('drop')}\n{_said('s1', 1, anomalous=False)}",
        ],
    )
    def test_wrong_output_is_an_error(self, output: str) -> None:
        """A figure must not come from half an output."""
        with pytest.raises(tollwatch.WrongOutput, match="line"):
            tollwatch.read(output.splitlines())

    def test_a_failure_says_what_the_command_said(self, tmp_path: Path) -> None:
        """Its code and its standard error."""
        with pytest.raises(tollwatch.WrongOutput, match="3: what is wrong"):
            tollwatch.backtest(tmp_path, [], None, _fake(tmp_path, "", code=3))

    def test_other_sessions_than_asked_for_are_an_error(self, tmp_path: Path) -> None:
        """Or in another order: what is said would be of other calls."""
        output = f"{_said('s1', 1, anomalous=False)}\n{_said('s2', 1, anomalous=False)}"
        with pytest.raises(tollwatch.WrongOutput, match="order"):
            tollwatch.backtest(tmp_path, ["s2", "s1"], None, _fake(tmp_path, output))

    def test_a_tollwatch_without_backtest_is_noticed(self, tmp_path: Path) -> None:
        """So that the alternatives can be shown without it."""
        assert tollwatch.is_there(_fake(tmp_path, ""))
        assert not tollwatch.is_there(_fake(tmp_path, "", code=2))
        assert not tollwatch.is_there([str(tmp_path / "nothing")])


def _recording(name: str, truths: Sequence[Truth], spans: Sequence[Stretch] = ()) -> Recording:
    """A session an hour; the first is before the second day."""
    sessions = [_session(HOUR * (23.5 + number)) for number in range(len(truths))]
    return Recording(
        customer=name,
        seed=1,
        path=Path(name),
        sessions=sessions,
        truths=list(truths),
        within=["surge" if truth.neutral else None for truth in truths],
        spans=list(spans),
        evaluate_from=24 * HOUR,
        budget_per_day=None,
        dear_at=[],
    )


class TestEvaluate:
    """From scores to figures."""

    def test_the_threshold_comes_from_the_tuning_months(self) -> None:
        """And the first day counts nowhere."""
        tuning = _recording("t", [NORMAL] * 4)
        reporting = _recording("r", [EASY, EASY, NORMAL, EASY])
        scores = {"t-1": [9.0, 1.0, 3.0, 2.0], "r-1": [9.0, 3.5, 4.0, 3.0]}
        got = evaluate.alternative("some", [tuning], [reporting], scores)
        assert got.threshold == 3.0
        assert got.quality() == Quality(Count(1, 2), Count(1, 1))

    def test_rivals_get_as_many_false_alerts_as_tollwatch_has(self) -> None:
        """With its one false alert, the alternative finds both."""
        truths = [NORMAL, NORMAL, EASY, EASY]
        mine = Sessions("tollwatch", truths, [0] * 4, [True, False, False, True])
        other = Sessions("some", truths, [5.0, 1.0, 2.0, 3.0], [False] * 4, 9.0)
        assert evaluate.behind(mine, other, "loop") == Comparison(ours=0, theirs=1)
        assert other.with_false(0) == [False] * 4

    def test_spans_found_by_sessions_and_by_findings(self) -> None:
        """Alerts of its sessions find a span, and so do findings."""
        span = Stretch("surge", "hard", 24 * HOUR, 26 * HOUR)
        recording = _recording("r", [NORMAL, NEUTRAL, NORMAL], [span])
        silent = Sessions("some", [], [], [False, False])
        assert evaluate.spans_of_sessions(silent, [recording]).found("surge") == [False]
        loud = Sessions("some", [], [], [True, False])
        spans = evaluate.spans_of_sessions(loud, [recording])
        assert spans.delays("surge") == [0.5 * HOUR + SETTLING_SECONDS]
        sessions = tuple(tollwatch.Said(s.id, False, 0.0, None, ()) for s in recording.sessions)
        run = tollwatch.Backtest(sessions, (_velocity(24 * HOUR + 300),))
        spans = evaluate.spans_of_ours([recording], {"r-1": run})
        assert spans.delays("surge") == [300]
        assert evaluate.ours([recording], {"r-1": run}).alerted == [False, False]

    def test_thresholds_of_counts_keep_to_the_false_findings_allowed(self) -> None:
        """Half of them for surges, half for drops."""
        recording = _recording("r", [NORMAL] * 3)
        steps = [Step("velocity", "account", 30 * HOUR + n * 7200, 3.0 * 2**n) for n in range(4)]
        detector = CountSteps("some", {"r-1": steps})
        thresholds = detector.thresholds([recording], 4)
        assert detector.spans([recording], thresholds).false == 2
        assert thresholds["drop"] == min(thresholds.values())

    def test_steps_before_the_second_day_are_left_out(self) -> None:
        """And so are those below every threshold that is tried."""
        recording = _recording("r", [NORMAL] * 90)
        got = evaluate.count_steps("some", counts.HourOfWeek, [recording])
        assert all(step.end > recording.evaluate_from for step in got.steps["r-1"])

    def test_the_tables_say_who_is_behind(self) -> None:
        """FAIL where an alternative finds what tollwatch misses, PASS otherwise."""
        truths = [*[EASY] * 8, *[NORMAL] * 100]
        blind = Sessions("tollwatch", truths, [0.0] * 108, [False] * 108)
        seeing = Sessions("some", truths, [9.0] * 8 + [0.0] * 100, [True] * 8 + [False] * 100, 5.0)
        table, passed = report.comparison(blind, [seeing], ["loop"])
        assert not passed
        assert "FAIL" in _printed(table)
        _, passed = report.comparison(seeing, [blind], ["loop"])
        assert passed

    def test_the_tables_can_be_printed(self) -> None:
        """With intervals, sizes, delays, and the aims."""
        truths = [EASY, BARELY, NORMAL, Truth(odd="long_call")]
        mine = Sessions("tollwatch", truths, [9, 1, 0, 3], [True, False, False, True])
        found_at = ((SURGE, SURGE.start + 240), (replace(SURGE, kind="drop"), None))
        spans = Spans("tollwatch", [Match(found_at, (), ())])
        text = _printed(report.kinds([mine], ["loop"]))
        assert "loop (1)" in text
        assert "100 / 50 / 67" in text
        text = _printed(report.spans([spans], ["surge", "drop", "fraud"], 1000))
        assert "1/1, 4 (4)" in text
        assert "0/1" in text
        table, passed = report.span_comparison(spans, [spans], ["surge"])
        assert passed
        table, passed = report.aims(mine, spans)
        assert not passed
        assert "FAIL" in _printed(table)
        assert "50 █" in _printed(report.rates([("some", [Count(1, 2)])], [1.0]))


class TestData:
    """Lines and labels joined."""

    def test_a_month_is_read_back(self, tmp_path: Path) -> None:
        """Every label finds its session, and nothing of it comes from the lines."""
        [place] = files.write_missing(tmp_path, [3], ["tiny"])
        labels = json.loads(place.labels.read_text())
        got = data.load(place)
        kinds = sum("kind" in label for label in labels["sessions"].values())
        assert sum(truth.kind is not None for truth in got.truths) == kinds > 0
        assert sum(truth.neutral for truth in got.truths) == sum(w is not None for w in got.within)
        assert len(got.sessions) == len(got.scored) > sum(got.scored)
        assert {span.kind for span in got.spans} == {"surge", "fraud"}
        assert got.name == "tiny-3"
        bare = data.recording(
            Written("tiny", 3, place.lines, place.labels),
            got.sessions,
            {**labels, "sessions": {}, "spans": []},
        )
        assert all(truth.is_normal for truth in bare.truths)


def _printed(table: Any) -> str:
    console = Console(width=200, file=StringIO())
    with console.capture() as capture:
        console.print(table)
    return capture.get()
