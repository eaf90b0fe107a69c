"""The summary and the notice: exact sums, Slack's limits, and nothing smuggled in."""

from decimal import Context, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Alert, Notice, Severity, Summary, decode_notice, encode
from tests.alerts import alert_of
from tests.samples import END_MS
from tests.world import blockkit
from workers.judge import CODES
from workers.summary import _REASONS, Tally, build_notice, build_summary

_WIDE = Context(prec=90)
SUMMARY = Summary("17:summary", END_MS, 3, ("cap", "outage"))


def tally_of(*alerts: Alert) -> Tally:
    tally = Tally()
    for alert in alerts:
        tally.add(alert)
    return tally


def text_of(payload: dict[str, Any]) -> str:
    return "\n".join(blockkit.texts(payload))


def test_a_summary_names_number_total_causes_and_the_dearest() -> None:
    """How many calls, how much too much in all, why, which causes, which calls, and what to do."""
    tally = tally_of(
        alert_of("a", Severity.HIGH, assistant_id="bot", excess="10.05"),
        alert_of("b", Severity.LOW, assistant_id="bot", excess="0.30"),
        alert_of("c", Severity.MEDIUM, code="double_charge", excess="2"),
    )
    payload = build_summary(SUMMARY, tally)
    blockkit.check(payload)
    assert payload["text"] == (
        "High: 3 calls, 12.35 USD too much in all. In one message, because more alerts came than "
        "may be posted one by one, and Slack took no messages for a while"
    )
    told = text_of(payload)
    order = [
        ":large_orange_circle: High: 3 calls, 12.35 USD",
        "because more alerts came",
        "1 high, 1 medium, 1 low",
        "10.35 USD       2 ×  dear session, assistant bot",
        "2.00 USD       1 ×  charged twice, connection of c",
        "10.05 USD too much (high): `a`",
        "2.00 USD too much (medium): `c`",
        "`tollwatch alerts --summary 17`",
    ]
    places = [told.index(words) for words in order]
    assert places == sorted(places)


def test_a_call_that_grew_dearer_counts_once() -> None:
    """Of several alerts of one call only the last one's excess is in the sum, in any order."""
    mild = alert_of("a", Severity.LOW, excess="0.5")
    worse = alert_of("a", Severity.HIGH, excess="7", at_ms=END_MS + 1)
    for order in ((mild, worse), (worse, mild)):
        tally = tally_of(*order)
        assert (tally.totals, tally.alerts) == ({"USD": Decimal(7)}, 2)
        assert "(2 alerts)" in text_of(build_summary(SUMMARY, tally))


def test_currencies_are_never_added_up() -> None:
    """Each currency has a sum of its own; junk in its place has one, too."""
    tally = tally_of(
        alert_of("a", excess="3", currency="EUR"),
        alert_of("b", excess="4"),
        alert_of("c", excess="1", currency="<!channel>"),
    )
    assert tally.totals == {"USD": 4, "EUR": 3, "(unknown currency)": 1}
    assert "4.00 USD, 3.00 EUR, 1.00 (unknown currency) too much" in text_of(
        build_summary(SUMMARY, tally)
    )


@given(st.lists(st.decimals("1E-24", "1E+15", places=24), min_size=1, max_size=50))
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    """No sum of amounts that are money is rounded."""
    tally = tally_of(*(alert_of(f"s{n}", excess=str(a)) for n, a in enumerate(amounts)))
    scaled = sum(int(amount.scaleb(24, context=_WIDE)) for amount in amounts)
    assert int(tally.totals["USD"].scaleb(24, context=_WIDE)) == scaled
    ((_, _, count, excess),) = tally_of(
        *(alert_of(f"s{n}", excess=str(a), assistant_id="x") for n, a in enumerate(amounts))
    ).causes
    assert (count, excess) == (len(amounts), tally.totals["USD"])


def test_what_is_not_sure_is_said() -> None:
    """Alerts that cannot be read or may have been told, and a summary that may have been."""
    tally = tally_of(alert_of("a"))
    tally.add(alert_of("b"), repeated=True)
    tally.unreadable = 2
    payload = build_summary(SUMMARY, tally, repeated=True)
    told = text_of(payload)
    assert "2 of the alerts cannot be read" in told
    assert "1 of the alerts may have been told before" in told
    assert "Perhaps told before" in told
    assert "perhaps told before" in payload["text"]


def test_a_summary_of_nothing_readable_is_a_message_still() -> None:
    """If every alert is of a newer version, the summary says how many there are."""
    tally = Tally(unreadable=4)
    payload = build_summary(Summary("1:summary", END_MS, 4, ()), tally)
    blockkit.check(payload)
    assert "4 of the alerts cannot be read" in text_of(payload)


def test_many_causes_are_cut() -> None:
    """The largest ten are shown, and how many more there are with how many calls."""
    alerts = [alert_of(f"s{n}", assistant_id=f"bot{n}", excess=str(n + 1)) for n in range(14)]
    told = text_of(build_summary(SUMMARY, tally_of(*alerts)))
    assert "assistant bot13" in told
    assert "assistant bot3\n" not in told
    assert "and 4 more causes with 4 calls" in told


@pytest.mark.parametrize("code", CODES)
def test_every_reason_has_words(code: str) -> None:
    """Whatever the judge found can be said in a summary."""
    assert code in _REASONS


HOSTILE = ("<!channel>", "```", "`x`", "<@U1>", "a\nb", "\x1b[31m", "x" * 5000, "<https://e|c>")


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_from_outside_mentions_links_or_breaks_out(word: str) -> None:
    """Whatever stands in ids, codes and notices is shown as text, within Slack's limits."""
    alerts = [
        alert_of(f"{word}{n}", assistant_id=f"{word}{n}", code=word, currency=word)
        for n in range(20)
    ]
    notice = Notice(word, word, END_MS, word, (word,) * 30)
    for payload in (build_summary(SUMMARY, tally_of(*alerts)), build_notice(notice)):
        blockkit.check(payload)
        assert list(blockkit.mentions(payload)) == []
        assert "<https://e" not in str(payload)
        for text in [payload["text"], *blockkit.texts(payload)]:
            assert "\x1b" not in text
            assert text.count("```") % 2 == 0 or "```" in word


TEXT = st.text(max_size=300)


@given(text=TEXT, details=st.lists(TEXT, max_size=30).map(tuple))
def test_any_notice_is_one_that_slack_takes(text: str, details: tuple[str, ...]) -> None:
    """Any words at all make a message, which says that it is about tollwatch and no call."""
    payload = build_notice(Notice("n", "kind", END_MS, text, details))
    blockkit.check(payload)
    assert payload["text"].startswith("tollwatch: ")
    assert "not about a call" in text_of(payload)


def test_a_notice_survives_what_a_newer_version_adds() -> None:
    """A notice with fields that this version does not know is read all the same."""
    notice = Notice("n", "outage", END_MS, "x", ("y",))
    newer = msgspec.json.decode(encode(notice)) | {"novel": 1}
    assert decode_notice(msgspec.json.encode(newer)) == notice
