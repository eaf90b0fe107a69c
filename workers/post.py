"""The job that posts one alert: claimed before, posted here, remembered at once.

Apart from fetching, so that a Slack which is down never repeats a fetch, and a slow one never holds
up the sessions. Between Slack's answer and the line that remembers it nothing else is done: a
worker killed there repeats that alert once, and there only. A Redis that is away at that moment is
waited for.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from service.logs import get_logger
from service.queue import Claim
from service.records import Delivery
from service.store import Posting, Store
from workers.alert import build_payload, fallback
from workers.metrics import WorkerMetrics
from workers.slack import SlackClient
from workers.slack_answer import Outcome, Permanent, Posted, RateLimited, Transient

_BACK_OFF_SECONDS: Final = (5, 900)
# Slack may have taken what it did not answer for: rather late than twice.
_MAYBE_POSTED_SECONDS: Final = (900, 21_600)
# A week-old alert is news to finance still; after that it is history, kept and listed.
_PATIENCE_MS: Final = 7 * 86_400_000
_NOTE_SECONDS: Final = 0.2
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Poster:
    """What the job needs; without `slack`, alerts are kept and logged."""

    store: Store
    slack: SlackClient | None
    metrics: WorkerMetrics
    now_ms: Callable[[], int]
    _posted: set[str] = field(default_factory=set)
    """Alerts that Slack has taken and Redis does not know of yet."""

    async def post(self, claim: Claim) -> str:
        """One try at one alert; its outcome as counted in `tollwatch_posts`.

        Redis' errors pass through: the lease ends by itself, and the alert is due again.
        """
        try:
            return await self._attempt(claim)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001
            # Whatever breaks our code, as a record of a newer version may: it waits, a
            # quarter of an hour at a time, for a version that can read it.
            return await self._failed(claim, error)

    async def _attempt(self, claim: Claim) -> str:
        if claim.id in self._posted:
            return await self._note(claim)
        posting = await self.store.posting(claim.id)
        if posting is None or posting.token != claim.token:
            return "lost"
        if self.slack is None:
            await self._deliver(claim, Delivery.KEPT, "no SLACK_WEBHOOK_URL is set")
            _log.warning("alert kept", alert_id=claim.id, text=fallback(posting.alert))
            return "kept"
        outcome = await self.slack.post(build_payload(posting.alert))
        return await self._remember(posting, claim, outcome)

    async def _remember(self, posting: Posting, claim: Claim, outcome: Outcome) -> str:
        match outcome:
            case Posted():
                self._posted.add(claim.id)
                noted = await self._note(claim)
                waited = self.now_ms() - posting.alert.decided_ms
                self.metrics.alert_dwell.observe(max(0, waited) / 1000)
                return noted
            case RateLimited(retry_after_seconds=seconds):
                await self._later(claim, seconds, "Slack's rate limit")
                return "rate_limited"
            case Transient(reason=reason, maybe_posted=maybe_posted):
                if self.now_ms() - posting.alert.decided_ms > _PATIENCE_MS:
                    return await self._refused(claim, f"given up after a week: {reason}")
                await self._later(claim, _back_off(posting.tries, maybe_posted), reason)
                return "transient"
            case Permanent(reason=reason):
                return await self._refused(claim, reason, text=fallback(posting.alert))

    async def _note(self, claim: Claim) -> str:
        """Remember that it was posted, for as long as it takes.

        While Redis is away nobody else can take the alert up either. If the lease ends meanwhile,
        whoever of this worker's jobs gets the next one comes here again and does not post.
        """
        while True:
            try:
                tries = await self._deliver(claim, Delivery.POSTED, "")
            except RedisError as error:
                self.metrics.redis_errors.inc()
                _log.warning("posted, but not noted yet", error=type(error).__name__)
                await asyncio.sleep(_NOTE_SECONDS)
                continue
            if tries is None:
                return "lost"
            self._posted.discard(claim.id)
            _log.info("alert posted", alert_id=claim.id)
            return "posted"

    async def _failed(self, claim: Claim, error: Exception) -> str:
        reason = f"{type(error).__name__}: {error}"
        wait = _back_off(16, maybe_posted=False)
        due_ms = self.now_ms() + int(wait * 1000)
        tries = await self._deliver(claim, Delivery.WAITING, reason, due_ms)
        _log.error("post failed", alert_id=claim.id, reason=reason, tries=tries, exc_info=error)
        return "failed"

    async def _refused(self, claim: Claim, reason: str, text: str = "") -> str:
        await self._deliver(claim, Delivery.REFUSED, reason)
        _log.error("alert refused", alert_id=claim.id, reason=reason, text=text)
        return "refused"

    async def _later(self, claim: Claim, seconds: float, reason: str) -> None:
        await self._deliver(claim, Delivery.WAITING, reason, self.now_ms() + int(seconds * 1000))
        _log.warning("alert waits", alert_id=claim.id, reason=reason, seconds=round(seconds, 1))

    async def _deliver(
        self, claim: Claim, delivery: Delivery, reason: str, next_due_ms: int | None = None
    ) -> int | None:
        return await self.store.deliver(
            claim.id,
            claim.token,
            delivery,
            now_ms=self.now_ms(),
            next_due_ms=next_due_ms,
            reason=reason[:300],
        )


def _back_off(tries: int, maybe_posted: bool) -> float:
    first, longest = _MAYBE_POSTED_SECONDS if maybe_posted else _BACK_OFF_SECONDS
    step = min(first * 2.0 ** min(tries, 16), longest)
    return step * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
