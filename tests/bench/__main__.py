"""`make bench`: figures as ratios within one run, on whatever machine this is."""

import argparse
from collections.abc import Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench import backlog, backtest, flood, judging, learning, memory, sessions, webhooks


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        default=["webhooks", "sessions", "judging", "backtest"],
        help="webhooks, sessions, judging, backtest, learning, flood, memory, backlog (some "
        "minutes); the first four without a name",
    )
    parser.add_argument("--rounds", type=int, default=webhooks.ROUNDS)
    arguments = parser.parse_args()
    console = Console()
    if "webhooks" in arguments.names:
        console.print(_webhooks(webhooks.run(arguments.rounds)))
    if "sessions" in arguments.names:
        console.print(_sessions(sessions.run()))
    if "judging" in arguments.names:
        console.print(_judging(judging.run()))
    if "backtest" in arguments.names:
        console.print(_backtest(backtest.run()))
    if "learning" in arguments.names:
        console.print(_learning(learning.run()))
    if "backlog" in arguments.names:
        console.print(_backlog(backlog.run()))
    if "memory" in arguments.names:
        console.print(_memory(memory.run()))
    if "flood" in arguments.names:
        console.print(_flood(flood.run()))


def _webhooks(rounds: Sequence[Sequence[webhooks.Result]]) -> Table:
    table = Table(
        title=f"Webhooks on one core: {webhooks.REQUESTS:,} signed hangups, "
        f"{webhooks.CONNECTIONS} connections, median of {len(rounds)} rounds"
    )
    for name in ("endpoint", "per second", "p50 ms", "p99 ms", "to bare", "to enqueue_job"):
        table.add_column(name, justify="left" if name == "endpoint" else "right")
    for place, kind in enumerate(webhooks.KINDS):
        mine = [results[place] for results in rounds]
        ratios = [
            median(r[place].per_second / r[webhooks.KINDS.index(other)].per_second for r in rounds)
            for other in ("bare", "enqueue_job")
        ]
        table.add_row(
            kind,
            f"{median(r.per_second for r in mine):,.0f}",
            f"{median(r.p50_ms for r in mine):.1f}",
            f"{median(r.p99_ms for r in mine):.1f}",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def _sessions(result: sessions.Result) -> Table:
    table = Table(title=f"Sessions by one worker, Telnyx answers after {sessions.LATENCY_MS} ms")
    for name in ("sessions", "settled per second", "fetches per second", "seconds"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{sessions.SESSIONS:,}",
        f"{result.per_second:,.0f}",
        f"{result.fetches / result.seconds:,.0f}",
        f"{result.seconds:.1f}",
    )
    return table


def _judging(result: judging.Result) -> Table:
    table = Table(
        title=f"One session of {judging.EVENTS} events on one core: decoded, made a tree, judged"
    )
    for name in ("µs", "µs of bare decoding", "to bare", "per second"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{result.judged:.0f}",
        f"{result.bare:.0f}",
        f"{result.judged / result.bare:.2f}",
        f"{1e6 / result.judged:,.0f}",
    )
    return table


def _learning(results: Sequence[learning.Result]) -> Table:
    table = Table(title="What AI calls usually cost, learned from so many of them")
    rows: dict[str, list[str]] = {
        "bytes of the cohort of them all": [f"{r.cohort_bytes:,}" for r in results],
        "its fields": [f"{r.fields:,}" for r in results],
        "bytes of an assistant's cohort": [f"{r.finest_bytes:,.0f}" for r in results],
        "bytes of what a session has taught": [f"{r.lesson_bytes:,.0f}" for r in results],
        "µs to judge, baselines at hand (no round trip)": [f"{r.at_hand:,.0f}" for r in results],
        "µs to judge, baselines read (one round trip)": [f"{r.read:,.0f}" for r in results],
        "µs to learn (one round trip)": [f"{r.learned:,.0f}" for r in results],
    }
    table.add_column("calls")
    for result in results:
        table.add_column(f"{result.calls:,}", justify="right")
    for name, figures in rows.items():
        table.add_row(name, *figures)
    return table


def _backtest(result: backtest.Result) -> Table:
    table = Table(
        title=f"A backtest of {result.sessions:,} sessions of {judging.EVENTS} events on one core"
    )
    for name in ("sessions a second", "bare decoding", "times bare decoding's time"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{result.judged:,.0f}", f"{result.bare:,.0f}", f"{result.bare / result.judged:.2f}"
    )
    return table


def _backlog(result: backlog.Result) -> Table:
    table = Table(
        title=f"{result.sessions:,} sessions due for three days, drained by one worker while "
        f"{result.fresh} calls ended",
        show_header=False,
    )
    rows = {
        "verdicts per second": f"{result.per_second:,.0f}",
        "seconds": f"{result.seconds:,.1f}",
        "places a verdict came too late, at most": f"{result.displaced:,}",
        "slowest new call: seconds from due to verdict": f"{result.slowest_fresh_seconds:.1f}",
        "verdicts of the backlog meanwhile": f"{result.overtaken_by:,}",
        "worker's memory at start, MiB": f"{result.start_mib:.0f}",
        "at its peak": f"{result.peak_mib:.0f}",
        "at the end": f"{result.end_mib:.0f}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _memory(figures: Sequence[memory.Figure]) -> Table:
    table = Table(
        title=f"Memory of Redis: {memory.SESSIONS:,} AI calls with three events each, in bytes"
    )
    for name in ("a session", "in all", "its hash alone", "of 1 KiB"):
        table.add_column(name, justify="left" if name == "a session" else "right")
    for figure in figures:
        ratio = f"{figure.used / 1024:.2f}"
        table.add_row(figure.stage, f"{figure.used:,.0f}", f"{figure.own:,.0f}", ratio)
    return table


def _flood(results: Sequence[flood.Result]) -> Table:
    table = Table(
        title=f"Signed webhooks during {flood.SECONDS:g} s of a flood, the web process on one core"
    )
    columns = (
        ("strangers' flood", "left"),
        ("requests/s", "right"),
        ("connections/s", "right"),
        ("their answers", "left"),
        ("µs each", "right"),
        ("core busy", "right"),
        ("signed", "right"),
        ("p50 ms", "right"),
        ("p99 ms", "right"),
        ("max ms", "right"),
        ("answers to signed", "left"),
    )
    for name, side in columns:
        table.add_column(name, justify="left" if side == "left" else "right")
    for result in results:
        signed = result.signed
        table.add_row(
            result.kind,
            f"{result.sent_per_second:,.0f}",
            f"{result.opened_per_second:,.0f}",
            _counts(result.answered),
            f"{result.microseconds:.1f}" if result.microseconds else "",
            f"{result.busy:.0%}",
            f"{len(signed.seconds):,}",
            *(f"{signed.at(share):.1f}" for share in (0.5, 0.99, 1)),
            _counts(signed.statuses),
        )
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
