"""How the operators hear that what was strange has become usual."""

import msgspec
import pytest

from service.records import Call
from tests.samples import END_MS, assistant_call
from workers.analysis import decode_analysis
from workers.detection.baseline import EMPTY, Baseline
from workers.detection.deviation import Deviation
from workers.detection.explain import LEARNED
from workers.detection.lasting import Change
from workers.detection.measure import Measured, measure
from workers.notices import new_normal_notice
from workers.products import CALL_SESSION
from workers.tree import build_tree

COHORT = Baseline("*/outbound/DE/phone", 400, 20, EMPTY.spreads, {}, {})


def measured() -> Measured:
    tree = build_tree(
        decode_analysis(msgspec.json.encode(assistant_call("0.01", "0.01"))), CALL_SESSION
    )
    return measure(tree, Call("s"), 152)


def deviation(
    code: str, name: str, product: str | None = None, *, excess: float = 1.0, **figures: float
) -> Deviation:
    observed, expected = figures.get("observed", 12.0), figures.get("expected", 3.0)
    return Deviation(code, 1e-9, observed, expected, 4.0, excess, COHORT, name, product)


def told(*deviations: Deviation) -> tuple[str, str, tuple[str, ...]]:
    changes = [(Change(COHORT.cohort, each.name, 12, END_MS), each) for each in deviations]
    notice = new_normal_notice(changes, measured(), "USD", now_ms=END_MS)
    return notice.id, notice.text, notice.details


CASES = {
    "unusual_cost": ("total", None, "A cost of 12.00 USD instead of 3.00"),
    "unusual_cost_per_minute": (
        "per_minute",
        None,
        "A cost of 12.00 USD a minute instead of 3.00",
    ),
    "unusual_product_cost": (
        "cost_per_minute:inference",
        "inference",
        "Inference at 12.00 USD a minute instead of 3.00",
    ),
    "unusual_events": (
        "events:inference",
        "inference",
        "Inference with 12 turns instead of 3",
    ),
    "unusual_cost_per_event": (
        "each:inference",
        "inference",
        "Inference at 12.00 USD for each event instead of 3.00",
    ),
    "unusual_billing": (
        "billed:sip-trunking",
        "sip-trunking",
        "SIP trunking billed for 12 times its real duration",
    ),
    "unknown_rate": (
        "rate:sip-trunking:DE:12",
        "sip-trunking",
        "SIP trunking at 12.00 USD instead of 3.00",
    ),
    "new_product": ("product:recording", "recording", "Product Recording"),
    "new_model": ("model:gpt", None, "Model gpt"),
    "new_country": ("country:FR", None, "Country FR"),
    "missing_product": ("product:inference", "inference", "No Inference"),
    "missing_cost": ("free:", None, "No cost at all"),
}


@pytest.mark.parametrize("code", LEARNED)
def test_every_change_has_its_words(code: str) -> None:
    """What is new, what it was before, for whom, in how many calls and since when."""
    name, product, words = CASES[code]
    id, text, details = told(deviation(code, name, product))
    whose = "" if code == "unknown_rate" else "*/outbound/DE/phone:"
    assert id == f"new_normal:{whose}{name}", "a price that changes for many is told once"
    assert text == (
        f"{words} is the new normal for all outbound phone calls to DE: "
        "12 calls since 2026-09-21 14:13 UTC"
    )
    assert details[-1] == "What has been learned: tollwatch baseline '*/outbound/DE/phone'"


def test_what_changed_together_is_one_message() -> None:
    """A price before the cost that follows from it, and that before its parts."""
    price = deviation("unknown_rate", "rate:sip-trunking:DE:12", "sip-trunking", excess=0.5)
    total = deviation("unusual_cost", "total", excess=2.0)
    minute = deviation("unusual_cost_per_minute", "per_minute", excess=3.0)
    part = deviation("unusual_product_cost", "cost:sip-trunking", "sip-trunking", excess=1.0)
    _, text, details = told(part, minute, total, price)
    assert text.startswith("SIP trunking at 12.00 USD instead of 3.00 is the new normal")
    assert [line.partition(" is the")[0] for line in details[:3]] == [
        "With it: A cost of 12.00 USD instead of 3.00",
        "With it: A cost of 12.00 USD a minute instead of 3.00",
        "With it: SIP trunking at 12.00 USD instead of 3.00",
    ]
