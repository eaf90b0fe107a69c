"""Calls told of by their ends, as they happened: each counts when it began.

Pure. Whoever reads of calls in the order of their ends hears of their beginnings too late. So a
call waits until no other can be read of that began before.
"""

import heapq
from typing import Final, TypeAlias

from workers.detection.finding import Finding
from workers.detection.velocity import HOUR_MS, Passed, Underway, Velocity

_LONGEST_MS: Final = 4 * HOUR_MS
"""Telnyx ends calls after that, unless told otherwise: longer ones count late, and no others."""

_Moment: TypeAlias = tuple[int, int, Passed, Underway | None]
"""When it happens, its number (no two are alike), the call; of an end, what had begun."""


class Replay:
    """Plays calls into `velocity`."""

    def __init__(self, velocity: Velocity) -> None:
        self._velocity = velocity
        self._moments: list[_Moment] = []
        self._made = 0
        self._now_ms = 0

    def add(self, passed: Passed) -> list[Finding]:
        """One more call, none of which ended much earlier; what has come to light meanwhile."""
        is_heard = passed.connection and passed.started_ms is not None
        begun_ms = passed.started_ms if is_heard else None
        self._push(passed.ended_ms if begun_ms is None else begun_ms, passed, None)
        return self._play(passed.ended_ms - _LONGEST_MS)

    def finish(self) -> list[Finding]:
        """There are no more calls; what the rest of them shows."""
        return self._play(None)

    def _push(self, at_ms: int, passed: Passed, underway: Underway | None) -> None:
        self._made += 1
        heapq.heappush(self._moments, (at_ms, self._made, passed, underway))

    def _play(self, until_ms: int | None) -> list[Finding]:
        """All that happened before a moment."""
        found: list[Finding] = []
        moments = self._moments
        while moments and (until_ms is None or moments[0][0] < until_ms):
            at_ms, _, passed, underway = heapq.heappop(moments)
            self._now_ms = now_ms = max(self._now_ms, at_ms)
            if underway is None:
                begun, shown = self._velocity.begin(passed, now_ms)
                found += shown
                self._push(passed.ended_ms, passed, begun)
            else:
                found += self._velocity.end(passed, underway, now_ms)
        return found
