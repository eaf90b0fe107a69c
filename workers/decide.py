"""What one attempt at a session comes to: its answer in, all that changes out.

Pure: settling says whether the cost may be believed, the judge what is wrong with it, and this
whether somebody is to be told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from service.records import (
    ACCOUNT,
    Alert,
    Cap,
    Conclusion,
    Fetch,
    Session,
    Spend,
    State,
    Verdict,
    Watch,
    rank,
)
from workers.analysis import encode_analysis
from workers.attempt import Attempt, Found, Held, NothingYet
from workers.detection.measure import Measured
from workers.detection.mutes import Mute, mute_of_call, words_of
from workers.detection.opinion import Opinion
from workers.judge import Case, judge, known_of, measured_of
from workers.policy import Policy
from workers.products import ASSISTANT
from workers.settle import GiveUp, Schedule, Settled, Wait, answered, current_watch, held, settle

# What Telnyx has not answered for as long again is not waited for any longer.
_LATEST_RECHECK: Final = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """What decisions depend on besides the session: the ages and the policy."""

    schedule: Schedule
    policy: Policy
    mask_numbers: bool = True


def to_compare(session: Session, attempt: Attempt, rules: Rules, *, now_ms: int) -> Measured | None:
    """The session in numbers where the attempt brings its final cost, to be held against its like.

    None where the cost may still grow, and where nothing is to be learned.
    """
    found = _final(session, attempt, rules, now_ms) if rules.policy.learn else None
    return measured_of(_case(session, found), rules.policy) if found else None


def decide(
    session: Session,
    attempt: Attempt,
    rules: Rules,
    *,
    now_ms: int,
    opinion: Opinion | None = None,
    mutes: Sequence[Mute] = (),
) -> Conclusion:
    """All that the attempt changes. Neither waits nor writes; masks numbers in the analysis.

    `opinion` is what is thought of the cost that `to_compare` has measured; of what one of the
    `mutes` is about nobody is told.
    """
    conclusion = _decided(session, attempt, rules, now_ms, opinion)
    return _muted(conclusion, session, attempt, mutes) if mutes else conclusion


def _decided(
    session: Session, attempt: Attempt, rules: Rules, now_ms: int, opinion: Opinion | None
) -> Conclusion:
    watch = current_watch(session)
    if session.state is State.VERDICT:
        return _recheck(session, watch, attempt, rules, now_ms, opinion)
    match attempt:
        case Held(seconds, reason):
            due_ms = now_ms + int(seconds * 1000)
            waiting = held(watch, now_ms, reason)
            return Conclusion(State.OPEN, waiting, due_ms, reason, answered=False)
        case Found():
            watch = answered(watch, rules.schedule, _fetch(session, attempt, now_ms))
            return _conclude(session, watch, attempt, rules, now_ms, opinion)
        case NothingYet(last=last):
            watch = answered(watch, rules.schedule, _no_cost(now_ms))
            return _conclude(session, watch, last, rules, now_ms, opinion)


def _muted(
    conclusion: Conclusion, session: Session, attempt: Attempt, mutes: Sequence[Mute]
) -> Conclusion:
    """The verdict keeps its reasons, and says by whom it is muted."""
    verdict = conclusion.verdict
    found = attempt.last if isinstance(attempt, NothingYet) else attempt
    if not (verdict and verdict.severity and isinstance(found, Found)):
        return conclusion
    mute = mute_of_call(mutes, known_of(session.call, found.tree))
    if mute is None:
        return conclusion
    said = msgspec.structs.replace(verdict, remarks=(*verdict.remarks, words_of(mute)))
    would_tell = conclusion.alert is not None
    return replace(conclusion, verdict=said, alert=None, cap=None, muted=would_tell)


def _final(session: Session, attempt: Attempt, rules: Rules, now_ms: int) -> Found | None:
    """What the attempt found, if a verdict follows from it that stands."""
    watch = current_watch(session)
    match attempt:
        case Found() if session.state is State.VERDICT:
            return None if session.verdict and _stands(session.verdict, attempt) else attempt
        case Found():
            found, fetch = attempt, _fetch(session, attempt, now_ms)
        case NothingYet(last=Found() as found) if session.state is not State.VERDICT:
            fetch = _no_cost(now_ms)
        case _:
            return None
    standing = settle(answered(watch, rules.schedule, fetch), rules.schedule)
    return found if isinstance(standing, Settled) else None


def _conclude(
    session: Session,
    watch: Watch,
    found: Found | None,
    rules: Rules,
    now_ms: int,
    opinion: Opinion | None,
) -> Conclusion:
    state = State.OPEN
    next_due_ms: int | None = None
    verdict: Verdict | None = None
    reason = ""
    match settle(watch, rules.schedule):
        case Wait(due_ms, reason):
            if found:
                case = _case(session, found, settled=False, provisional=True)
                verdict = judge(case, rules.policy, at_ms=now_ms)
            next_due_ms = due_ms
        case Settled(settled):
            if found:
                case = _case(session, found, settled=settled)
                verdict = judge(case, rules.policy, opinion, at_ms=now_ms)
            state = State.VERDICT
        case GiveUp(reason):
            # A verdict that was given before a late event stands.
            state = State.VERDICT if session.verdict else State.UNAVAILABLE
    alert = _alert(session, found, verdict, now_ms)
    return Conclusion(
        state=state,
        watch=msgspec.structs.replace(watch, reason=reason),
        next_due_ms=next_due_ms,
        reason=reason,
        answered=True,
        analysis=encode_analysis(found.analysis, masked=rules.mask_numbers) if found else None,
        verdict=verdict,
        alert=alert,
        cap=_cap(alert, rules.policy),
        recheck_ms=rules.schedule.recheck_due_ms(watch, now_ms) if state is State.VERDICT else None,
        spend=_spend(session, found, verdict, rules.policy) if state is State.VERDICT else None,
    )


def _recheck(
    session: Session,
    watch: Watch,
    attempt: Attempt,
    rules: Rules,
    now_ms: int,
    opinion: Opinion | None,
) -> Conclusion:
    """One more look at a session that has its verdict, which stands unless the cost has changed."""
    match attempt:
        case Held(seconds, reason):
            due_ms = now_ms + int(seconds * 1000)
            in_time = due_ms < watch.end_ms + _LATEST_RECHECK * rules.schedule.recheck_ms
            return Conclusion(
                State.VERDICT,
                held(watch, now_ms, reason),
                next_due_ms=None,
                reason=f"not looked at again{'' if not in_time else ' yet'}: {reason}",
                answered=False,
                recheck_ms=due_ms if in_time else None,
            )
        case NothingYet(reason):
            asked = msgspec.structs.replace(watch, last_ask_ms=now_ms, held=0)
            words = f"at one more look its cost was gone: {reason}"
            return Conclusion(State.VERDICT, asked, None, words, answered=True)
        case Found():
            watch = answered(watch, rules.schedule, _fetch(session, attempt, now_ms))
            if session.verdict and _stands(session.verdict, attempt):
                return Conclusion(State.VERDICT, watch, None, reason="", answered=True)
            verdict = judge(_case(session, attempt), rules.policy, opinion, at_ms=now_ms)
            alert = _alert(session, attempt, verdict, now_ms)
            return Conclusion(
                state=State.VERDICT,
                watch=watch,
                next_due_ms=None,
                reason="",
                answered=True,
                analysis=encode_analysis(attempt.analysis, masked=rules.mask_numbers),
                verdict=verdict,
                alert=alert,
                cap=_cap(alert, rules.policy),
                spend=_spend(session, attempt, verdict, rules.policy),
            )


def _stands(before: Verdict, found: Found) -> bool:
    """Whether the answer says no more than the verdict's did."""
    tree = found.tree
    if before.complete and not found.whole:
        # What could not be fetched this time has not gone.
        return tree.total <= before.total
    return (tree.total, len(tree.events)) == (before.total, before.event_count)


def _fetch(session: Session, found: Found, now_ms: int) -> Fetch:
    tree = found.tree
    must_have = {ASSISTANT} if _is_assistants(session) else set()
    return Fetch(
        at_ms=now_ms,
        ready=True,
        planned=False,
        event_count=max(len(tree.events), tree.stated_count or 0),
        total=tree.total,
        expected=must_have <= tree.has_product and found.whole,
    )


def _no_cost(now_ms: int) -> Fetch:
    return Fetch(at_ms=now_ms, ready=False, planned=False)


def _is_assistants(session: Session) -> bool:
    return bool(session.call.assistant_id or session.conversation_ids)


def _case(
    session: Session, found: Found, *, settled: bool = True, provisional: bool = False
) -> Case:
    return Case(
        tree=found.tree,
        call=session.call,
        reported=session.reported,
        settled=settled,
        provisional=provisional,
        whole=found.whole,
        grafted=found.grafted,
        remarks=found.remarks,
        before=session.verdict if session.state is State.VERDICT else None,
    )


def _spend(
    session: Session, found: Found | None, verdict: Verdict | None, policy: Policy
) -> Spend | None:
    """What the session counts for; money in another currency than the policy's cannot be added."""
    if not (found and verdict) or verdict.currency != policy.currency:
        return None
    call = known_of(session.call, found.tree)
    scopes = {
        budget.when.key
        for budget in policy.budgets
        if budget.when.includes(call.assistant_id, call.connection_id)
    }
    return Spend(
        amount=found.tree.charged,
        currency=policy.currency,
        end_ms=session.end_ms,
        scopes=(ACCOUNT, *sorted(scopes - {ACCOUNT})),
    )


def _alert(
    session: Session, found: Found | None, verdict: Verdict | None, now_ms: int
) -> Alert | None:
    """Only where this is worse than what has been told already."""
    if not (found and verdict and verdict.severity) or rank(verdict.severity) <= rank(
        session.alerted
    ):
        return None
    return Alert(
        id=f"{session.id}:{verdict.severity}",
        call=known_of(session.call, found.tree),
        verdict=verdict,
        severity=verdict.severity,
        decided_ms=now_ms,
    )


def _cap(alert: Alert | None, policy: Policy) -> Cap | None:
    """Only for what rests on nothing but what was learned: facts are always told."""
    if alert is None:
        return None
    verdict = alert.verdict
    if not all(reason.learned_from for reason in verdict.reasons if reason.severity):
        return None
    most = policy.most_alerts_per_day
    said = (
        f"Nobody was told: on this day there {_were(most)} already, as many as the policy wants "
        "(most_alerts_per_day)"
        if most
        else "Nobody was told: the policy wants no such alerts (most_alerts_per_day: 0)"
    )
    remarks = (*verdict.remarks, said)
    return Cap(most, msgspec.structs.replace(verdict, remarks=remarks))


def _were(alerts: int) -> str:
    return "was 1 such alert" if alerts == 1 else f"were {alerts:,} such alerts"
