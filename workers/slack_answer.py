"""What an answer of Slack means: told, later, maybe told, a shut channel, or a bad message.

Which of the last two it is matters most: a shut channel holds everything back until somebody has
opened it, and loses nothing; only what Slack says of the very message is that message's own.

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
_OF_THE_MESSAGE: Final = frozenset({400, 413, 422})
_ODD_SUCCESSES: Final = range(201, 300)
# Passing troubles that some proxies and Slack's API report with a 200 or a 4xx.
_TRANSIENT_4XX: Final = frozenset({408, 425})
_PASSING: Final = frozenset(
    {"rollup_error", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
# Its words for a channel that takes nothing; any other 4xx is taken for the same.
_SHUT: Final = frozenset(
    {
        "action_prohibited",
        "channel_is_archived",
        "channel_not_found",
        "invalid_token",
        "no_active_hooks",
        "no_service",
        "no_service_id",
        "no_team",
        "posting_to_general_channel_denied",
        "team_disabled",
        "user_not_found",
    }
)
# Slack's words for a payload that it will not take.
_BAD_MESSAGE: Final = frozenset(
    {
        "invalid_payload",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_attachments",
        "msg_blocks_too_long",
        "msg_too_long",
        "no_text",
        "too_many_attachments",
    }
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
class Closed:
    """The channel takes nothing: its webhook is revoked, or somebody must open it again."""

    name: ClassVar[str] = "closed"
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Slack does not take this very message. `certain`: by a word of its own for a bad payload."""

    name: ClassVar[str] = "rejected"
    reason: str
    certain: bool


Outcome: TypeAlias = Posted | RateLimited | Transient | Closed | Rejected


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
        is_its_own = _word(body) in _BAD_MESSAGE
        # Without a word that is known, whether it is the message shows when a plain one is sent.
        if is_its_own or (status in _OF_THE_MESSAGE and _word(body) not in _SHUT):
            return Rejected(reason, certain=is_its_own)
        return Closed(reason)
    return Transient(reason, maybe_posted=status in _ODD_SUCCESSES)


def unanswered(reason: str, *, maybe_sent: bool, status: int | None) -> Outcome:
    """What an answer means that never came whole; `status` is what it began with, if it began.

    Slack's 200 stands for its `ok`: with the body lost, the message has still been taken. A status
    that says otherwise leaves no doubt either.
    """
    if status == HTTPStatus.OK:
        return Posted()
    if status is not None and status not in _ODD_SUCCESSES:
        return Transient(f"{phrase(status)}: {reason}")
    return Transient(reason, maybe_posted=maybe_sent)


def _taken(body: bytes) -> Outcome:
    said = body.strip()
    document = _document(body)
    if said == b"ok" or document.get("ok") is True:
        return Posted()
    word = _word(body)
    if word in _BAD_MESSAGE:
        return Rejected(word or "", certain=True)
    if word is not None and word not in _PASSING:
        return Closed(word)
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
