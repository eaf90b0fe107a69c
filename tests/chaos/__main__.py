"""`make chaos`: every fault that production has, against the real processes, and an accounting."""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from tests.chaos.report import show
from tests.chaos.run import SKEW_SECONDS, Options, run
from tests.world.processes import ProcessFailed

_WIDTH_WITHOUT_TERMINAL: Final = 140


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 where everything held."""
    given = _parser().parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
    seed = random.randrange(1 << 20) if given.seed is None else given.seed
    options = Options(given.minutes, seed, given.skew)
    if given.logs:
        given.logs.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"tollwatch-chaos-{seed}-", dir=given.logs))
    console.print(f"seed {seed}, about {given.minutes:g} min; logs and data in {directory}")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(run(options, directory, console.print))
    except ProcessFailed as failure:
        console.print(str(failure), style="red1", markup=False, soft_wrap=True)
        return 1
    show(result, console)
    if result.violations:
        console.print(f"\nThe same again: make chaos ARGS='--seed {seed}'. Logs: {directory}")
    return 1 if result.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long, at least two")
    parser.add_argument("--seed", type=int, help="repeats a schedule; any by default")
    parser.add_argument(
        "--skew",
        type=float,
        default=SKEW_SECONDS,
        help="seconds by which one worker's clock is ahead, and another's behind",
    )
    parser.add_argument("--logs", type=Path, help="where the directory with the logs is made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
