"""The public app under any request at all, with a real Redis behind it."""

import asyncio
import json
import time
from collections import Counter
from typing import Any, Final

import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.app import create_web
from service.settings import WebSettings
from service.store import Store
from tests.fuzz.strategies import STRANGER, WISHES, Wish
from tests.world.signing import Signer
from tests.world.valkey import Valkey

TELNYX: Final = Signer(0)
ALLOWED: Final = {200, 202, 400, 401, 404, 405, 413, 415}
# The failing one is in the message, and finding a smaller one takes minutes.
NO_SHRINKING: Final = (Phase.explicit, Phase.generate)
AT_ONCE: Final = 10
SIGNERS: Final = {"telnyx": TELNYX, "stranger": STRANGER}
BY: Final = (*SIGNERS, "nobody", "junk")
NOT_BELIEVED: Final = b'{"error":"not a valid signature"}'


def scope_of(wish: Wish, by: str) -> dict[str, Any]:
    headers = [(b"content-type", wish.content_type.encode()), *wish.more]
    if by in SIGNERS:
        signed = SIGNERS[by].headers(wish.body, at=time.time())
        headers += [(name.encode(), value.encode()) for name, value in signed.items()]
    if by == "junk":
        headers += [(b"telnyx-timestamp", b"\xff"), (b"telnyx-signature-ed25519", b"\x00" * 88)]
    return {"type": "http", "method": wish.method, "path": wish.path, "headers": headers}


async def ask(app: Any, wish: Wish, by: str) -> tuple[int, bytes]:
    """What the app answers; an exception of the app is one of the test."""
    sent: list[dict[str, Any]] = []
    pieces = [wish.body[: len(wish.body) // 2], wish.body[len(wish.body) // 2 :]]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope_of(wish, by), receive, send)
    start, body = sent
    lengths = [value for name, value in start["headers"] if name == b"content-length"]
    assert lengths == [b"%d" % len(body["body"])]
    return start["status"], body["body"]


def test_no_request_is_an_error(valkey: Valkey, record_property: Any) -> None:
    """Any request at all has one of the documented answers, and what was taken can be read."""
    answers: Counter[int] = Counter()

    @settings(phases=NO_SHRINKING)
    @given(wishes=st.lists(WISHES, min_size=AT_ONCE, max_size=AT_ONCE))
    def any_requests(wishes: list[Wish]) -> None:
        answers.update(uvloop.run(play(valkey.url, wishes)))

    any_requests()
    record_property("inputs", f"{answers.total():,} requests to the app, {dict(answers)}")
    assert {202, 200, 400, 401, 404, 405, 415} <= set(answers)
    assert answers.total() >= 2000


async def play(redis_url: str, wishes: list[Wish]) -> list[int]:
    """The answers' statuses, after a look at the answers."""
    environ = {"REDIS_URL": redis_url, "TELNYX_PUBLIC_KEY": TELNYX.public_key}
    asked = [(wish, by) for wish in wishes for by in BY]
    async with create_web(WebSettings.load(environ)) as web, Redis.from_url(redis_url) as redis:
        found = await asyncio.gather(*(ask(web.public, *each) for each in asked))
        store = Store(redis, retention_ms=60_000)
        for (status, body), (wish, by) in zip(found, asked, strict=True):
            look_at(status, body, wish, by)
            session_id = json.loads(body).get("session_id")
            assert session_id is None or await store.session(session_id)
    return [status for status, _ in found]


def look_at(status: int, body: bytes, wish: Wish, by: str) -> None:
    """One answer: documented, the same for all that are not believed, and more only for Telnyx."""
    assert status in ALLOWED, (status, wish)
    assert json.loads(body).keys() <= {"error", "status", "session_id", "reason"}, wish
    assert status != 401 or body == NOT_BELIEVED, wish
    assert (status in {200, 202, 400}) <= (by == "telnyx"), wish
