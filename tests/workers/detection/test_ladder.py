"""A call's cohorts together: what they say of traits, and whose word counts."""

from collections.abc import Mapping

import pytest

from workers.detection.baseline import EMPTY, Baseline
from workers.detection.ladder import UNSEEN, Ladder
from workers.detection.leaning import LEAST_CALLS


def baseline(
    name: str, calls: int, traits: Mapping[str, int] | None = None, **once: int
) -> Baseline:
    return Baseline(name, calls, 7, EMPTY.spreads, traits or {}, once)


def ladder(*baselines: Baseline) -> Ladder:
    """The finest come first; the account has at least its calls."""
    rest = [EMPTY] * (5 - len(baselines))
    return Ladder([*baselines[:-1], *rest, baselines[-1]])


def said(found: tuple[float, Baseline] | None) -> tuple[float, str]:
    assert found is not None
    return found[0], found[1].cohort


def speaker(found: tuple[float, Baseline] | None) -> str:
    return said(found)[1]


def test_what_never_occurred_is_as_likely_as_what_occurred_once() -> None:
    """Of a hundred calls two had a model that no other had: so likely is one more."""
    cohort = baseline("c", 100, {"model:a": 98}, model=2)
    likelihood, whose = said(ladder(cohort, cohort).unseen("model:z"))
    assert whose == "c"
    assert likelihood == pytest.approx((2 + UNSEEN) / 100)


def test_what_was_seen_is_not_new() -> None:
    """Once is enough, in the cohort that has a say."""
    cohort = baseline("c", 100, {"model:a": 1}, model=1)
    assert ladder(cohort, baseline("account", 900)).unseen("model:a") is None


def test_the_finest_cohort_with_a_say_speaks() -> None:
    """One with too few calls is not asked, and one with none of the product not about its price."""
    few, enough = baseline("few", LEAST_CALLS - 1), baseline("enough", LEAST_CALLS)
    account = baseline("account", 900)
    assert speaker(ladder(few, enough, account).unseen("model:z")) == "enough"
    assert ladder(few, few).unseen("model:z") is None


def test_prices_are_new_among_the_calls_with_their_product() -> None:
    """A product that only some calls have: its prices are learned from these."""
    some = baseline("some", 1000, {"product:a:b": 40, "rate:a:b:DE:0.1": 40})
    likelihood, whose = said(ladder(some, some).unseen("rate:a:b:DE:0.2"))
    assert whose == "some"
    assert likelihood == pytest.approx(UNSEEN / 40)
    rarely = baseline("rarely", 1000, {"product:a:b": 5})
    assert ladder(rarely, rarely).unseen("rate:a:b:DE:0.2") is None


def test_what_others_know_well_is_no_news() -> None:
    """A price that the rest of the account has had often is not wrong here; twice is not often."""
    cohort = baseline("c", 100)
    often, by_chance = ({"model:z": number} for number in (3, 2))
    assert ladder(cohort, baseline("account", 900, often)).unseen("model:z") is None
    assert speaker(ladder(cohort, baseline("account", 900, by_chance)).unseen("model:z")) == "c"


def test_a_country_is_new_where_cohorts_are_not_named_after_it() -> None:
    """To its own finest cohort no destination could ever be new."""
    mine, entity, country, kind, account = (
        baseline(name, 100) for name in ("mine", "entity", "country", "kind", "account")
    )
    assert speaker(Ladder([mine, entity, country, kind, account]).unseen("country:NG")) == "entity"
    few = baseline("entity", 3)
    assert speaker(Ladder([mine, few, country, kind, account]).unseen("country:NG")) == "kind"


def test_products_that_hardly_any_call_lacks() -> None:
    """Nine of ten have them, by the cohort that has a say."""
    traits = {"product:a": 90, "product:b": 89, "model:m": 100}
    found = ladder(baseline("few", 5), baseline("c", 100, traits), baseline("account", 200))
    assert [(name, speaker((p, b))) for name, p, b in found.always] == [("a", "c")]
    assert found.always[0][1] == pytest.approx((10 + UNSEEN) / 100)
    assert ladder(baseline("few", 5), baseline("account", 5)).always == ()
