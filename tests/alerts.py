"""Alerts as they come into the outbox, decided by sessions that are concluded as in production."""

from decimal import Decimal

from redis.asyncio import Redis

from service import keys
from service.records import Alert, Call, Conclusion, Reason, Severity, State, Verdict, Watch
from service.store import Concluded, Store
from tests.samples import END_MS, scheduling

RETENTION_MS = 86_400_000


def alert_of(
    session_id: str = "s",
    severity: Severity = Severity.MEDIUM,
    *,
    assistant_id: str | None = None,
    code: str = "session_cost",
    excess: str = "4",
    currency: str = "USD",
    at_ms: int = END_MS,
) -> Alert:
    """An alert with one reason, which leads."""
    money = Decimal(excess)
    reason = Reason(code, "dear", money + 5, Decimal(5), money, severity)
    verdict = Verdict(
        at_ms=at_ms,
        total=money + 5,
        currency=currency,
        severity=severity,
        excess=money,
        reasons=(reason,),
    )
    # Without an assistant of its own, a call shares its cause with no other.
    call = Call(session_id, assistant_id=assistant_id, connection_id=f"of {session_id}")
    return Alert(f"{session_id}:{severity}", call, verdict, severity, at_ms)


async def decide(redis: Redis, alert: Alert, *, now_ms: int | None = None) -> Concluded:
    """Let the alert's session be concluded with it."""
    store = Store(redis, retention_ms=RETENTION_MS)
    at_ms = alert.decided_ms if now_ms is None else now_ms
    session_id = alert.call.session_id
    await store.record(scheduling(session_id, at_ms=at_ms), now_ms=at_ms)
    # As a claim does, whatever the time.
    await redis.zrem(keys.ENDED, session_id)
    await redis.hset(keys.session_key(session_id), "token", "t")  # type: ignore[misc]
    session = await store.take(session_id, "t")
    assert session
    done = Conclusion(State.VERDICT, Watch(), None, "", answered=True, alert=alert)
    return await store.conclude(session, "t", done, now_ms=at_ms)
