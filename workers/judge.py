"""Whether a cost is what it should be: the tree, the call and the policy in, a verdict out.

Pure. A reason says what was observed, what is allowed and how much money lies between. Ceilings
that somebody set always alert when they are crossed; what Telnyx's own figures say against each
other is kept, and alerts only where enough money is in it; and so does what a call's like have
usually cost, where somebody has learned that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Final

import msgspec

from service.events import ANALYZED, COST, read_time_ms
from service.money import ZERO
from service.records import Call, Event, Reason, Reported, Severity, Share, Verdict, moment, rank
from workers.analysis import Record
from workers.detection.explain import LEARNED, reasons_of
from workers.detection.measure import Measured, measure
from workers.detection.opinion import Opinion
from workers.policy import Ceiling, Policy
from workers.products import label, normalise
from workers.tree import CostTree, ProductCost, country_of_records, text
from workers.tree import Event as CostEvent
from workers.wording import amount, duration, priced

SESSION_COST: Final = "session_cost"
COST_PER_MINUTE: Final = "cost_per_minute"
PRODUCT_COST: Final = "product_cost"
PRODUCT_EVENTS: Final = "product_events"
LATE_CHARGE: Final = "late_charge"

CEILINGS: Final = (SESSION_COST, COST_PER_MINUTE, PRODUCT_COST, PRODUCT_EVENTS)
CODES: Final = (
    *CEILINGS,
    "foreign_currency",
    "double_charge",
    LATE_CHARGE,
    "reported_difference",
    "total_mismatch",
    "sum_mismatch",
    "count_mismatch",
    "mixed_currencies",
    *LEARNED,
)
"""Every reason that there is."""

# Whatever belongs to a call begins while it lasts.
_LATE_MS: Final = 3_600_000
_HOUR_MS: Final = 3_600_000
_SHOWN_PARTS: Final = 4

# What more data can only exceed further: a tree that is not settled yet may alert on these.
_GROWING: Final = frozenset({SESSION_COST, PRODUCT_COST, PRODUCT_EVENTS})


class Case(msgspec.Struct, frozen=True, dict=True):
    """What is judged: a session's tree and what else is known of the call."""

    tree: CostTree
    call: Call
    reported: tuple[tuple[Event, Reported], ...] = ()
    settled: bool = True
    provisional: bool = False
    """True while more data may come: only what can grow no less is judged."""
    whole: bool = True
    """False where something says that a part of the tree was left out."""
    grafted: bool = False
    """Whether parts were fetched apart: Telnyx's sums above them may then leave them out."""
    remarks: tuple[str, ...] = ()
    """What the fetching found out: nodes that stayed missing, and why."""
    before: Verdict | None = None
    """The verdict that stood until now, where this is one more look at a settled cost."""

    @cached_property
    def known(self) -> Call:
        """The call with what only the records tell of it."""
        return known_of(self.call, self.tree)

    @cached_property
    def duration_seconds(self) -> int:
        """How long the call was: the longest of what webhooks and records state; 0 for unknown."""
        return duration_of(self.call, self.tree)

    @property
    def trusted(self) -> bool:
        """Whether the tree is whole, so that what is missing in it is really not there."""
        return self.settled and not self.provisional and self.whole


class Grounds(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with a session, the worst first: what a verdict rests on."""

    reasons: tuple[Reason, ...] = ()
    severity: Severity | None = None
    """That of the worst reason; None for quiet."""
    excess: Decimal = ZERO
    """Reasons overlap (a loop is also a dear session), so it is the largest of theirs."""


_NOTHING: Final = Grounds()


def judge(case: Case, policy: Policy, opinion: Opinion | None = None, *, at_ms: int) -> Verdict:
    """The verdict on one session. Its severity is that of its worst reason, None for quiet.

    `opinion` is what is thought of it by what its like have cost; None where it is not compared.
    """
    grounds, tree = grounds_of(case, policy, opinion), case.tree
    return Verdict(
        at_ms=at_ms,
        total=tree.total,
        currency=tree.currency,
        settled=case.settled,
        complete=case.whole,
        provisional=case.provisional,
        event_count=len(tree.events),
        severity=grounds.severity,
        excess=grounds.excess,
        reasons=grounds.reasons,
        products=tuple(_share(product) for product in tree.products),
        remarks=(*_remarks(case), *case.remarks),
        duration_seconds=case.duration_seconds,
        dearest_path=tuple(label(event.product) for event in tree.dearest_path),
    )


def grounds_of(case: Case, policy: Policy, opinion: Opinion | None = None) -> Grounds:
    """The same without what only tells of the session."""
    reasons = [*_ceilings(case, policy)]
    if not case.provisional:
        reasons += _billing(case, policy)
        reasons += _unusual(case, opinion, policy)
    if not reasons:
        return _NOTHING
    reasons.sort(key=lambda r: (-rank(r.severity), -r.excess, r.code, r.product or ""))
    alerting = [reason for reason in reasons if reason.severity]
    return Grounds(
        reasons=tuple(reasons),
        severity=alerting[0].severity if alerting else None,
        excess=max(reason.excess for reason in alerting or reasons),
    )


def duration_of(call: Call, tree: CostTree) -> int:
    """How many seconds a call took, by the longest of what is stated; 0 for unknown."""
    start_ms, end_ms = call.start_ms, call.end_ms
    from_webhook = (end_ms - start_ms) // 1000 if end_ms and start_ms else 0
    return max(from_webhook, call.duration_seconds, tree.real_seconds)


def known_of(call: Call, tree: CostTree) -> Call:
    """The call with what only the tree's records tell of it."""
    return msgspec.structs.replace(
        call,
        direction=call.direction or tree.direction,
        connection_id=call.connection_id or tree.stated("connection_id"),
        assistant_id=call.assistant_id or tree.stated("assistant_id"),
        to_country=call.to_country or country_of_records(tree),
    )


def _share(product: ProductCost) -> Share:
    return Share(
        product=product.product,
        cost=product.cost,
        share=product.share,
        events=product.events,
        rate=product.rates[0] if len(product.rates) == 1 else None,
        billed_seconds=product.billed_seconds,
        real_seconds=product.real_seconds,
    )


def _remarks(case: Case) -> Iterator[str]:
    tree = case.tree
    if tree.missing:
        yield f"{tree.missing} of {tree.stated_count} events are missing in Telnyx's answer"
    if case.before:
        yield from _changes(case.before, tree)
    if not case.provisional and (not case.trusted or case.grafted):
        yield from (mismatch.text for mismatch in tree.mismatches)


def _changes(before: Verdict, tree: CostTree) -> Iterator[str]:
    """What one more look found changed, but for the money that came: that is a reason."""
    if before.currency != tree.currency or tree.total < before.total:
        yield (
            f"Telnyx's total was {priced(before.total, before.currency)} when it was first "
            f"judged, and is {priced(tree.total, tree.currency)} now"
        )
    if before.event_count != len(tree.events):
        yield (
            f"Telnyx showed {before.event_count:,} events when it was first judged, and "
            f"shows {len(tree.events):,} now"
        )


# --- ceilings: what somebody set ---------------------------------------------------------------


def _ceilings(case: Case, policy: Policy) -> Iterator[Reason]:
    always = _always(str(policy.max_session_cost))
    chosen = _chosen(case, policy) if policy.ceilings else ()
    comparable = case.tree.currency == policy.currency
    for ceiling in (always, *(c for c in chosen if c.measure != SESSION_COST or c != always)):
        if case.provisional and ceiling.measure not in _GROWING:
            continue
        if not comparable and ceiling.measure != PRODUCT_EVENTS:
            continue
        reason = _crossed(case, ceiling)
        if reason:
            yield _graded(reason, policy, at_least_low=True)


def _chosen(case: Case, policy: Policy) -> Sequence[Ceiling]:
    call = case.known
    choose = policy.lenient_ceilings_for if case.provisional else policy.ceilings_for
    return choose(call.assistant_id, call.connection_id, call.direction)


# By its text: amounts may be equal and written differently. Building it costs a tenth of judging.
@lru_cache(maxsize=8)
def _always(limit: str) -> Ceiling:
    return Ceiling(measure=SESSION_COST, limit=Decimal(limit))


def _crossed(case: Case, ceiling: Ceiling) -> Reason | None:
    match ceiling.measure:
        case "session_cost":
            return _session_cost(case, ceiling)
        case "cost_per_minute":
            return _cost_per_minute(case, ceiling)
        case "product_cost":
            return _product_cost(case, ceiling)
        case "product_events":
            return _product_events(case, ceiling)


def _session_cost(case: Case, ceiling: Ceiling) -> Reason | None:
    tree, limit = case.tree, ceiling.limit
    if tree.total <= limit:
        return None
    return Reason(
        code=SESSION_COST,
        text=f"The session cost {priced(tree.total, tree.currency)}, "
        f"the ceiling{_scope(ceiling)} is {amount(limit)}",
        observed=tree.total,
        limit=limit,
        excess=tree.total - limit,
    )


def _cost_per_minute(case: Case, ceiling: Ceiling) -> Reason | None:
    tree, limit, seconds = case.tree, ceiling.limit, case.duration_seconds
    observed = tree.per_minute(seconds)
    if not seconds or observed <= limit:
        return None
    return Reason(
        code=COST_PER_MINUTE,
        text=f"{priced(observed, tree.currency)} a minute over {duration(seconds)}, "
        f"the ceiling{_scope(ceiling)} is {amount(limit)} a minute",
        observed=observed,
        limit=limit,
        excess=(observed - limit) * max(60, seconds) / 60,
    )


def _product_cost(case: Case, ceiling: Ceiling) -> Reason | None:
    product, limit = _find(case.tree, ceiling), ceiling.limit
    if product is None or product.cost <= limit:
        return None
    return Reason(
        code=PRODUCT_COST,
        product=product.product,
        text=f"{label(product.product)} cost {priced(product.cost, case.tree.currency)}, "
        f"the ceiling{_scope(ceiling)} is {amount(limit)}",
        observed=product.cost,
        limit=limit,
        excess=product.cost - limit,
    )


def _product_events(case: Case, ceiling: Ceiling) -> Reason | None:
    product, limit = _find(case.tree, ceiling), ceiling.limit
    if product is None or product.events <= limit:
        return None
    return Reason(
        code=PRODUCT_EVENTS,
        product=product.product,
        text=f"{label(product.product)} occurred {product.events:,} times, "
        f"the ceiling{_scope(ceiling)} is {limit:f}",
        observed=Decimal(product.events),
        limit=limit,
        # The money in the events beyond the limit, at what one of them cost.
        excess=max(ZERO, product.cost * (product.events - limit) / product.events),
    )


def _find(tree: CostTree, ceiling: Ceiling) -> ProductCost | None:
    return next((p for p in tree.products if p.product == ceiling.product), None)


def _scope(ceiling: Ceiling) -> str:
    when = ceiling.when
    named = [
        f"{name} {value}"
        for name, value in (("assistant", when.assistant), ("connection", when.connection))
        if value
    ]
    if when.direction:
        named.append(f"{when.direction} calls")
    return f" for {', '.join(named)}" if named else ""


# --- billing: what Telnyx's own figures say against each other ----------------------------------


def _billing(case: Case, policy: Policy) -> Iterator[Reason]:
    if case.tree.currency != policy.currency:
        yield _graded(_foreign_currency(case, policy), policy)
    found = [*_double_charges(case.tree)]
    if case.settled:
        found += _late_charges(case)
    if case.trusted:
        if case.reported:
            found += _differences(case, policy.difference_tolerance)
        if case.tree.mismatches and not case.grafted:
            found += _broken(case.tree)
    yield from (_graded(reason, policy) for reason in found)


def _foreign_currency(case: Case, policy: Policy) -> Reason:
    tree = case.tree
    return Reason(
        code="foreign_currency",
        text=f"The cost is in {tree.currency}, the policy's limits are in {policy.currency}: "
        "none of it can be judged",
        observed=tree.total,
        limit=ZERO,
        excess=max(ZERO, tree.total),
    )


def _broken(tree: CostTree) -> Iterator[Reason]:
    for mismatch in tree.mismatches:
        yield Reason(
            code=mismatch.code,
            text=mismatch.text,
            observed=mismatch.amount,
            limit=ZERO,
            excess=mismatch.amount,
        )


def _double_charges(tree: CostTree) -> Iterator[Reason]:
    """The same charge twice: product, identifiers, times and cost are equal, and all present."""
    charges: dict[tuple[object, ...], list[CostEvent]] = {}
    for event in _alike(tree):
        identity = _charge(event)
        if identity:
            charges.setdefault(identity, []).append(event)
    for events in charges.values():
        if len(events) > 1:
            first = events[0]
            yield Reason(
                code="double_charge",
                product=first.product,
                text=f"{label(first.product)} was charged {_times(len(events))} for the same leg "
                f"and time: {len(events)} × {priced(first.cost, tree.currency)}",
                observed=first.cost * len(events),
                limit=first.cost,
                excess=first.cost * (len(events) - 1),
            )


def _late_charges(case: Case) -> Iterator[Reason]:
    """What was charged long after the end: by the records, or by what the last look showed.

    The same money may be in both, so only the larger of them is told.
    """
    found = filter(None, (_began_late(case), _charged_since(case)))
    yield from sorted(found, key=lambda reason: -reason.excess)[:1]


def _charged_since(case: Case) -> Reason | None:
    before, tree = case.before, case.tree
    if before is None or before.currency != tree.currency or tree.total <= before.total:
        return None
    known = {share.product: share.cost for share in before.products}
    parts = {p.product: p.cost - known.get(p.product, ZERO) for p in tree.products}
    excess = tree.total - before.total
    since = "the session had settled" if before.settled else "its cost was first judged"
    return Reason(
        code=LATE_CHARGE,
        product=_only(parts),
        text=f"{priced(excess, tree.currency)} was charged after {since}{_listed(parts)}",
        observed=tree.total,
        limit=before.total,
        excess=excess,
    )


def _began_late(case: Case) -> Reason | None:
    end_ms, tree = case.call.end_ms, case.tree
    if not end_ms:
        return None
    first_ms = end_ms + _LATE_MS
    late = _late(tree, first_ms)
    if not late:
        return None
    inside = 0
    parts: dict[str, Decimal] = {}
    delays: list[int] = []
    for event in tree.events:
        # Pre-order: what is below a late one follows it, and is part of it.
        if not inside or event.depth <= inside:
            began_ms = late.get(event.position)
            inside = event.depth if began_ms else 0
            if began_ms:
                delays.append(began_ms - end_ms)
        if inside:
            parts[event.product] = parts.get(event.product, ZERO) + event.cost
    excess = sum(parts.values(), ZERO)
    if excess <= 0:
        return None
    return Reason(
        code=LATE_CHARGE,
        product=_only(parts),
        text=f"{priced(excess, tree.currency)} was charged for what began "
        f"{duration(min(delays) // 1000)} after the call's end{_listed(parts)}",
        observed=excess,
        limit=ZERO,
        excess=excess,
    )


# For all calls of an hour the same.
@lru_cache(maxsize=64)
def _hour(hour: int) -> str:
    return moment(hour * _HOUR_MS).strftime("%Y-%m-%dT%H:%M:%S")


def _late(tree: CostTree, first_ms: int) -> dict[int, int]:
    """The events with a cost that began at `first_ms` or later: by position, when."""
    bound, late = _hour(first_ms // _HOUR_MS), {}
    for event in tree.events:
        record = event.record
        began = record.started_at or record.start_time or record.created_at
        # Nearly all are in UTC and not late: to compare texts is enough, where they are times.
        if type(began) is str and began < bound and began[10:11] == "T" and began[-1] == "Z":
            continue
        if event.cost > 0 and (began_ms := _began_ms(record)) and began_ms >= first_ms:
            late[event.position] = began_ms
    return late


def _began_ms(record: Record) -> int | None:
    began = text(record.started_at) or text(record.start_time) or text(record.created_at)
    return read_time_ms(began)


def _only(parts: Mapping[str, Decimal]) -> str | None:
    grown = [product for product, cost in parts.items() if cost > 0]
    return grown[0] if len(grown) == 1 else None


def _listed(parts: Mapping[str, Decimal]) -> str:
    dearest = sorted(parts.items(), key=lambda part: (-part[1], part[0]))[:_SHOWN_PARTS]
    named = [f"{label(product)} {amount(cost)}" for product, cost in dearest if cost > 0]
    return f": {', '.join(named)}" if named else ""


def _alike(tree: CostTree) -> list[CostEvent]:
    """Events that share product and cost with another: only they are worth a closer look."""
    several = {product.product for product in tree.products if product.events > 1}
    events = [e for e in tree.events if e.product in several and e.cost > 0]
    seen: set[tuple[str, Decimal]] = set()
    again: set[tuple[str, Decimal]] = set()
    for event in events:
        charge = (event.product, event.cost)
        (again if charge in seen else seen).add(charge)
    return [event for event in events if (event.product, event.cost) in again] if again else []


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"  # noqa: PLR2004


def _charge(event: CostEvent) -> tuple[object, ...] | None:
    record = event.record
    names = (record.telnyx_leg_id, record.call_leg_id, record.leg_id, record.conversation_id)
    identifiers = (text(record.id) or event.id, *(text(name) for name in names))
    begin = text(record.started_at) or text(record.created_at) or text(record.start_time)
    end = text(record.finished_at) or text(record.completed_at) or text(record.end_time)
    if event.cost <= 0 or not any(identifiers) or not begin or not end:
        return None
    directions = (text(record.direction), text(record.leg_direction))
    return (event.product, identifiers, directions, begin, end, event.cost)


def _differences(case: Case, tolerance: Decimal) -> Iterator[Reason]:
    latest: dict[tuple[str, str | None], Reported] = {}
    for event, reported in sorted(case.reported, key=lambda pair: pair[0].at_ms):
        if reported.currency in {None, case.tree.currency}:
            latest[event.kind, event.leg_id if event.kind == COST else None] = reported
    for (kind, leg_id), reported in latest.items():
        if kind == ANALYZED:
            yield from _below_reported(case.tree, reported, tolerance)
        elif leg_id:
            yield from _leg_differences(case.tree, leg_id, reported, tolerance)


def _below_reported(tree: CostTree, reported: Reported, tolerance: Decimal) -> Iterable[Reason]:
    """`call.analyzed` is sent while cost still comes in, so a tree above its total is no news."""
    if reported.total is None or reported.total - tree.total <= tolerance:
        return
    yield Reason(
        code="reported_difference",
        text=f"call.analyzed reported {priced(reported.total, tree.currency)}, the settled cost "
        f"tree holds {amount(tree.total)}",
        observed=tree.total,
        limit=reported.total,
        excess=reported.total - tree.total,
    )


def _leg_differences(
    tree: CostTree, leg_id: str, reported: Reported, tolerance: Decimal
) -> Iterable[Reason]:
    """`call.cost` speaks of one leg, and only of its own parts: those nodes it is compared with."""
    parts: dict[str, Decimal] = {}
    for part in reported.parts:
        product = normalise(part.product)
        parts[product] = parts.get(product, ZERO) + part.cost
    for product, cost in parts.items():
        nodes = [e for e in tree.events if e.product == product and _is_of_leg(e, leg_id)]
        inside = sum((node.cost for node in nodes), ZERO)
        if nodes and abs(inside - cost) > tolerance:
            yield Reason(
                code="reported_difference",
                product=product,
                text=f"call.cost reported {priced(cost, tree.currency)} for "
                f"{label(product)} of one leg, the cost tree holds {amount(inside)}",
                observed=inside,
                limit=cost,
                excess=abs(inside - cost),
            )


def _is_of_leg(event: CostEvent, leg_id: str) -> bool:
    record = event.record
    names = (record.telnyx_leg_id, record.call_leg_id, record.leg_id)
    stated = [text(name) for name in names if name]
    return leg_id in stated if stated else event.id == leg_id


# --- what its like have cost --------------------------------------------------------------------


def measured_of(case: Case, policy: Policy) -> Measured | None:
    """The session in numbers, to be compared with its like; None where that would be unfair.

    A cost that still grows is not what its like have cost; nor is one in another currency.
    """
    if case.provisional or case.tree.currency != policy.currency:
        return None
    return measure(case.tree, case.known, case.duration_seconds)


def is_strange(opinion: Opinion, found: Grounds | Verdict) -> bool:
    """Whether a session must not teach what is usual.

    A ceiling alone says nothing of that: where every call crosses it, that is usual.
    """
    facts = (r for r in found.reasons if r.severity and r.code not in CEILINGS)
    return bool(opinion.unlikely) or any(facts)


def _unusual(case: Case, opinion: Opinion | None, policy: Policy) -> Iterator[Reason]:
    """What does not matter enough has no severity: it is listed."""
    if opinion is None or not opinion.unlikely:
        return
    for reason, matters in reasons_of(opinion, case.tree.currency):
        if case.trusted or not reason.code.startswith("missing_"):
            yield _graded(reason, policy) if matters else reason


def _graded(reason: Reason, policy: Policy, *, at_least_low: bool = False) -> Reason:
    severity = policy.severity_of(reason.excess)
    if severity is None and at_least_low:
        severity = Severity.LOW
    return msgspec.structs.replace(reason, severity=severity)
