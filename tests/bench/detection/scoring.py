"""Findings against labels: precision, recall, thresholds, curves. Pure; plain numbers only.

An alert is a score above a threshold, never one that equals it: so a threshold taken from a normal
session's score does not alert on that session.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

VISIBLE: Final = ("easy", "medium", "hard")
"""The sizes that a detector is expected to find."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What a session is. Without a `kind` normal; if `neutral`, no alert is right or false."""

    kind: str | None = None
    size: str | None = None
    neutral: bool = False
    odd: str | None = None

    @property
    def is_normal(self) -> bool:
        """Whether an alert about it is false."""
        return self.kind is None and not self.neutral


@dataclass(frozen=True, slots=True)
class Count:
    """How many of so many."""

    found: int
    of: int

    @property
    def share(self) -> float:
        """0 where there was nothing to find."""
        return self.found / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class Quality:
    """What a detector came to at one threshold, for one kind of anomaly or for all."""

    recall: Count
    false: Count
    """False alerts of normal sessions."""

    @property
    def precision(self) -> float:
        """The share of the alerts that were right; 1 where there were none."""
        alerts = self.recall.found + self.false.found
        return self.recall.found / alerts if alerts else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall.share
        return 2 * self.precision * self.recall.share / both if both else 0.0

    @property
    def false_per_1000(self) -> float:
        """False alerts per 1,000 normal calls."""
        return 1000 * self.false.share


def allowed_false(normal: int, per_1000: float) -> int:
    """How many false alerts so many normal sessions may cause."""
    return int(normal * per_1000 / 1000)


def threshold_for(normal_scores: Iterable[float], allowed: int) -> float:
    """The lowest threshold with at most so many false alerts; below all where nothing is false."""
    ranked = sorted(normal_scores, reverse=True)
    if allowed >= len(ranked):
        return float("-inf")
    return ranked[allowed]


def alerts(scores: Iterable[float], threshold: float) -> list[bool]:
    """Which of the scores alert."""
    return [score > threshold for score in scores]


def normal_scores(truths: Sequence[Truth], scores: Sequence[float]) -> list[float]:
    """The scores of the sessions about which an alert would be false."""
    return [score for truth, score in zip(truths, scores, strict=True) if truth.is_normal]


def quality(
    truths: Sequence[Truth],
    alerted: Sequence[bool],
    *,
    kind: str | None = None,
    sizes: Sequence[str] = VISIBLE,
) -> Quality:
    """Of one kind, or of all kinds together; of the given sizes."""
    pairs = list(zip(truths, alerted, strict=True))
    wanted = [a for t, a in pairs if _is_wanted(t, kind, sizes)]
    normal = [a for t, a in pairs if t.is_normal]
    return Quality(Count(sum(wanted), len(wanted)), Count(sum(normal), len(normal)))


def found(
    truths: Sequence[Truth], alerted: Sequence[bool], *, kind: str, sizes: Sequence[str] = VISIBLE
) -> list[bool]:
    """Which of a kind's anomalies were found, in their order: for comparisons in pairs."""
    pairs = zip(truths, alerted, strict=True)
    return [alert for truth, alert in pairs if _is_wanted(truth, kind, sizes)]


def curve(
    truths: Sequence[Truth],
    scores: Sequence[float],
    *,
    kind: str | None = None,
    sizes: Sequence[str] = VISIBLE,
) -> list[tuple[float, float]]:
    """Recall and precision at every threshold that makes a difference, from the highest down."""
    wanted = sorted(
        (s for t, s in zip(truths, scores, strict=True) if _is_wanted(t, kind, sizes)), reverse=True
    )
    normal = sorted(normal_scores(truths, scores))
    points = []
    for place, score in enumerate(wanted, 1):
        if place < len(wanted) and wanted[place] == score:
            continue
        # Normal sessions with the very same score alert along with it.
        false = len(normal) - bisect_left(normal, score)
        points.append((place / len(wanted), place / (place + false)))
    return points


def recall_at(
    truths: Sequence[Truth], scores: Sequence[float], per_1000: float, *, kind: str | None = None
) -> Count:
    """Recall at the best threshold with at most so many false alerts on this very data."""
    normal = normal_scores(truths, scores)
    threshold = threshold_for(normal, allowed_false(len(normal), per_1000))
    return quality(truths, alerts(scores, threshold), kind=kind).recall


def _is_wanted(truth: Truth, kind: str | None, sizes: Sequence[str]) -> bool:
    if truth.kind is None or truth.size not in sizes:
        return False
    return kind is None or truth.kind == kind
