"""Whether a session is told: it must be unlikely, and it must matter."""

import math
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace as changed

from service.records import Severity, Verdict
from tests.samples import node
from tests.workers.detection.calls import BEGIN_MS, HOUR_MS, UNBOUND, lognormal, recorded, taught
from workers.backtest import score_of
from workers.detection.deviation import Deviation
from workers.detection.opinion import Gates, Opinion, opinion_of
from workers.judge import Case, Grounds, grounds_of, judge, measured_of
from workers.policy import Policy, Steps

LEARNED, _ = taught(lognormal(600, Random(5), spread=0.4, assistant_id="a1", turns=(0.01, 0.02)))
NEXT_MS = BEGIN_MS + 80 * HOUR_MS
WISH = "false_alerts_per_1000_normal_calls"
USUAL: dict[str, Any] = {"minutes": 4.5, "assistant_id": "a1", "turns": (0.01, 0.02)}


def case(**what: Any) -> Case:
    call = recorded(1, NEXT_MS, **USUAL | what)
    return Case(tree=call.tree, call=call.call)


def opinion(found: Case, policy: Policy = UNBOUND) -> Opinion:
    measured = measured_of(found, policy)
    assert measured is not None
    ladder = LEARNED.memory.ladder(measured.ladder, 0)
    return opinion_of(measured, ladder, Gates.of(policy))


def verdict(policy: Policy = UNBOUND, **what: Any) -> Verdict:
    found = case(**what)
    return judge(found, policy, opinion(found, policy), at_ms=NEXT_MS)


def severities(found: Grounds | Verdict) -> dict[str, Severity | None]:
    return {reason.code: reason.severity for reason in reversed(found.reasons)}


def policy(**changes: Any) -> Policy:
    return UNBOUND.model_copy(update=changes)


def test_a_usual_call_has_no_reason() -> None:
    """Nothing is listed of a call like all others."""
    assert verdict().reasons == ()
    assert opinion(case()).score == 0


def test_unlikely_but_small_is_listed() -> None:
    """A tenfold count of turns that cost next to nothing is a reason without a severity."""
    found = verdict(turns=(0.0005,) * 60)
    assert severities(found)["unusual_events"] is None
    assert found.severity is None


def test_much_money_at_a_small_factor_is_listed() -> None:
    """It must be so many times the usual, too, however much money that is."""
    assert verdict(per_minute=0.5, rate="0.5").severity is Severity.MEDIUM
    assert verdict(policy(least_factor=Decimal(8)), per_minute=0.5, rate="0.5").severity is None
    listed = verdict(policy(least_factor=Decimal(8)), per_minute=0.5, rate="0.5").reasons
    assert {"unknown_rate", "unusual_cost_per_minute"} & {reason.code for reason in listed}


def test_the_factor_counts_from_its_bound_on() -> None:
    """Just at the policy's factor a deviation is told."""
    found = opinion(case(per_minute=0.5, rate="0.5"))
    strangest = max(found.unlikely, key=lambda each: each.excess)
    for factor, is_told in ((strangest.factor, True), (strangest.factor * 1.01, False)):
        gates = replace(Gates.of(UNBOUND), least_factor=factor)
        again = opinion_of(found.measured, found.ladder, gates)
        assert (strangest in again.told) is is_told


def test_the_money_counts_from_its_bound_on() -> None:
    """Just at the policy's lowest step a deviation is told, and a cent below it is listed."""
    found = opinion(case(per_minute=0.5, rate="0.5"))
    strangest = max(found.unlikely, key=lambda each: each.excess)
    for least, is_told in ((strangest.excess, True), (strangest.excess + 0.01, False)):
        gates = replace(Gates.of(UNBOUND), least_excess=least)
        again = opinion_of(found.measured, found.ladder, gates)
        assert (strangest in again.told) is is_told


@pytest.mark.parametrize(("minutes", "severity"), [(30, "medium"), (60, "high"), (240, "critical")])
def test_severity_follows_from_the_excess(minutes: int, severity: str) -> None:
    """The more money over the usual, the worse."""
    found = verdict(minutes=minutes)
    assert found.severity == severity
    worst = found.reasons[0]
    assert UNBOUND.severity_of(worst.excess) == severity
    assert abs(worst.observed - worst.limit - worst.excess) < Decimal("0.000001")


def test_a_lower_wish_for_false_alerts_tells_less() -> None:
    """Whatever is told under a strict policy is told under a lenient one, and not the reverse."""
    told = [
        {each.name for each in opinion(case(minutes=20), policy(**{WISH: Decimal(n)})).told}
        for n in ("0.0001", "1", "100")
    ]
    assert told[0] <= told[1] <= told[2]
    assert not told[0]
    assert told[2]


def test_more_looks_need_more_evidence() -> None:
    """Of many things looked at one is always odd: each is believed less for it."""
    plain = opinion(case(minutes=25))
    parts = [node(f"part-{place}", "0.0001", id=f"p{place}") for place in range(20)]
    many = opinion(case(minutes=25, extra=parts))
    named = [{each.name for each in found.unlikely} for found in (plain, many)]
    assert "total" in named[0] - named[1]


def named(name: str, **what: Any) -> Deviation:
    (found,) = [each for each in opinion(case(**what)).unlikely if each.name == name]
    return found


def test_the_excess_is_that_of_the_whole_call() -> None:
    """What is too dear by the minute or the event is so for each minute and each event."""
    by_minute = named("per_minute", per_minute=0.5, rate="0.5")
    over = by_minute.observed - by_minute.expected
    assert by_minute.excess == pytest.approx(5 * over)
    by_event = named("each:inference", turns=(0.5, 0.5, 0.5))
    assert by_event.excess == pytest.approx(3 * (0.5 - by_event.expected))
    assert by_event.excess == pytest.approx(1.45, abs=0.05)


def test_of_events_the_excess_is_their_share_of_the_cost() -> None:
    """Sixty turns instead of two: the money in the other fifty-eight."""
    loop = named("events:inference", turns=(0.05,) * 60)
    assert loop.excess == pytest.approx(58 * 0.05, rel=0.02)


def test_traits_are_four_looks() -> None:
    """Prices, new and missing things, no cost at all: each is believed less for the others."""
    found = opinion(case(extra=[node("recording", "2.5", id="r")]))
    (new,) = [each for each in found.unlikely if each.code == "new_product"]
    alone = changed(found.measured, values={})
    again = opinion_of(alone, found.ladder, Gates.of(UNBOUND))
    assert again.score == pytest.approx(-math.log10(4 * new.likelihood))


def test_a_price_is_compared_with_the_nearest_known() -> None:
    """Of several prices that were usual, the one that it differs least from, as a factor."""
    prices = ("0.01", "0.1", "0.4")
    test, _ = taught(
        recorded(n, BEGIN_MS + n * HOUR_MS, per_minute=float(prices[n % 3]), rate=prices[n % 3])
        for n in range(90)
    )
    for rate, expected in (("0.012", "0.01"), ("0.09", "0.1"), ("0.3", "0.4"), ("5", "0.4")):
        copied = deepcopy(test)
        judged = copied.session(recorded(99, BEGIN_MS + 99 * HOUR_MS, rate=rate))
        (wrong,) = [r for r in judged.grounds.reasons if r.code == "unknown_rate"]
        assert (wrong.observed, wrong.limit) == (Decimal(rate), Decimal(expected))


def test_a_call_that_nobody_took_misses_nothing() -> None:
    """It cost nothing, and has no assistant: as it should be."""
    test, _ = taught(lognormal(300, Random(2)))
    at_ms = BEGIN_MS + 400 * HOUR_MS
    missed, free = (recorded(1, at_ms, minutes=m, per_minute=0) for m in (0, 30))
    assert severities(deepcopy(test).session(free).grounds) == {"missing_cost": Severity.MEDIUM}
    assert deepcopy(test).session(missed).grounds.reasons == ()


def test_something_missing_is_told() -> None:
    """An assistant's call in which nobody thought; a call that cost nothing."""
    found = verdict(turns=(), minutes=30, extra=[node("ai-voice-assistant", "1.5", id="ai")])
    assert "missing_product" in severities(found)
    free = verdict(turns=(), per_minute=0, minutes=30)
    assert severities(free) == {"missing_cost": Severity.MEDIUM}


def test_what_is_missing_in_a_cut_tree_may_be_there() -> None:
    """Only of a tree that is whole is it said that something is not in it."""
    whole = case(turns=(), minutes=30)
    for found in (changed(whole, whole=False), changed(whole, settled=False)):
        codes = {r.code for r in judge(found, UNBOUND, opinion(found), at_ms=0).reasons}
        assert not [code for code in codes if code.startswith("missing_")]


def test_a_dearer_price_is_told_and_a_cheaper_one_listed() -> None:
    """A price that has fallen is worth a word, and nobody's sleep."""
    dearer, cheaper = verdict(rate="0.3"), verdict(rate="0.02")
    assert severities(dearer) == {"unknown_rate": Severity.LOW}
    assert severities(cheaper) == {"unknown_rate": None}
    assert cheaper.excess == 0


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"extra": [node("recording", "2.5", id="r")]}, "new_product"),
        ({"model": "vendor/large:2", "turns": (0.5, 0.9)}, "new_model"),
        ({"to": "+2348012345678", "minutes": 30}, "new_country"),
    ],
)
def test_something_new_is_told_with_its_money(what: dict[str, Any], code: str) -> None:
    """A product, a model, a destination that these calls never had."""
    assert severities(verdict(**what))[code] in {Severity.LOW, Severity.MEDIUM, Severity.HIGH}


def test_prices_of_products_with_odd_names() -> None:
    """A product that Telnyx never told of, with a colon in its name, is judged like any other."""
    part = [node("a:b", "0.05", id="odd", rate="0.01")]
    test, _ = taught(recorded(n, BEGIN_MS + n * HOUR_MS, extra=part) for n in range(60))
    odd = [node("a:b", "5", id="odd", rate="1")]
    judged = test.session(recorded(61, BEGIN_MS + 61 * HOUR_MS, extra=odd))
    assert severities(judged.grounds)["unknown_rate"] is Severity.MEDIUM


def test_another_currency_is_not_compared() -> None:
    """Amounts in euros say nothing against amounts in dollars; nor do costs that still grow."""
    assert measured_of(case(currency="EUR"), UNBOUND) is None
    assert measured_of(changed(case(), provisional=True), UNBOUND) is None


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"extra": [node("recording", "0.002", id="r")]},
        {"turns": (0.01,) * 40},
        {"turns": (0.0005,) * 60},
        {"rate": "0.11"},
        {"minutes": 20},
    ],
)
@pytest.mark.parametrize("dearer", ["price", "length"])
def test_a_dearer_call_is_never_less_strange(odd: dict[str, Any], dearer: str) -> None:
    """Whatever else is odd: the more it costs, by price or by length, the higher it scores."""
    scores = []
    for step in range(0, 250, 2):
        more = 1.02**step
        what = {"per_minute": 0.1 * more} if dearer == "price" else {"minutes": 4.5 * more}
        found = case(**what | odd)
        thought = opinion(found)
        scores.append(score_of(grounds_of(found, UNBOUND, thought), thought))
    assert all(higher >= lower for lower, higher in pairwise(scores))


def test_what_is_told_scores_above_what_is_listed() -> None:
    """One threshold on the score tells them apart: that of the policy's wish."""
    gate = 3.0
    assert Gates.of(UNBOUND).likelihood == 10**-gate
    for what in ({"minutes": 60}, {"per_minute": 0.3}, {"turns": (0.0005,) * 60}, {"minutes": 9}):
        found = opinion(case(**what))
        assert (found.score >= gate) == bool(found.told)


def test_money_steps_are_those_of_the_policy() -> None:
    """Another lowest step alerts on another excess."""
    steps = Steps(low=Decimal(3), medium=Decimal(4), high=Decimal(5), critical=Decimal(25))
    assert verdict(minutes=30).severity is Severity.MEDIUM
    assert verdict(policy(severity=steps), minutes=30).severity is Severity.LOW
    assert verdict(policy(severity=steps), minutes=25).severity is None
