"""What an answer of Telnyx means for us, decided in one pure place.

The job obeys and never looks at a status. The status decides and the error code does not: Telnyx's
10011 is both "too many requests" and "wrong record type". That 404 and 409 mean "not ready yet",
and the names of the rate limit's headers, come from other clients' measurements; nothing breaks
where they are wrong.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec

from service.masking import mask
from workers.analysis import Analysis, Unreadable, decode_analysis

SHORTEST_WAIT_SECONDS: Final = 1
LONGEST_WAIT_SECONDS: Final = 3600
# Telnyx's windows are fixed minutes, so a minute is enough where nothing readable says how long.
DEFAULT_WAIT_SECONDS: Final = 60

_NOT_READY: Final = frozenset({404, 409})
# 402 is not documented; an account without funds has been seen as a 403.
_REFUSED: Final = frozenset({401, 402, 403})
_TRANSIENT_4XX: Final = frozenset({408, 425})
_REDIRECTS: Final = range(300, 400)
_OUR_MISTAKES: Final = range(400, 500)

_LONGEST_REASON: Final = 200
_MOST_ERRORS: Final = 3
_LEADING_NUMBER: Final = re.compile(r"\s*(\d{1,7})(?:\.\d*)?\s*(?:[,;]|$)", re.ASCII)
_WINDOW: Final = re.compile(r";\s*w=(\d{1,7})\b", re.ASCII)
# Telnyx's API keys begin with KEY; the last form is any token longer than a UUID.
_SECRET: Final = re.compile(r"\bBearer\s+\S+|\bKEY\w{8,}|[\w=-]{40,}", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"\+\d{6,}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the `x-ratelimit-*` headers say; None for what they do not.

    The window is fixed, not sliding: what `remaining` says may be spent at once, and all of it is
    back in `reset_seconds`.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: int | None = None
    window_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """There is an analysis. It may still be partial."""

    name: ClassVar[str] = "ready"
    analysis: Analysis
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class NotReady:
    """Telnyx does not know the event, or not yet."""

    name: ClassVar[str] = "not_ready"
    status: int
    reason: str
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Ask again after `retry_after_seconds`, which lies between a second and an hour."""

    name: ClassVar[str] = "rate_limited"
    retry_after_seconds: int
    reason: str
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The account is refused, not the question: a bad key, or no funds. Every question will be."""

    name: ClassVar[str] = "refused"
    status: int
    reason: str
    rate_limit: RateLimit | None = None
    shut_seconds: float = 0.0
    """How long nobody asks, where it has happened to all; 0: it may be this question's alone."""


@dataclass(frozen=True, slots=True)
class Transient:
    """Nothing was learnt; the same question may be answered later."""

    name: ClassVar[str] = "transient"
    reason: str
    rate_limit: RateLimit | None = None
    shut_seconds: float = 0.0
    """As for `Refused`."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """The question is wrong, and asking it again will not help. Status 0: it was not even sent."""

    name: ClassVar[str] = "invalid"
    status: int
    reason: str
    rate_limit: RateLimit | None = None


Failure: TypeAlias = NotReady | RateLimited | Refused | Transient | Invalid
Meaning: TypeAlias = Ready | Failure


def meaning_of(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Meaning:
    """What an answer of Session Analysis means. Never raises, whatever came.

    `headers` have names in lower case, or are case-insensitive.
    """
    analysis = read_as(decode_analysis, status, headers, body, now=now)
    if isinstance(analysis, Analysis):
        return Ready(analysis, rate_limit_of(headers))
    return analysis


def read_as(
    decode: Callable[[bytes], T],
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
) -> T | Failure:
    """The decoded body of a 200, or why there is none. `decode` raises Unreadable."""
    if status != HTTPStatus.OK:
        return _failure(status, headers, body, now)
    try:
        return decode(body)
    except Unreadable as error:
        return Transient(clean(f"200 with an unreadable body: {error}"), rate_limit_of(headers))


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit | None:
    """The rate limit in headers such as `x-ratelimit-limit: 40, 40;w=60`, or None."""
    stated = headers.get("x-ratelimit-limit", "")
    window = _WINDOW.search(stated)
    found = RateLimit(
        limit=_number(stated),
        remaining=_number(headers.get("x-ratelimit-remaining", "")),
        reset_seconds=_number(headers.get("x-ratelimit-reset", "")),
        window_seconds=int(window[1]) if window else None,
    )
    return None if found == RateLimit() else found


def retry_after_of(headers: Mapping[str, str], *, now: datetime | None) -> int | None:
    """`Retry-After` as seconds from `now`, unbounded, or None where it is absent or junk.

    Without `now` a date is junk.
    """
    value = headers.get("retry-after", "")
    seconds = _number(value)
    return _until(value, now) if seconds is None and now else seconds


def bounded(seconds: int) -> int:
    """The wait, but no less than a second and no more than an hour."""
    return min(max(seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)


def clean(text: str) -> str:
    """Text from outside for a log line: one line, printable, short, without secrets or numbers."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 20 * _LONGEST_REASON])
    hidden = _SECRET.sub("[hidden]", printable)
    masked = _NUMBER.sub(lambda found: mask(found[0]), hidden)
    return " ".join(masked.split())[:_LONGEST_REASON]


def phrase(status: int) -> str:
    """The status in words: "503 Service Unavailable"."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _failure(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Failure:
    limit = rate_limit_of(headers)
    reason = _reason(status, body)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(_wait(headers, limit, now), reason, limit)
    if status in _NOT_READY:
        return NotReady(status, reason, limit)
    if status in _REFUSED:
        return Refused(status, reason, limit)
    if status in _OUR_MISTAKES and status not in _TRANSIENT_4XX:
        return Invalid(status, reason, limit)
    if status in _REDIRECTS:
        return Transient(f"{phrase(status)}: redirects are not followed", limit)
    return Transient(reason, limit)


def _wait(headers: Mapping[str, str], limit: RateLimit | None, now: datetime) -> int:
    stated = retry_after_of(headers, now=now)
    if stated is None and limit:
        stated = limit.window_seconds if limit.reset_seconds is None else limit.reset_seconds
    return bounded(DEFAULT_WAIT_SECONDS if stated is None else stated)


def _number(value: str) -> int | None:
    found = _LEADING_NUMBER.match(value)
    return int(found[1]) if found else None


def _until(value: str, now: datetime) -> int | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int((aware - now).total_seconds()))


def _reason(status: int, body: bytes) -> str:
    said = clean("; ".join(_errors(body)))
    return clean(f"{phrase(status)}: {said}") if said else phrase(status)


def _errors(body: bytes) -> list[str]:
    """The errors of `{"errors": [{"code", "message" or "title", "detail"?}]}`, in words."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    errors = document.get("errors") if isinstance(document, dict) else None
    listed = errors[:_MOST_ERRORS] if isinstance(errors, list) else []
    return [words for error in listed if isinstance(error, dict) and (words := _words(error))]


def _words(error: Mapping[str, Any]) -> str:
    title = error.get("title") or error.get("message")
    parts = (error.get("code"), title, error.get("detail"))
    return ", ".join(str(part) for part in parts if isinstance(part, str | int) and part != "")
