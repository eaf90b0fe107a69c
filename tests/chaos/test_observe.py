"""Whom a message is about."""

import json

import pytest

from tests.chaos.accounting import SUMMARY, Message
from tests.chaos.observe import read_message, refused_for_good, told
from tests.world.slack import Posted, RefusedPost, SlackWorld

_ID = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"


def _payload(text: str, *sections: str) -> dict[str, object]:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": s}} for s in sections]
    return {"text": text, "blocks": blocks}


def _posted(text: str, *sections: str) -> Posted:
    return Posted(1.0, _payload(text, *sections))


def test_an_alert_is_about_its_session() -> None:
    """Severity and session are read from wherever the message has them."""
    text = "Medium: 8.05 USD for one call"
    message = read_message(_posted(text, f"*Session:* `{_ID}`"))
    assert message == Message(1.0, _ID, "medium", text)


@pytest.mark.parametrize(
    "posted",
    [
        _posted("tollwatch: Telnyx refuses the key", "for 2 minutes"),
        _posted("", "nothing"),
    ],
    ids=["notice", "empty"],
)
def test_a_notice_is_about_nobody(posted: Posted) -> None:
    """What says no severity and no session tells of none."""
    assert read_message(posted).session_id is None


def test_a_summary_is_about_many() -> None:
    """It has its number, even though it names some of its sessions."""
    text = "High: 3 calls, 30 USD too much in all"
    told_of = read_message(_posted(text, f"`{_ID}`", "• All: `tollwatch alerts --summary 3`"))
    assert told_of == Message(1.0, "3", SUMMARY, text)


def test_what_slack_took_and_what_it_refused_for_good_are_told_apart() -> None:
    """A 429 is no final word."""
    slack = SlackWorld()
    body = json.dumps(_payload("Low: 5.30 USD", _ID), separators=(",", ":")).encode()
    assert (told(slack), refused_for_good(slack)) == (set(), frozenset())
    slack.messages.append(_posted("Low: 5.30 USD", _ID))
    slack.refused.append(RefusedPost(1.0, 429, "rate_limited", body=body))
    assert told(slack) == {(_ID, "low")}
    assert refused_for_good(slack) == frozenset()
    slack.refused.append(RefusedPost(1.0, 404, "no_service", body=body))
    assert refused_for_good(slack) == {(_ID, "low")}
