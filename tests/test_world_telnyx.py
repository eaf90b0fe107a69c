"""The simulated Session Analysis: what it shows, when, under which names, and what it refuses."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.world.answers import Habits, Question, answer, visible
from tests.world.calls import ANOMALIES, KINDS, Call, CallGenerator
from tests.world.clock import ManualClock
from tests.world.model import Node
from tests.world.record_types import RECORD_TYPES
from tests.world.telnyx import API_KEY, TelnyxWorld

pytestmark = pytest.mark.anyio

_END = datetime(2026, 3, 17, 10, 0, tzinfo=UTC)
_LONG = 10_000


class _Desk:
    """A TelnyxWorld with a manual clock and a client."""

    def __init__(self, client: httpx.AsyncClient, world: TelnyxWorld, clock: ManualClock) -> None:
        self.client = client
        self.world = world
        self.clock = clock
        self.generator = CallGenerator(7)

    def call(self, kind: str, **changes: Any) -> Call:
        call = self.generator.make(kind, end=_END, indexed_under="both")
        return self.world.add(replace(call, **changes))

    async def ask(self, path: str, **query: Any) -> httpx.Response:
        return await self.client.get(f"/v2/session_analysis/{path}", params=query)

    async def tree(self, call: Call, **query: Any) -> dict[str, Any]:
        got = await self.ask(f"call-session/{call.session_id}", **{"max_depth": 5, **query})
        assert got.status_code == 200, got.text
        return dict(got.json())


@asynccontextmanager
async def _desk(age_seconds: float = _LONG, **options: Any) -> AsyncIterator[_Desk]:
    clock = ManualClock(_END)
    clock.advance(age_seconds)
    world = TelnyxWorld(clock=clock, **options)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(world.app),
        base_url="https://telnyx.test",
        headers={"Authorization": f"Bearer {API_KEY}"},
    ) as client:
        yield _Desk(client, world, clock)


def _walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node["children"] or ():
        yield from _walk(child)


def _sums_hold(node: Mapping[str, Any]) -> bool:
    children = node["children"] or []
    cost = node["cost"]
    below = sum((Decimal(child["cost"]["cumulative_cost"]) for child in children), Decimal(0))
    return Decimal(cost["cumulative_cost"]) == Decimal(cost["event_cost"]) + below and all(
        map(_sums_hold, children)
    )


class TestShape:
    """A whole answer."""

    async def test_is_the_guides_tree(self) -> None:
        """The guide's example comes back with its totals, products and nesting."""
        async with _desk() as desk:
            tree = await desk.tree(desk.call("guide"))
        assert tree["cost"] == {"total": "0.212800", "currency": "USD"}
        assert tree["meta"]["event_count"] == 11
        assert tree["root"]["relationship"] is None
        assert tree["root"]["cost"]["event_cost"] == "0.000000"
        control = tree["root"]["children"][3]
        assert control["product"] == "callcontrol-cdrs"
        assert control["cost"]["cumulative_cost"] == "0.197300"
        assistant = control["children"][0]
        turn = assistant["children"][0]
        assert turn["relationship"] == {
            "type": "child_of",
            "via": {"local_field": "conversation_id", "parent_field": "conversation_id"},
            "parent_id": assistant["id"],
        }

    async def test_links_and_event_names_vary_as_telnyxs_do(self) -> None:
        """Links bear public and internal names; inference sometimes bears `inference-event`."""
        async with _desk() as desk:
            nodes = [
                node
                for _ in range(10)
                for node in _walk((await desk.tree(desk.call("ai_inbound")))["root"])
            ]
        links = {node["links"]["self"].split("/")[3] for node in nodes}
        assert {"sip-trunking", "siptrunking-cdrs", "call-session"} <= links
        names = {node["event_name"] for node in nodes if node["product"] == "inference"}
        assert names == {"inference", "inference-event"}

    async def test_small_money_is_scientific(self) -> None:
        """`1.421E-4` in the tree, `7.0E-7` for its rate."""
        async with _desk() as desk:
            tree = await desk.tree(desk.call("de_mobile_ai_57s"))
        speech = next(n for n in _walk(tree["root"]) if n["product"] == "text-to-speech")
        assert speech["cost"]["event_cost"] == "1.421E-4"
        assert speech["record"]["rate"] == "7.0E-7"
        assert tree["cost"]["total"] == "0.0942421"

    async def test_expand_none_leaves_the_records_out(self) -> None:
        """Costs and structure stay."""
        async with _desk() as desk:
            call = desk.call("guide")
            bare = await desk.tree(call, expand="none")
            desk.world.habits = Habits(null_record=True, null_children=True, extra_fields=False)
            null = await desk.tree(call, expand="none")
        assert all(node["record"] == {} for node in _walk(bare["root"]))
        assert all(node["record"] is None for node in _walk(null["root"]))
        assert null["root"]["children"][0]["children"] is None
        assert null.keys() == {"session_id", "cost", "root", "meta"}
        assert bare["cost"] == null["cost"]

    async def test_without_children_there_is_only_the_event_itself(self) -> None:
        """`include_children=false` shows the root; its sums stay those of the session."""
        async with _desk() as desk:
            tree = await desk.tree(desk.call("guide"), include_children="false")
        assert tree["root"]["children"] == []
        assert tree["cost"]["total"] == "0.212800"


class TestDepth:
    """What is cut off."""

    @pytest.mark.parametrize(("depth", "shown"), [(1, 1), (2, 5), (3, 6), (4, 11), (5, 11)])
    async def test_max_depth_counts_levels(self, depth: int, shown: int) -> None:
        """Level 4 of the guide's tree has the inference turns."""
        async with _desk() as desk:
            tree = await desk.tree(desk.call("guide"), max_depth=depth)
        assert len(list(_walk(tree["root"]))) == shown
        assert tree["meta"]["event_count"] == 11

    async def test_two_levels_by_default(self) -> None:
        """The default does not reach inference."""
        async with _desk() as desk:
            call = desk.call("guide")
            got = await desk.ask(f"call-session/{call.session_id}")
        assert len(list(_walk(got.json()["root"]))) == 5

    async def test_seven_levels_do_not_fit_and_their_nodes_can_be_asked(self) -> None:
        """What is missing is counted and paid for in the answer, and found one question deeper."""
        async with _desk() as desk:
            call = desk.call("seven_levels")
            tree = await desk.tree(call)
            shown = list(_walk(tree["root"]))
            assert tree["meta"]["event_count"] == call.event_count > len(shown)
            assert Decimal(tree["cost"]["total"]) == call.total
            deepest = next(n for n in shown if n["product"] == "ai-voice-assistant")
            assert deepest["children"] == []
            rest = await desk.ask(f"ai-voice-assistant/{deepest['id']}", max_depth=5)
        more = list(_walk(rest.json()["root"]))
        assert len(shown) + len(more) - 1 == call.event_count

    async def test_a_limit_on_children_hides_some_but_not_from_a_question_of_their_own(
        self,
    ) -> None:
        """The cut assistant shows 20 turns in the session's answer, and all 60 in its own."""
        async with _desk() as desk:
            call = desk.call("cut")
            tree = await desk.tree(call)
            assert tree["meta"]["event_count"] - len(list(_walk(tree["root"]))) == 40
            own = await desk.ask(f"ai-voice-assistant/{call.conversation_id}", max_depth=2)
        whole = own.json()
        assert len(whole["root"]["children"]) == 60
        assert whole["meta"]["event_count"] == 61
        assert _sums_hold(whole["root"])

    async def test_totals_may_cover_only_what_is_shown(self) -> None:
        """Whether totals depend on the depth is unknown, so both can be had."""
        async with _desk(habits=Habits(whole_session_totals=False)) as desk:
            tree = await desk.tree(desk.call("guide"), max_depth=2)
        assert tree["meta"]["event_count"] == 5
        assert tree["cost"]["total"] == "0.020700"
        assert _sums_hold(tree["root"])


class TestPosting:
    """The parts of one call appear at different times."""

    @given(st.integers(0, 10**6), st.sampled_from((*KINDS, *ANOMALIES)), st.integers(0, 1300))
    def test_every_partial_tree_is_consistent(self, seed: int, kind: str, age: int) -> None:
        """At any age the sums hold, and nothing that has been posted disappears again."""
        call = CallGenerator(seed).make(kind)
        now = visible(call.root, age)
        later = visible(call.root, age + 60)
        if now is None:
            return
        assert later is not None
        assert now.cumulative <= later.cumulative <= call.total
        said = answer(_without_limit(now), Question(max_depth=10), Habits())
        assert Decimal(said["cost"]["total"]) == now.cumulative
        assert said["meta"]["event_count"] == now.count == len(list(_walk(said["root"])))
        assert _sums_hold(said["root"])

    async def test_nothing_before_the_first_part_then_more_and_more(self) -> None:
        """404 at first; then a total that grows until all parts are there."""
        async with _desk(age_seconds=0) as desk:
            call = desk.call("ai_inbound")
            path = f"call-session/{call.session_id}"
            assert (await desk.ask(path)).status_code == 404
            desk.world.not_ready_status = 409
            assert (await desk.ask(path)).status_code == 409
            totals: list[Decimal] = []
            counts: list[int] = []
            for _ in range(12):
                desk.clock.advance(20)
                got = await desk.ask(path, max_depth=5)
                if got.status_code == 200:
                    tree = got.json()
                    assert _sums_hold(tree["root"])
                    assert tree["meta"]["event_count"] == len(list(_walk(tree["root"])))
                    totals.append(Decimal(tree["cost"]["total"]))
                    counts.append(tree["meta"]["event_count"])
        assert totals == sorted(totals)
        assert len(set(counts)) > 2
        assert totals[-1] == call.total

    async def test_the_late_charge_comes_after_two_looks(self) -> None:
        """At 90 and 300 seconds nothing is wrong, at 1800 it is."""
        async with _desk(age_seconds=0) as desk:
            call = desk.call("late_charge")
            seen = []
            for age in (90, 210, 1500):
                desk.clock.advance(age)
                seen.append(Decimal((await desk.tree(call))["cost"]["total"]))
        assert seen[0] < seen[1] < 1
        assert seen[2] == call.total > 5

    async def test_time_scale_makes_it_faster(self) -> None:
        """At scale 100 all is there within three seconds."""
        async with _desk(age_seconds=3, time_scale=100) as desk:
            call = desk.call("guide")
            assert (await desk.tree(call))["meta"]["event_count"] == 11


class TestNames:
    """Under which names and ids an event is found."""

    @pytest.mark.parametrize("kind", ["guide", "ai_outbound", "conference", "seven_levels"])
    async def test_every_event_is_found_by_public_and_internal_name(self, kind: str) -> None:
        """Type or alias, and the event's id."""
        async with _desk() as desk:
            call = desk.call(kind)
            for node in call.root.walk():
                names = {node.record_type, *RECORD_TYPES[node.record_type].aliases}
                for name in names:
                    got = await desk.ask(f"{name}/{node.id}", max_depth=5)
                    assert got.status_code == 200, (name, got.text)
                    body = got.json()
                    assert body["root"]["id"] == body["session_id"] == node.id
                    assert Decimal(body["cost"]["total"]) == node.cumulative

    async def test_an_id_is_not_found_under_another_type(self) -> None:
        """A session is no recording."""
        async with _desk() as desk:
            call = desk.call("guide")
            assert (await desk.ask(f"recording/{call.session_id}")).status_code == 404

    async def test_the_day_narrows_the_search(self) -> None:
        """The right UTC day or time finds the call, a wrong one is a 404."""
        async with _desk() as desk:
            path = f"call-session/{desk.call('guide').session_id}"
            right = ("2026-03-17", "2026-03-17T23:00:00Z", "2026-03-17T23:30:00-00:00")
            wrong = ("2026-03-16", "2026-03-17T23:30:00-05:00")
            for text, status in (*((r, 200) for r in right), *((w, 404) for w in wrong)):
                assert (await desk.ask(path, date_time=text)).status_code == status, text

    async def test_what_is_forgotten_is_not_found(self) -> None:
        """Beyond Telnyx's retention."""
        async with _desk() as desk:
            call = desk.call("guide")
            desk.world.forget(call.session_id)
            assert (await desk.ask(f"call-session/{call.session_id}")).status_code == 404
            assert not desk.world.calls


class TestRefusals:
    """What it does not answer."""

    @pytest.mark.parametrize(
        "query",
        [
            {"max_depth": "0"},
            {"max_depth": "6"},
            {"max_depth": "two"},
            {"expand": "records"},
            {"include_children": "1"},
            {"date_time": "yesterday"},
        ],
    )
    async def test_bad_parameters(self, query: dict[str, str]) -> None:
        """400, with a code, a message and a detail."""
        async with _desk() as desk:
            got = await desk.ask(f"call-session/{desk.call('guide').session_id}", **query)
        assert got.status_code == 400
        assert got.json()["errors"][0].keys() == {"code", "message", "detail"}

    async def test_bad_record_type_and_id(self) -> None:
        """An unknown record type and an id that is no UUID are 400, an unknown event is 404."""
        async with _desk() as desk:
            call = desk.call("guide")
            assert (await desk.ask(f"phone-call/{call.session_id}")).status_code == 400
            assert (await desk.ask("call-session/call-123")).status_code == 400
            unknown = await desk.ask("call-session/00000000-0000-4000-8000-000000000000")
        assert unknown.status_code == 404

    async def test_a_wrong_key_and_an_empty_account(self) -> None:
        """401 without the right key; 403 once the account is out of funds."""
        async with _desk() as desk:
            call = desk.call("guide")
            path = f"call-session/{call.session_id}"
            desk.world.disabled = True
            disabled = await desk.ask(path)
            desk.client.headers["Authorization"] = "Bearer nonsense"
            wrong = await desk.ask(path)
        assert wrong.status_code == 401
        assert disabled.status_code == 403
        assert disabled.json()["errors"][0]["title"] == "Account is disabled D17"

    async def test_the_rate_limit_is_per_fixed_window_and_endpoint(self) -> None:
        """Headers count down; the 429 has no Retry-After; the next UTC minute begins anew."""
        async with _desk() as desk:
            desk.clock.set(datetime(2026, 3, 17, 12, 0, 43, tzinfo=UTC))
            desk.world.limit(2)
            path = f"call-session/{desk.call('guide').session_id}"
            first, second, third = [await desk.ask(path) for _ in range(3)]
            other = await desk.ask("metadata")
            desk.clock.advance(17)
            next_minute = await desk.ask(path)
        assert first.headers["x-ratelimit-limit"] == "2, 2;w=60"
        assert first.headers["x-ratelimit-remaining"] == "1"
        assert second.headers["x-ratelimit-remaining"] == "0"
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert third.headers["x-ratelimit-reset"] == "17"
        assert third.headers["x-envoy-ratelimited"] == "true"
        assert "retry-after" not in third.headers
        assert third.json()["errors"][0]["code"] == "10011"
        assert other.status_code == next_minute.status_code == 200

    async def test_no_limit_is_no_header(self) -> None:
        """Whether Session Analysis has a limit at all is unknown."""
        async with _desk() as desk:
            tree = await desk.ask(f"call-session/{desk.call('guide').session_id}")
        assert not [name for name in tree.headers if name.startswith("x-ratelimit")]


class TestMetadata:
    """The two metadata answers."""

    async def test_relationships_mirror_each_other(self) -> None:
        """Every child names its parent, and the count is right."""
        async with _desk() as desk:
            overview = (await desk.ask("metadata")).json()
        types = {entry["record_type"]: entry for entry in overview["record_types"]}
        assert overview["meta"]["total_record_types"] == len(types) == len(RECORD_TYPES)
        for name, entry in types.items():
            for child in entry["child_relationships"]:
                parents = types[child["child_record_type"]]["parent_relationships"]
                assert name in {parent["parent_record_type"] for parent in parents}

    async def test_one_type_by_any_name(self) -> None:
        """An alias leads to the same answer; an unknown name is a 404."""
        async with _desk() as desk:
            public = await desk.ask("metadata/call-control")
            internal = await desk.ask("metadata/callcontrol-cdrs")
            unknown = await desk.ask("metadata/phone-call")
        assert public.json() == internal.json()
        assert public.json()["aliases"] == ["callcontrol-cdrs"]
        assert public.json()["meta"]["max_recommended_depth"] == 4
        assert unknown.status_code == 404


async def test_the_balance_falls_as_parts_appear() -> None:
    """What has ended and not been posted is pending; one call is charged once, forgotten or not."""
    async with _desk(age_seconds=1) as desk:
        call = desk.call("guide", end=_END)
        desk.world.funds = Decimal(10)

        async def balance() -> dict[str, Any]:
            got = await desk.client.get("/v2/balance")
            return dict(got.json()["data"])

        first = await balance()
        charged, pending = desk.world.charges()
        assert charged + pending == call.total
        assert pending > 0
        assert first["pending"] == f"{pending:.2f}"
        desk.clock.advance(_LONG)
        desk.world.forget(call.session_id)
        for _ in range(2):
            last = await balance()
            assert last["balance"] == last["available_credit"] == f"{10 - call.total:.2f}"
            assert last["pending"] == "0.00"
        desk.world.limit(0, endpoints=["balance"])
        assert (await desk.client.get("/v2/balance")).status_code == 429


async def test_requests_are_remembered_without_secrets() -> None:
    """Path, query, headers and status, but not the key."""
    async with _desk() as desk:
        call = desk.call("guide")
        await desk.tree(call, date_time="2026-03-17")
        request = desk.world.requests[-1]
    assert request.path.endswith(call.session_id)
    assert request.query == {"max_depth": "5", "date_time": "2026-03-17"}
    assert request.status == 200
    assert request.at == desk.clock()
    assert API_KEY not in json.dumps(dict(request.headers))


def _without_limit(node: Node) -> Node:
    return replace(node, shown_children=None, children=tuple(map(_without_limit, node.children)))
