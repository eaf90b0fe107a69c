"""What the commands share: settings, Telnyx and Redis as a terminal needs them, and what is shown.

Results go to stdout, and what went wrong to stderr, one line each.
"""

# Each command imports what it needs when it runs, so that `--help` waits for no library:
# ruff: noqa: PLC0415

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from service.settings import Settings, WorkerSettings
    from workers.attempt import Found
    from workers.policy import Policy
    from workers.policy_file import Fault
    from workers.span import Span
    from workers.tree import CostTree

USAGE: Final = 2
INTERRUPTED: Final = 130
# Tables in a pipe or a file are not folded at the 80 columns that rich would assume.
_PIPE_WIDTH: Final = 160

T = TypeVar("T")


# --- settings ------------------------------------------------------------------------------------


def environ_of(context: typer.Context) -> Mapping[str, str]:
    """The settings' file, and the environment above it; what is empty counts as unset."""
    given = {name: value for name, value in os.environ.items() if value}
    path: Path = context.obj or Path(".env")
    if context.obj is None and not path.is_file():
        return given
    try:
        from dotenv import dotenv_values
    except ImportError:
        warn(f"{path} is not read: that needs python-dotenv")
        return given
    return {name: value for name, value in dotenv_values(path).items() if value} | given


def worker_settings(environ: Mapping[str, str], *more: str) -> "WorkerSettings":
    """What questions to Telnyx need of a worker's settings, and no more than that and `more`."""
    from service.settings import WorkerSettings

    return settings_of(
        WorkerSettings,
        environ,
        "TELNYX_API_KEY",
        "TELNYX_API_URL",
        "TOLLWATCH_POLICY",
        "TOLLWATCH_MAX_SESSION_COST",
        *more,
    )


def span_of(
    since: str, until: str | None, kept_ms: int, *, reach: str = "TOLLWATCH_RETENTION_DAYS"
) -> "Span":
    """The span of time that is meant, no older than `kept_ms`, which `reach` names."""
    from workers.display import when
    from workers.span import Span, read_moment

    now_ms = int(time.time() * 1000)
    moments = []
    for name, text in (("--since", since), ("--until", until)):
        try:
            moments.append(read_moment(text, now_ms=now_ms) if text is not None else now_ms)
        except ValueError as error:
            fail(f"{name}: {error}", code=USAGE)
    since_ms, until_ms = moments[0], min(moments[1], now_ms)
    oldest_ms = now_ms - kept_ms
    if max(since_ms, oldest_ms) >= until_ms:
        fail(
            "nothing to search: --since must be before --until, and --until not older than "
            f"{reach}",
            code=USAGE,
        )
    if since_ms < oldest_ms:
        warn(f"nothing is kept of calls before {when(oldest_ms)}: the search begins there")
    return Span(max(since_ms, oldest_ms), until_ms)


S = TypeVar("S", bound="Settings")


def settings_of(kind: type[S], environ: Mapping[str, str], *names: str) -> S:
    """Those of the settings that are named; every fault, and exit 2, where one is bad."""
    from service.settings import SettingsError
    from workers.checks import only

    try:
        return kind.load(only(environ, *names))
    except SettingsError as error:
        fail(*error.faults, code=USAGE)


def policy_from(path: Path | None) -> "Policy":
    """The policy in a file, the built-in one without; every fault, and exit 2, where it is bad."""
    from workers.checks import read_policy
    from workers.policy import BUILT_IN
    from workers.policy_file import PolicyError, parse_policy

    if path is None:
        return BUILT_IN
    try:
        return parse_policy(read_policy(path))
    except PolicyError as error:
        fail(*(fault_line(path, fault).rstrip("\n") for fault in error.faults), code=USAGE)


# --- Telnyx and Redis ----------------------------------------------------------------------------


def ask_telnyx(settings: "WorkerSettings", question: Any) -> Any:
    """What Telnyx says to a question."""
    from workers.inquiry import client, inquire

    async def ask() -> Any:
        async with client(settings) as telnyx:
            return await inquire(telnyx, question)

    return asyncio.run(ask())


def perhaps_with_key(environ: Mapping[str, str]) -> tuple["WorkerSettings", bool]:
    """The settings for questions that Telnyx need not be asked, and whether it can be."""
    from workers.checks import has

    has_key = has(environ, "TELNYX_API_KEY")
    made_up = {} if has_key else {"TELNYX_API_KEY": "none"}
    return worker_settings({**environ, **made_up}), has_key


async def balance_of(settings: "WorkerSettings") -> Any:
    """The account's balance, or None with a line that says why."""
    from workers.answer import Failure
    from workers.inquiry import client

    async with client(settings) as telnyx:
        answer = await telnyx.balance()
    if isinstance(answer, Failure):
        warn(f"Telnyx does not tell the balance: {answer.reason}")
        return None
    return answer


def with_redis(environ: Mapping[str, str], work: Callable[[Any], Awaitable[T]]) -> T:
    """What `work` reads of Redis; one line and exit 1 where that fails."""
    from service.settings import Settings
    from workers.lookup import NotReadable, open_redis

    settings = settings_of(Settings, environ, "REDIS_URL")

    async def read() -> T:
        async with open_redis(settings.redis_url.get_secret_value()) as redis:
            return await work(redis)

    try:
        return or_redis_problem(read())
    except NotReadable as error:
        fail(f"{error}: was it written by a newer version?")


def with_store(environ: Mapping[str, str], work: Callable[[Any, Any], Awaitable[T]]) -> T:
    """What `work` does with Redis and a store, for which the retention has to be known."""
    from service.settings import Settings
    from service.store import Store

    settings = settings_of(Settings, environ, "REDIS_URL", "TOLLWATCH_RETENTION_DAYS")

    def with_store(redis: Any) -> Awaitable[T]:
        return work(redis, Store(redis, retention_ms=settings.retention_ms))

    return with_redis(environ, with_store)


def or_redis_problem(work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to; one line and exit 1 where Redis fails."""
    from redis.exceptions import RedisError

    from workers.checks import redis_problem

    try:
        return asyncio.run(work)
    except (RedisError, OSError) as error:
        fail(f"Redis: {redis_problem(error)}: check REDIS_URL; `tollwatch check` says more")


def stored_tree(body: bytes | None) -> "CostTree | None":
    """The cost tree of a stored analysis, if there is a readable one."""
    from workers.analysis import Unreadable, decode_analysis
    from workers.products import CALL_SESSION
    from workers.tree import build_tree

    try:
        return build_tree(decode_analysis(body), CALL_SESSION) if body else None
    except Unreadable:
        warn("the stored analysis cannot be read")
        return None


# --- output --------------------------------------------------------------------------------------


def print_analysis(found: "Found", policy: "Policy", format: str, *, whole: bool) -> None:
    """Shows what Telnyx said of a session, in the wanted format."""
    from workers import display, export
    from workers.analysis import encode_analysis
    from workers.inquiry import verdict_on

    verdict = verdict_on(found, policy, now_ms=int(time.time() * 1000))
    # Masks and cleans the records, those of the tree included, for whatever is shown.
    document = encode_analysis(found.analysis)
    match format:
        case "json":
            typer.echo(export.pretty(document))
        case "csv":
            write(export.as_csv(export.rows(found.analysis, found.tree)))
        case "ndjson":
            write(export.as_ndjson(found.analysis, found.tree))
        case _:
            print_parts(*display.analysis_view(found.tree, verdict, whole=whole))


def print_parts(*parts: "RenderableType") -> None:
    """Shows tables, trees and texts."""
    screen = console()
    for part in parts:
        screen.print(part)


def console() -> "Console":
    """Where they are shown: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(
        width=None if is_terminal else _PIPE_WIDTH, highlight=False, markup=False, emoji=False
    )


def write(lines: Iterable[str]) -> None:
    """Writes lines, which bring their line breaks."""
    for line in lines:
        typer.echo(line, nl=False)


def fault_line(file: Path, fault: "Fault", kind: str = "") -> str:
    """A file's fault as editors find it: file, line, column, words."""
    from service.printable import safe

    return safe(f"{file}:{fault.line}:{fault.column}: {kind}{fault.message}") + "\n"


def warn(line: str) -> None:
    """Says a line on stderr."""
    from service.printable import safe

    typer.echo(safe(line), err=True)


def fail(*lines: str, code: int = 1) -> NoReturn:
    """Says what went wrong and ends."""
    for line in lines:
        warn(line)
    raise typer.Exit(code)
