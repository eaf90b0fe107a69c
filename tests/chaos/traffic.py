"""A steady flow of calls, and Telnyx's way of telling of them: in any order, some twice, some late.

Each call comes with what must become of it. Events that are not taken are tried again, at both web
processes, as Telnyx's documents say; what Telnyx gives up was not accepted.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from tests.chaos.accounting import Expectation
from tests.world.calls import MIX
from tests.world.clock import Clock, utc
from tests.world.model import Call, Node
from tests.world.webhooks import Delivery, Outcome, Sender, Signer, events_for
from tests.world.world import World

TIME_SCALE: Final = 80.0
"""Costs that take Telnyx up to 220 s are complete after 2.75 s: between the first two looks."""
AGES: Final = "1,3,6"

# Not the late charge: whether it is seen before the last look depends on how the faults fall.
_ANOMALIES: Final = (
    "runaway_assistant",
    "inference_loop",
    "dear_destination",
    "doubled_charge",
    "wrong_rate",
)
_ANOMALOUS: Final = 0.3
_FORMS: Final = 0.1
_DUPLICATED: Final = 0.15
_LATE: Final = 0.08
_LATE_SECONDS: Final = (1.5, 6.0)
_SHUFFLE_SECONDS: Final = 0.4
_TWICE_WITHIN_SECONDS: Final = 4.0
# One in so many, at fixed places, so that a short run has some of each.
_POISONED_EVERY: Final = 60
_UNKNOWN_EVERY: Final = 25
_FIRST_SPECIAL: Final = 5
_ENDS: Final = frozenset({"call.hangup", "call.conversation.ended", "conference.ended"})


class Telnyx(Sender):
    """A sender that knows which attempts are under way, and when one was taken last."""

    def __init__(self, signer: Signer, url: str, failover_url: str, *, clock: Clock) -> None:
        super().__init__(signer, url, failover_url, clock=clock)
        self.first_url = url
        self.under_way: Counter[str] = Counter()
        """By URL, attempts that have begun and have no answer."""
        self.statuses: Counter[int | str] = Counter()
        self.taken_at = 0.0
        """When an attempt got a 2xx, by the monotonic clock."""

    async def _attempt(self, outcome: Outcome, url: str) -> None:
        self.under_way[url] += 1
        try:
            await super()._attempt(outcome, url)
        finally:
            self.under_way[url] -= 1
        self.statuses[outcome.statuses[-1]] += 1
        if outcome.delivered:
            self.taken_at = time.monotonic()


class Traffic:
    """Lets calls happen and tells the web processes at `urls` of them; open it as a context."""

    def __init__(
        self, world: World, urls: tuple[str, str], *, seed: int, poison: Path, per_second: float
    ) -> None:
        self._world = world
        self._rng = Random(f"{seed}/traffic")
        self._poison = poison
        self._per_second = per_second
        first, second = urls
        self.senders = tuple(
            Telnyx(world.signer, *pair, clock=world.clock)
            for pair in ((first, second), (second, first))
        )
        self._sending: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._made = 0
        self.expected: list[Expectation] = []
        self.sent_twice = 0
        self.sent_late = 0
        poison.touch()

    async def __aenter__(self) -> Self:
        for sender in self.senders:
            await sender.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        for sender in self.senders:
            await sender.__aexit__(None, None, None)

    async def run(self) -> None:
        """One call after another until `stop`."""
        while not self._stopped.is_set():
            self.happen(self._kind())
            pause = min(self._rng.expovariate(self._per_second), 3 / self._per_second)
            try:
                await asyncio.wait_for(self._stopped.wait(), pause)
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """No more calls; returns when Telnyx has delivered or given up the last event."""
        self._stopped.set()
        while self._sending:
            await asyncio.wait(self._sending)

    def happen(self, kind: str, *, at_once: bool = False, url: str = "") -> Call:
        """A call ends this moment; `at_once`: every event of it is delivered at this moment too.

        `url` is where it is delivered first; by default, chance decides.
        """
        world, number = self._world, self._made
        self._made += 1
        call = world.generator.make(kind, end=utc(world.clock()))
        poisoned = number % _POISONED_EVERY == _FIRST_SPECIAL
        unknown = number % _UNKNOWN_EVERY == _FIRST_SPECIAL + 1
        if not unknown:
            world.telnyx.add(replace(call, root=_hurried(call.root)))
        if poisoned:
            with self._poison.open("a", encoding="ascii") as file:
                file.write(f"{call.session_id}\n")
        self.expected.append(_expected(call, poisoned=poisoned, unknown=unknown))
        sender = self._rng.choice([s for s in self.senders if not url or s.first_url == url])
        for event, after in self._timed(call, at_once=at_once):
            self._start(self._deliver(sender, event, after))
        return call

    def burst(self, count: int, url: str) -> None:
        """So many calls at one moment, delivered to that URL."""
        for _ in range(count):
            self.happen(self._kind(), at_once=True, url=url)

    # --- what became of it, as far as Telnyx knows ---

    @property
    def outcomes(self) -> list[Outcome]:
        """All deliveries."""
        return [outcome for sender in self.senders for outcome in sender.outcomes]

    @property
    def statuses(self) -> Counter[int | str]:
        """All answers to all attempts."""
        return sum((sender.statuses for sender in self.senders), Counter[int | str]())

    @property
    def taken_at(self) -> float:
        """When an attempt got a 2xx last, by the monotonic clock."""
        return max(sender.taken_at for sender in self.senders)

    def under_way(self, url: str = "") -> int:
        """How many attempts at delivery have no answer yet; at that URL, if named."""
        return sum(
            count
            for sender in self.senders
            for at, count in sender.under_way.items()
            if not url or at == url
        )

    def accepted(self) -> frozenset[str]:
        """The sessions of which an event was taken as one to look after."""
        return frozenset(
            outcome.delivery.session_id
            for outcome in self.outcomes
            if outcome.delivered and _status(outcome) != "ignored"
        )

    def ignored(self) -> list[str]:
        """Sessions whose end was answered as being of no interest."""
        return [
            outcome.delivery.session_id
            for outcome in self.outcomes
            if outcome.delivered
            and outcome.delivery.event_type in _ENDS
            and _status(outcome) == "ignored"
        ]

    # --- how it comes ---

    def _kind(self) -> str:
        if self._rng.random() < _ANOMALOUS and self._made % _POISONED_EVERY != _FIRST_SPECIAL:
            return self._rng.choice(_ANOMALIES)
        return self._rng.choices(list(MIX), list(MIX.values()))[0]

    def _timed(self, call: Call, *, at_once: bool) -> Iterator[tuple[Delivery, float]]:
        """Each event with the seconds after which it is sent: shuffled, some late, some twice."""
        for event in events_for(call, texml=self._rng.random() < _FORMS):
            ahead = max(0.0, (event.occurred_at - call.end) / timedelta(seconds=TIME_SCALE))
            after = ahead if at_once else ahead + self._rng.uniform(0, _SHUFFLE_SECONDS)
            if self._rng.random() < _LATE and not at_once:
                self.sent_late += 1
                after += self._rng.uniform(*_LATE_SECONDS)
            yield event, after
            if self._rng.random() < _DUPLICATED:
                self.sent_twice += 1
                yield event, after + self._rng.uniform(0, _TWICE_WITHIN_SECONDS)

    def _start(self, delivery: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(delivery)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, sender: Telnyx, event: Delivery, after: float) -> None:
        await asyncio.sleep(after)
        await sender.deliver(event)


def _expected(call: Call, *, poisoned: bool, unknown: bool) -> Expectation:
    if unknown:
        return Expectation(call.session_id, call.kind, "unavailable")
    if poisoned:
        return Expectation(call.session_id, call.kind, "dead")
    injected = call.expects
    return Expectation(
        call.session_id,
        call.anomaly or call.kind,
        "verdict",
        call.total,
        injected.severities if injected else frozenset(),
        injected.reasons if injected else frozenset(),
    )


def _hurried(node: Node) -> Node:
    """The same costs, all of them there at the second look."""
    latest = 2.9 * TIME_SCALE
    children = tuple(map(_hurried, node.children))
    posted = min(node.posted_after_seconds, latest)
    return replace(node, posted_after_seconds=posted, children=children)


def _status(outcome: Outcome) -> str:
    try:
        return str(json.loads(outcome.answer).get("status"))
    except ValueError:
        return ""
