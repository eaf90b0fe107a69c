"""How often a call that was expected has to count, so that its like are not strange any more.

Pure. What is usual goes as far as any value that at least two calls reach (see
`workers.detection.baseline`). A call that is expected is a lesson like all others and only counted
more often, so it weighs less from day to day: what it made usual is narrowed as others come, and
forgotten once it counts for less than two.
"""

import math
from collections.abc import Sequence
from typing import Final

from workers.detection.baseline import HALF_LIFE_DAYS
from workers.detection.leaning import LEAST_CALLS

_LEAST: Final = 2
_FOR_A_WEEK: Final = 4
"""After a week it counts for two calls still."""
_SHARE: Final = 0.01
_OF_FINEST: Final = 3
"""In no cohort it may become what most calls are: at most each third is this one."""


def times_to_widen(ladder: Sequence[int], age_days: int = 0) -> int:
    """`ladder`: the calls of its cohorts, the finest first; `age_days`: how old the call is."""
    finest = ladder[0]
    calls = next((each for each in ladder if each >= LEAST_CALLS), max(ladder))
    wanted = max(_FOR_A_WEEK, _SHARE * calls) * 2 ** (max(0, age_days) / HALF_LIFE_DAYS)
    return max(_LEAST, min(math.ceil(wanted), finest // _OF_FINEST))
