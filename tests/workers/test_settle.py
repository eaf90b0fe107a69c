"""Settling: when a cost may be believed, and when there will be none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records import Fetch, Watch
from tests.samples import END_MS, event, ready, session
from workers.settle import (
    GiveUp,
    Schedule,
    Settled,
    Step,
    Wait,
    agree,
    answered,
    current_watch,
    held,
    settle,
)

AGES = Schedule.of_seconds((90, 300, 1800, 10800))


def at(age_seconds: float) -> int:
    return END_MS + int(age_seconds * 1000)


def nothing(age_seconds: float) -> Fetch:
    return Fetch(at_ms=at(age_seconds), ready=False, planned=False)


def found(age_seconds: float, total: str = "0.10", **fields: bool) -> Fetch:
    return ready(at(age_seconds), total, planned=False, **fields)


def after(*fetches: Fetch, schedule: Schedule = AGES) -> tuple[Watch, Step]:
    watch = Watch(end_ms=END_MS)
    for fetch in fetches:
        watch = answered(watch, schedule, fetch)
    return watch, settle(watch, schedule)


def test_one_answer_is_not_enough() -> None:
    """After the first answer the next age is waited for."""
    assert after(found(90))[1] == Wait(at(300), "one answer, waiting for a second that agrees")


def test_two_planned_answers_that_agree_settle() -> None:
    """Two planned answers in a row that agree end the waiting, long before the last age."""
    assert after(found(90), found(300))[1] == Settled(settled=True)


@pytest.mark.parametrize(
    "second", [found(300, "0.11"), ready(at(300), count=4, planned=False), nothing(300)]
)
def test_answers_that_differ_do_not_settle(second: Fetch) -> None:
    """Another total, another count or no answer at all is waited out."""
    step = after(found(90), second)[1]
    assert isinstance(step, Wait)
    assert step.due_ms == at(1800)


def test_a_missing_part_is_waited_for() -> None:
    """Two agreeing answers without a part that this call must have do not settle."""
    step = after(found(90, expected=False), found(300, expected=False))[1]
    assert isinstance(step, Wait)
    assert "part" in step.reason


def test_a_pulled_forward_answer_does_not_count() -> None:
    """An answer before its age neither settles nor uses up an age."""
    watch, step = after(found(40), found(90))
    assert [fetch.planned for fetch in watch.fetches] == [False, True]
    assert step == Wait(at(300), "one answer, waiting for a second that agrees")
    assert after(found(90), found(120))[1] == Wait(
        at(300), "one answer, waiting for a second that agrees"
    )


def test_a_pulled_forward_answer_can_unsettle() -> None:
    """Two planned answers do not settle while one between them said something else."""
    assert isinstance(after(found(90), found(120, "0.2"), found(300))[1], Wait)


def test_a_late_answer_puts_the_next_off_by_its_interval() -> None:
    """An answer that came long after its age is followed a whole interval later."""
    assert after(found(290))[1] == Wait(
        at(290 + 210), "one answer, waiting for a second that agrees"
    )


def test_the_last_age_ends_it_unsettled() -> None:
    """The first answer at or after the last age is the final word, settled or not."""
    assert after(found(90), found(10_800, "0.2"))[1] == Settled(settled=False)
    assert after(found(20_000))[1] == Settled(settled=False)
    assert after(found(90), nothing(10_800))[1] == Settled(settled=False)


def test_no_cost_until_the_last_age_gives_up() -> None:
    """If nothing ever came, the last age says so."""
    assert isinstance(after(nothing(90), nothing(300), nothing(10_800))[1], GiveUp)


def test_what_brings_no_answer_uses_nothing_up() -> None:
    """An outage changes neither the answers nor what is due next."""
    watch, _ = after(found(90))
    again = held(watch, at(20_000), "503")
    assert (again.fetches, again.held, again.reason) == (watch.fetches, 1, "503")
    assert AGES.next_due_ms(again) == AGES.next_due_ms(watch)


def test_a_later_end_begins_the_watch_anew() -> None:
    """A leg that ended later makes the answers so far count no more."""
    watch, _ = after(found(90))
    later = session(event(at_ms=END_MS + 5), end_ms=END_MS + 5, watch=watch)
    assert current_watch(later) == Watch(end_ms=END_MS + 5)
    assert current_watch(session(watch=watch)) is watch


AGE_LISTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=5, unique=True).map(sorted)
ANSWERS = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["none", "0.1", "0.2"])),
    min_size=1,
    max_size=12,
)


@given(ages=AGE_LISTS, answers=ANSWERS)
def test_the_waiting_always_ends(ages: list[int], answers: list[tuple[int, str]]) -> None:
    """Asking whenever it is due ends within one more answer than there are ages."""
    schedule = Schedule.of_seconds(ages)
    watch = Watch(end_ms=END_MS)
    due = schedule.next_due_ms(watch)
    for number in range(len(ages) + 1):
        delay, total = answers[number % len(answers)]
        now = due + delay * 1000
        fetch = (
            Fetch(at_ms=now, ready=False, planned=False)
            if total == "none"
            else ready(now, total, planned=False)
        )
        watch = answered(watch, schedule, fetch)
        assert watch.fetches[-1].planned
        step = settle(watch, schedule)
        if not isinstance(step, Wait):
            return
        assert step.due_ms > now
        due = step.due_ms
    pytest.fail("still waiting")


@given(
    totals=st.lists(st.sampled_from(["0.1", "0.2"]), max_size=6),
    planned=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_only_agreement_settles(totals: list[str], planned: list[bool]) -> None:
    """What settles has two planned answers, and all from the first of them on are equal."""
    fetches = [
        ready(at(age), total, planned=is_planned)
        for age, (total, is_planned) in enumerate(zip(totals, planned, strict=False))
    ]
    if agree(fetches):
        places = [place for place, fetch in enumerate(fetches) if fetch.planned]
        assert len(places) >= 2
        assert len(set(totals[places[-2] :])) == 1
