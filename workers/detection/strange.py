"""How strange a session is: each of its measures and traits against what its cohorts usually show.

Each look has a likelihood: of a usual call that goes at least so far. The finest cohort's word
counts, and what it lacks in calls the coarser ones add.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

from workers.detection.deviation import Deviation
from workers.detection.ladder import Ladder
from workers.detection.measure import PER_MINUTE, TOTAL, Measured
from workers.detection.traits import strange_traits


def deviations(measured: Measured, ladder: Ladder, least: float) -> list[Deviation]:
    """What is less likely than `least`, by baselines from the finest cohort to the account's."""
    if not ladder.calls:
        return []
    return [
        *_too_much(measured, ladder, least),
        *strange_traits(measured, ladder, least),
    ]


def _too_much(measured: Measured, ladder: Ladder, least: float) -> Iterator[Deviation]:
    for name, value, usual in ladder.stirring(measured.values):
        log = math.log(value)
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
