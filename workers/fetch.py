"""One ask for a session's analysis: the right day, and whatever the first answer left out."""

import random
from collections.abc import Iterator
from datetime import date
from typing import Final

from service.records import Session, Watch, moment
from workers.analysis import Analysis
from workers.answer import Invalid, Meaning, NotReady, RateLimited, Ready, Refused
from workers.attempt import Attempt, Found, Held, NothingYet
from workers.complete import complete
from workers.products import CALL_SESSION
from workers.settle import Schedule
from workers.telnyx import TelnyxClient

_TRANSIENT_SECONDS: Final = (5, 300)
_REFUSED_SECONDS: Final = (60, 900)


class WrongRequest(Exception):
    """Telnyx says that the request itself is wrong: asking again the same way will not help."""


async def fetch(
    telnyx: TelnyxClient, session: Session, watch: Watch, schedule: Schedule, *, now_ms: int
) -> Attempt:
    """The session's cost tree, as whole as it can be had. Raises WrongRequest."""
    meaning: Meaning = NotReady(404, "no cost yet")
    for day in _days(session, watch, schedule, now_ms):
        meaning = await telnyx.analysis(CALL_SESSION, session.id, date_time=day)
        # Only 404 can mean "the wrong day".
        if not isinstance(meaning, NotReady) or meaning.status != 404:  # noqa: PLR2004
            return await _understood(telnyx, meaning, watch, day)
    return await _understood(telnyx, meaning, watch, None)


def _days(session: Session, watch: Watch, schedule: Schedule, now_ms: int) -> Iterator[date | None]:
    """The call's start day; from the second age on its end day too, and then no day at all."""
    call = session.call
    known = [at for at in (call.start_ms, call.end_ms) if at]
    days = list(dict.fromkeys(moment(at).date() for at in known))
    yield from days[:1]
    late = schedule.reached(now_ms - watch.end_ms) > 1 or schedule.is_final(watch, now_ms)
    if late or not days:
        yield from days[1:]
        yield None


async def _understood(
    telnyx: TelnyxClient, meaning: Meaning, watch: Watch, day: date | None
) -> Attempt:
    match meaning:
        case Ready(analysis=analysis):
            return await _completed(telnyx, analysis, watch, day)
        case NotReady(reason=reason):
            return NothingYet(reason)
        case Invalid(reason=reason):
            raise WrongRequest(reason)
        case _:
            return _held(meaning, watch)


async def _completed(
    telnyx: TelnyxClient, analysis: Analysis, watch: Watch, day: date | None
) -> Attempt:
    async def own_analysis(record_type: str, event_id: str) -> Meaning:
        return await telnyx.analysis(record_type, event_id, date_time=day)

    completed = await complete(analysis, own_analysis)
    if completed.blocked:
        # Not the session's fault: a tree that is whole is worth the wait.
        return _held(completed.blocked, watch)
    return Found(completed.analysis, completed.tree, completed.failures)


def _held(meaning: Meaning, watch: Watch) -> Held:
    match meaning:
        case RateLimited(retry_after_seconds=seconds, reason=reason):
            # Spread over the next window's first second, so that all do not come at once.
            return Held(seconds + random.uniform(0, 1), f"rate-limited: {reason}")  # noqa: S311
        case Refused(status=status, reason=reason):
            return Held(_back_off(watch.held, *_REFUSED_SECONDS), f"refused ({status}): {reason}")
        case _:
            reason = getattr(meaning, "reason", "no answer")
            return Held(_back_off(watch.held, *_TRANSIENT_SECONDS), reason)


def _back_off(times: int, first: float, longest: float) -> float:
    """Exponential, with half of it left to chance: an outage ends for all at the same moment."""
    step = min(first * 2.0 ** min(times, 16), longest)
    return step * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
