"""Surges, the shapes of toll fraud, money and drops, in series of calls."""

import math
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.counting import ACCOUNT, CALLS, ONE_NUMBER, ONE_PREFIX, SHORT_CALLS
from workers.detection.finding import Finding
from workers.detection.series import Series, drop, paid, spend, surge
from workers.detection.tail import too_little, too_much
from workers.detection.usual import HOURS_KEPT, History
from workers.detection.velocity import HOUR_MS, MINUTE_MS, SPEND, Key, Passed, Velocity

MONDAY = 20_486 * 24
"""An hour since 1970: the first of 2 February 2026."""
DAY = 24 * HOUR_MS
BEGIN_MS = MONDAY * HOUR_MS
USUAL = Passed(0, None, "assistant-1", "", "", "", "", 90, Decimal("0.20"))


def at(day: float, hour: float = 0.0) -> int:
    """Milliseconds since 1970 at that hour of that day, counted from a Monday."""
    return int(BEGIN_MS + day * DAY + hour * HOUR_MS)


def even(first: int, last: int, *, per_hour: int = 6, like: Passed = USUAL) -> list[Passed]:
    """The same number of calls in every hour from one time to another."""
    step = HOUR_MS // per_hour
    return [like._replace(ended_ms=ms) for ms in range(first, last, step)]


def burst(begin: int, calls: int, *, minutes: int = 5, like: Passed = USUAL) -> list[Passed]:
    """So many calls within so many minutes."""
    step = minutes * MINUTE_MS // calls
    return [like._replace(ended_ms=begin + n * step) for n in range(calls)]


def told(*calls: list[Passed], velocity: Velocity | None = None) -> list[Finding]:
    """What is told of calls, in order of their ends."""
    judge = velocity or Velocity(least_excess=Decimal("0.01"))
    in_order = sorted((c for some in calls for c in some), key=lambda call: call.ended_ms)
    return [found for call in in_order for found in judge.call(call)]


@pytest.mark.parametrize("minute", [0, 3, 30, 59])
def test_of_surges_about_as_strange_the_one_that_says_most_is_told(minute: int) -> None:
    """At any minute of an hour, though the new place is stranger by a hair."""
    hour, velocity = MONDAY + 7 * 24 + 12, Velocity()
    for cohort in (ACCOUNT, "assistant-1", "LV"):
        known = range(MONDAY, hour) if cohort != "LV" else range(0)
        series = velocity.of(Key(CALLS, cohort), MONDAY if known else hour)
        for each in known:
            series.history.correct(each, 6)
        series.count(60 * hour + minute, 30)
    told = velocity.look(hour * HOUR_MS + minute * MINUTE_MS)
    # That calls fell away, too, is not asked here.
    assert [found.cohort for found in told if found.kind == CALLS] == ["assistant-1"]


def test_surges_of_two_at_once_are_told_both() -> None:
    """Neither is a part of the other, and the account's is no more than what was told of one."""
    first, second = (USUAL._replace(entity=entity) for entity in ("assistant-1", "7267"))
    quiet = [even(at(0), at(7, 12), like=like) for like in (first, second)]
    surges = [burst(at(7, 12), 40, like=first), burst(at(7, 12) + MINUTE_MS, 40, like=second)]
    found = [finding.cohort for finding in told(*quiet, *surges) if finding.kind == CALLS]
    assert sorted(found) == ["7267", "assistant-1"]


def test_surges_of_many_that_were_told_of_are_not_told_of_the_account_too() -> None:
    """None of them is half of it, but together they are."""
    likes = [USUAL._replace(entity=f"assistant-{number}") for number in range(3)]
    quiet = [even(at(0), at(7, 12), like=like) for like in likes]
    surges = [burst(at(7, 12 + n / 6), 40, like=like) for n, like in enumerate(likes)]
    found = [finding.cohort for finding in told(*quiet, *surges) if finding.kind == CALLS]
    assert sorted(found) == [like.entity for like in likes]


@pytest.mark.no_cover
def test_what_outgrows_the_one_that_was_told_of_is_told() -> None:
    """First one assistant's calls rise, then a few of each of many: the account's, and once."""
    like = [USUAL._replace(entity=f"assistant-{number}") for number in range(1, 40)]
    quiet = [
        even(at(0, place / 40), at(7, 12), per_hour=1, like=each) for place, each in enumerate(like)
    ]
    first = burst(at(7, 12), 80, minutes=1, like=like[0])
    rest = [burst(at(7, 12) + 2 * MINUTE_MS, 9, minutes=30, like=each) for each in like[1:]]
    found = [finding.cohort for finding in told(*quiet, first, *rest) if finding.kind == CALLS]
    assert found == ["assistant-1", ACCOUNT]


# --- the tails --------------------------------------------------------------------------------


def _poisson_at_least(count: int, mean: float) -> float:
    terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count))
    return 1 - sum(terms)


@pytest.mark.parametrize(("count", "mean"), [(1, 0.5), (5, 1.0), (12, 4.0), (3, 3.0)])
def test_a_certain_rate_has_a_poisson_tail(count: int, mean: float) -> None:
    """Summed term by term."""
    exact = _poisson_at_least(count, mean)
    assert too_much(count, mean, 1e6) == pytest.approx(-math.log10(exact), abs=1e-3)
    below = -math.log10(1 - _poisson_at_least(count + 1, mean))
    assert too_little(count, mean, 1e6) == pytest.approx(below, abs=1e-3)


AMOUNTS = st.floats(min_value=0, max_value=1e12, allow_nan=False)
STRENGTHS = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@given(AMOUNTS, AMOUNTS, AMOUNTS, STRENGTHS)
def test_more_is_never_less_strange(one: float, other: float, mean: float, strength: float) -> None:
    """And less is never more strange from below; whatever the numbers, a score is one."""
    less, more = sorted((one, other))
    for score in (too_much(less, mean, strength), too_little(less, mean, strength)):
        assert 0 <= score < math.inf
    slack = 1e-6
    assert too_much(more, mean, strength) >= too_much(less, mean, strength) * (1 - slack) - slack
    upper, lower = too_little(less, mean, strength), too_little(more, mean, strength)
    assert upper >= lower * (1 - slack) - slack


# --- what is usual ----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20 * 24), st.integers(0, 9)), max_size=60), st.randoms())
def test_the_order_of_updates_does_not_matter(adds: list[tuple[int, int]], random: Random) -> None:
    """Any number of processes add to the same sums."""
    shuffled = list(adds)
    random.shuffle(shuffled)
    one, other = History(MONDAY), History(MONDAY)
    for hour, amount in adds:
        one.learn(MONDAY + hour, amount)
    for hour, amount in shuffled:
        other.learn(MONDAY + hour, amount)
    now = MONDAY + 21 * 24 + 9
    assert one.usual(now) == other.usual(now)


def _history(of_hour: dict[int, int], *, days: int, growth: float = 1.0) -> History:
    history = History(MONDAY)
    for day in range(days):
        for hour, amount in of_hour.items():
            history.learn(MONDAY + day * 24 + hour, round(amount * growth**day))
    return history


def test_an_hour_is_what_it_was_on_the_days_before() -> None:
    """Noon is not midnight."""
    history = _history(dict.fromkeys(range(9, 18), 20), days=12)
    assert history.usual(MONDAY + 11 * 24 + 13).mean == pytest.approx(20, rel=0.1)
    assert history.usual(MONDAY + 11 * 24 + 3).mean < 0.5


def test_growth_is_followed() -> None:
    """An average over weeks would be half as large."""
    history = _history(dict.fromkeys(range(24), 10), days=28, growth=1.05)
    expected = 10 * 1.05**28
    assert history.usual(MONDAY + 28 * 24 + 12).mean == pytest.approx(expected, rel=0.25)


def test_a_sunday_is_no_saturday_once_some_have_been_seen() -> None:
    """On the first one it leans on the day before."""
    history = History(MONDAY)
    for day in range(28):
        calls = {5: 30, 6: 6}.get(day % 7, 60)
        history.learn(MONDAY + day * 24 + 12, calls)
    first, later = (history.usual(MONDAY + day * 24 + 12).mean for day in (6, 27))
    assert 15 < first < 40
    assert later < 13


def test_what_was_odd_does_not_teach_until_it_is_how_things_are() -> None:
    """A few hours that were told of are left out; where most were, they are the new usual."""
    history = _history({12: 4}, days=14)
    for day in (3, 9):
        history.learn(MONDAY + day * 24 + 12, 400)
        history.odd.add(MONDAY + day * 24 + 12)
    assert history.usual(MONDAY + 14 * 24 + 12).mean < 6
    for day in range(14):
        history.learn(MONDAY + day * 24 + 12, 400)
        history.odd.add(MONDAY + day * 24 + 12)
    history.forget(MONDAY)
    assert history.usual(MONDAY + 14 * 24 + 12).mean > 100


def test_what_holds_no_burst_is_the_least_to_expect() -> None:
    """Where campaigns come on most days, a day without one is no drop."""
    history = _history({12: 4}, days=14)
    for day in range(0, 14, 2):
        history.learn(MONDAY + day * 24 + 12, 400)
        history.odd.add(MONDAY + day * 24 + 12)
    assert history.calm(MONDAY + 14 * 24 + 12).mean < 6


# --- what is told -----------------------------------------------------------------------------


def test_calls_that_come_like_clockwork_tell_nothing() -> None:
    """No spread at all neither alarms nor blinds."""
    clockwork = even(at(0), at(9))
    assert told(clockwork) == []
    (found,) = told(clockwork, burst(at(8, 10), 30))
    assert found.kind == CALLS


def test_a_surge_is_told_once_within_minutes() -> None:
    """With the numbers and the money in one sentence; the account's is the same surge."""
    (found,) = told(even(at(0), at(9)), burst(at(8, 10), 180, minutes=30))
    assert found.cohort == "assistant-1"
    assert found.at_ms - at(8, 10) <= 5 * MINUTE_MS
    assert found.id == f"velocity:assistant-1:{found.at_ms // MINUTE_MS}"
    assert found.text.startswith("Assistant assistant-1: ")
    assert "calls in 5 minutes, usual 0.5 at this hour; about " in found.text
    assert found.excess > Decimal("0.5")


def test_a_surge_costs_what_its_calls_usually_do_before_their_cost_is_known() -> None:
    """A count is there when the webhook is."""
    unknown = USUAL._replace(cost=None)
    (found,) = told(even(at(0), at(8, 10)), burst(at(8, 10), 40, like=unknown))
    assert found.excess == pytest.approx(Decimal("0.2") * 10, rel=Decimal("0.5"))


def test_what_does_not_matter_is_not_told() -> None:
    """Thirty calls too many of a tenth of a cent each."""
    cheap = USUAL._replace(cost=Decimal("0.001"))
    calls = even(at(0), at(9), like=cheap), burst(at(8, 10), 30, like=cheap)
    assert told(*calls, velocity=Velocity(least_excess=Decimal(1))) == []
    assert len(told(*calls, velocity=Velocity(least_excess=Decimal("0.001")))) == 1


def test_bursts_of_a_size_that_has_come_before_are_usual() -> None:
    """A campaign is told of on two days; after that only one that is far larger."""
    quiet = even(at(0), at(12), per_hour=1)
    days = [burst(at(day, 10 + day % 3), 60, minutes=60) for day in (3, 7, 8, 9)]
    found = told(quiet, *days)
    assert [(f.at_ms - BEGIN_MS) // DAY for f in found] == [3, 7]
    larger = told(quiet, *days, burst(at(10, 11), 400, minutes=60))
    assert [(f.at_ms - BEGIN_MS) // DAY for f in larger] == [3, 7, 10]


def test_a_usual_burst_explains_its_parts_and_not_what_is_beyond_it() -> None:
    """A prefix that is new in a usual campaign is part of it; ten times the calls are not."""
    quiet = even(at(0), at(12), per_hour=1)
    days = [burst(at(day, 10), 60, minutes=60) for day in (3, 7)]
    elsewhere = USUAL._replace(prefix="+37120")
    usual = burst(at(9, 10), 60, minutes=60, like=elsewhere)
    assert [(f.at_ms - BEGIN_MS) // DAY for f in told(quiet, *days, usual)] == [3, 7]
    beyond = burst(at(9, 10.5), 600, minutes=30, like=elsewhere)
    found = told(quiet, *days, usual, beyond)
    assert [((f.at_ms - BEGIN_MS) // DAY, f.cohort) for f in found[2:]] == [(9, "assistant-1")]


def test_calls_that_fall_away_are_told_once() -> None:
    """And the hours without them do not teach."""
    before, after = even(at(0), at(8, 10)), even(at(8, 18), at(10))
    (found,) = told(before, after)
    assert found.kind == "drop"
    assert found.cohort == ACCOUNT
    assert found.at_ms - at(8, 10) <= 4 * HOUR_MS
    assert found.text.endswith("only 0 calls in 4 hours, usual 24 at this time")


def test_a_quiet_account_never_drops() -> None:
    """There is nothing to fall away."""
    assert told(even(at(0), at(8), per_hour=1), even(at(9), at(10), per_hour=1)) == []


def _number(n: int, *, block: int = 0, seconds: int = 90) -> Passed:
    like = USUAL._replace(entity="1700000000000000001", duration_seconds=seconds)
    return like._replace(prefix="+37120", number=f"n{n}", block=f"b{block}")


def test_the_shapes_of_toll_fraud_have_names_of_their_own() -> None:
    """Short calls, one number, one block: hidden in as many usual calls, their shape shows."""
    busy = [
        replace_number(call, n)
        for n, call in enumerate(even(at(0), at(4, 5), per_hour=24, like=_number(0)))
    ]
    night = at(4, 3)
    short = [replace_number(c, 9000 + n) for n, c in enumerate(burst(night, 25, minutes=50))]
    short = [c._replace(entity=_number(0).entity, duration_seconds=8) for c in short]
    one = burst(night, 25, minutes=50, like=_number(7))
    block = [
        c._replace(number=f"x{n}")
        for n, c in enumerate(burst(night, 25, minutes=50, like=_number(0, block=-1)))
    ]
    for calls, kind in ((short, SHORT_CALLS), (one, ONE_NUMBER), (block, ONE_PREFIX)):
        assert [found.kind for found in told(busy, calls)] == [kind]


def replace_number(call: Passed, n: int) -> Passed:
    """A call to a number that nobody else has, far from all others."""
    return call._replace(number=f"n{n}", block=f"b{n}")


def test_calls_that_cost_more_than_theirs_usually_do_are_told() -> None:
    """As many as ever, each three times as dear: money runs all the same."""
    dear = even(at(8), at(9), like=USUAL._replace(cost=Decimal("0.60")))
    (found,) = told(even(at(0), at(8)), dear)
    assert found.kind == SPEND
    assert "over the usual" in found.text


def _many(count: int = 12, **what: Any) -> list[Passed]:
    """One call of each of so many assistants."""
    return [USUAL._replace(entity=f"assistant-{n}", **what) for n in range(count)]


def _each(first: int, last: int, like: list[Passed]) -> list[list[Passed]]:
    """Of each a call every two hours, a few minutes apart."""
    every = 2 * HOUR_MS
    return [
        [one._replace(ended_ms=ms) for ms in range(first + n * 5 * MINUTE_MS, last, every)]
        for n, one in enumerate(like)
    ]


def test_money_that_runs_a_little_everywhere_is_told_of_the_account() -> None:
    """Every assistant's calls cost three times the usual; of none are there enough to tell."""
    dear = _each(at(8), at(8, 8), _many(cost=Decimal("0.60")))
    (found,) = told(*_each(at(0), at(8), _many()), *dear)
    assert (found.kind, found.cohort) == (SPEND, ACCOUNT)


def test_money_that_runs_to_one_country_is_told_of_it() -> None:
    """Calls of all assistants there cost four times the usual, and elsewhere what they did."""
    home, abroad = _many(country="DE"), _many(country="LV")
    usual = [*_each(at(0), at(9), home), *_each(at(0, 0.5), at(8), abroad)]
    dear = _each(at(8, 0.5), at(9), _many(country="LV", cost=Decimal("0.80")))
    (found,) = told(*usual, *dear)
    assert (found.kind, found.cohort) == (SPEND, "LV")


def test_nobody_is_blamed_for_a_new_assistant_or_for_more_calls_of_a_dear_one() -> None:
    """The account spends more, and the country, too; each call costs what such calls do."""
    dear = USUAL._replace(country="DE", entity="assistant-dear", cost=Decimal(2))
    usual = [*_each(at(0), at(10), _many(country="DE")), even(at(0), at(8), per_hour=1, like=dear)]
    more = even(at(8), at(10), per_hour=4, like=dear)
    new = even(at(9), at(10), per_hour=4, like=dear._replace(entity="assistant-new"))
    assert [found for found in told(*usual, more, new) if found.kind == SPEND] == []


def test_dear_calls_of_a_surge_are_told_with_it() -> None:
    """The money is the surge's own."""
    dear = burst(at(8, 10), 90, minutes=40, like=USUAL._replace(cost=Decimal("0.90")))
    assert [found.kind for found in told(even(at(0), at(9)), dear)] == [CALLS]


def test_calls_from_everywhere_to_one_place_are_told_of_that() -> None:
    """No assistant alone has many of them."""
    lines = [USUAL._replace(entity=f"assistant-{n}", prefix="+1212") for n in range(30)]
    usual = [calls for line in lines for calls in even(at(0), at(4), per_hour=1, like=line)]
    odd = [
        line._replace(ended_ms=at(3, 10.02) + n * 8000, country="LV", prefix="+37120", cost=None)
        for n, line in enumerate(lines)
    ]
    (found,) = told(usual, odd)
    assert found.text.startswith("Calls to LV: ")


def test_one_dear_call_is_not_a_spend_that_runs() -> None:
    """It has an alert of its own."""
    one = [USUAL._replace(ended_ms=at(8, 10.5), cost=Decimal(40))]
    assert told(even(at(0), at(9)), one) == []


@given(st.sampled_from(["0.01", "100", "7"]))
@settings(max_examples=3)
def test_the_unit_of_money_does_not_matter(factor: str) -> None:
    """Cents or dollars, with the policy's amount converted: the same findings."""

    def run(unit: Decimal) -> Iterator[tuple[str, int]]:
        like = USUAL._replace(cost=Decimal("0.20") * unit)
        velocity = Velocity(least_excess=Decimal("0.01") * unit)
        calls = even(at(0), at(8), like=like), burst(at(7, 10), 60, minutes=30, like=like)
        dear = even(at(8), at(8, 12), like=like._replace(cost=Decimal("0.7") * unit))
        return ((found.id, found.at_ms) for found in told(*calls, dear, velocity=velocity))

    assert list(run(Decimal(factor))) == list(run(Decimal(1)))


@given(st.integers(6, 60), st.integers(0, 60))
@settings(max_examples=30)
def test_more_calls_are_never_told_of_less(calls: int, more: int) -> None:
    """What is a surge stays one with further calls in it."""
    scores = []
    for number in (calls, calls + more):
        series = Series(_history(dict.fromkeys(range(24), 2), days=8))
        series.count((MONDAY + 8 * 24 + 5) * 60, number)
        found = surge(series, (MONDAY + 8 * 24 + 5) * 60, prior=0.0, each=0.0, threshold=0.0)
        scores.append(found.score if found else 0.0)
    assert scores[1] >= scores[0]


CALLS_OF_ANY_KIND = st.builds(
    Passed,
    st.integers(BEGIN_MS, BEGIN_MS + 40 * DAY),
    st.one_of(st.none(), st.just(BEGIN_MS)),
    st.sampled_from(["assistant-1", "2", ACCOUNT]),
    st.sampled_from(["", "LV"]),
    st.sampled_from(["", "+37120"]),
    st.sampled_from(["", "n", "m"]),
    st.sampled_from(["", "b"]),
    st.one_of(st.none(), st.integers(0, 90_000)),
    st.one_of(st.none(), st.decimals(0, 10_000, places=6)),
)


@given(st.lists(CALLS_OF_ANY_KIND, max_size=40))
@settings(max_examples=40)
def test_any_calls_in_any_order_are_judged(calls: list[Passed]) -> None:
    """Times may jump, costs may be free or absent: nothing breaks."""
    velocity = Velocity()
    for call in calls:
        velocity.call(call)
    velocity.look(BEGIN_MS + 41 * DAY)


def test_a_look_at_all_series_finds_what_each_call_would_have_shown() -> None:
    """For a worker that reads what others counted; an episode that is told of is told once."""
    velocity = Velocity()
    told(even(at(0), at(8, 10)), velocity=velocity)
    minute = at(8, 10) // MINUTE_MS
    for cohort in (ACCOUNT, "assistant-1"):
        velocity.series[Key(CALLS, cohort)].count(minute, 40)
    assert [found.cohort for found in velocity.look(at(8, 10))] == ["assistant-1"]
    assert velocity.look(at(8, 10) + MINUTE_MS) == []


def test_a_series_without_a_past_says_nothing() -> None:
    """Neither drops nor money can be judged on the first day."""
    series = Series(History(MONDAY))
    series.count(MONDAY * 60, 50)
    series.pay(MONDAY, 10_000_000)
    assert drop(series, (MONDAY + 20) * 4, threshold=0.0) is None
    assert spend([paid(series, MONDAY + 1)], threshold=0.0) is None


@given(
    st.lists(st.tuples(st.integers(0, 32 * 24), st.integers(1, 60)), max_size=60),
    st.integers(29 * 24, 32 * 24),
)
def test_what_is_forgotten_was_of_no_use(added: list[tuple[int, int]], now: int) -> None:
    """At any hour of a day: what is usual today, and was yesterday, stays what it is."""
    kept, forgetting = History(MONDAY), History(MONDAY)
    for hour, amount in added:
        for history in (kept, forgetting):
            history.learn(MONDAY + min(hour, now), amount)
    forgetting.forget(MONDAY + now - HOURS_KEPT - 24)
    for hour in (MONDAY + now, MONDAY + now - now % 24 - 1):
        assert forgetting.usual(hour) == kept.usual(hour)
        assert forgetting.average(hour) == kept.average(hour)


def test_what_calls_cost_knows_a_charge_that_comes_after_midnight() -> None:
    """Whether or not it was asked before: no order of questions shows in a finding."""
    asked, unasked = (Series(History(MONDAY)) for _ in range(2))
    for series in (asked, unasked):
        for _ in range(40):
            series.pay(MONDAY + 20, 1_000_000)
    asked.costs(MONDAY + 24)
    for series in (asked, unasked):
        series.pay(MONDAY + 23, 9_000_000)
    assert asked.costs(MONDAY + 25) == unasked.costs(MONDAY + 25)
    assert asked.costs(MONDAY + 25).micros == 49_000_000


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10), st.integers(1, 4)), max_size=120),
    st.sampled_from([5, 15, 60]),
)
@example([(30, 0, 4), (0, 2, 1), (0, 0, 1)], 5)
def test_what_stirs_is_counted_the_plain_way(
    calls: list[tuple[int, int, int]], window: int
) -> None:
    """In any order within the tolerance: the shortcuts change nothing, looks back included."""
    series = Series(History(MONDAY))
    newest, counts = MONDAY * 60, dict[int, int]()
    for forward, late, number in calls:
        newest += forward
        minute = newest - late
        series.count(minute, number)
        counts[minute] = counts.get(minute, 0) + number

        def last(minutes: int, minute: int = minute, newest: int = max(counts)) -> int:
            kept = [n for at, n in counts.items() if minute - minutes < at <= minute]
            gone = [n for at, n in counts.items() if minute - minutes < at <= newest - 60]
            return sum(kept) - sum(gone)

        assert series.last(minute, window) == last(window)
        stirs = series.stirs(minute)
        assert stirs == any(last(minutes) > quiet for minutes, quiet in series.quiet.items())
        if stirs:
            # As a look does that finds nothing strange: it only ever raises them.
            series.quiet = {of: max(quiet, last(of) + 3) for of, quiet in series.quiet.items()}
