"""Telnyx's API as a server: the calls it knows, when their parts appear, its lists, its limits.

https://developers.telnyx.com/ (Session Analysis API usage guide); headers and error bodies as seen
on live accounts.
"""

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.world import record_types
from tests.world.answers import Habits, Question, answer, visible
from tests.world.clock import Clock
from tests.world.faults import Front
from tests.world.lists import (
    BadList,
    DeliveryLog,
    UnknownFilters,
    delivery_rows,
    page_of,
    record_rows,
)
from tests.world.model import Call, Node
from tests.world.rate_limit import FixedWindow

API_KEY: Final = "KEY0123456789ABCDEF0123456789ABCDEF_simulated"

ENDPOINTS: Final = ("analysis", "metadata", "detail_records", "webhook_deliveries", "balance")
"""Each has a rate limit of its own."""

_KEPT_ANSWERS: Final = 5_000
_DEEPEST: Final = 5
_BOOLEANS: Final = {"true": True, "false": False}
_CENT: Final = Decimal("0.01")
_ERRORS_URL: Final = "https://developers.telnyx.com/docs/overview/errors/"


class _Refusal(Exception):
    """An answer other than 200."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, *, gateway: bool = False
    ) -> None:
        # Session Analysis says `message` where the rest of Telnyx says `title`.
        name = "title" if gateway else "message"
        error: dict[str, Any] = {"code": code, name: title, "detail": detail}
        if gateway:
            error["meta"] = {"url": f"{_ERRORS_URL}{code}"}
        self.status = status
        self.body = msgspec.json.encode({"errors": [error]})


@dataclass(frozen=True, slots=True)
class _Known:
    """A call and the seconds after its end at which one more part appears."""

    call: Call
    stages: tuple[float, ...]


class _Found(NamedTuple):
    known: _Known
    node: Node


class TelnyxWorld:
    """What Telnyx knows, and how it behaves; `app` is the server.

    The attributes may be set at any time. Posting offsets are divided by `time_scale`.
    """

    def __init__(
        self,
        *,
        clock: Clock = time.time,
        time_scale: float = 1.0,
        api_key: str = API_KEY,
        latency_seconds: float = 0.0,
        habits: Habits | None = None,
    ) -> None:
        self.api_key = api_key
        self.time_scale = time_scale
        self.habits = habits or Habits()
        self.disabled = False
        """The account is out of funds: 403."""
        self.not_ready_status: Literal[404, 409] = 404
        self.deliveries = DeliveryLog()
        self.knows_filters = True
        """Whether the two lists know any filter but the mandatory record type."""
        self.unknown_filters: UnknownFilters = "refused"
        """What an unknown filter leads to: a 400, or 200 without rows, as in July 2026."""
        self.funds = Decimal(1_000_000)
        """What was paid into the account so far, in USD; calls take from it as they are charged."""
        self.credit_limit = Decimal(0)
        self._charged = Decimal(0)
        self._uncharged: dict[str, Call] = {}
        self._clock = clock
        self._limits: dict[str, FixedWindow] = {}
        self._calls: dict[str, Call] = {}
        self._index: dict[str, list[_Found]] = {}
        self._answers: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self.app = Front(self._starlette(), clock)
        self.app.latency_seconds = latency_seconds
        self.faults = self.app.faults
        self.requests = self.app.requests

    # --- what it knows ---

    @property
    def calls(self) -> Mapping[str, Call]:
        """The calls by session id."""
        return self._calls

    def add(self, call: Call) -> Call:
        """Lets a call have happened; returns it."""
        stages = tuple(sorted({node.posted_after_seconds for node in call.root.walk()}))
        known = _Known(call, stages)
        self._calls[call.session_id] = call
        self._uncharged[call.session_id] = call
        for node in call.root.walk():
            self._index.setdefault(node.id, []).append(_Found(known, node))
        return call

    def add_all(self, calls: Iterable[Call]) -> list[Call]:
        """Lets several calls have happened."""
        return [self.add(call) for call in calls]

    def forget(self, session_id: str) -> None:
        """Beyond what Telnyx keeps: asking for it, or any part of it, is a 404 from now on."""
        call = self._calls.pop(session_id)
        for node in call.root.walk():
            self._index.pop(node.id, None)

    def limit(
        self,
        requests: int | None,
        window_seconds: float = 60.0,
        endpoints: Iterable[str] = ENDPOINTS,
    ) -> None:
        """At most so many requests per endpoint and fixed window; None: no limit is known."""
        for endpoint in endpoints:
            self._limits.pop(endpoint, None)
            if requests is not None:
                self._limits[endpoint] = FixedWindow(requests, window_seconds, self._clock)

    @property
    def latency_seconds(self) -> float:
        """What every answer takes at least."""
        return self.app.latency_seconds

    @latency_seconds.setter
    def latency_seconds(self, seconds: float) -> None:
        self.app.latency_seconds = seconds

    def age_seconds(self, call: Call) -> float:
        """Seconds since the call's end, as posting counts them."""
        return (self._clock() - call.end.timestamp()) * self.time_scale

    def charges(self) -> tuple[Decimal, Decimal]:
        """What all calls have been charged so far, and what they will be beyond that."""
        posted = pending = Decimal(0)
        for call in list(self._uncharged.values()):
            age = self.age_seconds(call)
            if age >= call.complete_after_seconds:
                self._charged += self._uncharged.pop(call.session_id).total
                continue
            so_far = [node.cost for node in call.root.walk() if node.posted_after_seconds <= age]
            posted += sum(so_far, Decimal(0))
            pending += call.total - sum(so_far, Decimal(0)) if age >= 0 else Decimal(0)
        return self._charged + posted, pending

    # --- what it answers ---

    def _starlette(self) -> Starlette:
        base = "/v2/session_analysis"
        return Starlette(
            routes=[
                Route(f"{base}/metadata", self._metadata),
                Route(f"{base}/metadata/{{record_type}}", self._metadata),
                Route(f"{base}/{{record_type}}/{{event_id}}", self._analysis),
                Route("/v2/detail_records", self._detail_records),
                Route("/v2/webhook_deliveries", self._webhook_deliveries),
                Route("/v2/balance", self._balance),
            ],
            exception_handlers={_Refusal: _refused},
        )

    async def _analysis(self, request: Request) -> Response:
        headers = self._admit(request, "analysis")
        try:
            body = self._analysed(request)
        except _Refusal as refusal:
            return _json(refusal.body, headers, refusal.status)
        return _json(body, headers)

    async def _metadata(self, request: Request) -> Response:
        headers = self._admit(request, "metadata")
        name = request.path_params.get("record_type")
        if name is None:
            return _json(msgspec.json.encode(record_types.overview()), headers)
        found = record_types.find(name)
        if found is None:
            refusal = _Refusal(404, "10005", "Resource not found", "No such record type.")
            return _json(refusal.body, headers, refusal.status)
        return _json(msgspec.json.encode(record_types.details(found)), headers)

    async def _detail_records(self, request: Request) -> Response:
        headers = self._admit(request, "detail_records")
        query = dict(request.query_params)
        try:
            rows = record_rows(
                self._calls.values(),
                query,
                self.age_seconds,
                known=self.knows_filters,
                unknown=self.unknown_filters,
            )
            return _json(msgspec.json.encode(page_of(rows, query, deliveries=False)), headers)
        except BadList as bad:
            refusal = _Refusal(400, "10011", "Bad Request", str(bad), gateway=True)
            return _json(refusal.body, headers, refusal.status)

    async def _webhook_deliveries(self, request: Request) -> Response:
        headers = self._admit(request, "webhook_deliveries")
        query = dict(request.query_params)
        try:
            rows = delivery_rows(
                self.deliveries, query, known=self.knows_filters, unknown=self.unknown_filters
            )
            return _json(msgspec.json.encode(page_of(rows, query, deliveries=True)), headers)
        except BadList as bad:
            refusal = _Refusal(422, "10015", "Unprocessable entity", str(bad), gateway=True)
            return _json(refusal.body, headers, refusal.status)

    async def _balance(self, request: Request) -> Response:
        headers = self._admit(request, "balance")
        charged, pending = self.charges()
        balance = self.funds - charged
        data = {
            "record_type": "balance",
            "balance": f"{balance.quantize(_CENT)}",
            "credit_limit": f"{self.credit_limit.quantize(_CENT)}",
            "available_credit": f"{(balance + self.credit_limit).quantize(_CENT)}",
            "pending": f"{pending.quantize(_CENT)}",
            "currency": "USD",
        }
        return _json(msgspec.json.encode({"data": data}), headers)

    def _admit(self, request: Request, endpoint: str) -> dict[str, str]:
        """Key, funds and rate limit, in that order. Returns the headers of the answer."""
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise _Refusal(
                401, "10009", "Authentication failed", "The API key is not valid.", gateway=True
            )
        if self.disabled:
            raise _Refusal(
                403,
                "10010",
                "Account is disabled D17",
                "Your account has been disabled.",
                gateway=True,
            )
        limit = self._limits.get(endpoint)
        if limit is None:
            return {}
        allowed, headers = limit.take()
        if not allowed:
            raise _RateLimited(headers)
        return headers

    def _analysed(self, request: Request) -> bytes:
        event_id = request.path_params["event_id"]
        record_type = record_types.find(request.path_params["record_type"])
        if record_type is None:
            raise _bad("Unknown record type.")
        question = _question(request.query_params)
        day = _day(request.query_params.get("date_time"))
        if not _is_uuid(event_id):
            raise _bad("The event id is not a UUID.")
        found = self._find(record_type.name, event_id, day)
        stage = bisect_right(found.known.stages, self.age_seconds(found.known.call))
        key = (record_type.name, event_id, stage, question, self.habits)
        if key in self._answers:
            self._answers.move_to_end(key)
            return self._answers[key]
        body = self._render(found, stage, question)
        self._answers[key] = body
        if len(self._answers) > _KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return body

    def _find(self, record_type: str, event_id: str, day: date | None) -> _Found:
        for found in self._index.get(event_id, ()):
            if found.node.record_type == record_type and (
                day is None or day in found.known.call.days
            ):
                return found
        raise _Refusal(404, "10005", "Event not found", "No event was found for this id.")

    def _render(self, found: _Found, stage: int, question: Question) -> bytes:
        age = found.known.stages[stage - 1] if stage else -1.0
        tree = visible(found.node, age)
        if tree is None:
            raise _Refusal(
                self.not_ready_status, "10005", "Event not found", "The session is not ready yet."
            )
        return msgspec.json.encode(answer(tree, question, self.habits))


class _RateLimited(_Refusal):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(
            429,
            "10011",
            "Too many requests",
            "You have exceeded the maximum number of allowed requests.",
            gateway=True,
        )
        self.headers = headers


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, _Refusal)
    headers = error.headers if isinstance(error, _RateLimited) else {}
    return _json(error.body, headers, error.status)


def _json(body: bytes, headers: Mapping[str, str], status: int = 200) -> Response:
    return Response(body, status, dict(headers), "application/json")


def _bad(detail: str) -> _Refusal:
    return _Refusal(400, "10015", "Bad Request", detail)


def _question(query: Mapping[str, str]) -> Question:
    include = _BOOLEANS.get(query.get("include_children", "true"))
    depth = query.get("max_depth", "2")
    expand = query.get("expand", "record")
    if include is None:
        raise _bad("include_children must be true or false.")
    if not depth.isdecimal() or not 1 <= int(depth) <= _DEEPEST:
        raise _bad("max_depth must be between 1 and 5.")
    if expand == "record":
        return Question(include, int(depth), "record")
    if expand == "none":
        return Question(include, int(depth), "none")
    raise _bad("expand must be record or none.")


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _bad("date_time must be an ISO 8601 date or time.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
