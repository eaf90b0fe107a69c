"""An alert as Slack's Block Kit: what the person who is woken reads, in order of importance.

Pure: builds the payload, posts nothing.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

from slack_sdk.models.blocks import Block, DividerBlock

from service.money import ZERO
from service.records import Alert, Call, Reason, Share, Verdict, leading_reason, moment
from workers.advice import advice_on
from workers.blocks import (
    LONGEST_SENTENCE,
    LONGEST_WORD,
    REPEATED,
    SIGNS,
    clean,
    code,
    context,
    currency_of,
    date,
    escape,
    header,
    one_line,
    plain_section,
    section,
)
from workers.judge import CEILINGS, LATE_CHARGE
from workers.products import label
from workers.wording import amount, duration, factor, party, percent, priced, rough

_SHOWN_REASONS: Final = 5
_SHOWN_PRODUCTS: Final = 8
_SHOWN_REMARKS: Final = 4
_SHOWN_ADVICE: Final = 3

_PORTAL: Final = "https://portal.telnyx.com/"
_GUIDE: Final = "https://developers.telnyx.com/docs/voice/session-analysis"
_ABOVE: Final[dict[str, str]] = {
    "session_cost": "above the {limit} that a session may cost",
    "cost_per_minute": "above what {length} may cost at {limit} a minute",
    "product_cost": "above the {limit} that this product may cost",
    "product_events": "for the events beyond the first {count}",
    "unusual_cost": "above the usual {limit}",
    "unusual_cost_per_minute": "above what {length} usually cost at {limit} a minute",
    "unusual_product_cost": "above what this product usually costs",
    "unusual_events": "for the events beyond the usual number",
    "unusual_cost_per_event": "above the usual {limit} for each",
    "unusual_billing": "for what was billed beyond the real duration",
    "unknown_rate": "above what the usual rate of {limit} comes to",
    "new_product": "above what is usual without it",
    "new_model": "above what is usual without it",
    "new_country": "above what is usual without it",
}
"""What the excess of a reason is above."""


def build_payload(alert: Alert, *, repeated: bool = False) -> dict[str, Any]:
    """`text` and `blocks` for an incoming webhook; `repeated` says that it may be there already."""
    blocks = [block.to_dict() for block in _blocks(alert, repeated=repeated)]
    return {"text": fallback(alert, repeated=repeated), "blocks": blocks}


def fallback(alert: Alert, *, repeated: bool = False) -> str:
    """One line that makes sense alone, as a phone shows it."""
    worst = alert.verdict.reasons[0].text
    session = clean(alert.call.session_id, LONGEST_WORD)
    return one_line(f"{_headline(alert)}: {worst} (session {session})", repeated=repeated)


def _headline(alert: Alert) -> str:
    verdict = alert.verdict
    so_far = " so far" if verdict.provisional else ""
    cost = priced(verdict.total, currency_of(verdict.currency))
    much = "little" if _is_missing(leading_reason(verdict)) else "much"
    return (
        f"{alert.severity.capitalize()}: {cost} for one call{so_far}, "
        f"{amount(verdict.excess)} too {much}"
    )


def _is_missing(reason: Reason | None) -> bool:
    """Whether it is about money that is not there: learned, and below what is usual."""
    return bool(reason and reason.learned_from and reason.observed < reason.limit)


def _blocks(alert: Alert, *, repeated: bool) -> Iterator[Block]:
    verdict, call = alert.verdict, alert.call
    yield header(f"{SIGNS[alert.severity]} {_headline(alert)}")
    yield plain_section(_why(verdict))
    yield section(_excess(verdict))
    yield section(_where(verdict))
    yield DividerBlock()
    yield section(_which(call, verdict))
    yield section(_next(alert))
    remarks = [*verdict.remarks, *_small(verdict)]
    if remarks:
        yield _context(remarks)
    if repeated:
        yield context([REPEATED.capitalize()])


def _why(verdict: Verdict) -> str:
    alerting = [reason for reason in verdict.reasons if reason.severity]
    lines = [f"• {_sentence(reason)}" for reason in alerting[:_SHOWN_REASONS]]
    if len(alerting) > _SHOWN_REASONS:
        lines.append(f"• and {len(alerting) - _SHOWN_REASONS} more")
    return "Why\n" + "\n".join(lines)


def _sentence(reason: Reason) -> str:
    is_ceiling = reason.code in CEILINGS and reason.observed > reason.limit
    times = factor(reason.observed, reason.limit) if is_ceiling else ""
    sentence = clean(reason.text, LONGEST_SENTENCE)
    return f"{sentence} – {times}" if times else sentence


def _excess(verdict: Verdict) -> str:
    money = priced(verdict.excess, currency_of(verdict.currency))
    leading = leading_reason(verdict)
    over = _over(leading, verdict) if leading else ""
    what = "Missing" if _is_missing(leading) else "In excess"
    return f"*{what}:* {money}{over}{_standing(verdict)}"


def _over(reason: Reason, verdict: Verdict) -> str:
    """What the excess is above."""
    if _is_missing(reason):
        return ", below what is usual"
    above = _ABOVE.get(reason.code)
    if reason.code == LATE_CHARGE and reason.limit:
        above = "above the {limit} that was judged first"
    if above is None:
        return ""
    length = duration(max(60, verdict.duration_seconds))
    words = above.format(limit=amount(reason.limit), count=f"{reason.limit:f}", length=length)
    return f", {words}"


def _standing(verdict: Verdict) -> str:
    if verdict.provisional:
        return " (provisional: more cost may come)"
    return "" if verdict.settled else " (it may still change: Telnyx's last answers differed)"


def _where(verdict: Verdict) -> str:
    shown = [product for product in verdict.products if product.cost != ZERO][:_SHOWN_PRODUCTS]
    over = _over_by_product(verdict)
    rows = [
        _row(product, currency_of(verdict.currency), over.get(product.product, ZERO))
        for product in shown
    ]
    rest = sum((p.cost for p in verdict.products), ZERO) - sum((p.cost for p in shown), ZERO)
    if rest:
        rows.append(f"{'other':<28} {amount(rest):>10}")
    body = "\n".join(rows) or "no product with a cost"
    return f"*Where the money went:*\n```{escape(body)}```"


def _over_by_product(verdict: Verdict) -> dict[str, Decimal]:
    """What each product cost over the usual, as far as a reason says it."""
    over: dict[str, Decimal] = {}
    for reason in verdict.reasons:
        if reason.learned_from and reason.observed > reason.limit:
            named = [(part.product, part.cost) for part in reason.parts]
            named += [(reason.product, reason.excess)] if reason.product else []
            over |= {product: max(cost, over.get(product, ZERO)) for product, cost in named}
    return over


def _row(product: Share, currency: str, over: Decimal) -> str:
    name = code(label(product.product), 28)
    more = f"{rough(over)} over" if over else ""
    events = f"{product.events:,} events" if product.events > 1 else ""
    cost = f"{amount(product.cost):>10} {currency} {percent(product.share):>6}"
    return f"{name:<28} {cost}  {more:<12} {events}".rstrip()


def _which(call: Call, verdict: Verdict) -> str:
    facts = [("Session", f"`{escape(code(call.session_id))}`")]
    if call.start_ms or call.end_ms:
        facts.append(
            (
                "Started" if call.start_ms else "Ended",
                date(moment(call.start_ms or call.end_ms or 0)),
            )
        )
    facts.append(("Duration", duration(verdict.duration_seconds)))
    named = (
        ("Direction", call.direction),
        ("From", party(call.from_number, call.from_country)),
        ("To", party(call.to_number, call.to_country)),
        ("Assistant", call.assistant_id),
        ("Connection", call.connection_id),
    )
    facts += [(name, f"`{escape(code(value))}`") for name, value in named if value]
    if call.legs > 1:
        facts.append(("Legs", str(call.legs)))
    return "\n".join(f"*{name}:* {value}" for name, value in facts)


def _next(alert: Alert) -> str:
    alerting = [reason for reason in alert.verdict.reasons if reason.severity]
    advice = dict.fromkeys(advice_on(reason, alert) for reason in alerting)
    lines = [f"• {line}" for line in list(advice)[:_SHOWN_ADVICE]]
    session = escape(code(alert.call.session_id))
    if any(reason.learned_from for reason in alerting):
        lines.append(f"• If such calls are meant to be: `tollwatch feedback {session} expected`")
    lines.append(f"• The whole cost tree: `tollwatch show {session}`")
    lines.append(f"• <{_PORTAL}|Telnyx portal>  ·  <{_GUIDE}|Session Analysis guide>")
    return "*What to do:*\n" + "\n".join(lines)


def _small(verdict: Verdict) -> Iterable[str]:
    return (reason.text for reason in verdict.reasons if not reason.severity)


def _context(remarks: list[str]) -> Block:
    shown = [f"Also: {remark}" for remark in remarks[:_SHOWN_REMARKS]]
    if len(remarks) > _SHOWN_REMARKS:
        shown.append(f"Also: and {len(remarks) - _SHOWN_REMARKS} more remarks")
    return context(shown)
