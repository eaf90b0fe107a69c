"""The explanation: one sentence with the money in it, in words that a person can act on."""

from typing import Any

import pytest

from tests.samples import node
from tests.workers.detection.taught import (
    FIRST_MS,
    QUIET_CEILINGS,
    call_of,
    free_call,
    opinion_on,
    recorded,
    said_of,
    taught,
)
from workers.backtest import Backtest
from workers.blocks import LONGEST_SENTENCE
from workers.detection.explain import change_in_words, cohort_in_words

_WHOSE = "assistant-1's outbound calls to US (175 calls in 4 days"


@pytest.fixture(scope="module")
def learned() -> Backtest:
    """One for all tests, which teach it nothing."""
    return taught()


def sentences(test: Backtest, answer: dict[str, Any], country: str = "US") -> dict[str, str]:
    return {r.code: r.text for r in said_of(test, answer, country=country).reasons}


def test_a_dear_call_says_what_was_too_much_and_of_what(learned: Backtest) -> None:
    """Observed, factor, usual, whose, calls, range, excess, and its share by part."""
    told = sentences(learned, call_of(57, 412))
    assert told["unusual_cost"] == (
        f"3.75 USD, 22 times the usual 0.17 for {_WHOSE}, 99 % under 0.23). 3.58 over: AI minutes "
        "2.70 (57 minutes instead of 3), Inference 0.61 (412 turns instead of 5), SIP trunking "
        "0.27 (57 minutes instead of 3)"
    )
    assert told["unusual_events"] == (
        f"Inference: 412 turns instead of 5 for {_WHOSE}, 99 % under 6 turns). 0.61 over"
    )
    assert told["unusual_product_cost"].startswith(
        f"SIP trunking cost 0.285 USD, 19 times the usual 0.015 for {_WHOSE}, 99 % under 0.02)"
    )


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (
            call_of(rate="1.00"),
            "unusual_cost",
            (
                f"3.02 USD, 18 times the usual 0.17 for {_WHOSE}, 99 % under 0.23). 2.85 over: "
                "AI minutes 2.85 (1.00 a minute instead of 0.051)"
            ),
        ),
        (
            call_of(rate="1.00"),
            "unknown_rate",
            (
                "AI minutes was charged at a rate of 1.00 USD instead of 0.05, never seen before "
                f"for {_WHOSE}). 2.85 over"
            ),
        ),
        (
            call_of(a_turn="0.09"),
            "unusual_cost_per_event",
            (
                "Inference cost 0.09 USD for each turn, 61 times the usual 0.0015 for "
                f"{_WHOSE}, 99 % under 0.0015). 0.44 over"
            ),
        ),
        (
            call_of(1, 4, rate="0.40"),
            "unusual_cost_per_minute",
            (
                f"0.411 USD a minute, 7.3 times the usual 0.056 for {_WHOSE}, 99 % under 0.059). "
                "0.35 over"
            ),
        ),
        (
            call_of(a_turn="0.09"),
            "unusual_cost",
            (
                f"0.615 USD, 3.6 times the usual 0.17 for {_WHOSE}, 99 % under 0.23). 0.45 over: "
                "Inference 0.44 (0.09 for each turn instead of 0.0015)"
            ),
        ),
        (
            call_of(more=(node("media-streaming", "0.40", id="m"),)),
            "new_product",
            f"First time with Media streaming among {_WHOSE}). 0.40 over",
        ),
        (
            call_of(model="large"),
            "new_model",
            f"First time with the model large among {_WHOSE})",
        ),
        (
            call_of(turns=0),
            "missing_product",
            (
                f"No Inference: 0.0076 USD are usual in a call of this length for {_WHOSE}). "
                "0.0076 under"
            ),
        ),
        (
            free_call(),
            "missing_cost",
            (
                f"It cost nothing: 0.17 USD are usual for a call of this length for {_WHOSE}). "
                "0.17 under"
            ),
        ),
    ],
)
def test_each_kind_has_a_sentence(
    learned: Backtest, answer: dict[str, Any], code: str, sentence: str
) -> None:
    """Whatever is strange is said with the money, the usual and whose it is."""
    told = sentences(learned, answer)
    assert told[code].startswith(sentence), told


def test_a_new_country_is_compared_with_calls_to_all(learned: Backtest) -> None:
    """A country's own cohort has no calls: what is usual is that of the calls to the others."""
    assert sentences(learned, call_of(sip_rate="0.9"), "CU")["new_country"] == (
        "First call to CU among assistant-1's outbound calls (175 calls in 4 days). 2.69 over"
    )


def test_what_was_billed_too_long() -> None:
    """The billed time is set against started minutes, and the money against what that would be."""
    fair: dict[str, Any] = {"id": "r", "call_sec": 150, "billed_sec": 180}
    with_recording = taught(60, more=(node("recording", "0.006", **fair),))
    odd = node("recording", "0.06", **fair | {"billed_sec": 1800})
    told = sentences(with_recording, call_of(more=(odd,)))
    opinion = opinion_on(with_recording, call_of(more=(odd,)))
    billing = next(each for each in opinion.unlikely if each.code == "unusual_billing")
    changed = change_in_words(billing, opinion.measured, "USD")
    assert changed.startswith("Recording billed for 10 times its real duration is the new normal")
    assert told["unusual_billing"].startswith(
        "Recording was billed for 10 times its started minutes, usual are 1.0 times for "
        "assistant-1's outbound calls to US ("
    )


def test_a_reason_carries_its_figures(learned: Backtest) -> None:
    """Observed, expected, cohort, calls and the parts are there for programs, too."""
    (dear,) = (r for r in said_of(learned, call_of(57, 412)).reasons if r.code == "unusual_cost")
    assert (dear.learned_from, dear.calls) == ("assistant-1/outbound/US/assistant", 175)
    assert [part.product for part in dear.parts] == [
        "ai-voice-assistant", "inference", "sip-trunking",
    ]  # fmt: skip
    assert abs(sum(part.cost for part in dear.parts) - dear.excess) < dear.excess / 20


def test_no_sentence_is_longer_than_a_message_shows(learned: Backtest) -> None:
    """Ids of any length are cut, so that the money at the end is read, too."""
    many = tuple(node(f"product-{n}" * 3, "0.9", id=f"n{n}") for n in range(20))
    for reason in said_of(learned, call_of(57, 412, more=many)).reasons:
        assert len(reason.text) < LONGEST_SENTENCE


@pytest.mark.parametrize(
    ("cohort", "words"),
    [
        ("account", "all calls of the account"),
        ("*/*/*/phone", "all phone calls"),
        ("*/outbound/DE/phone", "all outbound phone calls to DE"),
        ("assistant-1/inbound/US/assistant", "assistant-1's inbound calls"),
        ("bot/?/?/assistant", "assistant bot's calls"),
        ("assistant-123456789012345678901234/outbound/*/assistant",
         "assistant-1234567890123…'s outbound calls"),
        ("7267/outbound/?/unanswered", "connection 7267's outbound unanswered calls"),
        ("?/inbound/US/phone", "inbound phone calls of no known connection"),
        ("a/b/inbound/US/phone", "connection a/b's inbound phone calls"),
    ],
)  # fmt: skip
def test_a_cohort_in_words(cohort: str, words: str) -> None:
    """Whose calls, which way, of what kind, and where to."""
    assert cohort_in_words(cohort) == words


@pytest.mark.parametrize(
    ("answer", "country", "code", "words"),
    [
        (call_of(57, 412), "US", "unusual_cost", "A cost of 3.75 USD instead of 0.17"),
        (call_of(1, 4, rate="0.40"), "US", "unusual_cost_per_minute",
         "A cost of 0.411 USD a minute instead of 0.056"),
        (call_of(57, 5), "US", "unusual_product_cost", "AI minutes at 2.85 USD instead of 0.15"),
        (call_of(57, 412), "US", "unusual_events", "Inference with 412 turns instead of 5"),
        (call_of(a_turn="0.09"), "US", "unusual_cost_per_event",
         "Inference at 0.09 USD for each event instead of 0.0015"),
        (call_of(rate="1.00"), "US", "unknown_rate", "AI minutes at 1.00 USD instead of 0.05"),
        (call_of(more=(node("media-streaming", "0.40", id="m"),)), "US", "new_product",
         "Product Media streaming"),
        (call_of(model="large"), "US", "new_model", "Model large"),
        (call_of(sip_rate="0.9"), "CU", "new_country", "Country CU"),
        (call_of(turns=0), "US", "missing_product", "No Inference"),
        (free_call(), "US", "missing_cost", "No cost at all"),
    ],
)  # fmt: skip
def test_a_change_is_said_in_few_words(
    learned: Backtest, answer: dict[str, Any], country: str, code: str, words: str
) -> None:
    """Whatever has become the new normal is named, with what it was before and for whom."""
    opinion = opinion_on(learned, answer, country=country)
    deviation = next(each for each in opinion.unlikely if each.code == code)
    told = change_in_words(deviation, opinion.measured, "USD")
    assert told.startswith(f"{words} is the new normal for assistant-1's outbound calls")


@pytest.mark.parametrize("usual", ["0.05", "-2E-24", "-1E15"])
def test_any_price_can_be_told(usual: str) -> None:
    """However odd a price is, it is a sentence, and takes no more than the product has cost."""
    test = Backtest(QUIET_CEILINGS)
    for number in range(40):
        test.session(recorded(call_of(more=(_at_rate(usual),)), FIRST_MS + number))
    for rate in ("-1E-24", "1E-24", "-0.07", "-2E14", "1E15", "0"):
        said = said_of(test, call_of(more=(_at_rate(rate),)))
        (reason,) = [each for each in said.reasons if each.code == "unknown_rate"]
        assert 0 <= reason.excess <= 2


def _at_rate(rate: str) -> dict[str, Any]:
    return node("recording", "2", id="r", rate=rate)
