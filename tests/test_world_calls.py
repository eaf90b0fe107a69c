"""The made-up calls: true to what Telnyx bills, silent where sound, found out where not."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.anomalies import severities_between
from tests.world.calls import ANOMALIES, KINDS, MIX, Call, CallGenerator, IndexedUnder
from tests.world.clock import iso_seconds
from tests.world.model import Node
from tests.world.record_types import RECORD_TYPES

_SEEDS = st.integers(min_value=0, max_value=10**9)
_ALL_KINDS = (*KINDS, *ANOMALIES)


def _per_minute(call: Call) -> Decimal:
    return call.total * 60 / Decimal(max(60, round(call.duration_seconds)))


def _turns(call: Call) -> int:
    return len(call.of_type("inference"))


def _double_charges(call: Call) -> Decimal:
    charges = Counter(
        (node.product, node.id, str(sorted(node.record.items())), node.cost)
        for node in call.root.walk()
        if node.cost
    )
    return sum((charge[3] * (times - 1) for charge, times in charges.items()), Decimal(0))


@given(_SEEDS, st.sampled_from(KINDS))
def test_sound_calls_stay_far_below_every_limit(seed: int, kind: str) -> None:
    """Nothing about a sound call could be worth an alert."""
    call = CallGenerator(seed).make(kind)
    assert call.anomaly is None
    assert call.expects is None
    assert call.total < 2
    assert _turns(call) < 100
    assert call.total * 60 / Decimal(call.duration_seconds) < Decimal("0.60")
    assert not _double_charges(call)
    assert call.complete_after_seconds <= 240


@given(_SEEDS, st.sampled_from(ANOMALIES))
def test_each_anomaly_is_beyond_a_limit(seed: int, anomaly: str) -> None:
    """Five dollars a session, two hundred turns, a dollar a minute, a quarter charged twice."""
    call = CallGenerator(seed).make(anomaly)
    expects = call.expects
    assert call.anomaly == anomaly
    assert expects
    crossed = {
        "session_cost": call.total > 5,
        "product_events": _turns(call) > 200,
        "cost_per_minute": _per_minute(call) > 1,
        "double_charge": _double_charges(call) >= Decimal("0.25"),
    }
    found = {reason for reason, is_crossed in crossed.items() if is_crossed}
    assert found
    assert found <= expects.reasons
    assert Decimal("0.25") <= expects.excess < call.total
    assert expects.severities


@given(_SEEDS, st.sampled_from(_ALL_KINDS))
def test_costs_add_up(seed: int, kind: str) -> None:
    """A cumulative cost is the event's own and its children's; the root's is the total."""
    call = CallGenerator(seed).make(kind)
    nodes = list(call.root.walk())
    for node in nodes:
        children = sum((child.cumulative for child in node.children), Decimal(0))
        assert node.cumulative == node.cost + children
    assert call.total == sum(node.cost for node in nodes)
    assert call.event_count == len(nodes)


@given(_SEEDS, st.sampled_from(_ALL_KINDS))
def test_no_part_appears_before_the_one_above_it(seed: int, kind: str) -> None:
    """The tree can be read from the root at any time."""

    def check(node: Node) -> None:
        for child in node.children:
            assert child.posted_after_seconds >= node.posted_after_seconds
            check(child)

    check(CallGenerator(seed).make(kind).root)


@given(_SEEDS, st.sampled_from(_ALL_KINDS))
def test_records_say_what_the_tree_says(seed: int, kind: str) -> None:
    """Record, cost and times agree, and every product has its documented names."""
    call = CallGenerator(seed).make(kind)
    for node in call.root.walk():
        assert node.record["record_type"] == node.record_type
        assert Decimal(node.record.get("cost", "0")) == node.cost
        assert node.record_type in RECORD_TYPES
        begin, end = (node.record.get(name) for name in ("started_at", "finished_at"))
        if begin and end:
            assert iso_seconds(call.start) <= begin < end <= iso_seconds(call.end)


@given(_SEEDS, st.sampled_from(_ALL_KINDS))
def test_the_same_seed_makes_the_same_call(seed: int, kind: str) -> None:
    """A failing example can be repeated."""
    assert CallGenerator(seed).make(kind) == CallGenerator(seed).make(kind)


def test_ids_are_not_repeated() -> None:
    """Sessions, legs and events are told apart."""
    calls = CallGenerator(1).mix(300)
    sessions = {call.session_id for call in calls}
    legs = {leg.leg_id for call in calls for leg in call.legs}
    assert len(sessions) == len(calls)
    assert len(legs) == sum(len(call.legs) for call in calls)


def test_the_guides_example_to_the_cent() -> None:
    """Eleven events, 152 seconds, 0.2128 USD, and the six products of Telnyx's guide."""
    call = CallGenerator().make("guide")
    assert call.total == Decimal("0.2128")
    assert call.event_count == 11
    assert call.duration_seconds == 152
    assert {node.product for node in call.root.walk()} == {
        "siptrunking-cdrs",
        "recording-cdrs",
        "webrtc-cdrs",
        "callcontrol-cdrs",
        "ai-voice-assistant",
        "inference",
    }
    assistant = call.of_type("ai-voice-assistant")[0]
    control = call.of_type("call-control")[0]
    assert assistant.cost == Decimal("0.18")
    assert assistant.cumulative == Decimal("0.1921")
    assert control.cumulative == Decimal("0.1973")
    assert call.root.cost == 0


@pytest.mark.parametrize(
    ("kind", "total"), [("de_mobile_ai_57s", "0.0942421"), ("ng_mobile", "0.3485"), ("failed", "0")]
)
def test_measured_sessions_to_the_last_digit(kind: str, total: str) -> None:
    """The price book gives what live accounts were billed."""
    assert CallGenerator(5).make(kind).total == Decimal(total)


def test_shapes_of_the_awkward_trees() -> None:
    """Seven levels are deeper than any answer; the cut assistant hides two thirds of its turns."""
    generator = CallGenerator()
    assert generator.make("seven_levels").root.levels == 7
    assistant = generator.make("cut").of_type("ai-voice-assistant")[0]
    assert (len(assistant.children), assistant.shown_children) == (60, 20)


@pytest.mark.parametrize(("under", "days"), [("start", [16]), ("end", [17]), ("both", [16, 17])])
def test_a_call_over_midnight_is_found_under_the_days_that_the_index_has(
    under: IndexedUnder, days: list[int]
) -> None:
    """Which of the two UTC days it is, is the call's own option."""
    end = datetime(2026, 3, 17, 0, 0, 30, tzinfo=UTC)
    call = CallGenerator().make("sip_inbound", end=end, talk_seconds=120)
    call = replace(call, indexed_under=under)
    assert call.days == {date(2026, 3, day) for day in days}


def test_the_mix_is_of_sound_calls_and_follows_its_weights() -> None:
    """Common kinds are common; anomalies come only when they are asked for."""
    calls = CallGenerator(2).mix(1000)
    kinds = Counter(call.kind for call in calls)
    assert kinds["ai_inbound"] > kinds["webrtc"] > 0
    assert set(kinds) <= set(MIX)
    assert not any(call.anomaly for call in calls)


def test_calls_end_one_after_another() -> None:
    """Without a given end time passes between the calls."""
    ends = [call.end for call in CallGenerator(3).mix(20)]
    assert ends == sorted(ends)
    assert len(set(ends)) == 20


def test_an_unknown_kind_is_an_error() -> None:
    """A typing error does not make another call."""
    with pytest.raises(KeyError):
        CallGenerator().make("ai_inbuond")


def test_severities_span_from_the_least_to_the_most() -> None:
    """Whatever way of counting the money, its severity is acceptable."""
    assert severities_between(Decimal("0.1"), Decimal("0.9")) == {"low"}
    assert severities_between(Decimal(1), Decimal(6)) == {"medium", "high"}
    assert severities_between(Decimal(30), Decimal(30)) == {"critical"}
