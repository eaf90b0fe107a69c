"""The cost tree: one session's events, flat and typed, and what can be said of their money.

Nothing about Telnyx's sums is assumed. That cumulative costs equal own plus children, that the
total equals the sum, that the counts agree and that there is one currency are all checked, and each
disagreement is a fact which the verdict carries.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from service.destination import country_of
from service.money import ZERO, money, plain
from workers.analysis import Analysis, Node, Record
from workers.products import RECORD_TYPES, normalise

_LONGEST_NAME: Final = 100
_LARGEST_COUNT: Final = 10**15
_NO_RECORD: Final = Record()


# Structs are made in a quarter of the time that frozen dataclasses take, and there is one for each
# event of each session. None can be part of a cycle, so the collector need not look at them.
class Event(msgspec.Struct, frozen=True, gc=False):
    """One node. `depth` counts from 1 at the root; `children` are positions in the tree."""

    position: int
    parent: int | None
    depth: int
    node: Node
    """As Telnyx sent it."""
    record: Record
    product: str
    """The public record type, or the unknown name as it came."""
    cost: Decimal
    cumulative: Decimal | None
    """As Telnyx states it; `CostTree.subtotals` holds what the nodes add up to."""
    currency: str | None
    rate: Decimal | None
    billed_seconds: int | None
    real_seconds: int | None
    children: list[int]

    @property
    def id(self) -> str:
        """Telnyx's id of it, or ""."""
        return text(self.node.id) or ""

    @property
    def name(self) -> str:
        """Telnyx's own product name, or ""."""
        return text(self.node.product) or ""


class Mismatch(msgspec.Struct, frozen=True, gc=False):
    """A broken invariant: a code, a sentence, and the money in it (0 where it is about none)."""

    code: str
    text: str
    amount: Decimal = ZERO


class ProductCost(msgspec.Struct, frozen=True, gc=False):
    """What one product cost in the session. `rates` are the distinct unit rates of its records."""

    product: str
    cost: Decimal
    whole: Decimal
    """What all products together cost."""
    events: int
    rates: tuple[Decimal, ...]
    billed_seconds: int | None
    real_seconds: int | None

    @property
    def share(self) -> Decimal:
        """Part of the whole, 0 to 1."""
        return self.cost / self.whole if self.whole else ZERO


class CostTree(msgspec.Struct, frozen=True, gc=False):
    """A session's events in pre-order (the root first, parents before children)."""

    session_id: str
    events: tuple[Event, ...]
    subtotals: tuple[Decimal, ...]
    """Own plus all descendants' costs of the event at the same position, added up by us."""
    stated_total: Decimal | None
    currency: str
    stated_count: int | None
    """How many events Telnyx says there are; more than `events` where the tree was cut."""
    mismatches: tuple[Mismatch, ...]
    products: tuple[ProductCost, ...]
    """Cost per product, the dearest first."""
    real_seconds: int
    """The longest duration that any record states: how long the call was."""

    @property
    def total(self) -> Decimal:
        """What the session cost: Telnyx's total or the sum of its events, whichever is larger.

        Where they disagree one of them leaves something out, and a cost must not hide there.
        """
        return self.sum if self.stated_total is None else max(self.stated_total, self.sum)

    @property
    def sum(self) -> Decimal:
        """The events' own costs, added up."""
        return self.subtotals[0]

    @property
    def charged(self) -> Decimal:
        """What counts towards a budget: what the products charged, unless some are missing.

        A total that says more than its events has charged nobody yet: that is a reason to alert.
        """
        return self.total if self.missing else self.sum

    @property
    def missing(self) -> int:
        """How many events Telnyx counts but did not send."""
        return max(0, (self.stated_count or 0) - len(self.events))

    @property
    def hidden(self) -> tuple[Event, ...]:
        """Events whose cumulative cost says that children were left out, the dearest first."""
        short = [
            (event.cumulative - self.subtotals[event.position], event)
            for event in self.events
            if event.cumulative is not None and event.cumulative > self.subtotals[event.position]
        ]
        return tuple(event for _, event in sorted(short, key=lambda s: (-s[0], -s[1].depth)))

    @property
    def has_product(self) -> frozenset[str]:
        """The products that occur."""
        return frozenset(event.product for event in self.events)

    @property
    def direction(self) -> str | None:
        """The call's direction, from the first record that states one."""
        return self.stated("direction")

    @property
    def dearest_path(self) -> tuple[Event, ...]:
        """From the root along the child with the largest subtotal, down to a leaf."""
        path = [self.events[0]]
        while path[-1].children:
            path.append(self.events[max(path[-1].children, key=lambda c: (self.subtotals[c], -c))])
        return tuple(path)

    def stated(self, name: str) -> str | None:
        """A field of the first record that has it, as text."""
        for event in self.events:
            value = getattr(event.record, name)
            if value is not None and (said := text(value)):
                return said
        return None

    def per_minute(self, seconds: int) -> Decimal:
        """The total per minute of a call of `seconds`; shorter calls count as one minute.

        Telnyx bills started minutes, so a call of eight seconds has no rate of its own.
        """
        return self.total * 60 / max(60, seconds)


def build_tree(analysis: Analysis, root_type: str | None = None) -> CostTree:
    """The cost tree of an answer. `root_type` is the record type that was asked for.

    A call session's root bears the product of the leg that began it, so only the question tells
    that it is the session itself.
    """
    events = _flatten(analysis.root, root_type)
    subtotals = _add_up(events)
    stated = analysis.cost
    total = money(stated.total) if stated else None
    currency = _currency(stated.currency if stated else None) or _first_currency(events) or "USD"
    count = whole_number(analysis.meta.event_count) if analysis.meta else None
    return CostTree(
        session_id=text(analysis.session_id) or events[0].id,
        events=events,
        subtotals=subtotals,
        stated_total=total,
        currency=currency,
        stated_count=count,
        mismatches=tuple(_mismatches(events, subtotals, total, currency, count)),
        products=_products(events, subtotals[0]),
        real_seconds=max([event.real_seconds or 0 for event in events]),
    )


def country_of_records(tree: CostTree) -> str | None:
    """Where the call went, from the first record that names a number of some country.

    None where numbers were masked, as they are in what is stored.
    """
    countries = (country_of(text(event.record.cld)) for event in tree.events)
    return next((country for country in countries if country), None)


def text(value: Any) -> str | None:
    """A short text from outside, or None where there is none."""
    if type(value) is str:  # As nearly all are.
        return value[:_LONGEST_NAME].strip() or None
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)[:_LONGEST_NAME]
    return None


def whole_number(value: Any) -> int | None:
    """A count or a number of seconds, 0 or more, or None."""
    if type(value) is int:  # As nearly all are; a bool is none.
        return value if 0 <= value <= _LARGEST_COUNT else None
    if value is None:
        return None
    amount = money(value)
    return int(amount) if amount is not None and amount >= 0 else None


def _flatten(root: Node, root_type: str | None) -> tuple[Event, ...]:
    events: list[Event] = []
    stack: list[tuple[Node, int | None, int]] = [(root, None, 1)]
    while stack:
        node, parent, depth = stack.pop()
        position = len(events)
        if parent is not None:
            events[parent].children.append(position)
        events.append(_event(node, position, parent, depth, None if position else root_type))
        if node.children:
            stack += [(child, position, depth + 1) for child in reversed(node.children)]
    return tuple(events)


def _event(
    node: Node, position: int, parent: int | None, depth: int, asked_type: str | None
) -> Event:
    record, cost = node.record or _NO_RECORD, node.cost
    own = cumulative = currency = None
    if cost:
        own, cumulative = money(cost.event_cost), money(cost.cumulative_cost)
        currency = _currency(cost.currency)
    rate, billed, real = record.rate, record.billed_sec, record.call_sec
    if real is None:
        real = record.duration_sec
    # In the order of the fields, as by their names it takes twice as long; many are not there.
    return Event(
        position,
        parent,
        depth,
        node,
        record,
        asked_type or _product(node, record),
        ZERO if own is None else own,
        cumulative,
        currency,
        None if rate is None else money(rate),
        None if billed is None else whole_number(billed),
        None if real is None else whole_number(real),
        [],
    )


def _known(name: str) -> str | None:
    return _record_type(name) if len(name) <= _LONGEST_NAME else None


@lru_cache(maxsize=256)
def _record_type(name: str) -> str | None:
    known = normalise(name)
    return known if known in RECORD_TYPES else None


def _product(node: Node, record: Record) -> str:
    names = (record.record_type, node.product, node.event_name)
    for name in names:
        if isinstance(name, str) and (known := _known(name)):
            return known
    link = text(node.links.self) if node.links else None
    named = next((name for name in names if isinstance(name, str) and name), None)
    return (link and _link_type(link)) or text(named) or "unknown"


def _link_type(link: str) -> str | None:
    _, _, rest = link.partition("/session_analysis/")
    return _known(rest.partition("/")[0])


def _add_up(events: Sequence[Event]) -> tuple[Decimal, ...]:
    subtotals = [event.cost for event in events]
    for event in reversed(events):
        if event.parent is not None:
            subtotals[event.parent] += subtotals[event.position]
    return tuple(subtotals)


def _currency(value: Any) -> str | None:
    return _code(value) if isinstance(value, str) else None


@lru_cache(maxsize=64)
def _code(value: str) -> str | None:
    code = text(value)
    return code.upper() if code else None


def _first_currency(events: Iterable[Event]) -> str | None:
    return next((event.currency for event in events if event.currency), None)


def _products(events: Iterable[Event], whole: Decimal) -> tuple[ProductCost, ...]:
    groups: dict[str, list[Event]] = {}
    for event in events:
        product = event.product
        if product in groups:
            groups[product].append(event)
        else:
            groups[product] = [event]
    costs = [_product_cost(product, groups[product], whole) for product in sorted(groups)]
    costs.sort(key=_COST, reverse=True)
    return tuple(costs)


_COST: Final = attrgetter("cost")


def _product_cost(product: str, events: Sequence[Event], whole: Decimal) -> ProductCost:
    if len(events) == 1:  # As most are.
        (event,) = events
        rates = () if event.rate is None else (event.rate,)
        return ProductCost(
            product, ZERO + event.cost, whole, 1, rates, event.billed_seconds, event.real_seconds
        )
    return ProductCost(
        product,
        sum([event.cost for event in events], ZERO),
        whole,
        len(events),
        tuple(sorted({event.rate for event in events if event.rate is not None})),
        _sum([event.billed_seconds for event in events]),
        _sum([event.real_seconds for event in events]),
    )


def _sum(stated: Iterable[int | None]) -> int | None:
    """None where none is stated."""
    known = [seconds for seconds in stated if seconds is not None]
    return sum(known) if known else None


def _mismatches(
    events: Sequence[Event],
    subtotals: Sequence[Decimal],
    total: Decimal | None,
    currency: str,
    count: int | None,
) -> Iterable[Mismatch]:
    if total is not None and total != subtotals[0]:
        yield Mismatch(
            "total_mismatch",
            f"Telnyx's total is {plain(total)}, its events add up to {plain(subtotals[0])}",
            abs(total - subtotals[0]),
        )
    yield from _broken_sums(events, subtotals)
    if count is not None and count != len(events):
        yield Mismatch("count_mismatch", f"Telnyx counts {count} events and sent {len(events)}")
    others = {event.currency for event in events} - {currency, None}
    if others:
        named = ", ".join(sorted(filter(None, others)))
        yield Mismatch("mixed_currencies", f"the total is in {currency}, some events in {named}")


def _broken_sums(events: Sequence[Event], subtotals: Sequence[Decimal]) -> Iterable[Mismatch]:
    """Where a node's cumulative cost is not its own plus its children's cumulative ones.

    Compared with what the children state, not with what we add up: one wrong leaf is then one
    mismatch, and not one more for each of its ancestors.
    """
    for event in events:
        cumulative, expected = event.cumulative, event.cost
        if cumulative is None:
            continue
        for child in event.children:
            stated = events[child].cumulative
            expected += subtotals[child] if stated is None else stated
        if cumulative != expected:
            yield Mismatch(
                "sum_mismatch",
                f"{event.product} {event.id} states {plain(cumulative)} with its children, "
                f"they add up to {plain(expected)}",
                abs(cumulative - expected),
            )
