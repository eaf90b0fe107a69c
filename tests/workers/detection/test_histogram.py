"""The histogram: all calls in few bars, each between two amounts."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from workers.detection.baseline import Sheet
from workers.detection.histogram import MOST_BARS, bars_of, counts_of
from workers.detection.sketch import bucket_of, upper_end_of

VALUES = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=60)


@given(VALUES)
def test_every_call_is_in_one_bar_that_holds_its_value(values: list[float]) -> None:
    """Bars join without a gap, are few, and count each value where it lies."""
    counts: dict[int, float] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    bars = bars_of(counts)
    assert len(bars) <= MOST_BARS
    assert all(a.high == b.low for a, b in itertools.pairwise(bars))
    assert sum(bar.calls for bar in bars) == len(values)
    low, high = bars[0].low, bars[-1].high
    assert all(low * 0.999999 <= value <= high * 1.000001 for value in values)


def test_nothing_learned_has_no_bars() -> None:
    """A cohort whose calls were all free has no histogram."""
    assert bars_of({}) == []


def test_older_calls_count_for_less() -> None:
    """What weighs the same on a sheet counts half as much a week later; nothing below zero."""
    sheet = Sheet(sketches={"total": {3: 160, 4: -1}})
    (now,), (later,) = (counts_of("total", {741: sheet}, 741 * 28 + d).values() for d in (0, 7))
    assert math.isclose(now, 10)
    assert math.isclose(later, 5)
    assert counts_of("other", {741: sheet}, 741 * 28) == {}
    assert bucket_of(upper_end_of(3) * 0.999) == 3
