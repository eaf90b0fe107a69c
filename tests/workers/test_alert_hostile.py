"""Hostile words in every field of an alert: Slack shows them, and does nothing that they say."""

import re
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import (
    Alert,
    Call,
    Notice,
    Reason,
    Severity,
    Share,
    Summary,
    Verdict,
)
from tests.world import blockkit
from workers.alert import build_payload
from workers.summary import Tally, build_notice, build_summary

EVIL: Final = "EV1L"
_MARKUP: Final = (
    f"<!channel> {EVIL}",
    f"<!here|{EVIL}>",
    f"<@U123{EVIL}>",
    f"<!subteam^S1|{EVIL}>",
    f"<https://{EVIL}|click>",
    f"&lt;!channel&gt; {EVIL}",
    f"*{EVIL}*",
    f"_{EVIL}_",
    f"~{EVIL}~",
    f"`{EVIL}`",
    f"```{EVIL}```",
    f"` {EVIL} `` {EVIL}",
    f"\n> {EVIL}",
    f"\n• {EVIL}",
    f"```\n*{EVIL}*",
    f"\u202e{EVIL}\u2066",
    f"\x1b[2J{EVIL}\x9b",
    f"\x00\r\n{EVIL}\u2028{EVIL}",
    f"{'x' * 5000}{EVIL}",
    f"{EVIL}{'&' * 3000}",
    f":skull: {EVIL}",
    "",
    " ",
)
TEXT: Final = st.sampled_from(_MARKUP) | st.text(max_size=60).map(lambda text: EVIL + text)
MONEY: Final = st.decimals(0, 10**9, places=4)
_CODE: Final = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
# Ours: Slack's own date format, and two links to Telnyx's pages.
_OURS: Final = re.compile(
    r"<!date\^\d+\^[^|<>]*\|[^<>]*>|<https://\w+\.telnyx\.com/[^<>|]*\|[\w ]+>"
)

REASONS: Final = st.builds(
    Reason,
    code=TEXT | st.sampled_from(["session_cost", "product_cost", "product_events"]),
    text=TEXT,
    observed=MONEY,
    limit=MONEY,
    excess=MONEY,
    severity=st.sampled_from(Severity),
    product=TEXT,
)
VERDICTS: Final = st.builds(
    Verdict,
    at_ms=st.just(1),
    total=MONEY,
    currency=TEXT,
    severity=st.sampled_from(Severity),
    excess=MONEY,
    reasons=st.lists(REASONS, min_size=1, max_size=7).map(tuple),
    remarks=st.lists(TEXT, max_size=6).map(tuple),
    products=st.lists(
        st.builds(Share, TEXT, MONEY, st.decimals(0, 1, places=3), st.integers(0, 10**6)),
        max_size=12,
    ).map(tuple),
)
CALLS: Final = st.builds(
    Call,
    session_id=TEXT,
    start_ms=st.none() | st.integers(1, 10**13),
    end_ms=st.none() | st.integers(1, 10**13),
    direction=TEXT,
    connection_id=TEXT,
    assistant_id=TEXT,
    from_number=TEXT,
    to_number=TEXT,
)
ALERTS: Final = st.builds(
    Alert,
    id=TEXT,
    call=CALLS,
    verdict=VERDICTS,
    severity=st.sampled_from(Severity),
    decided_ms=st.just(1),
)


def marked_up(data: Any) -> list[str]:
    """The texts in which Slack reads markup, but for the message's own."""
    if isinstance(data, dict):
        here = [data["text"]] if data.get("type") == "mrkdwn" else []
        return here + [text for value in data.values() for text in marked_up(value)]
    if isinstance(data, list):
        return [text for value in data for text in marked_up(value)]
    return []


NOTICES: Final = st.builds(
    Notice,
    id=TEXT,
    kind=TEXT,
    at_ms=st.just(1),
    text=TEXT,
    details=st.lists(TEXT, max_size=12).map(tuple),
)


@given(alert=ALERTS, repeated=st.booleans())
def test_no_words_from_outside_act_in_an_alert(alert: Alert, *, repeated: bool) -> None:
    """They page nobody, link nowhere, format nothing and hide nothing; and Slack takes it all."""
    look_at(build_payload(alert, repeated=repeated))


@pytest.mark.no_cover
@given(alerts=st.lists(ALERTS, max_size=14))
def test_no_words_from_outside_act_in_a_summary(alerts: list[Alert]) -> None:
    """Nor do they where many alerts are told in one message."""
    tally = Tally()
    for alert in alerts:
        tally.add(alert)
    look_at(build_summary(Summary("1:x", 1, len(alerts), ("cap",)), tally))


@given(notice=NOTICES)
def test_no_words_from_outside_act_in_a_notice(notice: Notice) -> None:
    """Nor do they in what the operators are told, which may repeat a vendor's words."""
    look_at(build_notice(notice))


def look_at(payload: dict[str, Any]) -> None:
    """Nothing in it acts."""
    blockkit.check(payload)
    assert blockkit.mentions(payload) == []
    for text in marked_up(payload["blocks"]):
        outside = _CODE.sub("", text)
        assert EVIL not in outside
        assert "`" not in outside
        assert not re.search(r"[<>]", _OURS.sub("", text))
    for text in (payload["text"], *blockkit.texts(payload["blocks"])):
        assert text.replace("\n", "").isprintable()
    assert not re.search(r"[<>]", payload["text"])
    assert "\n" not in payload["text"]


def test_what_is_taken_for_ours_is_there() -> None:
    """The shapes that the property takes for ours are the ones that an alert has."""
    reason = Reason("session_cost", "x", Decimal(9), Decimal(5), Decimal(4), Severity.LOW)
    verdict = Verdict(
        at_ms=1, total=Decimal(9), currency="USD", reasons=(reason,), severity=Severity.LOW
    )
    alert = Alert("a", Call("s", start_ms=10**12), verdict, Severity.LOW, 1)
    assert len(_OURS.findall("".join(marked_up(build_payload(alert)["blocks"])))) == 3
