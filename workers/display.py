"""What the command line shows, as rich renderables: a value in, something to print out.

Everything goes through `said`, so that nothing from outside is markup, moves the cursor or turns
the reading direction; and numbers are masked here whatever was stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, assert_never

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from service.dead import Count, DeadLetter
from service.masking import mask
from service.money import ZERO, plain
from service.outbox import Subject
from service.printable import safe
from service.records import (
    Alert,
    Call,
    Delivery,
    Fetch,
    Notice,
    Reason,
    Session,
    Severity,
    State,
    Summary,
    Verdict,
    moment,
)
from service.store import Posting
from workers.archive import Tally
from workers.checks import Check, Result
from workers.dead import Looked
from workers.detection.balance import FARTHEST_DAYS, RunOut
from workers.detection.budget import RUNGS, Standing, about
from workers.detection.mutes import Mute
from workers.feedback import Feedback
from workers.lookup import Known
from workers.metadata import RecordType, RecordTypes, Relation
from workers.policy import Policy, describe
from workers.products import label
from workers.reconcile import Report
from workers.tree import CostTree, Event, ProductCost, text
from workers.wording import amount, duration, factor, party, percent, priced

COLOURS: Final[dict[Severity | None, str]] = {
    Severity.LOW: "blue",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "dark_orange",
    Severity.CRITICAL: "bold red",
    None: "green",
}
_STATES: Final[dict[State, str]] = {
    State.OPEN: "waits for its cost",
    State.VERDICT: "has its verdict",
    State.UNAVAILABLE: "no cost ever came",
    State.DEAD: "given up after failures of our own: a dead letter",
}
_DELIVERIES: Final[dict[Delivery, str]] = {
    Delivery.WAITING: "waits to be posted",
    Delivery.POSTED: "posted",
    Delivery.FOLDED: "counted: its cause was told a while ago",
    Delivery.SUMMARIZED: "told",
    Delivery.REFUSED: "refused by Slack",
    Delivery.KEPT: "kept: no Slack is set",
}
_RESULTS: Final[dict[Result, str]] = {
    Result.OK: "green",
    Result.WARNING: "yellow",
    Result.FAILED: "bold red",
}
_QUIET: Final = "dim"
_BAR_WIDTH: Final = 20
_RUNG_COLOURS: Final = tuple(zip(RUNGS, ("yellow", "dark_orange", "bold red"), strict=True))
# Of so many alike leaves the first are shown and the rest is one line: a loop has hundreds.
_MOST_ALIKE: Final = 10
_SHOWN_ALIKE: Final = 5


def said(value: object, style: str = "") -> Text:
    """Any text, shown as it is; the style ends with it, whatever is appended."""
    return Text().append(safe(str(value)), style)


def title(words: str) -> Text:
    """The line above a part."""
    return Text(f"\n{words}", "bold")


# --- cost trees ----------------------------------------------------------------------------------


def tree_view(tree: CostTree, *, whole: bool = False, reasons: Sequence[Reason] = ()) -> Tree:
    """The cost tree; unless `whole`, many leaves alike are folded into one line.

    Where `reasons` say that something is not as usual, the nodes of that product are marked; the
    topmost one for what is about the whole session, or is missing.
    """
    folds = {} if whole else _folds(tree)
    marks = _marks(tree, reasons)
    top = tree.events[0]
    root = Tree(_node(tree, top).append_text(_mark(marks, None)), guide_style=_QUIET)
    branches: dict[int, Tree] = {0: root}
    for event in tree.events[1:]:
        line = folds[event.position] if event.position in folds else _node(tree, event)
        if line is not None:
            line = line.copy().append_text(_mark(marks, event.product))
        if line is not None and event.parent is not None:
            branches[event.position] = branches[event.parent].add(line)
    return root


def _folds(tree: CostTree) -> dict[int, Text | None]:
    """What stands in the place of a folded leaf: a line for the first of them, then nothing."""
    alike: dict[tuple[int | None, str], list[Event]] = {}
    for event in tree.events:
        if not event.children:
            alike.setdefault((event.parent, event.product), []).append(event)
    folds: dict[int, Text | None] = {}
    for (_, product), leaves in alike.items():
        if len(leaves) > _MOST_ALIKE:
            rest = leaves[_SHOWN_ALIKE:]
            cost = amount(sum((leaf.cost for leaf in rest), ZERO))
            folds |= dict.fromkeys((leaf.position for leaf in rest), None)
            line = f"… {len(rest):,} more {label(product)}, together {cost}"
            folds[rest[0].position] = said(line, _QUIET)
    return folds


def _node(tree: CostTree, event: Event) -> Text:
    subtotal = tree.subtotals[event.position]
    line = said(label(event.product), "bold").append(f"  {amount(subtotal)}")
    if tree.sum:
        line.append(f"  {percent(subtotal / tree.sum)}", "cyan")
    if event.children:
        line.append(f"  own {amount(event.cost)}", _QUIET)
    if event.cumulative is not None and event.cumulative != subtotal:
        line.append(f"  Telnyx states {amount(event.cumulative)}", "red")
    for part in _details(event):
        line.append(" · ", _QUIET).append_text(said(part, _QUIET))
    return line


def _marks(tree: CostTree, reasons: Iterable[Reason]) -> dict[str | None, list[Reason]]:
    """The reasons that rest on what is usual, by the product that they mark; None for the top."""
    there = {event.product for event in tree.events[1:]}
    marks: dict[str | None, list[Reason]] = {}
    for reason in reasons:
        if reason.learned_from:
            about = reason.product if reason.product in there else None
            marks.setdefault(about, []).append(reason)
    return marks


def _mark(marks: Mapping[str | None, Sequence[Reason]], product: str | None) -> Text:
    """A sign, which a pipe shows, too, and how far from the usual it is."""
    mark = Text()
    for reason in marks.get(product, ()):
        style = COLOURS[reason.severity] if reason.severity else "cyan"
        mark.append_text(said(f"  {_deviation(reason)}", style))
    return mark


def _deviation(reason: Reason) -> str:
    match reason.code:
        case "new_product" | "new_model" | "new_country":
            return f"▲ new {reason.code.removeprefix('new_')}"
        case "missing_product":
            return f"▼ no {label(reason.product or '')}"
        case "missing_cost":
            return "▼ no cost"
        case "unknown_rate":
            return f"{'▲' if reason.observed > reason.limit else '▼'} new rate"
        case code:
            times = factor(reason.observed, reason.limit)
            return f"▲ {times} the usual{_MEASURES.get(code, '')}"


_MEASURES: Final[dict[str, str]] = {
    "unusual_cost_per_minute": " a minute",
    "unusual_events": " events",
    "unusual_cost_per_event": " for each",
    "unusual_billing": " billed time",
}
"""What a factor is of, where that is not the cost."""


def _details(event: Event) -> Iterator[str]:
    if event.rate is not None:
        measured = text(event.record.rate_measured_in)
        yield f"rate {plain(event.rate)}" + (f" ({measured})" if measured else "")
    if event.billed_seconds is not None or event.real_seconds is not None:
        yield _seconds(event.billed_seconds, event.real_seconds)
    if event.id:
        yield event.id


def _seconds(billed: int | None, real: int | None) -> str:
    if billed is None:
        return duration(real or 0)
    return f"{duration(billed)} billed" + ("" if real is None else f" for {duration(real)}")


def products_view(products: Sequence[ProductCost], currency: str) -> Table:
    """Where the money went, the dearest product first."""
    table = table_of("product", f">cost {safe(currency)}", ">share", ">events", "rate", "time")
    for product in products:
        table.add_row(
            said(label(product.product)),
            Text(amount(product.cost)),
            Text(percent(product.share)),
            Text(f"{product.events:,}"),
            Text(", ".join(plain(rate) for rate in product.rates[:3])),
            Text(_seconds_of(product)),
        )
    return table


def _seconds_of(product: ProductCost) -> str:
    if product.billed_seconds is None and product.real_seconds is None:
        return ""
    return _seconds(product.billed_seconds, product.real_seconds)


def analysis_view(tree: CostTree, verdict: Verdict, *, whole: bool) -> Iterator[RenderableType]:
    """One analysis: the tree, where the money went, and what the policy says of it."""
    cost = priced(tree.total, tree.currency)
    facts = f"{len(tree.events):,} events · {duration(verdict.duration_seconds)}"
    yield said(f"{tree.session_id}  {cost}  ", "bold").append(facts, _QUIET)
    yield Text()
    yield tree_view(tree, whole=whole, reasons=verdict.reasons)
    yield title("Where the money went")
    yield products_view(tree.products, tree.currency)
    yield verdict_view(verdict)


# --- verdicts ------------------------------------------------------------------------------------


def verdict_view(verdict: Verdict) -> Group:
    """The verdict: how bad, why, and what else was noticed."""
    lines = [title("Verdict"), _judgement(verdict)]
    for reason in verdict.reasons:
        lines.append(_reason(reason))
        if reason.learned_from:
            lines.append(_basis(reason))
    lines += [said(f"  also: {remark}", _QUIET) for remark in verdict.remarks]
    return Group(*lines)


def _judgement(verdict: Verdict) -> Text:
    if verdict.severity is None:
        words = "nothing to alert"
    else:
        words = f"{verdict.severity}, {priced(verdict.excess, verdict.currency)} in excess"
    doubts = []
    if verdict.provisional:
        doubts.append("provisional: more cost may come")
    elif not verdict.settled:
        doubts.append("not settled: Telnyx's answers had not come to rest")
    if not verdict.complete:
        doubts.append("incomplete: events are missing")
    line = said(f"  {words}", COLOURS[verdict.severity])
    return line.append(f"  ({'; '.join(doubts)})" if doubts else "", _QUIET)


def _reason(reason: Reason) -> Text:
    grade = reason.severity or "no alert"
    line = said(f"  {grade:<9}", COLOURS[reason.severity] if reason.severity else _QUIET)
    return line.append_text(said(f"{reason.text}  ")).append(safe(reason.code), _QUIET)


def _basis(reason: Reason) -> Text:
    """What a reason rests on; `tollwatch baseline` knows the cohort by that name."""
    figures = f"observed {amount(reason.observed)}, expected {amount(reason.limit)}"
    calls = f" ({reason.calls:,} calls)" if reason.calls else ""
    return said(f"  {'':<9}{figures}, cohort {reason.learned_from}{calls}", _QUIET)


def tally_line(tally: Tally) -> str:
    """How many sessions an export wrote, and why others are not in it."""
    parts = {
        "unfinished": tally.unfinished,
        "without an analysis": tally.without_analysis,
        "not readable": tally.unreadable,
    }
    left_out = ", ".join(f"{number:,} {why}" for why, number in parts.items() if number)
    written = "1 session" if tally.written == 1 else f"{tally.written:,} sessions"
    return f"{written} written" + (f"; left out: {left_out}" if left_out else "")


# --- sessions ------------------------------------------------------------------------------------


def session_view(known: Known, tree: CostTree | None) -> Iterator[RenderableType]:
    """All that is known of one session."""
    session = known.session
    yield said(f"Session {session.id}: {_STATES[session.state]}", "bold")
    yield _facts(_session_facts(known))
    yield title("Events")
    yield _events_view(session)
    if session.watch.fetches or session.watch.held:
        yield title("Asked Telnyx")
        yield _fetches_view(session)
    if session.verdict:
        yield verdict_view(session.verdict)
    if tree:
        yield title("Cost tree, as last fetched")
        yield tree_view(tree, reasons=session.verdict.reasons if session.verdict else ())
        yield products_view(tree.products, tree.currency)
    yield title("Alerts")
    yield from [_alert_line(alert) for alert in known.alerts] or [Text("  none", _QUIET)]


def _session_facts(known: Known) -> Iterator[tuple[str, str]]:
    session = known.session
    yield "accepted", when(session.accepted_ms)
    yield from _call_facts(session.call)
    if session.state is State.OPEN:
        yield "next look", _next_look(known)
    if known.recheck_ms is not None:
        yield "re-check", when(known.recheck_ms)
    reason = session.reason or session.watch.reason
    if reason:
        yield "why", reason
    if session.dropped_ms:
        yield "dropped", f"by a person, {when(session.dropped_ms)}"
    if known.feedback:
        yield "feedback", feedback_line(known.feedback)
    verdict = session.verdict
    if verdict:
        yield "cost", priced(verdict.total, verdict.currency)
        yield "judged", when(verdict.at_ms)


def feedback_line(said: Feedback) -> str:
    """What somebody said, who and when."""
    what: str = said.kind
    if said.times:
        what += f", counted {said.times:,} times"
    if said.mute:
        what += f": {_muted(said.mute)}"
    note = f": {said.note}" if said.note else ""
    return f"{what}; by {said.by}, {when(said.at_ms)}{note}"


def _muted(mute: Mute) -> str:
    return f"{mute.cohort} is muted from {when(mute.from_ms)} until {when(mute.until_ms)}"


def feedback_view(found: Iterable[tuple[str, Feedback | None]]) -> Table:
    """A list of what was said of sessions; one that cannot be read says so."""
    table = table_of("session", "is", "said", "by", "effect", "note")
    for session_id, said_of in found:
        if said_of is None:
            table.add_row(said(session_id), Text("cannot be read", "red"))
            continue
        times = f"counted {said_of.times:,} times" if said_of.times else "teaches nothing"
        table.add_row(
            said(session_id),
            said(said_of.kind),
            Text(when(said_of.at_ms)),
            said(said_of.by),
            said(_muted(said_of.mute) if said_of.mute else times),
            said(said_of.note),
        )
    return table


def _call_facts(call: Call) -> Iterator[tuple[str, str]]:
    if call.start_ms:
        yield "began", when(call.start_ms)
    if call.end_ms:
        yield "ended", when(call.end_ms)
    if call.start_ms and call.end_ms:
        yield "duration", duration(max(0, call.end_ms - call.start_ms) // 1000)
    named = (
        ("direction", call.direction),
        ("from", _party(call.from_number, call.from_country)),
        ("to", _party(call.to_number, call.to_country)),
        ("assistant", call.assistant_id),
        ("connection", call.connection_id),
    )
    yield from ((name, value) for name, value in named if value)
    if call.legs > 1:
        yield "legs", str(call.legs)


def _party(number: str | None, country: str | None) -> str | None:
    """Masked once more: a setting may have let whole numbers into Redis."""
    return party(mask(number) if number else None, country)


def _next_look(known: Known) -> str:
    if known.waiting:
        return "the first one, once its cost can be expected"
    if known.due_ms is None:
        return "not planned: it will never be looked at"
    return when(known.due_ms)


def _events_view(session: Session) -> Table:
    table = table_of("at", "event", "leg or conversation", "cause", ">reported cost")
    for event in sorted(session.events, key=lambda e: e.at_ms):
        reported = event.reported
        total = reported.total if reported else None
        table.add_row(
            Text(when(event.at_ms)),
            said(event.kind),
            said(event.leg_id or event.conversation_id or event.conference_id or ""),
            said(event.cause or ""),
            said(_money(total, reported.currency if reported else None)),
        )
    return table


def _fetches_view(session: Session) -> RenderableType:
    table = table_of("at", ">after the end", "why", "answer", ">events", ">total")
    for fetch in session.watch.fetches:
        table.add_row(
            Text(when(fetch.at_ms)),
            Text(duration(max(0, fetch.at_ms - session.watch.end_ms) // 1000)),
            Text("planned" if fetch.planned else "pulled forward"),
            Text(_answer(fetch)),
            Text(f"{fetch.event_count:,}" if fetch.ready else ""),
            Text(_money(fetch.total, None)),
        )
    if not session.watch.held:
        return table
    held = f"  {session.watch.held} asks in a row without an answer: {session.watch.reason}"
    return Group(table, said(held, "yellow"))


def _answer(fetch: Fetch) -> str:
    if not fetch.ready:
        return "no cost yet"
    return "a cost" if fetch.expected else "a cost with parts missing"


def _alert_line(posting: Posting[Alert]) -> Text:
    alert = posting.subject
    line = said(f"  {alert.severity:<9}", COLOURS[alert.severity])
    line.append(f"decided {when(alert.decided_ms)}, {_DELIVERIES[posting.delivery]}")
    if posting.summary:
        line.append_text(said(f" in summary {posting.summary}"))
    if posting.changed_ms:
        line.append(f" {when(posting.changed_ms)} ({posting.tries} tries)", _QUIET)
    return line.append_text(said(f"  {posting.reason}" if posting.reason else "", "yellow"))


def sessions_view(found: Iterable[tuple[str, Session | None]]) -> Table:
    """A list of sessions; one that cannot be read says so."""
    table = table_of("session", "state", "ended", ">cost", "verdict", "alerted", "why")
    for session_id, session in found:
        if session is None:
            table.add_row(said(session_id), Text("cannot be read", "red"))
            continue
        verdict = session.verdict
        table.add_row(
            said(session_id),
            Text(session.state),
            Text(when(session.end_ms) if session.end_ms else ""),
            said(priced(verdict.total, verdict.currency) if verdict else ""),
            _grade(verdict),
            said(session.alerted or "", COLOURS[session.alerted] if session.alerted else ""),
            said(session.reason or session.watch.reason),
        )
    return table


def dead_view(found: Iterable[DeadLetter]) -> Table:
    """A list of dead letters."""
    table = table_of("session", "died", "kind", ">failures", "why")
    for letter in found:
        table.add_row(
            said(letter.session_id),
            Text(when(letter.died_ms)),
            said(letter.kind),
            Text(str(letter.failures)),
            said(letter.reason),
        )
    return table


def kinds_view(counts: Iterable[Count]) -> Table:
    """How many dead letters there are of each kind, all of them."""
    table = table_of("kind", ">dead letters", "since")
    for count in counts:
        table.add_row(said(count.kind), Text(str(count.number)), Text(when(count.since_ms)))
    return table


def dead_letter_view(looked: Looked) -> Iterator[RenderableType]:
    """What is known of a dead letter besides its session."""
    letter = looked.letter
    yield said(f"Dead letter {letter.session_id}", "bold")
    yield _facts(_dead_letter_facts(looked))
    if looked.known is None:
        yield said("its record cannot be read", "red")


def _dead_letter_facts(looked: Looked) -> Iterator[tuple[str, str]]:
    letter = looked.letter
    yield "died", when(letter.died_ms)
    yield "kind", letter.kind
    yield "why", letter.reason
    yield "failures", str(letter.failures)
    if looked.raw_key:
        hours = looked.raw_left_ms // 3_600_000
        yield "Telnyx's answer", f"--raw shows it; in {looked.raw_key} for {hours} hours still"
    else:
        yield "Telnyx's answer", "is not kept: none came, or its week is over"


def alerts_view(found: Iterable[tuple[str, Posting[Any] | None]]) -> Table:
    """A list of alerts and what became of them; one that cannot be read says so."""
    table = table_of("about", "decided", "severity", ">cost", ">excess", "fate", ">tries", "why")
    for alert_id, posting in found:
        if posting is None:
            table.add_row(said(alert_id), Text("cannot be read", "red"))
            continue
        about, cells = _alert_cells(posting.subject)
        table.add_row(
            about, *cells, said(_fate(posting)), Text(str(posting.tries)), said(_why(posting))
        )
    return table


def _alert_cells(subject: Subject) -> tuple[Text, tuple[Text, Text, Text, Text]]:
    """What it is about; then when, how bad, what it cost and how much of that is too much."""
    match subject:
        case Alert(call=call, verdict=verdict):
            return said(call.session_id), (
                Text(when(subject.decided_ms)),
                Text(subject.severity, COLOURS[subject.severity]),
                said(priced(verdict.total, verdict.currency)),
                said(priced(verdict.excess, verdict.currency)),
            )
        case Notice():
            about = said(subject.text)
        case Summary():
            about = Text(f"summary {subject.number} of {subject.count:,} alerts")
        case _:
            assert_never(subject)
    kind = "notice" if isinstance(subject, Notice) else "summary"
    return about, (Text(when(subject.at_ms)), Text(kind, _QUIET), Text(), Text())


def _fate(posting: Posting[Any]) -> str:
    is_told = posting.delivery is Delivery.SUMMARIZED
    told_in = f" in {posting.summary}" if posting.summary and is_told else ""
    return f"{posting.delivery}{told_in}"


def _why(posting: Posting[Any]) -> str:
    repeated = "perhaps told twice" if posting.repeated else ""
    return "; ".join(part for part in (posting.reason, repeated) if part)


def _grade(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text()
    so_far = " so far" if verdict.provisional else ""
    return Text(f"{verdict.severity or 'quiet'}{so_far}", COLOURS[verdict.severity])


def reconciliation_view(report: Report, *, dry: bool) -> Iterator[RenderableType]:
    """What a search for webhooks that never came found, list by list."""
    scheduled = "to schedule" if dry else "scheduled"
    heads = ("rows", scheduled, "merged", "known", "too old", "no interest", "unreadable", "pages")
    span = report.searched[0].span
    yield Text(f"from {when(span.since_ms)} until {when(span.until_ms)}")
    table = table_of("list", *(f">{head}" for head in heads), "ended")
    for found in report.searched:
        t = found.tally
        numbers = (
            *(t.rows, t.scheduled, t.merged, t.known),
            *(t.too_old, t.no_interest, t.unreadable, t.pages),
        )
        table.add_row(
            found.source,
            *map(str, numbers),
            Text(found.stop.outcome, "red") if found.stop else Text("whole", "green"),
        )
    yield table
    count = report.tally.scheduled
    sessions = "1 session" if count == 1 else f"{count} sessions"
    yield Text(f"{sessions} {'would be scheduled' if dry else 'scheduled'}")


# --- record types, checks, policies --------------------------------------------------------------


def record_types_view(known: RecordTypes) -> Table:
    """All record types: names, and what hangs below them."""
    table = table_of(
        "record type", "product", "also called", "children", "cost rolls up", "linked by"
    )
    for found in known.record_types:
        children = found.children
        table.add_row(
            said(found.record_type, "bold"),
            said(found.product or ""),
            said(", ".join(found.aliases)),
            _lines(child.record_type for child in children),
            _lines(_flag(child.cost_rollup) for child in children),
            _lines(_via(child) for child in children),
        )
    return table


def record_type_view(found: RecordType) -> Iterator[RenderableType]:
    """One record type with all its relationships."""
    yield said(found.record_type, "bold")
    depth = found.recommended_depth
    facts = (
        ("product", found.product),
        ("event", found.event),
        ("also called", ", ".join(found.aliases)),
        ("about", found.description),
        ("recommended depth", None if depth is None else str(depth)),
    )
    yield _facts((name, value) for name, value in facts if value)
    for words, relations in (("Children", found.children), ("Parents", found.parents)):
        yield title(words)
        yield _relations_view(relations) if relations else Text("  none", _QUIET)


def _relations_view(relations: Iterable[Relation]) -> Table:
    table = table_of("record type", "cost rolls up", "in the tree", "linked by (child = parent)")
    for relation in relations:
        table.add_row(
            said(relation.record_type),
            Text(_flag(relation.cost_rollup)),
            Text(_flag(relation.traversal_enabled)),
            said(_via(relation)),
        )
    return table


def _via(relation: Relation) -> str:
    if not relation.local_field and not relation.parent_field:
        return ""
    return f"{relation.local_field or '?'} = {relation.parent_field or '?'}"


def _flag(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not said"}[value]


def checks_view(checks: Iterable[Check]) -> Table:
    """What was checked, how it is, and what to mend."""
    table = table_of("what", "is", "found", "what to do")
    for check in checks:
        style = _RESULTS[check.result]
        table.add_row(
            said(check.name), Text(check.result, style), said(check.found), said(check.fix)
        )
    return table


def policy_view(policy: Policy) -> Table:
    """What a policy will do."""
    table = table_of("measure", "limit", "for")
    for row in describe(policy):
        table.add_row(*(said(cell) for cell in row))
    return table


def budgets_view(found: Iterable[Standing], currency: str, now_ms: int) -> Table:
    """Every budget of the policy, and how much of it is left for how long."""
    table = table_of("budget", "for", ">spent", "used", "at this pace")
    for stands in found:
        budget = stands.budget
        calls = ", ".join(f"{name} {value}" for name, value in budget.when.conditions)
        table.add_row(
            said(f"{priced(budget.amount, currency)} per {budget.per}"),
            said(calls or "all calls"),
            Text(amount(stands.spent)),
            _bar(stands.share),
            Text(_outlook(stands, now_ms)),
        )
    return table


def balance_view(found: RunOut) -> Text:
    """The account's balance in one line."""
    balance = found.balance
    line = f"Balance: {priced(balance.available, balance.currency)} available"
    if balance.available <= 0:
        return said(f"{line}: calls stop until it is topped up", "bold red")
    if found.empty_ms is None:
        return said(f"{line}; at this pace it lasts for more than {FARTHEST_DAYS} days")
    return said(f"{line}; at this pace it runs out {about(found.empty_ms, found.at_ms)}", "yellow")


def _outlook(stands: Standing, now_ms: int) -> str:
    if stands.spent >= stands.budget.amount:
        return "used up"
    if stands.used_up_ms is None:
        return f"lasts for the {stands.budget.per}"
    return f"used up {about(stands.used_up_ms, now_ms)}"


def _bar(share: Decimal) -> Text:
    """A share as a bar and in percent, rounded down: no budget is used up before it is."""
    part = min(max(share, ZERO), Decimal(1))
    full = int(part * _BAR_WIDTH)
    reached = [colour for rung, colour in _RUNG_COLOURS if share * 100 >= rung]
    bar = "█" * full + "░" * (_BAR_WIDTH - full)
    return Text(f"{bar} {int(share * 100)} %", reached[-1] if reached else "green")


# --- small parts ---------------------------------------------------------------------------------


def when(milliseconds: int) -> str:
    """A stored time, in UTC; "?" where it is no time."""
    try:
        return f"{moment(milliseconds):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "?"


def _money(value: Decimal | None, currency: str | None) -> str:
    if value is None:
        return ""
    return priced(value, currency) if currency else amount(value)


def table_of(*columns: str) -> Table:
    """A table with these heads; one that begins with > is aligned to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        to_right = column.startswith(">")
        head = Text(column.removeprefix(">"))
        table.add_column(head, justify="right" if to_right else "left", overflow="fold")
    return table


def _lines(values: Iterable[str]) -> Text:
    return Text("\n").join(said(value) for value in values)


def _facts(facts: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        grid.add_row(Text(f"  {name}", _QUIET), said(value))
    return grid
