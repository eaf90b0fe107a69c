"""The accounting as people read it: tables, and what is not as it must be."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from tests.chaos.accounting import SUMMARY, Observation, Struck, told_again
from tests.chaos.run import Drain, Result

_SHOWN_SESSIONS = 3
_SHOWN_LINES = 60


def show(result: Result, console: Console) -> None:
    """Print all of it."""
    seen = result.seen
    console.print(_faults(seen))
    console.print(_sessions(seen))
    console.print(_rows("Webhooks", result.webhooks.items()))
    console.print(_rows("Alerts", _alerts(seen).items()))
    console.print(_rows("Processes", _processes(result).items()))
    console.print(_rows("The end", _ending(result.drain).items()))
    _verdict(result, console)


def _faults(seen: Observation) -> Table:
    table = Table(title="Faults", title_justify="left")
    table.add_column("kind")
    for name in ("tried", "in flight", "met"):
        table.add_column(name, justify="right")
    table.add_column("what met it")
    table.add_column("work went on after, s: mean", justify="right")
    table.add_column("most", justify="right")
    by_kind: dict[str, list[Struck]] = {kind: [] for kind in seen.kinds}
    for strike in seen.strikes:
        by_kind[strike.kind].append(strike)
    for kind, strikes in by_kind.items():
        after = [s.recovery_seconds for s in strikes if s.recovery_seconds is not None]
        table.add_row(
            kind,
            str(len(strikes)),
            str(sum(s.in_flight for s in strikes)),
            str(sum(s.met for s in strikes)),
            next((s.met_what for s in strikes), ""),
            f"{sum(after) / len(after):.1f}" if after else "never",
            f"{max(after):.1f}" if after else "never",
        )
    return table


def _sessions(seen: Observation) -> Table:
    counts = Counter(
        (e.state, seen.outcomes[e.session_id].state if e.session_id in seen.outcomes else "unknown")
        for e in seen.expected
    )
    table = Table(title="Sessions", title_justify="left")
    for name in ("must be", "is", "sessions"):
        table.add_column(name, justify="right" if name == "sessions" else "left")
    for (wanted, found), count in sorted(counts.items()):
        table.add_row(wanted, found, str(count))
    table.add_row("accepted", "", str(len(seen.accepted)))
    incomplete = sum(not outcome.complete for outcome in seen.outcomes.values())
    table.add_row("", "verdict that says a part is missing", str(incomplete))
    return table


def _alerts(seen: Observation) -> dict[str, object]:
    fates = Counter(alert.fate for alert in seen.alerts)
    again = told_again(seen)
    causes = Counter(excuse.cause for excuse in seen.excuses)
    return {
        "decided": len(seen.alerts),
        **{f"of these {fate}": count for fate, count in sorted(fates.items())},
        "messages": len(seen.messages),
        "of these summaries": sum(m.severity == SUMMARY for m in seen.messages),
        "of these notices": sum(m.session_id is None for m in seen.messages),
        "told again": sum(again.values()),
        "leased as their worker was killed": causes["killed"],
        "leased as their worker was paused for longer than the lease": causes["paused"],
        "taken as Slack went away": causes["cut"],
    }


def _processes(result: Result) -> dict[str, object]:
    seen = result.seen
    ends = [ending.seconds for ending in seen.endings]
    taken = [t.seconds for t in seen.takeovers if t.seconds is not None]
    hindered = [t.seconds - t.hindered_seconds for t in seen.takeovers if t.seconds is not None]
    held = [h.seconds - h.hindered_seconds for h in seen.longest_held]
    rows: dict[str, object] = {
        "SIGTERMs": len(ends),
        "longest end, s": f"{max(ends, default=0):.1f}",
        "leases taken up": f"{len(taken)} of {len(seen.takeovers)}",
        "longest until taken up, s": f"{max(taken, default=0):.1f}",
        "the same without Redis' and Telnyx's absence, s": f"{max(hindered, default=0):.1f}",
    }
    rows["longest lease without their absence, s"] = f"{max(held, default=0):.1f}"
    for name, (before, after) in result.memory.items():
        rows[f"memory of {name}, MiB, start and end"] = f"{before:.0f}, {after:.0f}"
    return rows


def _ending(drain: Drain) -> dict[str, object]:
    return {
        "until nothing was open, s": f"{drain.seconds:.1f}",
        "open when hurrying began": drain.natural_left,
        "waits cut short: failures of our own": drain.hurried_failures,
        "waits cut short: sessions held": drain.hurried_holds,
        "waits cut short: alerts": drain.hurried_alerts,
        **{f"of the waits: {reason}": times for reason, times in drain.reasons.most_common(8)},
    }


def _rows(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def _verdict(result: Result, console: Console) -> None:
    took = f"{result.seconds:.0f} s, seed {result.options.seed}"
    if not result.violations:
        console.print(f"✓ Nothing lost, nothing twice ({took}).", style="bold green")
        return
    console.print(f"Not as it must be ({took}):", style="bold red1")
    for violation in result.violations:
        text = f"  ✗ {violation.rule}: {violation.text}"
        console.print(text, style="red1", markup=False, soft_wrap=True)
    for session_id, lines in list(result.lines.items())[:_SHOWN_SESSIONS]:
        console.print(f"\nWhat the processes said of {session_id}:", markup=False)
        for line in lines[-_SHOWN_LINES:]:
            console.print(f"  {line}", markup=False, soft_wrap=True)
