"""`tollwatch backtest`: the commands about what has been learned of the usual cost of calls."""

# Each command imports what it needs when it runs, so that `--help` waits for no library:
# ruff: noqa: PLC0415

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from workers.terminal import fail, policy_from, print_parts, write

if TYPE_CHECKING:
    from workers.backtest import Backtest, Judged


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command()(backtest)


def backtest(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Sessions, as `tollwatch export` writes them.",
            exists=True,
            dir_okay=False,
        ),
    ],
    *,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A policy in YAML; the built-in without it.")
    ] = None,
    format: Annotated[Literal["table", "ndjson"], typer.Option(help="How to show it.")] = "table",
) -> None:
    """What would have been alerted: the judge over a file of sessions, in order of time.

    It begins knowing nothing, and learns from each session as the workers do.
    """
    from workers.backtest import Backtest
    from workers.told import finding_line, session_line

    rules = policy_from(policy)
    test = Backtest(rules)
    judged = _judged(test, file)
    if format == "ndjson":
        write(map(session_line, judged))
        write(map(finding_line, test.end()))
        return
    from workers.backtest_view import Tally, backtest_view

    tally = Tally(rules.currency)
    for each in judged:
        tally.add(each)
    print_parts(*backtest_view(tally, test.end()))


def _judged(test: "Backtest", file: Path) -> "Iterator[Judged]":
    from workers.analysis import Unreadable
    from workers.backtest import OutOfOrder
    from workers.recorded import read_line

    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                yield test.session(read_line(line))
            except Unreadable as error:
                fail(f"{file}:{number}: {error}: mend or remove the line")
            except OutOfOrder as error:
                fail(f"{file}:{number}: {error}")
