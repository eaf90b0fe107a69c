"""A call being made up: who calls whom, when, and how the finished call is put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from types import MappingProxyType
from typing import Final

from tests.world.model import Call, Direction, Leg, Node
from tests.world.prices import PriceBook
from tests.world.records import Builder, uuid4

# Where a country keeps numbers for films and tests, these are from that range.
_NUMBERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "US": "+1312555{:04d}",
        "US toll-free": "+1800555{:04d}",
        "CA": "+1613555{:04d}",
        "GB landline": "+442079460{:03d}",
        "GB mobile": "+447700900{:03d}",
        "DE landline": "+493023125{:03d}",
        "DE mobile": "+49171392{:05d}",
        "NG mobile": "+2348000000{:03d}",
        "FR landline": "+33199001{:03d}",
        "FR mobile": "+33639980{:03d}",
        "MX mobile": "+525555550{:03d}",
        "LV mobile": "+37120000{:03d}",
        "SO mobile": "+252612000{:03d}",
        "CU": "+5352555{:03d}",
        "premium": "+449098790{:03d}",
        "satellite": "+870773555{:03d}",
    }
)


@dataclass(slots=True)
class Draft:
    """What is fixed of a call before its parts are: the end, the talking time, whose app it is."""

    rng: Random
    prices: PriceBook
    end: datetime
    talk_seconds: int
    connection_id: str
    assistant_id: str
    ring_seconds: int = 0
    session_id: str = field(init=False)
    parts: Builder = field(init=False)

    def __post_init__(self) -> None:
        self.session_id = uuid4(self.rng)
        self.ring_seconds = self.ring_seconds or self.rng.randint(2, 9)
        self.parts = Builder(
            self.rng, self.prices, self.session_id, self.start, self.end, self.connection_id
        )

    @property
    def answered(self) -> datetime:
        """When the first leg was picked up."""
        return self.end - timedelta(seconds=self.talk_seconds)

    @property
    def start(self) -> datetime:
        """When it first rang."""
        return self.answered - timedelta(seconds=self.ring_seconds)

    def number(self, place: str) -> str:
        """A phone number there."""
        return _NUMBERS[place].format(self.rng.randint(100, 199))

    def leg(
        self,
        from_: str,
        to: str,
        direction: Direction,
        *,
        ended_before_seconds: int = 0,
        joined_after_seconds: int = 0,
    ) -> Leg:
        """An answered leg, by default as long as the whole call."""
        wait = timedelta(seconds=joined_after_seconds)
        return Leg(
            leg_id=uuid4(self.rng),
            control_id=f"v3:{self.rng.getrandbits(240):060x}",
            from_=from_,
            to=to,
            direction=direction,
            start=self.start + wait,
            answered=self.answered + wait,
            end=self.end - timedelta(seconds=ended_before_seconds),
            hangup_source=self.rng.choice(("caller", "callee")),
            connection_id=self.connection_id,
        )

    def sip_address(self) -> str:
        """The assistant's SIP address."""
        return f"{self.assistant_id}@sip.telnyx.com"

    def finish(
        self,
        kind: str,
        legs: Sequence[Leg],
        parts: Sequence[Node],
        *,
        with_assistant: bool = False,
        conference_id: str | None = None,
    ) -> Call:
        """The call with its session's root above the parts."""
        return Call(
            session_id=self.session_id,
            kind=kind,
            start=self.start,
            end=self.end,
            direction=legs[0].direction,
            connection_id=self.connection_id,
            legs=tuple(legs),
            root=self.parts.session(parts),
            assistant_id=self.assistant_id if with_assistant else None,
            conversation_id=self.parts.conversation_id if with_assistant else None,
            conference_id=conference_id,
        )
