"""One message for many alerts, and the notices to operators, as Slack's Block Kit.

Pure. A tally takes alerts one by one, so that thousands need not be in memory at once; what it says
at the end is exact. A call that alerted more than once, since it grew dearer, counts once, with the
last of its figures: the earlier ones are parts of it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any, Final

from slack_sdk.models.blocks import Block, DividerBlock

from service.money import ZERO
from service.records import Alert, Cause, Notice, Severity, Summary, cause_of
from workers.blocks import (
    LONGEST_SENTENCE,
    LONGEST_WORD,
    REPEATED,
    SIGNS,
    clean,
    code,
    context,
    currency_of,
    escape,
    header,
    one_line,
    plain_section,
    section,
)
from workers.detection.velocity import KINDS
from workers.wording import amount, priced

_SHOWN_CAUSES: Final = 10
_SHOWN_CALLS: Final = 5
_SHOWN_CURRENCIES: Final = 3
_SHOWN_DETAILS: Final = 10
_LONGEST_SUBJECT: Final = 48
# Amounts have at most sixteen digits before the point and twenty-four behind it: with these no sum
# of them is ever rounded.
_EXACT: Final = Context(prec=60)

_WHY: Final[Mapping[str, str]] = {
    "cap": "more alerts came than may be posted one by one",
    "cooldown": "their causes had been told before, and were counted since",
    "outage": "Slack took no messages for a while",
}
_REASONS: Final[Mapping[str, str]] = {
    "session_cost": "dear session",
    "cost_per_minute": "dear minute",
    "product_cost": "dear product",
    "product_events": "too many events",
    "foreign_currency": "foreign currency",
    "double_charge": "charged twice",
    "late_charge": "charged late",
    "reported_difference": "webhook and analysis differ",
    "total_mismatch": "total does not add up",
    "sum_mismatch": "sums do not add up",
    "count_mismatch": "counts do not add up",
    "mixed_currencies": "mixed currencies",
    "unusual_cost": "unusually dear session",
    "unusual_cost_per_minute": "unusually dear minute",
    "unusual_product_cost": "unusually dear product",
    "unusual_events": "unusually many events",
    "unusual_cost_per_event": "unusually dear event",
    "unusual_billing": "billed too long",
    "unknown_rate": "unknown rate",
    "new_product": "new product",
    "new_model": "new model",
    "new_country": "new country",
    "missing_product": "missing product",
    "missing_cost": "missing cost",
}


@dataclass(frozen=True, slots=True)
class Dear:
    """One call in a tally."""

    session_id: str
    severity: Severity
    decided_ms: int
    excess: Decimal
    currency: str
    cause: Cause


@dataclass(slots=True)
class Tally:
    """What many alerts come to."""

    alerts: int = 0
    unreadable: int = 0
    repeated: int = 0
    """Alerts that Slack may have been told of before."""
    calls: dict[str, Dear] = field(default_factory=dict)

    def add(self, alert: Alert, *, repeated: bool = False) -> None:
        """Count one alert."""
        self.alerts += 1
        self.repeated += repeated
        verdict = alert.verdict
        call = Dear(
            session_id=alert.call.session_id,
            severity=alert.severity,
            decided_ms=alert.decided_ms,
            excess=verdict.excess,
            currency=currency_of(verdict.currency),
            cause=cause_of(alert),
        )
        before = self.calls.get(call.session_id)
        if before is None or _grown(before) <= _grown(call):
            self.calls[call.session_id] = call

    @property
    def totals(self) -> dict[str, Decimal]:
        """The excess of all calls by currency, the largest first; exact."""
        sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
        for call in self.calls.values():
            sums[call.currency] = _EXACT.add(sums[call.currency], call.excess)
        return dict(sorted(sums.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def causes(self) -> list[tuple[Cause, str, int, Decimal]]:
        """Each cause and currency with its calls and their excess, the largest excess first."""
        counts: Counter[tuple[Cause, str]] = Counter()
        sums: defaultdict[tuple[Cause, str], Decimal] = defaultdict(lambda: ZERO)
        for call in self.calls.values():
            group = (call.cause, call.currency)
            counts[group] += 1
            sums[group] = _EXACT.add(sums[group], call.excess)
        found = [(*group, counts[group], sums[group]) for group in counts]
        return sorted(found, key=lambda row: (-row[3], -row[2], row[0].key))

    @property
    def dearest(self) -> list[Dear]:
        """The calls with most in excess."""
        order = sorted(self.calls.values(), key=lambda call: (-call.excess, call.session_id))
        return order[:_SHOWN_CALLS]

    @property
    def severities(self) -> list[tuple[Severity, int]]:
        """How many calls there are of each severity, the worst first."""
        counts = Counter(call.severity for call in self.calls.values())
        return [(severity, counts[severity]) for severity in reversed(Severity) if counts[severity]]


def _grown(call: Dear) -> tuple[int, int]:
    return call.severity.rank, call.decided_ms


def build_summary(summary: Summary, tally: Tally, *, repeated: bool = False) -> dict[str, Any]:
    """`text` and `blocks` for a summary's message."""
    blocks = [block.to_dict() for block in _blocks(summary, tally, repeated=repeated)]
    return {"text": summary_line(summary, tally, repeated=repeated), "blocks": blocks}


def summary_line(summary: Summary, tally: Tally, *, repeated: bool = False) -> str:
    """One line that makes sense alone."""
    line = f"{_headline(tally)}. In one message, because {_why(summary)}"
    return one_line(line, repeated=repeated)


def build_notice(notice: Notice, *, repeated: bool = False) -> dict[str, Any]:
    """`text` and `blocks` for a notice to the operators."""
    blocks = [block.to_dict() for block in _notice_blocks(notice, repeated=repeated)]
    return {"text": notice_line(notice, repeated=repeated), "blocks": blocks}


def notice_line(notice: Notice, *, repeated: bool = False) -> str:
    """One line that makes sense alone."""
    return one_line(f"tollwatch: {_words(notice)}", repeated=repeated)


def _headline(tally: Tally) -> str:
    totals = list(tally.totals.items())
    money = ", ".join(priced(sum, currency) for currency, sum in totals[:_SHOWN_CURRENCIES])
    more = " and more" if len(totals) > _SHOWN_CURRENCIES else ""
    count = len(tally.calls)
    calls = f"{count:,} call{'s' if count != 1 else ''}"
    worst = tally.severities[0][0].capitalize() if tally.severities else "Alerts"
    return f"{worst}: {calls}, {money or 'an unknown amount'}{more} too much in all"


def _blocks(summary: Summary, tally: Tally, *, repeated: bool) -> Iterator[Block]:
    sign = SIGNS[tally.severities[0][0]] if tally.severities else ":grey_question:"
    yield header(f"{sign} {_headline(tally)}")
    yield plain_section(f"In one message, because {_why(summary)}.\n{_counts(tally)}")
    if tally.calls:
        yield section(f"*Causes, by excess:*\n```{escape(_cause_rows(tally))}```")
        yield section(f"*The dearest calls:*\n{_dearest(tally)}")
    yield DividerBlock()
    number = escape(code(summary.number))
    yield section(
        f"*What to do:*\n• All of them: `tollwatch alerts --summary {number}`\n"
        "• One of them: `tollwatch show SESSION`"
    )
    remarks = [*_remarks(tally), *([REPEATED.capitalize()] if repeated else [])]
    if remarks:
        yield context(remarks)


def _why(summary: Summary) -> str:
    known = [_WHY[why] for why in summary.why if why in _WHY]
    return ", and ".join(known) or "they came at once"


def _counts(tally: Tally) -> str:
    parts = [f"{count:,} {severity}" for severity, count in tally.severities]
    alerts = f" ({tally.alerts:,} alerts)" if tally.alerts != len(tally.calls) else ""
    return f"By severity: {', '.join(parts) or 'unknown'}{alerts}"


def _cause_rows(tally: Tally) -> str:
    causes = tally.causes
    rows = [_cause_row(*row) for row in causes[:_SHOWN_CAUSES]]
    rest = causes[_SHOWN_CAUSES:]
    if rest:
        calls = sum(count for _, _, count, _ in rest)
        rows.append(f"and {len(rest):,} more causes with {calls:,} calls")
    return "\n".join(rows)


def _cause_row(cause: Cause, currency: str, count: int, excess: Decimal) -> str:
    name = cause.assistant_id or cause.connection_id
    kind = "assistant" if cause.assistant_id else "connection"
    subject = f"{kind} {code(name, _LONGEST_SUBJECT)}" if name else "unknown caller"
    reason = code(_REASONS.get(cause.code, cause.code or "unknown reason"))
    return f"{amount(excess):>12} {currency}  {count:>6,} ×  {reason}, {subject}"


def _dearest(tally: Tally) -> str:
    return "\n".join(
        f"• {priced(call.excess, call.currency)} too much ({call.severity}): "
        f"`{escape(code(call.session_id, LONGEST_WORD))}`"
        for call in tally.dearest
    )


def _remarks(tally: Tally) -> Iterator[str]:
    if tally.unreadable:
        yield f"{tally.unreadable:,} of the alerts cannot be read by this version: not in the sums"
    if tally.repeated:
        yield f"{tally.repeated:,} of the alerts may have been told before, each alone"


_ABOUT_MANY: Final = "About many calls together: each of them alone may be as usual"
_ABOUT_ITSELF: Final = "About tollwatch itself or its way to Telnyx, not about a call"


def _notice_blocks(notice: Notice, *, repeated: bool) -> Iterator[Block]:
    words = _words(notice)
    yield header(f":rotating_light: tollwatch: {words}")
    yield plain_section("\n".join([words, *_details(notice.details)]))
    small = [_ABOUT_MANY if notice.kind in KINDS else _ABOUT_ITSELF]
    yield context([*small, *([REPEATED.capitalize()] if repeated else [])])


def _words(notice: Notice) -> str:
    return clean(notice.text.strip() or notice.kind.strip() or "a notice", LONGEST_SENTENCE)


def _details(details: Iterable[str]) -> Iterator[str]:
    every = list(details)
    for line in every[:_SHOWN_DETAILS]:
        yield f"• {clean(line, LONGEST_SENTENCE)}"
    if len(every) > _SHOWN_DETAILS:
        yield f"• and {len(every) - _SHOWN_DETAILS} more"
