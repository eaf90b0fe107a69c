"""What the public port answers, row by row, and what of it lasts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.flow.stage import Outside, Stage, hangups, later_by, open_stage
from tests.world import envelopes
from tests.world.processes import PATIENCE_SECONDS
from tests.world.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer
from tests.world.webhooks import Delivery, events_for

pytestmark = pytest.mark.anyio

_MOST_BODY_BYTES = 1_048_576
_FORMER = Signer(1)
_STRANGER = Signer(2)


@pytest.fixture(scope="module")
async def stage(outside: Outside) -> AsyncIterator[Stage]:
    """A web process that knows two keys, as while they are rotated."""
    keys = f"{_FORMER.public_key},{outside.world.public_key}"
    async with open_stage(outside, ages="1", web={"TELNYX_PUBLIC_KEY": keys}) as stage:
        yield stage


async def test_the_end_of_a_call_is_scheduled(stage: Stage) -> None:
    """The first event that says a call ended is answered with 202, its session's id, and kept."""
    call = stage.world.call("sip_inbound")
    answer = await stage.post(hangups(call)[0])
    assert answer.status_code == 202
    assert answer.json() == {"status": "scheduled", "session_id": call.session_id}
    assert len((await stage.session(call)).events) == 1


async def test_the_same_event_again_is_a_duplicate(stage: Stage) -> None:
    """A repeated delivery of an event, whose body says that it is a repetition, changes nothing."""
    (event,) = hangups(stage.world.call("sip_inbound"))
    await stage.post(event)
    answer = await stage.post(event, attempt=2)
    assert (answer.status_code, answer.json()) == (200, {"status": "duplicate"})


async def test_another_event_of_a_scheduled_session_is_merged(stage: Stage) -> None:
    """The second leg of a call joins the session that the first has made."""
    call = stage.world.call("sip_outbound")
    first, second = hangups(call)
    await stage.post(first)
    answer = await stage.post(second)
    assert (answer.status_code, answer.json()) == (202, {"status": "merged"})
    assert (await stage.session(call)).call.legs == 2


async def test_an_event_of_no_interest_is_ignored(stage: Stage) -> None:
    """An event that says nothing of a call's end or cost is a 200 with the reason."""
    call = stage.world.call("sip_inbound")
    for event in (
        envelopes.initiated(call, call.legs[0]),
        named(envelopes.initiated(call, call.legs[0]), "call.bridged"),
    ):
        answer = await stage.post(event)
        assert answer.status_code == 200
        assert answer.json().keys() == {"status", "reason"}
        assert answer.json()["status"] == "ignored"
    assert await stage.store.session(call.session_id) is None


def named(event: Delivery, kind: str) -> Delivery:
    """The same of another type."""
    return replace(event, data={**event.data, "event_type": kind})


async def test_a_late_leg_schedules_a_session_anew(stage: Stage) -> None:
    """A leg that ends after the verdict is answered as the first one was."""
    call = stage.past("sip_outbound")
    first, second = hangups(call)
    await stage.post(first)
    await stage.ended(call)
    answer = await stage.post(later_by(second, 1.5))
    assert answer.status_code == 202
    assert answer.json() == {"status": "scheduled", "session_id": call.session_id}


async def test_a_texml_callback_leads_to_a_verdict(stage: Stage) -> None:
    """Form-encoded status callbacks are signed and understood as JSON events are."""
    call = stage.past("ai_inbound")
    statuses = {(await stage.post(event)).status_code for event in events_for(call, texml=True)}
    assert statuses == {202}
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total


# --- who is believed ------------------------------------------------------------------------------


async def test_a_key_is_rotated_without_a_gap(stage: Stage) -> None:
    """While two public keys are set, what either of them has signed is believed."""
    statuses = []
    for signer in (_FORMER, stage.world.signer):
        body = hangups(stage.world.call("sip_inbound"))[0].body()
        headers = signer.headers(body, at=stage.world.clock())
        statuses.append((await stage.send(body, headers=headers)).status_code)
    assert statuses == [202, 202]


def _forged(stage: Stage, body: bytes, kind: str) -> dict[str, str]:
    """The headers of a body that is not to be believed."""
    signer, now = stage.world.signer, stage.world.clock()

    def stamped(timestamp: str) -> dict[str, str]:
        return {SIGNATURE_HEADER: signer.sign(body, timestamp), TIMESTAMP_HEADER: timestamp}

    sound = signer.headers(body, at=now)
    forgeries: dict[str, dict[str, str]] = {
        "no headers": {},
        "no signature": {TIMESTAMP_HEADER: sound[TIMESTAMP_HEADER]},
        "no timestamp": {SIGNATURE_HEADER: sound[SIGNATURE_HEADER]},
        "another account's key": _STRANGER.headers(body, at=now),
        "another body": signer.headers(body + b" ", at=now),
        "too old": stamped(str(int(now) - 310)),
        "of the future": stamped(str(int(now) + 310)),
        "not base64": {**sound, SIGNATURE_HEADER: "%%%"},
        "a short signature": {**sound, SIGNATURE_HEADER: sound[SIGNATURE_HEADER][:40]},
    }
    return forgeries[kind] if kind in forgeries else stamped(kind)


_FORGERIES: Mapping[str, str] = {
    "no headers": "no_signature",
    "no signature": "no_signature",
    "no timestamp": "no_timestamp",
    "another account's key": "wrong_signature",
    "another body": "wrong_signature",
    "too old": "stale_timestamp",
    "of the future": "stale_timestamp",
    "not base64": "unreadable_signature",
    "a short signature": "unreadable_signature",
    "nan": "unreadable_timestamp",
    "-1": "unreadable_timestamp",
    "1e9": "unreadable_timestamp",
    "9" * 400: "unreadable_timestamp",
}


@pytest.mark.parametrize("forgery", _FORGERIES, ids=lambda forgery: forgery[:30])
async def test_what_is_not_believed_learns_nothing(stage: Stage, forgery: str) -> None:
    """Whatever is wrong with signature or timestamp, the answer is the same 401, and no trace."""
    call = stage.world.call("sip_inbound")
    body = hangups(call)[0].body()
    answer = await stage.send(body, headers=_forged(stage, body, forgery))
    assert (answer.status_code, answer.text) == (401, '{"error":"not a valid signature"}')
    assert await stage.store.session(call.session_id) is None


@pytest.mark.parametrize("forgery", _FORGERIES, ids=lambda forgery: forgery[:30])
async def test_why_it_was_not_believed_is_for_the_operator(stage: Stage, forgery: str) -> None:
    """The reason for a 401 is counted each time, and logged the first time within a minute."""
    reason, body = _FORGERIES[forgery], b"{}"
    counted = await stage.metric(stage.web, "tollwatch_refusals_total", reason=reason)
    for _ in range(3):
        await stage.send(body, headers=_forged(stage, body, forgery))
    assert await stage.metric(stage.web, "tollwatch_refusals_total", reason=reason) == counted + 3
    await stage.until(lambda: _refusals(stage, reason), "a line in the log")


def _refusals(stage: Stage, reason: str) -> list[dict[str, Any]]:
    return [line for line in stage.log(event="webhook refused") if line["reason"] == reason]


# --- what can be read -----------------------------------------------------------------------------

_UNREADABLE: Mapping[str, bytes] = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b'{"data": "\xff"}',
    "no event type": b'{"data": {"id": "1", "payload": {}}}',
    "no session": b'{"data": {"event_type": "call.hangup", "id": "1", "payload": {}}}',
    "no payload": b'{"data": {"event_type": "call.hangup", "id": "1"}}',
    "too deep": b"[" * 5000,
}


@pytest.mark.parametrize("name", _UNREADABLE)
async def test_signed_and_unreadable_is_a_400(stage: Stage, name: str) -> None:
    """A signed body without an event type, or an end without a session, is a 400 that says why."""
    answer = await stage.send(_UNREADABLE[name])
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


async def test_any_other_bad_field_counts_as_absent(stage: Stage) -> None:
    """Junk in every field but type and session does not keep a call from its verdict."""
    call = stage.past("sip_inbound")
    fields = ("start_time", "from", "to", "direction", "connection_id", "call_leg_id")
    payload = {**dict.fromkeys(fields, ("junk", 1)), "call_session_id": call.session_id}
    data = {"event_type": "call.hangup", "id": {}, "occurred_at": 10**30, "payload": payload}
    assert (await stage.send(json.dumps({"data": data}).encode())).status_code == 202
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total


async def test_an_event_without_an_id_is_known_by_its_body(stage: Stage) -> None:
    """Without an id, the same body is the same event, and another body is another."""
    call = stage.world.call("sip_outbound")
    events = [replace(event, data={**event.data, "id": None}) for event in hangups(call)]
    answers = [(await stage.post(event)).json()["status"] for event in (*events, *events)]
    assert answers == ["scheduled", "merged", "duplicate", "duplicate"]


@pytest.mark.parametrize("again", ["the very same", "signed anew"])
@pytest.mark.parametrize("shape", ["with an id", "without an id", "TeXML"])
async def test_a_replay_is_folded(stage: Stage, shape: str, again: str) -> None:
    """Sent again within the tolerance, by whomever, a webhook is one event of one session."""
    call = stage.world.call("sip_inbound")
    (event,) = hangups(call)
    if shape == "TeXML":
        event = next(iter(events_for(call, texml=True)))
    if shape == "without an id":
        event = replace(event, data={**event.data, "id": None})
    body, now = event.body(), stage.world.clock()
    times = [now] * 5 if again == "the very same" else [now, now - 200, now + 200, now - 1, now]
    answers = [
        await stage.send(
            body,
            content_type=event.content_type,
            headers=stage.world.signer.headers(body, at=at),
        )
        for at in times
    ]
    assert [a.json()["status"] for a in answers] == ["scheduled", *["duplicate"] * 4]
    assert len((await stage.session(call)).events) == 1


async def test_another_content_type_is_a_415(stage: Stage) -> None:
    """What is neither JSON nor a form is not read at all."""
    assert (await stage.send(b"{}", content_type="text/plain")).status_code == 415


async def test_another_path_is_a_404(stage: Stage) -> None:
    """Nothing else is there, and a slash too many leads nowhere: a redirect would lose the body."""
    for path in ("/", "/webhooks", "/webhooks/telnyx/", "/metrics", "/readyz"):
        assert (await stage.client.post(stage.web.url + path)).status_code == 404


async def test_another_method_is_a_405(stage: Stage) -> None:
    """Webhooks are posted; whatever else is tried is told so."""
    for method in ("GET", "PUT", "DELETE"):
        answer = await stage.client.request(method, stage.url)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# --- how much is read -----------------------------------------------------------------------------


async def test_the_largest_body_that_is_allowed_is_read(stage: Stage) -> None:
    """A body of exactly the limit is taken, however its end is padded."""
    (event,) = hangups(stage.world.call("sip_inbound"))
    body = event.body().ljust(_MOST_BODY_BYTES)
    assert (await stage.send(body)).status_code == 202
    assert (await stage.send(body + b" ")).status_code == 413


@pytest.mark.parametrize("framing", ["content-length: 50000000", "transfer-encoding: chunked"])
async def test_too_large_is_said_before_all_has_come(stage: Stage, framing: str) -> None:
    """A client that is still sending can read the 413, whether it has stated a length or not."""
    host, _, port = stage.web.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    # Without a length it is the signature's form that decides whether the body is looked at.
    signed = "".join(f"{k}: {v}\r\n" for k, v in _STRANGER.headers(b"", at=time.time()).items())
    head = f"POST /webhooks/telnyx HTTP/1.1\r\nhost: x\r\n{framing}\r\n{signed}\r\n"
    writer.write(head.encode())
    sending = asyncio.create_task(_send_most(writer, chunked="chunked" in framing))
    try:
        status = await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.transport.abort()
    assert status.split()[1] == b"413"


async def _send_most(writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    """30 MiB of a body that never comes to its end; beyond 64 MiB the web process hangs up."""
    piece = b" " * 65_536
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
    for _ in range(480):
        writer.write(framed)
        await writer.drain()


# --- when Redis is not there ----------------------------------------------------------------------


async def test_what_redis_cannot_take_is_sent_again_later(stage: Stage) -> None:
    """While Redis is down the answer is 503 with Retry-After; when it is back, 202 by itself."""
    call = stage.past("sip_inbound")
    (event,) = hangups(call)
    stage.valkey.stop()
    try:
        answer = await stage.post(event)
    finally:
        stage.valkey.start()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert await _is_taken_again(stage, event)
    await stage.ended(call)


async def test_a_redis_that_hangs_is_answered_for(stage: Stage) -> None:
    """A Redis that takes connections and says nothing is a 503 too, and not an endless wait."""
    (event,) = hangups(stage.world.call("sip_inbound"))
    with stage.valkey.paused():
        answer = await stage.post(event)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    # It may have been taken after all, once Redis went on: then it is not lost either.
    assert await _is_taken_again(stage, event)


async def test_a_redis_that_is_full_is_answered_for(stage: Stage) -> None:
    """A Redis that answers but takes no more writes is a 503 too; with room again, a 202."""
    (event,) = hangups(stage.world.call("sip_inbound"))
    await stage.redis.config_set("maxmemory", "1")
    try:
        answer = await stage.post(event)
    finally:
        await stage.redis.config_set("maxmemory", "0")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert await _is_taken_again(stage, event)


async def _is_taken_again(stage: Stage, event: Delivery) -> bool:
    async def is_taken() -> bool:
        return (await stage.post(event, attempt=2)).is_success

    return await stage.until(is_taken, "a webhook being taken again")
