"""A backtest on a terminal: what would have been alerted, how often, and the money in it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

from rich.table import Table
from rich.text import Text

from service.money import ZERO
from service.printable import safe
from service.records import Severity, moment, rank
from workers.backtest import Judged
from workers.detection.finding import Finding
from workers.wording import amount, priced

_SHOWN: Final = 30
_PER_1000: Final = 1000


class Tally:
    """Sums over the sessions as they pass; keeps those with the largest excess."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.sessions = 0
        self.cost = ZERO
        self.worst: list[Judged] = []
        self.alerts = 0
        self.listed = 0
        self.days: set[int] = set()
        self.by_code: defaultdict[str, list[Decimal]] = defaultdict(list)

    def add(self, judged: Judged) -> None:
        """One more session."""
        grounds = judged.grounds
        self.sessions += 1
        self.cost += judged.total
        self.days.add(judged.end_ms // 86_400_000)
        if grounds.severity is None:
            self.listed += bool(grounds.reasons)
            return
        self.alerts += 1
        leading = next(reason for reason in grounds.reasons if reason.severity)
        self.by_code[leading.code].append(grounds.excess)
        self.worst.append(judged)
        if len(self.worst) > 2 * _SHOWN:
            self.worst = self.largest

    @property
    def largest(self) -> list[Judged]:
        """The sessions to show, the worst first."""
        ranked = sorted(
            self.worst, key=lambda j: (-rank(j.grounds.severity), -j.grounds.excess, j.end_ms)
        )
        return ranked[:_SHOWN]


def backtest_view(tally: Tally, findings: Iterable[Finding]) -> Iterator[Table | Text]:
    """The tables: the worst sessions, the findings, and the sums."""
    if tally.worst:
        yield _sessions(tally)
    found = list(findings)
    if found:
        yield _findings(found)
    if tally.by_code:
        yield _reasons(tally)
    yield Text(_sum(tally, len(found)))


def _sessions(tally: Tally) -> Table:
    more = tally.alerts - len(tally.largest)
    title = "Sessions that would have been alerted, the worst first"
    table = Table(title=f"{title} ({more} more not shown)" if more else title)
    for name in ("ended (UTC)", "severity", "excess", "session", "why"):
        table.add_column(name, justify="right" if name == "excess" else "left", overflow="fold")
    for judged in tally.largest:
        grounds = judged.grounds
        leading = next(reason for reason in grounds.reasons if reason.severity)
        table.add_row(
            f"{moment(judged.end_ms):%Y-%m-%d %H:%M}",
            Text(grounds.severity or "", _COLOURS[grounds.severity] if grounds.severity else ""),
            amount(grounds.excess),
            safe(judged.session_id),
            safe(leading.text),
        )
    return table


def _findings(findings: list[Finding]) -> Table:
    table = Table(title="What no single session shows")
    for name in ("told (UTC)", "kind", "what"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        at = f"{moment(finding.at_ms):%Y-%m-%d %H:%M}"
        table.add_row(at, finding.kind, safe(finding.text))
    return table


def _reasons(tally: Tally) -> Table:
    table = Table(title="By leading reason")
    for name in ("reason", "alerts", "excess"):
        table.add_column(name, justify="left" if name == "reason" else "right")
    ranked = sorted(tally.by_code.items(), key=lambda item: (-len(item[1]), item[0]))
    for code, excesses in ranked:
        table.add_row(code, f"{len(excesses):,}", amount(sum(excesses, ZERO)))
    return table


def _sum(tally: Tally, findings: int) -> str:
    if not tally.sessions:
        return "The file holds no sessions."
    excess = sum((sum(each, ZERO) for each in tally.by_code.values()), ZERO)
    per_1000 = _PER_1000 * tally.alerts / tally.sessions
    sessions, days = _count(tally.sessions, "session"), _count(len(tally.days), "day")
    return (
        f"{sessions} of {days} for {priced(tally.cost, tally.currency)}: "
        f"{_count(tally.alerts, 'alert')} ({per_1000:.2f} per 1,000) with "
        f"{priced(excess, tally.currency)} in excess, {tally.listed:,} more listed, "
        f"{_count(findings, 'finding')}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


_COLOURS: Final = {
    Severity.LOW: "yellow",
    Severity.MEDIUM: "dark_orange",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bold red",
}
