"""Telnyx's webhooks for a call, and how it delivers them: all at once, twice, late, and again.

Two of Telnyx's pages disagree about retries; this follows the one on Voice: 408, 429, 5xx and
silence are retried, other refusals are not, and after 60 s the event is lost.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import aiohttp

from tests.world import envelopes
from tests.world.clock import Clock
from tests.world.envelopes import NO_COST, PERSONAL_DATA, Delivery
from tests.world.lists import Attempt, DeliveryLog
from tests.world.model import Call
from tests.world.signing import Signer

__all__ = ["NO_COST", "PERSONAL_DATA", "Delivery", "Outcome", "Sender", "Signer", "events_for"]

AnalyzedCost: TypeAlias = Literal["cost", "none"]

_ANALYZED_AFTER_SECONDS: Final = 45.0
_COST_AFTER_SECONDS: Final = 150.0
_RETRY_AFTER_SECONDS: Final = (0.0, 1.0, 4.0, 10.0)
"""When the attempts at one URL begin, from the first on."""
_GIVE_UP_AFTER_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 2.0
_RETRIED: Final = frozenset({408, 429})


def events_for(
    call: Call,
    *,
    texml: bool = False,
    early: bool = True,
    analyzed: AnalyzedCost | None = "cost",
    cost: Literal["new", "older"] | None = None,
    transcript: bool = True,
) -> list[Delivery]:
    """All events of a call in the order in which they occur.

    `early`: also the events from before the end. `analyzed`: of AI calls, with a cost or without.
    `cost`: `call.cost` of every leg, which is off by default at Telnyx. `texml`: form-encoded
    status callbacks in place of Call Control's events.
    """
    events = _texml(call) if texml else _call_control(call, early=early, transcript=transcript)
    leg = call.legs[0]
    if call.assistant_id and analyzed and not texml:
        events.append(
            envelopes.analyzed(
                call, leg, after_seconds=_ANALYZED_AFTER_SECONDS, with_cost=analyzed == "cost"
            )
        )
    if cost:
        events += [
            envelopes.cost(call, leg, after_seconds=_COST_AFTER_SECONDS, older=cost == "older")
            for leg in call.legs
        ]
    return sorted(events, key=lambda event: event.occurred_at)


def _call_control(call: Call, *, early: bool, transcript: bool) -> list[Delivery]:
    events = [envelopes.hangup(call, leg) for leg in call.legs]
    if early:
        events += [envelopes.initiated(call, leg) for leg in call.legs]
        events += [envelopes.answered(call, leg) for leg in call.legs if leg.answered]
    if call.assistant_id:
        events.append(envelopes.conversation_ended(call, call.legs[0], transcript=transcript))
    if call.conference_id:
        events.append(envelopes.conference_ended(call))
    return events


def _texml(call: Call) -> list[Delivery]:
    events = [envelopes.texml_status(call, leg) for leg in call.legs]
    if call.assistant_id:
        events += [
            envelopes.texml_status(call, call.legs[0], status)
            for status in ("conversation_ended", "analyzed")
        ]
    return events


@dataclass(slots=True)
class Outcome:
    """What became of one event: the answers to its attempts, and whether one was a 2xx."""

    delivery: Delivery
    statuses: list[int | str] = field(default_factory=list)
    """A status, or the name of what happened instead, such as `timeout`."""
    urls: list[str] = field(default_factory=list)
    answer: str = ""
    """The last answer's body."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def delivered(self) -> bool:
        """Whether Telnyx considers it delivered."""
        return bool(self.statuses) and _is_success(self.statuses[-1])


class Sender:
    """Delivers events, as an async context manager. All durations are divided by `time_scale`.

    `duplicates` is the chance that an event is delivered a second time although it had arrived.
    `sleep` waits between attempts. What was tried is noted in `log`. Of what `lost` says yes to,
    nothing ever arrives: each attempt is one that nobody answers.
    """

    def __init__(
        self,
        signer: Signer,
        url: str,
        failover_url: str | None = None,
        *,
        seed: int = 0,
        duplicates: float = 0.1,
        time_scale: float = 1.0,
        concurrency: int = 100,
        patience_seconds: float = _PATIENCE_SECONDS,
        clock: Clock = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        log: DeliveryLog | None = None,
        lost: Callable[[Delivery], bool] = lambda _delivery: False,
    ) -> None:
        self.log = DeliveryLog() if log is None else log
        self.lost = lost
        self.outcomes: list[Outcome] = []
        self._signer = signer
        self._urls = [url] if failover_url is None else [url, failover_url]
        self._rng = Random(f"{seed}/sender")
        self._duplicates = duplicates
        self._time_scale = time_scale
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._sleep = sleep
        self._slots = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(
        self, events: Iterable[Delivery], *, paced_from: datetime | None = None
    ) -> list[Outcome]:
        """Delivers all of them concurrently, shuffled, some twice; returns when all are through.

        With `paced_from` each waits until its time has come: that moment counts as now.
        """
        deliveries = self._muddled(events)
        outcomes = await asyncio.gather(
            *(self._in_time(delivery, paced_from) for delivery in deliveries)
        )
        return list(outcomes)

    async def send_call(self, call: Call, *, paced_from: datetime | None = None) -> list[Outcome]:
        """Delivers all usual events of a call."""
        return await self.send(events_for(call), paced_from=paced_from)

    async def deliver(self, delivery: Delivery) -> Outcome:
        """Delivers one event, with its retries, at the failover URL too if need be."""
        outcome = Outcome(delivery)
        self.outcomes.append(outcome)
        try:
            await self._try_all(outcome)
        finally:
            self.log.add(delivery, outcome.attempts)
        return outcome

    async def _try_all(self, outcome: Outcome) -> None:
        begun = self._clock()
        for url in self._urls:
            waited = 0.0
            for after in _RETRY_AFTER_SECONDS:
                if after > waited:
                    await self._sleep((after - waited) / self._time_scale)
                    waited = after
                if self._clock() - begun > _GIVE_UP_AFTER_SECONDS / self._time_scale:
                    return
                async with self._slots:
                    await self._attempt(outcome, url)
                if not _is_retried(outcome.statuses[-1]):
                    return

    def counts(self) -> Counter[int | str]:
        """How often each status was the last word."""
        return Counter(outcome.statuses[-1] for outcome in self.outcomes if outcome.statuses)

    def _muddled(self, events: Iterable[Delivery]) -> Sequence[Delivery]:
        deliveries = list(events)
        again = [event for event in deliveries if self._rng.random() < self._duplicates]
        deliveries += again
        self._rng.shuffle(deliveries)
        return deliveries

    async def _in_time(self, delivery: Delivery, paced_from: datetime | None) -> Outcome:
        if paced_from is not None:
            ahead = (delivery.occurred_at - paced_from).total_seconds()
            if ahead > 0:
                await self._sleep(ahead / self._time_scale)
        return await self.deliver(delivery)

    async def _attempt(self, outcome: Outcome, url: str) -> None:
        started = self._clock()
        if self.lost(outcome.delivery):
            outcome.urls.append(url)
            outcome.statuses.append("timeout")
        else:
            await self._post(outcome, url)
        status, body = outcome.statuses[-1], outcome.answer
        outcome.attempts.append(Attempt(url, status, started, self._clock(), body))

    async def _post(self, outcome: Outcome, url: str) -> None:
        assert self._session is not None, "use it as a context manager"
        delivery = outcome.delivery
        body = delivery.body(len(outcome.statuses) + 1, url)
        headers = {
            "Content-Type": delivery.content_type,
            "User-Agent": "telnyx-webhooks",
            **self._signer.headers(body, at=self._clock()),
        }
        outcome.urls.append(url)
        timeout = aiohttp.ClientTimeout(total=self._patience_seconds)
        try:
            async with self._session.post(url, data=body, headers=headers, timeout=timeout) as got:
                outcome.answer = await got.text(errors="replace")
                outcome.statuses.append(got.status)
        except TimeoutError:
            outcome.statuses.append("timeout")
        except aiohttp.ClientError as error:
            outcome.statuses.append(type(error).__name__)


def _is_success(status: int | str) -> bool:
    return isinstance(status, int) and 200 <= status < 300


def _is_retried(status: int | str) -> bool:
    return isinstance(status, str) or status in _RETRIED or status >= 500
