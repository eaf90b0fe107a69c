"""The job that posts one alert: claimed before, posted here, remembered at once.

Apart from fetching, so that a Slack which is down never repeats a fetch, and a slow one never holds
up the sessions. Between Slack's answer and the line that remembers it nothing else is done: a
worker killed there repeats that alert once, and there only.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.logs import get_logger
from service.queue import Claim
from service.records import Delivery
from service.store import Posting, Store
from workers.alert import build_payload, fallback
from workers.metrics import WorkerMetrics
from workers.slack import SlackClient
from workers.slack_answer import Outcome, Permanent, Posted, RateLimited, Transient

_BACK_OFF_SECONDS: Final = (5, 900)
# A week-old alert is news to finance still; after that it is history, kept and listed.
_PATIENCE_MS: Final = 7 * 86_400_000
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Poster:
    """What the job needs; without `slack`, alerts are kept and logged."""

    store: Store
    slack: SlackClient | None
    metrics: WorkerMetrics
    now_ms: Callable[[], int]

    async def post(self, claim: Claim) -> str:
        """One try at one alert; its outcome as counted in `tollwatch_posts`."""
        posting = await self.store.posting(claim.id)
        if posting is None or posting.token != claim.token:
            return "lost"
        if self.slack is None:
            return await self._keep(posting, claim)
        outcome = await self.slack.post(build_payload(posting.alert))
        return await self._remember(posting, claim, outcome)

    async def _keep(self, posting: Posting, claim: Claim) -> str:
        await self._deliver(posting, claim, Delivery.KEPT, "no SLACK_WEBHOOK_URL is set")
        _log.warning("alert kept", alert_id=claim.id, text=fallback(posting.alert))
        return "kept"

    async def _remember(self, posting: Posting, claim: Claim, outcome: Outcome) -> str:
        match outcome:
            case Posted():
                await self._deliver(posting, claim, Delivery.POSTED, "")
                waited = self.now_ms() - posting.alert.decided_ms
                self.metrics.alert_dwell.observe(max(0, waited) / 1000)
                _log.info("alert posted", alert_id=claim.id, severity=posting.alert.severity)
                return "posted"
            case RateLimited(retry_after_seconds=seconds):
                await self._later(posting, claim, seconds, "Slack's rate limit")
                return "rate_limited"
            case Transient(reason=reason):
                if self.now_ms() - posting.alert.decided_ms > _PATIENCE_MS:
                    return await self._refused(posting, claim, f"given up after a week: {reason}")
                await self._later(posting, claim, _back_off(posting.tries), reason)
                return "transient"
            case Permanent(reason=reason):
                return await self._refused(posting, claim, reason)

    async def _refused(self, posting: Posting, claim: Claim, reason: str) -> str:
        await self._deliver(posting, claim, Delivery.REFUSED, reason)
        _log.error("alert refused", alert_id=claim.id, reason=reason, text=fallback(posting.alert))
        return "refused"

    async def _later(self, posting: Posting, claim: Claim, seconds: float, reason: str) -> None:
        due_ms = self.now_ms() + int(seconds * 1000)
        await self._deliver(posting, claim, Delivery.WAITING, reason, due_ms)
        _log.warning("alert waits", alert_id=claim.id, reason=reason, seconds=round(seconds, 1))

    async def _deliver(
        self,
        posting: Posting,
        claim: Claim,
        delivery: Delivery,
        reason: str,
        next_due_ms: int | None = None,
    ) -> None:
        await self.store.deliver(
            posting,
            claim.token,
            delivery,
            now_ms=self.now_ms(),
            next_due_ms=next_due_ms,
            tries=posting.tries + 1,
            reason=reason[:300],
        )


def _back_off(tries: int) -> float:
    first, longest = _BACK_OFF_SECONDS
    step = min(first * 2.0 ** min(tries, 16), longest)
    return step * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
