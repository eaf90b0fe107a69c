"""Builds the events of a call's cost tree, with detail records as Telnyx fills them.

The fields of each record type are those seen on live accounts and in Telnyx's published schemas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any, Final
from uuid import UUID

from tests.world.clock import iso_seconds, later
from tests.world.model import Leg, Node
from tests.world.prices import ZERO, PriceBook, record_money
from tests.world.record_types import RECORD_TYPES, via

CALLER_NAME: Final = "Erika Mustermann"
"""Stands in records and webhooks wherever Telnyx puts a caller's name; must never be kept."""

_POSTING: Final = {
    "sip-trunking": (15.0, 60.0),
    "webrtc": (15.0, 60.0),
    "call-control": (10.0, 50.0),
    "conference": (20.0, 60.0),
    "conference-participant": (20.0, 80.0),
    "recording": (45.0, 200.0),
    "ai-voice-assistant": (30.0, 85.0),
    "inference": (60.0, 220.0),
    "text-to-speech": (40.0, 150.0),
    "speech-to-text": (40.0, 150.0),
    "amd": (20.0, 80.0),
}
"""Between how many seconds after a call's end the parts of each type appear."""
MODEL: Final = "moonshotai/Kimi-K2.6"
"""The LLM of an assistant unless another is chosen."""


def uuid4(rng: Random) -> str:
    """A seeded random UUID."""
    return str(UUID(int=rng.getrandbits(128), version=4))


@dataclass(slots=True)
class Builder:
    """Builds one call's events. Costs follow the price book unless a cost or rate is given."""

    rng: Random
    prices: PriceBook
    session_id: str
    start: datetime
    end: datetime
    connection_id: str
    model: str = MODEL
    conversation_id: str = field(init=False)
    parts_posted_at: dict[str, float] = field(default_factory=dict)
    """Fixed posting times by record type, in seconds after the end."""

    def __post_init__(self) -> None:
        self.conversation_id = uuid4(self.rng)

    def node(
        self,
        record_type: str,
        id: str,
        cost: Decimal,
        record: dict[str, Any],
        children: Sequence[Node] = (),
        *,
        parent: str = "call-session",
        posted_after_seconds: float | None = None,
    ) -> Node:
        """An event of any type. The record gets what all records have: type, cost and currency."""
        product = RECORD_TYPES[record_type].product
        return Node(
            record_type=record_type,
            id=id,
            product=product,
            event_name=self._event_name(record_type, product),
            cost=cost,
            record={
                "record_type": record_type,
                **record,
                "cost": record.get("cost", record_money(cost)),
                "currency": "USD",
            },
            posted_after_seconds=(
                self.posting(record_type) if posted_after_seconds is None else posted_after_seconds
            ),
            via=via(record_type, parent),
            children=tuple(children),
        )

    def posting(self, record_type: str) -> float:
        """When a part of that type appears, in seconds after the end."""
        if record_type in self.parts_posted_at:
            return self.parts_posted_at[record_type]
        return round(self.rng.uniform(*_POSTING.get(record_type, (20.0, 120.0))), 1)

    def session(self, children: Sequence[Node]) -> Node:
        """The root: a container without a cost, which is there as soon as its first part is.

        Like Telnyx's own example it bears the product of SIP trunking where the call had a SIP leg.
        """
        with_sip = any(child.record_type == "sip-trunking" for child in children)
        return Node(
            record_type="call-session",
            id=self.session_id,
            product="siptrunking-cdrs" if with_sip else "call-session",
            event_name="call-session",
            cost=ZERO,
            record={
                "record_type": "call-session",
                "telnyx_session_id": self.session_id,
                "call_session_id": self.session_id,
                "started_at": iso_seconds(self.start),
                "finished_at": iso_seconds(self.end),
            },
            posted_after_seconds=min(child.posted_after_seconds for child in children),
            children=tuple(children),
        )

    def sip(
        self,
        leg: Leg,
        rate: Decimal | None = None,
        *,
        cost: Decimal | None = None,
        leg_direction: str | None = None,
        posted_after_seconds: float | None = None,
    ) -> Node:
        """A SIP leg; of an unanswered one nothing is billed."""
        if rate is None:
            rate = self.prices.sip_inbound_per_minute
        seconds = leg.talk_seconds
        connected = leg.answered is not None
        charged = self.prices.timed(rate, seconds) if cost is None else cost
        record = {
            "id": leg.leg_id,
            **self._identity(leg),
            "call_control_id": leg.control_id,
            "sip_call_id": f"otb_{self.rng.getrandbits(80):020x}",
            "direction": leg.direction,
            **self._parties(leg),
            **self._times(leg),
            "answered_at": iso_seconds(leg.answered) if leg.answered else None,
            "call_sec": seconds,
            "billed_sec": self.prices.billed_seconds(seconds),
            "rate": record_money(rate) if connected else "0",
            "hangup_cause": "NORMAL_CLEARING" if connected else leg.hangup_cause.upper(),
            "attempted": 1,
            "connected": int(connected),
            "completed": int(connected),
            "connection_id": leg.connection_id or self.connection_id,
            "outbound_profile_id": "1293384261075731499",
            "flow_source": "telnyx_connection",
            "flow_dest": "non_telnyx_pstn_number",
            "leg_direction": leg_direction or leg.direction,
            "route": "Inter",
            "shaken_stir": "A",
            "onnet": False,
            "hangup_code": 16 if connected else 21,
            "sip_invite_failure_status": "" if connected else leg.sip_hangup_cause,
            "telnyx_error_code": "D00",
            "rtp_use_codec_name": "PCMU" if connected else "",
        }
        return self.node(
            "sip-trunking", leg.leg_id, charged, record, posted_after_seconds=posted_after_seconds
        )

    def webrtc(self, leg: Leg, *, cost: Decimal | None = None) -> Node:
        """A WebRTC leg."""
        rate = self.prices.webrtc_per_minute
        seconds = leg.talk_seconds
        record = {
            "id": leg.leg_id,
            **self._identity(leg),
            "session_id": uuid4(self.rng),
            "direction": leg.direction,
            **self._parties(leg),
            "caller_name": CALLER_NAME,
            **self._times(leg),
            "call_sec": seconds,
            "billed_sec": self.prices.billed_seconds(seconds),
            "rate": record_money(rate),
            "connection_id": leg.connection_id or self.connection_id,
            "connection_name": "web-dialer",
            "payment_method": "rate-deck",
        }
        charged = self.prices.timed(rate, seconds) if cost is None else cost
        return self.node("webrtc", leg.leg_id, charged, record)

    def call_control(
        self,
        leg: Leg,
        children: Sequence[Node] = (),
        *,
        cost: Decimal | None = None,
        parent: str = "call-session",
    ) -> Node:
        """The Call Control part of a leg."""
        rate = self.prices.call_control_per_minute
        seconds = leg.talk_seconds
        record = {
            **self._identity(leg),
            **self._parties(leg),
            "caller_number": leg.from_,
            "dest_number": leg.to,
            "direction": leg.direction,
            **self._times(leg),
            "call_sec": seconds,
            "billed_sec": self.prices.billed_seconds(seconds),
            "rate": record_money(rate),
            "connected": leg.answered is not None,
            "attempted": True,
            "connection_id": leg.connection_id or self.connection_id,
        }
        charged = self.prices.timed(rate, seconds) if cost is None else cost
        return self.node("call-control", leg.leg_id, charged, record, children, parent=parent)

    def assistant(
        self,
        leg: Leg,
        turns: Sequence[Node],
        *,
        rate: Decimal | None = None,
        cost: Decimal | None = None,
    ) -> Node:
        """The AI assistant's part; its id is that of the conversation."""
        rate = self.prices.assistant_per_minute if rate is None else rate
        seconds = leg.talk_seconds
        record = {
            "call_control_id": leg.control_id,
            **self._identity(leg),
            "conversation_id": self.conversation_id,
            "created_at": iso_seconds(leg.answered or leg.start),
            "completed_at": iso_seconds(leg.end),
            "duration_sec": seconds,
            "billed_sec": self.prices.billed_seconds(seconds),
            "rate": record_money(rate),
            "rate_measured_in": "ai_voice_assistant_minutes",
            "stt_model": "deepgram/flux",
            "tts_provider": "elevenlabs",
            "tts_model_id": "eleven_flash_v2_5",
        }
        charged = self.prices.timed(rate, seconds) if cost is None else cost
        return self.node(
            "ai-voice-assistant",
            self.conversation_id,
            charged,
            record,
            turns,
            parent="call-control",
        )

    def turn(
        self,
        number: int,
        at: datetime,
        *,
        cost: Decimal | None = None,
        children: Sequence[Node] = (),
    ) -> Node:
        """One LLM turn. Some accounts' records name no conversation, so some here do not either."""
        if cost is None:
            noise = Decimal(self.rng.randint(-60, 60)) / 1_000_000
            cost = self.prices.turn(number) + noise
        prompt = 700 + 180 * number
        completion = self.rng.randint(15, 90)
        event_id = uuid4(self.rng)
        record = {
            "id": event_id,
            "created_at": iso_seconds(at),
            "model": self.model,
            "conversation_id": self.conversation_id if self.rng.random() < 0.8 else None,
            "inference_time": f"{self.rng.uniform(0.3, 1.4):.3f}",
            "user_prompt_tokens": prompt,
            "cached_user_prompt_tokens": prompt // 2,
            "completion_tokens": completion,
            "tokens": prompt + completion,
            "service_tier": "default",
            "usecase": "chat-completions-api",
            "billable": True,
            "rate": "1.0E-4",
            "billing_group_id": None,
        }
        return self.node("inference", event_id, cost, record, children, parent="ai-voice-assistant")

    def turns(self, leg: Leg, count: int) -> list[Node]:
        """So many LLM turns, spread over the conversation."""
        begin = leg.answered or leg.start
        step = leg.talk_seconds / (count + 1)
        return [self.turn(number, later(begin, step * (number + 1))) for number in range(count)]

    def recording(self, leg: Leg, *, cost: Decimal | None = None) -> Node:
        """A recording, which Telnyx bills even where none was asked for."""
        rate = self.prices.recording_per_minute
        record = {
            "telnyx_session_id": self.session_id,
            **self._times(leg),
            "billed_sec": self.prices.billed_seconds(leg.talk_seconds),
            "rate": record_money(rate),
        }
        charged = self.prices.timed(rate, leg.talk_seconds) if cost is None else cost
        return self.node("recording", uuid4(self.rng), charged, record)

    def text_to_speech(self, leg: Leg, characters: int) -> Node:
        """All that was spoken on a leg."""
        record = {
            **self._call_identity(leg),
            "created_at": iso_seconds(leg.end),
            "provider": "elevenlabs",
            "number_of_characters": characters,
            "rate": record_money(self.prices.text_to_speech_per_character),
        }
        cost = self.prices.speech(characters)
        return self.node("text-to-speech", uuid4(self.rng), cost, record, parent="call-control")

    def speech_to_text(self, leg: Leg, *, charged: bool = False) -> Node:
        """The transcription of a leg; free inside assistant calls, where it has four decimals."""
        rate = self.prices.speech_to_text_per_minute
        cost = self.prices.timed(rate, leg.talk_seconds) if charged else ZERO
        record = {
            **self._call_identity(leg),
            "start_time": iso_seconds(leg.answered or leg.start),
            "end_time": iso_seconds(leg.end),
            "rate": "0.01500",
            "cost": f"{cost:.4f}",
        }
        return self.node("speech-to-text", uuid4(self.rng), cost, record, parent="call-control")

    def machine_detection(self, leg: Leg) -> Node:
        """One invocation of answering machine detection."""
        rate = self.prices.machine_detection_per_call
        event_id = uuid4(self.rng)
        record = {
            "id": event_id,
            **self._call_identity(leg),
            "invoked_at": iso_seconds(leg.answered or leg.start),
            "feature": "PREMIUM",
            "rate": record_money(rate),
            "rate_measured_in": "invocations",
            "is_telnyx_billable": True,
        }
        return self.node("amd", event_id, rate, record, parent="call-control")

    def participant(self, leg: Leg, conference_id: str, children: Sequence[Node] = ()) -> Node:
        """A participant of a conference."""
        rate = self.prices.conference_per_minute
        seconds = leg.talk_seconds
        event_id = uuid4(self.rng)
        record = {
            "id": event_id,
            **self._call_identity(leg),
            "conference_id": conference_id,
            "originating_number": leg.from_,
            "destination_number": leg.to,
            "joined_at": iso_seconds(leg.answered or leg.start),
            "left_at": iso_seconds(leg.end),
            "call_sec": seconds,
            "billed_sec": self.prices.billed_seconds(seconds),
            "rate": record_money(rate),
            "rate_measured_in": "minutes",
            "is_telnyx_billable": True,
        }
        cost = self.prices.timed(rate, seconds)
        return self.node("conference-participant", event_id, cost, record, children)

    def conference(self, leg: Leg, conference_id: str, participants: Sequence[Node]) -> Node:
        """A conference, which itself costs nothing."""
        record = {
            "id": conference_id,
            **self._call_identity(leg),
            "name": "stand-up",
            "region": "ch1",
            "participant_count": len(participants),
            "started_at": iso_seconds(leg.start),
            "ended_at": iso_seconds(leg.end),
            "call_sec": leg.talk_seconds,
            "is_telnyx_billable": False,
        }
        return self.node("conference", conference_id, ZERO, record, participants)

    def embedding(self) -> Node:
        """A vector embedding made for a turn."""
        event_id = uuid4(self.rng)
        record = {
            "id": event_id,
            "created_at": iso_seconds(self.end),
            "model": "thenlper/gte-large",
        }
        return self.node("embedding", event_id, Decimal("0.0000021"), record, parent="inference")

    def _event_name(self, record_type: str, product: str) -> str:
        if record_type == "inference" and self.rng.random() < 0.5:
            return "inference-event"
        return product

    def _identity(self, leg: Leg) -> dict[str, str]:
        return {"telnyx_leg_id": leg.leg_id, "telnyx_session_id": self.session_id}

    def _call_identity(self, leg: Leg) -> dict[str, str]:
        return {"call_leg_id": leg.leg_id, "call_session_id": self.session_id}

    @staticmethod
    def _parties(leg: Leg) -> dict[str, str]:
        return {"cli": leg.from_, "cld": leg.to}

    @staticmethod
    def _times(leg: Leg) -> dict[str, str]:
        return {"started_at": iso_seconds(leg.start), "finished_at": iso_seconds(leg.end)}
