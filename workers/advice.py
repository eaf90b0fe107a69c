"""What somebody who is woken can do about a reason.

Pure: one sentence for each reason, in the words of Telnyx's portal.
"""

from typing import Final

from service.records import Alert, Reason
from workers.blocks import code, escape
from workers.judge import CEILINGS
from workers.products import ASSISTANT, INFERENCE, SIP_TRUNKING, is_known, label
from workers.wording import percent

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
_LONG_PROMPT: Final = "compare the model and the prompt's length with those of the calls before"
_ABROAD: Final = (
    "If nobody meant to call there, block the country in the outbound voice profile and look who "
    "made the call"
)
_ABROAD_IN: Final = "Look whether the number that was called is meant to be in use"
_OTHERWISE: Final = "check what it was used for in this call, and whether it is meant to be on"

_PRICE_LIST: Final = (
    "Compare the rate with Telnyx's price list; if it is not on it, ask Telnyx's support with the "
    "session id"
)

_ADVICE: Final[dict[str, str]] = {
    "late_charge": "Find out from Telnyx's support, with the session id, what was charged so late",
    "double_charge": "Claim the second charge from Telnyx's support, with the session id",
    "reported_difference": "Compare webhook and session analysis, and ask Telnyx's support with "
    "the session id",
    "foreign_currency": "Set the policy's currency to that of the account",
    "unusual_billing": "Compare billed and real duration in the cost tree, and claim the "
    "difference from Telnyx's support, with the session id",
    "unknown_rate": _PRICE_LIST,
    "new_product": "Find out who turned it on for this call, and whether it is meant to be on",
    "new_model": "Find out who changed the assistant's model, and compare the models' prices",
    "missing_product": "Listen to such a call: without it an assistant may be silent. It may have "
    "been turned off, or its cost may still come",
    "missing_cost": "Compare with Telnyx's portal: the cost may still come, or calls fail unseen",
}
_BY_COST: Final = frozenset(
    {
        *CEILINGS,
        "unusual_cost",
        "unusual_cost_per_minute",
        "unusual_product_cost",
        "unusual_events",
        "unusual_cost_per_event",
    }
)
"""Reasons whose advice is that of the product which costs most."""
_ADVICE_OTHERWISE: Final = "Ask Telnyx's support why its figures disagree, with the session id"


def advice_on(reason: Reason, alert: Alert) -> str:
    """A sentence in Slack's markup, without its full stop."""
    if reason.code == "new_country":
        return _ABROAD_IN if alert.call.direction == "inbound" else _ABROAD
    if reason.code not in _BY_COST:
        return _ADVICE.get(reason.code, _ADVICE_OTHERWISE)
    shares = {share.product: share for share in alert.verdict.products}
    dearest = next(iter(alert.verdict.products), None)
    most_over = reason.parts[0].product if reason.parts else ""
    part = shares.get(reason.product or most_over, dearest)
    if part is None:
        return _ADVICE_OTHERWISE
    advice = _BY_PRODUCT.get(part.product, _OTHERWISE)
    if part.product == INFERENCE and reason.code == "unusual_cost_per_event":
        advice = _LONG_PROMPT
    if part.product == SIP_TRUNKING and alert.call.direction != "inbound":
        advice = _OUTBOUND
    # The name is from outside where it is none of the known ones.
    name = label(part.product) if is_known(part.product) else f"`{escape(code(part.product))}`"
    return f"{name} is {escape(percent(part.share))} of the cost: {advice}"
