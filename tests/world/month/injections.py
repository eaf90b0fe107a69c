"""Anomalies of single sessions: each changes a plan, the call's tree, or what Telnyx says of it.

Nothing is added that only anomalies have: the same fields, the same ways to write money and ids.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from random import Random
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from tests.world.clock import iso_seconds
from tests.world.model import Call, Leg, Node
from tests.world.month.customers import OTHER_MODELS, Flow
from tests.world.month.plans import MonthDraft, Plan, build, draft_of, sound, with_price_noise
from tests.world.month.table import LEAST_EXCESS, NEW_COUNTRIES, SESSION_KINDS, SIZES, Size
from tests.world.month.traffic import longest_usual_seconds, stretched
from tests.world.prices import ZERO, record_money, tree_money
from tests.world.records import uuid4

Analysis: TypeAlias = dict[str, Any]

_RATE_DIGITS: Final = Decimal("0.00001")
_MONEY_DIGITS: Final = Decimal("0.0001")
_MOST_TURNS: Final = 600
_BILLED_BY_TIME: Final = ("sip-trunking", "ai-voice-assistant", "call-control")
_PRICED: Final = ("sip-trunking", "ai-voice-assistant")
_NEW_PRODUCTS: Final = (
    ("media-streaming", "call-control"),
    ("noise-suppression", "call-control"),
    ("siprec-client", "call-session"),
    ("summarization", "call-session"),
)


@dataclass(frozen=True, slots=True)
class Injection:
    """What is injected into one session, and how much of it."""

    kind: str
    size: Size

    @property
    def amount(self) -> float:
        """The number of the table."""
        return SESSION_KINDS[self.kind].of(self.size)

    @property
    def below(self) -> float:
        """The next larger size's number: of what must lie between two sizes."""
        place = SIZES.index(self.size)
        return SESSION_KINDS[self.kind].of(SIZES[place - 1]) if place else math.inf


@dataclass(frozen=True, slots=True)
class Injected:
    """The anomalous call; `tamper` changes what is said of it."""

    call: Call
    excess: Decimal
    tamper: Callable[[Analysis], None] | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """The call into which something is injected, as far as the injection has to know it."""

    injection: Injection
    plan: Plan
    flow: Flow
    rng: Random
    draft: MonthDraft

    def usd(self) -> Decimal:
        """The table's amount of money, or up to a quarter more: real ones are not round."""
        amount = self.injection.amount * self.rng.uniform(1.0, 1.25)
        return max(_MONEY_DIGITS, Decimal(amount).quantize(_MONEY_DIGITS))

    def factor(self) -> Decimal:
        """The table's factor, exactly."""
        return Decimal(str(self.injection.amount))

    def has(self, amount: Decimal | float) -> bool:
        """Whether the amount is of this size and of no larger one."""
        return self.injection.amount <= amount < self.injection.below


def inject(injection: Injection, plan: Plan, flow: Flow) -> Injected | None:
    """The call with the anomaly; None where this call cannot have it in that size."""
    if not plan.answered or (injection.kind in _OF_ASSISTANTS and not plan.is_assistant):
        return None
    rng = Random(f"{plan.key}/{injection.kind}")
    change = _OF_PLANS.get(injection.kind)
    if change is not None:
        changed = change(Host(injection, plan, flow, rng, draft_of(plan)))
        if changed is None:
            return None
        call: Call | None = build(changed, draft_of(changed))
    else:
        draft = draft_of(plan)
        host = Host(injection, plan, flow, rng, draft)
        call = build(plan, draft)
        if injection.kind in _OF_ANSWERS:
            return _said(host, call)
        call = _OF_TREES[injection.kind](host, call)
    if call is None:
        return None
    excess = call.total - sound(plan).total
    worth = injection.size == "barely" or abs(excess) >= LEAST_EXCESS
    return Injected(call, excess) if worth else None


# --- anomalies that are decided before the call is built ----------------------------------------


def _dear_session(host: Host) -> Plan | None:
    """Nobody hung up."""
    seconds = longest_usual_seconds(host.flow) * host.injection.amount
    return stretched(host.plan, host.flow, seconds)


def _inference_loop(host: Host) -> Plan | None:
    """An assistant that talks to itself."""
    turns = round(host.plan.turns * host.factor())
    return replace(host.plan, turns=turns) if turns <= _MOST_TURNS else None


def _new_country(host: Host) -> Plan | None:
    """A call to where this flow never called."""
    place = NEW_COUNTRIES[int(host.injection.amount)]
    if not host.flow.is_outbound or place in host.flow.places:
        return None
    return replace(host.plan, place=place)


def _new_model(host: Host) -> Plan | None:
    """Somebody chose another model, which may be dearer."""
    prices = with_price_noise(host.plan.prices, host.injection.amount)
    return replace(host.plan, model=OTHER_MODELS[-1], prices=prices)


# --- anomalies of the cost tree -----------------------------------------------------------------


def _dear_minute(host: Host, call: Call) -> Call | None:
    """A second leg that nobody expected, all the time."""
    minutes = max(1, -(-host.plan.talk_seconds // 60))
    rate = (call.total / minutes * (host.factor() - 1)).quantize(_RATE_DIGITS)
    leg = host.draft.leg(host.draft.number("US"), host.draft.number("US"), "outbound")
    return _with_leg(call, leg, host.draft.parts.sip(leg, rate))


def _dear_product(host: Host, call: Call) -> Call | None:
    """The assistant read a book aloud."""

    def longer(node: Node) -> Node:
        if node.record_type != "text-to-speech":
            return node
        characters = round(node.record["number_of_characters"] * host.factor())
        cost = host.plan.prices.speech(characters)
        return _charged(node, cost, number_of_characters=characters)

    return _mapped(call, longer)


def _dear_event(host: Host, call: Call) -> Call | None:
    """A prompt that had grown out of hand: every turn is dearer."""
    factor = host.factor()

    def dearer(node: Node) -> Node:
        if node.record_type != "inference":
            return node
        names = ("user_prompt_tokens", "cached_user_prompt_tokens", "tokens")
        tokens = {name: round(node.record[name] * factor) for name in names}
        return _charged(node, (node.cost * factor).quantize(Decimal("0.0000001")), **tokens)

    return _mapped(call, dearer)


def _wrong_rate(host: Host, call: Call) -> Call | None:
    """One part of the call is charged at a rate that is not its own."""
    part = _chosen(host.rng, call, _PRICED)
    if part is None:
        return None
    rate = (Decimal(part.record["rate"]) * host.factor()).quantize(_RATE_DIGITS)
    cost = rate * part.record["billed_sec"] / 60
    return _replaced(call, part, _charged(part, cost, rate=record_money(rate)))


def _double_charge(host: Host, call: Call) -> Call | None:
    """The same event twice."""
    parts = [
        node for node in call.root.walk() if not node.children and node.cost and host.has(node.cost)
    ]
    if not parts:
        return None
    part = host.rng.choice(parts)

    def twice(node: Node) -> Node:
        if not any(child is part for child in node.children):
            return node
        return replace(node, children=(*node.children, part))

    return _mapped(call, twice)


def _overbilled(host: Host, call: Call) -> Call | None:
    """Billed far longer than the part lasted."""
    part = _chosen(host.rng, call, _BILLED_BY_TIME)
    if part is None:
        return None
    minutes = Decimal(part.record["billed_sec"]) / 60
    billed = max(minutes + 1, (minutes * host.factor()).to_integral_value(ROUND_CEILING))
    cost = Decimal(part.record["rate"]) * billed
    return _replaced(call, part, _charged(part, cost, billed_sec=int(billed * 60)))


def _late_charge(host: Host, call: Call) -> Call | None:
    """Something of this session began hours after everybody had hung up."""
    rate = host.plan.prices.sip_outbound_per_minute["US"]
    seconds = round(host.usd() / rate * 60) - host.rng.randint(1, 40)
    start = call.end + timedelta(hours=host.rng.uniform(2, 20))
    answered = start + timedelta(seconds=5)
    leg = replace(
        host.draft.leg(host.draft.number("US"), host.draft.number("US"), "outbound"),
        start=start,
        answered=answered,
        end=answered + timedelta(seconds=max(5, seconds)),
    )
    return replace(_with_leg(call, leg, host.draft.parts.sip(leg, rate)), legs=call.legs)


def _new_product(host: Host, call: Call) -> Call | None:
    """Something that this flow never used."""
    product, parent = host.rng.choice(_NEW_PRODUCTS)
    cost = host.usd()
    record = {
        "id": uuid4(host.rng),
        "telnyx_session_id": call.session_id,
        "created_at": iso_seconds(call.end),
        "rate": record_money(cost),
    }
    part = host.draft.parts.node(product, record["id"], cost, record, parent=parent)
    if parent not in {child.record_type for child in call.root.children}:
        return replace(call, root=replace(call.root, children=(*call.root.children, part)))
    first = next(node for node in call.root.walk() if node.record_type == parent)
    return _replaced(call, first, replace(first, children=(*first.children, part)))


def _missing_inference(host: Host, call: Call) -> Call | None:
    """The turns were never billed, or the assistant never thought."""
    if not host.has(len(call.of_type("inference"))):
        return None
    return _mapped(
        call,
        lambda node: (
            replace(node, children=()) if node.record_type == "ai-voice-assistant" else node
        ),
    )


def _missing_cost(host: Host, call: Call) -> Call | None:
    """Nothing was charged."""
    if not host.has(call.total):
        return None
    return _mapped(call, lambda node: _charged(node, ZERO) if node.cost else node)


# --- anomalies of what Telnyx says --------------------------------------------------------------


def _said(host: Host, call: Call) -> Injected:
    amount = host.usd()
    return Injected(
        call, amount, lambda analysis: _OF_ANSWERS[host.injection.kind](analysis, amount)
    )


def _sum_mismatch(analysis: Analysis, amount: Decimal) -> None:
    """An event states more than itself and its children; those above it count that in."""
    path = max(_paths(analysis["root"]), key=len)
    for node in path:
        cost = node["cost"]
        cost["cumulative_cost"] = tree_money(Decimal(cost["cumulative_cost"]) + amount)
    _total_mismatch(analysis, amount)


def _total_mismatch(analysis: Analysis, amount: Decimal) -> None:
    """The session's total is not that of its root."""
    cost = analysis["cost"]
    cost["total"] = tree_money(Decimal(cost["total"]) + amount)


def _paths(node: Analysis, above: Sequence[Analysis] = ()) -> Iterator[Sequence[Analysis]]:
    """The ways from the root to each event that has children."""
    if node["children"]:
        path = (*above, node)
        yield path
        for child in node["children"]:
            yield from _paths(child, path)


# --- trees --------------------------------------------------------------------------------------


def _mapped(call: Call, change: Callable[[Node], Node]) -> Call:
    def below(node: Node) -> Node:
        changed = change(node)
        return replace(changed, children=tuple(below(child) for child in changed.children))

    return replace(call, root=below(call.root))


def _replaced(call: Call, old: Node, new: Node) -> Call:
    """With another event in the place of the old one, and below it what the new one brings."""
    return _mapped(call, lambda node: new if node is old else node)


def _charged(node: Node, cost: Decimal, **fields: Any) -> Node:
    return replace(node, cost=cost, record={**node.record, **fields, "cost": record_money(cost)})


def _chosen(rng: Random, call: Call, record_types: Sequence[str]) -> Node | None:
    parts = [node for node in call.root.walk() if node.cost and node.record_type in record_types]
    return rng.choice(parts) if parts else None


def _with_leg(call: Call, leg: Leg, part: Node) -> Call:
    root = replace(call.root, children=(*call.root.children, part))
    return replace(call, legs=(*call.legs, leg), root=root)


_OF_PLANS: Final[Mapping[str, Callable[[Host], Plan | None]]] = MappingProxyType(
    {
        "dear_session": _dear_session,
        "inference_loop": _inference_loop,
        "new_country": _new_country,
        "new_model": _new_model,
    }
)
_OF_TREES: Final[Mapping[str, Callable[[Host, Call], Call | None]]] = MappingProxyType(
    {
        "dear_minute": _dear_minute,
        "dear_product": _dear_product,
        "dear_event": _dear_event,
        "wrong_rate": _wrong_rate,
        "double_charge": _double_charge,
        "overbilled": _overbilled,
        "late_charge": _late_charge,
        "new_product": _new_product,
        "missing_inference": _missing_inference,
        "missing_cost": _missing_cost,
    }
)
_OF_ANSWERS: Final[Mapping[str, Callable[[Analysis, Decimal], None]]] = MappingProxyType(
    {"sum_mismatch": _sum_mismatch, "total_mismatch": _total_mismatch}
)
_OF_ASSISTANTS: Final = frozenset(
    {"inference_loop", "dear_event", "dear_product", "new_model", "missing_inference"}
)
