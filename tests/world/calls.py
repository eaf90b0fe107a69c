"""Makes up calls: seeded, of every kind, sound and anomalous, each knowing what it must lead to."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import MappingProxyType
from typing import Final, get_args

from tests.world import anomalies, kinds
from tests.world.draft import Draft
from tests.world.model import Call, Direction, Expected, IndexedUnder, Leg, Node
from tests.world.prices import PriceBook
from tests.world.records import uuid4

__all__ = [
    "ANOMALIES",
    "KINDS",
    "MIX",
    "Call",
    "CallGenerator",
    "Direction",
    "Expected",
    "IndexedUnder",
    "Leg",
    "Node",
]

KINDS: Final = tuple(kinds.RECIPES)
"""Sound calls: nothing to alert about."""
ANOMALIES: Final = tuple(anomalies.RECIPES)
"""Calls that must be alerted, by what is wrong with them."""
MIX: Final[Mapping[str, float]] = MappingProxyType(
    {
        "ai_inbound": 40,
        "ai_outbound": 25,
        "sip_outbound": 10,
        "sip_inbound": 8,
        "webrtc": 5,
        "conference": 3,
        "failed": 7,
        "cut": 1,
        "seven_levels": 1,
    }
)
"""How often each kind occurs on a usual day."""

_INDEXED_UNDER: Final[tuple[IndexedUnder, ...]] = get_args(IndexedUnder)
_START: Final = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)
_TALK_SECONDS: Final = (30, 300)


class CallGenerator:
    """The same seed, asked for the same calls in the same order, makes the same calls.

    Calls end one after another from `start` on, unless `make` is told when.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        start: datetime = _START,
        prices: PriceBook | None = None,
        assistants: int = 4,
        connections: int = 4,
    ) -> None:
        self._seed = seed
        self._made = 0
        self._end = start
        self._prices = prices or PriceBook()
        pool = Random(f"{seed}/pool")
        self.assistant_ids = tuple(f"assistant-{uuid4(pool)}" for _ in range(assistants))
        self.connection_ids = tuple(
            str(pool.randint(10**18, 3 * 10**18)) for _ in range(connections)
        )

    def make(
        self,
        kind: str,
        *,
        end: datetime | None = None,
        talk_seconds: int | None = None,
        assistant_id: str | None = None,
        connection_id: str | None = None,
        indexed_under: IndexedUnder | None = None,
    ) -> Call:
        """One call, of a kind or with an anomaly. Where a kind fixes the length it stays so.

        Raises KeyError for a kind that does not exist.
        """
        recipe = _recipe(kind)
        rng = Random(f"{self._seed}/{self._made}")
        self._made += 1
        draft = Draft(
            rng=rng,
            prices=self._prices,
            end=end or self._next_end(rng),
            talk_seconds=talk_seconds or rng.randint(*_TALK_SECONDS),
            connection_id=connection_id or rng.choice(self.connection_ids),
            assistant_id=assistant_id or rng.choice(self.assistant_ids),
        )
        call = recipe(draft)
        days = rng.choice(_INDEXED_UNDER) if indexed_under is None else indexed_under
        return replace(call, root=kinds.parts_in_order(call.root), indexed_under=days)

    def mix(
        self,
        count: int,
        *,
        weights: Mapping[str, float] = MIX,
        end: datetime | None = None,
    ) -> list[Call]:
        """So many calls as they occur on a usual day, or as the weights say."""
        rng = Random(f"{self._seed}/mix/{self._made}")
        chosen = rng.choices(list(weights), list(weights.values()), k=count)
        return [self.make(kind, end=end) for kind in chosen]

    def _next_end(self, rng: Random) -> datetime:
        self._end += timedelta(seconds=rng.randint(1, 30))
        return self._end


def _recipe(kind: str) -> kinds.Recipe:
    return {**kinds.RECIPES, **anomalies.RECIPES}[kind]
