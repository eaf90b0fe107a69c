"""How strange a session is: each of its measures and traits against what its cohorts usually show.

Each look has a likelihood: of a usual call that goes at least so far. The finest cohort's word
counts, and what it lacks in calls the coarser ones add.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workers.detection.baseline import Baseline, group_of
from workers.detection.ladder import Ladder
from workers.detection.leaning import LEAST_CALLS
from workers.detection.measure import FREE, PER_MINUTE, TOTAL, Measured, Names, names_of

_UNSEEN: Final = 0.004
"""So many unseen traits are held possible for each that a cohort has shown once, and besides."""
_USUAL_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as usual. Money and counts as floats: they are estimates."""

    code: str
    likelihood: float
    """Of a usual call that goes as far, for this look alone."""
    observed: float
    expected: float
    high: float
    """99 % of the usual calls are below."""
    excess: float
    """Money over the usual; under it where something is missing."""
    cohort: Baseline
    name: str
    """The measure or trait."""
    product: str | None = None

    @property
    def factor(self) -> float:
        """In times the expected."""
        return self.observed / self.expected if self.expected > 0 else math.inf

    @property
    def is_missing(self) -> bool:
        """Whether something is not there that always is."""
        return self.excess < 0


def deviations(measured: Measured, ladder: Ladder, least: float) -> list[Deviation]:
    """What is less likely than `least`, by baselines from the finest cohort to the account's."""
    if not ladder.calls:
        return []
    return [
        *_too_much(measured, ladder, least),
        *_prices(measured, ladder, least),
        *_new(measured, ladder, least),
        *_missing(measured, ladder, least),
    ]


# --- measures -----------------------------------------------------------------------------------


def _too_much(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    for name, value in measured.values.items():
        usual = ladder.usual(name)
        log = math.log(value)
        if usual is None or log <= usual.calm:
            continue
        likelihood = usual.beyond(log)
        spread = usual.spread
        if likelihood >= least or log <= spread.middle:
            continue
        what, _, product = name.partition(":")
        expected = math.exp(spread.middle)
        yield Deviation(
            code=_CODES[what],
            likelihood=likelihood,
            observed=value,
            expected=expected,
            high=math.exp(spread.high),
            excess=_excess(measured, what, product, value, expected),
            cohort=usual.baseline,
            name=name,
            product=product or None,
        )


_CODES: Final[Mapping[str, str]] = {
    TOTAL: "unusual_cost",
    PER_MINUTE: "unusual_cost_per_minute",
    "cost": "unusual_product_cost",
    "cost_per_minute": "unusual_product_cost",
    "events": "unusual_events",
    "events_per_minute": "unusual_events",
    "each": "unusual_cost_per_event",
    "billed": "unusual_billing",
}


MEASURES: Final = frozenset(_CODES.values())
"""The codes of measures that are too large."""


def _excess(measured: Measured, what: str, product: str, value: float, expected: float) -> float:
    over = value - expected
    match what:
        case "total" | "cost":
            return over
        case "per_minute" | "cost_per_minute":
            return over * measured.minutes
        case "each":
            return over * measured.products[product].events
        case "events_per_minute" | "events" | "billed":
            # The same share of the product's cost as of its events or its billed time.
            return float(measured.products[product].cost) * over / value
        case _:
            raise ValueError(what)


# --- prices -------------------------------------------------------------------------------------


def _prices(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    for trait in measured.traits:
        if not trait.startswith("rate:"):
            continue
        _, product, _, rate = trait.split(":", 3)
        found = _unseen(trait, ladder.baselines, f"product:{product}")
        if found is None:
            continue
        likelihood, baseline = found
        if likelihood >= least:
            continue
        group = group_of(trait) + ":"
        known = {t: n for t, n in baseline.traits.items() if t.startswith(group)}
        if not known:
            continue
        expected = _nearest(float(rate), known)
        observed = float(rate)
        cost = float(measured.products[product].cost)
        yield Deviation(
            code="unknown_rate",
            likelihood=likelihood,
            observed=observed,
            expected=expected,
            high=max(float(t.rpartition(":")[2]) for t in known),
            excess=cost * (observed - expected) / observed if observed else 0.0,
            cohort=baseline,
            name=trait,
            product=product,
        )


def _nearest(rate: float, known: Mapping[str, int]) -> float:
    rates = [float(trait.rpartition(":")[2]) for trait in known]
    return min(rates, key=lambda each: abs(math.log((each or 1e-9) / (rate or 1e-9))))


# --- something new ------------------------------------------------------------------------------


def _new(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    for trait in measured.traits:
        group = group_of(trait)
        code = _NEW.get(group)
        if code is None:
            continue
        # The cohort that is named after its country has none but this.
        rungs = ladder.without_country if group == "country" else ladder.baselines
        found = _unseen(trait, rungs, None)
        if found is None:
            continue
        likelihood, baseline = found
        if likelihood >= least:
            continue
        name = trait.rpartition(":")[2]
        yield Deviation(
            code=code,
            likelihood=likelihood,
            observed=1.0,
            expected=0.0,
            high=0.0,
            excess=_cost_of_new(measured, group, name, baseline),
            cohort=baseline,
            name=trait,
            product=name if group == "product" else None,
        )


_NEW: Final = {"product": "new_product", "model": "new_model", "country": "new_country"}


def _unseen(
    trait: str, baselines: Sequence[Baseline], among: str | None
) -> tuple[float, Baseline] | None:
    """How likely a trait that was never seen is seen now, and by whose calls; None where it was.

    Good and Turing: as likely as those are that occurred once so far. `among` is a trait that calls
    must have to count.
    """
    group = group_of(trait)
    speaking: tuple[float, Baseline] | None = None
    for baseline in baselines:
        calls = baseline.traits.get(among, 0) if among else baseline.calls
        if not calls:
            continue
        if trait in baseline.traits:
            if speaking is None or baseline.traits[trait] > 2:  # noqa: PLR2004 - more than chance
                return None
            continue
        if calls >= LEAST_CALLS and speaking is None:
            speaking = (baseline.once.get(group, 0) + _UNSEEN) / calls, baseline
    return speaking


def _cost_of_new(measured: Measured, group: str, name: str, baseline: Baseline) -> float:
    match group:
        case "product":
            return float(measured.products[name].cost)
        case "model":
            return _over(measured, names_of("inference"), baseline)
        case _:
            usual = baseline.spreads.get(TOTAL)
            return measured.total - (math.exp(usual.middle) if usual else 0.0)


def _over(measured: Measured, names: Names, baseline: Baseline) -> float:
    cost = measured.values.get(names.cost, 0.0)
    usual = baseline.spreads.get(names.cost_per_minute)
    return cost - (math.exp(usual.middle) * measured.minutes if usual else 0.0)


# --- something missing --------------------------------------------------------------------------


def _missing(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    baseline = next((b for b in ladder.baselines if b.calls >= LEAST_CALLS), None)
    if baseline is None or measured.cohort.kind == "unanswered":
        return
    calls = baseline.calls
    if FREE in measured.traits:
        likelihood = (baseline.traits.get(FREE, 0) + _UNSEEN) / calls
        usual = baseline.spreads.get(PER_MINUTE)
        if likelihood < least and usual is not None:
            expected = math.exp(usual.middle) * measured.minutes
            yield Deviation(
                "missing_cost", likelihood, 0.0, expected, math.exp(usual.high), -expected,
                baseline, FREE,
            )  # fmt: skip
        return
    for trait, number in baseline.traits.items():
        if not trait.startswith("product:") or number < _USUAL_SHARE * calls:
            continue
        product = trait.partition(":")[2]
        if product in measured.products:
            continue
        likelihood = (calls - number + _UNSEEN) / calls
        usual = baseline.spreads.get(names_of(product).cost_per_minute)
        if likelihood < least and usual is not None:
            expected = math.exp(usual.middle) * measured.minutes
            yield Deviation(
                "missing_product", likelihood, 0.0, expected, math.exp(usual.high), -expected,
                baseline, trait, product,
            )  # fmt: skip
