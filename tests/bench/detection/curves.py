"""Precision-recall curves: drawn into a picture, and as recall at some rates of false alerts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from tests.bench.detection import scoring
from tests.bench.detection.evaluate import Sessions

RATES: Final = (0.1, 0.3, 1.0, 3.0, 10.0)
"""False alerts per 1,000 normal calls."""
_COLUMNS: Final = 4

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - it must know first that there is no display


def draw(methods: Sequence[Sessions], kinds: Sequence[str], path: Path) -> None:
    """One picture: all kinds together, and each by itself."""
    panels: list[str | None] = [None, *kinds]
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(4 * _COLUMNS, 3.2 * rows))
    for axis, kind in zip(axes.flat, panels, strict=False):
        _panel(axis, methods, kind)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def recalls(method: Sessions) -> list[scoring.Count]:
    """Of all visible anomalies, at each of the rates."""
    return [scoring.recall_at(method.truths, method.scores, rate) for rate in RATES]


def _panel(axis: Any, methods: Sequence[Sessions], kind: str | None) -> None:
    for method in methods:
        points = scoring.curve(method.truths, method.scores, kind=kind)
        recall, precision = zip(*points, strict=True) if points else ((), ())
        axis.step(recall, precision, where="post", label=method.name, linewidth=1.2)
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02), title=kind or "all kinds", xlabel="recall")
    axis.set_ylabel("precision")
    axis.grid(alpha=0.3)
