"""Asks Telnyx, and hands on what the answers mean; it decides nothing itself.

The host is always that of the configured URL: an id from outside cannot change path or host, and a
link in an answer or a redirect is never followed. Sources of paths and parameters: Telnyx's Session
Analysis guide, and its API reference for the lists.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from http import HTTPStatus
from math import ceil
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import SecretStr

from service.gate import Gate, Gates, Heard, Window
from workers.answer import (
    DEFAULT_WAIT_SECONDS,
    Failure,
    Invalid,
    Meaning,
    RateLimit,
    RateLimited,
    Ready,
    Refused,
    Transient,
    bounded,
    meaning_of,
    rate_limit_of,
    read_as,
)
from workers.balance import decode_balance
from workers.detection.balance import Balance
from workers.evidence import note_answer
from workers.listings import Endpoint, Listing, decode_listing
from workers.metadata import RecordType, RecordTypes, decode_record_type, decode_record_types
from workers.products import CALL_SESSION
from workers.transport import Answer, Timeouts, Unanswered, exchange, open_client

ANALYSIS: Final = "session_analysis"
MAX_DEPTH: Final = 5
"""The most that `max_depth` may be: its range is 1 to 5."""

_MOST_BYTES: Final = 8 * 1024 * 1024
# 250 deliveries, each with the whole webhook, transcripts included, and all answers to it.
_MOST_LISTED_BYTES: Final = 64 * 1024 * 1024
_LONGEST_PART: Final = 200
_DOTS: Final = frozenset({".", ".."})

Observe: TypeAlias = Callable[[str, float], None]
T = TypeVar("T")


class TelnyxClient:
    """Telnyx's Session Analysis and its lists, as an async context manager.

    `observe` is told the meaning's name and the seconds that each question took. With `gates` a
    question needs a permit and may be answered without being asked: `RateLimited`. Redis' errors
    then pass through. `leave` is for questions that are in no hurry, see `Gate.take`.
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
        gates: Gates | None = None,
        leave: float | None = None,
    ) -> None:
        self._base = api_url.rstrip("/")
        self._timeouts = timeouts or Timeouts()
        self._most_bytes = max_body_bytes
        self._observe = observe
        self._gates = gates
        self._leave = leave
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
        permitted: bool = False,
    ) -> Meaning:
        """The cost tree of one event. `date_time` narrows Telnyx's search to that UTC day.

        `permitted`: a permit for the question was taken before, by the claim of its session.
        """
        query = {
            "include_children": str(include_children).lower(),
            "max_depth": str(max_depth),
            "expand": expand,
        }
        if date_time is not None:
            query["date_time"] = f"{date_time:%Y-%m-%d}"
        return await self._ask(
            "analysis",
            (ANALYSIS, record_type, event_id),
            _meaning,
            query,
            # A bad session has many events: only sessions tell whether Telnyx fails for all.
            subject=event_id if record_type == CALL_SESSION else None,
            permitted=permitted,
        )

    async def record_types(self) -> RecordTypes | Failure:
        """All record types, with their relationships."""
        return await self._ask(
            "metadata", (ANALYSIS, "metadata"), partial(_decoded, decode_record_types)
        )

    async def record_type(self, name: str) -> RecordType | Failure:
        """One record type; NotReady where Telnyx has no such type."""
        return await self._ask(
            "metadata", (ANALYSIS, "metadata", name), partial(_decoded, decode_record_type)
        )

    async def balance(self) -> Balance | Failure:
        """What the account still has."""
        return await self._ask("balance", ("balance",), partial(_decoded, decode_balance))

    async def listing(self, endpoint: Endpoint, query: Mapping[str, str]) -> Listing | Failure:
        """One page of a list, as the query says."""
        return await self._ask(endpoint, (endpoint,), _listed, query, most_bytes=_MOST_LISTED_BYTES)

    async def _ask(
        self,
        endpoint: str,
        parts: tuple[str, ...],
        read: Callable[[Answer], T | Failure],
        query: Mapping[str, str] | None = None,
        *,
        subject: str | None = None,
        permitted: bool = False,
        most_bytes: int | None = None,
    ) -> T | Failure:
        if not all(map(_askable, parts)):
            return Invalid(0, "not an id or a record type that can be asked for")
        gate = self._gates.of(endpoint) if self._gates else None
        if gate and not permitted and (wait_ms := await gate.take(leave=self._leave)):
            return RateLimited(bounded(ceil(wait_ms / 1000)), "nothing may be asked before")
        started = time.perf_counter()
        meaning = await self._answer(parts, read, query, most_bytes or self._most_bytes)
        if self._observe is not None:
            name = meaning.name if isinstance(meaning, Failure) else Ready.name
            self._observe(name, time.perf_counter() - started)
        return await _learned(gate, meaning, subject) if gate else meaning

    async def _answer(
        self,
        parts: tuple[str, ...],
        read: Callable[[Answer], T | Failure],
        query: Mapping[str, str] | None,
        most_bytes: int,
    ) -> T | Failure:
        try:
            answer = await exchange(
                self._client,
                self._request(parts, query),
                total_seconds=self._timeouts.total,
                most_bytes=most_bytes,
            )
        except Unanswered as error:
            return Transient(error.reason)
        note_answer("/".join(parts), answer.status, answer.body)
        return read(answer)

    def _request(self, parts: tuple[str, ...], query: Mapping[str, str] | None) -> httpx.Request:
        path = "/".join(quote(part, safe="") for part in parts)
        # One text: httpx parses a URL anew for each part that is put into it.
        url = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        return self._client.build_request("GET", url)


async def _learned(gate: Gate, meaning: T | Failure, subject: str | None) -> T | Failure:
    """Tells the gate what the answer says, and a failure how long the gate stays shut."""
    limit = getattr(meaning, "rate_limit", None)
    window = _window(limit) if limit else None
    wait_ms = None
    if isinstance(meaning, RateLimited) and not window:
        wait_ms = meaning.retry_after_seconds * 1000
    shut_ms = await gate.learn(
        _heard(meaning),
        subject=subject,
        reason=getattr(meaning, "reason", ""),
        window=window,
        wait_ms=wait_ms,
    )
    if shut_ms and isinstance(meaning, Transient | Refused):
        return replace(meaning, shut_seconds=shut_ms / 1000)
    return meaning


def _heard(meaning: object) -> Heard:
    match meaning:
        case RateLimited():
            return Heard.LIMITED
        case Refused(status=status):
            # A 403 may be this session's alone: "verify that the key has access to this data".
            return Heard.REFUSED if status == HTTPStatus.FORBIDDEN else Heard.LOCKED
        case Transient():
            return Heard.DOWN
        case _:
            return Heard.FINE


def _window(limit: RateLimit) -> Window | None:
    if limit.limit is None or limit.remaining is None or limit.reset_seconds is None:
        return None
    length = limit.window_seconds or DEFAULT_WAIT_SECONDS
    return Window(limit.limit, limit.remaining, limit.reset_seconds * 1000, length * 1000)


def _meaning(answer: Answer) -> Meaning:
    return meaning_of(answer.status, answer.headers, answer.body, now=datetime.now(UTC))


def _listed(answer: Answer) -> Listing | Failure:
    listing = _decoded(decode_listing, answer)
    if isinstance(listing, Listing):
        return replace(listing, rate_limit=rate_limit_of(answer.headers))
    return listing


def _decoded(decode: Callable[[bytes], T], answer: Answer) -> T | Failure:
    return read_as(decode, answer.status, answer.headers, answer.body, now=datetime.now(UTC))


def _askable(part: str) -> bool:
    """Dots alone are path segments to every library on the way, however they are encoded."""
    return 0 < len(part) <= _LONGEST_PART and part.isprintable() and part not in _DOTS


def _reveal(secret: SecretStr | str) -> str:
    return secret if isinstance(secret, str) else secret.get_secret_value()
