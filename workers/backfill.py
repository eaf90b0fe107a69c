"""Learning from the past: what calls usually cost, from what Telnyx still knows of them.

The lists are read as for webhooks that never came, but into a backlog of their own: nothing here
makes a session due, and nothing alerts. Then the sessions are asked for, several at a time, and
judged and learned from one by one in the order of their ends, as if the workers had seen them:
what is strange by what came before it does not teach.
"""

import asyncio
import enum
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Protocol, TypeAlias

from redis.exceptions import RedisError

from service.events import Scheduling
from service.records import Session, State, Watch
from service.store import Recorded, Store
from workers.analysis import decode_analysis
from workers.answer import Meaning, RateLimited, Refused, Transient, clean
from workers.attempt import Found
from workers.backlog import Backlog
from workers.complete import is_cut
from workers.detection.baseline import DAY_MS, Lesson, lesson_of
from workers.detection.ladder import Ladder
from workers.detection.leaning import LEAST_CALLS
from workers.detection.opinion import Gates, opinion_of
from workers.fetch import Analyses, WrongRequest, fetch
from workers.interruption import heed_cancellation
from workers.judge import Case, grounds_of, is_strange, measured_of
from workers.ledger import LeaseLost
from workers.policy import Policy
from workers.products import CALL_SESSION
from workers.reconcile import PATIENCE_SECONDS, Sleep, Stop, seconds_to_wait, stop_for
from workers.scrub import masked
from workers.settle import Schedule
from workers.tree import build_tree

AT_ONCE: Final = 16
LEAVE: Final = 0.25
"""The part of each window of a rate limit that is the workers' at any time."""
_TRIES: Final = 4
"""A session that alone gets no answer so often is left."""


class CameTo(enum.StrEnum):
    """What one session of the past came to."""

    LEARNED = "learned"
    APART = "apart"
    """It is strange by what was learned before it."""
    BEFORE = "before"
    """It had taught before."""
    NO_COST = "no_cost"
    UNFIT = "unfit"
    """A part of its cost is missing, or it is in another currency than the policy."""
    UNREADABLE = "unreadable"
    WAITING = "waiting"
    """It is the workers': they will learn from it."""


class Known(Protocol):
    """A cohort of which something is kept."""

    @property
    def calls(self) -> int:
        """How many it has learned from."""
        ...


class Taught(Protocol):
    """What has been learned, as `workers.baselines` has it."""

    async def ladder(self, names: Sequence[str], day: int) -> Ladder:
        """The baselines of a call's cohorts."""
        ...

    async def lesson(self, session_id: str) -> object | None:
        """What a session has taught; None where it has not."""
        ...

    async def learn(
        self,
        session_id: str,
        lesson: Lesson,
        *,
        ended_ms: int,
        strange: bool = False,
        causes: Sequence[tuple[str, str]] = (),
    ) -> bool:
        """Let it teach, once. Whether it has now."""
        ...

    async def cohorts(self, day: int) -> Sequence[Known]:
        """All cohorts."""
        ...


class Watcher(Protocol):
    """Who is told how it goes."""

    def done(self, done: int, total: int) -> None:
        """So many of so many sessions are done with."""
        ...

    def waiting(self, seconds: float, reason: str) -> None:
        """Telnyx is asked again only after so long."""
        ...

    def unreadable(self, session_id: str, reason: str) -> None:
        """A session from which nothing can be learned, and why."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    counts: Mapping[str, int]
    """Sessions by what they came to, in all runs that went on with each other."""
    left: int
    """Sessions that were found and are still to be learned from."""
    one_in: int
    """One of so many sessions was taken, since there were too many."""
    cohorts: int
    with_a_say: int
    """Cohorts with enough calls to be judged by on their own."""
    stop: Stop | None = None

    @property
    def found(self) -> int:
        """All sessions."""
        return sum(self.counts.values()) + self.left


class Stopped(Exception):
    """Whatever else were asked would meet the same."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class _Unanswered(Exception):
    """This question gets no answer, others may."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


@dataclass(frozen=True, slots=True)
class _Material:
    """A session and its cost, ready to be judged."""

    session: Session
    found: Found
    settled: bool = True


@dataclass(frozen=True, slots=True)
class _Aside:
    """A session that got no answer: its own fault, if others do get one."""

    stop: Stop


_Prepared: TypeAlias = _Material | _Aside | CameTo


@dataclass(frozen=True, slots=True)
class Patient:
    """Asks as often as there is a point in it. Raises Stopped, and _Unanswered for a session.

    What keeps us from a part of a session is handed on: the session is asked for anyway. Whoever
    meets a rate limit waits in a row, so that none waits for ever while others are luckier.
    """

    telnyx: Analyses
    waiting: Callable[[float, str], None]
    sleep: Sleep
    row: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def analysis(
        self,
        record_type: str,
        event_id: str,
        *,
        date_time: date | None = None,
        permitted: bool = False,
    ) -> Meaning:
        """As `TelnyxClient.analysis`."""

        async def ask() -> Meaning:
            return await self.telnyx.analysis(
                record_type, event_id, date_time=date_time, permitted=permitted
            )

        meaning = await ask()
        if isinstance(meaning, RateLimited):
            async with self.row:
                meaning = await self._asked(ask)
        else:
            meaning = await self._asked(ask, meaning)
        return _given_up(meaning) if record_type == CALL_SESSION else meaning

    async def _asked(
        self, ask: Callable[[], Awaitable[Meaning]], meaning: Meaning | None = None
    ) -> Meaning:
        """What it means after all patience."""
        waited, times = 0.0, 0
        while True:
            meaning = meaning or await ask()
            times += 1
            seconds = seconds_to_wait(meaning, times - 1)
            if _is_alone(meaning) and times >= _TRIES:
                seconds = None
            if seconds is None or waited + seconds > PATIENCE_SECONDS:
                return meaning
            self.waiting(seconds, getattr(meaning, "reason", ""))
            await self.sleep(seconds)
            waited, meaning = waited + seconds, None


def _is_alone(meaning: Meaning) -> bool:
    return isinstance(meaning, Transient | Refused) and not meaning.shut_seconds


def _given_up(meaning: Meaning) -> Meaning:
    if not isinstance(meaning, RateLimited | Transient | Refused):
        return meaning
    stop = stop_for("session_analysis", meaning)
    raise _Unanswered(stop) if _is_alone(meaning) else Stopped(stop)


@dataclass(slots=True)
class Backfill:
    """Learns from a backlog. Redis' errors and LeaseLost pass through."""

    backlog: Backlog
    store: Store
    taught: Taught
    telnyx: Analyses
    policy: Policy
    schedule: Schedule
    now_ms: Callable[[], int]
    sleep: Sleep = asyncio.sleep
    at_once: int = AT_ONCE
    _aside: dict[str, Stop] = field(default_factory=dict)
    _answered: bool = False

    async def run(self, watcher: Watcher) -> Report:
        """Learn from all that is left. What it was stopped at is left for the next run."""
        await self.backlog.thin()
        ids = await self.backlog.oldest_first()
        try:
            await self._learn_from(ids, watcher)
            await self._settle_aside(watcher)
        except Stopped as stopped:
            return await self.report(stopped.stop)
        report = await self.report()
        await self.backlog.clear()
        return report

    async def report(self, stop: Stop | None = None) -> Report:
        """How far it is."""
        cohorts = await self.taught.cohorts(self.now_ms() // DAY_MS)
        return Report(
            counts=await self.backlog.counts(),
            left=len(await self.backlog.oldest_first()),
            one_in=self.backlog.one_in,
            cohorts=len(cohorts),
            with_a_say=sum(cohort.calls >= LEAST_CALLS for cohort in cohorts),
            stop=stop,
        )

    async def _learn_from(self, ids: Sequence[str], watcher: Watcher) -> None:
        """Several are asked for ahead; one by one is learned from, in order."""
        telnyx = Patient(self.telnyx, watcher.waiting, self.sleep)
        ahead: deque[tuple[str, asyncio.Task[_Prepared]]] = deque()
        waiting, done = deque(ids), 0
        try:
            while waiting or ahead:
                heed_cancellation()
                while waiting and len(ahead) < self.at_once:
                    id = waiting.popleft()
                    task = asyncio.create_task(self._prepared(id, telnyx, watcher))
                    ahead.append((id, task))
                id, task = ahead[0]
                prepared = await task
                ahead.popleft()
                await self._finish(id, prepared, watcher)
                done += 1
                watcher.done(done, len(ids))
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _finish(self, id: str, prepared: _Prepared, watcher: Watcher) -> None:
        if isinstance(prepared, _Aside):
            self._aside[id] = prepared.stop
            return
        if isinstance(prepared, _Material):
            try:
                prepared = await self._learn(prepared)
            except _PASSING:
                raise
            except Exception as error:  # noqa: BLE001 - one session must not stop all of them
                prepared = _unreadable(id, error, watcher)
        await self.backlog.done(id, prepared)

    async def _settle_aside(self, watcher: Watcher) -> None:
        """Those without an answer are at fault themselves, if others were answered."""
        if self._aside and not self._answered:
            raise Stopped(next(iter(self._aside.values())))
        for id, stop in self._aside.items():
            watcher.unreadable(id, stop.reason)
            await self.backlog.done(id, CameTo.UNREADABLE)

    # --- one session ---

    async def _prepared(self, id: str, telnyx: Patient, watcher: Watcher) -> _Prepared:
        try:
            return await self._material(id, telnyx)
        except _Unanswered as unanswered:
            return _Aside(unanswered.stop)
        except _PASSING:
            raise
        except Exception as error:  # noqa: BLE001 - one session must not stop all of them
            return _unreadable(id, error, watcher)

    async def _material(self, id: str, telnyx: Patient) -> _Prepared:
        known = await seen(self.store, self.taught, id)
        if known is Seen.TAUGHT:
            return CameTo.BEFORE
        if known is Seen.OPEN:
            return CameTo.WAITING
        if isinstance(known, Session):
            body = await self.store.analysis(id)
            if body:
                return _stored(known, body)
        session = await self.backlog.session(id)
        watch = Watch(end_ms=session.end_ms)
        attempt = await fetch(
            telnyx, session, watch, self.schedule, now_ms=self.now_ms(), permitted=False
        )
        self._answered = True
        return _Material(session, attempt) if isinstance(attempt, Found) else CameTo.NO_COST

    async def _learn(self, material: _Material) -> CameTo:
        session, found = material.session, material.found
        case = Case(
            tree=found.tree,
            call=session.call,
            reported=session.reported,
            settled=material.settled,
            whole=found.whole,
            grafted=found.grafted,
            remarks=found.remarks,
        )
        measured = measured_of(case, self.policy) if case.trusted else None
        if measured is None:
            return CameTo.UNFIT
        ladder = await self.taught.ladder(measured.ladder, session.end_ms // DAY_MS)
        opinion = opinion_of(measured, ladder, Gates.of(self.policy))
        strange = is_strange(opinion, grounds_of(case, self.policy, opinion))
        learned = await self.taught.learn(
            session.id,
            lesson_of(measured, session.end_ms),
            ended_ms=session.end_ms,
            strange=strange,
            causes=opinion.causes,
        )
        if not learned:
            return CameTo.BEFORE
        return CameTo.APART if strange else CameTo.LEARNED


_PASSING: Final = (RedisError, OSError, LeaseLost, Stopped)


def _unreadable(id: str, error: Exception, watcher: Watcher) -> CameTo:
    # An error's words may quote what Telnyx sent.
    reason = str(error) if isinstance(error, WrongRequest) else f"{type(error).__name__}: {error}"
    watcher.unreadable(id, masked(clean(reason)))
    return CameTo.UNREADABLE


def _stored(session: Session, body: bytes) -> _Material:
    """What the workers found: it has settled, or it never will."""
    analysis = decode_analysis(body)
    tree = build_tree(analysis, CALL_SESSION)
    verdict = session.verdict
    whole = not is_cut(tree) and bool(verdict and verdict.complete)
    return _Material(session, Found(analysis, tree, whole=whole), bool(verdict and verdict.settled))


class Seen(enum.Enum):
    """Why nothing need be asked of a session."""

    TAUGHT = "taught"
    OPEN = "open"


async def seen(store: Store, taught: Taught, id: str) -> Seen | Session | None:
    """What is known of a session: that it has taught, that the workers have it, or its verdict."""
    if await taught.lesson(id) is not None:
        return Seen.TAUGHT
    session = await store.session(id)
    if session and session.state is State.OPEN:
        return Seen.OPEN
    return session if session and session.verdict else None


# --- a look ahead ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Glance:
    """What would be done: sessions that lists tell of, and nothing is kept."""

    ids: set[str] = field(default_factory=set)

    async def __call__(self, told: Scheduling, *, unless_told: bool) -> Recorded:
        """Remember the session."""
        if told.session_id in self.ids:
            return Recorded.KNOWN if unless_told else Recorded.MERGED
        self.ids.add(told.session_id)
        return Recorded.SCHEDULED


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would come of the sessions that were found."""

    found: int
    before: int
    """They have taught before."""
    waiting: int
    """They are the workers'."""
    stored: int
    """They would be learned from without asking Telnyx."""
    stop: Stop | None = None

    @property
    def asked(self) -> int:
        """They would be asked for."""
        return self.found - self.before - self.waiting - self.stored


async def outlook(
    ids: Sequence[str], store: Store, taught: Taught, *, stop: Stop | None
) -> Outlook:
    """Looks each session up; changes nothing."""
    counts: Counter[str] = Counter()
    for start in range(0, len(ids), AT_ONCE):
        page = ids[start : start + AT_ONCE]
        for known in await asyncio.gather(*(seen(store, taught, id) for id in page)):
            counts["stored" if isinstance(known, Session) else str(known and known.value)] += 1
    return Outlook(
        found=len(ids),
        before=counts["taught"],
        waiting=counts["open"],
        stored=counts["stored"],
        stop=stop,
    )
