"""One core's sessions a second through `tollwatch backtest`, decoding and writing included.

The calls of a simulated month that have eleven events, in order: read, made a tree of, judged by
what was learned from those ahead, learned from, and told as a line of JSON. Beside it, decoding the
same lines as any JSON. The best of a few rounds counts for each line, as in `judging`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import msgspec

from service import money
from tests.bench.judging import EVENTS
from tests.world.month.customers import CUSTOMERS
from tests.world.month.month import make
from tests.world.month.table import TUNING_SEEDS
from workers.backtest import Backtest
from workers.policy import BUILT_IN
from workers.recorded import read_line
from workers.told import session_line

SESSIONS: Final = 3000
ROUNDS: Final = 8
_COPIES: Final = 6
_APART_MINUTES: Final = 23


@dataclass(frozen=True, slots=True)
class Result:
    """Sessions a second."""

    bare: float
    """Only decoding their lines as any JSON."""
    judged: float
    sessions: int


def run(sessions: int = SESSIONS, rounds: int = ROUNDS) -> Result:
    """Both figures, of the same lines."""
    lines = list(islice(_lines(), sessions))
    return Result(
        bare=_per_second(lambda: msgspec.json.decode, lines, rounds),
        judged=_per_second(_judging, lines, rounds),
        sessions=len(lines),
    )


def _lines() -> Iterator[bytes]:
    """By their ends. Few calls of a month have just eleven events, so each comes several times.

    Not close together: each would be a burst, which costs more to judge than calls as they come.
    """
    month = make(CUSTOMERS["weekly"], TUNING_SEEDS[0])
    fitting = [line for line in month.lines() if line["analysis"]["meta"]["event_count"] == EVENTS]
    shifts = [_APART_MINUTES * copy for copy in range(_COPIES)]
    copies = [(_later(line["ended_at"], n), n, line) for n in shifts for line in fitting]
    for end, number, line in sorted(copies, key=itemgetter(0)):
        start = _later(line["started_at"], number)
        yield msgspec.json.encode(line | {"started_at": start, "ended_at": end})


def _later(time: str, minutes: int) -> str:
    later = datetime.fromisoformat(time) + timedelta(minutes=minutes)
    return later.isoformat().replace("+00:00", "Z")


def _judging() -> Callable[[bytes], Any]:
    """A new memory in each round: the same line finds the same in it."""
    test = Backtest(BUILT_IN)
    return lambda line: session_line(test.session(read_line(line)))


def _per_second(
    begin: Callable[[], Callable[[bytes], Any]], lines: Sequence[bytes], rounds: int
) -> float:
    best = [float("inf")] * len(lines)
    for _ in range(rounds):
        money._decimal.cache_clear()
        work = begin()
        for place, line in enumerate(lines):
            begun = time.perf_counter()
            work(line)
            best[place] = min(best[place], time.perf_counter() - begun)
    return len(lines) / sum(best)
