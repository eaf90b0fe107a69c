"""Telnyx's two lists, of webhook deliveries and of detail records: rows, filters and pages.

Pure. https://developers.telnyx.com/ (list webhook deliveries; search detail records), and what was
seen on live accounts: pages are capped, rows come newest first, a filter on a field that the list
does not have is a 400 or, at another time, no rows at all.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from tests.world.clock import utc
from tests.world.envelopes import Delivery
from tests.world.model import Call

UnknownFilters: TypeAlias = Literal["refused", "empty"]

RECORD_TYPES: Final = frozenset(
    {
        *("ai-voice-assistant", "amd", "call-control", "conference", "conference-participant"),
        *("embedding", "fax", "inference", "inference-speech-to-text", "media_storage"),
        *("media-streaming", "messaging", "noise-suppression", "recording", "sip-trunking"),
        *("siprec-client", "stt", "tts", "verify", "webrtc", "wireless"),
    }
)
"""Those that may be asked for, by Telnyx's schema."""

_RECORDS_PAGE: Final = 50
_DELIVERIES_PAGE: Final = 250
_DEFAULT_PAGE: Final = 20
_FILTER: Final = re.compile(r"filter\[(\w+)\](?:\[(\w+)\])?", re.ASCII)
_BEGINNINGS: Final = ("started_at", "created_at", "joined_at", "invoked_at", "start_time")
_DELIVERY_FILTERS: Final = frozenset(
    {
        *(("status", "eq"), ("event_type", ""), ("webhook", "contains"), ("attempts", "contains")),
        *(("started_at", "gte"), ("started_at", "lte")),
        *(("finished_at", "gte"), ("finished_at", "lte")),
    }
)


class BadList(Exception):
    """A question that the list refuses; the message says why."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery, in seconds since 1970; a name instead of a status: no answer."""

    url: str
    status: int | str
    started: float
    finished: float
    body: str = ""

    @property
    def delivered(self) -> bool:
        """Whether it was a 2xx."""
        return isinstance(self.status, int) and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Tried:
    """One delivery: the event, and all attempts at it in their order."""

    delivery: Delivery
    attempts: tuple[Attempt, ...]

    @property
    def finished(self) -> float:
        """When the last attempt ended."""
        return self.attempts[-1].finished

    def row(self, number: int) -> dict[str, Any]:
        """As the list shows it; attempts latest first."""
        rng = Random(f"{self.delivery.event_id}/{number}")
        return {
            "id": str(UUID(int=rng.getrandbits(128), version=4)),
            "user_id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
            "record_type": "webhook_delivery",
            "status": "delivered" if self.attempts[-1].delivered else "failed",
            "webhook": dict(self.delivery.data),
            "started_at": _millis(self.attempts[0].started),
            "finished_at": _millis(self.finished),
            "attempts": [_attempt(attempt) for attempt in reversed(self.attempts)],
        }


@dataclass(slots=True)
class DeliveryLog:
    """All that was tried to deliver. Form-encoded callbacks are not in Telnyx's JSON list."""

    tried: list[Tried] = field(default_factory=list)

    def add(self, delivery: Delivery, attempts: Sequence[Attempt]) -> None:
        """One delivery is over."""
        if delivery.shape != "form" and attempts:
            self.tried.append(Tried(delivery, tuple(attempts)))

    def never_arrived(
        self, deliveries: Iterable[Delivery], url: str = "https://example.com/webhooks"
    ) -> None:
        """Tried for a minute from when they occurred, and given up: nobody was there."""
        for delivery in deliveries:
            begun = delivery.occurred_at.timestamp()
            self.add(
                delivery,
                [Attempt(url, "timeout", begun + at, begun + at + 2) for at in (0, 1, 4, 10)],
            )

    def rows(self) -> list[dict[str, Any]]:
        """Newest first."""
        numbered = sorted(enumerate(self.tried), key=lambda item: item[1].finished, reverse=True)
        return [tried.row(number) for number, tried in numbered]


def delivery_rows(
    log: DeliveryLog, query: Mapping[str, str], *, known: bool, unknown: UnknownFilters
) -> list[dict[str, Any]]:
    """The deliveries that the filters let through. Raises BadList."""
    filters = _filters(query)
    if not all(known and (name, operator) in _DELIVERY_FILTERS for name, operator, _ in filters):
        return _unknown(unknown)
    return [row for row in log.rows() if all(_delivery_fits(row, *each) for each in filters)]


def record_rows(
    calls: Iterable[Call],
    query: Mapping[str, str],
    age: Callable[[Call], float],
    *,
    known: bool,
    unknown: UnknownFilters,
) -> list[dict[str, Any]]:
    """The posted records of the type that the filters let through. Raises BadList."""
    filters = _filters(query)
    types = [value for name, _, value in filters if name == "record_type"]
    if len(types) != 1:
        raise BadList("Record type is missing")
    if types[0] not in RECORD_TYPES:
        raise BadList(f"No matching record type was found matching given record type {types[0]}")
    nodes = [(call, node) for call in calls for node in call.of_type(types[0])]
    fields = {name for _, node in nodes for name in node.record} or set(_FIELDS[types[0]])
    others = [each for each in filters if each[0] != "record_type"]
    if not all(known and name in fields for name, _, _ in others):
        return _unknown(unknown)
    posted = [dict(n.record) for call, n in nodes if n.posted_after_seconds <= age(call)]
    fitting = [row for row in posted if all(_record_fits(row, *each) for each in others)]
    return sorted(fitting, key=_beginning, reverse=True)


def page_of(
    rows: Sequence[Mapping[str, Any]], query: Mapping[str, str], *, deliveries: bool
) -> dict[str, Any]:
    """One page, with the list's own figures. Raises BadList."""
    most = _DELIVERIES_PAGE if deliveries else _RECORDS_PAGE
    size = min(_number(query.get("page[size]", str(_DEFAULT_PAGE))), most)
    number = _number(query.get("page[number]", "1"))
    return {
        "data": list(rows[(number - 1) * size : number * size]),
        "meta": {
            "page_number": number,
            "page_size": size,
            "total_pages": -(-len(rows) // size),
            "total_results": len(rows),
        },
    }


# What a list without any record knows all the same.
_TIMED: Final = ("started_at", "answered_at", "finished_at", "telnyx_session_id", "direction")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(RECORD_TYPES, ("created_at",)),
    **dict.fromkeys(("call-control", "sip-trunking", "webrtc", "recording"), _TIMED),
    "ai-voice-assistant": ("created_at", "completed_at", "conversation_id", "telnyx_session_id"),
}


def _filters(query: Mapping[str, str]) -> list[tuple[str, str, str]]:
    found = []
    for name, value in query.items():
        match = _FILTER.fullmatch(name)
        if match:
            found.append((match[1], match[2] or "", value))
        elif name not in {"page[number]", "page[size]", "sort"}:
            raise BadList(f"Unknown parameter {name}")
    return found


def _unknown(unknown: UnknownFilters) -> list[dict[str, Any]]:
    if unknown == "refused":
        raise BadList("The filter is not valid for this record type")
    return []


def _delivery_fits(row: Mapping[str, Any], name: str, operator: str, value: str) -> bool:
    if name == "event_type":
        return row["webhook"].get("event_type") in value.split(",")
    if operator == "contains":
        return value in repr(row[name])
    return _compare(row[name], operator, value)


def _record_fits(row: Mapping[str, Any], name: str, operator: str, value: str) -> bool:
    found = row.get(name)
    return found is not None and _compare(str(found), operator, value)


_TEXTS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "": str.__eq__,
    "eq": str.__eq__,
    "contains": str.__contains__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
}
_TIMES: Final[Mapping[str, Callable[[datetime, datetime], bool]]] = {
    "gte": datetime.__ge__,
    "lte": datetime.__le__,
    "gt": datetime.__gt__,
    "lt": datetime.__lt__,
}


def _compare(found: str, operator: str, value: str) -> bool:
    if operator in _TEXTS:
        return _TEXTS[operator](found, value)
    if operator in _TIMES:
        return _TIMES[operator](_moment(found), _moment(value))
    raise BadList(f"Unknown operator {operator}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadList(f"{text} is not an ISO 8601 time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise BadList("page[number] and page[size] must be at least 1")
    return int(text)


def _beginning(row: Mapping[str, Any]) -> str:
    return next((str(row[name]) for name in _BEGINNINGS if row.get(name)), "")


def _millis(seconds: float) -> str:
    return f"{utc(seconds):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _attempt(attempt: Attempt) -> dict[str, Any]:
    answer = None
    if isinstance(attempt.status, int):
        answer = {
            "status": attempt.status,
            "headers": [["Content-Type", "application/json"]],
            "body": attempt.body,
        }
    shown: dict[str, Any] = {
        "status": "delivered" if attempt.delivered else "failed",
        "started_at": _millis(attempt.started),
        "finished_at": _millis(attempt.finished),
        "http": {
            "request": {"url": attempt.url, "headers": [["Accept", "*/*"]]},
            "response": answer,
        },
    }
    return shown if attempt.delivered else {**shown, "errors": [75499]}
