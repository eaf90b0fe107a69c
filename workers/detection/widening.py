"""How often a call that was expected has to count, so that its like are not strange any more.

Pure. What is usual is as wide as any value tells that enough calls reach (see
`workers.detection.baseline`): counted as one in a hundred, it is as likely as that. As it is a
lesson like all others, and only counted more often, it weighs less from day to day.
"""

import math
from collections.abc import Sequence
from typing import Final

from workers.detection.leaning import LEAST_CALLS

_LEAST: Final = 2
_SHARE: Final = 0.01
_OF_FINEST: Final = 3
"""In no cohort it may become what most calls are: at most each third is this one."""


def times_to_widen(ladder: Sequence[int]) -> int:
    """`ladder`: the calls of its cohorts, the finest first."""
    calls = next((each for each in ladder if each >= LEAST_CALLS), max(ladder))
    return max(_LEAST, min(math.ceil(_SHARE * calls), ladder[0] // _OF_FINEST))
