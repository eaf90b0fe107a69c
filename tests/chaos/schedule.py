"""When which fault strikes: pure, and the same for the same seed.

A run is made of rounds. In each every kind of fault strikes once: the kinds of one lane after
another, the lanes beside each other, so that a worker is killed while Slack is away; and at the end
of the round, when the lanes are through, the kinds of the last lane.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import Final

LAST_LANE: Final = "all"
"""What strikes everything has the end of the round to itself."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault as the schedule sees it: how long it lasts, and what time it takes up."""

    name: str
    lane: str
    shortest_seconds: float
    longest_seconds: float
    recovery_seconds: float
    """What getting over it takes, by rule of thumb: the next of its lane begins after that."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault to come, in seconds since the round's beginning. `pick` chooses whom it hits."""

    kind: str
    lane: str
    at_seconds: float
    seconds: float
    pick: int


Round = tuple[Strike, ...]


def plan(
    kinds: Sequence[Kind], *, seed: int, rounds: int, round_seconds: float
) -> tuple[Round, ...]:
    """So many rounds, each with every kind once, in order of time."""
    return tuple(
        _round(kinds, Random(f"{seed}/round/{number}"), round_seconds) for number in range(rounds)
    )


def rounds_in(seconds: float, *, shortest_seconds: float) -> tuple[int, float]:
    """How many rounds fit into that time, at least one, and how long each of them is."""
    count = max(1, int(seconds // shortest_seconds))
    return count, max(seconds / count, shortest_seconds)


def _round(kinds: Iterable[Kind], rng: Random, round_seconds: float) -> Round:
    lanes = {
        lane: list(of_lane)
        for lane, of_lane in groupby(sorted(kinds, key=lambda k: (k.lane, k.name)), _lane)
    }
    last = _lane_plan(lanes.pop(LAST_LANE, []), rng, 0.0)
    ending = max((strike.at_seconds + strike.seconds for strike in last), default=0.0)
    ending += sum(kind.recovery_seconds for kind in kinds if kind.lane == LAST_LANE)
    before = [
        strike
        for of_lane in lanes.values()
        for strike in _lane_plan(of_lane, rng, round_seconds - ending)
    ]
    moved = [_moved(strike, max(0.0, round_seconds - ending)) for strike in last]
    return tuple(sorted([*before, *moved], key=lambda s: (s.at_seconds, s.lane)))


def _lane_plan(kinds: Sequence[Kind], rng: Random, seconds: float) -> list[Strike]:
    """The lane's kinds in any order, with quiet gaps of any length between them."""
    order = rng.sample(kinds, len(kinds))
    lasting = [rng.uniform(kind.shortest_seconds, kind.longest_seconds) for kind in order]
    taken = sum(lasting) + sum(kind.recovery_seconds for kind in order)
    gaps = _split(max(0.0, seconds - taken), len(order) + 1, rng)
    strikes, at = [], 0.0
    for kind, length, gap in zip(order, lasting, gaps, strict=False):
        at += gap
        strikes.append(Strike(kind.name, kind.lane, at, length, rng.randrange(1 << 30)))
        at += length + kind.recovery_seconds
    return strikes


def _split(total: float, parts: int, rng: Random) -> list[float]:
    cuts = sorted(rng.uniform(0, total) for _ in range(parts - 1))
    return [after - before for before, after in zip([0.0, *cuts], [*cuts, total], strict=True)]


def _moved(strike: Strike, seconds: float) -> Strike:
    return Strike(
        strike.kind, strike.lane, strike.at_seconds + seconds, strike.seconds, strike.pick
    )


def _lane(kind: Kind) -> str:
    return kind.lane
