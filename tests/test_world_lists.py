"""The simulated lists: what is in them, which filters they know, their pages and their limits."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.world import envelopes
from tests.world.calls import CallGenerator
from tests.world.clock import ManualClock, iso_seconds, later
from tests.world.lists import Attempt
from tests.world.model import Call
from tests.world.telnyx import API_KEY, TelnyxWorld
from tests.world.webhooks import Sender, Signer, events_for

pytestmark = pytest.mark.anyio

_END = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)
_URL = "https://receiver.test/webhooks"


class _Desk:
    """A TelnyxWorld long after its calls, and a client."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.clock = ManualClock(later(_END, 86_400))
        self.world = TelnyxWorld(clock=self.clock)
        self.generator = CallGenerator(7)

    def calls(self, kind: str, count: int = 1) -> list[Call]:
        """One a minute, the last at the end."""
        ends = (later(_END, -60 * number) for number in range(count))
        return [self.world.add(self.generator.make(kind, end=end, talk_seconds=30)) for end in ends]

    async def ask(self, of: str, query: dict[str, str], status: int = 200) -> dict[str, Any]:
        got = await self.client.get(f"/v2/{of}", params=query)
        assert got.status_code == status, got.text
        return dict(got.json())

    async def records(self, query: dict[str, str] | None = None) -> list[dict[str, Any]]:
        asked = {"filter[record_type]": "sip-trunking", **(query or {})}
        return list((await self.ask("detail_records", asked))["data"])

    async def deliveries(self, query: dict[str, str] | None = None) -> list[dict[str, Any]]:
        return list((await self.ask("webhook_deliveries", query or {}))["data"])


@pytest.fixture
async def desk() -> AsyncIterator[_Desk]:
    """An account on which nothing has happened yet."""
    async with httpx.AsyncClient(
        base_url="https://telnyx.test", headers={"Authorization": f"Bearer {API_KEY}"}
    ) as client:
        desk = _Desk(client)
        client._transport = httpx.ASGITransport(desk.world.app)
        yield desk


class TestDetailRecords:
    """`GET /v2/detail_records`."""

    async def test_they_are_those_of_the_cost_trees(self, desk: _Desk) -> None:
        """As soon as they are posted, newest first."""
        first, second = desk.calls("sip_inbound", 2)
        wanted = [node.record for call in (first, second) for node in call.of_type("sip-trunking")]
        assert await desk.records() == wanted
        desk.clock.set(_END)
        assert await desk.records() == [wanted[1]]

    @pytest.mark.parametrize("record_type", ["", "sip", "call-session"])
    async def test_a_record_type_is_mandatory(self, desk: _Desk, record_type: str) -> None:
        """And one that there is."""
        query = {"filter[record_type]": record_type} if record_type else {}
        said = await desk.ask("detail_records", query, 400)
        assert said["errors"][0]["title"] == "Bad Request"

    async def test_pages_hold_fifty_at_most(self, desk: _Desk) -> None:
        """Whatever is asked for; twenty where nothing is."""
        desk.calls("sip_inbound", 120)
        assert len(await desk.records()) == 20
        asked = {"filter[record_type]": "sip-trunking", "page[size]": "250"}
        pages = [
            await desk.ask("detail_records", {**asked, "page[number]": str(number)})
            for number in (1, 2, 3, 4)
        ]
        assert [len(page["data"]) for page in pages] == [50, 50, 20, 0]
        assert pages[2]["meta"] == {
            "page_number": 3,
            "page_size": 50,
            "total_pages": 3,
            "total_results": 120,
        }
        await desk.ask("detail_records", {**asked, "page[number]": "0"}, 400)

    async def test_filters_on_a_records_fields(self, desk: _Desk) -> None:
        """Times are compared, texts as the operator says."""
        calls = desk.calls("sip_inbound", 5)
        query = {
            "filter[finished_at][gte]": iso_seconds(calls[3].end),
            "filter[finished_at][lt]": iso_seconds(calls[1].end),
        }
        found = [row["telnyx_session_id"] for row in await desk.records(query)]
        assert found == [call.session_id for call in calls[2:4]]
        session = {"filter[telnyx_session_id]": calls[4].session_id}
        assert len(await desk.records(session)) == 1
        for operator in ("starts_with", "contains", "ends_with"):
            assert len(await desk.records({f"filter[direction][{operator}]": "inbound"})) == 5
        assert await desk.records({"filter[direction][eq]": "outbound"}) == []

    @pytest.mark.parametrize(
        "name",
        ["filter[created_at][gte]", "filter[finished_at][near]", "filters", "filter[nonsense]"],
    )
    async def test_what_the_type_lacks_is_refused(self, desk: _Desk, name: str) -> None:
        """SIP trunking has no `created_at`, and nothing has what does not exist."""
        desk.calls("sip_inbound")
        query = {"filter[record_type]": "sip-trunking", name: "2026-03-17"}
        await desk.ask("detail_records", query, 400)
        bad_time = {"filter[record_type]": "sip-trunking", "filter[finished_at][gte]": "soon"}
        await desk.ask("detail_records", bad_time, 400)

    async def test_what_the_type_lacks_may_lead_to_nothing(self, desk: _Desk) -> None:
        """As it did in July 2026."""
        desk.calls("sip_inbound")
        desk.world.unknown_filters = "empty"
        assert await desk.records({"filter[created_at][gte]": "2026-03-17"}) == []

    async def test_no_filter_may_be_known(self, desk: _Desk) -> None:
        """But for the record type."""
        desk.calls("sip_inbound")
        desk.world.knows_filters = False
        assert len(await desk.records()) == 1
        query = {"filter[record_type]": "sip-trunking", "filter[finished_at][gte]": "2026-03-17"}
        await desk.ask("detail_records", query, 400)


class TestWebhookDeliveries:
    """`GET /v2/webhook_deliveries`."""

    async def test_a_delivery_holds_its_webhook_and_all_attempts(self, desk: _Desk) -> None:
        """The latest attempt first, each with what was answered."""
        [call] = desk.calls("sip_inbound")
        event = envelopes.hangup(call, call.legs[0])
        at = call.end.timestamp()
        attempts = [Attempt(_URL, 503, at, at + 1, "busy"), Attempt(_URL, 200, at + 2, at + 2.5)]
        desk.world.deliveries.add(event, attempts)
        [row] = await desk.deliveries()
        assert (row["status"], row["webhook"]) == ("delivered", dict(event.data))
        assert (row["started_at"], row["finished_at"]) == (
            "2026-03-17T10:00:00.000Z",
            "2026-03-17T10:00:02.500Z",
        )
        assert [attempt["status"] for attempt in row["attempts"]] == ["delivered", "failed"]
        assert row["attempts"][1]["http"]["response"]["body"] == "busy"

    async def test_what_never_arrived_has_failed(self, desk: _Desk) -> None:
        """Nobody answered."""
        [call] = desk.calls("sip_inbound")
        desk.world.deliveries.never_arrived([envelopes.hangup(call, call.legs[0])])
        [row] = await desk.deliveries({"filter[status][eq]": "failed"})
        assert row["attempts"][0]["http"]["response"] is None
        assert await desk.deliveries({"filter[status][eq]": "delivered"}) == []

    async def test_filters_as_documented(self, desk: _Desk) -> None:
        """By type, several at once; by time; by text."""
        calls = desk.calls("sip_inbound", 3)
        desk.world.deliveries.never_arrived(e for call in calls for e in events_for(call))
        types = {"filter[event_type]": "call.hangup,call.answered"}
        found = {row["webhook"]["event_type"] for row in await desk.deliveries(types)}
        assert found == {"call.hangup", "call.answered"}
        text = {"filter[webhook][contains]": calls[1].session_id}
        assert len(await desk.deliveries(text)) == 3
        newest = {"filter[finished_at][gte]": iso_seconds(calls[0].end)}
        assert [row["webhook"]["event_type"] for row in await desk.deliveries(newest)] == [
            "call.hangup"
        ]

    async def test_unknown_filters_are_refused_or_lead_to_nothing(self, desk: _Desk) -> None:
        """As for records, under another status."""
        [call] = desk.calls("sip_inbound")
        desk.world.deliveries.never_arrived(events_for(call))
        await desk.ask("webhook_deliveries", {"filter[url]": "x"}, 422)
        desk.world.unknown_filters = "empty"
        assert await desk.deliveries({"filter[url]": "x"}) == []
        desk.world.knows_filters = False
        assert await desk.deliveries({"filter[event_type]": "call.hangup"}) == []
        assert len(await desk.deliveries()) == 3

    async def test_pages_hold_250_at_most(self, desk: _Desk) -> None:
        """Newest first, no row twice."""
        calls = desk.calls("sip_inbound", 130)
        desk.world.deliveries.never_arrived(e for call in calls for e in events_for(call))
        pages = [
            await desk.deliveries({"page[size]": "999", "page[number]": str(number)})
            for number in (1, 2, 3)
        ]
        assert [len(page) for page in pages] == [250, 140, 0]
        rows = [row for page in pages for row in page]
        assert len({row["id"] for row in rows}) == 390
        ends = [row["finished_at"] for row in rows]
        assert ends == sorted(ends, reverse=True)

    async def test_a_sender_notes_what_it_tried(self, desk: _Desk) -> None:
        """Of what is lost nothing arrives, and it has failed after all retries."""
        [call] = desk.calls("sip_inbound")
        options: dict[str, Any] = {"clock": desk.clock, "duplicates": 0, "time_scale": 1000}
        log = desk.world.deliveries
        async with Sender(
            Signer(1), "http://127.0.0.1:1/", log=log, lost=lambda _: True, **options
        ) as sender:
            [outcome] = await sender.send([envelopes.hangup(call, call.legs[0])])
            await sender.send([envelopes.texml_status(call, call.legs[0])])
        assert outcome.statuses == ["timeout"] * 4
        [row] = await desk.deliveries()
        assert (row["status"], len(row["attempts"])) == ("failed", 4)


class TestLimits:
    """Who may ask, and how often."""

    @pytest.mark.parametrize("of", ["detail_records", "webhook_deliveries"])
    async def test_each_list_has_a_limit_of_its_own(self, desk: _Desk, of: str) -> None:
        """In fixed windows, told by headers; a 429 has no `Retry-After`."""
        query = {"filter[record_type]": "webrtc"} if of == "detail_records" else {}
        desk.world.limit(2)
        for remaining in ("1", "0"):
            got = await desk.client.get(f"/v2/{of}", params=query)
            assert got.headers["x-ratelimit-remaining"] == remaining
        got = await desk.client.get(f"/v2/{of}", params=query)
        assert (got.status_code, got.headers["x-ratelimit-reset"]) == (429, "60")
        assert "retry-after" not in got.headers
        other = {"detail_records": "webhook_deliveries"}.get(of, "session_analysis/metadata")
        assert (await desk.client.get(f"/v2/{other}")).status_code == 200

    @pytest.mark.parametrize("of", ["detail_records", "webhook_deliveries"])
    async def test_key_and_funds_are_needed(self, desk: _Desk, of: str) -> None:
        """As for session analysis."""
        desk.world.disabled = True
        said = await desk.ask(of, {}, 403)
        assert said["errors"][0]["title"] == "Account is disabled D17"
        desk.world.api_key = "another"
        await desk.ask(of, {}, 401)
