"""A customer's sound calls: when they come, how long they last, where they go."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from statistics import NormalDist
from typing import Final

from tests.world.month.customers import Customer, Flow
from tests.world.month.labels import Label, Span
from tests.world.month.plans import Plan, with_price_noise
from tests.world.records import uuid4

LONGEST_SECONDS: Final = 4 * 3600
"""Telnyx ends a call after four hours, unless it is told otherwise."""
_SHORTEST_SECONDS: Final = 3
_MOST_TURNS: Final = 300
_CAMPAIGN_MINUTES: Final = 90
_TURN_SPREAD: Final = 0.2
_PROMPT_SPREAD: Final = 0.1


@dataclass(slots=True)
class Traffic:
    """Plans calls. The same customer, seed and begin plan the same calls in the same order."""

    customer: Customer
    seed: int
    begin: datetime
    _ids: dict[str, tuple[str, str, str]] = field(init=False)
    _made: int = 0

    def __post_init__(self) -> None:
        rng = self.rng("ids")
        self._ids = {
            flow.name: (
                f"assistant-{uuid4(rng)}",
                str(rng.randint(10**18, 3 * 10**18)),
                f"+1800555{rng.randint(1000, 9999)}",
            )
            for flow in self.customer.flows
        }

    def rng(self, what: str) -> Random:
        """Chance of its own for each purpose."""
        return Random(f"{self.seed}/{self.customer.name}/{what}")

    def sound(self) -> list[Plan]:
        """The month's usual calls, holidays included, in no order."""
        return [
            self.plan(flow, at)
            for flow in self.customer.flows
            for at in self._arrivals(flow, self.rng(f"arrivals/{flow.name}"))
        ]

    def campaigns(self) -> tuple[list[Plan], list[Span]]:
        """Planned ones: the first flow calls many people within an hour and a half."""
        plans: list[Plan] = []
        spans: list[Span] = []
        rng = self.rng("campaigns")
        days = [day for day in range(self.customer.days) if self._is_business_day(day)]
        for day in sorted(rng.sample(days, self.customer.campaigns)):
            start = self.at(day, rng.uniform(9.5, 15.5))
            calls = round(self.customer.campaign_calls * rng.uniform(0.5, 1.3))
            planned = self.burst(0, start, calls, _CAMPAIGN_MINUTES, rng)
            plans += [replace(plan, label=Label(odd="campaign")) for plan in planned]
            end = start + timedelta(minutes=_CAMPAIGN_MINUTES)
            spans.append(
                Span("campaign", "fine", start, end, planned[0].cohort, "", fine=True,
                     sessions=calls)
            )  # fmt: skip
        return plans, spans

    def holidays(self) -> list[Span]:
        """The days on which few calls come, in UTC."""
        return [
            Span("holiday", "fine", self._utc_day(day), self._utc_day(day + 1), "account",
                 fine=True)
            for day in self.customer.holidays
        ]  # fmt: skip

    def burst(
        self, flow: int, start: datetime, calls: int, minutes: float, rng: Random
    ) -> list[Plan]:
        """So many calls of a flow, evenly by chance within so many minutes."""
        return [
            self.plan(self.customer.flows[flow], start + timedelta(minutes=rng.uniform(0, minutes)))
            for _ in range(calls)
        ]

    def flows_on(self, day: int) -> list[int]:
        """The places of the flows that have begun by then, at most the first three."""
        flows = self.customer.flows
        return [place for place, flow in enumerate(flows) if flow.from_day <= day][:3]

    def at(self, day: int, local_hour: float) -> datetime:
        """That hour of the customer's clock on that day, in UTC."""
        return self._utc_day(day) + timedelta(hours=local_hour - self.customer.utc_offset_hours)

    def plan(self, flow: Flow, start: datetime) -> Plan:
        """One call of a flow."""
        self._made += 1
        key = f"{self.seed}/{self.customer.name}/{self._made}"
        rng = Random(f"{key}/plan")
        seconds = min(
            LONGEST_SECONDS, rng.lognormvariate(math.log(flow.median_seconds), flow.sigma)
        )
        answered = not flow.is_outbound or rng.random() >= flow.failed
        talk = max(_SHORTEST_SECONDS, round(seconds)) if answered else rng.randint(8, 40)
        turns = talk / flow.seconds_per_turn * rng.lognormvariate(0, _TURN_SPREAD)
        day = (start - self.begin) // timedelta(days=1)
        prices = self.customer.prices_on(day)
        if flow.is_assistant:
            prices = with_price_noise(prices, flow.prompt * rng.lognormvariate(0, _PROMPT_SPREAD))
        assistant_id, connection_id, own_number = self._ids[flow.name]
        return Plan(
            key=key,
            flow=flow.name,
            kind=flow.kind,
            start=start,
            talk_seconds=talk,
            turns=max(1, round(turns)),
            place=rng.choices(list(flow.places), list(flow.places.values()))[0],
            answered=answered,
            assistant_id=assistant_id,
            connection_id=connection_id,
            prices=prices,
            model=flow.model,
            ring_seconds=rng.randint(2, 9),
            known_numbers={"US toll-free": own_number} if flow.kind == "ai_inbound" else {},
        )

    def _arrivals(self, flow: Flow, rng: Random) -> Iterator[datetime]:
        """A Poisson process whose rate follows the seasons: thinned from the busiest hour's."""
        busiest = self.customer.busiest(flow)
        hours = 0.0
        while True:
            hours += rng.expovariate(busiest)
            if hours >= 24 * self.customer.days:
                return
            if rng.random() * busiest < self.customer.rate(flow, hours):
                yield self.begin + timedelta(hours=hours)

    def _is_business_day(self, day: int) -> bool:
        return day >= 1 and day % 7 < 5 and day not in self.customer.holidays

    def _utc_day(self, day: int) -> datetime:
        return self.begin + timedelta(days=day)


def longest_usual_seconds(flow: Flow) -> float:
    """The 99.9 % quantile of a flow's durations."""
    return flow.median_seconds * math.exp(flow.sigma * NormalDist().inv_cdf(0.999))


def stretched(plan: Plan, flow: Flow, seconds: float) -> Plan:
    """The same call, as long as given, with the same end, so that the order of ends stays.

    Its turns grow with it, until nobody says much any more.
    """
    talk = round(min(seconds, LONGEST_SECONDS - 60))
    turns = min(_MOST_TURNS, max(1, round(talk / flow.seconds_per_turn)))
    start = plan.start + timedelta(seconds=plan.talk_seconds - talk)
    return replace(plan, start=start, talk_seconds=talk, turns=turns)
