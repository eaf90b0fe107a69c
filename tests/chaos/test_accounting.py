"""That the accounting finds what is wrong: each kind of violation, fabricated."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.accounting import (
    SUMMARY,
    Ending,
    Excuse,
    Expectation,
    Held,
    Message,
    Observation,
    Outcome,
    Struck,
    Takeover,
    Told,
    overlap,
    repetitions,
    unnoted_since,
    violations,
)

_SOUND = Expectation("sound", "sip_inbound", "verdict", Decimal("0.02"))
_DEAR = Expectation(
    "dear",
    "dear_destination",
    "verdict",
    Decimal("9.50"),
    frozenset({"medium", "high"}),
    frozenset({"session_cost"}),
)
_GONE = Expectation("gone", "webrtc", "unavailable")
_POISONED = Expectation("poisoned", "webrtc", "dead")
_STRIKE = Struck("worker SIGKILL", 1.0, 2.0, 3, 3, "leases", 0.5)
_FINE = Observation(
    kinds=["worker SIGKILL"],
    expected=[_SOUND, _DEAR, _GONE, _POISONED],
    accepted=frozenset({"sound", "dear", "gone", "poisoned"}),
    outcomes={
        "sound": Outcome("verdict", Decimal("0.0200")),
        "dear": Outcome("verdict", Decimal("9.5"), reasons=frozenset({"session_cost"})),
        "gone": Outcome("unavailable"),
        "poisoned": Outcome("dead", reason="Poisoned"),
    },
    alerts=[Told("dear", "low", "posted"), Told("dear", "high", "posted")],
    messages=[Message(1.0, "dear", "low"), Message(2.0, "dear", "high"), Message(3.0, None, "")],
    strikes=[_STRIKE],
    takeovers=[Takeover("worker SIGKILL", "sound", 21.0)],
    longest_held=[Held("sound", 4.0)],
    endings=[Ending("worker 1", 0, 0.8)],
    failed_tries={"poisoned": 6},
    statuses=Counter({202: 5, 200: 2, 503: 3, "ClientOSError": 1}),
    lessons=1,
    learned=1,
)


def _rules(seen: Observation) -> list[str]:
    return [violation.rule for violation in violations(seen)]


def _with_outcome(session_id: str, **changes: Any) -> dict[str, Outcome]:
    return {**_FINE.outcomes, session_id: replace(_FINE.outcomes[session_id], **changes)}


def _again(*messages: Message) -> list[Message]:
    return [*_FINE.messages, *messages]


def test_a_run_in_which_everything_held_has_no_violation() -> None:
    """Nothing is found where all is as it must be, 503s and a poisoned session's tries included."""
    assert violations(_FINE) == []


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("lost", {"outcomes": {k: v for k, v in _FINE.outcomes.items() if k != "sound"}}),
        ("ignored", {"ignored": ["sound"]}),
        ("not ended", {"outcomes": _with_outcome("sound", state="open")}),
        ("wrong state", {"outcomes": _with_outcome("sound", state="unavailable")}),
        ("wrong state", {"outcomes": _with_outcome("sound", state="dead")}),
        ("wrong state", {"outcomes": _with_outcome("poisoned", state="verdict")}),
        ("wrong total", {"outcomes": _with_outcome("sound", total=Decimal("0.01"))}),
        ("wrong total", {"outcomes": _with_outcome("sound", total=None)}),
        ("wrong reason", {"outcomes": _with_outcome("dear", reasons=frozenset({"other"}))}),
        ("try spent", {"failed_tries": {"poisoned": 6, "sound": 1}}),
        ("crash", {"crashes": ["worker 1 ended with exit code 1"]}),
        ("unexpected error", {"complaints": ["worker 1: loop failed"]}),
        ("wrong answer", {"statuses": Counter({202: 5, 500: 1})}),
        ("wrong answer", {"statuses": Counter({202: 5, 401: 1})}),
        ("exit code", {"endings": [Ending("worker 1", 1, 0.8)]}),
        ("exit code", {"endings": [Ending("worker 1", None, 20.0)]}),
        ("slow end", {"endings": [Ending("worker 1", 0, 30.5)]}),
        ("slow takeover", {"takeovers": [Takeover("worker SIGKILL", "sound", 30.5)]}),
        ("slow takeover", {"takeovers": [Takeover("worker SIGKILL", "sound", 41.0, 10.0)]}),
        ("slow takeover", {"takeovers": [Takeover("worker SIGKILL", "sound", None)]}),
        ("slow takeover", {"takeovers": [Takeover("worker SIGKILL", "dear", 46.0, 0.0, 45.0)]}),
        ("stuck", {"longest_held": [Held("sound", 31.0)]}),
        ("stuck", {"longest_held": [Held("sound", 50.0, 15.0)]}),
        ("hit nothing", {"strikes": [replace(_STRIKE, met=0)]}),
        ("hit nothing", {"kinds": ["worker SIGKILL", "Redis OOM"]}),
        ("no recovery", {"strikes": [replace(_STRIKE, recovered_seconds=None)]}),
        ("no recovery", {"strikes": [replace(_STRIKE, recovered_seconds=91.0)]}),
        ("not taught once", {"lessons": 3, "learned": 4}),
        ("nothing learned", {"lessons": 0, "learned": 0}),
    ],
)
def test_what_is_wrong_is_found(rule: str, changes: dict[str, Any]) -> None:
    """Each thing that must not happen is found, once, and nothing else with it."""
    assert _rules(replace(_FINE, **changes)) == [rule]


@pytest.mark.parametrize(
    ("rule", "alerts", "messages"),
    [
        ("no alert", [], []),
        ("false alarm", [*_FINE.alerts, Told("sound", "low", "posted")], ("sound", "low")),
        ("wrong severity", [_FINE.alerts[0]], [_FINE.messages[0]]),
        ("not told", [*_FINE.alerts[:1], Told("dear", "high", "waiting")], [_FINE.messages[0]]),
        ("not told", [*_FINE.alerts[:1], Told("dear", "high", "folded")], [_FINE.messages[0]]),
        ("not told", _FINE.alerts, [_FINE.messages[0]]),
        (
            "wrongly refused",
            [*_FINE.alerts[:1], Told("dear", "high", "refused")],
            [_FINE.messages[0]],
        ),
        ("unknown alert", _FINE.alerts, ("dear", "critical")),
        ("told twice", _FINE.alerts, ("dear", "high")),
    ],
)
def test_a_wrong_alert_is_found(
    rule: str, alerts: list[Told], messages: list[Message] | tuple[str, str]
) -> None:
    """An alert that is missing, false, of a wrong severity, untold, or told twice is found."""
    told = _again(Message(9.0, *messages)) if isinstance(messages, tuple) else messages
    assert _rules(replace(_FINE, alerts=alerts, messages=told)) == [rule]


def test_a_repetition_is_excused_once_for_each_cause() -> None:
    """Who was killed while posting an alert excuses that alert once, and no other one."""
    killed = Excuse("dear", "high", "killed")
    twice = replace(_FINE, messages=_again(Message(9.0, "dear", "high")))
    thrice = replace(twice, messages=[*twice.messages, Message(9.5, "dear", "high")])
    assert _rules(replace(twice, excuses=[killed])) == []
    assert _rules(replace(twice, excuses=[Excuse("dear", "low", "killed")])) == ["told twice"]
    assert _rules(replace(twice, excuses=[Excuse("other", "high", "killed")])) == ["told twice"]
    assert _rules(replace(thrice, excuses=[killed])) == ["told twice"]
    assert _rules(replace(thrice, excuses=[killed, replace(killed, cause="paused")])) == []


def test_what_could_have_been_noted_is_not_excused() -> None:
    """Who is killed long after Slack's answer had time to note it; but not while Redis was away."""
    twice = replace(_FINE, messages=_again(Message(9.0, "dear", "high")))
    late, early = (Excuse("dear", "high", "killed", since) for since in (9.5, 8.5))
    assert _rules(replace(twice, excuses=[late])) == ["told twice"]
    assert _rules(replace(twice, excuses=[early])) == []
    assert unnoted_since(20.0, []) == 18.5
    assert unnoted_since(20.0, [(1, 5), (15, 19.5), (10, 14), (21, 30)]) == 8.5


def test_what_is_told_in_a_summary_needs_no_message_of_its_own() -> None:
    """A summarized alert is told; with a message of its own as well, it is told twice.

    So is everything in a summary that comes twice; and one that never came tells of nothing.
    """
    alerts = [_FINE.alerts[0], Told("dear", "high", "summarized", "7")]
    summary = Message(5.0, "7", SUMMARY)
    told = [_FINE.messages[0], summary]
    summarized = replace(_FINE, alerts=alerts, messages=told)
    assert _rules(summarized) == []
    assert _rules(replace(summarized, messages=[*_FINE.messages, summary])) == ["told twice"]
    assert _rules(replace(summarized, messages=[*told, summary])) == ["told twice"]
    assert _rules(replace(summarized, messages=_FINE.messages[:1])) == ["not told"]
    excuse = Excuse("7", SUMMARY, "killed")
    assert _rules(replace(summarized, messages=[*told, summary], excuses=[excuse])) == []


def test_what_slack_refused_for_good_may_be_refused() -> None:
    """An alert is rightly refused where Slack said its final word about that very alert."""
    refused = [_FINE.alerts[0], Told("dear", "high", "refused")]
    seen = replace(_FINE, alerts=refused, messages=_FINE.messages[:1])
    assert _rules(replace(seen, refusals=frozenset({("dear", "high")}))) == []
    assert _rules(replace(seen, refusals=frozenset({("dear", "low")}))) == ["wrongly refused"]


def test_what_was_never_accepted_may_be_unknown_but_not_wrong() -> None:
    """A session without a 2xx need not be known; where it is, it must be right all the same."""
    others = {k: v for k, v in _FINE.outcomes.items() if k != "sound"}
    accepted = _FINE.accepted - {"sound"}
    assert _rules(replace(_FINE, accepted=accepted, outcomes=others)) == []
    wrong = _with_outcome("sound", total=Decimal(1))
    assert _rules(replace(_FINE, accepted=accepted, outcomes=wrong)) == ["wrong total"]


def test_a_verdict_that_says_a_part_is_missing_may_be_lower() -> None:
    """What could not be had before the last age is not in the total, and the verdict says so."""
    partial = _with_outcome("sound", total=Decimal("0.01"), complete=False)
    assert _rules(replace(_FINE, outcomes=partial)) == []
    more = _with_outcome("sound", total=Decimal("0.03"), complete=False)
    assert _rules(replace(_FINE, outcomes=more)) == ["wrong total"]


def test_what_others_hindered_does_not_count() -> None:
    """Time in which Redis or Telnyx was away for everybody is nobody's slowness."""
    late = Takeover("worker SIGKILL", "sound", 39.0, 10.0)
    held = Held("sound", 39.0, 10.0)
    strike = replace(_STRIKE, recovered_seconds=120.0, hindered_seconds=60.0)
    assert _rules(replace(_FINE, takeovers=[late], longest_held=[held], strikes=[strike])) == []


def test_repetitions_are_counted_by_session_and_severity() -> None:
    """A higher severity of the same session is no repetition, and a summary is none either."""
    messages = [("a", "low"), ("a", "high"), ("a", "low"), (None, ""), (None, "")]
    assert repetitions(Message(0.0, *m) for m in messages) == {("a", "low"): 1}


def test_the_overlap_counts_each_moment_once() -> None:
    """Intervals that overlap, lie outside, or contain each other are counted as one time."""
    assert overlap(10, 20, [(0, 12), (11, 13), (18, 30), (19, 19.5), (40, 50)]) == 5
    assert overlap(10, 20, []) == 0
    assert overlap(10, 20, [(0, 100)]) == 10


_interval = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda i: (min(i), max(i)))


@given(_interval, st.lists(_interval))
def test_the_overlap_is_that_of_the_moments(
    span: tuple[int, int], intervals: Iterable[tuple[int, int]]
) -> None:
    """It is as long as there are moments both in the span and in any of the intervals."""
    covered = {second for begin, end in intervals for second in range(begin, end)}
    assert overlap(*span, intervals) == len(covered & set(range(*span)))
