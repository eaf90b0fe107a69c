"""An alert as Slack's Block Kit: what the person who is woken reads, in order of importance.

Pure: builds the payload, posts nothing.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from slack_sdk.models.blocks import Block, DividerBlock

from service.money import ZERO
from service.records import Alert, Call, Reason, Share, Verdict, leading_reason, moment
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
from workers.judge import CEILINGS as _CEILINGS
from workers.products import ASSISTANT, INFERENCE, SIP_TRUNKING, is_known, label
from workers.wording import amount, duration, factor, party, percent, priced

_SHOWN_REASONS: Final = 5
_SHOWN_PRODUCTS: Final = 8
_SHOWN_REMARKS: Final = 4
_SHOWN_ADVICE: Final = 3

_PORTAL: Final = "https://portal.telnyx.com/"
_GUIDE: Final = "https://developers.telnyx.com/docs/voice/session-analysis"

_LOOP: Final = (
    "look for a loop: a tool that fails and is called again, or two assistants that talk to each "
    "other"
)
_BY_PRODUCT: Final[dict[str, str]] = {
    ASSISTANT: "give the assistant a maximum duration, and hang up if a leg is still up",
    INFERENCE: _LOOP,
}
_OUTBOUND: Final = (
    "compare the destination's rate with the price list; if nobody meant to call there, block it "
    "in the outbound voice profile"
)
_OTHERWISE: Final = "check what it was used for in this call, and whether it is meant to be on"

_ADVICE: Final[dict[str, str]] = {
    "late_charge": "Find out from Telnyx's support, with the session id, what was charged so late",
    "double_charge": "Claim the second charge from Telnyx's support, with the session id",
    "reported_difference": "Compare webhook and session analysis, and ask Telnyx's support with "
    "the session id",
    "foreign_currency": "Set the policy's currency to that of the account",
}
_ADVICE_OTHERWISE: Final = "Ask Telnyx's support why its figures disagree, with the session id"


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
    return (
        f"{alert.severity.capitalize()}: {cost} for one call{so_far}, "
        f"{amount(verdict.excess)} too much"
    )


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
    is_ceiling = reason.code in _CEILINGS and reason.observed > reason.limit
    times = factor(reason.observed, reason.limit) if is_ceiling else ""
    sentence = clean(reason.text, LONGEST_SENTENCE)
    return f"{sentence} – {times}" if times else sentence


def _excess(verdict: Verdict) -> str:
    money = priced(verdict.excess, currency_of(verdict.currency))
    leading = leading_reason(verdict)
    over = _over(leading, verdict) if leading else ""
    return f"*In excess:* {money}{over}{_standing(verdict)}"


def _over(reason: Reason, verdict: Verdict) -> str:
    """What the excess is above."""
    match reason.code:
        case "session_cost":
            return f", above the {amount(reason.limit)} that a session may cost"
        case "cost_per_minute":
            length = duration(max(60, verdict.duration_seconds))
            return f", above what {length} may cost at {amount(reason.limit)} a minute"
        case "product_cost":
            return f", above the {amount(reason.limit)} that this product may cost"
        case "product_events":
            return f", for the events beyond the first {reason.limit:f}"
        case _:
            return ""


def _standing(verdict: Verdict) -> str:
    if verdict.provisional:
        return " (provisional: more cost may come)"
    return "" if verdict.settled else " (it may still change: Telnyx's last answers differed)"


def _where(verdict: Verdict) -> str:
    shown = [product for product in verdict.products if product.cost != ZERO][:_SHOWN_PRODUCTS]
    rows = [_row(product, currency_of(verdict.currency)) for product in shown]
    rest = sum((p.cost for p in verdict.products), ZERO) - sum((p.cost for p in shown), ZERO)
    if rest:
        rows.append(f"{'other':<28} {amount(rest):>10}")
    body = "\n".join(rows) or "no product with a cost"
    return f"*Where the money went:*\n```{escape(body)}```"


def _row(product: Share, currency: str) -> str:
    name = code(label(product.product), 28)
    events = f"{product.events:,} events" if product.events > 1 else ""
    return (
        f"{name:<28} {amount(product.cost):>10} {currency} {percent(product.share):>6}  {events}"
    ).rstrip()


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
    advice = dict.fromkeys(_advice(reason, alert) for reason in alerting)
    lines = [f"• {line}" for line in list(advice)[:_SHOWN_ADVICE]]
    session = escape(code(alert.call.session_id))
    lines.append(f"• The whole cost tree: `tollwatch show {session}`")
    lines.append(f"• <{_PORTAL}|Telnyx portal>  ·  <{_GUIDE}|Session Analysis guide>")
    return "*What to do:*\n" + "\n".join(lines)


def _advice(reason: Reason, alert: Alert) -> str:
    if reason.code not in _CEILINGS:
        return _ADVICE.get(reason.code, _ADVICE_OTHERWISE)
    shares = {share.product: share for share in alert.verdict.products}
    dearest = next(iter(alert.verdict.products), None)
    part = shares.get(reason.product or "", dearest)
    if part is None:
        return _ADVICE_OTHERWISE
    advice = _BY_PRODUCT.get(part.product, _OTHERWISE)
    if part.product == SIP_TRUNKING and alert.call.direction != "inbound":
        advice = _OUTBOUND
    # The name is from outside where it is none of the known ones.
    name = label(part.product) if is_known(part.product) else f"`{escape(code(part.product))}`"
    return f"{name} is {escape(percent(part.share))} of the cost: {advice}"


def _small(verdict: Verdict) -> Iterable[str]:
    return (reason.text for reason in verdict.reasons if not reason.severity)


def _context(remarks: list[str]) -> Block:
    shown = [f"Also: {remark}" for remark in remarks[:_SHOWN_REMARKS]]
    if len(remarks) > _SHOWN_REMARKS:
        shown.append(f"Also: and {len(remarks) - _SHOWN_REMARKS} more remarks")
    return context(shown)
