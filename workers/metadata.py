"""What Telnyx says of its record types: how they nest, and whether their costs roll up.

`cost_rollup` and `traversal_enabled` tell which children are left out of a parent's sum or of the
tree. Read tolerantly, because only people and checks depend on it, never a verdict.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from workers.analysis import Unreadable

_MOST: Final = 500


class Relation(msgspec.Struct, frozen=True):
    """How a record type hangs together with another. None: Telnyx does not say."""

    record_type: str
    cost_rollup: bool | None = None
    traversal_enabled: bool | None = None
    local_field: str | None = None
    parent_field: str | None = None


class RecordType(msgspec.Struct, frozen=True):
    """One record type, its other names, and its neighbours in the tree."""

    record_type: str
    aliases: tuple[str, ...] = ()
    product: str | None = None
    event: str | None = None
    description: str | None = None
    children: tuple[Relation, ...] = ()
    parents: tuple[Relation, ...] = ()
    recommended_depth: int | None = None
    """Only where one record type was asked for."""


class RecordTypes(msgspec.Struct, frozen=True):
    """All record types that Session Analysis knows."""

    record_types: tuple[RecordType, ...]
    last_updated: str | None = None


def decode_record_types(body: bytes) -> RecordTypes:
    """The answer of `GET /session_analysis/metadata`. Raises Unreadable."""
    document = _document(body)
    if not isinstance(document.get("record_types"), list):
        raise Unreadable("no list of record types")
    read = (_record_type(item) for item in _objects(document["record_types"]))
    updated = _text(_object(document.get("meta")).get("last_updated"))
    return RecordTypes(tuple(known for known in read if known), updated)


def decode_record_type(body: bytes) -> RecordType:
    """The answer of `GET /session_analysis/metadata/{record_type}`. Raises Unreadable."""
    found = _record_type(_document(body))
    if found is None:
        raise Unreadable("no record type")
    return found


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a readable JSON document: {error}") from error
    if not isinstance(document, dict):
        raise Unreadable("not a JSON object")
    return document


def _record_type(item: Mapping[str, Any]) -> RecordType | None:
    name = _text(item.get("record_type"))
    if name is None:
        return None
    aliases = item.get("aliases")
    depth = _object(item.get("meta")).get("max_recommended_depth")
    return RecordType(
        record_type=name,
        aliases=tuple(a for a in aliases[:_MOST] if _text(a)) if isinstance(aliases, list) else (),
        product=_text(item.get("product")),
        event=_text(item.get("event")),
        description=_text(item.get("description")),
        children=_relations(item.get("child_relationships"), "child_record_type"),
        parents=_relations(item.get("parent_relationships"), "parent_record_type"),
        recommended_depth=depth if type(depth) is int else None,
    )


def _relations(items: Any, named_by: str) -> tuple[Relation, ...]:
    return tuple(
        Relation(
            record_type=name,
            cost_rollup=_flag(item.get("cost_rollup")),
            traversal_enabled=_flag(item.get("traversal_enabled")),
            local_field=_text(_object(item.get("via")).get("local_field")),
            parent_field=_text(_object(item.get("via")).get("parent_field")),
        )
        for item in _objects(items)
        if (name := _text(item.get(named_by)))
    )


def _objects(items: Any) -> list[Mapping[str, Any]]:
    if not isinstance(items, list):
        return []
    return [item for item in items[:_MOST] if isinstance(item, dict)]


def _object(item: Any) -> Mapping[str, Any]:
    return item if isinstance(item, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
