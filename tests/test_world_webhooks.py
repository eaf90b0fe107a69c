"""The simulated webhooks: literal shapes, and a delivery as rough as Telnyx's."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.world import envelopes
from tests.world.calls import CallGenerator
from tests.world.clock import ManualClock
from tests.world.envelopes import CLIENT_STATE, NO_COST, PERSONAL_DATA, Delivery
from tests.world.server import LoopbackServer
from tests.world.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer
from tests.world.webhooks import Sender, events_for

pytestmark = pytest.mark.anyio

_END = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)


def _events(kind: str, **options: Any) -> list[Delivery]:
    return events_for(CallGenerator(1).make(kind, end=_END), **options)


def _one(events: list[Delivery], event_type: str) -> dict[str, Any]:
    body = next(event for event in events if event.event_type == event_type).body()
    return dict(json.loads(body))


class TestEnvelopes:
    """The events of a call."""

    def test_every_leg_begins_and_ends(self) -> None:
        """Initiated, answered and hung up once per leg; a failed call is never answered."""
        call = CallGenerator(1).make("conference")
        types = Counter(event.event_type for event in events_for(call))
        assert types == {
            "call.initiated": len(call.legs),
            "call.answered": len(call.legs),
            "call.hangup": len(call.legs),
            "conference.ended": 1,
        }
        assert "call.answered" not in {event.event_type for event in _events("failed")}

    def test_a_hangup_is_telnyxs(self) -> None:
        """Envelope and fields of version 2: no cost, no end time, no direction."""
        body = _one(_events("ai_inbound"), "call.hangup")
        assert body.keys() == {"data", "meta"}
        assert body["meta"]["attempt"] == 1
        assert body["data"]["record_type"] == "event"
        assert body["data"]["occurred_at"] == "2026-03-17T10:00:00.000000Z"
        payload = body["data"]["payload"]
        assert payload["state"] == "hangup"
        assert payload["hangup_cause"] == "normal_clearing"
        assert {"call_session_id", "call_leg_id", "connection_id", "start_time"} <= payload.keys()
        assert not {"end_time", "direction", "cost"} & payload.keys()

    def test_a_conversation_ends_before_the_hangup_with_what_was_said(self) -> None:
        """The transcript is personal data that can be recognised wherever it turns up."""
        events = _events("ai_inbound")
        ended = _one(events, "call.conversation.ended")["data"]
        hangup = _one(events, "call.hangup")["data"]
        assert ended["occurred_at"] < hangup["occurred_at"]
        assert ended["payload"]["messages"][0]["content"] in PERSONAL_DATA
        assert ended["payload"]["client_state"] == CLIENT_STATE
        older = _one(_events("ai_inbound", transcript=False), "call.conversation.ended")
        assert "messages" not in older["data"]["payload"]

    def test_analyzed_has_the_cost_of_that_moment_or_says_that_there_is_none(self) -> None:
        """A total by product, or the literal words."""
        with_cost = _one(_events("ai_inbound"), "call.analyzed")["data"]["payload"]["cost"]
        parts = [Decimal(part["cost"]) for part in with_cost["breakdown"]]
        assert Decimal(with_cost["total"]) == sum(parts)
        without = _one(_events("ai_inbound", analyzed="none"), "call.analyzed")
        assert without["data"]["payload"]["cost"] == NO_COST
        assert "call.analyzed" not in {e.event_type for e in _events("ai_inbound", analyzed=None)}

    def test_cost_in_both_shapes(self) -> None:
        """The new one holds strings, the older one numbers and no `data`."""
        new = _one(_events("ai_outbound", cost="new"), "call.cost")["data"]["payload"]
        old = _one(_events("ai_outbound", cost="older"), "call.cost")
        assert new["status"] == "success"
        parts = {part["call_part"]: Decimal(part["cost"]) for part in new["cost_parts"]}
        assert parts.keys() == {"sip-trunking", "call-control"}
        assert Decimal(new["total_cost"]) == sum(parts.values())
        assert "data" not in old
        assert old["meta"]["meta"]["attempt"] == 1
        assert isinstance(old["payload"]["total_cost"], float)
        assert old["payload"]["status"] == "valid"

    def test_a_conference_ends_inside_its_payload(self) -> None:
        """`occurred_at` is not where the others have it."""
        data = _one(_events("conference"), "conference.ended")["data"]
        assert "occurred_at" not in data
        assert data["payload"]["occurred_at"] == "2026-03-17T10:00:00.000000Z"

    def test_texml_callbacks_are_forms(self) -> None:
        """`+` is percent-encoded; AI calls have two more statuses; failures have their own."""
        events = _events("ai_outbound", texml=True)
        body = next(e for e in events if e.event_type == "texml.completed").body()
        assert b"From=%2B1312555" in body
        assert parse_qs(body.decode())["CallStatus"] == ["completed"]
        assert {event.content_type for event in events} == {"application/x-www-form-urlencoded"}
        statuses = {event.data["CallStatus"] for event in events}
        assert statuses == {"completed", "analyzed", "conversation_ended"}
        failures = {
            event.data["CallStatus"]
            for seed in range(30)
            for event in events_for(CallGenerator(seed).make("failed"), texml=True)
        }
        assert failures == {"busy", "no-answer", "canceled", "failed"}

    def test_an_event_keeps_its_id(self) -> None:
        """Built again it is the same event; other events have other ids."""
        call = CallGenerator(1).make("conference")
        first, again = events_for(call), events_for(call)
        assert [event.event_id for event in first] == [event.event_id for event in again]
        assert len({event.event_id for event in first}) == len(first)

    def test_personal_data_is_in_there(self) -> None:
        """A test that looks for it would find it."""
        said = b"".join(event.body() for event in _events("ai_inbound")).decode()
        assert all(item in said for item in PERSONAL_DATA)


@dataclass
class _Receiver:
    """A webhook endpoint that answers as it is told and remembers what came."""

    answer: Callable[[int], int] = lambda _: 200
    stall: bool = False
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.stall:
            await asyncio.Event().wait()
        return Response(status_code=self.answer(len(self.bodies)))


@asynccontextmanager
async def _serving(receiver: _Receiver) -> AsyncIterator[_Receiver]:
    app = Starlette(routes=[Route("/hook", receiver.__call__, methods=["POST"])])
    async with LoopbackServer(app) as server:
        receiver.url = f"http://127.0.0.1:{server.port}/hook"
        yield receiver


class _Naps:
    """Sleeps by moving the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.clock.advance(seconds)


def _sender(url: str, failover: str | None = None, **options: Any) -> tuple[Sender, _Naps]:
    clock = ManualClock(_END)
    naps = _Naps(clock)
    return Sender(Signer(1), url, failover, clock=clock, sleep=naps, **options), naps


class TestSender:
    """Deliveries."""

    async def test_all_events_arrive_signed_in_any_order_some_twice(self) -> None:
        """Seeded duplicates and reordering; every attempt bears its own signature."""
        call = CallGenerator(1).make("conference", end=_END)
        events = events_for(call)
        async with _serving(_Receiver()) as receiver:
            sender, _ = _sender(receiver.url, duplicates=0.5, seed=4)
            async with sender:
                outcomes = await sender.send(events)
        assert all(outcome.delivered for outcome in outcomes)
        came = [json.loads(body)["data"]["id"] for body in receiver.bodies]
        assert set(came) == {event.event_id for event in events}
        assert len(came) == len(outcomes) > len(events)
        sent = [outcome.delivery.event_id for outcome in outcomes]
        assert sent[: len(events)] != [event.event_id for event in events]
        signer = Signer(1)
        for body, headers in zip(receiver.bodies, receiver.headers, strict=True):
            assert headers[SIGNATURE_HEADER] == signer.sign(body, headers[TIMESTAMP_HEADER])
        assert sender.counts() == {200: len(outcomes)}

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    async def test_tries_again_with_the_same_id(self, status: int) -> None:
        """A retried event keeps its id and counts its attempts."""
        async with _serving(_Receiver(lambda n: 200 if n > 2 else status)) as receiver:
            sender, naps = _sender(receiver.url)
            async with sender:
                outcome = await sender.deliver(_events("failed")[0])
        assert outcome.statuses == [status, status, 200]
        assert outcome.delivered
        tries = [json.loads(body) for body in receiver.bodies]
        assert [one["meta"]["attempt"] for one in tries] == [1, 2, 3]
        assert len({one["data"]["id"] for one in tries}) == 1
        assert naps.taken == [1.0, 3.0]

    @pytest.mark.parametrize("status", [400, 401, 404, 413])
    async def test_does_not_try_again_after_a_refusal(self, status: int) -> None:
        """Any other 4xx is the last word: the event is lost."""
        async with _serving(_Receiver(lambda _: status)) as receiver:
            sender, _ = _sender(receiver.url)
            async with sender:
                outcome = await sender.deliver(_events("failed")[0])
        assert outcome.statuses == [status]
        assert not outcome.delivered

    async def test_turns_to_the_failover_and_gives_up_within_a_minute(self) -> None:
        """Four tries here, four there, and no more after sixty seconds."""
        async with (
            _serving(_Receiver(lambda _: 500)) as primary,
            _serving(_Receiver(lambda _: 503)) as failover,
        ):
            sender, naps = _sender(primary.url, failover.url)
            async with sender:
                outcome = await sender.deliver(_events("failed")[0])
        assert outcome.statuses == [500] * 4 + [503] * 4
        assert outcome.urls == [primary.url] * 4 + [failover.url] * 4
        assert sum(naps.taken) <= 60
        assert not outcome.delivered

    async def test_silence_and_refused_connections_are_retried(self) -> None:
        """A receiver that does not answer in time, and one that is not there."""
        async with _serving(_Receiver(stall=True)) as receiver:
            sender, _ = _sender(receiver.url, patience_seconds=0.05)
            async with sender:
                silent = await sender.deliver(_events("failed")[0])
        sender, _ = _sender(receiver.url)
        async with sender:
            gone = await sender.deliver(_events("failed")[0])
        assert silent.statuses == ["timeout"] * 4
        assert len(gone.statuses) == 4
        assert all(isinstance(status, str) for status in gone.statuses)

    async def test_time_scale_shortens_every_wait(self) -> None:
        """At scale 10 the retries of a minute take six seconds."""
        async with _serving(_Receiver(lambda n: 200 if n > 2 else 503)) as receiver:
            sender, naps = _sender(receiver.url, time_scale=10)
            async with sender:
                await sender.deliver(_events("failed")[0])
        assert naps.taken == pytest.approx([0.1, 0.3])

    async def test_paced_events_wait_for_their_time(self) -> None:
        """What lies ahead of now is sent when it occurs, what lies behind at once."""
        async with _serving(_Receiver()) as receiver:
            sender, naps = _sender(receiver.url, duplicates=0)
            async with sender:
                await sender.send(_events("ai_inbound", cost="new"), paced_from=_END)
        assert sorted(naps.taken) == [45.0, 150.0]


def test_no_personal_data_is_where_a_test_could_not_tell() -> None:
    """The markers are long enough not to be found by chance."""
    assert all(len(item) > 10 for item in PERSONAL_DATA)
    assert envelopes.TRANSCRIPT[0] in PERSONAL_DATA
