"""Whatever tree Telnyx sends, its money is added up exactly, and what does not add up is told."""

from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.trees import (
    ROOT_ID,
    Branch,
    branches,
    chain,
    guide,
    personal_record,
    wire,
    wire_node,
)
from workers.analysis import Unreadable, decode_analysis, encode_analysis
from workers.products import CALL_SESSION, RECORD_TYPES, is_known, label, normalise
from workers.tree import CostTree, build_tree

# Record types and internal names of Telnyx's guide and metadata examples, and what they mean.
ALIASES = {
    "callcontrol-cdrs": "call-control",
    "siptrunking-cdrs": "sip-trunking",
    "recording-cdrs": "recording",
    "webrtc-cdrs": "webrtc",
    "inference-event": "inference",
    "webrtc_detail_record": "webrtc",
    "call-recording": "recording",
    "ai-assistant": "ai-voice-assistant",
    "stt": "speech-to-text",
    "tts": "text-to-speech",
    "media-storage": "media_storage",
    "sim-card-usage": "sim_card_usage",
}


def tree_of(branch: Branch, levels: int = 1000, **options: Any) -> CostTree:
    return build_tree(decode_analysis(wire(branch, levels, **options)), CALL_SESSION)


def tree_from(document: dict[str, Any]) -> CostTree:
    return build_tree(decode_analysis(msgspec.json.encode(document)), CALL_SESSION)


def document(branch: Branch) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(wire(branch))
    return found


def codes(tree: CostTree) -> list[str]:
    return [mismatch.code for mismatch in tree.mismatches]


def rebuilt(tree: CostTree, position: int = 0) -> Branch:
    """The branch that the flat events came from."""
    event = tree.events[position]
    children = tuple(rebuilt(tree, child) for child in event.children)
    return Branch(event.id, event.product, event.cost, children)


def test_the_guides_session() -> None:
    """Telnyx's own example: 11 events, 0.2128 USD, nothing amiss, most of it for the assistant."""
    tree = tree_of(guide())
    assert len(tree.events) == tree.stated_count == 11
    assert tree.total == tree.sum == Decimal("0.2128")
    assert tree.currency == "USD"
    assert tree.mismatches == ()
    assert tree.missing == 0
    assert tree.hidden == ()
    assert [(p.product, str(p.cost)) for p in tree.products][:2] == [
        ("ai-voice-assistant", "0.1800"),
        ("inference", "0.0121"),
    ]
    assert [e.product for e in tree.dearest_path] == [
        "call-session",
        "call-control",
        "ai-voice-assistant",
        "inference",
    ]
    assert tree.has_product == {
        "call-session",
        "recording",
        "webrtc",
        "sip-trunking",
        "call-control",
        "ai-voice-assistant",
        "inference",
    }


@given(branches())
def test_sums_hold_for_any_shape(session: Branch) -> None:
    """Total, sum, subtotals and products agree with the costs that went in."""
    tree = tree_of(session)
    assert tree.total == tree.sum == session.whole
    assert [tree.subtotals[e.position] for e in tree.events] == [b.whole for b in session.walk()]
    assert sum(product.cost for product in tree.products) == session.whole
    assert sum(product.events for product in tree.products) == len(tree.events)
    assert tree.mismatches == ()
    assert tree.missing == 0
    assert tree.hidden == ()


@given(branches())
def test_flattening_loses_nothing(session: Branch) -> None:
    """The tree can be put together again from its flat events."""
    tree = tree_of(session)
    assert rebuilt(tree) == session
    assert [event.position for event in tree.events] == list(range(len(tree.events)))
    for event in tree.events[1:]:
        assert event.parent is not None
        parent = tree.events[event.parent]
        assert event.position in parent.children
        assert event.depth == parent.depth + 1


@pytest.mark.no_cover
@given(branches(), st.randoms(use_true_random=False))
def test_the_order_of_children_does_not_matter(session: Branch, random: Random) -> None:
    """Telnyx promises no order; total and products are the same in any."""
    one, other = tree_of(session), tree_of(session.shuffled(random))
    assert one.total == other.total
    assert one.sum == other.sum
    assert one.products == other.products
    assert one.mismatches == other.mismatches


@given(branches(), st.integers(1, 6))
def test_a_cut_shows(session: Branch, levels: int) -> None:
    """What was left out is missing from the count, and what it cost is hidden in who is above."""
    tree = tree_of(session, levels)
    left_out = len(list(session.walk())) - len(tree.events)
    assert tree.missing == left_out
    assert ("count_mismatch" in codes(tree)) == (left_out > 0)
    assert bool(tree.hidden) == (tree.sum != session.whole)
    assert tree.total == session.whole


def test_a_deep_tree_needs_no_recursion() -> None:
    """A hundred levels are flattened and added up."""
    tree = tree_of(chain(100))
    assert len(tree.events) == 100
    assert tree.sum == Decimal("0.99")


@pytest.mark.parametrize("name", sorted(RECORD_TYPES))
def test_every_record_type_is_known(name: str) -> None:
    """Each type of the guide is itself, in its internal form too, and has words for people."""
    assert normalise(name) == name
    assert normalise(f" {name.upper()}-CDRS ") == name
    assert is_known(name)
    assert label(name) != ""


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_every_alias_is_normalised(alias: str, name: str) -> None:
    """Telnyx's internal and older names count as the product they mean."""
    assert normalise(alias) == name
    tree = tree_of(Branch(ROOT_ID, CALL_SESSION, Decimal(0), (Branch("x", alias, Decimal(1)),)))
    assert tree.events[1].product == name
    assert tree.events[1].name == alias


@given(st.text(min_size=1, max_size=40))
def test_normalising_is_final(name: str) -> None:
    """A normalised name stays as it is, and no name raises."""
    assert normalise(normalise(name)) == normalise(name)


def test_an_unknown_product_is_kept_under_its_name() -> None:
    """A product of tomorrow is counted, costed and shown today."""
    session = Branch(ROOT_ID, CALL_SESSION, Decimal(0), (Branch("x", "hologram", Decimal(2)),))
    tree = tree_of(session)
    assert tree.products[0].product == "hologram"
    assert tree.products[0].cost == 2
    assert tree.mismatches == ()


def test_the_session_is_known_by_what_was_asked_for() -> None:
    """Its root bears the product of the leg that began it; without the question it is that leg."""
    analysis = decode_analysis(wire(guide()))
    assert build_tree(analysis, CALL_SESSION).events[0].product == "call-session"
    assert build_tree(analysis).events[0].product == "sip-trunking"


@given(st.integers(1, 10**9), st.integers(0, 20))
def test_scientific_money_is_exact(digits: int, places: int) -> None:
    """`7.0E-7` and `0.0000007` are the same money, to the last digit."""
    amount = Decimal(digits).scaleb(-places)
    for text in (format(amount, "E"), format(amount, "f")):
        data = document(guide())
        data["root"]["children"][0]["cost"]["event_cost"] = text
        assert tree_from(data).events[1].cost == amount


def test_sums_of_many_small_amounts_are_exact() -> None:
    """Ten thousand times 7.0E-7 is 0.007, as it is not with floats."""
    turns = tuple(Branch(f"t{n}", "text-to-speech", Decimal("7.0E-7")) for n in range(10_000))
    tree = tree_of(Branch(ROOT_ID, CALL_SESSION, Decimal(0), turns))
    assert tree.sum == tree.total == Decimal("0.007")
    assert tree.mismatches == ()


def test_a_total_that_is_not_the_sum_is_told() -> None:
    """The difference comes with the mismatch; the total remains Telnyx's."""
    data = document(guide())
    data["cost"]["total"] = "0.3"
    tree = tree_from(data)
    assert codes(tree) == ["total_mismatch"]
    assert tree.mismatches[0].amount == Decimal("0.0872")
    assert tree.total == Decimal("0.3")


def test_one_wrong_leaf_is_one_broken_sum() -> None:
    """A leaf that disagrees with itself is one mismatch, not one more for each event above it."""
    data = document(guide())
    turn = data["root"]["children"][3]["children"][0]["children"][0]
    turn["cost"]["event_cost"] = "0.5"
    tree = tree_from(data)
    assert codes(tree) == ["total_mismatch", "sum_mismatch"]
    assert tree.mismatches[1].amount == Decimal("0.4990")
    assert "turn-0" in tree.mismatches[1].text


@pytest.mark.parametrize(("count", "missing"), [(12, 1), (10, 0)])
def test_a_count_that_is_not_right_is_told(count: int, missing: int) -> None:
    """More events counted than sent are missing; fewer are a mismatch all the same."""
    data = document(guide())
    data["meta"]["event_count"] = count
    tree = tree_from(data)
    assert codes(tree) == ["count_mismatch"]
    assert tree.missing == missing


def test_two_currencies_are_told() -> None:
    """A sum over two currencies is no sum."""
    data = document(guide())
    data["root"]["children"][0]["cost"]["currency"] = "EUR"
    tree = tree_from(data)
    assert codes(tree) == ["mixed_currencies"]
    assert "EUR" in tree.mismatches[0].text


def test_without_a_total_the_sum_stands_in() -> None:
    """An answer without cost, meta and session id still has a cost."""
    data = document(guide())
    tree = tree_from({"root": data["root"]})
    assert tree.total == Decimal("0.2128")
    assert tree.session_id == ROOT_ID
    assert tree.currency == "USD"
    assert tree.stated_count is None
    assert tree.mismatches == ()


@pytest.mark.parametrize("name", ["status", "created_at", "completed_at", "request_id"])
def test_extra_fields_change_nothing(name: str) -> None:
    """Fields come and go between Telnyx's versions."""
    data = document(guide())
    plain = tree_from(data)
    data[name] = data["root"][name] = data["cost"][name] = {"new": ["thing"]}
    assert tree_from(data) == plain


@pytest.mark.parametrize("empty", [None, [], ...])
def test_no_children_can_be_said_in_three_ways(empty: Any) -> None:
    """Null, an empty list and no field at all are the same leaf."""
    node = wire_node(Branch("x", "webrtc", Decimal(1)))
    if empty is ...:
        del node["children"]
    else:
        node["children"] = empty
    assert len(tree_from({"root": node}).events) == 1


_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["NaN", "1E+999999", "-1", "7.0E-7", "Infinity", "call-control"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    found = [(*path, key) for key in keys]
    for key in keys:
        found += _places(data[key], (*path, key))
    return found


@given(st.data(), _JUNK)
def test_a_wrong_type_anywhere_never_raises(data: st.DataObject, junk: Any) -> None:
    """Any value may stand in any place; the answer is a tree, or unreadable without a root."""
    answer = msgspec.json.decode(wire(guide(), record=personal_record("x"), links={"self": "/v2"}))
    *above, last = data.draw(st.sampled_from(_places(answer)))
    holder = answer
    for key in above:
        holder = holder[key]
    holder[last] = junk
    try:
        tree = tree_from(answer)
    except Unreadable:
        assert last == "root"
        return
    assert tree.sum.is_finite()
    assert tree.total.is_finite()
    assert tree.products
    assert tree.per_minute(0).is_finite()
    assert [tree.direction, tree.real_seconds, tree.dearest_path, tree.hidden, tree.missing]


def test_one_odd_node_does_not_hide_the_others() -> None:
    """Junk where a child, a cost or a record should be is left out; the rest is added up."""
    data = document(guide())
    data["root"]["children"] += [7, "x", None, {"cost": 3, "record": [], "links": 0}]
    data["meta"] = "none"
    tree = tree_from(data)
    assert len(tree.events) == 12
    assert tree.sum == Decimal("0.2128")


def test_what_is_kept_reads_as_the_same_tree() -> None:
    """Cleaned and stored, an analysis holds no personal field, and still the same events."""
    analysis = decode_analysis(wire(guide(), record=personal_record("Ada Lovelace")))
    before = build_tree(analysis, CALL_SESSION)
    stored = encode_analysis(analysis)
    after = build_tree(decode_analysis(stored), CALL_SESSION)
    assert b"Lovelace" not in stored
    for digits in (b"5112345678", b"8008648331"):
        assert digits not in stored
    assert rebuilt(after) == rebuilt(before)
    assert after.products == before.products
    assert after.mismatches == before.mismatches
    assert encode_analysis(decode_analysis(stored)) == stored


@given(branches())
def test_any_tree_survives_storage(session: Branch) -> None:
    """What is written is read back, whatever the shape."""
    analysis = decode_analysis(wire(session))
    stored = encode_analysis(analysis)
    assert build_tree(decode_analysis(stored), CALL_SESSION) == tree_of(session)


@pytest.mark.parametrize(("seconds", "rate"), [(0, "60"), (8, "60"), (60, "60"), (120, "30")])
def test_a_short_call_counts_as_a_minute(seconds: int, rate: str) -> None:
    """Telnyx bills started minutes, so a call of eight seconds has no rate of its own."""
    tree = tree_of(Branch(ROOT_ID, CALL_SESSION, Decimal(60)))
    assert tree.per_minute(seconds) == Decimal(rate)
