"""The client asks as Telnyx's guide says, and survives every way in which an answer can fail."""

import asyncio
import gzip
import logging
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from pydantic import SecretStr
from telnyx import AsyncTelnyx

from tests.workers.servers import Request, Script, answering, for_ever, head, reset, serving
from tests.workers.trees import guide, wire
from workers.answer import Invalid, Meaning, NotReady, RateLimited, Ready, Refused, Transient
from workers.metadata import RecordType, RecordTypes
from workers.telnyx import TelnyxClient
from workers.transport import Timeouts

pytestmark = pytest.mark.anyio

TREE = wire(guide())
KEY = "KEY0189SECRETSECRET_abc"
ID = "4c9d22b0-1e4b-11f1-83a0-02420aef51a1"
PATIENT = Timeouts(connect=5, pool=5, read=5, total=10)


def client(url: str, **options: Any) -> TelnyxClient:
    return TelnyxClient(url, KEY, version="1.2.3", **{"timeouts": PATIENT, **options})


async def ask(script: Script, **options: Any) -> Meaning:
    """One question to a server that follows the script."""
    async with serving(script) as server, client(server.url, **options) as telnyx:
        return await telnyx.analysis("call-session", ID)


async def test_the_request_is_the_one_of_the_guide() -> None:
    """Path, parameters and headers are exactly those that the contract promises."""
    async with serving(answering(200, TREE)) as server, client(server.url) as telnyx:
        meaning = await telnyx.analysis("call-session", ID, date_time=date(2026, 3, 17))
    assert isinstance(meaning, Ready)
    [request] = server.requests
    assert request.method == "GET"
    assert request.target == (
        f"/v2/session_analysis/call-session/{ID}"
        "?include_children=true&max_depth=5&expand=record&date_time=2026-03-17"
    )
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"] == "tollwatch/1.2.3"


async def test_the_day_is_optional_and_the_rest_can_be_chosen() -> None:
    """Without a day Telnyx searches everywhere."""
    async with serving(answering(200, TREE)) as server, client(server.url + "/") as telnyx:
        await telnyx.analysis("inference", ID, include_children=False, max_depth=1, expand="none")
    assert server.requests[0].target == (
        f"/v2/session_analysis/inference/{ID}?include_children=false&max_depth=1&expand=none"
    )


async def test_telnyxs_own_client_asks_the_same() -> None:
    """A second opinion on our reading of the API: their SDK sends the same path and parameters."""
    async with serving(answering(200, TREE)) as server:
        async with client(server.url) as ours:
            await ours.analysis("call-session", ID, date_time=date(2026, 3, 17))
        async with AsyncTelnyx(api_key=KEY, base_url=server.url) as theirs:
            await theirs.session_analysis.retrieve(
                ID,
                record_type="call-session",
                date_time=date(2026, 3, 17),  # type: ignore[arg-type]
                expand="record",
                include_children=True,
                max_depth=5,
            )
    mine, their = (urlsplit(request.target) for request in server.requests)
    assert mine.path == their.path
    assert dict(parse_qsl(mine.query)) == dict(parse_qsl(their.query))


@pytest.mark.parametrize(
    ("event_id", "sent"),
    [
        ("../../x?y", "..%2F..%2Fx%3Fy"),
        ("//evil.example/x", "%2F%2Fevil.example%2Fx"),
        ("http://evil.example/", "http:%2F%2Fevil.example%2F"),
        ("x#y", "x%23y"),
        ("%2e%2e", "%252e%252e"),
        ("a%2Fb", "a%252Fb"),
        ("x\\y", "x%5Cy"),
        ("v3:abc_-~", "v3:abc_-~"),
        ("ü", "%C3%BC"),
    ],
)
async def test_an_id_from_outside_is_one_path_segment(event_id: str, sent: str) -> None:
    """No id changes the path, the parameters or the host."""
    async with serving(answering(404)) as server, client(server.url) as telnyx:
        await telnyx.analysis("call-session", event_id)
    assert server.requests[0].target == (
        f"/v2/session_analysis/call-session/{sent}?include_children=true&max_depth=5&expand=record"
    )
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("part", ["", ".", "..", "a\r\nHost: x", "a\x00", "\ud800", "x" * 201])
async def test_what_is_no_id_is_never_sent(part: str) -> None:
    """A segment that libraries would fold away or refuse is our own mistake."""
    async with serving(answering(404)) as server, client(server.url) as telnyx:
        for meaning in (
            await telnyx.analysis("call-session", part),
            await telnyx.analysis(part, ID),
            await telnyx.record_type(part),
        ):
            assert isinstance(meaning, Invalid)
            assert meaning.status == 0
    assert server.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """The key goes to no host but the configured one."""
    async with serving(answering(200, TREE)) as elsewhere:
        meaning = await ask(answering(status, b"", {"Location": elsewhere.url + "/x"}))
    assert isinstance(meaning, Transient)
    assert elsewhere.requests == []


async def test_each_answer_has_its_meaning() -> None:
    """Status, headers and body reach the pure reading."""
    body = msgspec.json.encode({"errors": [{"code": "10005", "message": "Event not found"}]})
    assert await ask(answering(404, body)) == NotReady(404, "404 Not Found: 10005, Event not found")
    assert await ask(answering(401, b"")) == Refused(401, "401 Unauthorized")
    limited = await ask(answering(429, b"", {"X-RateLimit-Reset": "17"}))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_seconds == 17


async def test_a_compressed_answer_is_read() -> None:
    """Proxies compress."""
    script = answering(200, gzip.compress(TREE), {"Content-Encoding": "gzip"})
    assert isinstance(await ask(script), Ready)


async def half_then_stall(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, len(TREE)) + TREE[:100])
    await writer.drain()
    await for_ever()


async def never(_request: Request, _writer: asyncio.StreamWriter) -> None:
    await for_ever()


async def half_then_reset(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, len(TREE)) + TREE[:100])
    await writer.drain()
    reset(writer)


async def reset_at_once(_request: Request, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def half_then_close(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, len(TREE)) + TREE[:100])
    writer.close()


async def close_at_once(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def no_http(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    writer.close()


async def endless_header(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n")
    writer.close()


async def false_gzip(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, len(TREE), {"Content-Encoding": "gzip"}) + TREE)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (half_then_stall, "SocketTimeoutError"),
        (never, "SocketTimeoutError"),
        (half_then_reset, None),
        (reset_at_once, "ClientOSError"),
        (half_then_close, "ClientPayloadError"),
        (close_at_once, "ServerDisconnectedError"),
        (no_http, None),
        (endless_header, None),
        (false_gzip, None),
    ],
)
async def test_a_broken_answer_teaches_nothing(script: Script, reason: str | None) -> None:
    """A stall, a reset, a truncated body or junk is passing trouble, named by its class."""
    meaning = await ask(script, timeouts=Timeouts(connect=5, pool=5, read=0.2, total=10))
    assert isinstance(meaning, Transient)
    assert meaning.reason.isidentifier()
    assert reason in {None, meaning.reason}


async def test_a_dribbling_answer_ends_in_time() -> None:
    """A byte now and then resets a read time-out for ever; the total one does not care."""

    async def dribble(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, len(TREE)))
        for byte in TREE:
            writer.write(bytes([byte]))
            with suppress(TimeoutError):
                await asyncio.wait_for(for_ever(), 0.05)

    meaning = await ask(dribble, timeouts=Timeouts(connect=5, pool=5, read=5, total=0.3))
    assert meaning == Transient("no whole answer within 0.3 s")


@pytest.mark.parametrize("encoding", ["identity", "gzip", "chunked"])
async def test_a_body_without_end_is_not_read_to_it(encoding: str) -> None:
    """Neither a huge body nor a small one that inflates costs more memory than the bound."""
    huge = b" " * 2_000_000

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) > 1:
            await answering(200, TREE)(request, writer)
        elif encoding == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await writer.drain()
        else:
            body = gzip.compress(huge) if encoding == "gzip" else huge
            await answering(200, body, {"Content-Encoding": encoding})(request, writer)

    async with (
        serving(script) as server,
        client(server.url, max_body_bytes=1_000_000) as telnyx,
    ):
        meaning = await telnyx.analysis("call-session", ID)
        assert meaning == Transient("a body of more than 1000000 bytes")
        assert isinstance(await telnyx.analysis("call-session", ID), Ready)


async def test_a_closed_port_is_passing_trouble() -> None:
    """Nobody there now does not mean nobody there later."""
    async with serving(answering()) as server:
        url = server.url
    async with client(url) as telnyx:
        assert await telnyx.analysis("call-session", ID) == Transient("ClientConnectorError")


async def test_connections_are_reused() -> None:
    """Twenty questions in a row take one connection."""
    async with serving(answering(200, TREE)) as server, client(server.url) as telnyx:
        for _ in range(20):
            assert isinstance(await telnyx.analysis("call-session", ID), Ready)
    assert len(server.requests) == 20
    assert server.connections == 1


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    """A kept connection that has gone stale costs no question."""

    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        await answering(200, TREE)(request, writer)
        await writer.drain()
        writer.close()

    async with serving(once) as server, client(server.url) as telnyx:
        for _ in range(5):
            assert isinstance(await telnyx.analysis("call-session", ID), Ready)


async def test_no_more_connections_than_allowed() -> None:
    """Fifty questions at once over four connections all get their answers."""
    async with serving(answering(200, TREE)) as server, client(server.url, connections=4) as telnyx:
        answers = await asyncio.gather(*(telnyx.analysis("call-session", ID) for _ in range(50)))
    assert all(isinstance(answer, Ready) for answer in answers)
    assert server.connections <= 4


async def test_waiting_for_a_connection_is_bounded() -> None:
    """When all connections are stuck, a further question gives up in time."""
    timeouts = Timeouts(connect=5, pool=0.2, read=5, total=10)
    async with (
        serving(never) as server,
        client(server.url, connections=1, timeouts=timeouts) as telnyx,
    ):
        stuck = asyncio.ensure_future(telnyx.analysis("call-session", ID))
        await server.asked.wait()
        assert await telnyx.analysis("call-session", ID) == Transient("ConnectionTimeoutError")
        stuck.cancel()


async def test_a_cancellation_passes_through() -> None:
    """A worker that shuts down is not told that Telnyx failed."""
    seen: list[str] = []
    async with (
        serving(half_then_stall) as server,
        client(server.url, observe=lambda name, _seconds: seen.append(name)) as telnyx,
    ):
        asking = asyncio.ensure_future(telnyx.analysis("call-session", ID))
        await server.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert seen == []


async def test_every_answer_is_observed() -> None:
    """The hook hears each meaning's name and how long it took."""
    seen: list[tuple[str, float]] = []
    statuses = iter((200, 404, 429, 401, 500, 400))

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await answering(next(statuses), TREE)(request, writer)

    async with (
        serving(script) as server,
        client(server.url, observe=lambda *observed: seen.append(observed)) as telnyx,
    ):
        for _ in range(6):
            await telnyx.analysis("call-session", ID)
    assert [name for name, _ in seen] == [
        "ready",
        "not_ready",
        "rate_limited",
        "refused",
        "transient",
        "invalid",
    ]
    assert all(0 < seconds < 10 for _, seconds in seen)


async def test_no_cookie_is_kept() -> None:
    """One client serves many sessions; nothing of one reaches the next."""
    script = answering(200, TREE, {"Set-Cookie": "a=b; Path=/"})
    async with serving(script) as server, client(server.url) as telnyx:
        await telnyx.analysis("call-session", ID)
        await telnyx.analysis("call-session", ID)
    assert "cookie" not in server.requests[1].headers


async def test_the_key_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither success nor failure writes the key anywhere, at any level."""
    caplog.set_level(logging.DEBUG)
    for script in (answering(200, TREE), answering(401, b""), half_then_reset):
        async with serving(script) as server:
            url = server.url
            async with TelnyxClient(url, SecretStr(KEY), version="1") as telnyx:
                meaning = await telnyx.analysis("call-session", ID)
                assert KEY not in repr(telnyx)
                assert KEY not in repr(meaning)
    assert KEY not in caplog.text


async def test_the_record_types_are_read_tolerantly() -> None:
    """Names, aliases and relationships; what is missing or of a wrong type is absent."""
    via = {"local_field": "conversation_id", "parent_field": "conversation_id"}
    inference = {"child_record_type": "inference", "cost_rollup": True, "via": via}
    body = {
        "record_types": [
            {
                "record_type": "ai-voice-assistant",
                "aliases": ["ai-assistant", 3],
                "child_relationships": [inference, {"via": None}, 7],
                "parent_relationships": None,
                "new_field": {},
            },
            {"record_type": "inference", "aliases": None},
            {"aliases": []},
            "junk",
        ],
        "meta": {"last_updated": "2026-03-01T00:00:00Z", "total_record_types": 2},
    }
    script = answering(200, msgspec.json.encode(body))
    async with serving(script) as server, client(server.url) as telnyx:
        known = await telnyx.record_types()
    assert server.requests[0].target == "/v2/session_analysis/metadata"
    assert isinstance(known, RecordTypes)
    assistant, plain = known.record_types
    assert assistant.aliases == ("ai-assistant",)
    assert [child.record_type for child in assistant.children] == ["inference"]
    assert assistant.children[0].cost_rollup is True
    assert assistant.children[0].local_field == "conversation_id"
    assert plain == RecordType("inference")


async def test_one_record_type_is_read() -> None:
    """The recommended depth comes with a single type only."""
    body = {"record_type": "call-session", "meta": {"max_recommended_depth": 4}}
    script = answering(200, msgspec.json.encode(body))
    async with serving(script) as server, client(server.url) as telnyx:
        found = await telnyx.record_type("call-session")
    assert server.requests[0].target == "/v2/session_analysis/metadata/call-session"
    assert found == RecordType("call-session", recommended_depth=4)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"record_types": 3}'])
async def test_unreadable_metadata_teaches_nothing(body: bytes) -> None:
    """Both metadata questions say so instead of raising."""
    async with serving(answering(200, body)) as server, client(server.url) as telnyx:
        assert isinstance(await telnyx.record_types(), Transient)
        assert isinstance(await telnyx.record_type("x"), Transient)


async def test_an_unknown_record_type_is_not_there() -> None:
    """Telnyx's 404 about a type is handed on."""
    async with serving(answering(404)) as server, client(server.url) as telnyx:
        assert isinstance(await telnyx.record_type("nope"), NotReady)
