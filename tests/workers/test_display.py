"""What people see: every number that matters, and nothing that moves their cursor."""

import io
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from service.records import (
    Alert,
    Call,
    Delivery,
    Fetch,
    Notice,
    Reason,
    Reported,
    Session,
    Severity,
    State,
    Summary,
    Verdict,
    Watch,
)
from service.store import Posting
from tests.samples import END_MS, START_MS, analysis, assistant_call, event, node, session
from tests.workers.trees import Branch, chain, guide, wire
from workers.analysis import decode_analysis
from workers.checks import Check, Result
from workers.display import (
    alerts_view,
    analysis_view,
    checks_view,
    policy_view,
    products_view,
    record_type_view,
    record_types_view,
    session_view,
    sessions_view,
    tree_view,
    verdict_view,
    when,
)
from workers.lookup import Known
from workers.metadata import RecordType, RecordTypes, Relation
from workers.policy import BUILT_IN
from workers.products import CALL_SESSION
from workers.tree import CostTree, build_tree

NASTY = "[red]x[/red] \x1b[31m\x9b2J\u202e\r\n:skull: [link=http://x]"


def shown(*parts: RenderableType, width: int = 160) -> str:
    """What a terminal without colours gets."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def tree_of(body: bytes | dict[str, Any]) -> CostTree:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return build_tree(decode_analysis(raw), CALL_SESSION)


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_guides_example_as_a_tree() -> None:
    """Cost with all below, share, and own cost where there is something below."""
    assert lines_of(shown(tree_view(tree_of(wire(guide()))))) == [
        "Call session  0.2128  100 %  own 0.00 · session-0",
        "├── Recording  0.0051  2 % · recording",
        "├── WebRTC  0.0052  2 % · web",
        "├── SIP trunking  0.0052  2 % · sip",
        "└── Call control  0.1973  93 %  own 0.0052 · control",
        "    └── AI minutes  0.1921  90 %  own 0.18 · ai",
        "        ├── Inference  0.001  <1 % · turn-0",
        "        ├── Inference  0.0015  1 % · turn-1",
        "        ├── Inference  0.0029  1 % · turn-2",
        "        ├── Inference  0.0033  2 % · turn-3",
        "        └── Inference  0.0034  2 % · turn-4",
    ]


def test_a_loop_is_folded() -> None:
    """Hundreds of turns are five and a sum, unless all are wanted."""
    tree = tree_of(assistant_call(*["0.01"] * 412))
    folded = lines_of(shown(tree_view(tree)))
    assert len(folded) == 4 + 5 + 1
    assert folded[-1].strip() == "└── … 407 more Inference, together 4.07"
    assert len(lines_of(shown(tree_view(tree, whole=True)))) == 4 + 412


def test_ten_alike_are_not_folded() -> None:
    """A few turns are shown, each of them."""
    assert "more" not in shown(tree_view(tree_of(assistant_call(*["0.01"] * 10))))


def learned(code: str, product: str | None = None, **changes: Any) -> Reason:
    """A reason that rests on what is usual."""
    reason = Reason(
        code=code,
        text="x",
        observed=Decimal("4.37"),
        limit=Decimal("0.21"),
        excess=Decimal("4.16"),
        severity=Severity.MEDIUM,
        product=product,
        learned_from="a/inbound/US/assistant",
        calls=1204,
    )
    return msgspec.structs.replace(reason, **changes)


def test_nodes_that_are_not_as_usual_are_marked() -> None:
    """Each node of a strange product has a sign and how far it goes, a folded line, too."""
    reasons = (
        learned("unusual_cost"),
        learned("unusual_events", "inference", severity=None),
        learned("unknown_rate", "sip-trunking"),
        learned("new_product", "call-control"),
        learned("missing_product", "recording", observed=Decimal(0)),
        learned("sum_mismatch", "ai-voice-assistant", learned_from=None),
    )
    lines = lines_of(shown(tree_view(tree_of(assistant_call(*["0.01"] * 12)), reasons=reasons)))
    assert lines[0].endswith("· s  ▲ 21 times the usual  ▼ no Recording")
    marked = {line.strip("│├─└ ").partition("  ")[0]: line.partition("  ▲ ")[2] for line in lines}
    assert marked == {
        "Call session": "21 times the usual  ▼ no Recording",
        "SIP trunking": "new rate",
        "Call control": "new product",
        "AI minutes": "",
        "Inference": "21 times the usual events",
        "… 7 more Inference, together 0.07": "21 times the usual events",
    }


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("missing_cost", "▼ no cost"),
        ("new_country", "▲ new country"),
        ("new_model", "▲ new model"),
        ("unusual_cost_per_minute", "▲ 21 times the usual a minute"),
    ],
)
def test_what_is_about_the_whole_marks_the_top(code: str, words: str) -> None:
    """What no single product stands for is said of the session."""
    lines = lines_of(shown(tree_view(tree_of(wire(guide())), reasons=(learned(code),))))
    assert [line for line in lines if words in line] == lines[:1]


def test_a_learned_reason_says_what_it_rests_on() -> None:
    """Observed and expected, the cohort by its exact name, and how many calls it has."""
    text = shown(verdict_view(verdict(reasons=(learned("unusual_cost"),))))
    assert "observed 4.37, expected 0.21, cohort a/inbound/US/assistant (1,204 calls)" in text


def test_rates_and_times_are_shown() -> None:
    """What was billed, for what, and at which rate, is what explains a cost."""
    leg = node("sip-trunking", "0.0401", rate="4.01E-2", billed_sec=60, call_sec=35, id="leg")
    text = shown(tree_view(tree_of(analysis(node("call-session", "0", leg, id="s")))))
    assert "rate 0.0401 · 1 min billed for 35 s · leg" in text


def test_a_sum_that_does_not_add_up_is_marked() -> None:
    """Where Telnyx states something else than the events add up to, both are there."""
    cut = tree_of(wire(chain(3, cost="1"), levels=2))
    assert "1.00  100 %  Telnyx states 2.00" in shown(tree_view(cut))


def test_a_session_without_a_cost_has_no_shares() -> None:
    """Nothing is divided by zero."""
    text = shown(*analysis_view(tree_of(analysis(node("x", "0"))), verdict(), whole=False))
    assert "%" not in text.partition("Where the money went")[0]


def test_a_tree_a_hundred_levels_deep_is_shown() -> None:
    """Depth costs width, and nothing else."""
    tree = tree_of(wire(chain(100)))
    assert len(lines_of(shown(tree_view(tree), width=1000))) == 100


def test_products_are_listed_by_cost() -> None:
    """The dearest first, each with its share and number of events."""
    tree = tree_of(wire(guide()))
    found = lines_of(shown(products_view(tree.products, tree.currency)))
    assert found[0].split("  ")[0].strip() == "product"
    assert [line.split()[0] for line in found[2:5]] == ["AI", "Inference", "Call"]
    assert found[2].split() == ["AI", "minutes", "0.18", "85", "%", "1"]


# --- verdicts ------------------------------------------------------------------------------------


def verdict(**fields: Any) -> Verdict:
    return Verdict(at_ms=END_MS, total=Decimal("6.13"), currency="USD", **fields)


def reason(text: str = "The session cost 6.13 USD", **fields: Any) -> Reason:
    return Reason(
        code="session_cost",
        text=text,
        observed=Decimal("6.13"),
        limit=Decimal(5),
        excess=Decimal("1.13"),
        **fields,
    )


def test_a_verdict_says_how_bad_and_why() -> None:
    """Severity, excess, each reason with its code, and what else was noticed."""
    found = verdict(
        severity=Severity.MEDIUM,
        excess=Decimal("1.13"),
        reasons=(reason(severity=Severity.MEDIUM), reason("A small thing")),
        remarks=("2 of 5 events are missing",),
        complete=False,
    )
    assert lines_of(shown(verdict_view(found))) == [
        "Verdict",
        "  medium, 1.13 USD in excess  (incomplete: events are missing)",
        "  medium   The session cost 6.13 USD  session_cost",
        "  no alert A small thing  session_cost",
        "  also: 2 of 5 events are missing",
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "nothing to alert"),
        ({"provisional": True, "settled": False}, "(provisional: more cost may come)"),
        ({"settled": False}, "(not settled: Telnyx's answers had not come to rest)"),
    ],
)
def test_a_doubtful_verdict_says_so(fields: dict[str, bool], words: str) -> None:
    """What may still change, or never came to rest, is not shown as certain."""
    assert words in shown(verdict_view(verdict(**fields)))


# --- sessions ------------------------------------------------------------------------------------


def known(found: Session, **fields: Any) -> Known:
    return Known(
        **{
            "session": found,
            "due_ms": None,
            "waiting": False,
            "recheck_ms": None,
            "analysis": None,
            "alerts": (),
        }
        | fields
    )


def call_session() -> Session:
    return session(
        event(start_ms=START_MS, leg_id="leg", from_number="+4915112345678", to_number="…31"),
        event(
            "call.cost",
            leg_id="leg",
            cause="x",
            at_ms=END_MS + 5000,
            reported=Reported(Decimal("0.5"), "USD"),
        ),
        watch=Watch(
            end_ms=END_MS,
            fetches=(
                Fetch(at_ms=END_MS + 90_000, ready=False, planned=True),
                Fetch(
                    at_ms=END_MS + 95_000,
                    ready=True,
                    planned=False,
                    event_count=3,
                    total=Decimal("0.1"),
                ),
            ),
            held=2,
            reason="rate-limited: 429",
        ),
        verdict=verdict(severity=Severity.HIGH, provisional=True),
        alerted=Severity.HIGH,
    )


@pytest.mark.parametrize(
    ("number", "told"), [("+4915112345678", "…78 (DE)"), ("a@sip.telnyx.com", "…@sip.telnyx.com")]
)
def test_a_number_is_shown_with_its_country(number: str, told: str) -> None:
    """The country stands behind the masked number; an address has none of its own."""
    call = event(start_ms=START_MS, to_number=number, to_country="DE")
    found = lines_of(shown(*session_view(known(session(call)), None)))
    assert any(line.split()[:1] == ["to"] and line.endswith(told) for line in found), found


def test_a_finished_session_says_when_it_is_looked_at_again() -> None:
    """Its state is its verdict; the look ahead is a fact of its own."""
    found = replace(session(verdict=verdict()), state=State.VERDICT)
    text = shown(*session_view(known(found, recheck_ms=END_MS + 86_400_000), None))
    assert "re-check" in text
    assert "re-check" not in shown(*session_view(known(found), None))


def alert(**fields: Any) -> Posting[Alert]:
    decided = Alert(
        id="s:high",
        call=Call(session_id="s"),
        verdict=verdict(),
        severity=Severity.HIGH,
        decided_ms=END_MS,
    )
    whole = {"delivery": Delivery.WAITING, "tries": 0, "reason": "", "changed_ms": 0}
    return Posting(decided, **{**whole, **fields})


def test_the_list_of_alerts_says_what_became_of_each() -> None:
    """A refused alert stands there with its fate and the reason; an unreadable one says so."""
    refused = alert(delivery=Delivery.REFUSED, tries=2, reason="no_service")
    found = lines_of(shown(alerts_view([("s:high", refused), ("x:low", None)])))
    assert any("refused" in line and "no_service" in line for line in found)
    assert any("x:low" in line and "cannot be read" in line for line in found)


def test_the_list_names_summaries_and_notices() -> None:
    """Each alert says in which summary it was told, which may be told twice, and what else is."""
    told = alert(delivery=Delivery.SUMMARIZED, summary="17")
    twice = alert(delivery=Delivery.POSTED, repeated=True)
    summary = Posting(Summary("17:summary", END_MS, 2481, ("cap",)), Delivery.POSTED)
    notice = Posting(Notice("n", "outage", END_MS, "Telnyx \x1b[31mis away"), Delivery.WAITING)
    rows: list[tuple[str, Posting[Any] | None]] = [
        ("a", told),
        ("b", twice),
        ("17:summary", summary),
        ("n:notice", notice),
    ]
    text = shown(alerts_view(rows))
    for words in (
        "summarized in 17",
        "perhaps told twice",
        "summary 17 of 2,481 alerts",
        "Telnyx �[31mis away",
    ):
        assert words in text
    parts = session_view(known(session(), alerts=(told,)), None)
    assert "told in summary 17" in shown(*parts)


def test_a_session_is_shown_whole() -> None:
    """State, call, events, fetches with their ages, waits, verdict, tree and alerts."""
    tried = alert(tries=3, reason="503 Service Unavailable", changed_ms=END_MS)
    tree = tree_of(wire(guide()))
    parts = session_view(known(call_session(), due_ms=END_MS + 1, alerts=(tried,)), tree)
    text = " ".join(shown(*parts).split())
    for words in (
        "Session s: waits for its cost",
        "duration 2 min",
        "from …78",
        "next look 2026-09-21 14:13:20 UTC",
        "why rate-limited: 429",
        "cost 6.13 USD",
        "call.cost",
        "0.50 USD",
        "1 min 30 s planned no cost yet",
        "1 min 35 s pulled forward a cost with parts missing 3 0.10",
        "2 asks in a row without an answer: rate-limited: 429",
        "high, 0.00 USD in excess (provisional",
        "Cost tree, as last fetched",
        "waits to be posted 2026-09-21 14:13:20 UTC (3 tries) 503 Service Unavailable",
    ):
        assert words in text
    assert "1234" not in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"waiting": True}, "the first one, once its cost can be expected"),
        ({}, "not planned: it will never be looked at"),
    ],
)
def test_when_the_next_look_comes(fields: dict[str, bool], words: str) -> None:
    """A session that nobody will ever look at again, though it is open, is said to be one."""
    assert words in shown(*session_view(known(session(), **fields), None))


@pytest.mark.parametrize("state", State)
def test_every_state_has_words(state: State) -> None:
    """A session in any state can be shown, alone and in the list."""
    found = session(state=state)
    assert "Session s: " in shown(*session_view(known(found), None))
    assert state in shown(sessions_view([("s", found)]))


@pytest.mark.parametrize("delivery", Delivery)
def test_every_delivery_has_words(delivery: Delivery) -> None:
    """Whatever became of an alert can be said."""
    parts = session_view(known(session(), alerts=(alert(delivery=delivery),)), None)
    assert "decided 2026" in shown(*parts)


def test_the_list_of_sessions() -> None:
    """One line for each: cost, verdict, whether it was told; one that is unreadable says so."""
    quiet = session(state=State.VERDICT, verdict=verdict())
    found = lines_of(shown(sessions_view([("a", call_session()), ("b", quiet), ("c", None)])))
    assert "high so far" in found[2]
    assert found[2].split()[0:2] == ["a", "open"]
    assert "rate-limited: 429" in found[2]
    assert found[3].split() == ["b", "verdict", *found[3].split()[2:5], "6.13", "USD", "quiet"]
    assert found[4].split() == ["c", "cannot", "be", "read"]


def test_an_impossible_time_is_no_crash() -> None:
    """What is stored may be wrong; it is shown all the same."""
    assert when(10**20) == "?"


# --- record types, checks, policies --------------------------------------------------------------

RECORD = RecordType(
    "ai-voice-assistant",
    aliases=("ai-assistant",),
    product="AI Voice Assistant",
    children=(
        Relation("inference", True, True, "conversation_id", "conversation_id"),
        Relation("memory", cost_rollup=False),
    ),
    recommended_depth=3,
)


def test_record_types_and_one_of_them() -> None:
    """Names, children, how they are linked, and whether their costs roll up."""
    text = shown(record_types_view(RecordTypes((RECORD, RecordType("inference")))))
    for words in ("ai-assistant", "conversation_id = conversation_id", "not said"):
        assert (words in text) == (words != "not said")
    text = shown(*record_type_view(RECORD))
    for words in ("recommended depth  3", "AI Voice Assistant", "not said", "Parents\n  none"):
        assert words in text


def test_checks_say_what_to_do() -> None:
    """What, how it is, what was found, what to mend."""
    table = checks_view([Check("Redis", Result.FAILED, "not there", "start it")])
    assert lines_of(shown(table))[-1].split() == ["Redis", "failed", "not", "there", "start", "it"]


def test_a_policy_says_what_will_apply() -> None:
    """Each limit, and the calls it is for."""
    text = shown(policy_view(BUILT_IN))
    assert "product_events inference   200 events" in text


# --- nothing from outside acts -------------------------------------------------------------------


def told_of(text: str, verdict: Verdict) -> Posting[Alert]:
    """An alert about a call in whose every field stands this text."""
    call = Call(text, None, None, text, text, text, text, text)
    decided = Alert(text, call, verdict, Severity.LOW, END_MS)
    return replace(alert(reason=text, delivery=Delivery.REFUSED), subject=decided)


def everything(text: str) -> list[RenderableType]:
    """Every view, with this text wherever text from outside can be."""
    leg = node(text, "0.1", id=text, rate_measured_in=text, rate="1")
    tree = tree_of(analysis(node("call-session", "0", leg, id=text), session_id=text))
    bad = verdict(
        severity=Severity.LOW, reasons=(reason(text, severity=Severity.LOW),), remarks=(text,)
    )
    found = session(
        event(
            kind=text,
            leg_id=text,
            cause=text,
            from_number=text,
            to_number=text,
            connection_id=text,
            assistant_id=text,
            direction=text,
            reported=Reported(Decimal(1), text),
        ),
        watch=Watch(end_ms=END_MS, held=1, reason=text),
        verdict=msgspec.structs.replace(bad, currency=text),
    )
    relation = Relation(text, local_field=text, parent_field=text)
    one = RecordType(text, (text,), text, text, text, children=(relation,), parents=(relation,))
    return [
        *analysis_view(tree, bad, whole=False),
        products_view(tree.products, text),
        *session_view(known(found, alerts=(alert(reason=text),)), tree),
        sessions_view([(text, found), (text, None)]),
        alerts_view([(text, told_of(text, bad)), (text, None)]),
        record_types_view(RecordTypes((one,))),
        *record_type_view(one),
        checks_view([Check(text, Result.OK, text, text)]),
    ]


def test_nothing_from_outside_is_markup() -> None:
    """Brackets, emoji names and links are text; control characters are gone."""
    text = shown(*everything(NASTY), width=1000)
    assert "[red]x[/red]" in text
    assert ":skull:" in text
    assert text.replace("\n", "").isprintable()


# Controls, marks of direction, separators, and what has no character yet.
COMMANDS = st.text(
    st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Co", "Cn"]), min_size=1, max_size=10
)


@pytest.mark.no_cover
@given(st.text(min_size=1, max_size=30) | COMMANDS)
def test_no_text_breaks_a_view(text: str) -> None:
    """Whatever text comes, everything is shown, and the terminal obeys none of it."""
    assert shown(*everything(text), width=1000).replace("\n", "").isprintable()


@given(st.integers(1, 30))
def test_a_fold_loses_no_money(count: int) -> None:
    """The lines shown and the sum of the rest are all of the inference."""
    turns = [Branch(f"t{n}", "inference", Decimal(n)) for n in range(1, count + 1)]
    tree = tree_of(wire(Branch("s", CALL_SESSION, Decimal(0), tuple(turns))))
    lines = lines_of(shown(tree_view(tree)))[1:]
    costs = [
        Decimal(line.split("together ")[1] if "together" in line else line.split("  ")[1])
        for line in lines
    ]
    assert sum(costs) == sum(range(count + 1))
