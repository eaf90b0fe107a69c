"""What came of learning from the past, on a terminal."""

from collections.abc import Iterator
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from workers.backfill import CameTo, Outlook, Report
from workers.detection.leaning import LEAST_CALLS

_WORDS: Final = {
    CameTo.LEARNED: "learned",
    CameTo.APART: "kept apart as strange",
    CameTo.BEFORE: "learned before",
    CameTo.NO_COST: "had no cost",
    CameTo.UNFIT: "a part missing, or another currency",
    CameTo.UNREADABLE: "could not be read",
    CameTo.WAITING: "with the workers still",
}


def backfill_view(report: Report) -> Iterator[RenderableType]:
    """How many sessions came to what, and which cohorts have a say."""
    rows = [(words, report.counts.get(each, 0)) for each, words in _WORDS.items()]
    yield _table([("found", report.found), *rows, *_left(report.left)])
    if report.one_in > 1:
        yield Text(f"there were more: one of {report.one_in} was taken, evenly")
    yield Text(
        f"{report.with_a_say} of {report.cohorts} cohorts have a say (at least {LEAST_CALLS} calls)"
    )


def outlook_view(found: Outlook) -> Iterator[RenderableType]:
    """What would be done."""
    yield _table(
        [
            ("found", found.found),
            ("would be asked of Telnyx", found.asked),
            ("would be learned as they are stored", found.stored),
            ("learned before", found.before),
            ("with the workers still", found.waiting),
        ]
    )


def _left(left: int) -> list[tuple[str, int]]:
    return [("still to do", left)] if left else []


def _table(rows: list[tuple[str, int]]) -> Table:
    table = Table("", box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    for words, count in rows:
        table.add_row(words, f"{count:,}")
    return table
