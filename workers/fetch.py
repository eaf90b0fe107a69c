"""One ask for a session's analysis: the right day, and whatever the first answer left out."""

import asyncio
import random
from collections.abc import Iterator
from datetime import date
from http import HTTPStatus
from typing import Final, Protocol

from service.records import Session, Watch, moment
from workers.analysis import Analysis
from workers.answer import (
    Invalid,
    Meaning,
    NotReady,
    RateLimited,
    Ready,
    Refused,
    Transient,
)
from workers.attempt import Attempt, Found, Held, NothingYet
from workers.complete import complete
from workers.products import CALL_SESSION
from workers.settle import Schedule
from workers.tree import build_tree

_TRANSIENT_SECONDS: Final = (5, 300)
_REFUSED_SECONDS: Final = (5, 900)
_COMPLETION_SECONDS: Final = 60.0
# Well below the forty a minute that Telnyx was seen to allow: other sessions want to ask too.
_MOST_QUESTIONS: Final = 20


class WrongRequest(Exception):
    """Telnyx says that the request itself is wrong: asking again the same way will not help."""


class Analyses(Protocol):
    """Whoever asks Session Analysis."""

    async def analysis(
        self,
        record_type: str,
        event_id: str,
        *,
        date_time: date | None = None,
        permitted: bool = False,
    ) -> Meaning:
        """The cost tree of one event, as `TelnyxClient` has it."""
        ...


async def fetch(
    telnyx: Analyses,
    session: Session,
    watch: Watch,
    schedule: Schedule,
    *,
    now_ms: int,
    permitted: bool = True,
) -> Attempt:
    """The session's cost tree, as whole as it can be had. Raises WrongRequest.

    `permitted`: the claim has brought a permit for the first question.
    """
    meaning: Meaning = NotReady(404, "no cost yet")
    for count, day in enumerate(_days(session, watch, schedule, now_ms)):
        brought = permitted and count == 0
        meaning = await _ask(telnyx, CALL_SESSION, session.id, day, permitted=brought)
        # Only 404 can mean "the wrong day".
        if not _is_unknown(meaning):
            return await _understood(telnyx, meaning, watch, day)
    return await _understood(telnyx, meaning, watch, None)


async def _ask(
    telnyx: Analyses,
    record_type: str,
    event_id: str,
    day: date | None,
    *,
    permitted: bool = False,
) -> Meaning:
    meaning = await telnyx.analysis(record_type, event_id, date_time=day, permitted=permitted)
    if isinstance(meaning, Invalid) and day is not None:
        # The date only helps Telnyx's search; if it is what Telnyx dislikes, we do without.
        return await telnyx.analysis(record_type, event_id, date_time=None)
    return meaning


def _is_unknown(meaning: Meaning) -> bool:
    return isinstance(meaning, NotReady) and meaning.status == HTTPStatus.NOT_FOUND


def _days(session: Session, watch: Watch, schedule: Schedule, now_ms: int) -> Iterator[date | None]:
    """Those of the call's start and end, mostly one; from the second age on no day at all, too."""
    call = session.call
    known = [at for at in (call.start_ms, call.end_ms) if at]
    days = list(dict.fromkeys(moment(at).date() for at in known))
    yield from days
    late = schedule.reached(now_ms - watch.end_ms) > 1 or schedule.is_final(watch, now_ms)
    if late or not days:
        yield None


async def _understood(
    telnyx: Analyses, meaning: Meaning, watch: Watch, day: date | None
) -> Attempt:
    match meaning:
        case Ready(analysis=analysis):
            return await _completed(telnyx, analysis, day)
        case NotReady(reason=reason):
            return NothingYet(reason)
        case Invalid(reason=reason):
            raise WrongRequest(reason)
        case _:
            return _held(meaning, watch)


async def _completed(telnyx: Analyses, analysis: Analysis, day: date | None) -> Found:
    """The tree with what can be had of its missing parts.

    Whatever keeps us from them (a rate limit, an outage) does not take away what is here: it is
    judged as it stands, does not count as whole, and is asked for again at the next age.
    """

    async def own_analysis(record_type: str, event_id: str) -> Meaning:
        meaning = await _ask(telnyx, record_type, event_id, day)
        if _is_unknown(meaning) and day is not None:
            return await telnyx.analysis(record_type, event_id, date_time=None)
        return meaning

    try:
        async with asyncio.timeout(_COMPLETION_SECONDS):
            completed = await complete(analysis, own_analysis, limit=_MOST_QUESTIONS)
    except TimeoutError:
        remark = f"missing parts could not be fetched within {_COMPLETION_SECONDS:.0f} s"
        return Found(analysis, build_tree(analysis, CALL_SESSION), (remark,), whole=False)
    remarks = completed.failures
    return Found(completed.analysis, completed.tree, remarks, completed.whole, completed.grafted)


def _held(meaning: Meaning, watch: Watch) -> Held:
    match meaning:
        case RateLimited(retry_after_seconds=seconds, reason=reason):
            return Held(_spread(seconds), f"rate-limited: {reason}")
        case Refused(status=status, reason=reason, shut_seconds=shut):
            wait = _spread(shut) if shut else _back_off(watch.held, *_REFUSED_SECONDS)
            return Held(wait, f"refused ({status}): {reason}")
        case Transient(reason=reason, shut_seconds=shut) if shut:
            # It has happened to all: no session is to wait longer than for it to be over.
            return Held(_spread(shut), reason)
        case _:
            reason = getattr(meaning, "reason", "no answer")
            return Held(_back_off(watch.held, *_TRANSIENT_SECONDS), reason)


def _spread(seconds: float) -> float:
    """Over a second, so that all do not come at once."""
    return seconds + random.uniform(0, 1)  # noqa: S311 - no secret depends on it


def _back_off(times: int, first: float, longest: float) -> float:
    """Exponential, with half of it left to chance: an outage ends for all at the same moment."""
    step = min(first * 2.0 ** min(times, 16), longest)
    return step * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
