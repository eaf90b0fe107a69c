"""The alert: what a person reads, and what nobody can smuggle into it."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Alert, Call, Part, Reason, Severity, Share, Verdict
from tests.samples import END_MS, START_MS
from workers.alert import build_payload, fallback

REASON = Reason(
    code="product_events",
    text="Inference occurred 412 times, the ceiling is 200",
    observed=Decimal(412),
    limit=Decimal(200),
    excess=Decimal("0.61"),
    severity=Severity.LOW,
    product="inference",
)
SHARES = (
    Share("ai-voice-assistant", Decimal("3.42"), Decimal("0.7826"), 1),
    Share("inference", Decimal("0.94"), Decimal("0.2151"), 412),
    Share("sip-trunking", Decimal("0.01"), Decimal("0.0023"), 1),
    Share("call-session", Decimal(0), Decimal(0), 1),
)
CALL = Call(
    session_id="428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
    start_ms=START_MS,
    end_ms=END_MS,
    direction="inbound",
    connection_id="7267",
    assistant_id="assistant-1",
    from_number="…78",
    to_number="…21",
    legs=2,
    to_country="US",
)


def alert(**changes: Any) -> Alert:
    verdict = Verdict(
        at_ms=END_MS,
        total=Decimal("4.37"),
        currency="USD",
        severity=Severity.LOW,
        excess=Decimal("0.61"),
        reasons=(REASON,),
        products=SHARES,
        duration_seconds=3420,
    )
    known: dict[str, Any] = {
        "id": "a",
        "call": CALL,
        "verdict": verdict,
        "severity": Severity.LOW,
        "decided_ms": END_MS,
    }
    return Alert(**known | changes)


def texts(payload: dict[str, Any]) -> list[str]:
    found = []
    for block in payload["blocks"]:
        parts = [block.get("text"), *block.get("elements", [])]
        found += [part["text"] for part in parts if part]
    return found


def test_it_says_what_matters_in_order() -> None:
    """Total, why, excess, where the money went, which call, what to do: in this order."""
    whole = "\n".join(texts(build_payload(alert())))
    order = [
        "4.37 USD",
        "412 times",
        "In excess",
        "Where the money",
        "AI minutes",
        "Session:",
        "What to do",
    ]
    places = [whole.index(word) for word in order]
    assert places == sorted(places)
    assert "78 %" in whole
    assert "57 min" in whole
    assert "&lt;1 %" in whole
    assert "`…78`" in whole
    assert "`…21 (US)`" in whole
    assert f"<!date^{START_MS // 1000}^" in whole
    assert "UTC>" in whole


LEARNED_FROM = "assistant-1/inbound/US/assistant"
DEAR = Reason(
    code="unusual_cost",
    text="4.37 USD, 20 times the usual 0.21 for assistant-1's inbound calls (1,204 calls in 28 "
    "days, 99 % under 0.48). 4.16 over: AI minutes 3.42 (57 minutes instead of 3), Inference 0.61 "
    "(412 turns instead of 5)",
    observed=Decimal("4.37"),
    limit=Decimal("0.21"),
    excess=Decimal("4.16"),
    severity=Severity.MEDIUM,
    learned_from=LEARNED_FROM,
    calls=1204,
    parts=(Part("ai-voice-assistant", Decimal("3.2512")), Part("inference", Decimal("0.614"))),
)


def learned(code: str, product: str | None = None, *, call: Call = CALL, **changes: Any) -> str:
    """What is read where a reason of this kind, which rests on what is usual, leads."""
    reason = msgspec.structs.replace(DEAR, code=code, product=product, parts=(), **changes)
    verdict = msgspec.structs.replace(
        alert().verdict, reasons=(reason,), excess=reason.excess, severity=reason.severity
    )
    return "\n".join(texts(build_payload(alert(call=call, verdict=verdict))))


def test_an_unusual_cost_says_what_is_usual() -> None:
    """The sentence is whole, the excess is above the usual, and each part's stands by its cost."""
    verdict = msgspec.structs.replace(alert().verdict, reasons=(DEAR,), excess=DEAR.excess)
    payload = build_payload(alert(verdict=verdict))
    check_limits(payload)
    whole = "\n".join(texts(payload))
    assert f"• {DEAR.text}\n" in f"{whole}\n"
    assert "*In excess:* 4.16 USD, above the usual 0.21" in whole
    assert "AI minutes                         3.42 USD   78 %  3.25 over" in whole
    assert "Inference                          0.94 USD   22 %  0.61 over    412 events" in whole
    assert "SIP trunking                       0.01 USD   &lt;1 %```" in whole
    assert "AI minutes is 78 % of the cost: give the assistant a maximum duration" in whole
    assert f"are meant to be: `tollwatch feedback {CALL.session_id} expected`" in whole


@pytest.mark.parametrize(
    ("code", "product", "words"),
    [
        ("unusual_cost_per_minute", None, "above what 57 min usually cost at 0.21 a minute"),
        ("unusual_product_cost", "inference", "above what this product usually costs"),
        ("unusual_product_cost", "inference", "Inference is 22 % of the cost: look for a loop"),
        ("unusual_events", "inference", "for the events beyond the usual number"),
        ("unusual_cost_per_event", "inference", "compare the model and the prompt's length"),
        ("unusual_cost_per_event", "inference", "above the usual 0.21 for each"),
        ("unusual_billing", "recording", "Compare billed and real duration in the cost tree"),
        ("unusual_billing", "recording", "for what was billed beyond the real duration"),
        ("unknown_rate", "sip-trunking", "Compare the rate with Telnyx's price list"),
        ("unknown_rate", "sip-trunking", "above what the usual rate of 0.21 comes to"),
        ("new_country", None, "Look whether the number that was called is meant to be in use"),
        ("new_model", None, "Find out who changed the assistant's model"),
        ("new_product", "forking", "Find out who turned it on"),
        ("new_product", "forking", "above what is usual without it"),
    ],
)
def test_each_learned_reason_says_what_to_do(code: str, product: str | None, words: str) -> None:
    """What the excess is above, and something that whoever is on call can act on."""
    assert words in learned(code, product)


def test_a_new_country_is_blocked_where_calls_go_out() -> None:
    """For a call that went there, the advice is the outbound voice profile."""
    outbound = msgspec.structs.replace(CALL, direction="outbound")
    assert "block the country in the outbound voice profile" in learned(
        "new_country", call=outbound
    )


def test_what_is_missing_is_no_excess() -> None:
    """Money that is not there is said to be missing, in the headline, too."""
    told = learned("missing_product", "inference", observed=Decimal(0))
    assert "4.16 too little" in told
    assert "*Missing:* 4.16 USD, below what is usual" in told
    assert "In excess" not in told
    assert "without it an assistant may be silent" in told


def test_a_late_charge_is_above_what_was_judged_first() -> None:
    """One more look at a settled cost says what it was before."""
    late = msgspec.structs.replace(DEAR, code="late_charge", learned_from=None, parts=())
    verdict = msgspec.structs.replace(alert().verdict, reasons=(late,), excess=late.excess)
    told = "\n".join(texts(build_payload(alert(verdict=verdict))))
    assert "*In excess:* 4.16 USD, above the 0.21 that was judged first" in told
    assert "what was charged so late" in told
    assert "tollwatch feedback" not in told


def test_the_fallback_makes_sense_alone() -> None:
    """The phone's one line has severity, cost, excess, reason and session."""
    line = fallback(alert())
    assert "\n" not in line
    for word in ("Low", "4.37 USD", "0.61", "412 times", CALL.session_id):
        assert word in line


def test_a_provisional_cost_is_called_so() -> None:
    """While more cost may come, the alert says that it is not the last word."""
    verdict = alert().verdict
    provisional = Verdict(
        **{name: getattr(verdict, name) for name in verdict.__struct_fields__}
        | {"provisional": True}
    )
    payload = build_payload(alert(verdict=provisional))
    assert "so far" in payload["text"]
    assert any("provisional" in text for text in texts(payload))


HOSTILE = [
    "<!channel>",
    "<@U123>",
    "*bold*_x_~y~",
    "```",
    "`x`",
    "<https://evil|click>",
    "&lt;",
    "a\nb",
    "\u202ertl",
    "x" * 5000,
    ":rotating_light:" * 200,
    "\x1b[31m",
    "<!date^1^{time}|x>",
]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
def test_nothing_from_outside_mentions_links_or_breaks_out(text: str) -> None:
    """Whatever stands in an id, a product or a reason, it is shown as text."""
    reason = Reason("double_charge", text, Decimal(2), Decimal(1), Decimal(1), Severity.LOW, text)
    verdict = Verdict(
        at_ms=1,
        total=Decimal(9),
        currency=text,
        reasons=(reason,) * 9,
        products=(Share(text, Decimal(1), Decimal(1), 1),) * 30,
        remarks=(text,) * 30,
        severity=Severity.LOW,
    )
    hostile = Call(
        text,
        from_number=text,
        to_number=text,
        assistant_id=text,
        connection_id=text,
        direction=text,
    )
    payload = build_payload(alert(call=hostile, verdict=verdict))
    shown = [payload["text"], *(t for t in texts(payload))]
    for part in shown:
        assert "<!channel" not in part
        assert "<@" not in part
        assert "<https://evil" not in part
        assert "\x1b" not in part
    check_limits(payload)


def check_limits(payload: dict[str, Any]) -> None:
    assert len(payload["blocks"]) <= 50
    assert len(json.dumps(payload["blocks"])) <= 13_200
    for block in payload["blocks"]:
        text = block.get("text", {}).get("text", "-")
        assert 0 < len(text) <= (150 if block["type"] == "header" else 3000)
        assert len(block.get("elements", [])) <= 10
        # A code span that was opened is closed: the layout holds.
        if block.get("text", {}).get("type") == "mrkdwn":
            assert text.count("`") % 2 == 0, text


TEXT = st.text(max_size=400)
MONEY = st.decimals(0, 10**6, places=6)


@given(
    currency=TEXT,
    products=st.lists(st.tuples(TEXT, MONEY, st.integers(0, 10**6)), max_size=40),
    reasons=st.lists(st.tuples(TEXT, TEXT, MONEY, MONEY), min_size=1, max_size=12),
    parties=st.lists(TEXT, min_size=6, max_size=6),
    remarks=st.lists(TEXT, max_size=12),
)
def test_any_verdict_keeps_to_slacks_limits(
    currency: str, products: list[Any], reasons: list[Any], parties: list[str], remarks: list[str]
) -> None:
    """Any verdict at all makes a message that Slack takes."""
    verdict = Verdict(
        at_ms=1,
        total=Decimal("1E-7"),
        currency=currency,
        severity=Severity.CRITICAL,
        reasons=tuple(
            Reason(code, text, observed, limit, observed, Severity.HIGH)
            for code, text, observed, limit in reasons
        ),
        products=tuple(Share(name, cost, Decimal(0), count) for name, cost, count in products),
        remarks=tuple(remarks),
    )
    call = Call(parties[0], 1, 2, parties[1], parties[2], parties[3], parties[4], parties[5], 3)
    check_limits(build_payload(alert(call=call, verdict=verdict, severity=Severity.CRITICAL)))
