"""One thing about a session that is not as usual."""

import math
from dataclasses import dataclass

from workers.detection.baseline import Baseline


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as usual. Money and counts as floats: they are estimates."""

    code: str
    likelihood: float
    """Of a usual call that goes as far, for this look alone."""
    observed: float
    expected: float
    high: float
    """99 % of the usual calls are below."""
    excess: float
    """Money over the usual; under it where something is missing."""
    cohort: Baseline
    name: str
    """The measure or trait."""
    product: str | None = None

    @property
    def factor(self) -> float:
        """In times the expected."""
        return self.observed / self.expected if self.expected > 0 else math.inf

    @property
    def is_missing(self) -> bool:
        """Whether something is not there that always is."""
        return self.code.startswith("missing_")
