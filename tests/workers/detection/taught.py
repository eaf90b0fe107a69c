"""A judge that has seen many calls: what it then says of one more."""

from decimal import Decimal
from typing import Any

import msgspec

from service.records import Call, Verdict
from tests.samples import analysis, node
from workers.analysis import decode_analysis
from workers.backtest import Backtest
from workers.detection.opinion import Gates, Opinion, opinion_of
from workers.judge import Case, judge, measured_of
from workers.policy import BUILT_IN
from workers.products import CALL_SESSION
from workers.recorded import Recorded
from workers.tree import build_tree

DAY_MS = 86_400_000
FIRST_MS = 20_700 * DAY_MS
LATER_MS = FIRST_MS + 4 * DAY_MS
ASSISTANT = "assistant-1"
QUIET_CEILINGS = BUILT_IN.model_copy(update={"ceilings": (), "max_session_cost": Decimal(1000)})


def call_of(
    minutes: int = 3,
    turns: int = 5,
    *,
    a_turn: str = "0.0015",
    rate: str = "0.05",
    sip_rate: str = "0.005",
    model: str = "small",
    more: tuple[dict[str, Any], ...] = (),
) -> dict[str, Any]:
    """A call to an assistant, from which everything else that a test changes differs a little."""
    seconds = 60 * minutes
    inference = [
        node("inference", a_turn, id=f"turn-{number}", model=model) for number in range(turns)
    ]
    talk = node(
        "ai-voice-assistant",
        str(Decimal(rate) * minutes),
        *inference,
        id="conv",
        duration_sec=seconds,
        billed_sec=seconds,
        rate=rate,
    )
    leg = node(
        "sip-trunking",
        str(Decimal(sip_rate) * minutes),
        id="leg",
        call_sec=seconds,
        billed_sec=seconds,
        rate=sip_rate,
    )
    return analysis(node("call-session", "0", leg, talk, *more, id="s"))


def free_call(minutes: int = 3) -> dict[str, Any]:
    """A call of the same kind for which nothing was charged."""
    return call_of(minutes, 5, a_turn="0", rate="0.00", sip_rate="0.000")


def recorded(answer: dict[str, Any], at_ms: int, *, country: str | None = "US") -> Recorded:
    """The call as a line of a file would hold it."""
    tree = build_tree(decode_analysis(msgspec.json.encode(answer)), CALL_SESSION)
    call = Call(
        f"s-{at_ms}",
        start_ms=at_ms - 1000 * tree.real_seconds,
        end_ms=at_ms,
        direction="outbound",
        assistant_id=ASSISTANT,
        to_country=country,
    )
    return Recorded(call=call, tree=tree, called=None)


def taught(calls: int = 181, days: int = 4, *, more: tuple[dict[str, Any], ...] = ()) -> Backtest:
    """A backtest that has seen so many usual calls, evenly over some days."""
    test = Backtest(QUIET_CEILINGS)
    for number in range(calls):
        at_ms = FIRST_MS + number * days * DAY_MS // calls
        test.session(recorded(call_of(2 + number % 3, 4 + number % 3, more=more), at_ms))
    return test


def said_of(test: Backtest, answer: dict[str, Any], *, country: str = "US") -> Verdict:
    """The verdict on one more call, which teaches nothing."""
    one = recorded(answer, LATER_MS, country=country)
    case = Case(tree=one.tree, call=one.call)
    opinion = opinion_on(test, answer, country=country)
    return judge(case, test.policy, opinion, at_ms=LATER_MS)


def opinion_on(test: Backtest, answer: dict[str, Any], *, country: str = "US") -> Opinion:
    """What is thought of that call by what was learned."""
    one = recorded(answer, LATER_MS, country=country)
    measured = measured_of(Case(tree=one.tree, call=one.call), test.policy)
    assert measured
    ladder = test.memory.ladder(measured.ladder, LATER_MS // DAY_MS)
    return opinion_of(measured, ladder, Gates.of(test.policy))
