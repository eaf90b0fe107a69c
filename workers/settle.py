"""When a session's cost may be believed: when it is fetched, and what each answer means.

Telnyx promises no latency, and the parts of one call post at different times, so an answer may be
partial. A cost counts as settled when two planned fetches in a row, at least one configured
interval apart, agree in event count and total, and what this call must have is there.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from service.records import Fetch, Session, Watch


@dataclass(frozen=True, slots=True)
class Settled:
    """This is the final word: `settled` is False where time ran out before the answers agreed."""

    settled: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again at `due_ms`."""

    due_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No cost ever came, and the last age has passed."""

    reason: str


Step: TypeAlias = Settled | Wait | GiveUp


@dataclass(frozen=True, slots=True)
class Schedule:
    """The ages of `TOLLWATCH_FETCH_AFTER_SECONDS`, in milliseconds after the call's end."""

    ages_ms: tuple[int, ...]
    recheck_ms: int = 0
    """The age at which a session that has its verdict is looked at once more; 0 for never."""

    @classmethod
    def of_seconds(cls, ages: Sequence[int], recheck: int = 0) -> "Schedule":
        """From the settings: positive, strictly ascending."""
        return cls(tuple(age * 1000 for age in ages), recheck * 1000)

    @property
    def first_ms(self) -> int:
        """The age of the first fetch."""
        return self.ages_ms[0]

    def reached(self, age_ms: int) -> int:
        """How many of the ages have passed."""
        return bisect_right(self.ages_ms, age_ms)

    def next_due_ms(self, watch: Watch) -> int:
        """When the next planned fetch is due.

        At the next age not yet reached by a planned fetch, but never less than that age's interval
        after it: a fetch that came late must not make its successor a repetition of itself.
        """
        planned = [fetch for fetch in watch.fetches if fetch.planned]
        if not planned:
            return watch.end_ms + self.first_ms
        last = planned[-1].at_ms
        passed = self.reached(last - watch.end_ms)
        if passed >= len(self.ages_ms):
            return last
        interval = self.ages_ms[passed] - (self.ages_ms[passed - 1] if passed else 0)
        return max(watch.end_ms + self.ages_ms[passed], last + interval)

    def recheck_due_ms(self, watch: Watch, now_ms: int) -> int | None:
        """When the one look after the verdict is due; None where it is off, or was just made."""
        due_ms = watch.end_ms + self.recheck_ms
        return due_ms if self.recheck_ms and due_ms > now_ms else None

    def is_final(self, watch: Watch, now_ms: int) -> bool:
        """Whether the last age has passed."""
        return now_ms - watch.end_ms >= self.ages_ms[-1]


def current_watch(session: Session) -> Watch:
    """The session's watch; a later end than it was begun for begins it anew."""
    if session.watch.end_ms == session.end_ms:
        return session.watch
    return Watch(end_ms=session.end_ms)


def answered(watch: Watch, schedule: Schedule, fetch: Fetch) -> Watch:
    """The watch with one more answer; whether it was a planned one follows from its time."""
    planned = fetch.at_ms >= schedule.next_due_ms(watch)
    fetches = (*watch.fetches, msgspec.structs.replace(fetch, planned=planned))
    return msgspec.structs.replace(
        watch, fetches=fetches, last_ask_ms=fetch.at_ms, held=0, reason=""
    )


def held(watch: Watch, now_ms: int, reason: str) -> Watch:
    """The watch after an ask that brought no answer; no age and no try is used up."""
    return msgspec.structs.replace(watch, last_ask_ms=now_ms, held=watch.held + 1, reason=reason)


def settle(watch: Watch, schedule: Schedule) -> Step:
    """What the answers so far come to. The watch must hold at least one."""
    last = watch.fetches[-1]
    if agree(watch.fetches):
        return Settled(settled=True)
    if schedule.is_final(watch, last.at_ms):
        if any(fetch.ready for fetch in watch.fetches):
            return Settled(settled=False)
        return GiveUp("no cost came until the last age")
    return Wait(schedule.next_due_ms(watch), _why(watch.fetches))


def agree(fetches: Sequence[Fetch]) -> bool:
    """Whether the last two planned answers, and all since the first of these, say the same."""
    planned = [place for place, fetch in enumerate(fetches) if fetch.planned]
    if len(planned) < 2:  # noqa: PLR2004 - two in a row is the rule
        return False
    since = fetches[planned[-2] :]
    if not all(fetch.ready and fetch.expected for fetch in since):
        return False
    return len({(fetch.event_count, fetch.total) for fetch in since}) == 1


def _why(fetches: Sequence[Fetch]) -> str:
    last = fetches[-1]
    if not last.ready:
        return "no cost yet"
    if not last.expected:
        return "a part that this call must have is not there yet"
    if len(fetches) > 1 and fetches[-2].ready and fetches[-2].total != last.total:
        return "the cost still grows"
    return "one answer, waiting for a second that agrees"
