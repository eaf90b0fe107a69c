"""A call's cohorts together, the finest first, and what they say of each measure."""

from collections.abc import Sequence

from workers.detection.baseline import Baseline
from workers.detection.leaning import Usual, usual_of


class Ladder:
    """The baselines of one finest cohort. Answers are remembered: calls of a cohort come often."""

    __slots__ = ("_usual", "baselines", "calls", "without_country")

    def __init__(self, baselines: Sequence[Baseline]) -> None:
        """`baselines`: of `Cohort.ladder`, in its order."""
        self.baselines = tuple(baselines)
        self.calls = self.baselines[-1].calls
        # The cohorts that are named after a country have none but this.
        self.without_country = (*self.baselines[1:2], *self.baselines[3:])
        self._usual: dict[str, Usual | None] = {}

    def usual(self, name: str) -> Usual | None:
        """What is usual of a measure; None where nobody knows."""
        try:
            return self._usual[name]
        except KeyError:
            found = self._usual[name] = usual_of(name, self.baselines)
            return found
