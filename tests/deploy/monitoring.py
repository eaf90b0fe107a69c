"""What deploy/monitoring holds, read for its tests."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
MONITORING: Final = ROOT / "deploy/monitoring"
RUNBOOK: Final = ROOT / "deploy/runbook.md"

Selector = tuple[str, dict[str, tuple[promql.MatchOp, str]]]
"""A metric's name, and for each label that it is selected by how and by what."""


@cache
def rules() -> dict[str, Any]:
    """The PrometheusRule's spec: what promtool reads."""
    spec: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    return spec


def every_rule() -> Iterator[dict[str, Any]]:
    """Recording rules and alerts, in order."""
    for group in rules()["groups"]:
        yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by their names."""
    return {rule["alert"]: rule for rule in every_rule() if "alert" in rule}


def recorded() -> set[str]:
    """The names of what recording rules make."""
    return {rule["record"] for rule in every_rule() if "record" in rule}


def monitors() -> list[dict[str, Any]]:
    """The PodMonitors."""
    return list(yaml.safe_load_all((MONITORING / "podmonitors.yaml").read_text()))


def nodes(expression: str) -> Iterator[Any]:
    """All parts of a PromQL expression. Raises ValueError if it is none."""
    yield from _below(promql.parse(expression))


def selectors(expression: str) -> Iterator[Selector]:
    """The metrics that a PromQL expression names."""
    for node in nodes(expression):
        if isinstance(node, promql.VectorSelector):
            matchers = {m.name: (m.op, m.value) for m in node.matchers.matchers}
            yield node.name or "", matchers


def grouped_by(expression: str) -> set[str]:
    """The labels that a PromQL expression groups or matches by."""
    found: set[str] = set()
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        matching = getattr(modifier, "matching", modifier)
        found.update(getattr(matching, "labels", None) or ())
    return found


def _below(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from _below(child)
    for child in getattr(node, "args", None) or ():
        yield from _below(child)
