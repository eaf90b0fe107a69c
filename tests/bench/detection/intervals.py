"""Sampling error: how far a share may be off, and whether one detector really finds more. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

CONFIDENCE: Final = 0.95


def wilson(found: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval of a share; (0, 1) where nothing was counted.

    Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not of:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = found / of
    centre = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two detectors on the same anomalies: how many each found that the other did not."""

    ours: int
    theirs: int

    @property
    def chance(self) -> float:
        """How likely the other finds so many more by mere chance: the sign test's, one-sided.

        What both found or both missed says nothing about which is better.
        """
        pairs = self.ours + self.theirs
        as_many = sum(math.comb(pairs, found) for found in range(self.theirs, pairs + 1))
        return as_many / math.pow(2, pairs)

    @property
    def is_behind(self) -> bool:
        """Whether the other finds more, beyond sampling error."""
        return self.theirs > self.ours and self.chance < (1 - CONFIDENCE) / 2


def compare(ours: Sequence[bool], theirs: Sequence[bool]) -> Comparison:
    """Of the same anomalies, in the same order, who found which."""
    pairs = list(zip(ours, theirs, strict=True))
    return Comparison(
        sum(our and not their for our, their in pairs),
        sum(their and not our for our, their in pairs),
    )
