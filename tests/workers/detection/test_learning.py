"""Judging and learning over days of calls: what is told, what is learned, and what is not."""

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec
import pytest

from service.records import Severity
from tests.samples import node
from tests.workers.detection.calls import (
    BEGIN_MS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    UNBOUND,
    codes,
    lognormal,
    recorded,
    steady,
    taught,
)
from workers.backtest import Backtest, Judged
from workers.detection.baseline import Baseline, lesson_of
from workers.detection.measure import Measured
from workers.detection.memory import Memory
from workers.detection.opinion import Gates, Opinion, opinion_of
from workers.detection.sketch import WIDTH
from workers.judge import Case, Grounds, measured_of
from workers.policy import BUILT_IN, Policy, Steps
from workers.recorded import Recorded

WEEKS: Final = 900
"""Calls of two weeks and a half, one every half hour."""
EVERY_MS: Final = HOUR_MS // 2
AFTER: Final = BEGIN_MS + WEEKS * EVERY_MS
STEADY, STEADY_SAID = taught(steady(WEEKS, every_ms=EVERY_MS))


def alerts(said: Sequence[Judged]) -> list[bool]:
    return [judged.grounds.severity is not None for judged in said]


def after(test: Backtest, *calls: Recorded) -> list[Grounds]:
    """What it says of calls, without teaching the next test."""
    copied = deepcopy(test)
    return [copied.session(call).grounds for call in calls]


def then(calls: int, *, every_ms: int = EVERY_MS, **what: Any) -> list[Recorded]:
    """Calls that follow two weeks and a half of steady ones."""
    return [recorded(WEEKS + n, AFTER + n * every_ms, **what) for n in range(calls)]


def rungs(test: Backtest, call: Recorded) -> tuple[Baseline, ...]:
    measured = measured_of(Case(tree=call.tree, call=call.call), UNBOUND)
    assert measured is not None
    assert call.call.end_ms
    return test.memory.ladder(measured.ladder, call.call.end_ms // DAY_MS).baselines


# --- what is told ------------------------------------------------------------------------------


def test_no_spread_neither_alarms_at_a_cent_nor_goes_blind() -> None:
    """Where every call has cost 0.20 for weeks, 0.21 is nothing, 0.60 a reason, 2.00 an alert."""
    assert not any(judged.grounds.reasons for judged in STEADY_SAID)
    cent, more, much = (after(STEADY, *then(1, per_minute=cost))[0] for cost in (0.105, 0.2, 1))
    assert cent.reasons == ()
    assert more.severity is None
    assert "unusual_cost" in codes(more)
    assert much.severity is Severity.MEDIUM


def test_an_anomaly_does_not_teach() -> None:
    """After one dear call, or seven, the next like it alerts as loudly."""
    found = after(STEADY, *then(8, minutes=20))
    assert [verdict.severity for verdict in found] == [Severity.MEDIUM] * 8
    assert len({verdict.excess for verdict in found}) == 1


def test_a_lasting_change_teaches() -> None:
    """A new price alerts for hours and then no more, and the baseline names it."""
    test = deepcopy(STEADY)
    dear = [test.session(call) for call in then(120, per_minute=0.4, rate="0.4")]
    told = alerts(dear)
    last = len(told) - told[::-1].index(True)
    assert all(told[:8])
    assert last < 60
    finest = rungs(test, then(121)[-1])[0]
    assert {"rate:sip-trunking:DE:0.4", "total"} <= set(finest.changes)
    assert not test.session(then(121)[-1]).grounds.severity


def test_a_price_that_changes_for_everybody_is_one_change() -> None:
    """Ten connections, a call of each in turn: all of them together show that it lasts."""

    def calls(begin: int, count: int, rate: float) -> Iterator[Recorded]:
        for number in range(begin, begin + count):
            yield recorded(
                number,
                BEGIN_MS + number * EVERY_MS,
                minutes=6 + 7 * number % 41,
                per_minute=rate,
                rate=str(rate),
                connection_id=f"c{number % 10}",
            )

    test, before = taught(calls(0, 400, 0.1), UNBOUND)
    assert not any(alerts(before)[200:])
    told = [test.session(call).grounds for call in calls(400, 60, 0.14)]
    new = [any(reason.code == "unknown_rate" for reason in verdict.reasons) for verdict in told]
    assert new[0]
    assert sum(new) < 20, "two for each connection, and not the eight that one alone would need"
    assert not any(new[30:])


def test_a_change_of_a_part_of_the_calls_teaches_too() -> None:
    """One call in six is dear from now on: after some days that is how it is."""
    test = deepcopy(STEADY)
    told = []
    for number in range(300):
        dear = number % 6 == 0
        call = recorded(WEEKS + number, AFTER + number * EVERY_MS, minutes=20 if dear else 2)
        told.append(test.session(call).grounds.severity is not None)
        assert dear or not told[-1]
    assert told[0]
    assert sum(told) < 30
    assert not any(told[-60:])


def test_novelty_is_told_once() -> None:
    """The first call with a new product, model or country says so, and the next does not."""
    for what in (
        {"extra": [node("recording", "0.5", id="r")]},
        {"to": "+2348012345678", "minutes": 8},
    ):
        first, *others = after(STEADY, *then(4, **what))
        assert [code for code in codes(first) if code.startswith("new_")]
        assert not [c for each in others for c in codes(each) if c.startswith("new_")]


def test_a_models_novelty_is_told_once() -> None:
    """Whatever its name is made of."""
    ai: dict[str, Any] = {"assistant_id": "a1", "turns": (0.01, 0.02)}
    test, _ = taught(steady(100, every_ms=EVERY_MS, **ai))
    calls = [
        recorded(n, AFTER + n * EVERY_MS, model="vendor/claude:3:0", **ai | {"turns": (0.4, 0.5)})
        for n in range(3)
    ]
    told = ["new_model" in codes(verdict) for verdict in after(test, *calls)]
    assert told == [True, False, False]


def test_the_ceiling_alerts_whatever_is_usual() -> None:
    """TOLLWATCH_MAX_SESSION_COST stays what it says: on the first call and on all others."""
    policy = UNBOUND.model_copy(update={"max_session_cost": Decimal("0.19")})
    _, said = taught(steady(60), policy)
    assert all(alerts(said))
    assert {reason.code for judged in said for reason in judged.grounds.reasons} == {"session_cost"}


def test_nothing_is_compared_where_nothing_is_to_be_learned() -> None:
    """With `learn: false` only what somebody set counts, and nothing is remembered."""
    policy = UNBOUND.model_copy(update={"learn": False})
    test, said = taught([*steady(60), *then(1, minutes=200)], policy)
    assert not any(judged.grounds.reasons or judged.score for judged in said)
    assert not test.memory.sheets()


def test_a_foreign_cost_neither_is_compared_nor_teaches() -> None:
    """Twenty calls in euros leave the baseline in dollars as it was."""
    test = deepcopy(STEADY)
    before = rungs(test, then(1)[0])
    for call in then(20, minutes=300, currency="EUR"):
        assert codes(test.session(call).grounds) == {"foreign_currency"}
    assert rungs(test, then(1)[0]) == before


# --- the first days ----------------------------------------------------------------------------


def test_it_is_useful_on_the_first_day() -> None:
    """A new assistant's fifth call is judged by what the account's calls cost."""
    new = {"assistant_id": "new", "turns": (0.01, 0.02)}
    old, _ = taught(lognormal(300, Random(3), assistant_id="old", turns=(0.01, 0.02)))
    first = [recorded(n, BEGIN_MS + 40 * HOUR_MS + n * MINUTE_MS, **new) for n in range(5)]
    dear = recorded(9, BEGIN_MS + 41 * HOUR_MS, **new | {"turns": (0.05,) * 80})
    *usual, loop = after(old, *first, dear)
    assert not any(verdict.severity for verdict in usual)
    assert loop.severity is not None
    assert not [r for r in loop.reasons if (r.learned_from or "").startswith("new/")]


def test_it_is_exact_after_a_week() -> None:
    """A cohort far below the account's middle then alerts on what is usual elsewhere."""

    def week() -> Iterator[Recorded]:
        rng = Random(4)
        for number in range(700):
            cheap = number % 4 == 0
            minutes = math.exp(rng.gauss(0, 0.2)) if cheap else math.exp(rng.gauss(3, 0.4))
            who = "cheap" if cheap else "dear"
            at_ms = BEGIN_MS + number * HOUR_MS // 4
            yield recorded(number, at_ms, minutes=minutes, connection_id=who)

    test, _ = taught(week())
    at_ms = BEGIN_MS + 8 * DAY_MS
    fine = recorded(1, at_ms, minutes=20, connection_id="dear")
    odd = recorded(2, at_ms, minutes=20, connection_id="cheap")
    verdicts = after(test, fine, odd)
    assert not verdicts[0].reasons
    assert verdicts[1].severity is Severity.MEDIUM
    assert verdicts[1].reasons[0].learned_from == "cheap/outbound/DE/phone"


def test_nobody_knows_anything_at_first() -> None:
    """The first calls of all are not compared with nothing."""
    _, said = taught(recorded(n, minutes=4**n) for n in range(5))
    assert not any(judged.grounds.reasons for judged in said)


# --- how often it is wrong -----------------------------------------------------------------------

OPEN: Final = Steps(low=Decimal("0.01"), medium=Decimal(1), high=Decimal(5), critical=Decimal(25))
"""With these nothing is kept quiet for being small: only the likelihood decides."""


def several(calls: int, rng: Random) -> Iterator[Recorded]:
    """Four cohorts with log-normal durations, rare ones and short ones among them."""
    for number in range(calls):
        (place,) = rng.choices(range(4), [50, 30, 15, 5])
        minutes = math.exp(rng.gauss((1.5, 0.5, 2, 1)[place], (0.3, 0.6, 0.5, 0.9)[place]))
        turns: tuple[float, ...] = ()
        if place < 2:
            each = 0.01 * math.exp(rng.gauss(0, 0.3))
            turns = (each,) * (1 + int(2 * minutes))
        yield recorded(
            number,
            BEGIN_MS + number * HOUR_MS // 12,
            minutes=minutes,
            per_minute=(0.01, 0.02, 0.12, 0.05)[place],
            rate=None,
            turns=turns[:40],
            connection_id=f"c{place}",
            assistant_id=f"a{place}" if turns else None,
        )


def long_tailed(calls: int, rng: Random) -> Iterator[Recorded]:
    """Durations with a tail far beyond log-normal."""
    for number in range(calls):
        minutes = 1.5 * rng.paretovariate(2.5)
        yield recorded(number, BEGIN_MS + number * HOUR_MS // 12, minutes=minutes)


def false_alerts(calls: Sequence[Recorded], wanted: int) -> float:
    """Per 1,000 calls that are all normal."""
    policy = UNBOUND.model_copy(
        update={
            "false_alerts_per_1000_normal_calls": Decimal(wanted),
            "severity": OPEN,
            "least_factor": Decimal(1),
        }
    )
    return 1000 * sum(alerts(taught(calls, policy)[1])) / len(calls)


@pytest.mark.no_cover
def test_it_keeps_to_the_number_of_false_alerts() -> None:
    """Of normal calls no more are alerted than the policy allows, and more where it allows more."""
    calls = list(several(3000, Random(1)))
    found = [false_alerts(calls, wanted) for wanted in (1, 10, 50)]
    assert all(rate <= wanted for rate, wanted in zip(found, (1, 10, 50), strict=True))
    assert found == sorted(found)
    assert found[2] > 3


def test_a_long_tail_is_no_anomaly() -> None:
    """Some calls take very long where calls do: that is soon known."""
    calls = list(long_tailed(2500, Random(2)))
    assert false_alerts(calls, 10) <= 10


# --- what must not matter ------------------------------------------------------------------------


def in_cents(policy: Policy) -> Policy:
    steps = {name: 100 * amount for name, amount in policy.severity}
    return policy.model_copy(
        update={
            "severity": Steps(**steps),
            "max_session_cost": 100 * policy.max_session_cost,
            "difference_tolerance": 100 * policy.difference_tolerance,
        }
    )


def traffic(unit: int) -> Iterator[Recorded]:
    """Two days of normal calls, and something odd in each twentieth after the first hundred."""
    rng = Random(6)
    oddities: list[dict[str, Any]] = [
        {"minutes": 90},
        {"turns": (0.01 * unit,) * 300},
        {"per_minute": 0.5 * unit, "rate": f"{0.5 * unit:g}"},
        {"extra": [node("recording", f"{3 * unit}", id="r")]},
        {"turns": ()},
        {"per_minute": 0.02 * unit, "rate": f"{0.02 * unit:g}"},
    ]
    for number in range(500):
        usual: dict[str, Any] = {
            "minutes": math.exp(rng.gauss(1, 0.4)),
            "turns": tuple(0.01 * unit * math.exp(rng.gauss(0, 0.3)) for _ in range(4)),
            "per_minute": 0.1 * unit,
            "rate": f"{0.1 * unit:g}",
            "assistant_minute": 0.05 * unit,
            "assistant_id": "a1",
        }
        odd = oddities[number // 20 % 6] if number > 100 and number % 20 == 0 else {}
        yield recorded(number, BEGIN_MS + number * 6 * MINUTE_MS, **usual | odd)


def test_cents_or_dollars_come_to_the_same() -> None:
    """All amounts times 100, those of the policy, too: the same calls have the same severity.

    "Same" is meant for what is told. A bucket's edge is elsewhere in cents, so figures that were
    estimated move by as much as the sketch's error: which of two reasons about a product has more
    money in it may change (a dearer price, and the dearer minute that follows from it), and the
    score of what is far out moves with the spread.
    """
    policy = BUILT_IN.model_copy(update={"ceilings": ()})
    _, dollars = taught(traffic(1), policy)
    _, cents = taught(traffic(100), in_cents(policy))
    assert sum(alerts(dollars)) >= 12
    for one, other in zip(dollars, cents, strict=True):
        assert one.grounds.severity == other.grounds.severity
        assert _told(one) == _told(other)
        excesses = float(one.grounds.excess), float(other.grounds.excess) / 100
        assert math.isclose(*excesses, rel_tol=0.1)
        assert math.isclose(one.score, other.score, rel_tol=0.3, abs_tol=0.3)


def test_a_whole_number_of_buckets_changes_nothing_at_all() -> None:
    """Money in a unit of a power of the sketch's ratio: the same is unlikely, by as much."""
    unit = math.exp(92 * WIDTH)
    opinions = [list(_opinions(traffic(1), each)) for each in (1.0, unit)]
    assert sum(bool(opinion.told) for opinion in opinions[0]) >= 12
    for one, other in zip(*opinions, strict=True):
        assert [each.name for each in one.unlikely] == [each.name for each in other.unlikely]
        assert len(one.told) == len(other.told)
        assert math.isclose(one.score, other.score, rel_tol=1e-6)


def _opinions(calls: Iterable[Recorded], unit: float) -> Iterator[Opinion]:
    memory, gates = Memory(), Gates.of(UNBOUND)
    gates = replace(gates, least_excess=gates.least_excess * unit)
    for call in calls:
        measured = measured_of(Case(tree=call.tree, call=call.call), UNBOUND)
        assert measured is not None
        opinion = opinion_of(
            _times(measured, unit), memory.ladder(measured.ladder, BEGIN_MS // DAY_MS), gates
        )
        memory.learn(lesson_of(opinion.measured, BEGIN_MS), strange=bool(opinion.unlikely))
        memory.keep_apart(opinion, (call.call.end_ms or 0) // HOUR_MS)
        yield opinion


def _times(measured: Measured, unit: float) -> Measured:
    money = {"total", "per_minute", "cost", "cost_per_minute", "each"}
    values = {
        name: value * unit if name.partition(":")[0] in money else value
        for name, value in measured.values.items()
    }
    products = {
        name: msgspec.structs.replace(product, cost=product.cost * Decimal(unit))
        for name, product in measured.products.items()
    }
    return msgspec.structs.replace(
        measured, total=measured.total * unit, values=values, products=products
    )


def _told(judged: Judged) -> set[str | None]:
    """What the alert is about: the session, products."""
    return {reason.product for reason in judged.grounds.reasons if reason.severity}


def test_the_order_within_the_settling_time_hardly_matters() -> None:
    """Calls that are judged some minutes earlier or later: nearly all verdicts are the same."""
    calls = list(traffic(1))
    shuffled = _jumbled(calls, Random(8))
    assert [call.call.session_id for call in shuffled] != [c.call.session_id for c in calls]
    in_order, out_of_order = (
        {judged.session_id: judged.grounds.severity for judged in taught(each)[1]}
        for each in (calls, shuffled)
    )
    changed = [id for id, severity in in_order.items() if out_of_order[id] != severity]
    assert len(changed) <= len(calls) / 100


def test_what_is_remembered_does_not_depend_on_the_order() -> None:
    """After calls that were all usual, the memory is the same however they came."""
    calls = list(lognormal(400, Random(9), spread=0.3))
    tests = [taught(each)[0] for each in (calls, _jumbled(calls, Random(8)))]
    last = calls[-1]
    assert tests[0].memory.sheets() == tests[1].memory.sheets()
    assert tests[0].memory.strange() == tests[1].memory.strange() == {}
    assert len(rungs(tests[0], last)) == 5


def _jumbled(calls: Sequence[Recorded], rng: Random) -> list[Recorded]:
    """Each comes up to ten minutes late."""
    return sorted(calls, key=lambda each: (each.call.end_ms or 0) + rng.uniform(0, 9.9 * MINUTE_MS))
