"""Calls told of by their ends are played as they happened."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.counting import ACCOUNT, CALLS, SHORT_CALLS
from workers.detection.finding import Finding
from workers.detection.replay import Replay
from workers.detection.velocity import HOUR_MS, MINUTE_MS, Key, Passed, Velocity

DAY = 20_486 * 24 * HOUR_MS
"""The first moment of a Monday, 2 February 2026."""


def passed(ended_ms: int, seconds: int, taker: str = "C", number: str = "") -> Passed:
    """A call over connection C that took so long; an assistant or nobody took it."""
    began_ms = ended_ms - 1000 * seconds
    cost = Decimal("0.20")
    return Passed(ended_ms, began_ms, taker, "US", "", number, number, seconds, cost, "C")


OWNERS = ("C", "assistant-1", "assistant-2")
CALLS_OF_A_DAY = st.lists(
    st.builds(
        passed,
        st.integers(DAY, DAY + 24 * HOUR_MS - 1),
        st.integers(1, 4 * 3600),
        st.sampled_from(OWNERS),
        st.sampled_from(["", "1", "2"]),
    ),
    max_size=40,
)


def counts(velocity: Velocity, kind: str = CALLS, cohort: str = "C") -> dict[int, int]:
    """Calls by hour."""
    series = velocity.series.get(Key(kind, cohort))
    return {} if series is None else {h: n for h, n in series.history.hours.items() if n}


def by_hour(times_ms: list[int]) -> dict[int, int]:
    hours = [ms // HOUR_MS for ms in times_ms]
    return {hour: hours.count(hour) for hour in hours}


class Noted(Velocity):
    """Notes when what happens is said to happen."""

    times: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.times = []

    def advance(self, now_ms: int) -> list[Finding]:
        self.times.append(now_ms)
        return super().advance(now_ms)


@given(CALLS_OF_A_DAY)
def test_calls_count_when_they_began(calls: list[Passed]) -> None:
    """For the account; each for one owner, once; as short ones, when they ended."""
    velocity = Noted()
    replay = Replay(velocity)
    for call in sorted(calls):
        replay.add(call)
    replay.finish()
    assert counts(velocity, cohort=ACCOUNT) == by_hour([call.started_ms or 0 for call in calls])
    owned = [counts(velocity, cohort=owner) for owner in OWNERS]
    assert sum(sum(each.values()) for each in owned) == len(calls)
    short = [call for call in calls if (call.duration_seconds or 0) <= 30]
    found = [counts(velocity, SHORT_CALLS, owner) for owner in OWNERS]
    assert sum(sum(each.values()) for each in found) == len(short)
    assert all(one <= other for one, other in pairwise(velocity.times)), "time goes on"
    assert known(velocity) == by_hour([paid_ms(call) for call in calls])


def known(velocity: Velocity) -> dict[int, int]:
    """Calls whose cost is known, by hour."""
    series = velocity.series.get(Key(CALLS, ACCOUNT))
    return {} if series is None else dict(series.known)


def paid_ms(call: Passed) -> int:
    """When its cost counts: at its end, or on the day before when that began there."""
    began_ms = call.started_ms or 0
    is_one_day = began_ms // (24 * HOUR_MS) == call.ended_ms // (24 * HOUR_MS)
    return call.ended_ms if is_one_day else began_ms


def test_a_connections_calls_count_for_the_assistant_that_takes_them() -> None:
    """As they begin, once it has for a day; after a change, or days without any, as they end."""
    velocity = Velocity()
    replay = Replay(velocity)
    one, other = "assistant-1", "assistant-2"
    calls = [(1, one), (13, one), (26, one), (27, "C"), (29, one), (31, other), (33, one)]
    calls += [(60, other), (70, other), (90, other), (92, other), (92 + 5 * 24, other)]
    for hours, taker in calls:
        replay.add(passed(DAY + hours * HOUR_MS, 1800, taker))
    replay.finish()
    first = DAY // HOUR_MS
    # What nobody is named of counts for who is alone; what another is named of counts for that one.
    assert {hour - first for hour in counts(velocity, cohort=one)} == {1, 13, 26, 28, 33}
    assert {hour - first for hour in counts(velocity, cohort=other)} == {
        *(30, 60, 70, 90, 91, 92 + 5 * 24)
    }
    assert counts(velocity, cohort="C") == {}


@pytest.mark.parametrize("unheard", [{"connection": ""}, {"started_ms": None}])
def test_a_call_that_began_unheard_counts_when_it_ended(unheard: dict[str, Any]) -> None:
    """Once, for its assistant, whoever takes such calls."""
    velocity = Velocity()
    velocity._takers["C"] = (0, DAY, "assistant-2")
    replay = Replay(velocity)
    replay.add(passed(DAY + 2 * HOUR_MS, 7200, "assistant-1")._replace(**unheard))
    replay.finish()
    assert counts(velocity, cohort="assistant-1") == by_hour([DAY + 2 * HOUR_MS])
    assert counts(velocity, cohort=ACCOUNT) == by_hour([DAY + 2 * HOUR_MS])


def test_no_more_calls_wait_than_may_still_be_overtaken() -> None:
    """A file of a year takes the memory of some hours."""
    replay = Replay(Velocity())
    most = 0
    for minute in range(7 * 24 * 60):
        replay.add(passed(DAY + minute * MINUTE_MS, 90))
        most = max(most, len(replay._moments))
    assert most <= 4 * 60 + 3


def test_a_call_longer_than_any_counts_late_and_spoils_nothing() -> None:
    """Half a day: it counts when it is heard of, and time does not go back."""
    velocity = Noted()
    replay = Replay(velocity)
    for hour in range(1, 24):
        replay.add(passed(DAY + hour * HOUR_MS, 90))
    replay.add(passed(DAY + 24 * HOUR_MS - 1, 12 * 3600))
    replay.finish()
    assert sum(counts(velocity).values()) == 24
    assert all(one <= other for one, other in pairwise(velocity.times))


@pytest.mark.parametrize("minutes", [1, 10, 50, 230])
def test_a_surge_is_told_before_its_calls_end_and_not_again_then(minutes: int) -> None:
    """Thirty begin within five minutes, by the assistant's connection."""
    quiet = [passed(DAY + n * 10 * MINUTE_MS, 90, "assistant-1") for n in range(3 * 144)]
    begin_ms = DAY + 3 * 24 * HOUR_MS + 10 * HOUR_MS
    surge = [
        passed(begin_ms + n * 10_000 + minutes * MINUTE_MS, 60 * minutes, "assistant-1")
        for n in range(30)
    ]
    replay = Replay(Velocity())
    found = [f for call in [*quiet, *surge] for f in replay.add(call)] + replay.finish()
    (told,) = [finding for finding in found if finding.kind == CALLS]
    assert told.cohort == "assistant-1"
    assert begin_ms < told.at_ms < begin_ms + 3 * MINUTE_MS
