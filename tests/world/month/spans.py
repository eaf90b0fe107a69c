"""Anomalies that no single call shows: surges, toll fraud, drops, a rate that is wrong for all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Final

from tests.world.month.labels import Label, Span
from tests.world.month.plans import Plan, draft_of
from tests.world.month.table import (
    DROP_HOURS,
    FRAUD_SHAPES,
    SHARED_RATE_HOURS,
    SPAN_KINDS,
    SURGE_LEAST,
    SURGE_MINUTES,
    SURGE_MOST,
    Size,
)
from tests.world.month.traffic import Traffic

_EXPENSIVE: Final = ("LV mobile", "SO mobile", "CU")
_NIGHT: Final = (1.0, 3.5)
_OFFICE: Final = (9.5, 15.0)
_FRAUD_SECONDS: Final = {"short_calls": (6, 25), "one_number": (50, 200), "one_prefix": (20, 70)}
_NEAR: Final = timedelta(hours=24)


@dataclass(slots=True)
class Spans:
    """Puts spans into a month's plans."""

    traffic: Traffic
    plans: list[Plan]
    spans: list[Span]

    def surge(self, day: int, size: Size, rng: Random) -> None:
        """One assistant or connection is called far more often than it ever is."""
        customer = self.traffic.customer
        flow = rng.choice(self.traffic.flows_on(day))
        usual = sum(customer.busiest(each) for each in customer.flows) / 12
        per_step = max(SURGE_LEAST[size], SPAN_KINDS["surge"].of(size) * usual)
        calls = round(min(SURGE_MOST, per_step) * SURGE_MINUTES / 5)
        start = self.traffic.at(day, rng.uniform(*_OFFICE))
        planned = self.traffic.burst(flow, start, calls, SURGE_MINUTES, rng)
        self._add("surge", size, start, SURGE_MINUTES, planned)

    def fraud(self, day: int, size: Size, rng: Random) -> None:
        """At night somebody calls expensive numbers over the customer's own connection."""
        shape = FRAUD_SHAPES[rng.randrange(3)]
        start = self.traffic.at(day, rng.uniform(*_NIGHT))
        calls = round(SPAN_KINDS["fraud"].of(size))
        flow = self.traffic.flows_on(day)[-1]
        base = self.traffic.burst(flow, start, calls, 60, rng)
        place = self._place(rng)
        dialled = draft_of(base[0]).number(place)
        planned = [_fraudulent(plan, shape, place, dialled, rng) for plan in base]
        if shape == "one_number":
            planned = _one_after_another(planned, start)
        self._add("fraud", size, start, 60, planned, shape)

    def drop(self, day: int, size: Size, rng: Random) -> None:
        """Calls stop coming, or most of them do."""
        start = self.traffic.at(day, rng.uniform(9.5, 11.0))
        end = start + timedelta(hours=DROP_HOURS[size])
        left = SPAN_KINDS["drop"].of(size)
        self.plans = [
            plan
            for plan in self.plans
            if not start <= plan.start < end or plan.label is not None or rng.random() < left
        ]
        self.spans.append(Span("drop", size, start, end, "account"))

    def shared_rate(self, day: int, size: Size, rng: Random) -> None:
        """For half a day every call of an assistant is charged at a wrong rate per minute."""
        start = self.traffic.at(day, rng.uniform(7.0, 9.0))
        end = start + timedelta(hours=SHARED_RATE_HOURS)
        factor = Decimal(str(SPAN_KINDS["shared_rate"].of(size)))
        count = 0
        for place, plan in enumerate(self.plans):
            if start <= plan.start < end and plan.is_assistant and plan.label is None:
                rate = plan.prices.assistant_per_minute * factor
                prices = replace(plan.prices, assistant_per_minute=rate)
                self.plans[place] = replace(plan, prices=prices, label=Label(within="shared_rate"))
                count += 1
        self.spans.append(Span("shared_rate", size, start, end, "account", sessions=count))

    def price_change(self) -> None:
        """A lasting, legitimate change: whoever tells of it within a day is not wrong."""
        if self.traffic.customer.new_prices is None:
            return
        start = self.traffic.begin + timedelta(days=self.traffic.customer.new_prices[0])
        end = start + _NEAR
        for place, plan in enumerate(self.plans):
            if start <= plan.start < end and plan.label is None:
                self.plans[place] = replace(plan, label=Label(within="price_change"))
        self.spans.append(Span("price_change", "fine", start, end, "account", fine=True))

    def _place(self, rng: Random) -> str:
        """Half of the frauds call to where the customer calls as well."""
        usual = [
            place
            for flow in self.traffic.customer.flows
            if flow.is_outbound
            for place in flow.places
            if "mobile" in place
        ]
        if usual and rng.random() < 0.5:
            return rng.choice(usual)
        return rng.choice(_EXPENSIVE)

    def _add(
        self,
        kind: str,
        size: Size,
        start: datetime,
        minutes: int,
        planned: Sequence[Plan],
        shape: str = "",
    ) -> None:
        self.plans += [replace(plan, label=Label(within=kind)) for plan in planned]
        end = start + timedelta(minutes=minutes)
        cohort = planned[0].cohort
        self.spans.append(Span(kind, size, start, end, cohort, shape, sessions=len(planned)))


def _fraudulent(plan: Plan, shape: str, place: str, dialled: str, rng: Random) -> Plan:
    """The call as the fraud makes it: no assistant, to that place."""
    number = dialled
    if shape != "one_number":
        # Within a hundred or a thousand numbers of each other.
        digits = 2 if shape == "one_prefix" else 3
        number = f"{dialled[:-digits]}{rng.randrange(10**digits):0{digits}d}"
    return replace(
        plan,
        kind="sip_outbound",
        answered=True,
        place=place,
        talk_seconds=rng.randint(*_FRAUD_SECONDS[shape]),
        known_numbers={place: number},
    )


def _one_after_another(planned: Sequence[Plan], start: datetime) -> list[Plan]:
    """Each begins a few seconds after the one before has ended, as a dialler does it."""
    at = start
    following = []
    for plan in planned:
        following.append(replace(plan, start=at))
        at = following[-1].end + timedelta(seconds=2)
    return following
