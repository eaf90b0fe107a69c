"""What has been learned: sheets that only add up, and what is usual by them."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.detection.baseline import (
    DAYS,
    EMPTY,
    NARROWEST,
    Baseline,
    Heap,
    Lesson,
    Sheet,
    fit,
    scale_of,
    sheet_of,
    spread_of,
    weight_of,
)
from workers.detection.lasting import Evidence
from workers.detection.sketch import ERROR, bucket_of, log_middle_of

LADDER = ("finest", "account")
TODAY = 3 * DAYS + 9
TRAITS = ["product:a", "product:b", "model:m", "rate:a:DE:0.1", "country:DE", "free:"]


@st.composite
def lesson(draw: st.DrawFn, days: tuple[int, int] = (2 * DAYS, TODAY)) -> Lesson:
    names = draw(st.lists(st.sampled_from(["total", "cost:a", "each:a"]), unique=True))
    return Lesson(
        ladder=LADDER,
        day=draw(st.integers(*days)),
        buckets=tuple((name, draw(st.integers(-40, 40))) for name in names),
        traits=frozenset(draw(st.lists(st.sampled_from(TRAITS)))),
    )


LESSONS = st.lists(lesson(), max_size=30)
ONE_SHEET = st.lists(lesson((3 * DAYS, TODAY)), max_size=30)


def learned(lessons: Iterable[Lesson]) -> dict[int, Sheet]:
    """One after the other, each onto its sheet."""
    sheets: dict[int, Sheet] = {}
    for each in lessons:
        sheets.setdefault(sheet_of(each.day), Sheet()).learn(Heap(each.day, [each]))
    return sheets


def heaped(lessons: Sequence[Lesson]) -> dict[int, Sheet]:
    """All of a day at once."""
    sheets: dict[int, Sheet] = {}
    for day, heap in groupby(sorted(lessons, key=_day), key=_day):
        sheets.setdefault(sheet_of(day), Sheet()).learn(Heap(day, list(heap)))
    return sheets


def _day(each: Lesson) -> int:
    return each.day


def merged(sheets: Iterable[Sheet]) -> Sheet:
    """Several workers' sheets of the same weeks, added up."""
    days: Counter[int] = Counter()
    traits: Counter[str] = Counter()
    sketches: dict[str, Counter[int]] = {}
    calls = 0
    for sheet in sheets:
        calls += sheet.calls
        days.update(sheet.days)
        traits.update(sheet.traits)
        for name, counts in sheet.sketches.items():
            sketches.setdefault(name, Counter()).update(counts)
    return Sheet(calls, dict(days), {n: dict(c) for n, c in sketches.items()}, dict(traits))


def usual(sheets: dict[int, Sheet], strange: dict[str, Evidence] | None = None) -> Baseline:
    return fit("finest", sheets, strange or {}, TODAY)


@given(LESSONS, st.randoms(use_true_random=False))
def test_lessons_add_up_in_any_order(lessons: list[Lesson], rng: Random) -> None:
    """However they come, one by one or in heaps, they end in the same sheets and baseline."""
    other = lessons.copy()
    rng.shuffle(other)
    one_by_one = learned(lessons)
    assert one_by_one == learned(other) == heaped(other)
    assert usual(one_by_one) == usual(learned(other))


@given(ONE_SHEET, st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_several_workers_sheets_merge(lessons: list[Lesson], workers: list[int]) -> None:
    """Whoever counted a lesson, the sum is the sheet of one that counted all."""
    alone, shared = Sheet(), [Sheet() for _ in range(4)]
    for each, worker in zip(lessons, workers, strict=False):
        alone.learn(Heap(each.day, [each]))
        shared[worker].learn(Heap(each.day, [each]))
    assert merged(shared) == alone
    assert usual({3: merged(shared)}) == usual({3: alone})


def test_nothing_is_usual_of_nobody() -> None:
    """Without a call there is no baseline, whatever was strange."""
    assert usual({}) == usual({3: Sheet()}) is EMPTY
    alone = Evidence(hours=dict.fromkeys(range(24 * TODAY, 24 * TODAY + 20), 3))
    assert usual({}, {"product:a": alone}) is EMPTY


def test_recent_days_weigh_more() -> None:
    """A call of seven days ago counts half as much as one of today, across a change of sheets."""
    for today in (3 * DAYS, 3 * DAYS + 13, 4 * DAYS - 1):
        for age in (0, 7, 14, 21, 28):
            day = today - age
            weight = weight_of(day) * scale_of(sheet_of(day), today)
            assert math.isclose(weight, 0.5 ** (age / 7), rel_tol=0.03)


@pytest.mark.parametrize("day", [0, TODAY - 20_000, TODAY + 20_000])
def test_a_clock_that_was_wrong_ends_nothing(day: int) -> None:
    """A call of another century is counted, and the others are read."""
    sheets = learned([COMMON] * 30 + [msgspec.structs.replace(COMMON, day=day)])
    found = usual(sheets)
    assert found.calls == 31
    assert found.spreads["total"].middle == log_middle_of(0)


def test_calls_and_days_are_counted_as_they_are() -> None:
    """What people are told is how many calls there were, over how many days."""
    lessons = [Lesson(LADDER, TODAY - age, (), frozenset()) for age in (0, 0, 4, 9, 30)]
    found = usual(learned(lessons))
    assert (found.calls, found.days) == (5, 31)


def spread_over(values: Iterable[float]) -> dict[int, float]:
    counts: dict[int, float] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return counts


def test_a_spread_finds_the_log_normal_it_was_made_of() -> None:
    """Middle and deviation of log-normal values, within a tenth or so."""
    rng = Random(7)
    found = spread_of(spread_over(math.exp(rng.gauss(-1.5, 0.5)) for _ in range(4000)))
    assert found.calls == 4000
    assert math.isclose(found.middle, -1.5, abs_tol=0.05)
    assert 0.5 <= found.deviation <= 0.7
    assert math.isclose(found.high, -1.5 + 2.326 * 0.5, abs_tol=0.12)
    assert math.isclose(found.low, -1.5 - 1.645 * 0.5, abs_tol=0.12)


def test_a_longer_tail_is_a_wider_spread() -> None:
    """Of values that go further than a log-normal would, the tail is believed, not the middle."""
    rng = Random(7)
    tail = spread_of(spread_over(rng.paretovariate(1.3) for _ in range(4000)))
    quarter = math.log(2) / 1.3
    assert tail.deviation > 1.3 * quarter / 0.674


def test_one_call_alone_widens_nothing() -> None:
    """A single value at the far end is not believed; two at the same place are."""
    usual_ones = dict.fromkeys([bucket_of(0.2)], 500.0)
    once = spread_of(usual_ones | {bucket_of(20): 1.0})
    twice = spread_of(usual_ones | {bucket_of(20): 2.0})
    assert once.deviation == 0
    assert twice.deviation > 1


@given(st.floats(min_value=1e-6, max_value=1e6), st.integers(1, 10_000))
def test_no_spread_at_all_is_a_spread_of_zero(value: float, calls: int) -> None:
    """Where every call costs the same, the middle is that, and the deviation nothing."""
    found = spread_of({bucket_of(value): calls})
    assert found.deviation == 0
    assert found.low == found.middle == found.high
    assert abs(found.middle - math.log(value)) <= -math.log(1 - ERROR)
    assert NARROWEST > 2 * ERROR


def evidence(bucket: int | None, calls: int = 12, *, hours: int = 8) -> Evidence:
    found = Evidence()
    for number in range(calls):
        found.add(24 * TODAY + number % hours, bucket)
    return found


COMMON = Lesson(LADDER, TODAY, (("total", 0),), frozenset({"product:a", "rate:a:DE:0.1"}))


def test_a_lasting_change_is_usual_and_named() -> None:
    """Strange values count once there is enough of them, and the baseline says what changed."""
    sheets = {3: Sheet()}
    sheets[3].learn(Heap(TODAY, [COMMON] * 10))
    few, enough = (
        usual(sheets, {"total": evidence(90, calls), "rate:a:DE:0.2": evidence(None, calls)})
        for calls in (7, 30)
    )
    assert few.changes == ()
    assert few.spreads["total"].middle == log_middle_of(0)
    assert "rate:a:DE:0.2" not in few.traits
    assert enough.changes == ("total", "rate:a:DE:0.2")
    assert enough.spreads["total"].middle == log_middle_of(90)
    assert enough.spreads["total"].calls == pytest.approx(40, rel=1e-3)
    assert enough.traits["rate:a:DE:0.2"] == 30


@pytest.mark.parametrize("trait", ["product:b", "model:vendor:x:1", "country:NG"])
def test_what_is_new_is_new_once(trait: str) -> None:
    """A product, a model or a country is known from its first call on, though it was strange."""
    sheets = {3: Sheet()}
    sheets[3].learn(Heap(TODAY, [COMMON] * 10))
    assert usual(sheets, {trait: evidence(None, 1)}).traits[trait] == 1
    assert usual(sheets, {trait: evidence(None, 1)}).changes == ()


def test_a_price_is_new_until_it_lasts() -> None:
    """A wrong price stays wrong, although it came before."""
    sheets = {3: Sheet()}
    sheets[3].learn(Heap(TODAY, [COMMON] * 10))
    assert "rate:a:DE:9" not in usual(sheets, {"rate:a:DE:9": evidence(None, 3)}).traits


def test_what_happened_once_is_counted_by_group() -> None:
    """So many prices, models and so on occurred in a single call."""
    rare = Lesson(LADDER, TODAY, (), frozenset({"product:a", "model:x:1", "rate:a:DE:0.3"}))
    sheets = {3: Sheet()}
    sheets[3].learn(Heap(TODAY, [COMMON, COMMON, rare]))
    assert usual(sheets).once == {"model": 1, "rate:a:DE": 1}
