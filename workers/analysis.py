"""Session Analysis on the wire: what is read of Telnyx's answer, and what of it is kept.

Only the fields named here are kept, so a transcript or a caller's name in a record gets no further.
Scalars are read as whatever they are and made sense of later: fields came and went between Telnyx's
versions, and one odd value must not hide the rest of the tree.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import msgspec

from service.masking import mask


class Unreadable(Exception):
    """A body that is not a Session Analysis answer; the message says what is wrong with it."""


Scalar: TypeAlias = str | int | float | bool | None


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """The fields of detail records that costs, durations and rates are read from.

    Single values only: a known name is no promise of what Telnyx will put there one day.
    """

    record_type: Scalar = None
    id: Scalar = None
    telnyx_leg_id: Scalar = None
    call_leg_id: Scalar = None
    leg_id: Scalar = None
    telnyx_session_id: Scalar = None
    call_session_id: Scalar = None
    conversation_id: Scalar = None
    conference_id: Scalar = None
    assistant_id: Scalar = None
    connection_id: Scalar = None
    direction: Scalar = None
    leg_direction: Scalar = None
    cli: Scalar = None
    cld: Scalar = None
    started_at: Scalar = None
    answered_at: Scalar = None
    finished_at: Scalar = None
    created_at: Scalar = None
    completed_at: Scalar = None
    start_time: Scalar = None
    end_time: Scalar = None
    call_sec: Scalar = None
    duration_sec: Scalar = None
    billed_sec: Scalar = None
    rate: Scalar = None
    rate_measured_in: Scalar = None
    cost: Scalar = None
    currency: Scalar = None
    model: Scalar = None
    llm_model: Scalar = None
    stt_model: Scalar = None
    tts_provider: Scalar = None
    tts_model_id: Scalar = None
    provider: Scalar = None
    number_of_characters: Scalar = None
    user_prompt_tokens: Scalar = None
    completion_tokens: Scalar = None
    tokens: Scalar = None
    country_code: Scalar = None
    hangup_cause: Scalar = None


class NodeCost(msgspec.Struct, omit_defaults=True, gc=False):
    """A node's own cost and its rolled-up one, both as sent."""

    event_cost: Any = None
    cumulative_cost: Any = None
    currency: Any = None


class Links(msgspec.Struct, omit_defaults=True, gc=False):
    """Where Telnyx says the node is to be found: read for its record type, never followed."""

    self: Any = None


class Node(msgspec.Struct, omit_defaults=True, gc=False):
    """One event of the tree."""

    id: Any = None
    product: Any = None
    event_name: Any = None
    cost: NodeCost | None = None
    links: Links | None = None
    record: Record | None = None
    children: list["Node"] | None = None


class Total(msgspec.Struct, omit_defaults=True, gc=False):
    """The session's total as Telnyx states it."""

    total: Any = None
    currency: Any = None


class Meta(msgspec.Struct, omit_defaults=True, gc=False):
    """What Telnyx says of the whole tree."""

    event_count: Any = None
    products: Any = None


class Analysis(msgspec.Struct, omit_defaults=True, gc=False):
    """An answer of `GET /session_analysis/{record_type}/{event_id}`; not wrapped in `data`."""

    root: Node
    session_id: Any = None
    cost: Total | None = None
    meta: Meta | None = None


_DECODER: Final = msgspec.json.Decoder(Analysis)
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

    Masks the numbers in the analysis itself.
    """
    for node in _walk(analysis.root) if masked else ():
        record = node.record
        if record is not None and record.cli is not None:
            record.cli = mask(str(record.cli))
        if record is not None and record.cld is not None:
            record.cld = mask(str(record.cld))
    return _encode(analysis)


_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def _walk(root: Node) -> Iterator[Node]:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children or ())
        yield node


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
        node["record"] = _scalars(node["record"])
        children = node.get("children")
        kept = [c for c in children if isinstance(c, dict)] if isinstance(children, list) else []
        node["children"] = kept
        nodes.extend(kept)
    return root


def _scalars(record: dict[str, Any] | None) -> dict[str, Any] | None:
    return record and {k: v for k, v in record.items() if not isinstance(v, dict | list)}
