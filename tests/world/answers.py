"""What Session Analysis answers about an event: pure, from the tree and its age to JSON data.

https://developers.telnyx.com/ (Session Analysis API usage guide) gives the shape.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from tests.world.model import Node
from tests.world.prices import tree_money
from tests.world.record_types import RECORD_TYPES


@dataclass(frozen=True, slots=True)
class Question:
    """The query's parameters, with Telnyx's defaults."""

    include_children: bool = True
    max_depth: int = 2
    """Levels of the answer, the asked event's own being the first."""
    expand: Literal["record", "none"] = "record"


@dataclass(frozen=True, slots=True)
class Habits:
    """What Telnyx does not promise either way."""

    whole_session_totals: bool = True
    """Counts and sums cover what was cut off as well; otherwise only what is shown."""
    null_children: bool = False
    """A leaf's `children` are null instead of an empty list."""
    null_record: bool = False
    """A record that is not expanded is null instead of an empty object."""
    extra_fields: bool = True
    """Fields that came and went between versions, and some that nobody knows yet."""


def visible(node: Node, age_seconds: float) -> Node | None:
    """What has been posted so long after the call's end; None where not even the event has."""
    if node.posted_after_seconds > age_seconds:
        return None
    shown = (visible(child, age_seconds) for child in node.children)
    return replace(node, children=tuple(child for child in shown if child is not None))


def answer(node: Node, question: Question, habits: Habits) -> dict[str, Any]:
    """The whole answer, of which `node` is the root."""
    levels = question.max_depth if question.include_children else 1
    # The limit on children is one inside larger answers: an event's own analysis is complete.
    shown = _cut(replace(node, shown_children=None), levels)
    counted = node if habits.whole_session_totals else shown
    analysis: dict[str, Any] = {
        "session_id": node.id,
        "cost": {"total": tree_money(counted.cumulative), "currency": "USD"},
        "root": _Renderer(question, habits).node(shown, counted, None),
        "meta": {
            "event_count": counted.count,
            "products": sorted({event.product for event in counted.walk()}),
        },
    }
    if habits.extra_fields:
        analysis |= {"status": "completed", "analysis_version": 3, "warnings": None}
    return analysis


def _cut(node: Node, levels: int) -> Node:
    if levels <= 1:
        return replace(node, children=())
    children = node.children[: node.shown_children]
    return replace(node, children=tuple(_cut(child, levels - 1) for child in children))


@dataclass(frozen=True, slots=True)
class _Renderer:
    question: Question
    habits: Habits

    def node(self, shown: Node, counted: Node, parent: Node | None) -> dict[str, Any]:
        """The event as JSON data; costs are those of `counted`, the children those of `shown`."""
        children = [
            self.node(child, whole, shown)
            for child, whole in zip(shown.children, counted.children, strict=False)
        ]
        data: dict[str, Any] = {
            "id": shown.id,
            "product": shown.product,
            "event_name": shown.event_name,
            "relationship": _relationship(shown, parent) if parent else None,
            "cost": _cost(shown.cost, counted.cumulative),
            "links": _links(shown),
            "record": self._record(shown),
            "children": children or (None if self.habits.null_children else []),
        }
        if self.habits.extra_fields:
            data["account_tags"] = []
        return data

    def _record(self, node: Node) -> dict[str, Any] | None:
        if self.question.expand == "record":
            return dict(node.record)
        return None if self.habits.null_record else {}


def _cost(own: Decimal, cumulative: Decimal) -> dict[str, str]:
    return {
        "event_cost": tree_money(own),
        "cumulative_cost": tree_money(cumulative),
        "currency": "USD",
    }


def _relationship(node: Node, parent: Node) -> dict[str, Any]:
    local, above = node.via
    return {
        "type": "child_of",
        "via": {"local_field": local, "parent_field": above},
        "parent_id": parent.id,
    }


def _links(node: Node) -> dict[str, str]:
    """Links to public or internal names: Telnyx's own examples have both."""
    internal = RECORD_TYPES[node.record_type].product
    name = internal if node.id[-1] in "02468ace" else node.record_type
    return {
        "self": f"/v2/session_analysis/{name}/{node.id}",
        "records": f"/v2/detail_records?record_type={node.record_type}&id={node.id}",
    }
