"""What one attempt changes: settling, judging and telling, put together."""

from decimal import Decimal
from typing import Any

import msgspec

from service.records import Fetch, Severity, Spend, State, Watch
from tests.samples import END_MS, START_MS, assistant_call, event, ready, session
from workers.analysis import decode_analysis
from workers.attempt import Found, Held, NothingYet
from workers.complete import is_cut
from workers.decide import Rules, decide
from workers.policy import BUILT_IN, Budget, Policy, Scope
from workers.settle import Schedule
from workers.tree import build_tree

RULES = Rules(Schedule.of_seconds((90, 300, 1800)), BUILT_IN)
CHEAP = assistant_call("0.01")
DEAR = assistant_call("9.00", seconds=3600)
CHEAP_TOTAL = CHEAP["cost"]["total"]


def found(answer: dict[str, Any], remarks: tuple[str, ...] = ()) -> Found:
    analysis = decode_analysis(msgspec.json.encode(answer))
    tree = build_tree(analysis, "call-session")
    return Found(analysis, tree, remarks, whole=not is_cut(tree))


def at(age: int) -> int:
    return END_MS + age * 1000


def watched(*fetches: Fetch) -> Watch:
    return Watch(end_ms=END_MS, fetches=fetches)


def cheap_at(age: int) -> Fetch:
    return ready(at(age), CHEAP_TOTAL, count=5)


def test_a_first_answer_waits_for_a_second() -> None:
    """The first cost is kept and judged provisionally; the session stays open."""
    conclusion = decide(session(), found(CHEAP), RULES, now_ms=at(90))
    assert (conclusion.state, conclusion.next_due_ms) == (State.OPEN, at(300))
    assert conclusion.verdict
    assert conclusion.verdict.provisional
    assert conclusion.alert is None
    assert conclusion.analysis


def test_an_agreeing_second_answer_is_the_verdict() -> None:
    """The second equal answer ends the session with a settled verdict."""
    conclusion = decide(session(watch=watched(cheap_at(90))), found(CHEAP), RULES, now_ms=at(300))
    assert (conclusion.state, conclusion.next_due_ms) == (State.VERDICT, None)
    assert conclusion.verdict
    assert (conclusion.verdict.settled, conclusion.verdict.provisional) == (True, False)


def test_a_session_counts_with_its_verdict() -> None:
    """What is still coming in counts for nothing; the total of the verdict does."""
    assert decide(session(), found(CHEAP), RULES, now_ms=at(90)).spend is None
    settled = session(watch=watched(cheap_at(90)))
    conclusion = decide(settled, found(CHEAP), RULES, now_ms=at(300))
    assert conclusion.spend == Spend(Decimal(CHEAP_TOTAL), "USD", END_MS, ("account",))
    given_up = session(watch=watched(), verdict=conclusion.verdict)
    assert decide(given_up, NothingYet("gone"), RULES, now_ms=at(1800)).spend is None


def test_a_session_counts_for_the_budgets_of_its_caller() -> None:
    """For the account once, and for each scope that includes it."""
    mine, also = Scope(assistant="mine"), Scope(assistant="mine", connection="c")
    scopes = (Scope(), mine, mine, also, Scope(connection="other"))
    budgets = tuple(Budget(per="day", amount=Decimal(1), when=scope) for scope in scopes)
    rules = Rules(RULES.schedule, Policy(budgets=budgets))
    call = session(
        event(start_ms=START_MS, assistant_id="mine", connection_id="c"),
        watch=watched(cheap_at(90)),
    )
    spend = decide(call, found(CHEAP), rules, now_ms=at(300)).spend
    assert spend
    assert spend.scopes == ("account", *sorted((mine.key, also.key)))


def test_a_provisional_cost_above_a_ceiling_alerts_at_once() -> None:
    """What is too dear already is told before it has settled."""
    conclusion = decide(session(), found(DEAR), RULES, now_ms=at(90))
    assert conclusion.state is State.OPEN
    assert conclusion.alert
    assert conclusion.alert.severity is Severity.MEDIUM
    assert conclusion.alert.id == "s:medium"
    assert conclusion.alert.call.direction == "inbound"


def test_an_alert_is_repeated_only_when_it_is_worse() -> None:
    """The same severity again says nothing; a higher one does."""
    watch = watched(ready(at(90), DEAR["cost"]["total"], count=5))
    told = session(watch=watch, alerted=Severity.MEDIUM)
    assert decide(told, found(DEAR), RULES, now_ms=at(300)).alert is None
    told_less = session(watch=watch, alerted=Severity.LOW)
    assert decide(told_less, found(DEAR), RULES, now_ms=at(300)).alert


def test_an_assistants_call_needs_its_assistant() -> None:
    """A call known to be an assistant's does not settle on a tree without the assistant's node."""
    bare = assistant_call()
    bare["root"]["children"].pop()
    bare["root"]["cost"]["cumulative_cost"] = bare["cost"]["total"] = "0.0052"
    bare["meta"]["event_count"] = 2
    known = event("call.conversation.ended", assistant_id="a", start_ms=START_MS)
    watch = watched(ready(at(90), "0.0052", count=2, expected=False))
    conclusion = decide(session(known, watch=watch), found(bare), RULES, now_ms=at(300))
    assert conclusion.state is State.OPEN
    plain = watched(ready(at(90), "0.0052", count=2))
    assert decide(session(watch=plain), found(bare), RULES, now_ms=at(300)).state is State.VERDICT


def test_a_cut_tree_does_not_settle_before_the_last_age() -> None:
    """While events are missing the session waits; at the last age the verdict says so."""
    cut = assistant_call("0.01")
    cut["meta"]["event_count"] = 9
    watch = watched(ready(at(90), CHEAP_TOTAL, count=9, expected=False))
    early = decide(session(watch=watch), found(cut), RULES, now_ms=at(300))
    assert early.state is State.OPEN
    last = decide(session(watch=watch), found(cut, ("node x: refused",)), RULES, now_ms=at(1800))
    assert last.state is State.VERDICT
    assert last.verdict
    assert (last.verdict.settled, last.verdict.complete) == (False, False)
    assert "node x: refused" in last.verdict.remarks


def test_an_outage_ends_nothing_and_uses_nothing_up() -> None:
    """Held, long after the last age: the session stays open and its answers stand."""
    watch = watched(cheap_at(90))
    conclusion = decide(session(watch=watch), Held(60, "503"), RULES, now_ms=at(90_000))
    assert (conclusion.state, conclusion.next_due_ms) == (State.OPEN, at(90_060))
    assert not conclusion.answered
    assert (conclusion.watch.fetches, conclusion.watch.held) == (watch.fetches, 1)


def test_a_session_without_cost_ends_as_unavailable() -> None:
    """If no cost came until the last age, that is what is said."""
    conclusion = decide(session(), NothingYet("404"), RULES, now_ms=at(1800))
    assert (conclusion.state, conclusion.verdict) == (State.UNAVAILABLE, None)
    assert conclusion.reason


def test_a_cost_that_vanished_is_judged_as_it_was() -> None:
    """If the last answer is 404 but an earlier one had a cost, the verdict rests on that one."""
    watch = watched(cheap_at(90))
    last = found(CHEAP, ("no longer shown",))
    conclusion = decide(session(watch=watch), NothingYet("404", last), RULES, now_ms=at(1800))
    assert conclusion.state is State.VERDICT
    assert conclusion.verdict
    assert conclusion.verdict.total == Decimal(CHEAP_TOTAL)
    assert not conclusion.verdict.settled


def test_numbers_in_the_kept_analysis_are_masked() -> None:
    """What is stored of an analysis has no whole number in it."""
    answer = assistant_call("0.01")
    answer["root"]["children"][0]["record"] |= {"cld": "+4915112345678", "cli": "+13129457421"}
    kept = decide(session(), found(answer), RULES, now_ms=at(90)).analysis or b""
    assert b"5678" not in kept
    assert "…78".encode() in kept
