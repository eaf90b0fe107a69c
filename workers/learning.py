"""What a worker does with what was learned: asks it about a cost, and teaches it the next one."""

from dataclasses import dataclass, replace
from typing import Final

from service.logs import get_logger
from service.records import Session, Verdict
from service.store import Store
from workers.attempt import Attempt
from workers.baselines import Baselines
from workers.decide import Rules, to_compare
from workers.detection.baseline import DAY_MS, lesson_of
from workers.detection.opinion import Gates, Opinion, opinion_of
from workers.judge import is_strange
from workers.metrics import WorkerMetrics
from workers.notices import new_normal_notice

_log: Final = get_logger()


@dataclass(frozen=True, slots=True)
class Learning:
    """Redis' errors pass through."""

    baselines: Baselines
    store: Store
    metrics: WorkerMetrics

    async def opinion(
        self, session: Session, attempt: Attempt, rules: Rules, *, now_ms: int
    ) -> Opinion | None:
        """What is thought of a final cost by what its like have cost; None where it is not."""
        measured = to_compare(session, attempt, rules, now_ms=now_ms)
        if measured is None:
            return None
        day = _ended_ms(session, now_ms) // DAY_MS
        ladder = await self.baselines.ladder(measured.ladder, day)
        return opinion_of(measured, ladder, Gates.of(rules.policy))

    async def learn(
        self, session: Session, opinion: Opinion, verdict: Verdict, *, now_ms: int
    ) -> None:
        """What a session with that verdict teaches, once; and whether that is the new normal.

        A cost of which something may be missing teaches nothing.
        """
        if not verdict.complete:
            return
        ended_ms = _ended_ms(session, now_ms)
        strange = is_strange(opinion, verdict)
        learned = await self.baselines.learn(
            session.id,
            lesson_of(opinion.measured, ended_ms),
            ended_ms=ended_ms,
            strange=strange,
            causes=opinion.causes,
        )
        if learned:
            self.metrics.lessons.labels("apart" if strange else "learned").inc()
            await self._tell_of_changes(opinion, verdict.currency, ended_ms, now_ms)

    async def _tell_of_changes(
        self, opinion: Opinion, currency: str, ended_ms: int, now_ms: int
    ) -> None:
        """Only of what would have been told without it."""
        mattering = {
            (cohort.cohort, each.name): replace(each, cohort=cohort)
            for each in opinion.told
            for cohort in opinion.concerned(each)
        }
        if not mattering:
            return
        found = await self.baselines.changes(list(mattering), ended_ms // DAY_MS)
        if not found:
            return
        # Of several cohorts in which the same has changed, the last and coarsest says it for all.
        changes = {c.cause: (c, mattering[c.cohort, c.cause]) for c in found}
        notice = new_normal_notice(
            list(changes.values()), opinion.measured, currency, now_ms=now_ms
        )
        if await self.store.notify(notice, now_ms=now_ms):
            _log.warning("new normal", text=notice.text)


def _ended_ms(session: Session, now_ms: int) -> int:
    return session.end_ms or now_ms
