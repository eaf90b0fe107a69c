"""When which fault strikes."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults import WAYS
from tests.chaos.run import Options, schedule
from tests.chaos.schedule import LAST_LANE, Kind, Strike, plan, rounds_in

_KINDS = [way.kind for way in WAYS]
_RECOVERY = {kind.name: kind.recovery_seconds for kind in _KINDS}
_seeds = st.integers(min_value=0)
_seconds = st.floats(min_value=1, max_value=300)


@given(_seeds, st.integers(1, 4), _seconds)
def test_a_seed_repeats_its_schedule(seed: int, rounds: int, seconds: float) -> None:
    """The same seed and length make the same strikes, to the moment and to whom they hit."""
    first = plan(_KINDS, seed=seed, rounds=rounds, round_seconds=seconds)
    assert first == plan(_KINDS, seed=seed, rounds=rounds, round_seconds=seconds)
    assert schedule(Options(seed=seed)) == schedule(Options(seed=seed))


def test_another_seed_makes_another_schedule() -> None:
    """Seeds differ in order, moments and targets; so do the rounds of one seed."""
    one, two = (plan(_KINDS, seed=seed, rounds=2, round_seconds=80) for seed in (1, 2))
    assert one != two
    assert one[0] != one[1]


@given(_seeds, _seconds)
def test_each_round_has_every_kind_once(seed: int, seconds: float) -> None:
    """No kind is left out of a round, however short the round is."""
    for of_round in plan(_KINDS, seed=seed, rounds=3, round_seconds=seconds):
        assert Counter(s.kind for s in of_round) == Counter(kind.name for kind in _KINDS)
        assert list(of_round) == sorted(of_round, key=lambda s: (s.at_seconds, s.lane))


@given(_seeds, _seconds)
def test_one_lane_strikes_once_at_a_time(seed: int, seconds: float) -> None:
    """Within a lane a fault ends, and its recovery too, before the next begins."""
    (of_round,) = plan(_KINDS, seed=seed, rounds=1, round_seconds=seconds)
    for lane in {kind.lane for kind in _KINDS}:
        for before, after in pairwise(s for s in of_round if s.lane == lane):
            ended = before.at_seconds + before.seconds + _RECOVERY[before.kind]
            assert ended <= after.at_seconds + 1e-6


@given(_seeds, st.floats(min_value=60, max_value=300))
def test_what_strikes_everything_has_the_end_to_itself(seed: int, seconds: float) -> None:
    """In a round that is long enough, all other faults are over by then."""
    (of_round,) = plan(_KINDS, seed=seed, rounds=1, round_seconds=seconds)
    (last,) = (s for s in of_round if s.lane == LAST_LANE)
    assert all(_ended(s) <= last.at_seconds + 1e-6 for s in of_round if s is not last)
    assert _ended(last) <= seconds


def test_faults_of_different_lanes_overlap() -> None:
    """Some faults strike while others last: that is what lanes are for."""
    (of_round,) = schedule(Options(seed=1))
    assert any(after.at_seconds < _ended(before) for before, after in pairwise(of_round))


def test_a_longer_run_has_more_rounds() -> None:
    """Twenty minutes hold as many rounds as fit, two minutes one, and less than that one too."""
    assert rounds_in(1140, shortest_seconds=60) == (19, 60)
    assert rounds_in(70, shortest_seconds=60) == (1, 70)
    assert rounds_in(5, shortest_seconds=60) == (1, 60)
    assert len(schedule(Options(minutes=20))) == 19


def test_a_lane_without_time_to_spare_goes_on_without_gaps() -> None:
    """Where the round is too short, strikes follow each other as soon as they can."""
    kinds = [Kind(name, "lane", 2, 2, 1) for name in "ab"]
    ((first, second),) = plan(kinds, seed=0, rounds=1, round_seconds=1)
    assert (first.at_seconds, second.at_seconds) == (0, 3)


def _ended(strike: Strike) -> float:
    return strike.at_seconds + strike.seconds
