"""Looks at how many calls come, for all workers together: whoever is first looks, once in a while.

The counts are in Redis, put there by the web processes; what they show, `workers.detection` says.
The episode that begins and what is told of it are written in one step, so that whoever looks next
goes on there: nothing is told twice, or lost with a worker.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias, cast

from redis.asyncio import Redis

from service import keys
from service.counting import CALLS, DAYS_KEPT, SHAPES
from service.logs import get_logger
from service.owning import taker_in
from service.records import Notice
from service.store import Store
from workers.detection.finding import Finding
from workers.detection.mutes import NOBODY, Mute, mute_of_finding
from workers.detection.series import QUARTERS_KEPT
from workers.detection.velocity import HOUR_MS, MINUTE_MS, Episode, Key, Velocity
from workers.metrics import WorkerMetrics

_LOOK_MS: Final = 10_000
_RELOAD_MS: Final = HOUR_MS
"""So often all that is known is read anew; in between, what may have changed."""
_DAY_HOURS: Final = 24
_RECENT_MINUTES: Final = 15 * QUARTERS_KEPT + 15
_MOVED_MINUTES: Final = 60
"""So far back minutes are read again: a call may move to another owner when an event names it."""
_PAGE: Final = 500
_EPISODE_MS: Final = 2 * 86_400_000
_SEPARATOR: Final = "|"

_Burst: TypeAlias = tuple[tuple[int, int], int]

_log = get_logger()


@dataclass(slots=True)
class Lookout:
    """To be given a turn every few seconds. Redis' errors pass through.

    `least_excess` is the smallest excess in money that is told of; `mutes` says what is planned.
    """

    store: Store
    redis: Redis
    metrics: WorkerMetrics
    least_excess: Decimal
    currency: str
    mutes: Callable[[], Awaitable[Sequence[Mute]]]
    _velocity: Velocity = field(init=False)
    _minutes: dict[int, dict[str, int]] = field(default_factory=dict)
    _loaded_ms: int | None = None
    _looked_ms: int = 0
    _silent: set[Key] = field(default_factory=set)
    _noted: dict[str, str] = field(default_factory=dict)
    """The episodes as they were read, by name."""

    async def turn(self, *, now_ms: int) -> None:
        """Look, if nobody has for a while."""
        if now_ms - self._looked_ms < _LOOK_MS:
            return
        self._looked_ms = now_ms
        # Shorter than the wait above, so that whoever looked last may be the next.
        if await self.redis.set(keys.CALLS_LOOK, "1", nx=True, px=_LOOK_MS // 2):
            await self.look(now_ms=now_ms)

    async def look(self, *, now_ms: int) -> list[Finding]:
        """What the counts show now, told to the operators."""
        await self._read(now_ms)
        velocity = self._velocity
        known = {key: set(series.bursts.items()) for key, series in velocity.series.items()}
        found, mutes = velocity.look(now_ms), await self.mutes()
        takers = await self._takers(now_ms) if found and mutes else NOBODY
        told = self._unmuted(found, mutes, takers, now_ms)
        for finding in told:
            await self._tell(finding, now_ms)
        await self._write(now_ms, known)
        return told

    def _unmuted(
        self,
        findings: Sequence[Finding],
        mutes: Sequence[Mute],
        takers: Mapping[str, str],
        now_ms: int,
    ) -> list[Finding]:
        """Those to tell.

        The others are as if they had not begun, together with what is a part of them: what outlasts
        the mute is found then.
        """
        told, keys_told = [], set()
        for finding in findings:
            key = Key(finding.kind, finding.cohort)
            mute = mute_of_finding(mutes, finding, takers)
            if mute is None:
                told.append(finding)
                keys_told.add(key)
                self._silent.discard(key)
            elif key not in self._silent:
                self._silent.add(key)
                _log.info("finding muted", kind=key.kind, cohort=key.cohort, by=mute.by)
        if len(told) < len(findings):
            self._velocity.episodes = {
                key: episode
                for key, episode in self._velocity.episodes.items()
                if episode.begin_ms != now_ms or key in keys_told
            }
        return told

    async def _tell(self, finding: Finding, now_ms: int) -> None:
        key = Key(finding.kind, finding.cohort)
        notice = Notice(
            id=finding.id,
            kind=finding.kind,
            at_ms=finding.at_ms,
            text=finding.text,
            details=finding.details,
        )
        name, episodes = _SEPARATOR.join(key), self._velocity.episodes
        begun = (name, self._noted.get(name, ""), _as_text(episodes[key]))
        if await self.store.notify(notice, now_ms=now_ms, episode=begun):
            self.metrics.findings.labels(finding.kind).inc()
            _log.warning("finding", id=finding.id, kind=finding.kind, text=finding.text)
        else:
            # Somebody else has told of it, and knows better since when.
            del episodes[key]

    # --- from Redis -------------------------------------------------------------------------------

    async def _read(self, now_ms: int) -> None:
        today = now_ms // HOUR_MS // _DAY_HOURS
        is_due = self._loaded_ms is None or now_ms - self._loaded_ms >= _RELOAD_MS
        if is_due:
            self._velocity = Velocity(least_excess=self.least_excess, currency=self.currency)
            await self._read_days(range(today - DAYS_KEPT, today + 1))
            self._minutes = {}
            self._loaded_ms = now_ms
        else:
            await self._read_days(range(today - 1, today + 1))
        await self._read_minutes(now_ms // MINUTE_MS)
        self._velocity.episodes = await self._episodes()

    async def _read_days(self, days: Sequence[int]) -> None:
        async with self.redis.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.smembers(keys.CALLS_ROSTER + str(day))
            rosters = await pipe.execute()
        wanted = [
            (day, series.decode(errors="replace"))
            for day, roster in zip(days, rosters, strict=True)
            for series in sorted(roster)
        ]
        for first in range(0, len(wanted), _PAGE):
            page = wanted[first : first + _PAGE]
            async with self.redis.pipeline(transaction=False) as pipe:
                for day, name in page:
                    pipe.hgetall(f"{keys.CALLS_DAY}{day}:{name}")
                found = await pipe.execute()
            for (day, name), fields in zip(page, found, strict=True):
                self._take_in(day, _key(name), fields)
        for key, series in self._velocity.series.items():
            whole = self._velocity.series.get(Key(CALLS, key.cohort))
            if key.kind in SHAPES and whole:
                # A shape has been looked for as long as its calls have been counted.
                series.history.begin_hour = whole.history.begin_hour

    def _take_in(self, day: int, key: Key, fields: dict[bytes, bytes]) -> None:
        series = self._velocity.series.get(key)
        if series is None:
            hours = [int(name[1:]) for name in fields if name.startswith(b"c")]
            begin_hour = min(hours, default=day * _DAY_HOURS)
            series = self._velocity.of(key, begin_hour)
        amounts = {
            "k": series.known,
            "u": series.micros,
            "q": series.squares,
        }
        for name, value in fields.items():
            what, number = name[:1].decode(), name[1:].decode()
            if what == "b":
                minutes, _, hour = number.partition(":")
                series.bursts[int(minutes), int(hour)] = int(value)
                series.history.odd.add(int(hour))
            elif what == "c":
                series.history.correct(int(number), int(value))
            elif what in amounts and amounts[what].get(int(number)) != int(value):
                amounts[what][int(number)] = int(value)
                series.costs_changed(int(number))

    async def _read_minutes(self, now: int) -> None:
        newest = max(self._minutes, default=0)
        first = max(now - _RECENT_MINUTES, newest - _MOVED_MINUTES)
        wanted = range(first, now + 1)
        async with self.redis.pipeline(transaction=False) as pipe:
            for minute in wanted:
                pipe.hgetall(keys.CALLS_MINUTE + str(minute))
            found = await pipe.execute()
        for minute, fields in zip(wanted, found, strict=True):
            self._minutes[minute] = {
                name.decode(errors="replace"): int(calls) for name, calls in fields.items()
            }
        self._minutes = {m: c for m, c in self._minutes.items() if m >= now - _RECENT_MINUTES}
        self._count(now)

    def _count(self, now: int) -> None:
        counts: dict[str, dict[int, int]] = {}
        for minute, of_minute in sorted(self._minutes.items()):
            for name, calls in of_minute.items():
                counts.setdefault(name, {})[minute] = calls
        for key, series in self._velocity.series.items():
            series.count_anew(counts.get(_SEPARATOR.join(key), {}), now)

    async def _takers(self, now_ms: int) -> dict[str, str]:
        """By connection, who takes its calls; "" for one of several."""
        # redis-py types one method for its blocking and its asyncio client at once.
        found = await cast("Any", self.redis.hgetall(keys.CALLS_TAKERS))
        takers = {}
        for name, noted in found.items():
            connection = name.decode(errors="replace")
            taker = taker_in(noted, connection, now_ms)
            if taker is not None:
                takers[connection] = taker
        return takers

    async def _episodes(self) -> dict[Key, Episode]:
        # redis-py types one method for its blocking and its asyncio client at once.
        found = await cast("Any", self.redis.hgetall(keys.CALLS_EPISODES))
        episodes = {}
        self._noted = {name.decode(errors="replace"): text.decode() for name, text in found.items()}
        for name, text in self._noted.items():
            begin, last, over, told, *rest = text.split(" ")
            by = _key(" ".join(rest)) if rest else None
            episodes[_key(name)] = Episode(int(begin), int(last), int(over), told == "1", by)
        return episodes

    # --- to Redis ---------------------------------------------------------------------------------

    async def _write(self, now_ms: int, known: Mapping[Key, set[_Burst]]) -> None:
        """Episodes that go on, and the bursts that are not `known`."""
        velocity = self._velocity
        async with self.redis.pipeline() as pipe:
            for key, episode in velocity.episodes.items():
                name = _SEPARATOR.join(key)
                if now_ms - episode.last_ms > _EPISODE_MS:
                    pipe.hdel(keys.CALLS_EPISODES, name)
                else:
                    pipe.hset(keys.CALLS_EPISODES, name, _as_text(episode))
            pipe.pexpire(keys.CALLS_EPISODES, _EPISODE_MS)
            for key, before in known.items():
                for (minutes, hour), calls in velocity.series[key].bursts.items() - before:
                    of_day = f"{keys.CALLS_DAY}{hour // _DAY_HOURS}:{_SEPARATOR.join(key)}"
                    pipe.hset(of_day, f"b{minutes}:{hour}", str(calls))
                    pipe.pexpire(of_day, DAYS_KEPT * 86_400_000)
            await pipe.execute()


def _as_text(episode: Episode) -> str:
    told = int(episode.told)
    by = f" {_SEPARATOR.join(episode.by)}" if episode.by else ""
    return f"{episode.begin_ms} {episode.last_ms} {episode.over:.0f} {told}{by}"


def _key(name: str) -> Key:
    kind, _, cohort = name.partition(_SEPARATOR)
    return Key(kind, cohort)
