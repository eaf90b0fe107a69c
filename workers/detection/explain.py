"""Why a session is strange, in one sentence with the money in it, rounded for people."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from service.records import Part, Reason
from workers.detection.cohort import ACCOUNT, ASSISTANT_CALLS
from workers.detection.deviation import Deviation
from workers.detection.ladder import Ladder
from workers.detection.measure import MEASURES, TOTAL, Measured, names_of
from workers.detection.opinion import Opinion
from workers.detection.traits import UNKNOWN_RATE
from workers.products import INFERENCE, label
from workers.tree import ProductCost
from workers.wording import amount, count, factor, priced, rough

_PLACES: Final = Decimal("0.0000001")
_LARGEST: Final = Decimal("1E+20")
"""Larger figures are junk, and have no place left for so many digits."""
_SHOWN_PARTS: Final = 3
_LEAST_PART: Final = 0.03
"""Of the excess: a smaller part is not worth naming."""
_LONGEST_ID: Final = 24
_MINUTE: Final = 60
_MORE: Final = 1.2
"""So many times the usual is worth naming as what there was more of."""


def reasons_of(opinion: Opinion, currency: str) -> Iterator[tuple[Reason, bool]]:
    """A reason for each thing that is strange, and whether it matters; each thing once.

    A call that is too long has every part too dear: the session's own reason names the parts, and
    of a product only its strangest measure is told.
    """
    seen: set[str] = set()
    told = set(map(id, opinion.told))
    for deviation in sorted(
        opinion.unlikely, key=lambda each: (id(each) not in told, _order(each))
    ):
        about = deviation.product or _about(deviation)
        if about in seen:
            continue
        seen.add(about)
        yield _reason(deviation, opinion.measured, opinion.ladder, currency), id(deviation) in told


def _order(deviation: Deviation) -> tuple[bool, bool, float]:
    """The whole session's cost first, then a price, which explains the rest of its product."""
    is_price = deviation.code == UNKNOWN_RATE
    return deviation.name != TOTAL, not is_price, -abs(deviation.excess)


def _about(deviation: Deviation) -> str:
    return "the session" if ":" not in deviation.name else deviation.name


def _reason(deviation: Deviation, measured: Measured, ladder: Ladder, currency: str) -> Reason:
    parts = tuple(_parts(measured, ladder, abs(deviation.excess)))
    is_total = deviation.name == TOTAL
    telling = _Telling(deviation, measured, currency)
    over = _split(telling.over(), parts if is_total else (), measured, ladder)
    return Reason(
        code=deviation.code,
        text=_SENTENCES[deviation.code](telling) + (f". {over}" if over else ""),
        observed=_exact(deviation.observed),
        limit=_exact(deviation.expected),
        excess=abs(_exact(deviation.excess)),
        product=deviation.product,
        learned_from=deviation.cohort.cohort,
        calls=deviation.cohort.calls,
        parts=parts if is_total else (),
    )


def change_in_words(deviation: Deviation, measured: Measured, currency: str) -> str:
    """That a deviation is the new normal of its cohort."""
    telling = _Telling(deviation, measured, currency)
    whose = cohort_in_words(deviation.cohort.cohort)
    return f"{_CHANGES[deviation.code](telling)} is the new normal for {whose}"


def _exact(value: float) -> Decimal:
    return max(-_LARGEST, min(_LARGEST, Decimal(value))).quantize(_PLACES)


# --- sentences ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Telling:
    """One thing that is strange, in words."""

    deviation: Deviation
    measured: Measured
    currency: str

    def cost(self) -> str:
        return f"{self.observed}, {self.times} for {self.whose()}"

    def per_minute(self) -> str:
        return f"{self.observed} a minute, {self.times} for {self.whose()}"

    def product_cost(self) -> str:
        a_minute = " a minute" if self.deviation.name.startswith("cost_per_minute") else ""
        return f"{self.product} cost {self.observed}{a_minute}, {self.times} for {self.whose()}"

    def events(self) -> str:
        deviation = self.deviation
        product = self.measured.products[deviation.product or ""]
        usual = count(product.events * deviation.expected / deviation.observed)
        unit = _unit(product.product)
        return f"{self.product}: {product.events:,} {unit} instead of {usual} for {self.whose()}"

    def each(self) -> str:
        one = "turn" if self.deviation.product == INFERENCE else "event"
        return (
            f"{self.product} cost {self.observed} for each {one}, {self.times} for {self.whose()}"
        )

    def billing(self) -> str:
        times, usual = (
            factor(_exact(value), Decimal(1))
            for value in (self.deviation.observed, self.deviation.expected)
        )
        return (
            f"{self.product} was billed for {times} its started minutes, usual are {usual} "
            f"for {self.whose()}"
        )

    def rate(self) -> str:
        usual = amount(_exact(self.deviation.expected))
        return (
            f"{self.product} was charged at a rate of {self.observed} instead of {usual}, "
            f"never seen before for {self.whose(bounded=False)}"
        )

    def new_product(self) -> str:
        return f"First time with {self.product} among {self.whose(bounded=False)}"

    def new_model(self) -> str:
        return f"First time with the model {self.trait} among {self.whose(bounded=False)}"

    def new_country(self) -> str:
        return f"First call to {self.trait} among {self.whose(bounded=False)}"

    def changed(self) -> str:
        what = f"{self.product} at " if self.deviation.product else "A cost of "
        a_minute = " a minute" if "per_minute" in self.deviation.name else ""
        each = " for each event" if self.deviation.name.startswith("each:") else ""
        return f"{what}{self.observed}{a_minute}{each} instead of {self.expected}"

    def changed_count(self) -> str:
        deviation = self.deviation
        a_minute = " a minute" if deviation.name.startswith("events_per_minute") else ""
        unit = _unit(deviation.product or "")
        observed, expected = count(deviation.observed), count(deviation.expected)
        return f"{self.product} with {observed} {unit}{a_minute} instead of {expected}"

    def changed_billing(self) -> str:
        times = factor(_exact(self.deviation.observed), Decimal(1))
        return f"{self.product} billed for {times} its real duration"

    def gone(self) -> str:
        return f"No {self.product}"

    def free(self) -> str:
        return "No cost at all"

    def novelty(self) -> str:
        group, _, name = self.deviation.name.partition(":")
        return f"{group.capitalize()} {label(name) if group == 'product' else name}"

    def missing_product(self) -> str:
        return (
            f"No {self.product}: {self.expected} {self.currency} are usual in a call of this "
            f"length for {self.whose(bounded=False)}"
        )

    def missing_cost(self) -> str:
        return (
            f"It cost nothing: {self.expected} {self.currency} are usual for a call of this "
            f"length for {self.whose(bounded=False)}"
        )

    def over(self) -> str:
        """The money over the usual, or under it; nothing where that rounds to nothing."""
        excess = _exact(self.deviation.excess)
        if not excess:
            return ""
        return f"{rough(abs(excess))} {'over' if excess > 0 else 'under'}"

    @property
    def product(self) -> str:
        return label(self.deviation.product or "")

    @property
    def trait(self) -> str:
        return self.deviation.name.rpartition(":")[2]

    @property
    def observed(self) -> str:
        return priced(_exact(self.deviation.observed), self.currency)

    @property
    def expected(self) -> str:
        return _money(self.deviation.expected)

    @property
    def times(self) -> str:
        times = factor(_exact(self.deviation.observed), _exact(self.deviation.expected))
        return f"{times} the usual {self.expected}" if times else "where none is usual"

    def whose(self, *, bounded: bool = True) -> str:
        """Whose usual it is, how many calls that was learned from, and how far these go."""
        baseline = self.deviation.cohort
        calls = "1 call" if baseline.calls == 1 else f"{baseline.calls:,} calls"
        days = "1 day" if baseline.days <= 1 else f"{baseline.days} days"
        high = f", 99 % under {self.high}" if bounded else ""
        return f"{cohort_in_words(baseline.cohort)} ({calls} in {days}{high})"

    @property
    def high(self) -> str:
        deviation = self.deviation
        if deviation.code == "unusual_events":
            a_minute = " a minute" if deviation.name.startswith("events_per_minute") else ""
            return f"{count(deviation.high)} {_unit(deviation.product or '')}{a_minute}"
        if deviation.code == "unusual_billing":
            return factor(_exact(deviation.high), Decimal(1))
        return _money(deviation.high)


_SENTENCES: Final = {
    "unusual_cost": _Telling.cost,
    "unusual_cost_per_minute": _Telling.per_minute,
    "unusual_product_cost": _Telling.product_cost,
    "unusual_events": _Telling.events,
    "unusual_cost_per_event": _Telling.each,
    "unusual_billing": _Telling.billing,
    "unknown_rate": _Telling.rate,
    "new_product": _Telling.new_product,
    "new_model": _Telling.new_model,
    "new_country": _Telling.new_country,
    "missing_product": _Telling.missing_product,
    "missing_cost": _Telling.missing_cost,
}
_CHANGES: Final = {
    "unusual_cost": _Telling.changed,
    "unusual_cost_per_minute": _Telling.changed,
    "unusual_product_cost": _Telling.changed,
    "unusual_events": _Telling.changed_count,
    "unusual_cost_per_event": _Telling.changed,
    "unusual_billing": _Telling.changed_billing,
    "unknown_rate": _Telling.changed,
    "new_product": _Telling.novelty,
    "new_model": _Telling.novelty,
    "new_country": _Telling.novelty,
    "missing_product": _Telling.gone,
    "missing_cost": _Telling.free,
}
LEARNED: Final = tuple(_SENTENCES)
"""The codes of all reasons that rest on what was learned."""


# --- words --------------------------------------------------------------------------------------


def cohort_in_words(name: str) -> str:
    """A cohort as people call it: "all outbound phone calls to DE"."""
    if name == ACCOUNT:
        return "all calls of the account"
    entity, direction, country, kind = name.rsplit("/", 3)
    way = f"{direction} " if direction not in {"*", "?"} else ""
    where = f" to {country}" if direction == "outbound" and country not in {"*", "?"} else ""
    # Whoever makes them says already what kind of calls these are.
    is_named = kind == ASSISTANT_CALLS and entity not in {"*", "?"}
    what = f"{way}calls{where}" if is_named else f"{way}{kind} calls{where}"
    match entity:
        case "*":
            return f"all {what}"
        case "?":
            return f"{what} of no known connection"
        case _ if entity.startswith(ASSISTANT_CALLS):
            return f"{_short(entity)}'s {what}"
        case _:
            thing = "assistant" if is_named else "connection"
            return f"{thing} {_short(entity)}'s {what}"


def _short(id: str) -> str:
    return id if len(id) <= _LONGEST_ID else f"{id[: _LONGEST_ID - 1]}…"


def _split(over: str, parts: Sequence[Part], measured: Measured, ladder: Ladder) -> str:
    if not parts:
        return over
    named = ", ".join(_part(part, measured, ladder) for part in parts[:_SHOWN_PARTS])
    return f"{over}: {named}"


def _parts(measured: Measured, ladder: Ladder, excess: float) -> Iterator[Part]:
    """How much of the excess each product makes up, the largest first."""
    over = (
        (float(product.cost) - _usual_cost(product, ladder), name)
        for name, product in measured.products.items()
    )
    for more, name in sorted(over, reverse=True):
        if more >= _LEAST_PART * excess:
            yield Part(product=name, cost=_exact(more))


def _usual_cost(product: ProductCost, ladder: Ladder) -> float:
    usual = ladder.usual(names_of(product.product).cost)
    return math.exp(usual.spread.middle) if usual else 0.0


def _part(part: Part, measured: Measured, ladder: Ladder) -> str:
    product = measured.products[part.product]
    return f"{label(part.product)} {rough(part.cost)}{_instead(product, ladder)}"


def _instead(product: ProductCost, ladder: Ladder) -> str:
    """What there was more of, above all: events, minutes, or money for each minute."""
    found = max(_more_of(product, ladder), default=None)
    return f" ({found[1]})" if found and found[0] > _MORE else ""


def _more_of(product: ProductCost, ladder: Ladder) -> Iterator[tuple[float, str]]:
    """How many times the usual there was of each, and that in words."""
    usual = {
        measure: math.exp(known.spread.middle)
        for measure, name in zip(MEASURES, names_of(product.product), strict=False)
        if (known := ladder.usual(name)) is not None
    }
    events = usual.get("events")
    if events and product.events > 1:
        unit = _unit(product.product)
        times = product.events / events
        yield times, f"{product.events:,} {unit} instead of {count(events)}"
    each = usual.get("each")
    if each and product.events > 1:
        one, price = _unit(product.product).removesuffix("s"), float(product.cost) / product.events
        yield price / each, f"{_money(price)} for each {one} instead of {_money(each)}"
    cost, a_minute = usual.get("cost"), usual.get("cost_per_minute")
    if product.billed_seconds and cost and a_minute:
        minutes, usual_minutes = product.billed_seconds / _MINUTE, cost / a_minute
        words = f"{count(minutes)} minutes instead of {count(usual_minutes)}"
        yield minutes / usual_minutes, words
        price = float(product.cost) / minutes
        yield price / a_minute, f"{_money(price)} a minute instead of {_money(a_minute)}"


def _unit(product: str) -> str:
    return "turns" if product == INFERENCE else "events"


def _money(value: float) -> str:
    return rough(_exact(value))
