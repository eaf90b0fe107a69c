"""`tollwatch backfill`: what calls usually cost, learned from the past."""

# Each command imports what it needs when it runs, so that `--help` waits for no library:
# ruff: noqa: PLC0415

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from workers.terminal import (
    INTERRUPTED,
    USAGE,
    environ_of,
    fail,
    or_redis_problem,
    policy_from,
    print_parts,
    span_of,
    worker_settings,
    write,
)

if TYPE_CHECKING:
    from workers.reconcile import Watcher
    from workers.span import Span


# What learning from the past needs beside Telnyx, as the worker has it.
_AS_THE_WORKER: Final = (
    "REDIS_URL",
    "TOLLWATCH_RETENTION_DAYS",
    "TOLLWATCH_MASK_NUMBERS",
    "TOLLWATCH_FETCH_AFTER_SECONDS",
)


def backfill(
    context: typer.Context,
    *,
    since: Annotated[
        str,
        typer.Option(
            metavar="AGO|ISO8601",
            help="Calls that ended from there on: 12h or 14d ago, at most 28d; or at a time.",
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="AGO|ISO8601",
            help="And up to there. Without it, and at most: up to the last age of "
            "TOLLWATCH_FETCH_AFTER_SECONDS ago; later calls are not settled.",
        ),
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            min=100,
            max=20_000,
            help="From so many sessions at most; of more, some are taken evenly. Each costs a "
            "question to Telnyx.",
        ),
    ] = 20_000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the sessions, and change nothing.")
    ] = False,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to show it.")] = "table",
) -> None:
    """Learn what calls usually cost from the past, so that the first day is not blind.

    Reads the account's calls from Telnyx's lists, asks for the cost of each and learns from it, by
    the calls' ends. Nothing is alerted, and no session appears. What is strange by the calls before
    it is kept apart. Of a rate limit it takes what the workers leave.

    Needs TELNYX_API_KEY and the service's REDIS_URL and policy. Stopped early, it exits with 1;
    called again, it goes on where it stopped. Nothing is learned twice.
    """
    from workers import export, past
    from workers.backfill_view import backfill_view, outlook_view
    from workers.ledger import Busy, LeaseLost
    from workers.watching import learning, watching

    settings = worker_settings(environ_of(context), *_AS_THE_WORKER)
    policy = policy_from(settings.policy_path)
    if not policy.learn:
        fail("the policy says learn: false, so nothing is compared with what was learned")
    wanted = _settled(span_of(since, until, past.REACH_MS, reach="28 days"), settings.ages[-1])

    def search(span: "Span") -> "AbstractContextManager[Watcher]":
        return watching(span, each=False)

    came: Any
    try:
        if dry_run:
            came = or_redis_problem(past.look(settings, wanted, search))
        else:
            came = or_redis_problem(
                past.learn(settings, policy, wanted, search, learning, most=most)
            )
    except Busy:
        fail("somebody else learns from the past just now: try again in a while")
    except LeaseLost:
        fail("given up: Redis did not answer for long, and somebody else may have begun")
    except KeyboardInterrupt:
        fail("interrupted: called again, it goes on where it stopped", code=INTERRUPTED)
    if format == "json":
        write([export.pretty(past.document(came)) + "\n"])
    else:
        print_parts(*(outlook_view(came) if dry_run else backfill_view(came)))
    if came.stop:
        again = "" if dry_run else "; called again, it goes on where it stopped"
        fail(f"stopped early ({came.stop.outcome}): {came.stop.reason}{again}")


def _settled(span: "Span", last_age_seconds: int) -> "Span":
    """What of the span has settled by now."""
    from workers.by_hand import now_ms
    from workers.span import Span

    until_ms = min(span.until_ms, now_ms() - last_age_seconds * 1000)
    if until_ms <= span.since_ms:
        fail(f"no cost has settled: calls take up to {last_age_seconds} s for that", code=USAGE)
    return Span(span.since_ms, until_ms)
