"""One core's time for a stored session of eleven events: read, made a tree of, judged.

What a backtest does with each line of its file, without what has been learned. The best of many
rounds counts for each session: what else the machine does only ever adds to it. Each round forgets
the amounts that were read: in life rates repeat from session to session, and costs hardly ever do.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from service import money
from service.records import Call
from tests.world.month.customers import CUSTOMERS
from tests.world.month.month import make
from tests.world.month.table import TUNING_SEEDS
from workers.analysis import Analysis
from workers.judge import Case, judge
from workers.policy import BUILT_IN
from workers.products import CALL_SESSION
from workers.tree import build_tree

EVENTS: Final = 11
SESSIONS: Final = 200
ROUNDS: Final = 50


class _Line(msgspec.Struct):
    started_at: str
    ended_at: str
    webhook: msgspec.Raw
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class Result:
    """Microseconds for one session."""

    bare: float
    """Only decoding its line as any JSON."""
    judged: float


_DECODER: Final = msgspec.json.Decoder(_Line)
_CALL: Final = Call("a call")


def run(sessions: int = SESSIONS, rounds: int = ROUNDS) -> Result:
    """Both figures, of the same lines."""
    month = make(CUSTOMERS["steady"], TUNING_SEEDS[0])
    fitting = (line for line in month.lines() if line["analysis"]["meta"]["event_count"] == EVENTS)
    lines = [msgspec.json.encode(line) for line in islice(fitting, sessions)]
    return Result(
        bare=_microseconds(msgspec.json.decode, lines, rounds),
        judged=_microseconds(_judged, lines, rounds),
    )


def _judged(line: bytes) -> None:
    tree = build_tree(_DECODER.decode(line).analysis, CALL_SESSION)
    verdict = judge(Case(tree, _CALL), BUILT_IN, at_ms=0)
    assert verdict.event_count == EVENTS


def _microseconds(work: Callable[[bytes], Any], lines: Sequence[bytes], rounds: int) -> float:
    best = [float("inf")] * len(lines)
    for _ in range(rounds):
        money._decimal.cache_clear()
        for place, line in enumerate(lines):
            begun = time.perf_counter()
            work(line)
            best[place] = min(best[place], time.perf_counter() - begun)
    return sum(best) / len(best) * 1e6
