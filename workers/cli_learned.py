"""The commands about what has been learned of the usual cost of calls, and what people say of it.

`tollwatch backtest`, `backfill`, `baseline` and `feedback`.
"""

# Each command imports what it needs when it runs, so that `--help` waits for no library:
# ruff: noqa: PLC0415

import os
import time
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from workers.cli_backfill import backfill
from workers.terminal import (
    USAGE,
    environ_of,
    fail,
    policy_from,
    print_parts,
    settings_of,
    warn,
    with_redis,
    write,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from workers.backtest import Backtest, Judged
    from workers.baselines import Baselines
    from workers.detection.memory import Memory

T = TypeVar("T")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (backtest, backfill, baseline, feedback):
        app.command()(command)


def backtest(
    context: typer.Context,
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
    warm: Annotated[
        bool,
        typer.Option("--warm", help="Begin with what the workers have learned, as it is in Redis."),
    ] = False,
) -> None:
    """What would have been alerted: the judge over a file of sessions, in order of time.

    It begins knowing nothing, and learns from each session as the workers do. Redis is left as it
    is.
    """
    from workers.backtest import Backtest
    from workers.told import finding_line, session_line

    rules = policy_from(policy)
    test = Backtest(rules, _memory(context)) if warm else Backtest(rules)
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
                yield test.session(read_line(line.removeprefix(BOM_UTF8)))
            except Unreadable as error:
                fail(f"{file}:{number}: {error}: mend or remove the line")
            except OutOfOrder as error:
                fail(f"{file}:{number}: {error}")


def _memory(context: typer.Context) -> "Memory":
    environ = environ_of(context)
    return with_learned(environ, lambda _, baselines: baselines.memory(_today()))


def _today() -> int:
    return int(time.time()) // 86_400


def with_learned(
    environ: Mapping[str, str], work: "Callable[[Redis, Baselines], Awaitable[T]]"
) -> T:
    """What `work` does with what was learned; one line and exit 1 where Redis fails."""
    from service.settings import Settings
    from workers.baselines import Baselines

    settings = settings_of(Settings, environ, "REDIS_URL", "TOLLWATCH_RETENTION_DAYS")
    return with_redis(
        environ, lambda redis: work(redis, Baselines(redis, retention_ms=settings.retention_ms))
    )


def baseline(
    context: typer.Context,
    cohort: Annotated[
        str | None,
        typer.Argument(metavar="[COHORT]", help="Its name or a part that no other name has."),
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many cohorts at most.")] = 50,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to show it.")] = "table",
) -> None:
    """Show what has been learned of the usual cost of calls.

    All cohorts, those with the latest calls first; or one of them: what is usual of each measure,
    how sessions' costs are spread, and which products, prices, models and countries occur.
    """
    from workers import baseline_view as view
    from workers import export, learned

    environ = environ_of(context)
    if cohort is None:
        found, count = with_learned(
            environ, lambda _, known: learned.cohorts(known, _today(), limit=limit)
        )
        if format == "json":
            typer.echo(export.pretty([view.brief(each) for each in found]))
        elif found:
            print_parts(view.cohorts_view(found))
        else:
            warn("nothing has been learned yet")
        if count > len(found):
            warn(f"{count - len(found):,} more cohorts: --limit shows them")
        return
    try:
        one = with_learned(environ, lambda _, known: learned.cohort(known, cohort, _today()))
    except learned.NotOne as error:
        fail(str(error))
    if format == "json":
        typer.echo(export.pretty(view.whole(one)))
    else:
        print_parts(*view.cohort_view(one))


def feedback(
    context: typer.Context,
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="The call_session_id.")
    ] = None,
    is_: Annotated[
        Literal["expected", "anomaly", "planned", "undo"] | None,
        typer.Argument(metavar="[expected|anomaly|planned|undo]", help="What it is."),
    ] = None,
    *,
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who says so; without it, who is logged in.")
    ] = "",
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who read it.")] = "",
    cohort: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="planned: an assistant, a connection or `account`, instead of the session's own.",
        ),
    ] = "",
    for_: Annotated[
        str,
        typer.Option(
            "--for", metavar="DURATION", help="planned: so long from --from or now on: 90m, 2h, 3d."
        ),
    ] = "",
    from_: Annotated[
        str,
        typer.Option(
            "--from", metavar="AGO|ISO8601", help="planned: since when; the call's end without it."
        ),
    ] = "",
    until: Annotated[
        str, typer.Option(metavar="ISO8601", help="planned: until when, instead of --for.")
    ] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show all that was said.")] = False,
    format: Annotated[Literal["table", "ndjson"], typer.Option(help="Of --list.")] = "table",
) -> None:
    """Say what a session is, so that the next ones are judged by it.

    expected: calls like this are usual from now on; that fades within weeks. anomaly: nothing is
    learned from it, and what was is taken back. planned: nobody is told of calls of its assistant
    (or connection) that end within a time, whatever they cost. undo: as if nothing had been said.
    The last word on a session holds.
    """
    if list_:
        if session:
            raise typer.BadParameter("--list goes without SESSION")
        _list_feedback(environ_of(context), format)
        return
    if not session or is_ is None:
        raise typer.BadParameter("say which session, and what it is; or --list")
    if is_ != "planned" and any((cohort, for_, from_, until)):
        raise typer.BadParameter("--cohort, --for, --from and --until are for planned")
    from workers.say import CannotSay, Wish, say

    wish = Wish(session, is_, by or _login(), note, cohort, for_, from_, until)
    now_ms = int(time.time() * 1000)

    try:
        told = with_learned(
            environ_of(context), lambda redis, known: say(redis, known, wish, now_ms=now_ms)
        )
    except CannotSay as error:
        fail(str(error), code=USAGE if error.is_usage else 1)
    from service.printable import safe

    typer.echo(safe(told))


def _list_feedback(environ: Mapping[str, str], format: str) -> None:
    from workers import display, export
    from workers.feedback import FeedbackBook

    found = with_learned(
        environ, lambda redis, known: FeedbackBook(redis, known, known.retention_ms).listed()
    )
    if format == "ndjson":
        write(export.compact(said or {"session_id": id}) + "\n" for id, said in found)
    elif found:
        print_parts(display.feedback_view(found))
    else:
        warn("nothing has been said of any session")


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        return f"uid {os.getuid()}"
