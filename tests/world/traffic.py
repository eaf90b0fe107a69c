"""Calls that end all the time, for a product that runs elsewhere: in compose, or in a cluster."""

import asyncio
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Final

from rich.console import Console

from tests.world.demo import endless, hurried
from tests.world.draw import draw
from tests.world.model import Call
from tests.world.webhooks import Sender
from tests.world.world import World

_PAUSE_SECONDS: Final = (0.4, 2.4)
_LOOK_EVERY_SECONDS: Final = 0.1
_KEPT_CALLS: Final = 200
_WIDTH: Final = 100


class Traffic:
    """Lets calls end, tells a URL of them, and prints what Slack is told."""

    def __init__(self, world: World, url: str, console: Console | None = None) -> None:
        self._world = world
        self._url = url
        self._console = console or Console(highlight=False, width=_WIDTH)
        self._kept: deque[str] = deque()

    async def run(self, *, until: asyncio.Event) -> None:
        """Goes on until the event is set."""
        async with self._world.sender(self._url, duplicates=0.2) as sender:
            tasks = [asyncio.create_task(work) for work in (self._play(sender), self._watch())]
            stopped = asyncio.create_task(until.wait())
            ended, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            for task in ended:
                task.result()

    async def _play(self, sender: Sender) -> None:
        rng = Random(self._world.seed)
        async with asyncio.TaskGroup() as sending:
            for kind in endless(rng):
                call = self._happen(kind)
                self._say(f"{call.kind} {call.session_id} has ended and will cost {call.total} USD")
                sending.create_task(self._tell(sender, call))
                await asyncio.sleep(rng.uniform(*_PAUSE_SECONDS))

    def _happen(self, kind: str) -> Call:
        """A call that ends now; Telnyx forgets one of long ago for it."""
        call = self._world.generator.make(kind, end=datetime.now(UTC))
        self._kept.append(call.session_id)
        if len(self._kept) > _KEPT_CALLS:
            self._world.telnyx.forget(self._kept.popleft())
        return self._world.telnyx.add(replace(call, root=hurried(call.root)))

    async def _tell(self, sender: Sender, call: Call) -> None:
        for outcome in await sender.send_call(call, paced_from=call.end):
            if not outcome.delivered:
                event, said = outcome.delivery.event_type, ", ".join(map(str, outcome.statuses))
                self._say(f"{call.session_id}: {event} was not taken: {said} {outcome.answer}")
            sender.outcomes.remove(outcome)

    async def _watch(self) -> None:
        messages = self._world.slack.messages
        while True:
            while messages:
                self._console.print(draw(messages.pop(0).payload, at=datetime.now(UTC)))
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)
