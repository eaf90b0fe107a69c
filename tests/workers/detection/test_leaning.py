"""A cohort's own word, and those of the coarser ones as far as it lacks calls."""

import math
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from workers.detection.baseline import EMPTY, NARROWEST, Baseline, Spread, Spreads
from workers.detection.ladder import Ladder
from workers.detection.leaning import LEAST_CALLS, Usual, usual_of


def given_spreads(made: Mapping[str, Spread]) -> Spreads:
    spreads = Spreads({}, {}, 0)
    spreads._made.update(made)
    return spreads


def baseline(spread: Spread | None, name: str = "c") -> Baseline:
    spreads: Mapping[str, Spread] = {} if spread is None else {"total": spread}
    return Baseline(name, round(spread.calls) if spread else 0, 7, given_spreads(spreads), {}, {})


def spread(calls: float, middle: float = 0.0, deviation: float = 0.3) -> Spread:
    high = middle + 2.3 * deviation
    return Spread(calls, middle, deviation, middle - 1.6 * deviation, high)


def usual(*spreads: Spread | None) -> Usual:
    found = usual_of("total", [baseline(each) for each in spreads])
    assert found is not None
    return found


@st.composite
def ladders(draw: st.DrawFn) -> list[Spread]:
    """From the finest cohort to the account: each has the calls of the finer one, and more."""
    calls = 0.0
    found = []
    for _ in range(draw(st.integers(1, 5))):
        calls += draw(st.floats(0.01, 3000))
        middle, deviation = draw(st.floats(-9, 9)), draw(st.floats(0, 2))
        found.append(spread(calls, middle, deviation))
    return found


@given(ladders(), st.floats(-20, 20), st.floats(0, 20))
def test_further_is_never_likelier(spreads: list[Spread], log: float, more: float) -> None:
    """The likelihood of a usual call that goes at least so far falls with how far that is."""
    found = usual(*spreads)
    assert found.beyond(log + more) <= found.beyond(log) * (1 + 1e-12)


@given(ladders())
def test_a_likelihood_is_one(spreads: list[Spread]) -> None:
    """Everything goes further than nothing; and what nobody knows stays possible."""
    found = usual(*spreads)
    assert math.isclose(found.beyond(-1e6), 1)
    assert 0 <= found.unknown <= found.beyond(1e6) <= 1
    assert math.isclose(found.unknown + sum(word.weight for word in found.words), 1)


@given(ladders(), st.floats(-5, 5), st.floats(-20, 20))
def test_a_factor_on_everything_changes_nothing(
    spreads: list[Spread], factor: float, log: float
) -> None:
    """In another unit of money the same is as likely."""
    moved = [spread(each.calls, each.middle + factor, each.deviation) for each in spreads]
    here, there = usual(*spreads).beyond(log), usual(*moved).beyond(log + factor)
    assert math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-12)


def test_few_calls_lean_on_the_coarser_cohort() -> None:
    """A cohort of five calls that never varied takes the spread of the account's."""
    wide = spread(1000, deviation=0.8)
    alone, leaning = usual(spread(5, deviation=0)), usual(spread(5, deviation=0), wide)
    narrow = usual(spread(5, deviation=0), spread(1000, deviation=0.06))
    assert alone.unknown > 0.05
    assert leaning.unknown < 1e-9
    assert leaning.beyond(1.6) > 0.01 > narrow.beyond(1.6)


def test_what_is_usual_for_others_is_possible_here_at_first() -> None:
    """In a new cohort, far below the account, the account's usual is no wonder until later."""
    account = spread(5000, middle=3)
    first, later = usual(spread(2), account), usual(spread(60), account)
    assert first.beyond(3) > 0.1
    assert later.beyond(3) < 1e-6


def test_many_calls_need_nobody() -> None:
    """After enough calls of its own a cohort judges exactly, whatever the account says."""
    own = spread(3000, deviation=0.4)
    exact = 0.5 * math.erfc(1.2 / 0.4 * math.sqrt(0.5))
    for account in (spread(9000, middle=5), spread(9000, deviation=1)):
        assert math.isclose(usual(own, account).beyond(1.2), exact, rel_tol=0.3)


def test_no_spread_is_not_believed_to_the_cent() -> None:
    """Where calls never varied, a few percent more are usual, and three times as much are not."""
    never = usual(spread(5000, deviation=0))
    assert never.beyond(math.log(1.05)) > 0.1
    assert never.beyond(math.log(3)) < 1e-30
    assert never.words[0].per_deviation < 1 / NARROWEST


def test_figures_are_those_of_a_cohort_with_a_say() -> None:
    """People are told of the finest cohort with enough calls, or else of the account."""
    few, many, account = spread(LEAST_CALLS - 1), spread(LEAST_CALLS), spread(500)
    assert usual(few, many, account).spread == many
    assert usual(few, few, few).spread == few
    assert usual_of("total", [EMPTY, baseline(None)]) is None
    assert usual(None, many).spread == many


def test_up_to_calm_nothing_is_strange() -> None:
    """What is not worth a closer look has a likelihood that no policy alerts on."""
    for calls in (30, 300, 3000):
        found = usual(spread(calls))
        assert found.beyond(math.log(found.calm)) > 0.02


@given(ladders(), st.lists(st.floats(-20, 20), min_size=1, max_size=5))
def test_what_is_passed_over_is_not_strange(spreads: list[Spread], logs: list[float]) -> None:
    """Whatever was asked before: what is beyond calm and the middle that is told, and only that."""
    found = usual(*spreads)
    ladder = Ladder([baseline(each) for each in spreads])
    for value in map(math.exp, logs):
        wanted = value > max(found.calm, math.exp(found.spread.middle))
        assert ladder.stirring({"total": value}) == ([("total", value, found)] if wanted else [])


def test_of_what_nobody_knows_nothing_is_strange() -> None:
    """However large it is."""
    assert Ladder([EMPTY, baseline(None)]).stirring({"total": 1e9}) == []
