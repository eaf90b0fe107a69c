"""A session in numbers."""

import math
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.records import Call
from tests.samples import analysis, node
from tests.workers.detection.calls import recorded
from workers.analysis import decode_analysis
from workers.detection.baseline import group_of, lesson_of
from workers.detection.measure import FREE, Measured, measure, rate_trait
from workers.judge import known_of
from workers.products import CALL_SESSION
from workers.recorded import Recorded
from workers.tree import build_tree

COSTS = st.decimals(min_value=-5, max_value=10**9, places=6)
PRODUCTS = st.sampled_from(["inference", "recording", "text-to-speech", "odd", "a:b", "x/y"])


def measured(call: Recorded, seconds: int = 120) -> Measured:
    return measure(call.tree, known_of(call.call, call.tree), seconds)


def close(found: dict[str, float], **expected: float) -> bool:
    return all(math.isclose(found[name], value) for name, value in expected.items())


def test_an_assistants_call_in_numbers() -> None:
    """Total, per minute; of each product its cost, and of those with several events these, too."""
    found = measured(recorded(assistant_id="a1", turns=(0.01, 0.02, 0.03)))
    expected = {
        "total": 0.36,
        "per_minute": 0.18,
        "cost:sip-trunking": 0.2,
        "cost_per_minute:sip-trunking": 0.1,
        "billed:sip-trunking": 1.0,
        "cost:ai-voice-assistant": 0.1,
        "cost_per_minute:ai-voice-assistant": 0.05,
        "cost:inference": 0.06,
        "cost_per_minute:inference": 0.03,
        "events:inference": 3,
        "events_per_minute:inference": 1.5,
        "each:inference": 0.02,
    }
    assert found.values.keys() == expected.keys()
    assert close(found.values, **expected)
    assert set(found.traits) == {
        "product:call-session",
        "product:sip-trunking",
        "product:ai-voice-assistant",
        "product:inference",
        "rate:sip-trunking:DE:0.1",
        "model:openai/gpt-4o",
        "country:DE",
    }


def test_a_model_has_two_names() -> None:
    """Inference records say `model`, those of a conversation `llm_model`."""
    extra = [node("ai-voice-assistant", "0.1", id="x", llm_model="m2")]
    models = [t for t in measured(recorded(turns=(0.1,), extra=extra)).traits if "model:" in t]
    assert models == ["model:m2", "model:openai/gpt-4o"]


def test_started_minutes_are_what_is_paid_for() -> None:
    """A call of seconds counts as a minute, one of 61 as two."""
    call = recorded(minutes=1)
    assert [measured(call, seconds).minutes for seconds in (0, 1, 60, 61, 120)] == [1, 1, 1, 2, 2]


def test_billed_minutes_that_were_only_started_are_fair() -> None:
    """Of 61 seconds 120 may be billed, and of no second 60; beyond is strange."""

    def billed(real: int, billed: int) -> float:
        extra = [node("recording", "0.01", id="r", call_sec=real, billed_sec=billed)]
        return measured(recorded(extra=extra)).values["billed:recording"]

    assert billed(61, 120) == billed(0, 60) == billed(60, 60) == 1
    assert billed(60, 600) == 10
    assert billed(0, 600) == 10


def test_of_several_legs_the_worst_bill_counts() -> None:
    """One leg billed ten times over is not hidden among fair ones."""
    extra = [
        node("recording", "0.01", id=f"r{place}", call_sec=60, billed_sec=billed)
        for place, billed in enumerate((60, 600, 60))
    ]
    assert measured(recorded(extra=extra)).values["billed:recording"] == 10


def test_a_free_session_has_no_measure_of_money() -> None:
    """Nothing is no amount: that it was free is a trait."""
    found = measured(recorded(per_minute=0))
    assert {"total", "per_minute", "cost:sip-trunking"}.isdisjoint(found.values)
    assert FREE in found.traits


def test_equal_prices_are_one_trait() -> None:
    """However they are written."""
    one, other = (rate_trait("p", "DE", Decimal(text)) for text in ("0.0100", "1E-2"))
    assert one == other == "rate:p:DE:0.01"


def test_a_call_that_nobody_took_went_to_no_country() -> None:
    """Dialling is not reaching: only talk makes a destination known."""
    assert not [t for t in measured(recorded(minutes=0), 0).traits if t.startswith("country:")]


def test_a_lesson_is_what_the_call_measured() -> None:
    """Its day, its bucket of each measure, its traits."""
    found = measured(recorded())
    lesson = lesson_of(found, 5 * 86_400_000 + 7)
    assert lesson.day == 5
    assert {name for name, _ in lesson.buckets} == found.values.keys()
    assert lesson.traits == set(found.traits)
    assert lesson.ladder == found.cohort.ladder


def test_traits_of_a_kind_stand_for_each_other() -> None:
    """Prices of one product and country; all products, all models, all countries."""
    assert group_of("rate:sip-trunking:DE:0.1") == "rate:sip-trunking:DE"
    assert group_of("model:gpt") == group_of("model:vendor:claude-3:0") == "model"
    assert group_of("product:odd") == group_of("product:a:b") == "product"


@st.composite
def odd_trees(draw: st.DrawFn) -> dict[str, Any]:
    """Costs, counts, prices and products as nobody would send them."""
    children = [
        node(
            draw(PRODUCTS),
            str(draw(COSTS)),
            id=str(place),
            rate=str(draw(COSTS)),
            call_sec=draw(st.integers(-5, 10**9)),
            billed_sec=draw(st.integers(-5, 10**9)),
        )
        for place in range(draw(st.integers(0, 6)))
    ]
    return analysis(node("call-session", str(draw(COSTS)), *children, id="s"))


@given(odd_trees(), st.integers(0, 10**9))
def test_every_measure_is_above_zero(tree: dict[str, Any], seconds: int) -> None:
    """Whatever comes, a measure has a logarithm."""
    built = build_tree(decode_analysis(msgspec.json.encode(tree)), CALL_SESSION)
    found = measured(Recorded(Call("s"), built, None), seconds)
    assert all(0 < value < math.inf for value in found.values.values())
    assert found.minutes >= 1


def test_a_product_beyond_the_most_is_in_no_measure() -> None:
    """A session of more products than are looked at has nothing of the rest, not even billing."""
    extra = [
        node(f"odd-{n}", f"{n + 1}", id=f"odd-{n}", call_sec=60, billed_sec=600) for n in range(30)
    ]
    found = measured(recorded(extra=extra))
    about = {name.partition(":")[2] for name in found.values} - {""}
    assert about <= found.products.keys()
    assert len(found.products) < len(extra)
