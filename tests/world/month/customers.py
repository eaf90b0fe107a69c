"""The customers of the month: flows of calls, their seasons, and what is odd but fine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from tests.world.prices import PriceBook
from tests.world.records import MODEL

FlowKind: TypeAlias = Literal[
    "ai_inbound", "ai_outbound", "sip_outbound", "sip_inbound", "webrtc", "conference"
]

OTHER_MODELS: Final = ("openai/gpt-4o", "Qwen/Qwen3-235B-A22B", "anthropic/claude-haiku-4-5")

_DAY: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        # By local hour; only the proportions count.
        "always": (6, 5, 5, 5, 5, 6, 8, 9, 10, 11, 11, 11, 11, 11, 11, 11, 11, 11, 10, 10, 9, 8,
                   7, 6),
        "office": (0.4, 0.2, 0.2, 0.2, 0.3, 0.6, 2, 6, 14, 18, 19, 17, 13, 15, 17, 17, 15, 11, 6, 3,
                   2, 1.4, 0.9, 0.6),
        "evening": (3, 1.5, 0.8, 0.5, 0.4, 0.5, 1, 2, 3, 4, 5, 7, 8, 7, 6, 7, 9, 12, 16, 19, 18, 14,
                    9, 5),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Flow:
    """Calls of one kind, by one assistant or over one connection. Durations are log-normal."""

    name: str
    kind: FlowKind
    per_day: float
    median_seconds: float = 110.0
    sigma: float = 0.5
    places: Mapping[str, float] = field(default_factory=lambda: {"US": 1.0})
    """Where its calls go, with weights; meaningless for calls that come in."""
    failed: float = 0.0
    """The share of outbound calls to which nobody answers."""
    seconds_per_turn: float = 19.0
    prompt: float = 1.0
    """How dear an inference turn is, in times the price book's."""
    model: str = MODEL
    hours: str = "office"
    from_day: int = 0

    @property
    def is_assistant(self) -> bool:
        """Whether an AI assistant talks."""
        return self.kind.startswith("ai_")

    @property
    def is_outbound(self) -> bool:
        """Whether its calls go to one of several places."""
        return self.kind in {"ai_outbound", "sip_outbound"}


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer's month. Days count from 0, the first day of the month, a Monday."""

    name: str
    flows: tuple[Flow, ...]
    week: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)
    """Factors for Monday to Sunday."""
    growth: float = 1.0
    """Factor from one day to the next."""
    utc_offset_hours: int = -5
    days: int = 28
    prices: PriceBook = field(default_factory=PriceBook)
    new_prices: tuple[int, PriceBook] | None = None
    """From that day on, lasting, and right."""
    campaigns: int = 0
    """Planned ones, each of `campaign_calls` in an hour and a half."""
    campaign_calls: int = 0
    holidays: tuple[int, ...] = ()
    long_calls: int = 1
    """Legitimate hour-long calls, beside those which the durations bring."""
    surges: int = 2
    frauds: int = 2
    drops: int = 0
    shared_rates: int = 1
    budget_per_day: Decimal | None = None
    """USD that the account may cost per day (UTC)."""

    def rate(self, flow: Flow, hours: float) -> float:
        """Calls per hour of a flow, so many hours after the month's begin (UTC)."""
        day = int(hours // 24)
        if day < flow.from_day:
            return 0.0
        local = hours + self.utc_offset_hours
        weights = _DAY[flow.hours]
        season = weights[int(local % 24)] / sum(weights)
        level = self.week[int(local // 24) % 7] * self.growth**day
        if day in self.holidays:
            level *= 0.12
        return flow.per_day * level * season

    def busiest(self, flow: Flow) -> float:
        """No hour has a higher rate."""
        return max(self.rate(flow, hour) for hour in range(24 * self.days))

    def prices_on(self, day: int) -> PriceBook:
        """The price book in force."""
        if self.new_prices and day >= self.new_prices[0]:
            return self.new_prices[1]
        return self.prices


def _steady() -> Customer:
    flows = (
        Flow("reception", "ai_inbound", 60, 120, 0.45, hours="always"),
        Flow("hotline", "ai_inbound", 16, 200, 0.4, prompt=1.4, hours="always"),
        Flow("trunk", "sip_inbound", 24, 150, 0.6, hours="always"),
    )
    return Customer("steady", flows, drops=2, budget_per_day=Decimal(30))


def _weekly() -> Customer:
    flows = (
        Flow("front desk", "ai_inbound", 80, 95, 0.55),
        Flow(
            "reminders",
            "ai_outbound",
            45,
            60,
            0.4,
            {"US": 88, "CA": 9, "GB mobile": 3},
            failed=0.14,
            seconds_per_turn=15,
        ),
        Flow("web", "webrtc", 12, 240, 0.6),
    )
    week = (1.35, 1.3, 1.25, 1.3, 1.2, 0.35, 0.15)
    return Customer("weekly", flows, week, holidays=(17,), drops=2, budget_per_day=Decimal(30))


def _growing() -> Customer:
    places = {"DE mobile": 55, "DE landline": 35, "US": 10}
    flows = (
        Flow("sales", "ai_outbound", 38, 80, 0.6, places, failed=0.2),
        Flow("callback", "ai_inbound", 16, 130, 0.5, prompt=0.8),
    )
    return Customer("growing", flows, growth=1.04, utc_offset_hours=1, drops=1)


def _campaigns() -> Customer:
    flows = (
        Flow("dialler", "ai_outbound", 22, 45, 0.5, {"US": 95, "CA": 5}, failed=0.25),
        Flow("agents", "sip_outbound", 14, 150, 0.7, {"US": 90, "US toll-free": 10}, failed=0.1),
    )
    week = (1.2, 1.2, 1.2, 1.2, 1.2, 0.6, 0.4)
    return Customer("campaigns", flows, week, campaigns=11, campaign_calls=170)


def _tiny() -> Customer:
    flows = (
        Flow("assistant", "ai_inbound", 9, 100, 0.5),
        Flow("phone", "sip_outbound", 4, 120, 0.7, {"US": 1}, failed=0.1),
    )
    return Customer("tiny", flows, long_calls=0, surges=1, frauds=1, shared_rates=0)


def _many() -> Customer:
    rng = Random("many")
    kinds: tuple[FlowKind, ...] = ("ai_inbound", "ai_inbound", "ai_outbound")
    flows = tuple(
        Flow(
            f"assistant {number}",
            kinds[number % 3],
            per_day=34 / (1 + number) ** 0.75,
            median_seconds=rng.uniform(40, 240),
            sigma=rng.uniform(0.3, 0.7),
            places={"US": 80, "CA": 12, "MX mobile": 8},
            failed=0.12,
            seconds_per_turn=rng.uniform(12, 26),
            prompt=rng.uniform(0.6, 2.5),
            model=rng.choice((MODEL, MODEL, *OTHER_MODELS[:1])),
            hours=("office", "evening", "always")[number % 3],
        )
        for number in range(24)
    )
    return Customer("many", flows, drops=2, long_calls=2)


def _heavy() -> Customer:
    flows = (
        Flow("support", "ai_inbound", 40, 90, 1.05, seconds_per_turn=28),
        Flow(
            "office",
            "sip_outbound",
            36,
            80,
            1.15,
            {"US": 70, "GB landline": 12, "GB mobile": 10, "DE landline": 7.6, "NG mobile": 0.4},
            failed=0.1,
        ),
        Flow("meetings", "conference", 9, 1100, 0.7),
    )
    return Customer("heavy", flows, utc_offset_hours=0, drops=1)


def _price_change() -> Customer:
    flows = (
        Flow("bookings", "ai_inbound", 45, 140, 0.5),
        Flow("follow-up", "ai_outbound", 30, 70, 0.5, {"DE mobile": 70, "DE landline": 30},
             failed=0.15),
        Flow("trunk", "sip_outbound", 20, 130, 0.8, {"DE landline": 60, "DE mobile": 40}),
    )  # fmt: skip
    new = PriceBook(
        assistant_per_minute=Decimal("0.06"),
        sip_outbound_per_minute={
            **PriceBook().sip_outbound_per_minute,
            "DE mobile": Decimal("0.0445"),
            "DE landline": Decimal("0.0258"),
        },
    )
    return Customer("price_change", flows, utc_offset_hours=1, new_prices=(14, new), shared_rates=0)


def _newcomer() -> Customer:
    flows = (
        Flow("reception", "ai_inbound", 55, 110, 0.5),
        Flow("trunk", "sip_inbound", 14, 170, 0.6),
        Flow(
            "concierge",
            "ai_inbound",
            42,
            260,
            0.55,
            seconds_per_turn=14,
            prompt=2.2,
            model=OTHER_MODELS[1],
            from_day=12,
        ),
    )
    return Customer("newcomer", flows, drops=1, budget_per_day=Decimal(30))


CUSTOMERS: Final[Mapping[str, Customer]] = MappingProxyType(
    {
        customer.name: customer
        for customer in (
            _steady(),
            _weekly(),
            _growing(),
            _campaigns(),
            _tiny(),
            _many(),
            _heavy(),
            _price_change(),
            _newcomer(),
        )
    }
)
