"""What Telnyx has answered in one attempt, at hand for the moment when our code breaks on it.

Whoever makes an attempt listens; whoever asks Telnyx, however far below, says what came. Nothing is
looked into unless something breaks.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from workers.scrub import MOST_BYTES, masked, scrubbed

_MOST_ANSWERS: Final = 10
_MOST_CHARACTERS: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    asked: str
    status: int
    body: bytes


@dataclass(slots=True)
class Evidence:
    """The answers of one attempt, the first ones, as far as there is room for their bodies."""

    _answers: list[_Answer] = field(default_factory=list)
    _room: int = MOST_BYTES

    def note(self, asked: str, status: int, body: bytes) -> None:
        """Remember an answer."""
        if len(self._answers) < _MOST_ANSWERS and len(body) <= self._room:
            self._answers.append(_Answer(asked, status, body))
            self._room -= len(body)

    def raw(self) -> bytes:
        """What may be kept of them, packed; empty where nothing was answered."""
        if not self._answers:
            return b""
        answers = [
            {
                "asked": masked(answer.asked),
                "status": answer.status,
                "bytes": len(answer.body),
                "body": _bounded(scrubbed(answer.body)),
            }
            for answer in self._answers
        ]
        return zlib.compress(_encode(answers))


def read_raw(packed: bytes) -> bytes:
    """What `Evidence.raw` has packed, as JSON. Raises ValueError on junk."""
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        raise ValueError(str(error)) from error


@contextmanager
def gathering() -> Iterator[Evidence]:
    """What is answered inside, in this task and those that it starts."""
    evidence = Evidence()
    token = _listener.set(evidence)
    try:
        yield evidence
    finally:
        _listener.reset(token)


def note_answer(asked: str, status: int, body: bytes) -> None:
    """An answer has come; it is remembered where somebody listens."""
    listener = _listener.get()
    if listener is not None:
        listener.note(asked, status, body)


def _bounded(document: Any) -> Any:
    """The document, or where it is too long the beginning of its text."""
    text: bytes = _encode(document)
    if len(text) <= _MOST_CHARACTERS:
        return document
    return text[:_MOST_CHARACTERS].decode(errors="replace")


_listener: ContextVar[Evidence | None] = ContextVar("listener", default=None)
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
