"""What is kept of sessions, read for people: everything that Redis knows, changed by nothing here.

A record that cannot be read (by a newer version, or broken) is shown as such and hides no other.
"""

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace
from redis.asyncio import Redis

from service import keys
from service.connect import redis_pool
from service.masking import mask
from service.outbox import Subject
from service.records import (
    Alert,
    Call,
    Delivery,
    Event,
    Notice,
    Session,
    Severity,
    State,
    Summary,
)
from service.store import Posting, Store
from workers.analysis import Unreadable, decode_analysis, encode_analysis
from workers.feedback import Feedback, feedback_on

_REDIS_SECONDS: Final = 5.0
# A page of Telnyx's lists may be looked up at once; they are only made when they are needed.
_CONNECTIONS: Final = 300
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, zlib.error)


class NotReadable(Exception):
    """A record in Redis that this version cannot read; the message says which."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of one session.

    `due_ms` is when it is looked at next, or, while a worker holds it, when that worker's lease
    ends; None where its first fetch has not come up yet (`waiting`) or nothing more is to be done.
    """

    session: Session
    due_ms: int | None
    waiting: bool
    recheck_ms: int | None
    """When a finished session's cost is looked at once more."""
    analysis: bytes | None
    alerts: tuple[Posting[Alert], ...]
    feedback: Feedback | None = None


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A connection that is closed at the end. Redis' errors pass through."""
    pool = redis_pool(url, connections=_CONNECTIONS, timeout_seconds=_REDIS_SECONDS)
    try:
        yield Redis(connection_pool=pool)
    finally:
        await pool.disconnect()


async def look_up(redis: Redis, session_id: str) -> Known | None:
    """What is known of a session, or None. Raises NotReadable."""
    store = _store(redis)
    try:
        session = await store.session(session_id)
        if session is None:
            return None
        analysis = await store.analysis(session_id)
        alerts = [await store.posting(f"{session_id}:{severity}") for severity in Severity]
        said = await feedback_on(redis, session_id)
    except _UNREADABLE as error:
        raise NotReadable(f"the record of session {session_id} cannot be read") from error
    due = await redis.zscore(keys.DUE, session_id)
    recheck = await redis.zscore(keys.RECHECKS, session_id)
    return Known(
        session=session,
        due_ms=None if due is None else int(due),
        waiting=await redis.zscore(keys.ENDED, session_id) is not None,
        recheck_ms=None if recheck is None else int(recheck),
        analysis=analysis,
        alerts=tuple(alert for alert in alerts if alert),
        feedback=said,
    )


async def listed(
    redis: Redis, *, state: State | None = None, limit: int
) -> AsyncIterator[tuple[str, Session | None]]:
    """Up to `limit` sessions in `state`, the latest changed first; None for one not readable."""
    store = _store(redis)
    found = 0
    async for session_id in store.session_ids():
        try:
            session = await store.session(session_id)
        except _UNREADABLE:
            if state is not None:
                continue
            session = None
        else:
            if session is None or state not in {None, session.state}:
                continue
        yield session_id, session
        found += 1
        if found >= limit:
            return


async def listed_alerts(
    redis: Redis, *, delivery: Delivery | None = None, summary: str | None = None, limit: int
) -> AsyncIterator[tuple[str, Posting[Any] | None]]:
    """Up to `limit` alerts, notices and summaries with that fate; None for one not readable.

    The latest decided first; of the summary with that number, if given, the worst first.
    """
    store = _store(redis)
    found = 0
    async for alert_id in _members(store, summary) if summary else store.alert_ids():
        try:
            posting = await store.item(alert_id)
        except _UNREADABLE:
            if delivery is not None:
                continue
            posting = None
        else:
            if posting is None or delivery not in {None, posting.delivery}:
                continue
        yield alert_id, posting
        found += 1
        if found >= limit:
            return


async def _members(store: Store, number: str) -> AsyncIterator[str]:
    for alert_id in await store.members(number + keys.IS_SUMMARY):
        yield alert_id


def _store(redis: Redis) -> Store:
    # Nothing is written here, so how long it would be kept does not matter.
    return Store(redis, retention_ms=0)


def whole(known: Known) -> dict[str, Any]:
    """All that is known of one session, for JSON: numbers masked, times in milliseconds."""
    session = known.session
    return {
        **brief(session.id, session),
        "due_ms": known.due_ms,
        "waiting": known.waiting,
        "recheck_ms": known.recheck_ms,
        "call": _masked(session.call),
        "events": [_masked(event) for event in session.events],
        "watch": session.watch,
        "verdict": session.verdict,
        "feedback": known.feedback,
        "alerts": [
            {
                "alert": replace(posting.subject, call=_masked(posting.subject.call)),
                **_fate(posting),
            }
            for posting in known.alerts
        ],
        "analysis": _analysis(known.analysis),
    }


def brief(session_id: str, session: Session | None) -> dict[str, Any]:
    """One session on one line, for JSON; without a session, one that cannot be read."""
    if session is None:
        return {"session_id": session_id, "state": "unreadable"}
    verdict = session.verdict
    return {
        "session_id": session_id,
        "state": session.state,
        "reason": session.reason or session.watch.reason,
        "accepted_ms": session.accepted_ms,
        "end_ms": session.end_ms or None,
        "total": verdict.total if verdict else None,
        "currency": verdict.currency if verdict else None,
        "severity": verdict.severity if verdict else None,
        "provisional": verdict.provisional if verdict else None,
        "alerted": session.alerted,
        "dropped_ms": session.dropped_ms,
    }


def brief_alert(alert_id: str, posting: Posting[Any] | None) -> dict[str, Any]:
    """An alert, a notice or a summary on one line, for JSON; None for one that cannot be read."""
    if posting is None:
        return {"alert_id": alert_id, "delivery": "unreadable"}
    return {"alert_id": alert_id, **_about(posting.subject), **_fate(posting)}


def _about(subject: Subject) -> dict[str, Any]:
    match subject:
        case Notice():
            return {
                "kind": "notice",
                "decided_ms": subject.at_ms,
                "text": subject.text,
                "details": subject.details,
            }
        case Summary():
            return {
                "kind": "summary",
                "decided_ms": subject.at_ms,
                "summary": subject.number,
                "alerts": subject.count,
                "why": subject.why,
            }
        case Alert(call=call, verdict=verdict):
            return {
                "kind": "alert",
                "session_id": call.session_id,
                "decided_ms": subject.decided_ms,
                "severity": subject.severity,
                "total": verdict.total,
                "excess": verdict.excess,
                "currency": verdict.currency,
                "reasons": [reason.code for reason in verdict.reasons if reason.severity],
            }


def _fate(posting: Posting[Any]) -> dict[str, Any]:
    told_in = {"summary": posting.summary} if posting.summary else {}
    return {
        "delivery": posting.delivery,
        **told_in,
        "tries": posting.tries,
        "repeated": posting.repeated,
        "reason": posting.reason,
        "changed_ms": posting.changed_ms or None,
    }


Numbered = TypeVar("Numbered", Call, Event)


def _masked(record: Numbered) -> Numbered:
    """Masked once more: a setting may have let whole numbers into Redis."""
    numbers = {"from_number": record.from_number, "to_number": record.to_number}
    return replace(record, **{name: mask(number) for name, number in numbers.items() if number})


def _analysis(body: bytes | None) -> msgspec.Raw | None:
    if body is None:
        return None
    try:
        return msgspec.Raw(encode_analysis(decode_analysis(body), masked=True))
    except Unreadable:
        return None
