"""The memory of one process: what it keeps, what it drops, and when a baseline is made anew."""

import msgspec

from tests.workers.detection.calls import BEGIN_MS, DAY_MS, recorded
from workers.detection.baseline import DAYS, EMPTY, Lesson, lesson_of, sheet_of
from workers.detection.leaning import LEAST_CALLS
from workers.detection.measure import Measured
from workers.detection.memory import Memory
from workers.judge import Case, measured_of
from workers.policy import BUILT_IN

TODAY = BEGIN_MS // DAY_MS


def measured() -> Measured:
    call = recorded()
    found = measured_of(Case(tree=call.tree, call=call.call), BUILT_IN)
    assert found is not None
    return found


LESSON = lesson_of(measured(), BEGIN_MS)
FINEST = LESSON.ladder[0]


def taught(*lessons: Lesson) -> Memory:
    memory = Memory()
    for lesson in lessons:
        memory.learn(lesson)
    return memory


def test_who_is_not_known_has_no_baseline() -> None:
    """Nor does looking make one."""
    memory = Memory()
    assert memory.ladder(LESSON.ladder, TODAY).baselines == (EMPTY,) * 5
    assert not memory.sheets()


def test_every_cohort_of_a_call_learns_from_it() -> None:
    """From the finest to the account."""
    ladder = taught(LESSON).ladder(LESSON.ladder, TODAY)
    assert [(b.cohort, b.calls) for b in ladder.baselines] == [(name, 1) for name in LESSON.ladder]


def test_the_strange_teaches_whom_nothing_is_known_of_yet() -> None:
    """Until a cohort has a say, nobody can tell what is strange in it."""
    memory = Memory()
    for _ in range(LEAST_CALLS + 5):
        memory.learn(LESSON, strange=True)
    assert memory.ladder(LESSON.ladder, TODAY).calls == LEAST_CALLS
    memory.learn(LESSON)
    assert memory.calls("account") == LEAST_CALLS + 1


def test_what_was_never_seen_is_known_at_once() -> None:
    """Although a baseline is made anew only when a cohort has grown by a fifth."""
    memory = taught(*[LESSON] * 200)
    ladder = memory.ladder(LESSON.ladder, TODAY)
    assert ladder.unseen("rate:sip-trunking:DE:0.2") is not None
    memory.learn(LESSON)
    assert memory.ladder(LESSON.ladder, TODAY) is ladder
    memory.learn(
        msgspec.structs.replace(LESSON, traits=LESSON.traits | {"rate:sip-trunking:DE:0.2"})
    )
    assert memory.ladder(LESSON.ladder, TODAY).unseen("rate:sip-trunking:DE:0.2") is None


def test_two_sheets_are_kept() -> None:
    """The current four weeks and those before them; what is older is dropped."""
    days = [TODAY, TODAY + DAYS, TODAY + 2 * DAYS]
    memory = Memory()
    for day in days:
        for _ in range(10):
            memory.learn(msgspec.structs.replace(LESSON, day=day))
        memory.ladder(LESSON.ladder, day)
    assert sorted(memory.sheets()[FINEST]) == [sheet_of(day) for day in days[1:]]
    assert memory.ladder(LESSON.ladder, days[-1]).calls == 20
