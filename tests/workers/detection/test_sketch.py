"""The sketch: quantiles with a bounded error, of integers that only add up."""

import math
from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from workers.detection.sketch import (
    ERROR,
    WIDTH,
    bucket_of,
    log_middle_of,
    middle_of,
    quantiles,
)

AMOUNTS = st.floats(min_value=1e-9, max_value=1e12)
SHARES = st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=5).map(sorted)


def sketch(values: Iterable[float]) -> Counter[int]:
    return Counter(map(bucket_of, values))


def true_quantile(values: list[float], share: float) -> float:
    """The smallest value with at least that share of all at or below it."""
    rank = math.ceil(share * len(values) * (1 - 1e-12))
    return sorted(values)[max(1, rank) - 1]


@given(AMOUNTS)
def test_a_bucket_stands_for_its_values(value: float) -> None:
    """Every value is within the error of the middle of its bucket."""
    assert abs(middle_of(bucket_of(value)) - value) <= ERROR * value * (1 + 1e-9)


@given(AMOUNTS, AMOUNTS)
def test_buckets_keep_the_order(one: float, other: float) -> None:
    """A larger value is in no lower bucket."""
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


@given(st.lists(AMOUNTS, min_size=1, max_size=200), SHARES)
def test_any_quantile_is_within_the_error(values: list[float], shares: list[float]) -> None:
    """Whatever the values are, each quantile is off by at most ERROR of the true one."""
    found = quantiles(sketch(values), shares)
    for share, log in zip(shares, found, strict=True):
        true = true_quantile(values, share)
        assert abs(math.exp(log) - true) <= ERROR * true * (1 + 1e-9)


@given(st.lists(AMOUNTS, min_size=1), st.lists(AMOUNTS), SHARES)
def test_sketches_merge_by_addition(
    here: list[float], there: list[float], shares: list[float]
) -> None:
    """Two workers' counts, added, are the sketch of all values."""
    merged = sketch(here) + sketch(there)
    assert merged == sketch(there + here)
    assert quantiles(merged, shares) == quantiles(sketch(here + there), shares)


@given(st.lists(AMOUNTS, min_size=1), st.floats(min_value=1e-3, max_value=1e3), SHARES)
def test_weights_only_count_against_each_other(
    values: list[float], weight: float, shares: list[float]
) -> None:
    """Counts that all weigh the same are as good as counts, however much it is."""
    weighed = {bucket: count * weight for bucket, count in sketch(values).items()}
    inside = [share for share in shares if not _on_an_edge(share * len(values))]
    assert quantiles(weighed, inside) == quantiles(sketch(values), inside)


def _on_an_edge(rank: float) -> bool:
    """Where rounding decides between two neighbours."""
    return abs(rank - round(rank)) < 1e-6


def test_what_is_next_to_nothing_counts_as_the_smallest() -> None:
    """Zero has no logarithm, and yet ends nothing."""
    assert bucket_of(0.0) == bucket_of(1e-13) == bucket_of(1e-12)


@given(st.integers(min_value=-400, max_value=400), st.integers(min_value=-400, max_value=400))
def test_buckets_are_equally_wide(one: int, other: int) -> None:
    """In logarithms, all of them: a factor on all values moves them by whole buckets."""
    assert math.isclose(log_middle_of(one) - log_middle_of(other), (one - other) * WIDTH)
