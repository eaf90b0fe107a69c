"""Session Analysis on the wire: what is read of Telnyx's answer, and what of it is kept.

Only the fields named here are ever decoded, so a transcript or a caller's name in a record does not
get further than the socket. Scalars are read as whatever they are and made sense of later: fields
came and went between Telnyx's versions, and one odd value must not hide the rest of the tree.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from service.masking import mask


class Unreadable(Exception):
    """A body that is not a Session Analysis answer; the message says what is wrong with it."""


class Record(msgspec.Struct, omit_defaults=True):
    """The fields of detail records that costs, durations and rates are read from."""

    record_type: Any = None
    id: Any = None
    telnyx_leg_id: Any = None
    call_leg_id: Any = None
    leg_id: Any = None
    telnyx_session_id: Any = None
    call_session_id: Any = None
    conversation_id: Any = None
    conference_id: Any = None
    assistant_id: Any = None
    connection_id: Any = None
    direction: Any = None
    leg_direction: Any = None
    cli: Any = None
    cld: Any = None
    started_at: Any = None
    answered_at: Any = None
    finished_at: Any = None
    created_at: Any = None
    completed_at: Any = None
    start_time: Any = None
    end_time: Any = None
    call_sec: Any = None
    duration_sec: Any = None
    billed_sec: Any = None
    rate: Any = None
    rate_measured_in: Any = None
    cost: Any = None
    currency: Any = None
    model: Any = None
    llm_model: Any = None
    stt_model: Any = None
    tts_provider: Any = None
    tts_model_id: Any = None
    provider: Any = None
    number_of_characters: Any = None
    user_prompt_tokens: Any = None
    completion_tokens: Any = None
    tokens: Any = None
    country_code: Any = None
    hangup_cause: Any = None


class NodeCost(msgspec.Struct, omit_defaults=True):
    """A node's own cost and its rolled-up one, both as sent."""

    event_cost: Any = None
    cumulative_cost: Any = None
    currency: Any = None


class Links(msgspec.Struct, omit_defaults=True):
    """Where Telnyx says the node is to be found: read for its record type, never followed."""

    self: Any = None


class Node(msgspec.Struct, omit_defaults=True):
    """One event of the tree."""

    id: Any = None
    product: Any = None
    event_name: Any = None
    cost: NodeCost | None = None
    links: Links | None = None
    record: Record | None = None
    children: list["Node"] | None = None


class Total(msgspec.Struct, omit_defaults=True):
    """The session's total as Telnyx states it."""

    total: Any = None
    currency: Any = None


class Meta(msgspec.Struct, omit_defaults=True):
    """What Telnyx says of the whole tree."""

    event_count: Any = None
    products: Any = None


class Analysis(msgspec.Struct, omit_defaults=True):
    """An answer of `GET /session_analysis/{record_type}/{event_id}`; not wrapped in `data`."""

    root: Node
    session_id: Any = None
    cost: Total | None = None
    meta: Meta | None = None


_DECODER: Final = msgspec.json.Decoder(Analysis)
_PARTIES: Final = frozenset({"cli", "cld"})
_OBJECTS: Final = ("cost", "links", "record")


def decode_analysis(body: bytes) -> Analysis:
    """The answer's body as an analysis.

    Raises Unreadable where it is no JSON object with a root node. Parts of a wrong type inside are
    dropped, as if they were absent.
    """
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError:
        return _decode_tolerantly(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a readable JSON document: {error}") from error


def encode_analysis(analysis: Analysis, *, masked: bool = True) -> bytes:
    """What is kept of an analysis, as JSON that `decode_analysis` reads again.

    Changes the analysis: numbers are masked, and a field that holds no single value is emptied.
    """
    for node in _walk(analysis.root):
        if node.record:
            _clean(node.record, masked=masked)
    return _encode(analysis)


_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def _walk(root: Node) -> Iterator[Node]:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children or ())
        yield node


def _clean(record: Record, *, masked: bool) -> None:
    """A known name is no promise of what Telnyx will put there one day."""
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, dict | list):
            setattr(record, name, None)
        elif masked and value is not None and name in _PARTIES:
            setattr(record, name, mask(str(value)))


def _decode_tolerantly(body: bytes) -> Analysis:
    try:
        raw = msgspec.json.decode(body)
        if not isinstance(raw, dict) or not isinstance(raw.get("root"), dict):
            raise Unreadable("a JSON document without a root node")
        raw["root"] = _without_misfits(raw["root"])
        for name in ("cost", "meta"):
            raw[name] = raw.get(name) if isinstance(raw.get(name), dict) else None
        return msgspec.convert(raw, Analysis)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a readable analysis: {error}") from error


def _without_misfits(root: dict[str, Any]) -> dict[str, Any]:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        for name in _OBJECTS:
            if not isinstance(node.get(name), dict):
                node[name] = None
        children = node.get("children")
        kept = [c for c in children if isinstance(c, dict)] if isinstance(children, list) else []
        node["children"] = kept
        nodes.extend(kept)
    return root
