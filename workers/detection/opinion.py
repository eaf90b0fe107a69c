"""Whether a session is strange enough to tell: unlikely, and it matters.

Unlikely: fewer normal calls go as far than the policy allows false alerts, corrected for how many
things are looked at. It matters: the money over the usual, and how many times the usual that is.
What is unlikely but small is listed, and tells nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from workers.detection.baseline import Baseline
from workers.detection.deviation import Deviation
from workers.detection.ladder import Ladder
from workers.detection.measure import Measured
from workers.detection.strange import MEASURES, deviations
from workers.detection.traits import UNKNOWN_RATE
from workers.policy import Policy

_TRAIT_LOOKS: Final = 4
"""Prices, new things, missing things, and no cost at all."""
_PER_1000: Final = 1000
_LEAST_LIKELY: Final = 1e-30
_WORTH_A_LOOK: Final = 0.01


@dataclass(frozen=True, slots=True)
class Gates:
    """What a deviation must be to be told."""

    likelihood: float
    """At most so much, corrected."""
    least_excess: float
    least_factor: float

    @classmethod
    def of(cls, policy: Policy) -> "Gates":
        """From the policy: false alerts wanted per 1,000 normal calls, money, a factor."""
        return cls(
            likelihood=float(policy.false_alerts_per_1000_normal_calls) / _PER_1000,
            least_excess=float(policy.severity.low),
            least_factor=float(policy.least_factor),
        )


class Opinion(msgspec.Struct, frozen=True, gc=False):
    """What is thought of a session by what its like have cost."""

    measured: Measured
    ladder: Ladder
    unlikely: tuple[Deviation, ...]
    """The strangest first."""
    told: tuple[Deviation, ...]
    """Those of them that matter, too."""
    score: float
    """Minus the decimal logarithm of the corrected likelihood: higher is stranger."""

    @property
    def causes(self) -> tuple[tuple[str, str], ...]:
        """What is strange and for which cohorts, as names."""
        return tuple(
            (cohort.cohort, each.name) for each in self.unlikely for cohort in self.concerned(each)
        )

    def concerned(self, deviation: Deviation) -> Sequence[Baseline]:
        """Whose matter it is, the finest first: a price may change for many cohorts at once."""
        if deviation.code != UNKNOWN_RATE:
            return (deviation.cohort,)
        begin = self.ladder.baselines.index(deviation.cohort)
        return tuple(each for each in self.ladder.baselines[begin:-1] if each.calls) or (
            deviation.cohort,
        )


def opinion_of(measured: Measured, ladder: Ladder, gates: Gates) -> Opinion:
    """Judges a session by the baselines of its cohorts."""
    # The measures of a product go together, and count as one look.
    looks = 1 + len(measured.products)
    odd = deviations(measured, ladder, max(_WORTH_A_LOOK, gates.likelihood))
    if not odd:
        return Opinion(measured, ladder, unlikely=(), told=(), score=0.0)
    found = [(_corrected(each, looks), each) for each in odd]
    found.sort(key=lambda pair: pair[0])
    unlikely = tuple(each for likelihood, each in found if likelihood <= gates.likelihood)
    return Opinion(
        measured=measured,
        ladder=ladder,
        unlikely=unlikely,
        told=tuple(each for each in unlikely if _matters(each, gates)),
        score=_score(found, gates),
    )


def _corrected(deviation: Deviation, looks: int) -> float:
    """For how many things are looked at: measures are one kind of look, traits another."""
    is_measure = deviation.code in MEASURES
    return min(1.0, deviation.likelihood * (looks if is_measure else _TRAIT_LOOKS))


def _matters(deviation: Deviation, gates: Gates) -> bool:
    return abs(deviation.excess) >= gates.least_excess and (
        deviation.is_missing or deviation.factor >= gates.least_factor
    )


def _score(found: Sequence[tuple[float, Deviation]], gates: Gates) -> float:
    """Of what matters; what does not stays below what is told.

    Both count: else a call would be less strange for what begins to matter in it.
    """
    listed = 0.5 * min(_strangeness(found[0][0]), _strangeness(gates.likelihood))
    likely = next((p for p, each in found if _matters(each, gates)), 1.0)
    return max(listed, _strangeness(likely))


def _strangeness(likelihood: float) -> float:
    return math.log10(1 / max(likelihood, _LEAST_LIKELY))
