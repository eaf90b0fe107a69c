"""What can be answered by a request's head alone, before a byte of its body is read.

Anybody can send to the public port. Path, method, content type, stated length, and form and age of
the signature's headers need neither body nor key: a flood is turned away here for the price of
reading its heads. Pure: no I/O, no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from service.events import supported
from service.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, Claim, Refusal, read_claim

WEBHOOK_PATH: Final = b"/webhooks/telnyx"

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. `closes`: the connection ends after it."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    closes: bool = False


def answer(status: int, body: object, *, closes: bool = False, **headers: str) -> Answer:
    """A JSON response; an underscore in a header's name stands for a hyphen."""
    raw = msgspec.json.encode(body)
    more = {**headers, "connection": "close"} if closes else headers
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    fixed = ((b"content-length", b"%d" % len(raw)), (b"content-type", b"application/json"))
    return Answer(status, raw, (*fixed, *named), closes)


NO_SUCH_PATH: Final = answer(404, {"error": "no such path"})
POST_ONLY: Final = answer(405, {"error": "POST only"}, allow="POST")
UNSUPPORTED_TYPE: Final = answer(415, {"error": "send JSON or a form"})
# Read whole by a client that is still sending, too: see `service.protocol`.
TOO_LARGE: Final = answer(413, {"error": "the body is too large"}, closes=True)
# The same, byte for byte, whatever was wrong.
NOT_BELIEVED: Final = answer(401, {"error": "not a valid signature"})


@dataclass(frozen=True, slots=True)
class Head:
    """Of a request that is worth reading: what is needed once its body is there."""

    content_type: str | None
    claim: Claim


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that its head rules out: the answer, and what it is counted as.

    `refusal` says why it was not believed: for the log and the metric, never for the answer.
    """

    answer: Answer
    outcome: str | None
    refusal: Refusal | None = None


_NO_SUCH_PATH: Final = Turned(NO_SUCH_PATH, None)
_POST_ONLY: Final = Turned(POST_ONLY, None)
_UNSUPPORTED_TYPE: Final = Turned(UNSUPPORTED_TYPE, "unsupported_type")
TURNED_TOO_LARGE: Final = Turned(TOO_LARGE, "too_large")
_REFUSED: Final = {refusal: Turned(NOT_BELIEVED, "refused", refusal) for refusal in Refusal}


def look(
    method: bytes,
    path: bytes,
    headers: RawHeaders,
    *,
    now: float,
    tolerance_seconds: int,
    max_body_bytes: int,
) -> Head | Turned:
    """What a head says. Header names are in lower case; `now` is in unix seconds.

    A stated length is looked at before the signature, since a client that is about to send too much
    has to know; it says nothing of who the client is.
    """
    if path != WEBHOOK_PATH:
        return _NO_SUCH_PATH
    if method != b"POST":
        return _POST_ONLY
    content_type = _first(headers, b"content-type")
    text = None if content_type is None else content_type.decode("latin-1")
    if not supported(text):
        return _UNSUPPORTED_TYPE
    length = _first(headers, b"content-length") or b"0"
    if length.isdigit() and int(length) > max_body_bytes:
        return TURNED_TOO_LARGE
    claim = read_claim(
        [value for name, value in headers if name == SIGNATURE_HEADER],
        [value for name, value in headers if name == TIMESTAMP_HEADER],
        now=now,
        tolerance_seconds=tolerance_seconds,
    )
    return Head(text, claim) if isinstance(claim, Claim) else _REFUSED[claim]


def _first(headers: RawHeaders, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
