"""When what was strange has become the new normal.

What is strange is not learned: an anomaly must not teach that it is usual. But it is counted, by
its cause and the hour, and where a cohort shows the same again and again, over hours and in more
than a few of its calls, it is a change and no accident.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HOUR_MS: Final = 3_600_000
_HOURS_A_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Enough:
    """So much evidence is enough, all of it."""

    calls: int
    hours: int
    """Different ones."""
    share: float
    """Of all calls of the cohort since the day of the first."""


_ENOUGH: Final = (
    Enough(calls=8, hours=4, share=0.5),
    Enough(calls=12, hours=8, share=0.02),
)
"""Either of them: most calls have it, or it goes on and on in some."""
_DAYS: Final = 14
"""What is older than the latest by so much is no evidence any more."""


@dataclass(slots=True)
class Evidence:
    """What was strange for one cause, in one cohort. All numbers are sums, so updates commute."""

    hours: dict[int, int] = field(default_factory=dict)
    """Calls by hour, counted from 1970."""
    buckets: dict[int, int] = field(default_factory=dict)
    """Of a measure: calls by their value's bucket."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(self.hours.values())

    def add(self, hour: int, bucket: int | None, times: int = 1) -> None:
        """One more call; -1 times takes it back."""
        self.hours[hour] = self.hours.get(hour, 0) + times
        if bucket is not None:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + times


@dataclass(frozen=True, slots=True)
class Change:
    """What was strange in a cohort and has become usual."""

    cohort: str
    cause: str
    """The measure or trait."""
    calls: int
    since_ms: int


def is_lasting(evidence: Evidence, days: Mapping[int, int]) -> bool:
    """Whether it is the new normal. `days`: the cohort's other calls, by day."""
    latest = max(evidence.hours, default=0)
    hours = {
        hour: calls
        for hour, calls in evidence.hours.items()
        if calls > 0 and hour > latest - _DAYS * _HOURS_A_DAY
    }
    calls = sum(hours.values())
    first, last = min(hours, default=0) // _HOURS_A_DAY, latest // _HOURS_A_DAY
    others = sum(number for day, number in days.items() if first <= day <= last)
    return any(
        calls >= enough.calls
        and len(hours) >= enough.hours
        and calls >= enough.share * (calls + others)
        for enough in _ENOUGH
    )
