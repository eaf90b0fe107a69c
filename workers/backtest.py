"""What would have been alerted: the same judge over a file of sessions, in order of time.

Pure: sessions in, grounds and findings out. It begins with an empty memory, or with what was
learned so far, and learns from each session as a worker does.
"""

import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import msgspec

from service.dialled import in_clear
from service.direction import INBOUND, way
from workers.detection.baseline import DAY_MS, lesson_of
from workers.detection.budget import Budgets
from workers.detection.finding import Finding
from workers.detection.lasting import HOUR_MS
from workers.detection.memory import Memory
from workers.detection.opinion import Gates, Opinion, opinion_of
from workers.detection.replay import Replay
from workers.detection.velocity import Passed, Velocity
from workers.judge import Case, Grounds, duration_of, grounds_of, is_strange, measured_of
from workers.policy import Policy
from workers.recorded import Recorded

_FACT: Final = 6.0
"""The score that facts begin with: a broken rule is stranger than what is merely unlikely."""
_NOBODY: Final = ("", "", "")
_SLACK_MS: Final = 10 * 60_000


class OutOfOrder(Exception):
    """A session that ended long before the one ahead of it."""


class Judged(msgspec.Struct, frozen=True, gc=False):
    """What would have been said of one session."""

    session_id: str
    end_ms: int
    total: Decimal
    grounds: Grounds
    score: float


@dataclass(slots=True)
class Backtest:
    """The judge and its memory over one file."""

    policy: Policy
    memory: Memory = field(default_factory=Memory)
    findings: list[Finding] = field(default_factory=list)
    """What no single session shows, so far."""
    _gates: Gates = field(init=False)
    _budgets: Budgets = field(init=False)
    _replay: Replay = field(init=False)
    _last_ms: int = 0
    _last_id: str = ""

    def __post_init__(self) -> None:
        self._gates = Gates.of(self.policy)
        self._budgets = Budgets(self.policy.budgets, self.policy.currency)
        velocity = Velocity(least_excess=self.policy.severity.low, currency=self.policy.currency)
        self._replay = Replay(velocity)

    def session(self, recorded: Recorded) -> Judged:
        """Judges the next session, and learns from it. Raises OutOfOrder."""
        call, tree = recorded.call, recorded.tree
        end_ms = call.end_ms or 0
        if end_ms < self._last_ms - _SLACK_MS:
            raise OutOfOrder(
                f"it ended before {self._last_id}, which stands above it: sort the file by "
                "ended_at, or mend that one's"
            )
        if end_ms >= self._last_ms:
            self._last_ms, self._last_id = end_ms, call.session_id
        case = Case(tree=tree, call=call)
        opinion = self._opinion(case, end_ms)
        grounds = grounds_of(case, self.policy, opinion)
        if opinion is not None:
            self._learn(opinion, grounds, end_ms)
        self.findings += self._budgets.spent(
            end_ms, tree.charged, call.assistant_id, call.connection_id
        )
        self.findings += self._replay.add(passed(recorded, self.policy.currency))
        return Judged(call.session_id, end_ms, tree.total, grounds, score_of(grounds, opinion))

    def end(self) -> list[Finding]:
        """All findings, in the order in which they would have been told."""
        self.findings += self._replay.finish()
        return sorted(self.findings, key=lambda finding: finding.at_ms)

    def _opinion(self, case: Case, end_ms: int) -> Opinion | None:
        measured = measured_of(case, self.policy) if self.policy.learn else None
        if measured is None:
            return None
        ladder = self.memory.ladder(measured.ladder, end_ms // DAY_MS)
        return opinion_of(measured, ladder, self._gates)

    def _learn(self, opinion: Opinion, grounds: Grounds, end_ms: int) -> None:
        lesson = lesson_of(opinion.measured, end_ms)
        self.memory.learn(lesson, strange=is_strange(opinion, grounds))
        if opinion.unlikely:
            self.memory.keep_apart(opinion, end_ms // HOUR_MS)


def passed(recorded: Recorded, currency: str) -> Passed:
    """A session as it counts among the others; in another currency its cost says nothing.

    As if Telnyx had told of its beginning.
    """
    call = recorded.call
    # The names leave the process in no way, so they need not be digests.
    prefix, number, block = in_clear(recorded.called) if recorded.called else _NOBODY
    if way(call.direction or recorded.tree.direction) == INBOUND:
        # Where a call came in says nothing of what is dialled: no name, no shape.
        number = block = ""
    return Passed(
        ended_ms=call.end_ms or 0,
        started_ms=call.start_ms,
        entity=call.assistant_id or call.connection_id or "",
        country=call.to_country or "",
        prefix=prefix,
        number=number,
        block=block,
        duration_seconds=duration_of(call, recorded.tree),
        cost=recorded.tree.charged if recorded.tree.currency == currency else None,
        connection=call.connection_id or "",
    )


def score_of(grounds: Grounds, opinion: Opinion | None) -> float:
    """How strange a session is, comparable between sessions: higher is stranger."""
    learned = opinion.score if opinion else 0.0
    facts = [r for r in grounds.reasons if r.severity and r.learned_from is None]
    return max(learned, _FACT + math.log1p(float(facts[0].excess))) if facts else learned
