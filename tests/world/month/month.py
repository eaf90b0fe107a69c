"""One customer's month: all calls in the order in which they end, and the truth about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from random import Random
from typing import Any, Final, TypeAlias, TypeVar

from tests.world import envelopes
from tests.world.answers import Habits, Question, answer
from tests.world.clock import iso_micros
from tests.world.model import Call
from tests.world.month.customers import Customer, Flow
from tests.world.month.injections import Injected, Injection, inject
from tests.world.month.labels import Budget, Label, Labels, Span
from tests.world.month.plans import Plan, sound
from tests.world.month.spans import Spans
from tests.world.month.table import (
    BUDGET_RUNGS,
    FIRST_HOURS,
    SESSION_KINDS,
    SESSION_SHARE,
    SIZES,
    SPAN_KINDS,
)
from tests.world.month.traffic import Traffic, stretched

Line: TypeAlias = dict[str, Any]
T = TypeVar("T")

BEGIN: Final = datetime(2026, 2, 2, tzinfo=UTC)
"""A Monday."""
_WHOLE: Final = Question(max_depth=5)
_HABITS: Final = Habits(extra_fields=False)
_TRIES: Final = 60
_HOUR: Final = (3300, 4500)


@dataclass(slots=True)
class Month:
    """`lines` yields what a detector reads; `labels` are complete once all lines have been."""

    customer: Customer
    seed: int
    labels: Labels
    plans: list[Plan]
    """In the order of their ends."""
    injections: dict[str, Injection]
    """By the plan's key."""
    _spent: dict[int, Decimal] = field(default_factory=dict)

    def lines(self) -> Iterator[Line]:
        """All sessions, by end time, in the format of `tollwatch backtest`."""
        for plan in self.plans:
            injected = self._injected(plan)
            call = injected.call if injected else sound(plan)
            yield self._line(call, plan, injected)

    def _injected(self, plan: Plan) -> Injected | None:
        injection = self.injections.get(plan.key)
        if injection is None:
            return None
        return inject(injection, plan, _flow(self.customer, plan))

    def _line(self, call: Call, plan: Plan, injected: Injected | None) -> Line:
        analysis = answer(call.root, _WHOLE, _HABITS)
        if injected:
            injection = self.injections[plan.key]
            label = Label(injection.kind, injection.size, injected.excess)
            self.labels.sessions[call.session_id] = label
            if injected.tamper:
                injected.tamper(analysis)
        elif plan.label:
            self.labels.sessions[call.session_id] = plan.label
        self._count(call)
        return {
            "started_at": iso_micros(call.start),
            "ended_at": iso_micros(call.end),
            "webhook": _webhook(call),
            "analysis": analysis,
        }

    def _count(self, call: Call) -> None:
        """Crosses the rungs of the budget, each once a day."""
        budget = self.labels.budget
        if budget is None:
            return
        day = (call.end - BEGIN) // timedelta(days=1)
        before = self._spent.get(day, Decimal(0))
        after = self._spent[day] = before + call.total
        for rung in BUDGET_RUNGS:
            limit = budget.per_day * rung / 100
            if before < limit <= after:
                midnight = BEGIN + timedelta(days=day + 1)
                self.labels.spans.append(
                    Span("budget", "easy", call.end, midnight, "account", str(rung))
                )


def make(customer: Customer, seed: int) -> Month:
    """The month of a customer under a seed; anything else of the same two is the same."""
    traffic = Traffic(customer, seed, BEGIN)
    plans, campaigns = traffic.campaigns()
    spans = Spans(traffic, traffic.sound() + plans, [*campaigns, *traffic.holidays()])
    _long_calls(spans, traffic.rng("long calls"))
    _put_spans(spans, traffic.rng("spans"))
    spans.price_change()
    ordered = sorted(spans.plans, key=lambda plan: (plan.end, plan.key))
    labels = Labels(
        customer.name,
        seed,
        BEGIN,
        BEGIN + timedelta(hours=FIRST_HOURS),
        spans=sorted(spans.spans, key=lambda span: span.start),
        budget=Budget(customer.budget_per_day) if customer.budget_per_day else None,
    )
    injections = _injections(customer, ordered, traffic.rng("injections"))
    return Month(customer, seed, labels, ordered, injections)


def _long_calls(spans: Spans, rng: Random) -> None:
    """Some calls of an hour that are quite all right."""
    hosts = [
        place
        for place, plan in enumerate(spans.plans)
        if plan.answered and plan.label is None and _is_scored(plan)
    ]
    for place in rng.sample(hosts, spans.traffic.customer.long_calls):
        plan = spans.plans[place]
        flow = _flow(spans.traffic.customer, plan)
        longer = stretched(plan, flow, rng.randint(*_HOUR))
        spans.plans[place] = replace(longer, label=Label(odd="long_call"))


def _put_spans(spans: Spans, rng: Random) -> None:
    """Each on a day of its own, in the second half of the first week at the earliest."""
    customer = spans.traffic.customer
    kinds = [
        *["surge"] * customer.surges,
        *["fraud"] * customer.frauds,
        *["drop"] * customer.drops,
        *["shared_rate"] * customer.shared_rates,
    ]
    taken = {span.start.date() for span in spans.spans}
    days = [
        day
        for day in range(3, customer.days - 1)
        if day % 7 < 5 and (BEGIN + timedelta(days=day)).date() not in taken
    ]
    sizes = _cycled(SIZES, rng)
    put = {
        "surge": spans.surge,
        "fraud": spans.fraud,
        "drop": spans.drop,
        "shared_rate": spans.shared_rate,
    }
    assert set(put) == set(SPAN_KINDS)
    for kind, day in zip(kinds, rng.sample(days, len(kinds)), strict=True):
        put[kind](day, next(sizes), rng)


def _injections(customer: Customer, plans: list[Plan], rng: Random) -> dict[str, Injection]:
    """So many sessions as the table says get an anomaly; all kinds and sizes in turn."""
    hosts = [plan for plan in plans if plan.answered and plan.label is None and _is_scored(plan)]
    wanted = round(SESSION_SHARE * len(plans))
    chosen: dict[str, Injection] = {}
    pairs = [Injection(kind, size) for kind in SESSION_KINDS for size in SIZES]
    turns = _cycled(pairs, rng)
    for _ in range(3 * len(pairs) + wanted):
        if len(chosen) == wanted:
            break
        injection = next(turns)
        host = _host(injection, customer, [p for p in rng.sample(hosts, min(_TRIES, len(hosts)))
                                           if p.key not in chosen])  # fmt: skip
        if host is not None:
            chosen[host.key] = injection
    return chosen


def _host(injection: Injection, customer: Customer, plans: list[Plan]) -> Plan | None:
    return next((plan for plan in plans if inject(injection, plan, _flow(customer, plan))), None)


def _cycled(items: Sequence[T], rng: Random) -> Iterator[T]:
    shuffled = list(items)
    rng.shuffle(shuffled)
    return cycle(shuffled)


def _is_scored(plan: Plan) -> bool:
    return plan.start >= BEGIN + timedelta(hours=FIRST_HOURS)


def _flow(customer: Customer, plan: Plan) -> Flow:
    return next(flow for flow in customer.flows if flow.name == plan.flow)


def _webhook(call: Call) -> dict[str, Any]:
    """The payload that ended the call: of the conversation where there was one, else the hangup."""
    leg = call.legs[0]
    if call.assistant_id:
        data = envelopes.conversation_ended(call, leg, transcript=False).data
        payload: dict[str, Any] = dict(data["payload"])
        models = {node.record["model"] for node in call.of_type("inference")}
        return {**payload, "llm_model": min(models)} if models else payload
    return dict(envelopes.hangup(call, leg).data["payload"])
