"""Slack's Block Kit in the terminal: what a reader of the demonstration's alerts sees."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from rich.console import Console

from tests.world.draw import Reader, colour_of, draw, mrkdwn

_NOON = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
_TODAY = 1_774_000_000  # 2026-03-20 09:46:40 UTC
_READER = Reader(_NOON, UTC)


def _shown(payload: Mapping[str, Any], width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(draw(payload, at=_NOON, zone=UTC))
    return captured.get()


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


class TestMrkdwn:
    """Slack's markup inside a text."""

    @pytest.mark.parametrize(
        ("source", "shown"),
        [
            ("*bold* _slanted_ ~gone~", "bold slanted gone"),
            ("2*3*4 and snake_case_name", "2*3*4 and snake_case_name"),
            ("`*code*`", " *code* "),
            ("a &lt;b&gt; &amp; c", "a <b> & c"),
            ("&amp;lt;", "&lt;"),
            (":red_circle: :large_orange_circle: :no_such_thing:", "🔴 🟠 :no_such_thing:"),
            ("12:30:45", "12:30:45"),
            ("<https://telnyx.com|Telnyx> <https://x.y>", "Telnyx https://x.y"),
            ("<#C1|billing>", "#billing"),
            ("*<https://telnyx.com|bold link>*", "bold link"),
        ],
    )
    def test_reads_slacks_markup(self, source: str, shown: str) -> None:
        """Bold, code, links, emoji and the three escapes are shown as Slack shows them."""
        assert mrkdwn(source, _READER).plain == shown

    @pytest.mark.parametrize("source", ["<!channel>", "<@U123>", "<!subteam^S1|@oncall>"])
    def test_makes_mentions_stand_out(self, source: str) -> None:
        """A message that would page people is seen to do so."""
        text = mrkdwn(source, _READER)
        assert text.plain.startswith("@")
        assert "yellow" in str(text.spans[0].style)

    def test_does_not_mention_anybody_in_escaped_text(self) -> None:
        """What was escaped stays text."""
        text = mrkdwn("&lt;!channel&gt;", _READER)
        assert text.plain == "<!channel>"
        assert not text.spans

    def test_keeps_a_preformatted_table_together(self) -> None:
        """Preformatted lines stand on their own, padded to one width."""
        lines = mrkdwn("Costs:\n```AI   1\nInference  2```", _READER).plain.split("\n")
        assert lines == ["Costs:", " AI   1       ", " Inference  2 "]

    def test_links_can_be_opened(self) -> None:
        """A terminal that knows links gets the link's target."""
        text = mrkdwn("<https://a.b/?x=1&amp;y=2|here>", _READER)
        assert "link https://a.b/?x=1&y=2" in str(text.spans[0].style)


class TestDates:
    """Slack's date format, which each reader sees in their own zone."""

    @pytest.mark.parametrize(
        ("form", "shown"),
        [
            ("{date_short_pretty} {time_secs}", "today 09:46:40"),
            ("{date_num} {time}", "2026-03-20 09:46"),
            ("{date_long}", "Friday, March 20, 2026"),
            ("at {no_such_part}", "at {no_such_part}"),
        ],
    )
    def test_are_shown_in_the_readers_words(self, form: str, shown: str) -> None:
        """Slack's date format, with today and its neighbours by name."""
        assert mrkdwn(f"<!date^{_TODAY}^{form}|fallback>", _READER).plain == shown

    def test_are_shown_in_the_readers_zone(self) -> None:
        """Another zone may have another day."""
        reader = Reader(_NOON, timezone(timedelta(hours=-11)))
        source = f"<!date^{_TODAY}^{{date_short_pretty}} {{time}}|fallback>"
        assert mrkdwn(source, reader).plain == "yesterday 22:46"


class TestMessage:
    """A whole payload."""

    def test_shows_every_block_of_an_alert(self) -> None:
        """Header, sections with fields, context, divider and buttons all appear, in order."""
        buttons = [{"type": "button", "text": _plain("Open"), "url": "https://x.y"}]
        fields = [_plain("left"), {"type": "mrkdwn", "text": "*right*"}, _plain("below")]
        shown = _shown(
            {
                "text": "not shown beside blocks",
                "blocks": [
                    {"type": "header", "text": _plain(":red_circle: 7.30 USD for one call")},
                    _section("*Why:* too dear"),
                    {"type": "section", "fields": fields},
                    {"type": "divider"},
                    {"type": "actions", "elements": buttons},
                    {"type": "context", "elements": [_plain("Also: a remark")]},
                ],
            }
        )
        expected = ["tollwatch", "APP", "12:00", "🔴 7.30 USD for one call", "Why: too dear"]
        expected += ["left", "right", "below", "────", "Open", "Also: a remark"]
        places = [shown.index(text) for text in expected]
        assert places == sorted(places)
        assert "not shown" not in shown

    def test_has_a_bar_at_its_left(self) -> None:
        """Every line of a message, wrapped ones too, stands beside the bar."""
        shown = _shown({"blocks": [_section("word " * 40)]}, width=40)
        assert all(line.startswith("▌") for line in shown.splitlines())

    def test_shows_the_text_where_there_are_no_blocks(self) -> None:
        """A plain message is its text."""
        assert "only this" in _shown({"text": "only *this*"})

    def test_shows_rich_text(self) -> None:
        """Lists, links and emoji of a rich text block."""
        item = {
            "type": "rich_text_section",
            "elements": [
                {"type": "text", "text": "one ", "style": {"bold": True}},
                {"type": "emoji", "name": "tada"},
                {"type": "link", "url": "https://x.y", "text": "two"},
                {"type": "date", "timestamp": _TODAY, "format": " {time}", "fallback": "?"},
                {"type": "broadcast", "range": "here"},
            ],
        }
        listed = {"type": "rich_text_list", "style": "ordered", "elements": [item]}
        quoted = {"type": "rich_text_quote", "elements": item["elements"]}
        code = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "x = 1"}]}
        shown = _shown({"blocks": [{"type": "rich_text", "elements": [listed, quoted, code]}]})
        assert "1. one 🎉two 09:46@here" in shown
        assert "▏ one" in shown
        assert " x = 1 " in shown

    def test_names_a_block_that_it_does_not_know(self) -> None:
        """Nothing is left out without a word."""
        assert "[video block]" in _shown({"blocks": [{"type": "video"}]})

    def test_takes_its_colour_from_the_first_sign(self) -> None:
        """A critical alert is red, one without a sign grey."""
        header = {"type": "header", "text": _plain(":large_orange_circle: 7.30 :red_circle:")}
        assert colour_of({"blocks": [header]}) == "dark_orange"
        assert colour_of({"text": "nothing special"}) == "grey50"

    def test_shows_attachments(self) -> None:
        """The older way of giving a message a colour."""
        attached = {"color": "#ff0000", "blocks": [_section("inside")]}
        assert "inside" in _shown({"text": "outside", "attachments": [attached]})

    def test_leaves_its_input_alone(self) -> None:
        """Drawing is a pure function of payload and reader."""
        payload = {"blocks": [_section("*a*")]}
        assert _shown(payload) == _shown(payload)
        assert payload == {"blocks": [_section("*a*")]}
