"""The job that takes one due session a step further: ask, decide, conclude.

It knows nothing of arq. When the session is to be looked at again, its conclusion says so, and the
line of due sessions remembers it; nothing depends on this job being tried again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from service.dead import kind_of
from service.logs import get_logger
from service.queue import MOST_ORPHANED, Claim
from service.records import Conclusion, Session, State, Verdict, Watch
from service.store import Concluded, Store
from workers.analysis import decode_analysis
from workers.answer import clean
from workers.attempt import Attempt, Found, Held, NothingYet
from workers.complete import is_cut
from workers.decide import Rules, decide
from workers.detection.opinion import Opinion
from workers.evidence import Evidence, gathering
from workers.feedback import FeedbackBook
from workers.fetch import fetch
from workers.learning import Learning
from workers.metrics import WorkerMetrics
from workers.notices import most_alerts_notice
from workers.products import CALL_SESSION
from workers.scrub import masked
from workers.settle import current_watch
from workers.telnyx import TelnyxClient
from workers.tree import build_tree

MOST_FAILURES: Final = 6
WORKER_ENDED: Final = "WorkerEnded"
"""The kind of a dead letter that took its workers with it."""
# Each request is bounded, and completing is; this is for all of them together.
_ASK_SECONDS: Final = 180.0
# Four times as long after each: six tries take about three hours, as the ages do.
_FAILURE_SECONDS: Final = 30
_log = get_logger()


@dataclass(frozen=True, slots=True)
class Analyst:
    """What the job needs. `now_ms` is the clock, in milliseconds since 1970."""

    store: Store
    telnyx: TelnyxClient
    rules: Rules
    metrics: WorkerMetrics
    now_ms: Callable[[], int]
    learning: Learning
    feedback: FeedbackBook

    async def analyze(self, claim: Claim) -> str:
        """One attempt; its outcome as counted in `tollwatch_attempts`.

        Redis' errors pass through: the lease is given back or ends, and the session is due again.
        """
        if claim.orphaned >= MOST_ORPHANED:
            return await self._given_up(claim)
        with gathering() as evidence:
            try:
                return await self._attempt(claim)
            except RedisError:
                raise
            except Exception as error:  # noqa: BLE001
                # Whatever breaks our code: this session's tries are counted, and the others go on.
                return await self._failed(claim, error, evidence)

    async def _attempt(self, claim: Claim) -> str:
        session = await self.store.take(claim.id, claim.token)
        if session is None:
            return "lost"
        asked_ms = self.now_ms()
        attempt = await self._ask(session)
        # An answer is as old as its question: whatever took long since then, a Redis that was away
        # for one, must not make an early look the last one. A wait begins now.
        at_ms = self.now_ms() if isinstance(attempt, Held) else asked_ms
        conclusion, opinion = await self._decided(session, attempt, at_ms)
        decided_ms = self.now_ms()
        concluded = await self.store.conclude(session, claim.token, conclusion, now_ms=decided_ms)
        outcome = self._tell(session, attempt, conclusion, concluded)
        if concluded is Concluded.CAPPED:
            await self._tell_of_the_cap(decided_ms)
        if concluded.is_written and opinion and conclusion.verdict:
            await self.learning.learn(session, opinion, conclusion.verdict, now_ms=decided_ms)
        return outcome

    async def _decided(
        self, session: Session, attempt: Attempt, at_ms: int
    ) -> tuple[Conclusion, Opinion | None]:
        mutes = await self.feedback.mutes()
        decided = partial(decide, session, attempt, self.rules, now_ms=at_ms, mutes=mutes)
        try:
            opinion = await self.learning.opinion(session, attempt, self.rules, now_ms=at_ms)
            return decided(opinion=opinion), opinion
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001
            # Ceilings and other facts do not hang on what was learned. If these fail, too, it was
            # no opinion that broke.
            conclusion = decided()
            self.metrics.opinions_failed.inc()
            _log.error("judged without what was learned", exc_info=error)
            return conclusion, None

    async def _tell_of_the_cap(self, now_ms: int) -> None:
        self.metrics.capped.inc()
        notice = most_alerts_notice(self.rules.policy.most_alerts_per_day, now_ms=now_ms)
        if notice and await self.store.notify(notice, now_ms=now_ms):
            _log.warning("no more alerts on this day", text=notice.text)

    async def _ask(self, session: Session) -> Attempt:
        watch = current_watch(session)
        schedule = self.rules.schedule
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                attempt = await fetch(self.telnyx, session, watch, schedule, now_ms=self.now_ms())
        except TimeoutError:
            # Telnyx's slowness is not a failure of ours.
            return Held(_ASK_SECONDS, f"no answer within {_ASK_SECONDS:.0f} s")
        if isinstance(attempt, NothingYet) and _had_cost(watch):
            return replace(attempt, last=await self._last_found(session.id))
        return attempt

    async def _last_found(self, session_id: str) -> Found | None:
        """What an earlier answer held: a cost gone from the API has been seen all the same."""
        body = await self.store.analysis(session_id)
        if body is None:
            return None
        analysis = decode_analysis(body)
        remark = "Telnyx no longer shows this session's cost; this is what an earlier answer held"
        tree = build_tree(analysis, CALL_SESSION)
        return Found(analysis, tree, (remark,), whole=not is_cut(tree))

    async def _given_up(self, claim: Claim) -> str:
        """It is not even tried: whoever did has not lived to tell."""
        reason = f"{claim.orphaned} workers in a row ended while they worked on it"
        failures = await self.store.fail(
            claim.id,
            claim.token,
            now_ms=self.now_ms(),
            first_wait_ms=0,
            most_failures=1,
            kind=WORKER_ENDED,
            reason=reason,
        )
        _log.error("given up", reason=reason, failures=failures)
        if not failures:
            return "failed"
        self.metrics.ended.labels(State.DEAD).inc()
        return "dead"

    async def _failed(self, claim: Claim, error: Exception, evidence: Evidence) -> str:
        now_ms = self.now_ms()
        # An error's words may quote what Telnyx sent.
        reason = masked(clean(f"{type(error).__name__}: {error}"))
        failures = await self.store.fail(
            claim.id,
            claim.token,
            now_ms=now_ms,
            first_wait_ms=_FAILURE_SECONDS * 1000,
            most_failures=MOST_FAILURES,
            kind=kind_of(error),
            reason=reason,
            raw=_kept(evidence),
        )
        dead = failures is not None and failures >= MOST_FAILURES
        _log.error("attempt failed", reason=reason, failures=failures, dead=dead, exc_info=error)
        if dead:
            self.metrics.ended.labels(State.DEAD).inc()
        return "dead" if dead else "failed"

    def _tell(
        self, session: Session, attempt: Attempt, conclusion: Conclusion, concluded: Concluded
    ) -> str:
        if not concluded.is_written:
            _log.info("attempt without effect", outcome=concluded.value)
            return concluded.value
        if isinstance(attempt, Found):
            self.metrics.tree_events.observe(len(attempt.tree.events))
        if conclusion.alert and concluded is not Concluded.CAPPED:
            self.metrics.alerts.labels(conclusion.alert.severity).inc()
            _log.warning("alert decided", alert_id=conclusion.alert.id)
        if conclusion.muted:
            self.metrics.muted.inc()
            _log.info("alert muted")
        if session.state is State.VERDICT:
            return self._rechecked(attempt, conclusion)
        if conclusion.state is State.OPEN:
            _log.info("waiting", reason=conclusion.reason, next_due_ms=conclusion.next_due_ms)
            return "held" if isinstance(attempt, Held) else "waiting"
        return self._ended(session, conclusion)

    def _ended(self, session: Session, conclusion: Conclusion) -> str:
        self.metrics.ended.labels(conclusion.state).inc()
        verdict = conclusion.verdict
        if verdict is None:
            _log.warning("unavailable", reason=conclusion.reason)
            return "unavailable"
        self.metrics.verdict_age.observe(max(0, verdict.at_ms - session.end_ms) / 1000)
        self._judged(verdict)
        return "settled"

    def _rechecked(self, attempt: Attempt, conclusion: Conclusion) -> str:
        if conclusion.recheck_ms is not None:
            _log.info("re-check waits", reason=conclusion.reason, next_ms=conclusion.recheck_ms)
            return "held"
        if isinstance(attempt, Found):
            outcome = "changed" if conclusion.verdict else "unchanged"
        else:
            outcome = "given_up" if isinstance(attempt, Held) else "unknown"
        self.metrics.rechecks.labels(outcome).inc()
        _log.info("looked at again", outcome=outcome, reason=conclusion.reason)
        if conclusion.verdict:
            self._judged(conclusion.verdict)
        return "rechecked"

    def _judged(self, verdict: Verdict) -> None:
        self.metrics.verdicts.labels(verdict.severity or "none").inc()
        for reason in verdict.reasons:
            self.metrics.reasons.labels(reason.code).inc()
        _log.info(
            "verdict",
            total=verdict.total,
            currency=verdict.currency,
            severity=verdict.severity,
            settled=verdict.settled,
            complete=verdict.complete,
            reasons=[reason.code for reason in verdict.reasons],
        )


def _had_cost(watch: Watch) -> bool:
    return any(fetch.ready for fetch in watch.fetches)


def _kept(evidence: Evidence) -> bytes:
    """What Telnyx answered; nothing where keeping it breaks, too: the failure has to be counted."""
    try:
        return evidence.raw()
    except Exception as error:  # noqa: BLE001
        _log.error("the answer cannot be kept", exc_info=error)
        return b""
