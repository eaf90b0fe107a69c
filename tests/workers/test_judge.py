"""The judge: what is said of a cost tree, and what is kept quiet."""

from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Call, Event, Part, Reason, Reported, Severity, Verdict, moment
from tests.samples import END_MS, START_MS, analysis, assistant_call, event, node
from workers.analysis import decode_analysis
from workers.complete import is_cut
from workers.judge import Case, judge, known_of
from workers.policy import BUILT_IN, Ceiling, Policy, When
from workers.tree import build_tree

CALL = Call("s", start_ms=START_MS, end_ms=END_MS, assistant_id="a", connection_id="c", legs=1)
NO_CEILINGS = BUILT_IN.model_copy(update={"ceilings": (), "max_session_cost": Decimal(1000)})


def verdict(answer: dict[str, Any], policy: Policy = BUILT_IN, **case: Any) -> Verdict:
    tree = build_tree(decode_analysis(msgspec.json.encode(answer)), "call-session")
    known: dict[str, Any] = {"call": CALL, "whole": not is_cut(tree)}
    return judge(Case(tree=tree, **known | case), policy, at_ms=END_MS)


def codes(found: Verdict) -> dict[str, Severity | None]:
    return {reason.code: reason.severity for reason in found.reasons}


def only(found: Verdict) -> Reason:
    (reason,) = found.reasons
    return reason


def with_ceiling(measure: Any, limit: str, product: str | None = None, **when: str) -> Policy:
    ceiling = Ceiling(
        measure=measure,
        limit=Decimal(limit),
        product=product,
        when=When(**when),  # type: ignore[arg-type]
    )
    return NO_CEILINGS.model_copy(update={"ceilings": (ceiling,)})


def test_the_guides_call_is_quiet() -> None:
    """The guide's 0.2128 USD call has no reason at all under the built-in policy."""
    found = verdict(assistant_call("0.0010", "0.0015", "0.0029", "0.0033", "0.0034"))
    assert (found.reasons, found.severity, found.excess) == ((), None, Decimal(0))
    assert found.total == sum((p.cost for p in found.products), Decimal(0))


def test_a_dear_session_alerts_with_its_excess() -> None:
    """Above the ceiling a session alerts, graded by the money above it."""
    reason = only(verdict(assistant_call("12.50", seconds=3600)))
    assert (reason.code, reason.severity) == ("session_cost", Severity.HIGH)
    assert reason.excess == reason.observed - 5
    assert "12.69 USD" in reason.text
    assert "5.00" in reason.text


@pytest.mark.parametrize(
    ("excess", "severity"),
    [
        ("0.01", "low"),
        ("0.25", "low"),
        ("1", "medium"),
        ("5", "high"),
        ("24.99", "high"),
        ("25", "critical"),
    ],
)
def test_severity_follows_from_the_excess(excess: str, severity: str) -> None:
    """The policy's steps grade the money; a crossed ceiling is low at least."""
    answer = analysis(node("call-session", str(5 + Decimal(excess)), id="s", call_sec=3600))
    assert only(verdict(answer)).severity == severity


def test_at_the_ceiling_is_not_above_it() -> None:
    """A cost that equals the ceiling is allowed."""
    answer = analysis(node("call-session", "5.00", id="s", call_sec=3600))
    assert verdict(answer).reasons == ()


def test_cost_per_minute_needs_no_long_call() -> None:
    """Cost per minute is judged over the call's duration; a call of seconds counts as a minute."""
    long = assistant_call("3.00", seconds=120)
    assert codes(verdict(long)) == {"cost_per_minute": Severity.MEDIUM}
    short = assistant_call("0.40", seconds=8)
    call = Call("s", start_ms=END_MS - 8000, end_ms=END_MS)
    assert verdict(short, call=call).reasons == ()


def test_a_loop_is_found_by_its_events() -> None:
    """More events of a product than the ceiling are a reason, with the money in the excess ones."""
    reason = only(verdict(assistant_call(*["0.001"] * 412, seconds=1200)))
    assert (reason.code, reason.product) == ("product_events", "inference")
    assert (reason.observed, reason.limit) == (Decimal(412), Decimal(200))
    assert reason.excess == Decimal("0.212")
    assert reason.severity is Severity.LOW


def test_a_products_cost_has_a_ceiling_of_its_own() -> None:
    """A ceiling on one product looks at that product alone, by any of its names."""
    answer = assistant_call("0.1", sip="0.80")
    assert codes(verdict(answer, with_ceiling("product_cost", "0.5", "siptrunking-cdrs"))) == {
        "product_cost": Severity.LOW
    }
    assert verdict(answer, with_ceiling("product_cost", "0.9", "sip-trunking")).reasons == ()


@pytest.mark.parametrize(
    ("when", "applies"),
    [
        ({}, True),
        ({"assistant": "a"}, True),
        ({"assistant": "b"}, False),
        ({"connection": "c"}, True),
        ({"direction": "inbound"}, True),
        ({"direction": "outbound"}, False),
        ({"assistant": "a", "direction": "outbound"}, False),
    ],
)
def test_a_ceiling_applies_to_whom_it_names(when: dict[str, str], *, applies: bool) -> None:
    """Assistant, connection and direction (which the tree knows) choose who a ceiling is for."""
    found = verdict(assistant_call("0.1"), with_ceiling("session_cost", "0.01", **when))
    assert bool(found.reasons) is applies


def test_the_general_ceiling_cannot_be_lifted() -> None:
    """A more generous ceiling for an assistant does not lift the one for all sessions."""
    generous = with_ceiling("session_cost", "900", assistant="a")
    policy = generous.model_copy(update={"max_session_cost": Decimal(1)})
    assert codes(verdict(assistant_call("1.0"), policy)) == {"session_cost": Severity.LOW}


def test_another_currency_is_excess_as_a_whole() -> None:
    """A cost that the policy's limits cannot be compared with alerts when there is enough of it."""
    cheap = analysis(node("call-session", "0.20", id="s", currency="EUR"))
    assert codes(verdict(cheap)) == {"foreign_currency": None}
    dear = analysis(node("call-session", "2.00", id="s", currency="EUR"))
    assert codes(verdict(dear, NO_CEILINGS)) == {"foreign_currency": Severity.MEDIUM}


CHARGE = {
    "id": "leg-1",
    "telnyx_leg_id": "leg-1",
    "started_at": "2026-09-21T12:00:00Z",
    "finished_at": "2026-09-21T12:02:00Z",
}


def twice(cost: str, **changes: Any) -> dict[str, Any]:
    first = node("sip-trunking", cost, id="n1", call_sec=600)
    second = node("sip-trunking", cost, id="n2", call_sec=600)
    first["record"] |= CHARGE
    second["record"] |= CHARGE | changes
    return analysis(node("call-session", "0", first, second, id="s"))


def test_the_same_charge_twice_is_found() -> None:
    """Same product, identifiers, times and cost: the second one is excess."""
    reason = only(verdict(twice("0.40")))
    assert (reason.code, reason.severity) == ("double_charge", Severity.LOW)
    assert reason.excess == Decimal("0.40")
    assert only(verdict(twice("0.10"))).severity is None


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "leg-2", "telnyx_leg_id": "leg-2"},
        {"started_at": "2026-09-21T12:00:01Z"},
        {"finished_at": None},
        {"leg_direction": "outbound"},
    ],
)
def test_charges_that_differ_are_two_charges(changes: dict[str, Any]) -> None:
    """Another leg, another time or a missing field, and it is not the same charge."""
    assert verdict(twice("0.40", **changes)).reasons == ()


def reported(kind: str, total: str, leg: str | None = None, **parts: str) -> tuple[Event, Reported]:
    figures = Reported(
        total=Decimal(total),
        currency="USD",
        parts=tuple(Part(name.replace("_", "-"), Decimal(cost)) for name, cost in parts.items()),
    )
    return event(kind, leg_id=leg, reported=figures), figures


def legs() -> dict[str, Any]:
    mine = node("sip-trunking", "1.00", id="n1", telnyx_leg_id="mine", call_sec=600)
    other = node("sip-trunking", "2.00", id="n2", telnyx_leg_id="other", call_sec=600)
    return analysis(node("call-session", "0", mine, other, id="s"))


def test_call_cost_is_compared_with_its_own_leg_only() -> None:
    """call.cost speaks of one leg: the other leg's cost is no difference, its own part's is."""
    same = reported("call.cost", "1.00", "mine", sip_trunking="1.00")
    assert verdict(legs(), reported=(same,)).reasons == ()
    differs = reported("call.cost", "0.70", "mine", sip_trunking="0.70")
    reason = only(verdict(legs(), reported=(differs,)))
    assert (reason.code, reason.excess) == ("reported_difference", Decimal("0.30"))


def test_a_part_without_a_node_is_no_difference() -> None:
    """A reported part that the tree has no node of for that leg is not compared."""
    part = reported("call.cost", "0.50", "mine", call_recording="0.50")
    assert verdict(legs(), reported=(part,)).reasons == ()
    elsewhere = reported("call.cost", "9.00", "third", sip_trunking="9.00")
    assert verdict(legs(), reported=(elsewhere,)).reasons == ()


def test_call_analyzed_differs_only_upwards() -> None:
    """call.analyzed comes early: a tree above its total is no news, a settled one below it is."""
    early = reported("call.analyzed", "2.50")
    assert verdict(legs(), reported=(early,)).reasons == ()
    more = reported("call.analyzed", "4.50")
    reason = only(verdict(legs(), reported=(more,)))
    assert (reason.excess, reason.severity) == (Decimal("1.50"), Severity.MEDIUM)
    assert verdict(legs(), reported=(more,), settled=False).reasons == ()


def test_a_broken_sum_is_a_reason_graded_by_its_money() -> None:
    """Telnyx's total beside what its events add up to is a reason; it alerts if it is money."""
    answer = legs()
    answer["cost"]["total"] = "3.10"
    assert codes(verdict(answer)) == {"total_mismatch": None}
    answer["cost"]["total"] = "4.50"
    assert codes(verdict(answer)) == {"total_mismatch": Severity.MEDIUM}


def test_a_cut_tree_is_not_trusted() -> None:
    """While events are missing, sums that do not match are remarks and not reasons."""
    answer = legs()
    answer["cost"]["total"] = "4.50"
    answer["meta"]["event_count"] = 9
    found = verdict(answer)
    assert (found.reasons, found.complete) == ((), False)
    assert any("6 of 9 events are missing" in remark for remark in found.remarks)


def test_a_provisional_tree_is_judged_only_on_what_can_grow() -> None:
    """Before settling, a crossed session cost alerts; cost per minute and differences wait."""
    answer = assistant_call("3.00", seconds=60)
    assert verdict(answer, provisional=True, settled=False).reasons == ()
    dear = assistant_call("9.00", seconds=60)
    assert codes(verdict(dear, provisional=True, settled=False)) == {
        "session_cost": Severity.MEDIUM
    }


@given(costs=st.lists(st.decimals(0, 50, places=4), min_size=1, max_size=8))
def test_a_dearer_session_is_never_less_severe(costs: list[Decimal]) -> None:
    """Adding cost never lowers excess or severity under ceilings."""
    found = [
        verdict(analysis(node("call-session", str(cost), id="s", call_sec=600)))
        for cost in sorted(costs)
    ]
    assert [v.excess for v in found] == sorted(v.excess for v in found)
    ranks = [v.severity.rank if v.severity else 0 for v in found]
    assert ranks == sorted(ranks)


def test_the_larger_of_total_and_sum_is_judged() -> None:
    """A stated total below what the events add up to hides nothing."""
    answer = analysis(node("call-session", "30.00", id="s", call_sec=3600))
    answer["cost"]["total"] = "0.02"
    found = verdict(answer, provisional=True, settled=False)
    assert (found.total, codes(found)) == (Decimal("30.00"), {"session_cost": Severity.CRITICAL})


def test_sums_above_grafted_parts_are_remarks() -> None:
    """Where parts were fetched apart, Telnyx's own sums may leave them out: that is no reason."""
    answer = legs()
    answer["cost"]["total"] = "0.50"
    found = verdict(answer, grafted=True)
    assert found.reasons == ()
    assert any("Telnyx's total" in remark for remark in found.remarks)


def test_an_unknown_duration_is_not_a_minute() -> None:
    """Without any duration, cost per minute says nothing; a webhook's own duration is enough."""
    answer = analysis(node("call-session", "1.50", id="s"))
    unknown = Call("s", end_ms=END_MS)
    assert verdict(answer, call=unknown).reasons == ()
    stated = Call("s", end_ms=END_MS, duration_seconds=1800)
    assert verdict(answer, call=stated).duration_seconds == 1800


def test_another_currency_is_not_compared() -> None:
    """A limit in dollars is not held against yen; and usd is USD."""
    yen = analysis(node("call-session", "50", id="s", currency="JPY", call_sec=600))
    assert verdict(yen, provisional=True, settled=False).reasons == ()
    assert set(codes(verdict(yen))) == {"foreign_currency"}
    assert verdict(analysis(node("call-session", "0.2", id="s", currency="usd"))).reasons == ()


def test_the_tree_tells_what_webhooks_did_not() -> None:
    """Assistant and connection of a call are read from its records where no webhook named them."""
    answer = assistant_call("0.1")
    answer["root"]["children"][1]["children"][0]["record"]["assistant_id"] = "from-tree"
    policy = with_ceiling("session_cost", "0.01", assistant="from-tree")
    assert codes(verdict(answer, policy, call=Call("s", end_ms=END_MS)))


def test_before_settling_the_highest_possible_ceiling_counts() -> None:
    """While the assistant is not known yet, a ceiling that it may have is not crossed too early."""
    general = Ceiling(measure="session_cost", limit=Decimal("0.05"))
    special = Ceiling(measure="session_cost", limit=Decimal(3), when=When(assistant="a"))
    policy = NO_CEILINGS.model_copy(update={"ceilings": (general, special)})
    unknown = Call("s", start_ms=START_MS, end_ms=END_MS)
    answer = assistant_call("0.1")
    assert verdict(answer, policy, call=unknown, provisional=True, settled=False).reasons == ()
    assert codes(verdict(answer, policy, call=unknown)) == {"session_cost": Severity.LOW}


def test_where_the_call_went_is_known_from_its_records() -> None:
    """Without a webhook that says so, the first record with a number of some country does."""
    inside = node("webrtc", "0.01", cld="agent@sip.telnyx.com")
    outside = node("sip-trunking", "0.02", cld="+4915112345678")

    def told(call: Call, *children: dict[str, Any]) -> str | None:
        whole = analysis(node("call-session", "0", *children))
        tree = build_tree(decode_analysis(msgspec.json.encode(whole)), "call-session")
        return known_of(call, tree).to_country

    assert told(CALL, inside, outside) == "DE"
    assert told(msgspec.structs.replace(CALL, to_country="FR"), outside) == "FR"
    assert told(CALL, inside, node("sip-trunking", "0.02", cld="…78")) is None


# --- what was charged long after the end ----------------------------------------------------------


def _began(seconds_after_end: float) -> str:
    return moment(END_MS + int(seconds_after_end * 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _with(*late: dict[str, Any]) -> dict[str, Any]:
    return analysis(node("call-session", "0", node("sip-trunking", "0.02"), *late))


def test_charges_that_came_twice_are_told_in_the_order_of_the_tree() -> None:
    """Where there is as much money in them."""
    time = {"started_at": _began(-60), "finished_at": _began(0)}
    legs = [
        ("1.00", "x"),
        ("2.00", "y"),
        ("2.00", "y"),
        ("1.00", "z"),
        ("1.00", "z"),
        ("1.00", "z"),
    ]
    twice = [node("sip-trunking", cost, id=leg, telnyx_leg_id=leg, **time) for cost, leg in legs]
    found = [r.observed for r in verdict(_with(*twice)).reasons if r.code == "double_charge"]
    assert found == [Decimal("4.00"), Decimal("3.00")]


@pytest.mark.parametrize("name", ["started_at", "start_time", "created_at"])
def test_what_began_long_after_the_end_is_a_late_charge(name: str) -> None:
    """A record that began an hour or more after the call's end; its whole subtree is the excess."""
    below = node("inference", "0.25", id="below", **{name: _began(90_000)})
    late = node("sip-trunking", "1.00", below, id="late", **{name: _began(7_200)})
    reason = only(verdict(_with(late)))
    assert (reason.code, reason.excess, reason.observed) == ("late_charge", *[Decimal("1.25")] * 2)
    assert reason.severity is Severity.MEDIUM
    assert reason.text == (
        "1.25 USD was charged for what began 2 h 00 min after the call's end: "
        "SIP trunking 1.00, Inference 0.25"
    )


@pytest.mark.parametrize(
    ("began", "is_late"),
    [
        (_began(3_600), True),
        (_began(3_599), False),
        (_began(-60), False),
        (_began(7_200).replace("T", " "), True),
        (moment(END_MS + 7_200_000).isoformat(), True),
        (moment(END_MS + 7_200_000).astimezone(timezone(timedelta(hours=-9))).isoformat(), True),
        (moment(END_MS).astimezone(timezone(timedelta(hours=9))).isoformat(), False),
        ("soon", False),
        ("Z", False),
        ("9999-99-99T99:99:99Z", False),
        (None, False),
    ],
)
def test_an_hour_after_the_end_is_late(began: str | None, *, is_late: bool) -> None:
    """Whatever the zone in which the time is written; junk is no time."""
    late = node("sip-trunking", "1.00", id="late", started_at=began)
    assert ("late_charge" in codes(verdict(_with(late)))) is is_late


def test_what_came_late_and_cost_nothing_is_no_charge() -> None:
    """Without a cost of its own a late record is no reason, nor while the end is not known."""
    late = node("sip-trunking", "0", id="late", started_at=_began(7_200))
    assert codes(verdict(_with(late))) == {}
    dear = node("sip-trunking", "1.00", id="late", started_at=_began(7_200))
    endless = msgspec.structs.replace(CALL, end_ms=None)
    assert codes(verdict(_with(dear), call=endless)) == {}
    assert codes(verdict(_with(dear), settled=False)) == {}


def test_the_same_late_money_is_told_once() -> None:
    """What the last look found, and what says itself that it is late: the larger of both."""
    before = verdict(_with())
    late = node("sip-trunking", "1.00", id="late", started_at=_began(7_200))
    other = node("recording", "0.30", id="other")
    by_difference = only(verdict(_with(late, other), before=before))
    assert (by_difference.code, by_difference.excess) == ("late_charge", Decimal("1.30"))
    assert by_difference.product is None
    known = verdict(_with(late))
    by_record = only(verdict(_with(late, other), before=known))
    assert (by_record.code, by_record.excess) == ("late_charge", Decimal("1.00"))
    assert by_record.product == "sip-trunking"


def test_a_cost_in_another_currency_is_not_compared() -> None:
    """The last look's total in another currency is remarked and makes no difference in money."""
    before = msgspec.structs.replace(verdict(_with()), currency="EUR")
    found = verdict(_with(), before=before)
    assert "late_charge" not in codes(found)
    assert any("EUR" in remark for remark in found.remarks)
