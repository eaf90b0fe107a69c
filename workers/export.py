"""Cost trees for other programs: flat rows for spreadsheets and pipes, JSON for everything else.

Pure: a tree in, text out. The columns are a promise to whoever imports them: they may grow at the
end, and never change their names or meaning.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from service.money import plain
from service.printable import json_safe, safe
from workers.analysis import Analysis, Node, Record
from workers.tree import CostTree, Event, text

COLUMNS: Final = (
    "session_id",
    "depth",  # 1 at the event that was asked for
    "path",  # record types from there down to this event
    "parent_id",
    "id",
    "record_type",  # Telnyx's public name
    "product",  # Telnyx's internal name
    "event_name",
    "event_cost",  # the event's own
    "cumulative_cost",  # with all below it, as Telnyx states it
    "subtotal",  # with all below it, as the events received add up
    "currency",
    "rate",
    "rate_measured_in",
    "billed_seconds",
    "real_seconds",
    "started_at",
    "finished_at",
    "direction",
    "connection_id",
    "assistant_id",
    "model",
)
"""Times as Telnyx sent them (ISO 8601), money as plain decimals, an absent value is empty."""

# What a spreadsheet takes for a formula, https://owasp.org/www-community/attacks/CSV_Injection ;
# some skip blanks before they look, and we ourselves put � for control characters.
_FORMULA: Final = re.compile(r"[\s�]*[=+\-@]")
_OWN: Final = frozenset(
    {"depth", "event_cost", "cumulative_cost", "subtotal", "rate", "billed_seconds", "real_seconds"}
)
_BEGINS: Final = ("started_at", "created_at", "start_time")
_ENDS: Final = ("finished_at", "completed_at", "end_time")
_MODELS: Final = ("model", "llm_model", "stt_model", "tts_model_id")


def rows(analysis: Analysis, tree: CostTree) -> Iterator[dict[str, Any]]:
    """One row for each event in the order of the tree, with the keys of COLUMNS.

    Money is text, counts are numbers, None where something is absent. `tree` must be that of the
    analysis.
    """
    paths: list[str] = []
    for event, node in zip(tree.events, _nodes(analysis.root), strict=True):
        above = f"{paths[event.parent]}/" if event.parent is not None else ""
        paths.append(above + event.product)
        yield dict(zip(COLUMNS, _values(tree, event, node, paths[-1]), strict=True))


def as_csv(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV, line by line, with a header; text from outside cannot become a formula."""
    yield _csv_line(COLUMNS)
    for row in found:
        yield _csv_line([_cell(name, row[name]) for name in COLUMNS])


def as_ndjson(analysis: Analysis, tree: CostTree) -> Iterator[str]:
    """One JSON object for each event, line by line: the columns, and the record as it is kept."""
    for row, event in zip(rows(analysis, tree), tree.events, strict=True):
        yield compact({**row, "record": msgspec.to_builtins(event.record)}) + "\n"


def compact(value: Any) -> str:
    """JSON on one line, fit for a terminal."""
    return json_safe(_encode(value).decode())


def pretty(value: Any) -> str:
    """JSON over several lines, fit for a terminal. `value` may be JSON already, as bytes."""
    raw = value if isinstance(value, bytes) else _encode(value)
    return json_safe(msgspec.json.format(raw, indent=2).decode())


_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def _values(tree: CostTree, event: Event, node: Node, path: str) -> tuple[Any, ...]:
    record = event.record
    parent = tree.events[event.parent].id if event.parent is not None else None
    return (
        tree.session_id,
        event.depth,
        path,
        parent,
        event.id,
        event.product,
        event.name,
        text(node.event_name),
        plain(event.cost),
        None if event.cumulative is None else plain(event.cumulative),
        plain(tree.subtotals[event.position]),
        event.currency or tree.currency,
        None if event.rate is None else plain(event.rate),
        text(record.rate_measured_in),
        event.billed_seconds,
        event.real_seconds,
        first(record, _BEGINS),
        first(record, _ENDS),
        text(record.direction),
        text(record.connection_id),
        text(record.assistant_id),
        first(record, _MODELS),
    )


def first(record: Record, names: Iterable[str]) -> str | None:
    """The first of the record's fields that holds something, as text."""
    return next((found for name in names if (found := text(getattr(record, name)))), None)


def _nodes(root: Node) -> Iterator[Node]:
    """All nodes in the order of `CostTree.events`."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children or ()))


def _csv_line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cell(name: str, value: Any) -> Any:
    """Numbers are our own and stay as they are, a negative one too."""
    if value is None or name in _OWN:
        return value
    said = safe(str(value))
    return f"'{said}" if _FORMULA.match(said) else said
