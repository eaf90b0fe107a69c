"""Asks Telnyx, and hands on what the answers mean; it decides nothing itself.

The host is always that of the configured URL: an id from outside cannot change path or host, and a
link in an answer or a redirect is never followed. Source of paths and parameters: Telnyx's Session
Analysis guide.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import SecretStr

from workers.answer import (
    Failure,
    Invalid,
    Meaning,
    Ready,
    Transient,
    meaning_of,
    read_as,
)
from workers.metadata import RecordType, RecordTypes, decode_record_type, decode_record_types
from workers.transport import Answer, Timeouts, Unanswered, exchange, open_client

MAX_DEPTH: Final = 5
"""The most that `max_depth` may be: its range is 1 to 5."""

_MOST_BYTES: Final = 8 * 1024 * 1024
_LONGEST_PART: Final = 200
_DOTS: Final = frozenset({".", ".."})

Observe: TypeAlias = Callable[[str, float], None]
T = TypeVar("T")


class TelnyxClient:
    """Telnyx's Session Analysis, as an async context manager.

    `observe` is told the meaning's name and the seconds that each question took.
    """

    def __init__(
        self,
        api_url: str,
        api_key: SecretStr | str,
        *,
        version: str,
        timeouts: Timeouts | None = None,
        max_body_bytes: int = _MOST_BYTES,
        connections: int = 100,
        observe: Observe | None = None,
    ) -> None:
        self._base = api_url.rstrip("/") + "/session_analysis"
        self._timeouts = timeouts or Timeouts()
        self._most_bytes = max_body_bytes
        self._observe = observe
        self._client = open_client(
            self._timeouts,
            connections=connections,
            headers={
                "Authorization": f"Bearer {_reveal(api_key)}",
                "User-Agent": f"tollwatch/{version}",
            },
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def analysis(
        self,
        record_type: str,
        event_id: str,
        *,
        include_children: bool = True,
        max_depth: int = MAX_DEPTH,
        expand: Literal["record", "none"] = "record",
        date_time: date | None = None,
    ) -> Meaning:
        """The cost tree of one event. `date_time` narrows Telnyx's search to that UTC day."""
        query = {
            "include_children": str(include_children).lower(),
            "max_depth": str(max_depth),
            "expand": expand,
        }
        if date_time is not None:
            query["date_time"] = f"{date_time:%Y-%m-%d}"
        return await self._ask((record_type, event_id), _meaning, query)

    async def record_types(self) -> RecordTypes | Failure:
        """All record types, with their relationships."""
        return await self._ask(("metadata",), partial(_decoded, decode_record_types))

    async def record_type(self, name: str) -> RecordType | Failure:
        """One record type; NotReady where Telnyx has no such type."""
        return await self._ask(("metadata", name), partial(_decoded, decode_record_type))

    async def _ask(
        self,
        parts: tuple[str, ...],
        read: Callable[[Answer], T | Failure],
        query: Mapping[str, str] | None = None,
    ) -> T | Failure:
        if not all(map(_askable, parts)):
            return Invalid(0, "not an id or a record type that can be asked for")
        started = time.perf_counter()
        meaning = await self._answer(parts, read, query)
        if self._observe is not None:
            name = meaning.name if isinstance(meaning, Failure) else Ready.name
            self._observe(name, time.perf_counter() - started)
        return meaning

    async def _answer(
        self,
        parts: tuple[str, ...],
        read: Callable[[Answer], T | Failure],
        query: Mapping[str, str] | None,
    ) -> T | Failure:
        try:
            return read(
                await exchange(
                    self._client,
                    self._request(parts, query),
                    total_seconds=self._timeouts.total,
                    most_bytes=self._most_bytes,
                )
            )
        except Unanswered as error:
            return Transient(error.reason)

    def _request(self, parts: tuple[str, ...], query: Mapping[str, str] | None) -> httpx.Request:
        path = "/".join(quote(part, safe="") for part in parts)
        # One text: httpx parses a URL anew for each part that is put into it.
        url = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        return self._client.build_request("GET", url)


def _meaning(answer: Answer) -> Meaning:
    return meaning_of(answer.status, answer.headers, answer.body, now=datetime.now(UTC))


def _decoded(decode: Callable[[bytes], T], answer: Answer) -> T | Failure:
    return read_as(decode, answer.status, answer.headers, answer.body, now=datetime.now(UTC))


def _askable(part: str) -> bool:
    """Dots alone are path segments to every library on the way, however they are encoded."""
    return 0 < len(part) <= _LONGEST_PART and part.isprintable() and part not in _DOTS


def _reveal(secret: SecretStr | str) -> str:
    return secret if isinstance(secret, str) else secret.get_secret_value()
