"""What a session has that its like never had, and what it lacks that they always have.

A price that nobody was charged before, a product, a model, a country; an assistant that did not
think, a call that cost nothing. How likely that is follows from how often it happened so far; of
what never did, Good and Turing say: as often as there are things that happened once.
"""

import math
from collections.abc import Iterator
from typing import Final

from workers.detection.baseline import Baseline, group_of
from workers.detection.cohort import UNANSWERED
from workers.detection.deviation import Deviation
from workers.detection.ladder import UNSEEN, Ladder
from workers.detection.measure import (
    FREE,
    PER_MINUTE,
    RATE,
    TOTAL,
    Measured,
    names_of,
    priced_product,
)
from workers.products import INFERENCE

UNKNOWN_RATE: Final = "unknown_rate"
_NEW: Final = {"product": "new_product", "model": "new_model", "country": "new_country"}
_SMALLEST: Final = 1e-9


def strange_traits(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    """What is less likely than `least`."""
    familiar = ladder.familiar
    for trait in [each for each in measured.traits if each not in familiar]:
        unseen = ladder.unseen(trait)
        if unseen is None or unseen[0] >= least:
            continue
        likelihood, baseline = unseen
        found = (
            _price(trait, likelihood, measured, baseline)
            if trait.startswith(RATE)
            else _new(trait, likelihood, measured, baseline)
        )
        if found is not None:
            yield found
    if measured.cohort.kind != UNANSWERED:
        yield from _missing(measured, ladder, least)


def _price(
    trait: str, likelihood: float, measured: Measured, baseline: Baseline
) -> Deviation | None:
    product = priced_product(trait)
    group = group_of(trait) + ":"
    known = [_rate(t) for t in baseline.traits if t.startswith(group)]
    if not known:
        return None
    rate, cost = _rate(trait), float(measured.products[product].cost)
    expected = min(
        known, key=lambda each: abs(math.log(max(each, _SMALLEST) / max(rate, _SMALLEST)))
    )
    return Deviation(
        code=UNKNOWN_RATE,
        likelihood=likelihood,
        observed=rate,
        expected=expected,
        high=max(known),
        # A price that has fallen is worth a word, and nobody's sleep. Credits have none.
        excess=max(0.0, cost * (rate - max(0.0, expected)) / rate) if rate > 0 else 0.0,
        cohort=baseline,
        name=trait,
        product=product,
    )


def _rate(trait: str) -> float:
    return float(trait.rpartition(":")[2])


def _new(trait: str, likelihood: float, measured: Measured, baseline: Baseline) -> Deviation | None:
    group, _, name = trait.partition(":")
    code = _NEW.get(group)
    if code is None:
        return None
    return Deviation(
        code=code,
        likelihood=likelihood,
        observed=1.0,
        expected=0.0,
        high=0.0,
        excess=max(0.0, _cost_of_new(measured, group, name, baseline)),
        cohort=baseline,
        name=trait,
        product=name if group == "product" else None,
    )


def _cost_of_new(measured: Measured, group: str, name: str, baseline: Baseline) -> float:
    match group:
        case "product":
            return float(measured.products[name].cost)
        case "model":
            names = names_of(INFERENCE)
            usual = _usual(baseline, names.cost_per_minute) * measured.minutes
            return measured.values.get(names.cost, 0.0) - usual
        case _:
            return measured.total - _usual(baseline, TOTAL)


def _usual(baseline: Baseline, measure: str) -> float:
    spread = baseline.spreads.find(measure)
    return math.exp(spread.middle) if spread else 0.0


def _missing(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    if FREE in measured.traits:
        speaker = ladder.speaker
        if speaker is not None:
            likelihood = (speaker.traits.get(FREE, 0) + UNSEEN) / speaker.calls
            yield from _lacking(FREE, PER_MINUTE, likelihood, least, measured, speaker)
        return
    for product, likelihood, baseline in ladder.always:
        if product not in measured.products:
            name, cost = f"product:{product}", names_of(product).cost_per_minute
            yield from _lacking(name, cost, likelihood, least, measured, baseline)


def _lacking(
    name: str, cost: str, likelihood: float, least: float, measured: Measured, baseline: Baseline
) -> Iterator[Deviation]:
    """`cost` is the measure of what it usually costs per minute."""
    spread = baseline.spreads.find(cost)
    if likelihood >= least or spread is None:
        return
    expected = math.exp(spread.middle) * measured.minutes
    yield Deviation(
        code="missing_cost" if name == FREE else "missing_product",
        likelihood=likelihood,
        observed=0.0,
        expected=expected,
        high=math.exp(spread.high) * measured.minutes,
        excess=-expected,
        cohort=baseline,
        name=name,
        product=None if name == FREE else name.partition(":")[2],
    )
