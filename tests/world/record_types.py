"""Telnyx's record types: their names, aliases and relationships, and the two metadata answers.

Source: the record types reference of Telnyx's Session Analysis guide, and the schemas of its
metadata endpoints. https://developers.telnyx.com/
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

_LAST_UPDATED: Final = "2026-03-01T00:00:00Z"
_SESSION: Final = ("telnyx_session_id", "telnyx_session_id")
_CALL_SESSION: Final = ("call_session_id", "telnyx_session_id")
_LEG: Final = ("call_leg_id", "telnyx_leg_id")
_CONVERSATION: Final = ("conversation_id", "conversation_id")
_CONFERENCE: Final = ("conference_id", "id")


@dataclass(frozen=True, slots=True)
class RecordType:
    """One record type: the public `name`, the internal `product`, and other names for it."""

    name: str
    product: str
    label: str
    description: str
    children: tuple[tuple[str, tuple[str, str]], ...] = ()
    """Record types below it, each with the child's and the parent's field that link them."""

    @property
    def aliases(self) -> list[str]:
        """Names under which it can be asked for as well."""
        return [] if self.product == self.name else [self.product]


def _plain(names: Iterable[tuple[str, str, str]]) -> list[RecordType]:
    return [RecordType(name, name, label, description) for name, label, description in names]


_ALL: Final = [
    RecordType(
        "call-session",
        "call-session",
        "N/A",
        "Groups the voice usage of one session",
        (
            ("call-control", _SESSION),
            ("sip-trunking", _SESSION),
            ("recording", _SESSION),
            ("webrtc", _SESSION),
            ("siprec-client", _SESSION),
            ("fax-api", _SESSION),
            ("conference", _CALL_SESSION),
            ("conference-participant", _CALL_SESSION),
        ),
    ),
    RecordType(
        "call-control",
        "callcontrol-cdrs",
        "Call Control",
        "Programmable voice calls",
        (
            ("ai-voice-assistant", _SESSION),
            ("amd", _LEG),
            ("media-streaming", _LEG),
            ("speech-to-text", _LEG),
            ("text-to-speech", _LEG),
            ("noise-suppression", _LEG),
        ),
    ),
    RecordType(
        "ai-voice-assistant",
        "ai-voice-assistant",
        "AI Voice Assistant",
        "AI assistant sessions",
        (("inference", _CONVERSATION),),
    ),
    RecordType(
        "inference",
        "inference",
        "Inference",
        "LLM turns",
        (("inference-speech-to-text", ("inference_id", "id")), ("embedding", ("parent_id", "id"))),
    ),
    RecordType("sip-trunking", "siptrunking-cdrs", "SIP Trunking", "SIP trunking legs"),
    RecordType("webrtc", "webrtc-cdrs", "WebRTC", "WebRTC legs"),
    RecordType("recording", "recording-cdrs", "Call Recording", "Call recordings"),
    RecordType(
        "conference",
        "conference",
        "Conference",
        "Conferences",
        (("conference-participant", _CONFERENCE),),
    ),
    RecordType(
        "conference-participant",
        "conference-participant",
        "Conference",
        "Participants of conferences",
        (("call-control", _LEG),),
    ),
    RecordType(
        "message",
        "message",
        "Messaging",
        "SMS and MMS",
        (("ai-messaging-assistant", _CONVERSATION),),
    ),
    *_plain(
        [
            ("inference-speech-to-text", "Inference", "Inference that transcribes"),
            ("inference-text-to-speech", "Inference", "Inference that speaks"),
            ("summarization", "Inference", "Summaries of texts"),
            ("embedding", "Inference", "Vector embeddings"),
            ("speech-to-text", "Speech-to-Text", "Transcriptions"),
            ("text-to-speech", "Text-to-Speech", "Speech syntheses"),
            ("amd", "Answering Machine Detection", "Invocations of the detection"),
            ("noise-suppression", "Noise Suppression", "Enhanced audio"),
            ("media_storage", "Media Storage", "Stored media files"),
            ("media-streaming", "Media Streaming", "Audio streams"),
            ("forking", "Media Forking", "Forked media"),
            ("ai-messaging-assistant", "AI Messaging Assistant", "Assistants in messages"),
            ("room-session-event", "Programmable Video", "Video rooms"),
            ("room-session-participant-event", "Programmable Video", "Video participants"),
            ("room-session-recording-event", "Programmable Video", "Video recordings"),
            ("room-session-composition-event", "Programmable Video", "Video compositions"),
            ("verify", "Verify", "Verification attempts"),
            ("fax-api", "Fax API", "Fax transmissions"),
            ("branded-calling", "Branded Calling", "Branded caller IDs"),
            ("siprec-client", "SIPREC", "SIPREC sessions"),
            ("sim_card_usage", "Wireless", "SIM card data"),
            ("customer-service-record", "CSR", "Customer service records"),
        ]
    ),
]

RECORD_TYPES: Final = {record_type.name: record_type for record_type in _ALL}
_BY_ANY_NAME: Final = {
    name: record_type for record_type in _ALL for name in (record_type.name, *record_type.aliases)
}


def find(name: str) -> RecordType | None:
    """The record type of that name or alias."""
    return _BY_ANY_NAME.get(name)


def via(child: str, parent: str) -> tuple[str, str]:
    """The fields that link a child to its parent; the session where no such link is documented."""
    return dict(RECORD_TYPES[parent].children).get(child, _SESSION)


def overview() -> dict[str, Any]:
    """The answer of `GET /session_analysis/metadata`."""
    return {
        "record_types": [{**_named(r), "description": r.description} for r in _ALL],
        "query_parameters": {
            "include_children": _parameter("boolean", "true", "Include child events"),
            "max_depth": _parameter("integer", "2", "Levels of the tree", min=1, max=5),
            "expand": _parameter(
                "string", "record", "What to expand", enum_values=["record", "none"]
            ),
            "date_time": _parameter("string", "", "A time or day that narrows the search"),
        },
        "meta": {"total_record_types": len(_ALL), "last_updated": _LAST_UPDATED},
    }


def details(record_type: RecordType) -> dict[str, Any]:
    """The answer of `GET /session_analysis/metadata/{record_type}`."""
    named = _named(record_type)
    parents = named["parent_relationships"]
    siblings = {
        child
        for parent in parents
        for child, _ in RECORD_TYPES[parent["parent_record_type"]].children
        if child != record_type.name
    }
    return {
        **named,
        "examples": {"query": f"/v2/session_analysis/{record_type.name}/{{event_id}}?max_depth=3"},
        "meta": {
            "total_children": len(record_type.children),
            "total_parents": len(parents),
            "total_siblings": len(siblings),
            "max_recommended_depth": _levels(record_type, frozenset()),
        },
    }


def _named(record_type: RecordType) -> dict[str, Any]:
    children = [
        _relationship("child", RECORD_TYPES[child], link) for child, link in record_type.children
    ]
    parents = [
        _relationship("parent", parent, link)
        for parent in _ALL
        for child, link in parent.children
        if child == record_type.name
    ]
    return {
        "record_type": record_type.name,
        "aliases": record_type.aliases,
        "product": record_type.label,
        "event": record_type.product,
        "child_relationships": children,
        "parent_relationships": parents,
    }


def _relationship(side: str, other: RecordType, link: tuple[str, str]) -> dict[str, Any]:
    return {
        "relationship_type": "parent_of" if side == "child" else "child_of",
        "via": {"local_field": link[0], "parent_field": link[1]},
        "cost_rollup": True,
        "traversal_enabled": True,
        "description": other.description,
        f"{side}_product": other.label,
        f"{side}_event": other.product,
        f"{side}_record_type": other.name,
    }


def _parameter(kind: str, default: str, description: str, **limits: Any) -> dict[str, Any]:
    return {"type": kind, "default": default, "description": description, **limits}


def _levels(record_type: RecordType, above: frozenset[str]) -> int:
    names = above | {record_type.name}
    below = [RECORD_TYPES[child] for child, _ in record_type.children if child not in names]
    return min(5, 1 + max((_levels(child, names) for child in below), default=0))
