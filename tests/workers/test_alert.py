"""The alert: what a person reads, and what nobody can smuggle into it."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Alert, Call, Reason, Severity, Share, Verdict
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
