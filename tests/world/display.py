"""How the demonstration looks: a live table of calls; without a terminal, single lines."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tests.world.board import Board, Row, Stage
from tests.world.model import Call

_SIGNS: Final = {"low": "🔵", "medium": "🟡", "high": "🟠", "critical": "🔴"}
_COLOURS: Final = {
    "low": "dodger_blue1",
    "medium": "yellow1",
    "high": "dark_orange",
    "critical": "bold red1",
}
# What the live region needs besides the rows: headline, table head, edges, and a line to breathe.
_OTHER_LINES: Final = 9
_FEWEST_ROWS: Final = 4
_NARROW: Final = 100
_MOST_REPORTED: Final = 40


class LiveView:
    """The part of the terminal that changes; rich asks for it several times a second."""

    def __init__(self, board: Board, headline: str) -> None:
        self._board = board
        self._headline = headline
        self._spinner = Spinner("dots", style="yellow")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = max(_FEWEST_ROWS, console.height - _OTHER_LINES)
        now = time.time()
        rows = list(self._board.rows.values())[-shown:]
        spinner = self._spinner.render(console.get_time())
        spun = spinner if isinstance(spinner, Text) else Text("…")
        yield table(rows, now, spun, narrow=options.max_width < _NARROW)
        yield summary(self._board)
        yield Text(self._headline, "grey62")


def summary(board: Board) -> Text:
    """How many calls there are, and where they stand."""
    rows = board.rows.values()
    done = [row for row in rows if row.is_done]
    alerts = sum(len(row.alerts) for row in rows)
    webhooks = sum(board.webhooks.values())
    folded = webhooks - board.webhooks["scheduled"]
    return Text.assemble(
        (f"{len(rows)} calls, ", "bold"),
        (f"{len(rows) - len(done)} under way", "yellow"),
        ", ",
        (f"{len(done)} done", "green"),
        ", ",
        (f"{alerts} alerts", "red1" if alerts else ""),
        (f"  ·  {webhooks} webhooks taken, {folded} of them folded into their session", "grey62"),
    )


def table(
    rows: list[Row], now: float, spinner: Text | None = None, *, narrow: bool = False
) -> Table:
    """The calls, oldest first; a narrow terminal does not see the parties."""
    drawn = Table(
        box=SIMPLE_HEAD, expand=True, pad_edge=False, collapse_padding=True, header_style="grey62"
    )
    drawn.add_column("ended", no_wrap=True)
    drawn.add_column("call", no_wrap=True, min_width=17)
    if not narrow:
        drawn.add_column("parties", no_wrap=True)
        drawn.add_column("length", justify="right", no_wrap=True)
    drawn.add_column("state (next look)", ratio=1, no_wrap=True, overflow="ellipsis")
    drawn.add_column("cost, USD", justify="right", no_wrap=True)
    drawn.add_column("outcome", no_wrap=True, min_width=11)
    for row in rows:
        call = row.call
        drawn.add_row(
            f"{call.end.astimezone():%H:%M:%S}",
            words(call),
            *(() if narrow else (parties(call), length(call))),
            _state(row, now, spinner),
            "" if row.total is None else money(row.total),
            outcome(row),
        )
    return drawn


def news(row: Row) -> Text:
    """One line on what has just happened to a call, for where nothing can be redrawn."""
    call = row.call
    line = Text.assemble(
        (f"{datetime.now(UTC).astimezone():%H:%M:%S}  ", "grey62"),
        f"{words(call):<28} {parties(call)}  {length(call):>6}  ",
    )
    if row.stage is Stage.JUDGED:
        cost = "?" if row.total is None else money(row.total)
        return line.append(f"judged: {cost} USD, ").append_text(outcome(row))
    return line.append(f"{row.stage}{f': {row.reason}' if row.reason else ''}")


def report(board: Board) -> RenderableType:
    """The final table, and under it what each anomaly was and whether it was told."""
    rows = list(board.rows.values())[-_MOST_REPORTED:]
    expected = [row for row in rows if row.call.expects]
    lines = Text("\n").join(
        Text.assemble(
            _tick(row),
            f" {(row.call.anomaly or 'anomaly').replace('_', ' '):<18}",
            f" {words(row.call):<13}",
            outcome(row),
        )
        for row in expected
    )
    return Group(table(rows, time.time()), summary(board), lines)


def outcome(row: Row) -> Text:
    """What people were told of the call."""
    if row.alerts:
        worst = row.alerts[-1]
        return Text(f"{_SIGNS.get(worst, '⚪')} {worst}", _COLOURS.get(worst, ""))
    if row.stage is not Stage.JUDGED:
        return Text("")
    return Text("alerting …", "yellow") if row.severity else Text("✓ quiet", "green")


def words(call: Call) -> str:
    """The kind of call in words."""
    return call.kind.replace("_", " ").replace("-", " ")


def parties(call: Call) -> str:
    """Who called whom, masked as tollwatch itself masks."""
    if not call.legs:
        return ""
    return f"{_masked(call.legs[0].from_)} → {_masked(call.legs[0].to)}"


def length(call: Call) -> str:
    """The call's duration, `2:32`; a dash where nobody picked up."""
    if not any(leg.answered for leg in call.legs):
        return "–"
    minutes, seconds = divmod(round(call.duration_seconds), 60)
    return f"{minutes}:{seconds:02d}"


def money(value: Decimal) -> str:
    """Four decimals, the smallest that matter in a single call."""
    return f"{value:.4f}"


def _tick(row: Row) -> Text:
    """Of a call that must alert: whether it did."""
    if row.alerts:
        return Text("  ✓", "green")
    return Text("  ✗", "red1") if row.is_done else Text("  …", "yellow")


def _masked(party: str) -> str:
    digits = "".join(filter(str.isdigit, party))
    return f"••{digits[-2:]}" if digits else "••"


def _state(row: Row, now: float, spinner: Text | None) -> Text:
    match row.stage:
        case Stage.JUDGED:
            return Text(", ".join(sorted(row.reasons)) if row.alerts else "judged", "grey62")
        case Stage.UNAVAILABLE | Stage.DEAD:
            return Text(f"{row.stage}: {row.reason}", "red1")
        case Stage.WAITING:
            ask = max(0.0, (row.next_ask or now) - now)
            text = Text.assemble(spinner or "", f" {ask:.0f} s · {row.reason}")
            text.stylize("yellow")
            return text
        case _:
            return Text(str(row.stage))
