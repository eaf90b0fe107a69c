"""`tollwatch`: what an operator asks of Telnyx and of Redis, in a terminal or for other programs.

Results go to stdout, and what went wrong to stderr, one line each. Exit codes: 0 done, 1 it could
not be had (or a check failed, or a search stopped early), 2 bad usage or bad settings.
"""

# Each command imports what it needs when it runs, so that `--help` waits for no library:
# ruff: noqa: PLC0415

import asyncio
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import typer

from service import __version__
from workers import cli_learned
from workers.terminal import (
    INTERRUPTED,
    ask_telnyx,
    balance_of,
    environ_of,
    fail,
    fault_line,
    or_redis_problem,
    perhaps_with_key,
    policy_from,
    print_analysis,
    print_parts,
    settings_of,
    span_of,
    stored_tree,
    warn,
    with_redis,
    with_store,
    worker_settings,
    write,
)

_DEEPEST: Final = 5

# What the search for missed webhooks needs beside Telnyx, as the worker has it.
_KEPT_BY_US: Final = ("REDIS_URL", "TOLLWATCH_RETENTION_DAYS", "TOLLWATCH_MASK_NUMBERS")

_HELP: Final = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    help="What Telnyx calls cost, and what tollwatch knows and thinks of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: the one in boxes cuts off the names of long options.
    rich_markup_mode=None,
    context_settings=_HELP,
)
policy_app = typer.Typer(
    help="The policy: what a session may cost.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_HELP,
)
app.add_typer(policy_app, name="policy")
dead_app = typer.Typer(
    help="Dead letters: sessions that failures of our own have ended.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_HELP,
)
app.add_typer(dead_app, name="dead")
cli_learned.add_to(app)

T = TypeVar("T")


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark instead of a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="tollwatch")


def _day(value: str) -> date:
    """A day, or the UTC day of a time. Raises typer.BadParameter."""
    try:
        time_of_day = datetime.fromisoformat(value)
    except ValueError as error:
        raise typer.BadParameter("not ISO 8601, such as 2026-03-17 or 2026-03-17T10:00Z") from error
    aware = time_of_day if time_of_day.tzinfo else time_of_day.replace(tzinfo=UTC)
    return aware.astimezone(UTC).date()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tollwatch {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    env: Annotated[
        Path | None,
        typer.Option(
            help="File with settings; the environment goes before it. Without this option: .env, "
            "if there is one.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold on to where the settings come from, for the commands."""
    context.obj = env


@app.command()
def analyze(
    context: typer.Context,
    record_type: Annotated[
        str, typer.Argument(metavar="RECORD_TYPE", help="Such as call-session.")
    ],
    event_id: Annotated[
        str, typer.Argument(metavar="EVENT_ID", help="For a call session: its call_session_id.")
    ],
    *,
    format: Annotated[
        Literal["tree", "json", "csv", "ndjson"],
        typer.Option(help="csv and ndjson hold one line for each event."),
    ] = "tree",
    date_time: Annotated[
        date | None,
        typer.Option(
            parser=_day,
            metavar="ISO8601",
            help="When the call was: narrows Telnyx's search to that UTC day.",
        ),
    ] = None,
    max_depth: Annotated[
        int, typer.Option(min=1, max=_DEEPEST, help="Levels that Telnyx goes down.")
    ] = _DEEPEST,
    include_children: Annotated[
        bool, typer.Option(help="Whether events below this one come with it.")
    ] = True,
    expand: Annotated[
        Literal["record", "none"],
        typer.Option(help="Whether records come, with rates, times and durations."),
    ] = "record",
    policy: Annotated[
        Path | None, typer.Option(help="Judge by this policy instead of TOLLWATCH_POLICY.")
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="Show every event, many alike too.")] = False,
) -> None:
    """Fetch an event's cost tree and judge it.

    Needs TELNYX_API_KEY. The columns of csv: session_id, depth, path, parent_id, id, record_type,
    product, event_name, event_cost, cumulative_cost, subtotal, currency, rate, rate_measured_in,
    billed_seconds, real_seconds, started_at, finished_at, direction, connection_id, assistant_id,
    model.
    """
    from workers.attempt import Found
    from workers.inquiry import Question, advice, hint

    environ = environ_of(context)
    settings = worker_settings(environ)
    judged_by = policy_from(policy or settings.policy_path).with_max_session_cost(
        settings.max_session_cost
    )
    question = Question(record_type, event_id, date_time, max_depth, include_children, expand)
    answer = ask_telnyx(settings, question)
    if not isinstance(answer, Found):
        fail(advice(answer, dated=date_time is not None) + hint(record_type))
    print_analysis(answer, judged_by, format, whole=all)


@app.command()
def record_types(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="One record type; all without it.")
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option()] = "table",
) -> None:
    """Show what Telnyx says of record types.

    Their names, how they hang together, and which costs roll up.
    """
    from workers import display, export
    from workers.inquiry import advice_on_types, client, inquire_types
    from workers.metadata import RecordType, RecordTypes

    settings = worker_settings(environ_of(context))

    async def ask() -> Any:
        async with client(settings) as telnyx:
            return await inquire_types(telnyx, name)

    answer = asyncio.run(ask())
    if not isinstance(answer, RecordType | RecordTypes):
        fail(advice_on_types(answer, name))
    if format == "json":
        typer.echo(export.pretty(answer))
    elif isinstance(answer, RecordType):
        print_parts(*display.record_type_view(answer))
    else:
        print_parts(display.record_types_view(answer))


@app.command()
def check(
    context: typer.Context,
    *,
    slack: Annotated[bool, typer.Option("--slack", help="Post a test message to Slack.")] = False,
) -> None:
    """Try all that must work, and say what to mend.

    Settings, keys, policy, Redis, Telnyx and Slack. Exits with 1 if something failed.
    """
    from workers import display
    from workers.checks import Check, Result, run_checks

    environ = environ_of(context)

    async def run() -> list[Check]:
        return [found async for found in run_checks(environ, post=slack)]

    found = asyncio.run(run())
    print_parts(display.checks_view(found))
    failures = sum(item.result is Result.FAILED for item in found)
    if failures:
        fail("1 check failed" if failures == 1 else f"{failures} checks failed")


@app.command()
def show(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The call_session_id.")],
    format: Annotated[Literal["text", "json"], typer.Option()] = "text",
) -> None:
    """Show all that is known of a session.

    Its events, what was asked and answered, the verdict, the cost tree and the alerts.
    """
    from workers import display, export
    from workers.lookup import look_up, whole

    known = with_redis(environ_of(context), lambda redis: look_up(redis, session))
    if known is None:
        fail(f"no session {session} is known: it was never scheduled here, or its retention ended")
    if format == "json":
        typer.echo(export.pretty(whole(known)))
    else:
        print_parts(*display.session_view(known, stored_tree(known.analysis)))


@app.command()
def sessions(
    context: typer.Context,
    state: Annotated[
        Literal["open", "verdict", "unavailable", "dead"] | None,
        typer.Option(help="Only those in this state."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    format: Annotated[Literal["table", "ndjson"], typer.Option()] = "table",
) -> None:
    """List sessions, the latest changed first."""
    from service.records import State
    from workers import display, export
    from workers.lookup import brief, listed

    wanted = State(state) if state else None

    async def read(redis: Any) -> list[Any]:
        return [found async for found in listed(redis, state=wanted, limit=limit)]

    found = with_redis(environ_of(context), read)
    if format == "ndjson":
        write(export.compact(brief(*each)) + "\n" for each in found)
    elif found:
        print_parts(display.sessions_view(found))
    else:
        typer.echo("no sessions", err=True)


@app.command()
def alerts(
    context: typer.Context,
    delivery: Annotated[
        Literal["waiting", "posted", "folded", "summarized", "refused", "kept"] | None,
        typer.Option(help="Only those with this fate."),
    ] = None,
    summary: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Only the alerts in this summary, the worst first."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    format: Annotated[Literal["table", "json", "ndjson"], typer.Option()] = "table",
) -> None:
    """List alerts, notices and summaries, and what became of each; the latest decided first."""
    from service.records import Delivery
    from workers import display, export
    from workers.lookup import brief_alert, listed_alerts

    wanted = Delivery(delivery) if delivery else None

    async def read(redis: Any) -> list[Any]:
        alerts = listed_alerts(redis, delivery=wanted, summary=summary, limit=limit)
        return [found async for found in alerts]

    found = with_redis(environ_of(context), read)
    if format == "json":
        typer.echo(export.pretty([brief_alert(*each) for each in found]))
    elif format == "ndjson":
        write(export.compact(brief_alert(*each)) + "\n" for each in found)
    elif found:
        print_parts(display.alerts_view(found))
    else:
        typer.echo("no alerts", err=True)


@app.command()
def budget(
    context: typer.Context,
    format: Annotated[Literal["table", "json"], typer.Option()] = "table",
) -> None:
    """Show the policy's budgets: what is spent, how much that is, and when they are used up.

    Days and months are those of UTC. With TELNYX_API_KEY the account's balance, too, and when it
    runs out.
    """
    from service.spend import Spending
    from workers import budgets, display, export, funds

    environ = environ_of(context)
    settings, has_key = perhaps_with_key(environ)
    policy = policy_from(settings.policy_path)
    now_ms = int(time.time() * 1000)

    async def read(redis: Any) -> tuple[list[Any], Any]:
        spending = Spending(redis)
        balance = await balance_of(settings) if has_key else None
        purse = funds.Purse(redis, spending)
        found = await purse.forecast(balance, now_ms) if balance else None
        return await budgets.standings(spending, policy, now_ms), found

    standings, balance = with_redis(environ, read)
    if format == "json":
        listed = [budgets.brief(each, policy.currency) for each in standings]
        told = funds.brief(balance) if balance else None
        typer.echo(export.pretty({"budgets": listed, "balance": told}))
        return
    if standings:
        print_parts(display.budgets_view(standings, policy.currency, now_ms))
    else:
        warn("the policy has no budgets")
    if balance:
        print_parts(display.balance_view(balance))


@app.command()
def reconcile(
    context: typer.Context,
    *,
    since: Annotated[
        str,
        typer.Option(
            metavar="AGO|ISO8601", help="Where to begin: 90m, 6h or 2d ago, or at a time."
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(metavar="AGO|ISO8601", help="Where to end; now without it."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be scheduled.")
    ] = False,
    format: Annotated[Literal["table", "json"], typer.Option()] = "table",
) -> None:
    """Search Telnyx for calls whose webhooks never came, and schedule them.

    Needs TELNYX_API_KEY and the service's REDIS_URL. Stopped early, it exits with 1; called again,
    it goes on where it stopped. Searching twice does no harm.
    """
    from workers import display, export
    from workers.by_hand import document, search
    from workers.ledger import Busy, LeaseLost
    from workers.watching import watching

    environ = environ_of(context)
    settings = worker_settings(environ, *_KEPT_BY_US)
    wanted = span_of(since, until, settings.retention_ms)
    try:
        with watching(wanted) as watcher:
            report = or_redis_problem(search(settings, wanted, watcher, dry=dry_run))
    except Busy:
        fail("another search is under way, by a worker or by hand: try again in a while")
    except LeaseLost:
        fail("given up: Redis did not answer for long, and another search may have begun")
    except KeyboardInterrupt:
        fail("interrupted: called again, it goes on where it stopped", code=INTERRUPTED)
    if format == "json":
        typer.echo(export.pretty(document(report, dry=dry_run)))
    else:
        print_parts(*display.reconciliation_view(report, dry=dry_run))
    if report.stop:
        again = "" if dry_run else "; called again, it goes on where it stopped"
        fail(f"stopped early ({report.stop.outcome}): {report.stop.reason}{again}")


@app.command("export")
def export_sessions(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option(
            metavar="AGO|ISO8601", help="Calls that ended from there on: 90m, 6h or 30d ago."
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(metavar="AGO|ISO8601", help="And up to there; now without it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write; stdout without it.", dir_okay=False),
    ] = None,
) -> None:
    """Write finished sessions to a file, as `tollwatch backtest` reads it.

    One JSON object a line, by the call's end: started_at, ended_at, webhook, analysis. Numbers are
    masked. Says on stderr how many were written, and how many were left out and why.
    """
    from service.settings import Settings
    from workers.archive import Tally, write_sessions
    from workers.display import tally_line
    from workers.watching import counting
    from workers.writing import CannotWrite, writing

    environ = environ_of(context)
    settings = settings_of(Settings, environ, "REDIS_URL", "TOLLWATCH_RETENTION_DAYS")
    wanted = span_of(since, until, settings.retention_ms)
    # A bar between the lines would be neither.
    shown = out is not None or not sys.stdout.isatty()

    async def save(redis: Any) -> Tally:
        with writing(out) as write, counting("sessions", shown=shown) as advance:
            return await write_sessions(redis, wanted, write, advance)

    try:
        tally = with_redis(environ, save)
    except CannotWrite as error:
        if isinstance(error.__cause__, BrokenPipeError):
            # Whoever read has had enough: typer ends quietly.
            raise error.__cause__ from None
        fail(str(error))
    warn(tally_line(tally))


@policy_app.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy in YAML.")],
) -> None:
    """Print a policy's faults, or what it does.

    Each fault on a line, as FILE:LINE:COLUMN.
    """
    from workers import display
    from workers.checks import read_policy
    from workers.policy_file import PolicyError, examine

    try:
        examined = examine(read_policy(file))
    except PolicyError as error:
        write(fault_line(file, fault) for fault in error.faults)
        raise typer.Exit(1) from error
    write(fault_line(file, fault, "warning: ") for fault in examined.warnings)
    print_parts(display.policy_view(examined.policy))


@dead_app.command("list")
def dead_list(
    context: typer.Context,
    reason: Annotated[str, typer.Option(metavar="KIND", help="Only those of this kind.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    format: Annotated[Literal["table", "ndjson"], typer.Option()] = "table",
) -> None:
    """List dead letters, the latest death first, and how many there are of each kind.

    The kind is the class of the last failure.
    """
    from workers import display, export
    from workers.dead import brief_letter, listed

    async def read(_redis: Any, store: Any) -> tuple[list[Any], Any]:
        found = [each async for each in listed(store.dead, kind=reason, limit=limit)]
        return found, await store.dead.counts()

    found, counts = with_store(environ_of(context), read)
    if format == "ndjson":
        write(export.compact(brief_letter(letter)) + "\n" for letter in found)
    elif found:
        print_parts(display.dead_view(found), display.kinds_view(counts))
    else:
        warn(f"no dead letters of the kind {reason}" if reason else "no dead letters")


@dead_app.command("show")
def dead_show(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The call_session_id.")],
    *,
    format: Annotated[Literal["text", "json"], typer.Option()] = "text",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Only what Telnyx answered when our code broke on it, without personal data. "
            "It is kept for a week.",
        ),
    ] = False,
) -> None:
    """Show all that is known of a dead letter: when it died, of what, and the session."""
    from workers import display, export
    from workers.dead import look, whole_letter

    looked = with_store(environ_of(context), lambda redis, store: look(redis, store, session))
    if looked is None:
        fail(f"session {session} is no dead letter; `tollwatch show` says what is known of it")
    if raw:
        if not looked.raw:
            fail(f"no answer of Telnyx about session {session} is kept")
        typer.echo(export.pretty(looked.raw))
    elif format == "json":
        typer.echo(export.pretty(whole_letter(looked)))
    else:
        known = looked.known
        print_parts(*display.dead_letter_view(looked))
        if known:
            print_parts(*display.session_view(known, stored_tree(known.analysis)))


_SESSIONS = Annotated[
    list[str] | None, typer.Argument(metavar="[SESSION]...", help="Those with these ids.")
]
_REASON = Annotated[str, typer.Option(metavar="KIND", help="All of this kind.")]
_ALL = Annotated[bool, typer.Option("--all", help="All there are.")]
_DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@dead_app.command("retry")
def dead_retry(
    context: typer.Context,
    sessions: _SESSIONS = None,
    *,
    reason: _REASON = "",
    all: _ALL = False,
    dry_run: _DRY_RUN = False,
) -> None:
    """Open dead letters again: due now, with all their tries.

    What is known of the session stays: its events, what was fetched and judged, its alerts. The
    reason of its death and the count of its failures are forgotten. What is no dead letter any more
    is left alone; a session that nobody knows makes the exit code 1.
    """
    _act(context, "retry", sessions, reason, all, dry_run=dry_run)


@dead_app.command("drop")
def dead_drop(
    context: typer.Context,
    sessions: _SESSIONS = None,
    *,
    reason: _REASON = "",
    all: _ALL = False,
    dry_run: _DRY_RUN = False,
) -> None:
    """Give dead letters up for good.

    They stay visible in `tollwatch show` as dropped, until the retention ends; only a late event
    opens one again. What Telnyx had answered is removed at once. What is no dead letter any more is
    left alone; a session that nobody knows makes the exit code 1.
    """
    _act(context, "drop", sessions, reason, all, dry_run=dry_run)


def _act(
    context: typer.Context,
    action: Literal["retry", "drop"],
    sessions: list[str] | None,
    kind: str,
    all: bool,
    *,
    dry_run: bool,
) -> None:
    from workers.dead import Chosen, act

    if [bool(sessions), bool(kind), all].count(True) != 1:
        raise typer.BadParameter(f"say what to {action}: SESSION..., --reason KIND or --all")
    chosen = Chosen(tuple(dict.fromkeys(sessions or ())), kind)
    now_ms = int(time.time() * 1000)
    done = with_store(
        environ_of(context),
        lambda _redis, store: act(store, action, chosen, now_ms=now_ms, dry_run=dry_run),
    )
    verb = {"retry": "retried", "drop": "dropped"}[action]
    typer.echo(_told(f"would be {verb}" if dry_run else verb, done.kinds))
    for id in done.not_dead:
        warn(f"{id} is no dead letter (any more): left as it is")
    if done.unknown:
        fail(*(f"no session {id} is known" for id in done.unknown))


def _told(verb: str, kinds: Mapping[str, int]) -> str:
    from service.printable import safe

    number = sum(kinds.values())
    parts = ", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds))
    some = "1 dead letter" if number == 1 else f"{number} dead letters"
    return safe(f"{some} {verb}" + (f": {parts}" if parts else ""))
