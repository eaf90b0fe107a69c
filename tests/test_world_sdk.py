"""Telnyx's own client as a second opinion: it reads the simulated answers and accepts its webhooks.

The simulator is what all other tests believe, so somebody else has to believe the simulator.
"""

import base64
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import telnyx
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from pydantic import BaseModel
from telnyx.types.session_analysis_retrieve_response import SessionAnalysisRetrieveResponse

from tests.world.calls import ANOMALIES, KINDS
from tests.world.clock import iso_seconds, later, utc
from tests.world.envelopes import conference_ended
from tests.world.record_types import RECORD_TYPES
from tests.world.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, Signer
from tests.world.webhooks import events_for
from tests.world.world import World

pytestmark = pytest.mark.anyio

LITERAL = "ehBRhGjX3GlyAKV/aRr/3bj+oJP6Mrp4hnhLU9fo48c4wgCCpa/Lfuvx/Oe+x+6sSPbwOlzl0zV5uSIIGwCeAg=="


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """The simulated outside, served on loopback."""
    async with World(seed=11) as world:
        yield world


@pytest.fixture
async def client(world: World) -> AsyncIterator[telnyx.AsyncTelnyx]:
    """Telnyx's client, pointed at the simulator."""
    async with telnyx.AsyncTelnyx(
        api_key=world.api_key, base_url=world.telnyx_url, max_retries=0
    ) as client:
        yield client


def _hour_ago(world: World) -> Any:
    return later(utc(world.clock()), -3600)


def _strict(model: BaseModel) -> None:
    """The client's models do not check what they read; this does."""
    type(model).model_validate(model.model_dump(by_alias=True, mode="json"))


class TestSessionAnalysis:
    """The client's types fit the answers."""

    @pytest.mark.parametrize("kind", [*KINDS, *ANOMALIES])
    async def test_reads_every_kind_of_tree(
        self, world: World, client: telnyx.AsyncTelnyx, kind: str
    ) -> None:
        """With records and without, at every depth, the answers are valid by the client's types."""
        call = world.call(kind, end=_hour_ago(world), indexed_under="end")
        for depth in (1, 2, 5):
            for expand in ("record", "none"):
                read = await client.session_analysis.retrieve(
                    call.session_id,
                    record_type="call-session",
                    max_depth=depth,
                    include_children=True,
                    expand="record" if expand == "record" else "none",
                    date_time=call.end,
                )
                assert isinstance(read, SessionAnalysisRetrieveResponse)
                _strict(read)
                assert read.meta.event_count == call.event_count
                assert read.session_id == call.session_id

    async def test_reads_a_deep_tree_to_its_last_level(
        self, world: World, client: telnyx.AsyncTelnyx
    ) -> None:
        """Five levels of the seven, each of the right product, then the rest from below."""
        call = world.call("seven_levels", end=_hour_ago(world))
        read = await client.session_analysis.retrieve(
            call.session_id, record_type="call-session", max_depth=5
        )
        products = []
        node = read.root
        while node.children:
            node = node.children[-1]
            products.append(node.product)
        assert products == [
            "conference",
            "conference-participant",
            "callcontrol-cdrs",
            "ai-voice-assistant",
        ]
        below = await client.session_analysis.retrieve(
            node.id, record_type="ai-voice-assistant", max_depth=5
        )
        assert below.root.children[0].children[0].product == "embedding"

    async def test_refusals_are_the_clients_errors(
        self, world: World, client: telnyx.AsyncTelnyx
    ) -> None:
        """404, 400, 401, 403, 429 and 500 are told apart as Telnyx's are."""
        call = world.call("guide")  # It has only just ended.

        async def ask(record_type: str = "call-session") -> None:
            await client.session_analysis.retrieve(call.session_id, record_type=record_type)

        with pytest.raises(telnyx.NotFoundError):
            await ask()
        with pytest.raises(telnyx.BadRequestError):
            await ask("phone-call")
        world.telnyx.limit(0)
        with pytest.raises(telnyx.RateLimitError):
            await ask()
        world.telnyx.disabled = True
        with pytest.raises(telnyx.PermissionDeniedError):
            await ask()
        world.telnyx.api_key = "another"
        with pytest.raises(telnyx.AuthenticationError):
            await ask()
        world.telnyx.faults.status(500)
        with pytest.raises(telnyx.InternalServerError):
            await ask()


class TestMetadata:
    """The client's types fit both metadata answers."""

    async def test_reads_the_list(self, client: telnyx.AsyncTelnyx) -> None:
        """Every record type of the guide is there."""
        read = await client.session_analysis.metadata.retrieve()
        _strict(read)
        assert {entry.record_type for entry in read.record_types} == set(RECORD_TYPES)
        assert read.query_parameters["max_depth"].max == 5

    @pytest.mark.parametrize("record_type", list(RECORD_TYPES))
    async def test_reads_each_record_type(
        self, client: telnyx.AsyncTelnyx, record_type: str
    ) -> None:
        """Relationships, examples and counts are as the client expects them."""
        read = await client.session_analysis.metadata.retrieve_record_type(record_type)
        _strict(read)
        assert read.record_type == record_type
        assert read.meta.total_children == len(read.child_relationships)


class TestLists:
    """The client's types fit the pages of both lists, and it turns them."""

    async def test_reads_every_delivery(self, world: World, client: telnyx.AsyncTelnyx) -> None:
        """With its webhook and its attempts, page by page, as filtered."""
        calls = [world.call(kind, end=_hour_ago(world)) for kind in KINDS]
        events = [event for call in calls for event in events_for(call)]
        world.telnyx.deliveries.never_arrived(events)
        seen = [row async for row in client.webhook_deliveries.list(page_size=7)]
        for row in seen:
            _strict(row)
        assert {row.webhook.id for row in seen if row.webhook} == {e.event_id for e in events}
        filtered = client.webhook_deliveries.list(
            filter={
                "event_type": "call.hangup,conference.ended",
                "finished_at": {"gte": iso_seconds(later(_hour_ago(world), -60))},
                "status": {"eq": "failed"},
            }
        )
        kinds = {row.webhook.event_type async for row in filtered if row.webhook}
        assert kinds == {"call.hangup", "conference.ended"}

    async def test_reads_detail_records(self, world: World, client: telnyx.AsyncTelnyx) -> None:
        """Its types know those of conferences; of others it takes the fields as they are."""
        calls = [world.call(kind, end=_hour_ago(world)) for kind in KINDS]
        for record_type in ("conference", "conference-participant", "amd"):
            found = client.detail_records.list(filter={"record_type": record_type})
            rows: list[Any] = [row async for row in found]
            assert len(rows) == sum(len(call.of_type(record_type)) for call in calls)
        since = iso_seconds(later(_hour_ago(world), -60))
        recent: Any = {"record_type": "sip-trunking", "finished_at": {"gte": since}}
        listed = client.detail_records.list(filter=recent, page_size=3)
        trunks: list[Any] = [row async for row in listed]
        nodes = [node for call in calls for node in call.of_type("sip-trunking")]
        sessions = sorted(row.telnyx_session_id for row in trunks)
        assert sessions == sorted(node.record["telnyx_session_id"] for node in nodes)

    async def test_refusals_of_lists_are_the_clients_errors(
        self, client: telnyx.AsyncTelnyx
    ) -> None:
        """A field that a record type lacks, and a filter that there is not."""
        lacking: Any = {"record_type": "sip-trunking", "nonsense": "1"}
        with pytest.raises(telnyx.BadRequestError):
            await client.detail_records.list(filter=lacking)
        unknown: Any = {"url": "x"}
        with pytest.raises(telnyx.UnprocessableEntityError):
            await client.webhook_deliveries.list(filter=unknown)


class TestBalance:
    """The client's type fits the account's balance."""

    async def test_reads_the_balance(self, world: World, client: telnyx.AsyncTelnyx) -> None:
        """All fields, as strings, less by what calls were charged."""
        world.telnyx.credit_limit = Decimal(100)
        call = world.call("guide", end=_hour_ago(world))
        read = await client.balance.retrieve()
        _strict(read)
        assert read.data
        assert read.data.record_type == "balance"
        assert read.data.currency == "USD"
        left = (world.telnyx.funds - call.total).quantize(Decimal("0.01"))
        assert read.data.balance == str(left)
        assert read.data.credit_limit == "100.00"
        assert read.data.available_credit == str(left + 100)
        assert read.data.pending == "0.00"


class TestWebhooks:
    """The client's own check of signatures, and its event types."""

    @pytest.mark.parametrize("kind", ["ai_inbound", "conference", "failed", "webrtc"])
    async def test_accepts_signatures_and_knows_the_events(
        self, world: World, client: telnyx.AsyncTelnyx, kind: str
    ) -> None:
        """Every JSON event is unwrapped to the type of its name."""
        call = world.call(kind)
        for delivery in events_for(call, cost="new"):
            body = delivery.body()
            event: Any = client.webhooks.unwrap(
                body.decode(),
                headers=world.signer.headers(body, at=time.time()),
                key=world.public_key,
            )
            assert event.data.event_type == delivery.event_type
            assert event.data.payload.call_session_id == call.session_id
            _strict(event)

    async def test_refuses_another_accounts_signature(
        self, world: World, client: telnyx.AsyncTelnyx
    ) -> None:
        """The check does check."""
        body = conference_ended(world.call("conference")).body()
        with pytest.raises(ValueError, match="does not match"):
            client.webhooks.unwrap(
                body.decode(),
                headers=Signer(99).headers(body, at=time.time()),
                key=world.public_key,
            )


class TestSigner:
    """Against vectors and a second implementation."""

    def test_agrees_with_a_published_vector(self) -> None:
        """The message of RFC 8032's second test is one byte; ours always holds the bar.

        So the vector is checked on key derivation, and the signature by another library.
        """
        seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
        public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        assert base64.b64decode(Signer(seed).public_key) == public

    def test_a_literal_signature(self) -> None:
        """Made once with another implementation: neither key, message nor encoding may change."""
        seed = bytes(range(32))
        body = b'{"data":{"id":"1"}}'
        other = Ed25519PrivateKey.from_private_bytes(seed).sign(b"1774000000|" + body)
        headers = Signer(seed).headers(body, at=1774000000.9)
        assert headers == {
            SIGNATURE_HEADER: LITERAL,
            TIMESTAMP_HEADER: "1774000000",
        }
        assert base64.b64encode(other).decode() == LITERAL

    def test_another_library_verifies_any_body(self) -> None:
        """Raw bytes are signed, also such as are no text."""
        signer = Signer(3)
        body = bytes(range(256))
        signature = base64.b64decode(signer.sign(body, "17"))
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signer.public_key))
        key.verify(signature, b"17|" + body)
