"""An alert is told, told later or handed to people; Slack's URL is never told to anybody."""

import asyncio
import logging
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.workers.servers import (
    Request,
    Script,
    Server,
    answering,
    for_ever,
    head,
    reset,
    serving,
)
from workers.slack import SlackClient
from workers.slack_answer import (
    Closed,
    Outcome,
    Posted,
    RateLimited,
    Rejected,
    Transient,
    outcome_of,
)
from workers.transport import Timeouts

NOW = datetime(2026, 3, 17, 10, 0, 0, tzinfo=UTC)
SECRET = "T0SECRET/B0SECRET/x0SECRETx0SECRETx0SECRE"
PAYLOAD = {"text": "0.2128 USD – ünusual", "blocks": [{"type": "section"}]}
HASTY = Timeouts(connect=5, pool=5, read=0.2, total=5)


def hook(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/services/{SECRET}?query={SECRET}"


async def post(script: Script) -> Outcome:
    async with serving(script) as server, SlackClient(hook(server), timeouts=HASTY) as slack:
        return await slack.post(PAYLOAD)


@pytest.mark.parametrize("body", [b"ok", b"ok\n", b'{"ok": true}'])
def test_ok_is_posted(body: bytes) -> None:
    """Slack says `ok`; a workflow's trigger says it in JSON."""
    assert outcome_of(200, {}, body) == Posted()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 1),
        ("99999", 3600),
        ("soon", 30),
        ("", 30),
        ("-1", 30),
        ("Tue, 17 Mar 2026 10:01:30 GMT", 90),
    ],
)
def test_a_rate_limit_says_when(value: str, seconds: int) -> None:
    """`Retry-After` is obeyed within bounds; junk gives half a minute."""
    assert outcome_of(429, {"retry-after": value}, b"", now=NOW) == RateLimited(seconds)
    assert outcome_of(429, {}, b"rate_limited") == RateLimited(30)


def both_shapes(word: str) -> tuple[bytes, bytes]:
    return word.encode(), msgspec.json.encode({"ok": False, "error": word})


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "invalid_payload"),
        (400, "no_text"),
        (400, "msg_blocks_too_long"),
        (200, "invalid_blocks"),
    ],
)
def test_what_slack_says_of_the_message_is_the_messages_own(status: int, word: str) -> None:
    """Its words for a bad payload are about this payload, and no reason to hold back others."""
    for body in both_shapes(word):
        outcome = outcome_of(status, {}, body)
        assert isinstance(outcome, Rejected)
        assert outcome.certain
        assert outcome.reason.endswith(word)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (403, "action_prohibited"),
        (403, "invalid_token"),
        (404, "no_service"),
        (404, "channel_not_found"),
        (410, "channel_is_archived"),
        (400, "user_not_found"),
        (200, "channel_not_found"),
    ],
)
def test_what_slack_says_of_the_channel_is_no_alerts_fault(status: int, word: str) -> None:
    """A revoked webhook or an archived channel takes nothing until somebody mends it."""
    for body in both_shapes(word):
        outcome = outcome_of(status, {}, body)
        assert isinstance(outcome, Closed)
        assert outcome.reason.endswith(word)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
def test_a_refusal_without_a_word_is_the_channels(status: int) -> None:
    """A page instead of a word loses no alert, and is not repeated: it may hold the URL."""
    outcome = outcome_of(status, {}, f"<html>{SECRET}</html>".encode())
    assert isinstance(outcome, Closed)
    assert SECRET not in outcome.reason
    assert outcome.reason.startswith(str(status))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_without_a_word_may_be_either(status: int) -> None:
    """Whether it is the message shows when a plain one is sent: it is not certain."""
    outcome = outcome_of(status, {}, f"<html>{SECRET}</html>".encode())
    assert isinstance(outcome, Rejected)
    assert not outcome.certain
    assert SECRET not in outcome.reason


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 425, 301, 302, 307, 0, 999])
def test_passing_trouble_is_transient(status: int) -> None:
    """An answer that is no receipt leaves no doubt: the message has not arrived."""
    outcome = outcome_of(status, {}, b"rollup_error")
    assert isinstance(outcome, Transient)
    assert outcome.reason.endswith(": rollup_error")
    assert not outcome.maybe_posted


@pytest.mark.parametrize("status", [201, 202, 204])
def test_an_odd_success_leaves_a_doubt(status: int) -> None:
    """Slack never answers so; whoever did may have handed the message on."""
    outcome = outcome_of(status, {}, b"")
    assert isinstance(outcome, Transient)
    assert outcome.maybe_posted


@pytest.mark.parametrize("body", [b"", b"<html>Log in</html>", b"{}", b"\xff", b"[" * 100_000])
def test_a_200_without_ok_is_not_taken_for_posted(body: bytes) -> None:
    """A captive portal's page is no receipt, nor proof that nothing was posted."""
    assert outcome_of(200, {}, body) == Transient("200 without Slack's ok", maybe_posted=True)


@given(st.integers(-1, 1000), st.binary(max_size=100), st.text(max_size=40))
def test_nothing_raises(status: int, body: bytes, value: str) -> None:
    """Whatever comes has an outcome."""
    outcome = outcome_of(status, {"retry-after": value}, body, now=NOW)
    assert outcome.name in {"posted", "rate_limited", "transient", "closed", "rejected"}


@pytest.mark.anyio
async def test_the_payload_is_posted_as_json() -> None:
    """One POST with the message as UTF-8 JSON, to the configured URL."""
    async with (
        serving(answering(200, b"ok")) as server,
        SlackClient(SecretStr(hook(server)), version="1.2.3") as slack,
    ):
        assert await slack.post(PAYLOAD) == Posted()
    [request] = server.requests
    assert (request.method, request.target) == ("POST", f"/services/{SECRET}?query={SECRET}")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "tollwatch/1.2.3"
    assert request.headers["content-length"] == str(len(request.body))
    assert msgspec.json.decode(request.body) == PAYLOAD


@pytest.mark.anyio
async def test_every_post_has_its_own_connection() -> None:
    """A kept connection that Slack is closing would leave in doubt whether a post arrived."""
    async with serving(answering(200, b"ok")) as server, SlackClient(hook(server)) as slack:
        for _ in range(3):
            assert await slack.post(PAYLOAD) == Posted()
    assert server.connections == 3


@pytest.mark.anyio
async def test_slacks_answers_reach_the_reading() -> None:
    """Status, headers and body decide."""
    assert await post(answering(429, b"", {"Retry-After": "7"})) == RateLimited(7)
    assert await post(answering(404, b"no_service")) == Closed("404 Not Found: no_service")
    assert await post(answering(503)) == Transient("503 Service Unavailable")


async def stall(_request: Request, _writer: asyncio.StreamWriter) -> None:
    await for_ever()


async def break_off(_request: Request, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def close(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.anyio
@pytest.mark.parametrize("script", [stall, break_off, close])
async def test_silence_after_the_body_leaves_a_doubt(script: Script) -> None:
    """Once the body is out, no answer does not mean no message."""
    outcome = await post(script)
    assert isinstance(outcome, Transient)
    assert outcome.maybe_posted


def cut_after(status: int) -> Script:
    """An answer that ends after its head and a part of its body."""

    async def script(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, 100) + b"o")
        await writer.drain()
        writer.close()

    return script


@pytest.mark.anyio
async def test_a_200_whose_body_is_lost_is_posted() -> None:
    """Slack says 200 only of what it has taken, so the message is there."""
    assert await post(cut_after(200)) == Posted()


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 404])
async def test_a_failure_whose_body_is_lost_leaves_no_doubt(status: int) -> None:
    """The status alone says that nothing was posted."""
    outcome = await post(cut_after(status))
    assert isinstance(outcome, Transient)
    assert not outcome.maybe_posted


@pytest.mark.anyio
async def test_a_page_instead_of_an_ok_is_no_receipt() -> None:
    """A 200 with far too much behind it does not come from Slack."""
    outcome = await post(answering(200, b"x" * 100_000))
    assert isinstance(outcome, Transient)
    assert outcome.maybe_posted


@pytest.mark.anyio
async def test_without_a_connection_nothing_was_posted() -> None:
    """A closed port leaves no doubt."""
    async with serving(answering()) as server:
        url = hook(server)
    async with SlackClient(url) as slack:
        assert await slack.post(PAYLOAD) == Transient("ClientConnectorError", maybe_posted=False)


@pytest.mark.anyio
async def test_a_redirect_is_not_followed() -> None:
    """An alert goes to no host but the configured one."""
    async with serving(answering(200, b"ok")) as elsewhere:
        outcome = await post(answering(307, b"", {"Location": elsewhere.url}))
    assert isinstance(outcome, Transient)
    assert elsewhere.requests == []


@pytest.mark.anyio
async def test_a_cancellation_passes_through() -> None:
    """A worker that shuts down hears of it, and does not count a failure."""
    async with serving(stall) as server, SlackClient(hook(server)) as slack:
        posting = asyncio.ensure_future(slack.post(PAYLOAD))
        await server.asked.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script",
    [answering(200, b"ok"), answering(404, SECRET.encode()), answering(500), break_off, stall],
)
async def test_the_url_is_a_secret(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """It is in no log at any level, no outcome and no repr; httpx logs every URL it knows."""
    caplog.set_level(logging.DEBUG)
    async with serving(script) as server, SlackClient(hook(server), timeouts=HASTY) as slack:
        outcome = await slack.post(PAYLOAD)
        shown = repr(outcome) + repr(slack) + repr(vars(slack)) + caplog.text
    assert "SECRET" not in shown


@pytest.mark.anyio
async def test_the_url_is_a_secret_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of the network name the host at most."""
    caplog.set_level(logging.DEBUG)
    async with serving(answering()) as server:
        url = hook(server)
    async with SlackClient(url) as slack:
        assert "SECRET" not in repr(await slack.post(PAYLOAD))
    assert "SECRET" not in caplog.text
