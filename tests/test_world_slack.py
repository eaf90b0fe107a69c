"""The simulated Slack: it refuses what Slack refuses and notices whom a message would page."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.world import blockkit
from tests.world.clock import ManualClock
from tests.world.slack import PATH, SlackWorld

pytestmark = pytest.mark.anyio

Block = dict[str, Any]


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def _mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text}


def _section(text: str = "x", **more: Any) -> Block:
    return {"type": "section", "text": _mrkdwn(text), **more}


def _header(text: str) -> Block:
    return {"type": "header", "text": _plain(text)}


def _button(text: str = "Open", url: str = "https://a.test", **more: Any) -> Block:
    return {"type": "button", "text": _plain(text), "url": url, **more}


def _context(*texts: str) -> Block:
    return {"type": "context", "elements": [_mrkdwn(text) for text in texts]}


def _actions(*buttons: Block) -> Block:
    return {"type": "actions", "elements": list(buttons)}


def _fields(count: int, length: int = 1) -> Block:
    return {"type": "section", "fields": [_mrkdwn("x" * length)] * count}


# Each limit from both sides: a block of that size, the largest that fits, what Slack says beyond.
_LIMITS: list[tuple[str, Callable[[int], list[Block]], int]] = [
    ("blocks", lambda n: [{"type": "divider"}] * n, 50),
    ("section text", lambda n: [_section("x" * n)], 3000),
    ("header", lambda n: [_header("x" * n)], 150),
    ("fields", lambda n: [_fields(n)], 10),
    ("field text", lambda n: [_fields(1, n)], 2000),
    ("context elements", lambda n: [_context(*["x"] * n)], 10),
    ("button text", lambda n: [_actions(_button("x" * n))], 75),
    ("url", lambda n: [_actions(_button(url="https://" + "x" * (n - 8)))], 3000),
    ("block id", lambda n: [_section(block_id="x" * n)], 255),
]


class TestBlockKit:
    """Slack's limits."""

    @pytest.mark.parametrize(("build", "most"), [limit[1:] for limit in _LIMITS])
    def test_enforces_each_limit_exactly(
        self, build: Callable[[int], list[Block]], most: int
    ) -> None:
        """The largest size passes, one more is `invalid_blocks`."""
        blockkit.check({"text": "t", "blocks": build(most)})
        with pytest.raises(blockkit.Refused, match="invalid_blocks"):
            blockkit.check({"text": "t", "blocks": build(most + 1)})

    def test_enforces_the_total(self) -> None:
        """Beyond about 13,200 characters it says so in other words."""
        blockkit.check({"blocks": [_section("x" * 3000)] * 4 + [_section("x" * 1200)]})
        with pytest.raises(blockkit.Refused, match="msg_blocks_too_long"):
            blockkit.check({"blocks": [_section("x" * 3000)] * 4 + [_section("x" * 1201)]})

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "sektion", "text": _mrkdwn("x")},
            {"type": "section"},
            {"type": "section", "text": "x"},
            {"type": "section", "text": _mrkdwn("")},
            {"type": "section", "text": {"type": "markdown", "text": "x"}},
            {"type": "section", "text": {**_mrkdwn("x"), "emoji": True}},
            {"type": "section", "fields": []},
            {"type": "header", "text": _mrkdwn("x")},
            {"type": "header"},
            {"type": "context", "elements": []},
            {"type": "actions", "elements": [{"type": "select"}]},
            {"type": "actions", "elements": [_button(style="loud")]},
            {"type": "actions", "elements": [_button(url="javascript:alert(1)")]},
            {"type": "divider", "text": _plain("x")},
            {"type": "image", "image_url": "https://a.test/x.png"},
            "section",
            None,
        ],
    )
    def test_refuses_blocks_that_are_none(self, block: Any) -> None:
        """Unknown types, missing and foreign fields."""
        with pytest.raises(blockkit.Refused, match="invalid_blocks"):
            blockkit.check({"text": "t", "blocks": [block]})

    def test_takes_every_block_that_an_alert_may_want(self) -> None:
        """A usual message passes."""
        image = {"type": "image", "image_url": "https://a.test/x.png", "alt_text": "a chart"}
        blockkit.check(
            {
                "text": "t",
                "blocks": [
                    _header("Dear call"),
                    _section("*why*", fields=[_mrkdwn("a"), _plain("b")], accessory=_button()),
                    {"type": "divider"},
                    {"type": "context", "elements": [_mrkdwn("when"), image]},
                    _actions(_button(style="danger"), _button()),
                    image,
                ],
            }
        )

    @pytest.mark.parametrize(
        ("payload", "word"),
        [
            ([], "invalid_payload"),
            ({}, "no_text"),
            ({"text": 7}, "invalid_payload"),
            ({"text": "x", "blocks": {}}, "invalid_blocks"),
        ],
    )
    def test_refuses_what_is_no_message(self, payload: Any, word: str) -> None:
        """Each with Slack's word for it."""
        with pytest.raises(blockkit.Refused) as caught:
            blockkit.check(payload)
        assert caught.value.word == word


class TestMentions:
    """Whom a message would page."""

    @pytest.mark.parametrize(
        "mention",
        ["<!channel>", "<!here>", "<!everyone>", "<@U012AB>", "<!subteam^S1|ops>", "<!here|x>"],
    )
    def test_finds_them_wherever_markup_is_read(self, mention: str) -> None:
        """In the text itself, in sections, fields and context."""
        for payload in (
            {"text": f"a {mention} b"},
            {"text": "t", "blocks": [_section(mention)]},
            {"text": "t", "blocks": [{"type": "section", "fields": [_mrkdwn(mention)]}]},
            {"text": "t", "blocks": [_context(mention)]},
        ):
            assert blockkit.mentions(payload) == [mention]

    @pytest.mark.parametrize(
        "payload",
        [
            {"text": "&lt;!channel&gt; @here <https://a.test|link> <!date^1^{time}|then>"},
            {"text": "t", "blocks": [_header("<!channel>")]},
        ],
    )
    def test_does_not_cry_wolf(self, payload: Any) -> None:
        """Escaped text, links, dates and plain text page nobody."""
        assert blockkit.mentions(payload) == []


@asynccontextmanager
async def _desk() -> AsyncIterator[tuple[SlackWorld, ManualClock, httpx.AsyncClient]]:
    clock = ManualClock(datetime(2026, 3, 17, tzinfo=UTC))
    slack = SlackWorld(clock=clock)
    transport = httpx.ASGITransport(slack.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://slack.test") as client:
        yield slack, clock, client


class TestServer:
    """The webhook."""

    async def test_takes_and_remembers_a_message(self) -> None:
        """It answers `ok`, and nothing else."""
        async with _desk() as (slack, clock, client):
            got = await client.post(PATH, json={"text": "one", "blocks": [_section("<!here>")]})
            assert (got.status_code, got.text) == (200, "ok")
            assert slack.messages[0].at == clock()
            assert slack.messages[0].text == "one"
            assert "<!here>" in slack.messages[0].all_text
            assert slack.mentions == ["<!here>"]
            slack.clear()
            assert not slack.messages

    @pytest.mark.parametrize(
        ("sent", "word"),
        [
            ({"json": {"text": "x", "blocks": [{"type": "?"}]}}, "invalid_blocks"),
            ({"content": b"{", "headers": {"content-type": "application/json"}}, "invalid_payload"),
            ({"data": {"payload": "{}"}}, "invalid_payload"),
        ],
    )
    async def test_refuses_and_remembers_apart(self, sent: Any, word: str) -> None:
        """A bad message is a 400 with Slack's word, and is not among the messages."""
        async with _desk() as (slack, _, client):
            got = await client.post(PATH, **sent)
            assert (got.status_code, got.text) == (400, word)
            assert not slack.messages
            assert [post.word for post in slack.refused] == [word]

    async def test_knows_only_its_own_webhook(self) -> None:
        """Another secret is `no_service`."""
        async with _desk() as (slack, _, client):
            got = await client.post("/services/T0/B0/OTHER", json={"text": "x"})
            assert (got.status_code, got.text) == (404, "no_service")
            assert not slack.messages

    async def test_limits_the_rate_after_a_burst(self) -> None:
        """One a second after a burst of two; 429 says when to come back, and then it takes it."""
        async with _desk() as (slack, clock, client):
            slack.limit(1, burst=2)
            answers = [await client.post(PATH, json={"text": "x"}) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert answers[2].headers["retry-after"] == "1"
            clock.advance(1)
            assert (await client.post(PATH, json={"text": "x"})).status_code == 200
            assert (await client.post(PATH, json={"text": "x"})).status_code == 429
            assert len(slack.messages) == 3

    async def test_final_words_on_demand(self) -> None:
        """403, 404, 410 and 500 as often as wanted."""
        async with _desk() as (slack, _, client):
            slack.refuse(403, "invalid_token", times=2)
            slack.faults.status(500)
            answers = [await client.post(PATH, json={"text": "x"}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [403, 403, 500, 200]
        assert answers[0].text == "invalid_token"
