"""What one attempt changes: settling, judging and telling, put together."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from service.records import Fetch, Session, Severity, Spend, State, Watch
from tests.samples import END_MS, START_MS, assistant_call, event, ready, session, walk
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


# --- one more look -------------------------------------------------------------------------------

DAY = 86_400
LAST = Rules(Schedule.of_seconds((90, 300, 1800), DAY), BUILT_IN)


def settled(answer: dict[str, Any] = CHEAP, **changes: Any) -> Session:
    """A session whose cost has settled with that answer."""
    watch = watched(ready(at(90), answer["cost"]["total"], count=len(list(walk(answer["root"])))))
    end = decide(session(watch=watch), found(answer), LAST, now_ms=at(300))
    known: dict[str, Any] = {"watch": end.watch, "verdict": end.verdict, "state": end.state}
    return session(**known | changes)


def test_a_verdict_has_one_look_ahead() -> None:
    """It is due at its age after the call's end; none is where that has passed, or it is off."""
    watch = watched(cheap_at(90))
    at_last = decide(session(watch=watch), found(CHEAP), LAST, now_ms=at(300))
    assert (at_last.state, at_last.next_due_ms, at_last.recheck_ms) == (
        *(State.VERDICT, None),
        at(DAY),
    )
    late = decide(session(watch=watch), found(CHEAP), LAST, now_ms=at(DAY))
    assert (late.state, late.recheck_ms) == (State.VERDICT, None)
    assert decide(session(watch=watch), found(CHEAP), RULES, now_ms=at(300)).recheck_ms is None
    assert decide(session(), found(CHEAP), LAST, now_ms=at(90)).recheck_ms is None
    vain = decide(session(), NothingYet("404"), LAST, now_ms=at(1800))
    assert (vain.state, vain.recheck_ms) == (State.UNAVAILABLE, None)


def test_the_same_cost_leaves_the_verdict_untouched() -> None:
    """An answer that says no more than the verdict's changes nothing, and nothing follows."""
    again = decide(settled(), found(CHEAP), LAST, now_ms=at(DAY))
    assert (again.state, again.next_due_ms, again.recheck_ms) == (State.VERDICT, None, None)
    assert (again.verdict, again.alert, again.analysis) == (None, None, None)
    assert again.watch.fetches[-1].at_ms == at(DAY)


def test_a_late_charge_is_a_new_verdict_and_told() -> None:
    """What came since the session had settled is the excess, by product; it alerts if worse."""
    dearer = assistant_call("0.01", sip="1.5052")
    end = decide(settled(), found(dearer), LAST, now_ms=at(DAY))
    assert end.verdict
    assert (end.state, end.verdict.settled, end.recheck_ms) == (State.VERDICT, True, None)
    (reason,) = end.verdict.reasons
    assert (reason.code, reason.excess) == ("late_charge", Decimal("1.50"))
    assert reason.text == ("1.50 USD was charged after the session had settled: SIP trunking 1.50")
    assert end.analysis
    assert end.alert
    told = settled(alerted=end.alert.severity)
    assert decide(told, found(dearer), LAST, now_ms=at(DAY)).alert is None


def test_a_small_late_charge_is_listed() -> None:
    """Too little money to alert: the new verdict holds the reason, and nobody is told."""
    end = decide(settled(), found(assistant_call("0.01", sip="0.0152")), LAST, now_ms=at(DAY))
    assert end.verdict
    assert [(r.code, r.severity) for r in end.verdict.reasons] == [("late_charge", None)]
    assert end.alert is None


def test_a_cost_that_fell_is_remarked() -> None:
    """A smaller total replaces the verdict and says so; it is no reason."""
    end = decide(settled(), found(assistant_call("0.005")), LAST, now_ms=at(DAY))
    assert end.verdict
    assert end.verdict.reasons == ()
    (remark,) = end.verdict.remarks
    assert "when it was first judged" in remark


def test_other_events_for_the_same_money_are_remarked() -> None:
    """Where only the number of events changed, the new verdict says so."""
    end = decide(settled(), found(assistant_call("0.005", "0.005")), LAST, now_ms=at(DAY))
    assert end.verdict
    assert end.verdict.reasons == ()
    assert any("5 events" in remark and "6 now" in remark for remark in end.verdict.remarks)


def test_what_cannot_be_fetched_again_has_not_gone() -> None:
    """A tree with parts missing replaces a whole one only where it holds more money."""
    cut = replace(found(assistant_call()), whole=False)
    assert decide(settled(), cut, LAST, now_ms=at(DAY)).verdict is None
    dear = replace(found(assistant_call(sip="9")), whole=False)
    end = decide(settled(), dear, LAST, now_ms=at(DAY))
    assert end.verdict
    assert not end.verdict.complete


def test_a_session_that_telnyx_forgot_keeps_its_verdict() -> None:
    """No cost at the last look: the verdict stands, and it is not asked again."""
    end = decide(settled(), NothingYet("404"), LAST, now_ms=at(DAY))
    assert (end.state, end.verdict, end.recheck_ms) == (State.VERDICT, None, None)
    assert "gone" in end.reason


def test_without_an_answer_the_last_look_waits_for_a_while() -> None:
    """An outage puts it off, for as long again as its age; then the verdict stands."""
    held = decide(settled(), Held(30, "429"), LAST, now_ms=at(DAY))
    assert (held.state, held.next_due_ms, held.recheck_ms) == (
        *(State.VERDICT, None),
        at(DAY + 30),
    )
    assert not held.answered
    end = decide(settled(), Held(30, "429"), LAST, now_ms=at(2 * DAY - 30))
    assert (end.state, end.recheck_ms) == (State.VERDICT, None)


def test_a_cost_that_never_settled_is_judged_again() -> None:
    """Where the answers had differed until the last age, the last look has the final word."""
    unsettled = settled()
    assert unsettled.verdict
    before = msgspec.structs.replace(unsettled.verdict, settled=False)
    dearer = found(assistant_call("0.01", sip="1.5052"))
    end = decide(settled(verdict=before), dearer, LAST, now_ms=at(DAY))
    assert end.verdict
    assert "after its cost was first judged" in end.verdict.reasons[0].text
