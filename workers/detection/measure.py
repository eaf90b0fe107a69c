"""A session in numbers: what its cost is judged by, and what only is there or is not.

A measure is a positive number that calls of a kind have in common and that may be too large. A
trait is a fact: a product that occurs, a price that was charged, a model that was used.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from service.records import Call
from workers.detection.cohort import UNANSWERED, Cohort, cohort_of
from workers.tree import CostTree, ProductCost

TOTAL: Final = "total"
PER_MINUTE: Final = "per_minute"
_MOST_PRODUCTS: Final = 24
_MOST_RATES: Final = 6
_SECONDS: Final = 60
RATE: Final = "rate:"
"""What the traits of prices begin with."""
FREE: Final = "free:"
"""The trait of a session that cost nothing."""


class Names(NamedTuple):
    """The names of a product's measures, and the trait that it occurs."""

    cost: str
    cost_per_minute: str
    events: str
    events_per_minute: str
    each: str
    billed: str
    trait: str


@lru_cache(maxsize=1024)
def names_of(product: str) -> Names:
    """The names of a product's measures (what is measured, a colon, the product) and its trait."""
    return Names._make([*(f"{name}:{product}" for name in MEASURES), f"product:{product}"])


MEASURES: Final = Names._fields[:-1]
"""What is measured of a product."""


class Measured(msgspec.Struct, frozen=True, gc=False):
    """One session, measured. `values` are in money, counts and ratios; all are above zero."""

    cohort: Cohort
    ladder: tuple[str, ...]
    minutes: int
    """Started minutes of the call, at least one."""
    total: float
    values: dict[str, float]
    products: dict[str, ProductCost]
    traits: tuple[str, ...]
    """`product:…`, `model:…`, `country:…`, `rate:{product}:{country}:{rate}`, `free:`."""


def measure(tree: CostTree, call: Call, seconds: int) -> Measured:
    """Measures a session of so many seconds. `call` is what is known of it, records included."""
    cohort = cohort_of(tree, call)
    minutes = max(1, -(-seconds // _SECONDS))
    total = float(tree.total)
    values: dict[str, float] = {}
    if total > 0:
        values[TOTAL] = total
        values[PER_MINUTE] = total / minutes
    products: dict[str, ProductCost] = {}
    traits: list[str] = []
    country = cohort.country
    for product in tree.products[:_MOST_PRODUCTS]:
        name = product.product
        products[name] = product
        names = names_of(name)
        _measure_product(values, names, product, minutes)
        traits.append(names.trait)
        traits += [rate_trait(name, country, rate) for rate in product.rates[:_MOST_RATES]]
    traits += [f"model:{model}" for model in _measure_events(values, products, tree)]
    if cohort.kind != UNANSWERED:
        traits.append(f"country:{country}")
    if not total:
        traits.append(FREE)
    return Measured(cohort, cohort.ladder, minutes, total, values, products, traits=tuple(traits))


def _measure_product(
    values: dict[str, float], names: Names, product: ProductCost, minutes: int
) -> None:
    cost, events = float(product.cost), product.events
    if cost > 0:
        values[names.cost] = cost
        values[names.cost_per_minute] = cost / minutes
    if events > 1:
        values[names.events] = events
        values[names.events_per_minute] = events / minutes
        if cost > 0:
            values[names.each] = cost / events


def _measure_events(
    values: dict[str, float], products: dict[str, ProductCost], tree: CostTree
) -> dict[str, None]:
    """Adds how far each product was billed beyond its real duration; the models that were used."""
    models: dict[str, None] = {}
    for event in tree.events:
        record = event.record
        model = record.model or record.llm_model
        if model:
            models[str(model)] = None
        billed = event.billed_seconds
        if billed and (real := event.real_seconds) is not None and event.product in products:
            # Started minutes are fair: only what is billed beyond them is strange.
            ratio = billed / (_SECONDS * max(1, -(-real // _SECONDS)))
            name = names_of(event.product).billed
            if ratio > values.get(name, 0.0):
                values[name] = ratio
    return models


@lru_cache(maxsize=4096)
def rate_trait(product: str, country: str, rate: Decimal) -> str:
    """The trait of a unit rate; equal amounts are one, however they are written."""
    return f"{RATE}{product}:{country}:{rate.normalize()}"


def priced_product(trait: str) -> str:
    """The product whose price a trait is. Its name may have colons, a country's has none."""
    return trait.removeprefix(RATE).rsplit(":", 2)[0]
