"""The public file of sessions: one JSON object a line, by end, as `tollwatch export` writes it.

Pure: what is stored of a session in, a line out. The format is described in the README ("Sessions
in a file"), and is a promise to whoever reads it: it may grow, and never change what it has.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from service.masking import mask
from service.printable import json_safe
from service.records import Event, Session, moment
from workers.analysis import decode_analysis, encode_analysis

_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def line_of(session: Session, analysis: bytes) -> bytes:
    """One session as a line, with its line break. Raises Unreadable where the analysis is none.

    Numbers are masked once more: a setting may have let whole ones into Redis.
    """
    call = session.call
    began_ms = call.start_ms or session.end_ms - call.duration_seconds * 1000
    document = {
        "started_at": _iso(began_ms),
        "ended_at": _iso(session.end_ms),
        "webhook": dict(_payload(session)),
        "analysis": msgspec.Raw(encode_analysis(decode_analysis(analysis), masked=True)),
    }
    return json_safe(_encode(document).decode()).encode() + b"\n"


def _payload(session: Session) -> Iterator[tuple[str, Any]]:
    """The payload of the webhook that tells of the call's end, as far as it was kept.

    `direction` and the countries are beyond what Telnyx sends: they are known from other events,
    and from numbers that are masked here.
    """
    call = session.call
    fields = {
        "call_session_id": session.id,
        "call_leg_id": _first(session, "leg_id"),
        "connection_id": call.connection_id,
        "assistant_id": call.assistant_id,
        "conversation_id": _first(session, "conversation_id"),
        "conference_id": _first(session, "conference_id"),
        "from": mask(call.from_number) if call.from_number else None,
        "to": mask(call.to_number) if call.to_number else None,
        "from_country": call.from_country,
        "to_country": call.to_country,
        "direction": call.direction,
        "start_time": _iso(call.start_ms) if call.start_ms else None,
        "occurred_at": _iso(session.end_ms),
        "hangup_cause": _first(session, "cause"),
        "llm_model": _first(session, "model"),
        "duration_sec": call.duration_seconds or None,
    }
    return ((name, value) for name, value in fields.items() if value is not None)


def _first(session: Session, name: str) -> str | None:
    """What the earliest event says that says it."""

    def place(event: Event) -> tuple[int, str, str]:
        return event.start_ms or event.at_ms, event.leg_id or "", event.kind

    values = (getattr(event, name) for event in sorted(session.events, key=place))
    return next((value for value in values if value), None)


def _iso(at_ms: int) -> str:
    return f"{moment(at_ms):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
