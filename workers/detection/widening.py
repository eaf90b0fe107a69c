"""How often a call that was expected has to count, so that its like are not strange any more.

Pure. What is usual goes as far as the widest of the upper quantiles that enough calls speak for
(see `workers.detection.baseline`): a call that counts for one of them is within it. As it is a
lesson like all others, and only counted more often, it weighs less from day to day.
"""

import math
from collections.abc import Sequence
from typing import Final

from workers.detection.baseline import LEAST_BEYOND, UPPER_SHARES
from workers.detection.leaning import LEAST_CALLS

_LEAST: Final = 2
_SHARE: Final = 0.01
_OF_FINEST: Final = 3
"""In no cohort it may become what most calls are: at most each third is this one."""


def times_to_widen(ladder: Sequence[int]) -> int:
    """`ladder`: the calls of its cohorts, the finest first."""
    finest = ladder[0]
    calls = next((each for each in ladder if each >= LEAST_CALLS), max(ladder))
    wanted = max(math.ceil(_SHARE * calls), _to_reach(calls))
    return max(_LEAST, min(wanted, finest // _OF_FINEST))


def _to_reach(calls: int) -> int:
    """How often it has to count, to be at the widest of the quantiles that are believed."""
    times = _LEAST
    while True:
        whole = calls + times
        beyond = [whole * (1 - share) for share in UPPER_SHARES]
        believed = [each for each in beyond if each >= LEAST_BEYOND]
        if believed and times >= min(believed):
            return times
        times += 1
