"""`make bench-detection`: how well tollwatch finds anomalies, beside other ways.

Months are made under `build/detection`, and so are the curves; both are kept until their code
changes. Exits with 1 where an aim is missed or an alternative finds more.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench.detection import curves, evaluate, report, rules, tollwatch
from tests.bench.detection.counts import COUNTERS
from tests.bench.detection.data import Recording, load
from tests.bench.detection.evaluate import CountSteps, Sessions, Spans
from tests.bench.detection.libraries import libraries
from tests.bench.detection.scoring import allowed_false
from tests.world.month import files
from tests.world.month.table import (
    KINDS,
    REPORTING_SEEDS,
    SESSION_KINDS,
    SPAN_KINDS,
    TUNING_SEEDS,
)

DIRECTORY: Final = Path("build/detection")
_HERE: Final = Path(__file__).parent
_WIDTH: Final = 170


def main() -> None:
    """Everything; or with `--tuning` what may be looked at while tollwatch is being tuned."""
    parser = argparse.ArgumentParser(prog="make bench-detection", description=__doc__)
    parser.add_argument(
        "--tuning", action="store_true", help="show the tuning months in place of the reporting"
    )
    arguments = parser.parse_args()
    console = Console(width=_WIDTH)
    begun = time.perf_counter()
    tuning = _load(TUNING_SEEDS, console)
    reporting = tuning if arguments.tuning else _load(REPORTING_SEEDS, console)
    passed = _report(tuning, reporting, console)
    console.print(f"{time.perf_counter() - begun:.0f} s", style="dim")
    sys.exit(0 if passed else 1)


def _load(seeds: Sequence[int], console: Console) -> list[Recording]:
    with console.status("making months"):
        _forget_others()
        places = files.write_missing(DIRECTORY, seeds)
    with console.status("reading months"):
        return [load(place) for place in places]


def _forget_others() -> None:
    """Months of other code are of no use any more, and each set takes more than a gigabyte."""
    for path in DIRECTORY.glob("[0-9a-f]" * 12):
        if path.name != files.version():
            shutil.rmtree(path)


def _report(tuning: Sequence[Recording], reporting: Sequence[Recording], console: Console) -> bool:
    shown = {recording.name: recording for recording in [*tuning, *reporting]}.values()
    scores = _scores(list(shown), console)
    others = [
        evaluate.alternative(name, tuning, reporting, of_months)
        for name, of_months in scores.items()
    ]
    normal = sum(truth.is_normal for truth in others[0].truths)
    console.print(
        f"{len(reporting)} months of seeds {sorted({r.seed for r in reporting})}: "
        f"{len(others[0].truths):,} sessions from the second day on, {normal:,} of them normal"
    )
    counters = _counters(list(shown), console)
    allowed = allowed_false(_normal(tuning), evaluate.PER_1000)
    other_spans = [evaluate.spans_of_sessions(other, reporting) for other in others]
    other_spans += [c.spans(reporting, c.thresholds(tuning, allowed)) for c in counters]
    if not tollwatch.is_there():
        _show(others, other_spans, normal, console)
        console.print("This tollwatch has no `backtest`: only the alternatives are shown.")
        return True
    return _with_ours(reporting, others, other_spans, counters, console)


def _with_ours(
    reporting: Sequence[Recording],
    others: Sequence[Sessions],
    other_spans: Sequence[Spans],
    counters: Sequence[CountSteps],
    console: Console,
) -> bool:
    with console.status("tollwatch backtest"):
        runs = {recording.name: _backtest(recording) for recording in reporting}
    mine = evaluate.ours(reporting, runs)
    my_spans = evaluate.spans_of_ours(reporting, runs)
    _show([mine, *others], [my_spans, *other_spans], mine.quality().false.of, console)
    rivals = [c.spans(reporting, c.thresholds(reporting, my_spans.false)) for c in counters]
    results = [
        report.comparison(mine, others, list(SESSION_KINDS)),
        report.span_comparison(my_spans, [*other_spans[: len(others)], *rivals], list(SPAN_KINDS)),
        report.aims(mine, my_spans),
    ]
    for table, _ in results:
        console.print(table)
    return all(passed for _, passed in results)


def _backtest(recording: Recording) -> tollwatch.Backtest:
    ids = [session.id for session in recording.sessions]
    return tollwatch.backtest(recording.path, ids, recording.budget_per_day)


def _show(
    sessions: Sequence[Sessions], spans: Sequence[Spans], normal: int, console: Console
) -> None:
    console.print(report.kinds(sessions, list(SESSION_KINDS)))
    span_kinds = [kind for kind in KINDS if kind not in SESSION_KINDS]
    console.print(report.spans(spans, span_kinds, normal))
    recalls = [(method.name, curves.recalls(method)) for method in sessions]
    console.print(report.rates(recalls, curves.RATES))
    picture = DIRECTORY / "precision-recall.png"
    curves.draw(sessions, list(SESSION_KINDS), picture)
    console.print(f"Precision-recall curves: {picture}")


def _scores(recordings: Sequence[Recording], console: Console) -> dict[str, dict[str, list[float]]]:
    """Of each alternative and month; kept beside the months until its code changes."""
    found: dict[str, dict[str, list[float]]] = {}
    for recording in recordings:
        with console.status(f"alternatives on {recording.name}"):
            for name, scores in _scores_of(recording).items():
                found.setdefault(name, {})[recording.name] = scores
    return found


def _scores_of(recording: Recording) -> dict[str, list[float]]:
    place = recording.path.with_suffix(f".{_version()}.scores.json")
    if place.exists():
        kept: dict[str, list[float]] = json.loads(place.read_text())
        return kept
    detectors = [*rules.simple(), *libraries()]
    found = {detector.name: detector.scores(recording.sessions) for detector in detectors}
    place.write_text(json.dumps(found))
    return found


def _counters(shown: Sequence[Recording], console: Console) -> list[CountSteps]:
    with console.status("counts of calls"):
        return [evaluate.count_steps(name, counter, shown) for name, counter in COUNTERS.items()]


def _normal(recordings: Sequence[Recording]) -> int:
    return sum(truth.is_normal for truth in evaluate.truths(recordings))


def _version() -> str:
    digest = hashlib.sha256()
    for name in ("features.py", "rules.py", "libraries.py"):
        digest.update((_HERE / name).read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    main()
