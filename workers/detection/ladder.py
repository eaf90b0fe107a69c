"""A call's cohorts together, the finest first, and what they say of measures and traits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from workers.detection.baseline import Baseline, group_of
from workers.detection.leaning import LEAST_CALLS, Usual, told_middle, usual_of
from workers.detection.measure import RATE, priced_product

UNSEEN: Final = 0.004
"""So many more traits are held possible in all of a cohort's calls than it has shown so far."""
_BY_CHANCE: Final = 2
_USUAL_SHARE: Final = 0.9


class Ladder:
    """The baselines of one finest cohort. Answers are remembered: calls of a cohort come often."""

    def __init__(self, baselines: Sequence[Baseline]) -> None:
        """`baselines`: of `Cohort.ladder`, in its order."""
        self.baselines = tuple(baselines)
        self.calls = self.baselines[-1].calls
        self.speaker = next((b for b in self.baselines if b.calls >= LEAST_CALLS), None)
        """The finest cohort with enough calls to say that something is missing."""
        self.always = tuple(_always(self.speaker)) if self.speaker else ()
        """Products that hardly any call lacks, how likely one does, and by whose calls."""
        self._calm: dict[str, float] = {}
        """By measure, up to where nothing is strange, as far as that was asked for."""
        self._usual: dict[str, Usual | None] = {}
        self.familiar: set[str] = set()
        """Traits that were seen, as far as that was asked for: `unseen` says None of them."""
        self._unseen: dict[str, tuple[float, Baseline] | None] = {}

    def usual(self, measure: str) -> Usual | None:
        """What is usual of a measure; None where nobody knows."""
        try:
            return self._usual[measure]
        except KeyError:
            found = self._usual[measure] = usual_of(measure, self.baselines)
            if found:
                self._calm[measure] = max(found.calm, self._calm_up_to(measure))
            return found

    def stirring(self, values: Mapping[str, float]) -> list[tuple[str, float, Usual]]:
        """The measures in which something may be strange, with what is usual of them."""
        calm = self._calm
        # Most are not, and that is cheap to see: all but a few end in this line.
        above = [(name, value) for name, value in values.items() if value > calm.get(name, 0.0)]
        return [
            (name, value, usual)
            for name, value in above
            if value > self._calm_up_to(name) and (usual := self.usual(name)) and value > usual.calm
        ]

    def _calm_up_to(self, measure: str) -> float:
        if measure not in self._calm:
            self._calm[measure] = told_middle(measure, self.baselines)
        return self._calm[measure]

    def unseen(self, trait: str) -> tuple[float, Baseline] | None:
        """How likely a trait is that was never seen, and by whose calls; None where it was."""
        try:
            return self._unseen[trait]
        except KeyError:
            found = self._unseen[trait] = _unseen(trait, self._rungs(trait))
            if found is None:
                self.familiar.add(trait)
            return found

    def _rungs(self, trait: str) -> Sequence[Baseline]:
        if trait.startswith("country:"):
            # The cohorts that are named after a country have none but this.
            return (*self.baselines[1:2], *self.baselines[3:])
        return self.baselines


def _unseen(trait: str, baselines: Sequence[Baseline]) -> tuple[float, Baseline] | None:
    """By the finest cohort with enough calls, unless a coarser one knows the trait well."""
    group = group_of(trait)
    # A price is new among the calls that have its product.
    among = f"product:{priced_product(trait)}" if trait.startswith(RATE) else None
    speaking: tuple[float, Baseline] | None = None
    for baseline in baselines:
        calls = baseline.traits.get(among, 0) if among else baseline.calls
        if trait in baseline.traits:
            if speaking is None or baseline.traits[trait] > _BY_CHANCE:
                return None
        elif calls >= LEAST_CALLS and speaking is None:
            speaking = (baseline.once.get(group, 0) + UNSEEN) / calls, baseline
    return speaking


def _always(baseline: Baseline) -> Iterator[tuple[str, float, Baseline]]:
    for trait, number in baseline.traits.items():
        if trait.startswith("product:") and number >= _USUAL_SHARE * baseline.calls:
            likelihood = (baseline.calls - number + UNSEEN) / baseline.calls
            yield trait.partition(":")[2], likelihood, baseline
