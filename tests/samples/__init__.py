"""Small builders for tests: events, sessions and analyses with the field names of Telnyx."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from service.events import Scheduling
from service.records import Event, Fetch, Reported, Session, Severity, State, Verdict, Watch

END_MS = 1_790_000_000_000
START_MS = END_MS - 120_000


def event(
    kind: str = "call.hangup", *, at_ms: int = END_MS, ends: bool | None = None, **fields: Any
) -> Event:
    """An event; those that end a call say so unless told otherwise."""
    is_end = kind in {"call.hangup", "call.conversation.ended"} if ends is None else ends
    return Event(kind=kind, at_ms=at_ms, ends=is_end, **fields)


def scheduling(
    session_id: str = "s", key: str = "1", *, pulls: bool = False, **fields: Any
) -> Scheduling:
    """A reading that schedules its session."""
    reported = Reported(total=Decimal("0.01")) if pulls else None
    return Scheduling(session_id, key, event(reported=reported, **fields), pulls=pulls)


def session(
    *events: Event,
    state: State = State.OPEN,
    watch: Watch | None = None,
    end_ms: int = END_MS,
    alerted: Severity | None = None,
    verdict: Verdict | None = None,
) -> Session:
    """A session as read from the store."""
    return Session(
        id="s",
        state=state,
        revision=1,
        events=events or (event(start_ms=START_MS, leg_id="leg"),),
        end_ms=end_ms,
        accepted_ms=end_ms,
        watch=watch or Watch(),
        alerted=alerted,
        verdict=verdict,
    )


def ready(
    at_ms: int, total: str = "0.10", *, count: int = 3, planned: bool = True, expected: bool = True
) -> Fetch:
    """An answer with a cost."""
    return Fetch(
        at_ms=at_ms,
        ready=True,
        planned=planned,
        event_count=count,
        total=Decimal(total),
        expected=expected,
    )


def node(
    product: str,
    cost: str,
    *children: dict[str, Any],
    id: str | None = None,
    currency: str = "USD",
    **record: Any,
) -> dict[str, Any]:
    """A node whose cumulative cost adds up."""
    name = id or product
    below = sum((Decimal(child["cost"]["cumulative_cost"]) for child in children), Decimal(0))
    return {
        "id": name,
        "product": product,
        "event_name": product,
        "relationship": None,
        "cost": {
            "event_cost": cost,
            "cumulative_cost": str(Decimal(cost) + below),
            "currency": currency,
        },
        "links": {"self": f"/v2/session_analysis/{product}/{name}", "records": ""},
        "record": {"record_type": product, **record},
        "children": list(children),
    }


def analysis(root: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An answer around a root; total, count and products follow from the nodes."""
    nodes = list(walk(root))
    whole = {
        "session_id": root["id"],
        "cost": {
            "total": root["cost"]["cumulative_cost"],
            "currency": root["cost"]["currency"],
        },
        "root": root,
        "meta": {
            "event_count": len(nodes),
            "products": sorted({n["product"] for n in nodes}),
        },
    }
    return whole | changes


def walk(root: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The nodes of a tree, parents first."""
    yield root
    for child in root["children"] or ():
        yield from walk(child)


def assistant_call(
    *turns: str, sip: str = "0.0052", minutes: str = "0.18", seconds: int = 152
) -> dict[str, Any]:
    """A call to an assistant, with one inference event for each of `turns`."""
    inference = [
        node("inference", turn, id=f"turn-{number}", created_at=f"2026-09-21T12:00:{number:02d}Z")
        for number, turn in enumerate(turns)
    ]
    ai = node(
        "ai-voice-assistant", minutes, *inference, id="conv", duration_sec=seconds, billed_sec=180
    )
    control = node(
        "call-control", "0.0052", ai, id="control", call_sec=seconds, direction="inbound"
    )
    trunk = node("sip-trunking", sip, id="leg", call_sec=seconds, rate="0.0052")
    return analysis(node("call-session", "0.0000", trunk, control, id="s"))
