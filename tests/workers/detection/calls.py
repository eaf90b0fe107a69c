"""Made-up calls for tests of what is learned: lines of the public file, and streams of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec

from service.records import Verdict
from tests.samples import analysis, node
from workers.backtest import Backtest, Judged
from workers.judge import Grounds
from workers.policy import BUILT_IN, Policy
from workers.recorded import Recorded, read_line

BEGIN_MS: Final = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

UNBOUND: Final = BUILT_IN.model_copy(update={"ceilings": (), "max_session_cost": Decimal(10**6)})
"""A policy that alerts by what was learned, and by nothing that somebody set."""


def line(
    number: int = 0,
    end_ms: int = BEGIN_MS,
    *,
    minutes: float = 2,
    per_minute: float = 0.1,
    rate: str | None = "0.1",
    turns: Sequence[float] = (),
    assistant_minute: float = 0.05,
    model: str = "openai/gpt-4o",
    extra: Sequence[dict[str, Any]] = (),
    currency: str = "USD",
    **webhook: Any,
) -> dict[str, Any]:
    """A session as a line of the public file: a phone leg, and maybe an assistant with turns."""
    seconds = math.ceil(minutes * 60)
    started = -(-seconds // 60)

    def spend(amount: float) -> str:
        return f"{amount:.9f}"

    trunk = node(
        "sip-trunking",
        spend(started * per_minute),
        id=f"leg-{number}",
        call_sec=seconds,
        billed_sec=started * 60,
        currency=currency,
        **({"rate": rate} if rate else {}),
    )
    nodes = [trunk, *extra]
    if turns:
        thinking = [
            node("inference", spend(each), id=f"turn-{number}-{place}", model=model)
            for place, each in enumerate(turns)
        ]
        minute = spend(assistant_minute * started)
        nodes.append(node("ai-voice-assistant", minute, *thinking, id="conv", call_sec=seconds))
    root = node("call-session", "0", *nodes, id=f"s{number}", currency=currency)
    return {
        "started_at": iso(end_ms - seconds * 1000),
        "ended_at": iso(end_ms),
        "webhook": {
            "call_session_id": f"s{number}",
            "connection_id": "c1",
            "to": "+4930123456",
            "direction": "outgoing",
        }
        | webhook,
        "analysis": analysis(root),
    }


def iso(at_ms: int) -> str:
    """A time as the file has it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def recorded(*place: int, **what: Any) -> Recorded:
    """The same, read."""
    return read_line(msgspec.json.encode(line(*place, **what)))


def steady(
    calls: int, *, every_ms: int = HOUR_MS // 4, first: int = 0, **what: Any
) -> Iterator[Recorded]:
    """Calls that are all the same, but for their ids and times."""
    for number in range(first, first + calls):
        yield recorded(number, BEGIN_MS + number * every_ms, **what)


def lognormal(
    calls: int, rng: Random, *, spread: float = 0.6, every_ms: int = HOUR_MS // 8, **what: Any
) -> Iterator[Recorded]:
    """Calls of log-normal cost, at one price: what differs is how long they are."""
    for number in range(calls):
        minutes = math.exp(rng.gauss(1.5, spread))
        yield recorded(number, BEGIN_MS + number * every_ms, minutes=minutes, **what)


def taught(calls: Iterable[Recorded], policy: Policy = UNBOUND) -> tuple[Backtest, list[Judged]]:
    """A backtest that has seen these, and what it said of them."""
    test = Backtest(policy)
    return test, [test.session(call) for call in calls]


def codes(found: Grounds | Verdict) -> set[str]:
    """What the reasons are about."""
    return {reason.code for reason in found.reasons}
