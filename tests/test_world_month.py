"""The labelled months: as Telnyx bills, and with labels that are true and apart."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telnyx.types.session_analysis_retrieve_response import SessionAnalysisRetrieveResponse

from tests.world.answers import Habits, Question, answer
from tests.world.model import Call
from tests.world.month import files
from tests.world.month.customers import CUSTOMERS, Customer, Flow
from tests.world.month.injections import Injected, Injection, inject
from tests.world.month.labels import Labels, Span
from tests.world.month.month import BEGIN, Line, make
from tests.world.month.plans import Plan, sound
from tests.world.month.table import (
    FIRST_HOURS,
    KINDS,
    LEAST_EXCESS,
    REPORTING_SEEDS,
    SESSION_KINDS,
    SESSION_SHARE,
    SIZES,
    SPAN_KINDS,
    TUNING_SEEDS,
    Size,
)
from tests.world.month.traffic import LONGEST_SECONDS, Traffic, longest_usual_seconds

# What is simulated is no part of the product.
pytestmark = pytest.mark.no_cover
_SEED = 5
_SUMS = {"sum_mismatch", "total_mismatch"}
_BILLED = {"overbilled", "wrong_rate", "missing_cost"}
_SIZED = [(kind, size) for kind in SESSION_KINDS for size in SIZES]


@dataclass(frozen=True)
class Sample:
    """A whole month in memory."""

    customer: Customer
    lines: list[Line]
    labels: Labels

    def kind_of(self, line: Line) -> str | None:
        """The anomaly in a line, by its label."""
        label = self.labels.sessions.get(line["analysis"]["session_id"])
        return label.kind if label else None

    def spans(self, kind: str) -> list[Span]:
        """All of a kind."""
        return [span for span in self.labels.spans if span.kind == kind]

    def within(self, kind: str) -> list[Line]:
        """The sessions that belong to spans of a kind."""
        labels = self.labels.sessions
        return [
            line
            for line in self.lines
            if (label := labels.get(line["analysis"]["session_id"])) and label.within == kind
        ]


@cache
def month(name: str) -> Sample:
    """One month of a customer; made once for all tests."""
    made = make(CUSTOMERS[name], _SEED)
    lines = list(made.lines())
    return Sample(made.customer, lines, made.labels)


def _nodes(line: Line) -> Iterator[dict[str, Any]]:
    def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for child in node["children"]:
            yield from walk(child)

    return walk(line["analysis"]["root"])


def _disagreements(analysis: Mapping[str, Any]) -> list[str]:
    """The events whose sums are wrong, and `total`."""
    wrong = []
    line = {"analysis": analysis}
    for node in _nodes(line):
        below = sum(Decimal(child["cost"]["cumulative_cost"]) for child in node["children"])
        if Decimal(node["cost"]["cumulative_cost"]) != Decimal(node["cost"]["event_cost"]) + below:
            wrong.append(node["id"])
    if analysis["root"]["cost"]["cumulative_cost"] != analysis["cost"]["total"]:
        wrong.append("total")
    return wrong


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


class TestLines:
    """What a detector reads."""

    @settings(max_examples=5, deadline=None)
    @given(st.integers(min_value=0, max_value=10**6))
    def test_the_same_seed_makes_the_same_month(self, seed: int) -> None:
        """Lines and labels, to the last digit."""
        first, second = make(CUSTOMERS["tiny"], seed), make(CUSTOMERS["tiny"], seed)
        assert list(first.lines()) == list(second.lines())
        assert first.labels == second.labels

    @settings(max_examples=5, deadline=None)
    @given(st.integers(min_value=0, max_value=10**6))
    def test_lines_are_in_the_order_of_their_ends(self, seed: int) -> None:
        """As `tollwatch backtest` wants them, and each ends after it began."""
        lines = list(make(CUSTOMERS["tiny"], seed).lines())
        ends = [_at(line["ended_at"]) for line in lines]
        assert ends == sorted(ends)
        assert all(_at(line["started_at"]) < end for line, end in zip(lines, ends, strict=True))
        assert ends[0] > BEGIN

    @pytest.mark.parametrize("name", ["weekly", "growing"])
    def test_sums_are_right_unless_that_is_the_anomaly(self, name: str) -> None:
        """Own cost plus children is the cumulative cost, and the root's is the total."""
        sample = month(name)
        for line in sample.lines:
            wrong = _disagreements(line["analysis"])
            assert bool(wrong) == (sample.kind_of(line) in _SUMS)

    @pytest.mark.parametrize("name", ["weekly", "growing"])
    def test_started_minutes_are_billed_unless_that_is_the_anomaly(self, name: str) -> None:
        """Billed seconds are whole minutes, and what they cost is their rate."""
        sample = month(name)
        for line in sample.lines:
            if sample.kind_of(line) in _BILLED:
                continue
            for node in _nodes(line):
                record = node["record"]
                real = record.get("call_sec", record.get("duration_sec"))
                if real is not None and "billed_sec" in record:
                    assert record["billed_sec"] == -(-real // 60) * 60
                    exact = Decimal(record["rate"]) * record["billed_sec"] / 60
                    assert abs(Decimal(record["cost"]) - exact) < Decimal("0.000001")

    def test_nothing_of_the_truth_is_in_the_lines(self) -> None:
        """Neither words of it, nor fields that only some sessions have."""
        sample = month("weekly")
        fields: defaultdict[str, set[frozenset[str]]] = defaultdict(set)
        anomalous: defaultdict[str, set[frozenset[str]]] = defaultdict(set)
        for line in sample.lines:
            assert list(line) == ["started_at", "ended_at", "webhook", "analysis"]
            labelled = line["analysis"]["session_id"] in sample.labels.sessions
            for node in _nodes(line):
                known = anomalous if labelled else fields
                known[node["record"]["record_type"]].add(frozenset(node["record"]))
                known["node"].add(frozenset(node))
        for record_type, shapes in anomalous.items():
            assert record_type not in fields or shapes <= fields[record_type]
        text = json.dumps(sample.lines)
        words = {*KINDS, *SIZES, "holiday", "long_call", "anomal", "label"} - {"fraud", "drop"}
        assert not [word for word in words if f'"{word}' in text]

    def test_telnyx_own_client_reads_the_analyses(self) -> None:
        """A sample of the usual ones, and one of every anomaly that is there."""
        sample = month("weekly")
        chosen = {sample.kind_of(line): line for line in sample.lines}
        for line in [*sample.lines[::200], *chosen.values()]:
            read = SessionAnalysisRetrieveResponse.model_validate(line["analysis"])
            assert read.meta.event_count == sum(1 for _ in _nodes(line))
            assert read.session_id == line["webhook"]["call_session_id"]

    def test_webhooks_are_those_that_end_a_call(self) -> None:
        """A conversation's with its assistant, where there was one; a leg's hangup otherwise."""
        for line in month("weekly").lines:
            has_assistant = any(n["product"] == "ai-voice-assistant" for n in _nodes(line))
            assert ("assistant_id" in line["webhook"]) == has_assistant
            assert ("hangup_cause" in line["webhook"]) != has_assistant

    def test_seasons_are_those_of_the_customer(self) -> None:
        """Few calls on Sundays, at night and on the holiday; more every week where it grows."""
        weekly = Counter(_at(line["ended_at"]).date() for line in month("weekly").lines)
        days = [weekly[(BEGIN + timedelta(days=day)).date()] for day in range(28)]
        assert max(days[6::7]) < min(days[0::7])
        assert days[17] < 0.3 * days[10]
        growing = Counter(
            (_at(line["ended_at"]) - BEGIN) // timedelta(days=7) for line in month("growing").lines
        )
        assert growing[3] > 1.5 * growing[0]


class TestLabels:
    """The truth beside the lines."""

    @pytest.mark.parametrize("name", ["weekly", "growing", "tiny"])
    def test_as_many_anomalies_as_the_table_says(self, name: str) -> None:
        """Less than one session in a hundred, and none on the first day."""
        sample = month(name)
        anomalous = [line for line in sample.lines if sample.kind_of(line)]
        assert len(anomalous) == round(SESSION_SHARE * len(sample.lines))
        for line in anomalous:
            assert _at(line["ended_at"]) >= BEGIN + timedelta(hours=FIRST_HOURS)
        assert all(span.start >= sample.labels.evaluate_from or span.kind in {"campaign", "budget"}
                   for span in sample.labels.spans)  # fmt: skip

    def test_every_kind_is_injected(self) -> None:
        """Some of each, over a few customers."""
        names = ("weekly", "growing")
        kinds = Counter(month(name).kind_of(line) for name in names for line in month(name).lines)
        spans = Counter(span.kind for name in names for span in month(name).labels.spans)
        assert set(SESSION_KINDS) <= set(kinds)
        assert {*SPAN_KINDS, "budget", "holiday"} <= set(spans)

    def test_the_excess_is_what_the_table_asks_for(self) -> None:
        """All but the barely visible ones are about two cents at least."""
        for label in month("weekly").labels.sessions.values():
            if label.kind is not None and label.size != "barely":
                assert label.excess is not None
                assert abs(label.excess) >= LEAST_EXCESS

    def test_what_is_odd_but_fine_says_so(self) -> None:
        """An hour's call is no anomaly."""
        sample = month("weekly")
        odd = {key for key, label in sample.labels.sessions.items() if label.odd == "long_call"}
        lines = [line for line in sample.lines if line["analysis"]["session_id"] in odd]
        assert len(lines) == sample.customer.long_calls
        for line in lines:
            assert _at(line["ended_at"]) - _at(line["started_at"]) > timedelta(minutes=50)

    def test_tuning_and_reporting_do_not_share_a_seed(self) -> None:
        """What is tuned on is not what is reported."""
        assert not set(TUNING_SEEDS) & set(REPORTING_SEEDS)

    @pytest.mark.parametrize("kind", [*SESSION_KINDS, *SPAN_KINDS])
    def test_sizes_go_from_easy_to_barely_visible(self, kind: str) -> None:
        """Each larger than the next; of what is a share or a rank, the other way round."""
        sizes = {**SESSION_KINDS, **SPAN_KINDS}[kind]
        amounts = [sizes.of(size) for size in SIZES]
        assert amounts in (sorted(amounts), sorted(amounts, reverse=True))
        assert len(set(amounts)) == len(amounts)


class TestInjections:
    """Each kind does to a call what it says, in every size."""

    @pytest.mark.parametrize(("kind", "size"), _SIZED)
    def test_the_call_has_the_anomaly(self, kind: str, size: Size) -> None:
        """Seen beside the same call without it."""
        injection = Injection(kind, size)
        plan, flow, injected = _hosted(injection)
        assert _CHECKS[kind](injection, plan, flow, injected), injected.call.root

    @pytest.mark.parametrize(("kind", "size"), _SIZED)
    def test_the_sums_are_right_in_the_tree(self, kind: str, size: Size) -> None:
        """Only the anomalies that are about sums break them."""
        _, _, injected = _hosted(Injection(kind, size))
        assert bool(_disagreements(_said(injected))) == (kind in _SUMS)

    @pytest.mark.parametrize("kind", list(SESSION_KINDS))
    def test_unanswered_calls_are_left_alone(self, kind: str) -> None:
        """There is nothing in them that could be wrong."""
        flow = CUSTOMERS["weekly"].flows[1]
        traffic = Traffic(CUSTOMERS["weekly"], 1, BEGIN)
        plan = next(p for p in iter(lambda: traffic.plan(flow, BEGIN), None) if not p.answered)
        assert inject(Injection(kind, "easy"), plan, flow) is None


class TestSpans:
    """What no single call shows."""

    def test_a_surge_is_many_calls_of_one_cohort(self) -> None:
        """More within its half hour than the cohort has in any other."""
        sample = month("weekly")
        for span in sample.spans("surge"):
            inside = [
                line for line in sample.lines
                if span.start <= _at(line["started_at"]) < span.end
                and span.cohort in {line["webhook"].get("assistant_id"),
                                    line["webhook"]["connection_id"]}
            ]  # fmt: skip
            assert len(inside) >= span.sessions >= 24

    def test_fraud_comes_at_night_over_a_telephone_line(self) -> None:
        """No assistant talks, and the numbers are one, or near each other."""
        sample = month("weekly")
        lines = sample.within("fraud")
        assert len(lines) == sum(span.sessions for span in sample.spans("fraud"))
        offset = timedelta(hours=sample.customer.utc_offset_hours)
        for span in sample.spans("fraud"):
            assert 1 <= (span.start + offset).hour <= 3
            called = {
                line["webhook"]["to"] for line in lines if _near(span, _at(line["started_at"]))
            }
            assert len({number[:-3] for number in called}) == 1
            assert (len(called) == 1) == (span.shape == "one_number")
        assert all("assistant_id" not in line["webhook"] for line in lines)

    @pytest.mark.parametrize("name", ["weekly", "growing"])
    def test_in_a_drop_calls_are_missing(self, name: str) -> None:
        """At most the size's share, but for chance, of what comes a week before or after."""
        sample = month(name)
        starts = [_at(line["started_at"]) for line in sample.lines]
        for span in sample.spans("drop"):
            left = SPAN_KINDS["drop"].of(span.size)  # type: ignore[arg-type]
            inside = sum(span.start <= start < span.end for start in starts)
            usual = max(
                sum(span.start + week <= start < span.end + week for start in starts)
                for week in (timedelta(days=7), -timedelta(days=7))
            )
            assert inside <= max(3, (left + 0.35) * usual)

    def test_a_shared_rate_is_wrong_for_every_assistant_call(self) -> None:
        """And for no other call."""
        sample = month("weekly")
        wrong = {line["analysis"]["session_id"] for line in sample.within("shared_rate")}
        assert wrong
        for line in sample.lines:
            if sample.kind_of(line):
                continue
            rates = {
                node["record"]["rate"]
                for node in _nodes(line)
                if node["product"] == "ai-voice-assistant"
            }
            usual = not rates or rates == {"0.05"}
            assert usual == (line["analysis"]["session_id"] not in wrong)

    def test_a_budget_is_crossed_when_the_money_is_spent(self) -> None:
        """The rungs of each day, in order, at the session which crossed them."""
        sample = month("weekly")
        budget = sample.labels.budget
        assert budget
        for span in sample.spans("budget"):
            midnight = span.start.replace(hour=0, minute=0, second=0, microsecond=0)
            spent = [
                (_at(line["ended_at"]), sum(Decimal(n["cost"]["event_cost"]) for n in _nodes(line)))
                for line in sample.lines
                if midnight <= _at(line["ended_at"]) <= span.start
            ]
            limit = budget.per_day * int(span.shape) / 100
            assert sum(cost for _, cost in spent) >= limit
            assert sum(cost for end, cost in spent if end < span.start) < limit

    def test_a_new_price_holds_from_its_day_on(self) -> None:
        """Every assistant call before at the old rate, every later one at the new."""
        traffic = Traffic(CUSTOMERS["price_change"], 1, BEGIN)
        flow = CUSTOMERS["price_change"].flows[0]
        before = traffic.plan(flow, BEGIN + timedelta(days=13, hours=23))
        after = traffic.plan(flow, BEGIN + timedelta(days=14))
        assert before.prices.assistant_per_minute == Decimal("0.05")
        assert after.prices.assistant_per_minute == Decimal("0.06")
        made = make(CUSTOMERS["price_change"], 1)
        [change] = [span for span in made.labels.spans if span.kind == "price_change"]
        assert change.fine
        assert change.start == BEGIN + timedelta(days=14)

    def test_a_new_assistant_has_no_calls_before_its_day(self) -> None:
        """And many afterwards."""
        plans = [p for p in make(CUSTOMERS["newcomer"], 1).plans if p.flow == "concierge"]
        assert len(plans) > 300
        assert min(plan.start for plan in plans) >= BEGIN + timedelta(days=12)

    def test_campaigns_are_planned_and_fine(self) -> None:
        """Bursts of calls that are not to be told of."""
        made = make(CUSTOMERS["campaigns"], 1)
        planned = [span for span in made.labels.spans if span.kind == "campaign"]
        assert len(planned) == CUSTOMERS["campaigns"].campaigns
        assert all(span.fine and span.sessions > 50 for span in planned)


class TestFiles:
    """Months on disk."""

    def test_lines_and_labels_are_apart_and_written_once(self, tmp_path: Path) -> None:
        """The labels' file names every labelled session; a second run writes nothing."""
        [place] = files.write_missing(tmp_path, [3], ["tiny"])
        lines = [json.loads(line) for line in place.lines.read_text().splitlines()]
        labels = json.loads(place.labels.read_text())
        ids = {line["analysis"]["session_id"] for line in lines}
        assert set(labels["sessions"]) <= ids
        assert (labels["customer"], labels["seed"]) == ("tiny", 3)
        place.lines.write_text("kept")
        assert files.write_missing(tmp_path, [3], ["tiny"]) == [place]
        assert place.lines.read_text() == "kept"

    def test_months_are_as_old_as_the_code_that_makes_them(self) -> None:
        """The version covers what they are made by, and nothing that has no part in it."""
        names = {path.stem for path in files.sources()}
        assert {"month", "table", "traffic", "records", "prices", "envelopes", "clock"} <= names
        assert not {"slack", "telnyx", "demo", "server"} & names

    def test_other_seeds_are_other_files(self, tmp_path: Path) -> None:
        """So that tuning and reporting cannot be mixed up."""
        first, second = (files.written(tmp_path, "tiny", seed) for seed in (1, 2))
        assert first.lines != second.lines
        assert not first.is_there


def _near(span: Span, moment: datetime) -> bool:
    """Sequential calls may last beyond the span's hour."""
    return span.start <= moment < span.start + timedelta(hours=12)


@cache
def _plans() -> tuple[tuple[Plan, Flow], ...]:
    """Sound calls of customers that have something of everything."""
    found = []
    for name in ("weekly", "growing", "heavy"):
        customer = CUSTOMERS[name]
        flows = {flow.name: flow for flow in customer.flows}
        plans = Traffic(customer, _SEED, BEGIN).sound()
        found += [(plan, flows[plan.flow]) for plan in plans[:: len(plans) // 400]]
    return tuple(found)


def _hosted(injection: Injection) -> tuple[Plan, Flow, Injected]:
    return next(
        (plan, flow, injected)
        for plan, flow in _plans()
        if (injected := inject(injection, plan, flow)) is not None
    )


def _said(injected: Injected) -> dict[str, Any]:
    analysis = answer(injected.call.root, Question(max_depth=5), Habits())
    if injected.tamper:
        injected.tamper(analysis)
    return analysis


def _cost_of(call: Call, record_type: str) -> Decimal:
    return sum((node.cost for node in call.of_type(record_type)), Decimal(0))


def _grew(before: Decimal, after: Decimal, injection: Injection) -> bool:
    """By the injected factor, but for what is rounded."""
    return abs(after / before / Decimal(str(injection.amount)) - 1) < Decimal("0.08")


def _is_dear_session(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    wanted = min(longest_usual_seconds(flow) * injection.amount, LONGEST_SECONDS - 60)
    return abs(got.call.duration_seconds - wanted) < 15


def _is_dear_minute(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    return _grew(sound(plan).total, got.call.total, injection)


def _is_dear_product(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    name = "text-to-speech"
    return _grew(_cost_of(sound(plan), name), _cost_of(got.call, name), injection)


def _is_loop(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    turns = len(got.call.of_type("inference"))
    return turns == round(plan.turns * Decimal(str(injection.amount)))


def _is_dear_event(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    same = len(got.call.of_type("inference")) == plan.turns
    before, after = (_cost_of(call, "inference") for call in (sound(plan), got.call))
    return same and _grew(before, after, injection)


def _is_wrong_rate(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    changed = [
        (Decimal(old.record["rate"]), Decimal(new.record["rate"]))
        for old, new in zip(sound(plan).root.walk(), got.call.root.walk(), strict=True)
        if old.record.get("rate") != new.record.get("rate")
    ]
    return len(changed) == 1 and _grew(*changed[0], injection)


def _is_charged_twice(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    ids = Counter(node.id for node in got.call.root.walk() if node.cost)
    usual = Counter(node.id for node in sound(plan).root.walk() if node.cost)
    return (ids - usual).total() == 1 and injection.amount <= got.excess < injection.below


def _is_overbilled(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    changed = [
        (old.record["billed_sec"], new.record["billed_sec"])
        for old, new in zip(sound(plan).root.walk(), got.call.root.walk(), strict=True)
        if old.record.get("billed_sec") != new.record.get("billed_sec")
    ]
    [(before, after)] = changed
    return bool(after >= before * injection.amount) and after % 60 == 0


def _is_late(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    late = [
        node
        for node in got.call.root.walk()
        if "started_at" in node.record
        and _at(node.record["started_at"]) > got.call.end + timedelta(hours=1)
    ]
    return len(late) == 1 and late[0].cost == got.excess > 0


def _is_sum_mismatch(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    wrong = _disagreements(_said(got))
    return len(wrong) == 1 and wrong != ["total"]


def _is_total_mismatch(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    return _disagreements(_said(got)) == ["total"]


def _is_new_product(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    before, after = (
        {node.record_type for node in call.root.walk()} for call in (sound(plan), got.call)
    )
    return before < after and len(after) == len(before) + 1


def _is_new_country(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    return got.call.legs[0].to[:4] not in {sound(plan).legs[0].to[:4], *flow.places}


def _is_new_model(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    models = {node.record["model"] for node in got.call.of_type("inference")}
    return len(models) == 1 and flow.model not in models


def _lacks_inference(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    missing = len(sound(plan).of_type("inference"))
    none = not got.call.of_type("inference")
    return none and injection.amount <= missing < injection.below and got.excess < 0


def _lacks_cost(injection: Injection, plan: Plan, flow: Flow, got: Injected) -> bool:
    usual = sound(plan).total
    return got.call.total == 0 and injection.amount <= usual < injection.below


_CHECKS = {
    "dear_session": _is_dear_session,
    "dear_minute": _is_dear_minute,
    "dear_product": _is_dear_product,
    "inference_loop": _is_loop,
    "dear_event": _is_dear_event,
    "wrong_rate": _is_wrong_rate,
    "double_charge": _is_charged_twice,
    "overbilled": _is_overbilled,
    "late_charge": _is_late,
    "sum_mismatch": _is_sum_mismatch,
    "total_mismatch": _is_total_mismatch,
    "new_product": _is_new_product,
    "new_country": _is_new_country,
    "new_model": _is_new_model,
    "missing_inference": _lacks_inference,
    "missing_cost": _lacks_cost,
}
