"""What is usual for one call: its own cohort's word, and the coarser cohorts' as far as it lacks.

A cohort with few calls has a middle of its own soon, but takes its spread from the coarser cohort;
and until it has some calls, what is usual there counts as usual here.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from workers.detection.baseline import NARROWEST, Baseline, Spread

LEAST_CALLS: Final = 20
"""With fewer calls a cohort has no say of its own, and is not shown as the one compared with."""
_TRUST: Final = 1.5
"""With each so many calls the coarser cohort's word counts half as much."""
_BORROWED: Final = 8.0
"""The coarser cohort's spread counts as much as so many calls."""
_GUESSED: Final = 0.7
"""A spread that nobody knows anything of."""
_UNSURE: Final = 1.0
_ENOUGH: Final = 300.0
"""A cohort with so many calls leans on nobody."""
_NOTHING: Final = 1e-9
_ROOT_HALF: Final = math.sqrt(0.5)
_LOOSE: Final = 1.8
"""So many deviations from the middle nothing is strange."""


# Made again whenever a baseline is: a frozen dataclass takes several times as long to make.
class Word(msgspec.Struct, frozen=True, gc=False):
    """One cohort's word on a measure: a log-normal spread, and how much it counts."""

    weight: float
    middle: float
    per_deviation: float


class Usual(msgspec.Struct, frozen=True, gc=False):
    """What is usual of one measure."""

    calm: float
    """Nothing up to this value is strange."""
    words: tuple[Word, ...]
    unknown: float
    """How much nobody's word counts: anything is possible."""
    baseline: Baseline
    """Whose figures are told."""
    spread: Spread

    def beyond(self, log: float) -> float:
        """How likely a usual call goes at least so far, as a natural logarithm."""
        likely = self.unknown
        for word in self.words:
            z = (log - word.middle) * word.per_deviation
            likely += word.weight * 0.5 * math.erfc(z * _ROOT_HALF)
        return likely


def usual_of(name: str, ladder: Sequence[Baseline]) -> Usual | None:
    """What the cohorts of a call, the finest first, say of a measure; None for not a word."""
    known = list(_known(name, ladder))
    told = _told(known)
    if told is None:
        return None
    spreads = [spread for _, spread in known]
    words: list[Word] = []
    rest, counted = 1.0, 0.0
    for spread, deviation in zip(spreads, _deviations(spreads), strict=True):
        calls = spread.calls
        # The calls that a coarser cohort shares with the finer one have had their say.
        left = rest
        if calls > counted:
            left *= 2 ** ((counted - calls) / _TRUST)
            counted = calls
        # Neither the middle nor the deviation of few calls is well known.
        unsure = deviation * (1 + _UNSURE / math.sqrt(max(calls, 1.0)))
        words.append(Word(rest - left, spread.middle, 1 / unsure))
        rest = left
        if rest < _NOTHING:
            break
    calm = math.exp(words[0].middle + _LOOSE / words[0].per_deviation)
    return Usual(calm, tuple(words), rest, *told)


def told_middle(name: str, ladder: Sequence[Baseline]) -> float:
    """Of what is told to be usual of a measure, which is found sooner than all of it.

    Nothing up to there is strange; nor is anything of which nobody knows a word.
    """
    told = _told(_known(name, ladder))
    return math.exp(told[1].middle) if told else math.inf


def _told(known: Iterable[tuple[Baseline, Spread]]) -> tuple[Baseline, Spread] | None:
    """The finest cohort with enough calls to be compared with, or else the coarsest there is."""
    told = None
    for told in known:
        if told[1].calls >= LEAST_CALLS:
            break
    return told


def _known(name: str, ladder: Iterable[Baseline]) -> Iterator[tuple[Baseline, Spread]]:
    """Up to the first cohort that leans on nobody."""
    for each in ladder:
        found = each.spreads.find(name)
        if found is not None:
            yield each, found
            if found.calls >= _ENOUGH:
                return


def _deviations(spreads: Sequence[Spread]) -> list[float]:
    """Each cohort's deviation, leaning on that of the next coarser one.

    A coarser cohort only tells something new by the calls that the finer one lacks.
    """
    last = spreads[-1]
    leaned_on = max(last.deviation, NARROWEST) if last.calls >= _ENOUGH else _GUESSED
    found = [_leaning(last.deviation, last.calls, leaned_on)]
    for coarser, spread in pairwise(reversed(spreads)):
        others = max(0.0, coarser.calls - spread.calls)
        if others:
            leaned_on = _leaning(coarser.deviation, others, leaned_on)
        found.append(_leaning(spread.deviation, spread.calls, leaned_on))
    return found[::-1]


def _leaning(deviation: float, calls: float, on: float) -> float:
    variance = (calls * deviation**2 + _BORROWED * on**2) / (calls + _BORROWED)
    return max(math.sqrt(variance), NARROWEST)
