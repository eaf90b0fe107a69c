"""Telnyx's webhook events for a call, in their literal shapes.

https://developers.telnyx.com/ (callback reference). Where a real event carries personal data, these
carry data that a test can look for.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode
from uuid import UUID

from tests.world.answers import visible
from tests.world.clock import iso_micros, iso_seconds, later
from tests.world.model import Call, Leg, Node
from tests.world.prices import record_money
from tests.world.records import CALLER_NAME

TRANSCRIPT: Final = (
    "Hello, my name is Erika Mustermann and I live at 12 Heidestrasse.",
    "My card number is 4111 1111 1111 1111, it expires in May.",
)
CLIENT_STATE: Final = base64.b64encode(b"customer=4711;tier=gold").decode()
SIP_HEADER: Final = "<sip:erika.mustermann@example.com>"
PERSONAL_DATA: Final = (*TRANSCRIPT, CALLER_NAME, CLIENT_STATE, SIP_HEADER, "Heidestrasse")
"""Must not be found in anything that is stored, logged or sent on."""
NO_COST: Final = "No cost data available."
"""What `call.analyzed` says instead of a cost."""

_CALL_PARTS: Final = {"recording": "call-recording"}
_SHORT_LIVED: Final = {
    "user_busy": "busy",
    "no_answer": "no-answer",
    "originator_cancel": "canceled",
}
_OLDER: Final = "older"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, ready to be sent. Its body differs from attempt to attempt, its id does not."""

    event_type: str
    event_id: str
    session_id: str
    occurred_at: datetime
    data: Mapping[str, Any]
    shape: Literal["v2", "older", "form"] = "v2"

    @property
    def content_type(self) -> str:
        """What the body is."""
        if self.shape == "form":
            return "application/x-www-form-urlencoded"
        return "application/json"

    def body(self, attempt: int = 1, delivered_to: str = "https://example.com/webhooks") -> bytes:
        """The raw body of that attempt, counted from 1."""
        if self.shape == "form":
            # Telnyx percent-encodes `+`, and a space as %20.
            return urlencode(self.data, quote_via=quote).encode()
        meta = {"attempt": attempt, "delivered_to": delivered_to}
        if self.shape == _OLDER:
            return _json({**self.data, "meta": {"meta": meta}})
        return _json({"data": self.data, "meta": meta})


def initiated(call: Call, leg: Leg) -> Delivery:
    """`call.initiated`: the only one that names the direction."""
    payload = {
        **_of_leg(call, leg),
        "caller_id_name": CALLER_NAME,
        "connection_codecs": "G722,PCMU,PCMA",
        "offered_codecs": "G722,PCMU,PCMA",
        "direction": "incoming" if leg.direction == "inbound" else "outgoing",
        "shaken_stir_attestation": "A",
        "shaken_stir_validated": True,
        "sip_headers": [{"name": "User-to-User", "value": SIP_HEADER}],
        "start_time": iso_micros(leg.start),
        "state": "parked" if leg.direction == "inbound" else "bridging",
        "tags": [],
    }
    return _event("call.initiated", call, leg.leg_id, leg.start, payload)


def answered(call: Call, leg: Leg) -> Delivery:
    """`call.answered`."""
    payload = {
        **_of_leg(call, leg),
        "start_time": iso_micros(leg.start),
        "state": "answered",
        "tags": [],
    }
    return _event("call.answered", call, leg.leg_id, leg.answered or leg.start, payload)


def hangup(call: Call, leg: Leg) -> Delivery:
    """`call.hangup` of one leg: no cost, no end time, no direction."""
    payload = {
        **_of_leg(call, leg),
        "start_time": iso_micros(leg.start),
        "state": "hangup",
        "hangup_cause": leg.hangup_cause,
        "hangup_source": leg.hangup_source,
        "sip_hangup_cause": leg.sip_hangup_cause,
        "sip_headers": [{"name": "User-to-User", "value": SIP_HEADER}],
        "tags": ["tag-01"],
        "call_quality_stats": {
            "inbound": {"mos": "4.50", "jitter_max_variance": "2.74", "packet_count": "591"},
            "outbound": {"packet_count": "603", "skip_packet_count": "0"},
        },
    }
    return _event("call.hangup", call, leg.leg_id, leg.end, payload)


def conversation_ended(call: Call, leg: Leg, *, transcript: bool = True) -> Delivery:
    """`call.conversation.ended`, a moment before the hangup; newer ones carry the transcript."""
    at = later(leg.end, -0.4)
    payload = {
        **_of_leg(call, leg),
        **_of_conversation(call, leg),
        "calling_party_type": "pstn" if leg.from_.startswith("+") else "sip",
        "reason": "customer_disconnect",
    }
    if transcript:
        payload["messages"] = [
            {
                "role": ("user", "assistant")[number % 2],
                "content": content,
                "timestamp": iso_micros(later(leg.start, 10 + number)),
            }
            for number, content in enumerate(TRANSCRIPT)
        ]
    delivery = _event("call.conversation.ended", call, "conversation", at, payload)
    created = {"created_at": iso_micros(later(at, 0.1))}
    return _with_data(delivery, {**delivery.data, **created})


def analyzed(call: Call, leg: Leg, *, after_seconds: float, with_cost: bool = True) -> Delivery:
    """`call.analyzed` with what had been posted by then, or the words that there is no cost."""
    seen = visible(call.root, after_seconds) if with_cost else None
    payload = {
        **_of_leg(call, leg),
        **_of_conversation(call, leg),
        "conversation_insights": [
            {
                "status": "completed",
                "conversation_insights": [{"insight_id": call.session_id, "result": TRANSCRIPT[0]}],
            }
        ],
        "recordings": [],
        "cost": _breakdown(seen) if seen else NO_COST,
    }
    return _event("call.analyzed", call, "analyzed", later(call.end, after_seconds), payload)


def cost(call: Call, leg: Leg, *, after_seconds: float, older: bool = False) -> Delivery:
    """`call.cost` of one leg. The older shape has numbers, and no `data` around it."""
    at = later(call.end, after_seconds)
    nodes = [node for node in call.root.walk() if _is_of_leg(node, leg)]
    total = sum((node.cost for node in nodes), Decimal(0))
    payload = {
        **_of_leg(call, leg),
        "billed_duration_secs": max((_billed(node) for node in nodes), default=0),
        "billing_group_id": None,
        "cost_parts": [_cost_part(node, older=older) for node in nodes],
        "occurred_at": iso_micros(at),
        "status": "valid" if older else "success",
        "total_cost": float(total) if older else f"{total:f}",
    }
    delivery = _event("call.cost", call, leg.leg_id, at, payload)
    return _with_data(delivery, delivery.data, shape="older") if older else delivery


def conference_ended(call: Call) -> Delivery:
    """`conference.ended`: the time is inside the payload."""
    leg = call.legs[0]
    payload = {
        "call_control_id": leg.control_id,
        "call_leg_id": leg.leg_id,
        "call_session_id": call.session_id,
        "client_state": CLIENT_STATE,
        "conference_id": call.conference_id,
        "connection_id": call.connection_id,
        "occurred_at": iso_micros(call.end),
        "reason": "all_left",
    }
    delivery = _event("conference.ended", call, "conference", call.end, payload)
    data = {name: value for name, value in delivery.data.items() if name != "occurred_at"}
    return _with_data(delivery, data)


def texml_status(call: Call, leg: Leg, status: str | None = None) -> Delivery:
    """A TeXML status callback: a form, one per leg, and for AI calls with statuses of their own."""
    status = status or ("completed" if leg.answered else _short_status(leg))
    fields = {
        "AccountSid": "f5586561-8ff0-4291-a51b-c7dfe4139ff9",
        "CallInitiatedAt": iso_seconds(leg.start),
        "CallSid": leg.control_id,
        "CallSidLegacy": leg.control_id,
        "CallControlId": leg.control_id,
        "CallStatus": status,
        "CallbackSource": "call-progress-events",
        "ConnectionId": leg.connection_id,
        "CallSessionId": call.session_id,
        "CallLegId": leg.leg_id,
        "From": leg.from_,
        "To": leg.to,
        "CallerId": CALLER_NAME,
        "CallDuration": str(leg.talk_seconds),
        "SequenceNumber": "3",
        "AnsweredTime": iso_seconds(leg.answered) if leg.answered else "",
        "EndTime": iso_seconds(leg.end),
        "OccurredAt": iso_seconds(leg.end),
        "Timestamp": iso_seconds(leg.end),
        "HangupCause": leg.hangup_cause,
        "HangupSource": leg.hangup_source,
    }
    return Delivery(
        event_type=f"texml.{status}",
        event_id=_event_id(call, f"texml.{status}", leg.leg_id),
        session_id=call.session_id,
        occurred_at=leg.end,
        data=fields,
        shape="form",
    )


def _event(
    event_type: str, call: Call, what: str, at: datetime, payload: Mapping[str, Any]
) -> Delivery:
    event_id = _event_id(call, event_type, what)
    data = {
        "record_type": "event",
        "event_type": event_type,
        "id": event_id,
        "occurred_at": iso_micros(at),
        "payload": payload,
    }
    return Delivery(event_type, event_id, call.session_id, at, data)


def _with_data(
    delivery: Delivery, data: Mapping[str, Any], shape: Literal["v2", "older"] = "v2"
) -> Delivery:
    return Delivery(
        delivery.event_type,
        delivery.event_id,
        delivery.session_id,
        delivery.occurred_at,
        data,
        shape,
    )


def _event_id(call: Call, event_type: str, what: str) -> str:
    """The same event has the same id, however often it is built."""
    rng = Random(f"{call.session_id}/{event_type}/{what}")
    return str(UUID(int=rng.getrandbits(128), version=4))


def _of_leg(call: Call, leg: Leg) -> dict[str, Any]:
    return {
        "call_control_id": leg.control_id,
        "call_leg_id": leg.leg_id,
        "call_session_id": call.session_id,
        "client_state": CLIENT_STATE,
        "connection_id": leg.connection_id,
        "from": leg.from_,
        "to": leg.to,
    }


def _of_conversation(call: Call, leg: Leg) -> dict[str, Any]:
    return {
        "assistant_id": call.assistant_id,
        "conversation_id": call.conversation_id,
        "duration_sec": leg.talk_seconds,
        "llm_model": "moonshotai/Kimi-K2.6",
        "stt_model": "deepgram/flux",
        "tts_model_id": "eleven_flash_v2_5",
        "tts_provider": "elevenlabs",
        "tts_voice_id": "Marissa",
    }


def _breakdown(root: Node) -> dict[str, Any]:
    costs: dict[str, Decimal] = {}
    for node in root.walk():
        costs[node.product] = costs.get(node.product, Decimal(0)) + node.cost
    return {
        "total": f"{root.cumulative:f}",
        "currency": "USD",
        "breakdown": [{"product": name, "cost": f"{cost:f}"} for name, cost in costs.items()],
    }


def _is_of_leg(node: Node, leg: Leg) -> bool:
    """What `call.cost` tells of: the leg's own time-based parts, and nothing of the assistant."""
    return (
        node.record_type in {"sip-trunking", "call-control", "webrtc"}
        and node.record.get("telnyx_leg_id") == leg.leg_id
    )


def _billed(node: Node) -> int:
    return int(node.record.get("billed_sec", 0))


def _cost_part(node: Node, *, older: bool) -> dict[str, Any]:
    rate = str(node.record.get("rate", "0"))
    return {
        "billed_duration_secs": _billed(node),
        "call_part": _CALL_PARTS.get(node.record_type, node.record_type),
        "cost": float(node.cost) if older else f"{node.cost:f}",
        "currency": "USD",
        "rate": float(rate) if older else record_money(Decimal(rate)),
    }


def _short_status(leg: Leg) -> str:
    return _SHORT_LIVED.get(leg.hangup_cause, "failed")


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
