"""A call of the month before it is built: what is decided of it, and how it becomes a call.

Anomalies and spans change plans, so that what a plan does not say stays the same with and without
them: both calls come from one seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Final

from tests.world import kinds
from tests.world.draft import Draft
from tests.world.model import Call
from tests.world.month.customers import FlowKind
from tests.world.month.labels import Label
from tests.world.prices import PriceBook
from tests.world.records import MODEL

# Area codes, each with the hundred numbers that films may use; elsewhere like ranges.
_US_AREAS: Final = ("212", "213", "305", "312", "404", "415", "503", "602", "617", "713", "808")
_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "US": tuple(f"+1{area}55501" for area in _US_AREAS),
        "CA": tuple(f"+1{area}55501" for area in ("416", "514", "604", "613", "902")),
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is decided of one call."""

    key: str
    """Seeds all that is decided while it is built."""
    flow: str
    kind: FlowKind
    start: datetime
    talk_seconds: int
    """Of an unanswered call: how long it rang."""
    turns: int
    place: str
    answered: bool
    assistant_id: str
    connection_id: str
    prices: PriceBook
    model: str = MODEL
    ring_seconds: int = 5
    known_numbers: Mapping[str, str] = field(default_factory=dict)
    """By place: the one number there that it is."""
    label: Label | None = None

    @property
    def end(self) -> datetime:
        """The last hangup."""
        return self.start + timedelta(seconds=self.ring_seconds + self.talk_seconds)

    @property
    def is_assistant(self) -> bool:
        """Whether an AI assistant talked."""
        return self.kind.startswith("ai_") and self.answered

    @property
    def cohort(self) -> str:
        """The assistant's id; of other calls the connection's."""
        return self.assistant_id if self.kind.startswith("ai_") else self.connection_id


@dataclass(slots=True)
class MonthDraft(Draft):
    """A draft with more numbers than the demonstration needs."""

    known_numbers: Mapping[str, str] = field(default_factory=dict)

    def number(self, place: str) -> str:
        """The known number there, or any."""
        known = self.known_numbers.get(place)
        if known is not None:
            return known
        prefixes = _PREFIXES.get(place)
        if prefixes is None:
            # Not `super()`: a dataclass with slots is another class than the one that is written.
            return Draft.number(self, place)
        return f"{self.rng.choice(prefixes)}{self.rng.randrange(100):02d}"


def draft_of(plan: Plan) -> MonthDraft:
    """The draft from which `build` starts."""
    draft = MonthDraft(
        rng=Random(plan.key),
        prices=plan.prices,
        end=plan.end,
        talk_seconds=plan.talk_seconds,
        connection_id=plan.connection_id,
        assistant_id=plan.assistant_id,
        ring_seconds=plan.ring_seconds,
        known_numbers=plan.known_numbers,
    )
    draft.parts.model = plan.model
    return draft


def build(plan: Plan, draft: MonthDraft) -> Call:
    """The sound call of a plan; `draft` is a fresh one."""
    if not plan.answered:
        return kinds.unanswered(draft, plan.place)
    return _RECIPES[plan.kind](plan, draft)


def sound(plan: Plan) -> Call:
    """The call as it is without an injection into its tree."""
    return build(plan, draft_of(plan))


def with_price_noise(prices: PriceBook, factor: float) -> PriceBook:
    """The same rates, but every inference turn so many times as dear: prompts differ in length."""
    exact = Decimal(round(factor * 1000)) / 1000
    return replace(
        prices,
        first_turn=prices.first_turn * exact,
        turn_growth=prices.turn_growth * exact,
        dearest_turn=prices.dearest_turn * exact,
    )


_RECIPES: Final[Mapping[FlowKind, Callable[[Plan, MonthDraft], Call]]] = MappingProxyType(
    {
        "ai_inbound": lambda plan, draft: kinds.inbound_assistant(draft, plan.turns),
        "ai_outbound": lambda plan, draft: kinds.outbound_assistant(
            draft, plan.place, turns=plan.turns
        ),
        "sip_outbound": lambda plan, draft: kinds.trunk_call(draft, plan.place),
        "sip_inbound": lambda _, draft: kinds.sip_inbound(draft),
        "webrtc": lambda _, draft: kinds.webrtc(draft),
        "conference": lambda _, draft: kinds.conference(draft),
    }
)
