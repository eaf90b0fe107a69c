"""What an answer of Slack means for an alert: told, later, maybe told, or never this way.

Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors.
A reason holds Slack's own error word or the status, never a body: a proxy's page might repeat the
webhook's URL, which is a secret.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from workers.answer import bounded, phrase, retry_after_of

DEFAULT_WAIT_SECONDS: Final = 30

_WORD: Final = re.compile(r"[a-z][a-z_]{2,59}", re.ASCII)
_REFUSALS: Final = range(400, 500)
_ODD_SUCCESSES: Final = range(201, 300)
# Passing troubles that some proxies and Slack's API report with a 200 or a 4xx.
_TRANSIENT_4XX: Final = frozenset({408, 425})
_PASSING: Final = frozenset(
    {"rollup_error", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)


@dataclass(frozen=True, slots=True)
class Posted:
    """Slack has taken it."""

    name: ClassVar[str] = "posted"


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Post again after `retry_after_seconds`, which lies between a second and an hour."""

    name: ClassVar[str] = "rate_limited"
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class Transient:
    """It may work later. `maybe_posted`: the message may have arrived nevertheless."""

    name: ClassVar[str] = "transient"
    reason: str
    maybe_posted: bool = False


@dataclass(frozen=True, slots=True)
class Permanent:
    """It will not work this way, however often it is tried: somebody has to look."""

    name: ClassVar[str] = "permanent"
    reason: str


Outcome: TypeAlias = Posted | RateLimited | Transient | Permanent


def outcome_of(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None
) -> Outcome:
    """What Slack's answer means. Never raises.

    `headers` have names in lower case, or are case-insensitive. `now` is only needed to read a
    `Retry-After` that is a date; without it such a header counts as junk.
    """
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(_wait(headers, now))
    if status == HTTPStatus.OK:
        return _taken(body)
    reason = _reason(status, body)
    if status in _REFUSALS and status not in _TRANSIENT_4XX:
        return Permanent(reason)
    return Transient(reason, maybe_posted=status in _ODD_SUCCESSES)


def _taken(body: bytes) -> Outcome:
    said = body.strip()
    document = _document(body)
    if said == b"ok" or document.get("ok") is True:
        return Posted()
    word = _word(body)
    if word is not None and word not in _PASSING:
        return Permanent(word)
    # Whatever said this is not Slack, or Slack is not well.
    return Transient(word or "200 without Slack's ok", maybe_posted=word is None)


def _wait(headers: Mapping[str, str], now: datetime | None) -> int:
    seconds = retry_after_of(headers, now=now)
    return bounded(DEFAULT_WAIT_SECONDS if seconds is None else seconds)


def _reason(status: int, body: bytes) -> str:
    word = _word(body)
    return f"{phrase(status)}: {word}" if word else phrase(status)


def _word(body: bytes) -> str | None:
    """Slack's error word: the whole body, or `error` in a JSON answer."""
    error = _document(body).get("error")
    said = error if isinstance(error, str) else body[:100].decode("ascii", "replace").strip()
    return said if _WORD.fullmatch(said) else None


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
