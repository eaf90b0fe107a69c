"""`python -m tests.chaos.process web|worker`: the real one, with a wrong clock and broken code.

What the environment says is done to it:
`CHAOS_CLOCK_SECONDS`: the wall clock is so far ahead of the machine's (behind, if negative).
`CHAOS_POISON_FILE`: judging any session whose id is a line of that file raises `Poisoned`.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Self

CLOCK: Final = "CHAOS_CLOCK_SECONDS"
POISON: Final = "CHAOS_POISON_FILE"


class Poisoned(Exception):
    """What our code does when it meets an analysis that breaks it."""


def set_clock(seconds: float) -> None:
    """Put `time.time` forward, for all who import it from now on."""
    right = time.time
    time.time = lambda: right() + seconds


def wrong_datetime(seconds: float) -> type[datetime]:
    """A `datetime` whose now is so far ahead."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            moved = datetime.now(tz) + timedelta(seconds=seconds)
            return cls.combine(moved.date(), moved.timetz())

    return Wrong


def set_datetime(seconds: float, packages: tuple[str, ...] = ("service", "workers")) -> None:
    """Give the packages' modules, which are imported already, a `datetime` that is as wrong."""
    wrong = wrong_datetime(seconds)
    for name, module in list(sys.modules.items()):
        is_ours = name.partition(".")[0] in packages
        if is_ours and getattr(module, "datetime", None) is datetime:
            vars(module)["datetime"] = wrong


def poisoned(judge: Callable[..., Any], marked: Path) -> Callable[..., Any]:
    """`judge`, which raises Poisoned for the sessions that the file names at that moment."""

    def judge_or_break(case: Any, *args: Any, **kwargs: Any) -> Any:
        if case.call.session_id in marked.read_text(encoding="ascii").split():
            raise Poisoned("an analysis that breaks our code")
        return judge(case, *args, **kwargs)

    return judge_or_break


def main(arguments: Sequence[str]) -> int:
    """Run the web process or the worker; its exit code."""
    (role,) = arguments
    seconds = float(os.environ.get(CLOCK) or 0)
    if seconds:
        set_clock(seconds)
    # Imported only now: they must find the clock as it is.
    start = _web() if role == "web" else _worker()
    if seconds:
        set_datetime(seconds)
    return start()


def _web() -> Callable[[], int]:
    main: Callable[[], int] = import_module("service.run").main
    return main


def _worker() -> Callable[[], int]:
    marked = os.environ.get(POISON)
    if marked:
        decide = vars(import_module("workers.decide"))
        decide["judge"] = poisoned(decide["judge"], Path(marked))
    main: Callable[[], int] = import_module("workers.run").main
    return main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
