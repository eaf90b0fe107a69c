"""The job that posts one message: chosen and leased before, posted here, remembered at once.

Apart from fetching, so that a Slack which is down never repeats a fetch, and a slow one never holds
up the sessions. Between Slack's answer and the note of it nothing else is done: a worker killed
there repeats that message once, and there only. A Redis that is away at that moment is waited for,
by a task that neither the job's end nor its lease's ends.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import msgspec
from redis.exceptions import RedisError

from service import keys
from service.logs import get_logger
from service.outbox import Begun, Outbox
from service.queue import Claim
from service.records import Alert, Delivery, Notice, Summary, decode_alert
from workers.alert import build_payload
from workers.metrics import WorkerMetrics
from workers.slack import SlackClient
from workers.slack_answer import Closed, Outcome, Posted, RateLimited, Rejected, Transient
from workers.summary import Tally, build_notice, build_summary

_BACK_OFF_SECONDS: Final = (5, 900)
# Slack may have taken what it did not answer for: rather late than twice.
_DOUBT_SECONDS: Final = (900, 21_600)
# What breaks our code, as a record of a newer version may, waits for a version that can read it.
_ASIDE_SECONDS: Final = 900.0
_NOTE_SECONDS: Final = 0.2
_PAGE: Final = 250
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Poster:
    """What the job needs; without `slack`, alerts are kept and logged."""

    outbox: Outbox
    slack: SlackClient | None
    metrics: WorkerMetrics
    now_ms: Callable[[], int]
    _noting: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """Messages that Slack has taken and Redis does not know of yet."""

    async def post(self, claim: Claim) -> str:
        """One try at one message; its outcome as counted in `tollwatch_posts`.

        Redis' errors pass through: the lease ends by itself, and the message is chosen again.
        """
        try:
            return await self._attempt(claim)
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001
            return await self._failed(claim, error)

    async def _attempt(self, claim: Claim) -> str:
        if claim.id in self._noting:
            return await self._note(claim)
        begun = await self.outbox.begin(claim)
        if begun is None:
            return "lost"
        payload = await self._payload(begun)
        if payload is None:
            await self._close(claim, Delivery.KEPT, "all of its alerts were told before", payload)
            return "kept"
        if self.slack is None:
            await self._close(claim, Delivery.KEPT, "no SLACK_WEBHOOK_URL is set", payload)
            return "kept"
        outcome = await self._send(self.slack, claim, begun, payload)
        return await self._remember(claim, begun, outcome, payload)

    async def _payload(self, begun: Begun) -> dict[str, Any] | None:
        """The message; None for a summary of which nothing is left to tell."""
        subject, repeated = begun.subject, begun.repeated
        match subject:
            case Alert():
                return build_payload(subject, repeated=repeated)
            case Notice():
                return build_notice(subject, repeated=repeated)
            case Summary():
                tally = await self._tally(subject)
                if not tally.alerts and not tally.unreadable:
                    return None
                return build_summary(subject, tally, repeated=repeated)
            case _:
                assert_never(subject)

    async def _tally(self, summary: Summary) -> Tally:
        """The summary's alerts, page by page, so that other work goes on between them."""
        tally = Tally()
        async for body, repeated in self.outbox.untold(summary.id, page=_PAGE):
            try:
                tally.add(decode_alert(body), repeated=repeated)
            except msgspec.MsgspecError:
                tally.unreadable += 1
        return tally

    async def _send(
        self, slack: SlackClient, claim: Claim, begun: Begun, payload: Mapping[str, Any]
    ) -> Outcome:
        try:
            with self.metrics.post_seconds.time():
                outcome = await slack.post(payload)
            if isinstance(outcome, Rejected):
                # Told plainly is better than not told.
                _log.warning("blocks rejected", alert_id=claim.id, reason=outcome.reason)
                with self.metrics.post_seconds.time():
                    outcome = await slack.post({"text": payload["text"]})
        except asyncio.CancelledError:
            # A rollout that did not wait for Slack: nobody will ever know.
            await asyncio.shield(self._doubt(claim, begun, "cut off by the worker's end"))
            raise
        return outcome

    async def _remember(
        self, claim: Claim, begun: Begun, outcome: Outcome, payload: Mapping[str, Any]
    ) -> str:
        match outcome:
            case Posted():
                noted = await self._note(claim)
                if isinstance(begun.subject, Alert):
                    waited = self.now_ms() - begun.subject.decided_ms
                    self.metrics.alert_dwell.observe(max(0, waited) / 1000)
                return noted
            case RateLimited(retry_after_seconds=seconds):
                await self._wait(claim, seconds, "Slack's rate limit")
                return "rate_limited"
            case Transient(reason=reason, maybe_posted=True):
                await self._doubt(claim, begun, reason)
                return "in_doubt"
            case Transient(reason=reason):
                await self._wait(claim, _back_off(begun.failures), reason)
                return "transient"
            case Rejected(reason=reason, certain=True):
                await self._close(claim, Delivery.REFUSED, reason, payload)
                return "refused"
            case Closed(reason=reason) | Rejected(reason=reason):
                _log.error("Slack's channel is shut", alert_id=claim.id, reason=reason)
                await self._wait(claim, _back_off(begun.failures), reason)
                return "closed"
            case _:
                assert_never(outcome)

    async def _note(self, claim: Claim) -> str:
        """Remember that it was posted, however long it takes and whatever becomes of this job."""
        noting = self._noting.get(claim.id)
        if noting is None:
            noting = asyncio.create_task(self._keep_noting(claim))
            self._noting[claim.id] = noting
            noting.add_done_callback(lambda _: self._noting.pop(claim.id, None))
            await asyncio.shield(noting)
        else:
            # An earlier lease has posted it. This one only frees the channel.
            await asyncio.shield(noting)
            await self.outbox.close(claim, Delivery.POSTED)
        return "posted"

    async def _keep_noting(self, claim: Claim) -> None:
        while True:
            try:
                count = await self.outbox.close(claim, Delivery.POSTED)
            except RedisError as error:
                self.metrics.redis_errors.inc()
                _log.warning("posted, but not noted yet", error=type(error).__name__)
                await asyncio.sleep(_NOTE_SECONDS)
                continue
            fate = Delivery.SUMMARIZED if claim.id.endswith(keys.IS_SUMMARY) else Delivery.POSTED
            self.metrics.fates.labels(fate).inc(count or 0)
            _log.info("alert posted", alert_id=claim.id, alerts=count)
            return

    async def _failed(self, claim: Claim, error: Exception) -> str:
        reason = _cut(f"{type(error).__name__}: {error}")
        tries = await self.outbox.set_aside(
            claim, wait_ms=int(_ASIDE_SECONDS * 1000), reason=reason
        )
        _log.error("post failed", alert_id=claim.id, reason=reason, tries=tries, exc_info=error)
        return "failed"

    async def _close(
        self, claim: Claim, fate: Delivery, reason: str, payload: Mapping[str, Any] | None
    ) -> None:
        count = await self.outbox.close(claim, fate, reason=_cut(reason))
        self.metrics.fates.labels(fate).inc(count or 0)
        text = payload["text"] if payload else ""
        say = _log.error if fate is Delivery.REFUSED else _log.warning
        say(f"alert {fate}", alert_id=claim.id, reason=reason, text=text)

    async def _doubt(self, claim: Claim, begun: Begun, reason: str) -> None:
        """It may have arrived: it is repeated late. Others go on, unless this happens again."""
        seconds = _back_off(begun.doubts, _DOUBT_SECONDS)
        pause = _back_off(begun.failures - 1) if begun.failures else 0
        await self.outbox.doubt(
            claim,
            wait_ms=int(seconds * 1000),
            channel_ms=int(pause * 1000),
            reason=_cut(f"perhaps posted: {reason}"),
        )
        _log.warning("alert in doubt", alert_id=claim.id, reason=reason, seconds=round(seconds))

    async def _wait(self, claim: Claim, seconds: float, reason: str) -> None:
        await self.outbox.put_off(claim, wait_ms=int(seconds * 1000), reason=_cut(reason))
        _log.warning("alert waits", alert_id=claim.id, reason=reason, seconds=round(seconds, 1))


def _cut(reason: str) -> str:
    return reason[:300]


def _back_off(before: int, bounds: tuple[int, int] = _BACK_OFF_SECONDS) -> float:
    """Seconds to wait after so many troubles in a row before this one."""
    first, longest = bounds
    step = min(first * 2.0 ** min(before, 16), longest)
    return step * random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
