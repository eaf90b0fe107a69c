"""The tables of `make bench-detection`."""

import math
from collections.abc import Sequence
from statistics import median

from rich.table import Table
from rich.text import Text

from tests.bench.detection import evaluate
from tests.bench.detection.evaluate import Sessions, Spans
from tests.bench.detection.intervals import compare, wilson
from tests.bench.detection.scoring import VISIBLE, Count, Quality


def kinds(methods: Sequence[Sessions], names: Sequence[str]) -> Table:
    """Recall, precision and F1 per kind."""
    table = Table(
        title="Anomalies of sessions: recall / precision / F1 in percent, of the visible ones",
        caption="Precision counts the anomalies of that kind against all false alerts.",
    )
    _columns(table, "kind", [method.name for method in methods])
    for kind in names:
        of = methods[0].quality(kind).recall.of
        table.add_row(f"{kind} ({of})", *(_figures(method.quality(kind)) for method in methods))
    table.add_section()
    of = methods[0].quality().recall.of
    table.add_row(f"all visible ({of})", *(_figures(method.quality()) for method in methods))
    table.add_row("  95 % interval of recall", *(_interval(m.quality().recall) for m in methods))
    for size in (*VISIBLE, "barely"):
        counts = [method.quality(sizes=(size,)).recall for method in methods]
        table.add_row(f"  {size} ({counts[0].of}): recall", *map(_percent, counts))
    table.add_section()
    false = [method.quality().false for method in methods]
    table.add_row("false alerts per 1,000 normal calls", *map(_per_1000, false))
    odd = [_odd(method) for method in methods]
    table.add_row("  of those: odd but fine", *map(str, odd))
    table.add_row("threshold", *(_threshold(method) for method in methods))
    return table


def spans(methods: Sequence[Spans], names: Sequence[str], normal: int) -> Table:
    """Who found which spans, and how soon."""
    table = Table(
        title="Spans: found / of, median minutes until told (90 % quantile), of the visible ones",
        caption="An alert of a session counts when it has settled, five minutes after its end.",
    )
    last = ["false findings per 1,000 normal calls", "in campaigns, on holidays"]
    _columns(table, "detector", [*names, *last])
    for method in methods:
        found = [_span(method, kind) for kind in names]
        false = _per_1000(Count(method.false, normal))
        table.add_row(method.name, *found, false, str(method.false_in_fine))
    return table


def rates(recalls: Sequence[tuple[str, Sequence[Count]]], at: Sequence[float]) -> Table:
    """The precision-recall curves in a few numbers."""
    table = Table(title="Recall in percent at so many false alerts per 1,000 normal calls")
    _columns(table, "detector", [f"{rate:g}" for rate in at])
    for name, counts in recalls:
        table.add_row(name, *(f"{100 * c.share:3.0f} {_bar(c.share)}" for c in counts))
    return table


def comparison(
    mine: Sessions, others: Sequence[Sessions], names: Sequence[str]
) -> tuple[Table, bool]:
    """Whether an alternative finds more of any kind with as many false alerts; and if none does."""
    table = Table(
        title=f"At tollwatch's {mine.quality().false.found} false alerts: who finds more?",
        caption="In pairs: found by the alternative alone, and by tollwatch alone. FAIL: the sign "
        "test gives less than 2.5 %.",
    )
    _columns(table, "kind", ["tollwatch", *(other.name for other in others), "verdict"])
    passed = True
    for kind in names:
        compared = [evaluate.behind(mine, other, kind) for other in others]
        is_behind = any(each.is_behind for each in compared)
        passed = passed and not is_behind
        table.add_row(
            kind,
            _interval(mine.quality(kind).recall),
            *(
                Text(f"+{each.theirs} −{each.ours}", "red" if each.is_behind else "")
                for each in compared
            ),
            _verdict(passed=not is_behind),
        )
    return table, passed


def span_comparison(
    mine: Spans, others: Sequence[Spans], names: Sequence[str]
) -> tuple[Table, bool]:
    """The same for spans; the alternatives come with at most as many false findings."""
    table = Table(title=f"At tollwatch's {mine.false} false findings: who finds more?")
    _columns(table, "kind", ["tollwatch", *(other.name for other in others), "verdict"])
    passed = True
    for kind in names:
        compared = [compare(mine.found(kind), other.found(kind)) for other in others]
        is_behind = any(each.is_behind for each in compared)
        passed = passed and not is_behind
        table.add_row(
            kind,
            _interval(mine.recall(kind)),
            *(f"+{each.theirs} −{each.ours}" for each in compared),
            _verdict(passed=not is_behind),
        )
    return table, passed


def aims(mine: Sessions, spans: Spans) -> tuple[Table, bool]:
    """What the detector is to reach, and whether it does. False findings are false alerts, too."""
    recall, of_sessions = mine.quality().recall, mine.quality().false
    false = Count(of_sessions.found + spans.false, of_sessions.of)
    surges = spans.recall("surge")
    delays = spans.delays("surge")
    rows = (
        ("recall of all visible anomalies ≥ 95 %", _interval(recall), recall.share >= 0.95),
        ("≤ 1 false alert per 1,000 normal calls", _per_1000(false), 1000 * false.share <= 1),
        (
            "surges told of within 5 minutes",
            f"{sum(d <= 300 for d in delays)} of {surges.of}",
            bool(delays) and sum(d <= 300 for d in delays) >= 0.95 * surges.of,
        ),
    )
    table = Table(title="Aims")
    _columns(table, "aim", ["measured", "verdict"])
    for aim, measured, passed in rows:
        table.add_row(aim, measured, _verdict(passed=passed))
    return table, all(passed for *_, passed in rows)


def _columns(table: Table, first: str, others: Sequence[str]) -> None:
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")


def _figures(quality: Quality) -> str:
    figures = (quality.recall.share, quality.precision, quality.f1)
    return " / ".join(f"{100 * figure:.0f}" for figure in figures)


def _interval(count: Count) -> str:
    low, high = wilson(count.found, count.of)
    return f"{100 * count.share:.0f} ({100 * low:.0f}–{100 * high:.0f})"


def _percent(count: Count) -> str:
    return f"{100 * count.share:.0f}"


def _per_1000(count: Count) -> str:
    low, high = wilson(count.found, count.of)
    return f"{1000 * count.share:.2f} ({1000 * low:.2f}–{1000 * high:.2f})"


def _threshold(method: Sessions) -> str:
    return "its own" if method.threshold is None else f"{method.threshold:.3g}"


def _odd(method: Sessions) -> int:
    pairs = zip(method.truths, method.alerted, strict=True)
    return sum(alerted and truth.is_normal and truth.odd is not None for truth, alerted in pairs)


def _span(method: Spans, kind: str) -> str:
    count, delays = method.recall(kind), method.delays(kind)
    if not count.of:
        return "–"
    if not delays:
        return f"{count.found}/{count.of}"
    late = delays[math.ceil(0.9 * len(delays)) - 1]
    return f"{count.found}/{count.of}, {median(delays) / 60:.0f} ({late / 60:.0f})"


def _bar(share: float) -> str:
    return "█" * round(10 * share) + "·" * (10 - round(10 * share))


def _verdict(*, passed: bool) -> Text:
    return Text("PASS", "green") if passed else Text("FAIL", "bold red")
