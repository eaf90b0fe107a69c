"""The simulated outside's own API, for those who use it as a process: benchmarks above all.

`POST /control/calls` `{"kind": "ai_inbound", "count": 10, "ended_seconds_ago": 0}`, or `"kinds":
{"failed": 3, …}`, or neither for the usual mix: makes calls, and answers their ids, truths and
signed end-of-call webhooks (all events with `"events": "all"`, none with `"none"`).
`GET /control/slack`: what was posted. `GET /control/requests`: what Telnyx was asked.
`POST /control/faults`: a fault, `{"on": "telnyx", "kind": "status", "status": 503, "times": 5}`.
`DELETE /control/faults`: no more of them.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.world.calls import MIX
from tests.world.clock import utc
from tests.world.faults import Fault
from tests.world.model import Call
from tests.world.webhooks import Delivery, events_for
from tests.world.world import World

_SHOWN_REQUESTS: Final = 200
_ENDS: Final = frozenset({"call.hangup"})


class Control:
    """Mounts itself into a world, below `/control`."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.mount(
            "/control/",
            Starlette(
                routes=[
                    Route("/control/world", self._about),
                    Route("/control/calls", self._calls, methods=["POST"]),
                    Route("/control/slack", self._slack),
                    Route("/control/requests", self._requests),
                    Route("/control/faults", self._faults, methods=["POST", "DELETE"]),
                ]
            ),
        )

    async def _about(self, _: Request) -> Response:
        world = self._world
        return _json(
            {
                "telnyx_url": world.telnyx_url,
                "slack_url": world.slack_url,
                "api_key": world.api_key,
                "public_key": world.public_key,
                "calls": len(world.telnyx.calls),
            }
        )

    async def _calls(self, request: Request) -> Response:
        order = msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
        calls = self._make(order)
        wanted = order.get("events", "end")
        return _json({"calls": [self._shown(call, wanted) for call in calls]})

    def _make(self, order: dict[str, Any]) -> list[Call]:
        world = self._world
        end = utc(world.clock()) - timedelta(seconds=order.get("ended_seconds_ago", 0))
        count = int(order.get("count", 1))
        if "kind" in order:
            return [world.call(order["kind"], end=end) for _ in range(count)]
        if "kinds" in order:
            return world.calls(
                [kind for kind, times in order["kinds"].items() for _ in range(times)], end=end
            )
        return world.telnyx.add_all(world.generator.mix(count, weights=MIX, end=end))

    def _shown(self, call: Call, wanted: str) -> dict[str, Any]:
        events = [] if wanted == "none" else events_for(call)
        if wanted == "end":
            events = [event for event in events if event.event_type in _ENDS]
        return {
            "session_id": call.session_id,
            "kind": call.kind,
            "anomaly": call.anomaly,
            "total": call.total,
            "event_count": call.event_count,
            "webhooks": list(self._signed(events)),
        }

    def _signed(self, events: Iterable[Delivery]) -> Iterable[dict[str, Any]]:
        for event in events:
            body = event.body()
            yield {
                "event_type": event.event_type,
                "headers": {
                    "Content-Type": event.content_type,
                    **self._world.signer.headers(body, at=self._world.clock()),
                },
                "body": body.decode(),
            }

    async def _slack(self, _: Request) -> Response:
        slack = self._world.slack
        return _json(
            {
                "messages": slack.messages,
                "refused": [(post.status, post.word, post.place) for post in slack.refused],
                "mentions": slack.mentions,
            }
        )

    async def _requests(self, _: Request) -> Response:
        front = self._world.telnyx.app
        return _json(
            {"count": front.request_count, "requests": list(front.requests)[-_SHOWN_REQUESTS:]}
        )

    async def _faults(self, request: Request) -> Response:
        world = self._world
        if request.method == "DELETE":
            world.telnyx.faults.clear()
            world.slack.faults.clear()
            return _json({})
        order = msgspec.json.decode(await request.body(), type=dict[str, Any])
        on_slack = order.pop("on", "telnyx") == "slack"
        faults = world.slack.faults if on_slack else world.telnyx.faults
        faults.add(msgspec.convert(order, Fault))
        return _json(order)


def _json(data: Any) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")
