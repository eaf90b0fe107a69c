"""What calls usually cost, in Redis: written by any number of workers without reading first.

The pure core (`workers.detection`) says what a call teaches and what is usual by it; this keeps the
integers in between. All of them are sums, so the order in which workers add does not matter. Each
session teaches once: what it has taught is remembered beside it, is the mark of that, and is all
that it takes to take it back.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_not
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from service import keys
from workers.detection.baseline import DAYS, Baseline, Lesson, Sheet, fit, sheet_of
from workers.detection.cohort import ACCOUNT
from workers.detection.ladder import Ladder
from workers.detection.lasting import HOUR_MS, Change, Evidence, is_lasting
from workers.detection.leaning import LEAST_CALLS
from workers.detection.memory import Memory
from workers.sheets import (
    CALLS,
    LONGEST_NAME,
    Taught,
    decode_taught,
    encode_taught,
    evidence_fields,
    fields_of,
    flat,
    read_evidence,
    read_sheet,
    taught,
)

DAY_MS: Final = 86_400_000
MOST_COHORTS: Final = 5_000
MOST_FIELDS: Final = 2_000
_WEEK_MS: Final = 7 * DAY_MS
# A sheet is read until the one after it is full.
SHEET_KEPT_MS: Final = (2 * DAYS + 1) * DAY_MS
STRANGE_KEPT_MS: Final = 14 * DAY_MS

_LEAST_MARK_MS: Final = (DAYS + 1) * DAY_MS
"""A backfill reaches back as far as that: however short the retention, it finds who has taught."""

_FRESH_SECONDS: Final = 60.0
_FRESH_SHARE: Final = 0.15
"""A baseline is read anew when this process has added so many times its calls."""
_MOST_FITTED: Final = 2_000
_MOST_LADDERS: Final = 1_000
_PAGE: Final = 100

# What a session has taught is `{first} {now} {lesson}`: how many times each of its cohorts learned
# from it at first and has by now, and last whether it counts as evidence. The lesson is packed.
#
# A hash that is full counts on in the fields that it has. A cohort that is not there and finds no
# place takes nothing: its calls are counted in the coarser ones.
_TEACH: Final = f"""
local mark, cohorts = KEYS[1], KEYS[2]
local ladder, fields, causes = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2]),
                               cmsgpack.unpack(ARGV[3])
local sheet, ended, kept = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local function sheet_key(name, number)
  return '{keys.BASELINE}' .. name .. ':' .. string.format('%.0f', number)
end
local function calls(name)
  return tonumber(redis.call('HGET', sheet_key(name, sheet), '{CALLS}') or 0)
       + tonumber(redis.call('HGET', sheet_key(name, sheet - 1), '{CALLS}') or 0)
end
local function give_way(name, last)
  local number = math.floor(last / {DAYS * DAY_MS})
  redis.call('ZREM', cohorts, name)
  redis.call('UNLINK', '{keys.STRANGE}' .. name, sheet_key(name, number),
             sheet_key(name, number - 1))
end
local function place(name)
  if #name > {LONGEST_NAME} then return false end
  if name ~= '{ACCOUNT}' and not redis.call('ZSCORE', cohorts, name)
     and redis.call('ZCARD', cohorts) >= {MOST_COHORTS} then
    local oldest = redis.call('ZRANGE', cohorts, 0, 1, 'WITHSCORES')
    local at = oldest[1] == '{ACCOUNT}' and 3 or 1
    local last = tonumber(oldest[at + 1] or nil)
    if not last or last + {_WEEK_MS} >= ended then return false end
    give_way(oldest[at], last)
  end
  redis.call('ZADD', cohorts, 'GT', string.format('%.0f', ended), name)
  redis.call('PEXPIRE', cohorts, {SHEET_KEPT_MS})
  return true
end
local function add(key, field, by, may_be_new)
  if not may_be_new and redis.call('HEXISTS', key, field) == 0 then return end
  if redis.call('HINCRBY', key, field, by) == 0 then
    redis.call('HDEL', key, field)
  end
end
local function learn(name, times)
  local key = sheet_key(name, sheet)
  local has_room = times > 0 and redis.call('HLEN', key) < {MOST_FIELDS}
  for i = 1, #fields, 2 do
    -- The first two are how many calls there are, and on that day.
    add(key, fields[i], fields[i + 1] * times, has_room or (times > 0 and i <= 3))
  end
  if times > 0 then redis.call('PEXPIRE', key, {SHEET_KEPT_MS}) end
end
local function keep_apart(times)
  for i = 1, #causes, 2 do
    local key = '{keys.STRANGE}' .. causes[i]
    if redis.call('ZSCORE', cohorts, causes[i]) then
      if times > 0 and redis.call('HLEN', key) >= {MOST_FIELDS} then
        -- Full of what is no evidence any more, or nearly so: what is strange now begins anew.
        redis.call('UNLINK', key)
      end
      for _, field in ipairs(causes[i + 1]) do add(key, field, times, times > 0) end
      if times > 0 then redis.call('PEXPIRE', key, {STRANGE_KEPT_MS}) end
    end
  end
end
"""

_LEARN: Final = (
    _TEACH
    + f"""
local lesson, strange = ARGV[7], ARGV[8]
if redis.call('EXISTS', mark) == 1 then return 0 end
local counts = {{}}
for i, name in ipairs(ladder) do
  local times = 0
  if place(name) and (strange == '' or calls(name) < {LEAST_CALLS}) then times = 1 end
  if times > 0 then learn(name, times) end
  counts[i] = times
end
keep_apart(1)
counts[#counts + 1] = #causes > 0 and 1 or 0
local said = table.concat(counts, ',')
redis.call('SET', mark, said .. ' ' .. said .. ' ' .. lesson, 'PX', kept)
return 1
"""
)

_CHANGE: Final = (
    _TEACH
    + """
local wanted = ARGV[7]
local first, now, lesson = string.match(redis.call('GET', mark) or '', '^(%S+) (%S+) (.+)$')
if not first then return 0 end
local function numbers(said)
  local found = {}
  for each in string.gmatch(said, '%d+') do found[#found + 1] = tonumber(each) end
  return found
end
local target, counts = numbers(first), numbers(now)
local last = #counts
for i, name in ipairs(ladder) do
  local times = wanted == '' and target[i] or tonumber(wanted)
  if times < counts[i] or (times > counts[i] and place(name)) then
    learn(name, times - counts[i])
    counts[i] = times
  end
end
local apart = wanted == '' and target[last] or 0
if apart ~= counts[last] then
  keep_apart(apart - counts[last])
  counts[last] = apart
end
local said = table.concat(counts, ',')
redis.call('SET', mark, first .. ' ' .. said .. ' ' .. lesson, 'KEEPTTL')
return said == now and 0 or 1
"""
)


@dataclass(frozen=True, slots=True)
class Known:
    """A cohort of which something is kept."""

    name: str
    last_ms: int
    """When its last call ended."""
    calls: int
    """On the sheets that are read."""


@dataclass(slots=True)
class _Fitted:
    baseline: Baseline
    sheet: int
    read_at: float
    learned: int = 0
    """By this process since then."""


@dataclass(slots=True)
class _Reading:
    """A baseline that is being read, and what this process has learned of it meanwhile."""

    task: "asyncio.Task[dict[str, Baseline]]"
    learned: int = 0
    traits: set[str] = field(default_factory=set)


class Baselines:
    """What has been learned, in one Redis. Redis' errors pass through to the caller."""

    def __init__(
        self,
        redis: Redis,
        *,
        retention_ms: int,
        on_read: Callable[[bool], None] = lambda _: None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_read` hears of each ladder whether all of it was at hand; `seconds` is the clock."""
        self._redis = redis
        self.retention_ms = retention_ms
        self._on_read = on_read
        self._seconds = seconds
        self._learn = redis.register_script(_LEARN)
        self._change = redis.register_script(_CHANGE)
        self._fitted: OrderedDict[str, _Fitted] = OrderedDict()
        self._ladders: OrderedDict[str, Ladder] = OrderedDict()
        self._readings: dict[tuple[str, int], _Reading] = {}
        """By cohort and sheet, those under way."""

    # --- what is usual ---

    async def ladder(self, names: Sequence[str], day: int) -> Ladder:
        """The baselines of a call's cohorts, for judging it on that day.

        What is at hand is at most a minute old, and knows what this process has learned. One round
        trip else.
        """
        found = {name: fitted.baseline for name in names if (fitted := self._at_hand(name, day))}
        lacking = [name for name in names if name not in found]
        self._on_read(not lacking)
        if lacking:
            found |= await self._shared(lacking, day)
        return self._ladder([found[name] for name in names], names[0])

    async def baseline(self, name: str, day: int) -> Baseline:
        """What is usual in one cohort, read anew; `EMPTY` where nothing is known."""
        ((sheets, strange),) = await self._read([name], day)
        return fit(name, sheets, strange, day)

    async def sheets(self, name: str, day: int) -> tuple[dict[int, Sheet], dict[str, Evidence]]:
        """All that is kept of one cohort: what was learned, and what was kept apart."""
        (found,) = await self._read([name], day)
        return found

    async def changes(self, causes: Sequence[tuple[str, str]], day: int) -> list[Change]:
        """Which of these, cohorts with causes, are the new normal by now."""
        names = list(dict.fromkeys(cohort for cohort, _ in causes))
        read = dict(zip(names, await self._read(names, day), strict=True))
        found = []
        for cohort, cause in causes:
            sheets, strange = read[cohort]
            evidence, days = strange.get(cause), _days(sheets)
            if evidence and is_lasting(evidence, days):
                since = min(hour for hour, calls in evidence.hours.items() if calls > 0)
                found.append(Change(cohort, cause, evidence.calls, since * HOUR_MS))
        return found

    # --- learning ---

    async def learn(
        self,
        session_id: str,
        lesson: Lesson,
        *,
        ended_ms: int,
        strange: bool = False,
        causes: Sequence[tuple[str, str]] = (),
    ) -> bool:
        """Every cohort of the session learns from it, once; of a strange one those without a say.

        `causes`: what was strange, as cohorts with measures or traits: evidence of a change.
        Whether it has taught now; False where it had before.
        """
        whole = taught(lesson, ended_ms, causes)
        learned = await self._learn(
            keys=[keys.lesson_key(session_id), keys.COHORTS],
            args=[
                *_arguments(whole, self.retention_ms),
                encode_taught(whole),
                "1" if strange else "",
            ],
        )
        if learned:
            self._note(whole)
        return bool(learned)

    async def lesson(self, session_id: str) -> Taught | None:
        """What a session has taught, or had; None where it is not known (any more)."""
        marked = await self._redis.get(keys.lesson_key(session_id))
        return decode_taught(marked.split(b" ", 2)[2]) if marked else None

    async def unlearn(self, session_id: str) -> bool:
        """Take back all that a session has taught, evidence included. Whether that was anything.

        It does not teach again, but by `restore` or `widen`.
        """
        return await self._teach(session_id, "0")

    async def widen(self, session_id: str, times: int) -> bool:
        """Let all cohorts of a session learn from it as often as from so many calls.

        It is no evidence of a change any more. Whether that was news; False, too, for a session of
        which no lesson is known.
        """
        return await self._teach(session_id, str(times))

    async def restore(self, session_id: str) -> bool:
        """Undo `unlearn` and `widen`: it has taught what it taught at first. Whether it had not."""
        return await self._teach(session_id, "")

    async def _teach(self, session_id: str, times: str) -> bool:
        whole = await self.lesson(session_id)
        if whole is None:
            return False
        changed = await self._change(
            keys=[keys.lesson_key(session_id), keys.COHORTS],
            args=[*_arguments(whole, self.retention_ms), times],
        )
        names = [*whole.ladder, *(cohort for cohort, _ in whole.causes)]
        self._forget(names)
        return bool(changed)

    # --- all of it ---

    async def count(self) -> int:
        """How many cohorts are kept."""
        return int(await self._redis.zcard(keys.COHORTS))

    async def cohorts(self, day: int) -> list[Known]:
        """All cohorts of which something is known on a day, those with the latest calls first."""
        found: list[Known] = []
        numbers = _sheets(day)
        async for page in self._pages():
            async with self._redis.pipeline(transaction=False) as pipe:
                for name, _ in page:
                    for number in numbers:
                        pipe.hget(keys.sheet_key(name, number), CALLS)
                counts: list[bytes | None] = await pipe.execute()
            for place, (name, last_ms) in enumerate(page):
                mine = counts[place * len(numbers) : (place + 1) * len(numbers)]
                calls = sum(int(each or 0) for each in mine)
                if calls > 0:
                    found.append(Known(name, last_ms, calls))
        return found

    async def memory(self, day: int) -> Memory:
        """All that is known on a day, to go on with in this process alone."""
        memory = Memory()
        async for page in self._pages():
            names = [name for name, _ in page]
            for name, (sheets, strange) in zip(names, await self._read(names, day), strict=True):
                memory.begin_with(name, sheets, strange)
        return memory

    async def _pages(self) -> AsyncIterator[list[tuple[str, int]]]:
        start = 0
        while page := await self._redis.zrevrange(
            keys.COHORTS, start, start + _PAGE - 1, withscores=True
        ):
            yield [(name.decode(), int(last)) for name, last in page]
            start += _PAGE

    # --- at hand ---

    def _at_hand(self, name: str, day: int) -> _Fitted | None:
        fitted = self._fitted.get(name)
        if (
            fitted is None
            or fitted.sheet != sheet_of(day)
            or self._seconds() - fitted.read_at > _FRESH_SECONDS
            or fitted.learned > _FRESH_SHARE * fitted.baseline.calls
        ):
            return None
        self._fitted.move_to_end(name)
        return fitted

    def _keep(self, name: str, fitted: _Fitted) -> None:
        self._fitted[name] = fitted
        self._fitted.move_to_end(name)
        if len(self._fitted) > _MOST_FITTED:
            self._fitted.popitem(last=False)

    def _note(self, whole: Taught) -> None:
        traits = set(whole.traits)
        names = set(whole.ladder)
        for (name, _), reading in self._readings.items():
            if name in names:
                reading.learned += 1
                reading.traits |= traits
        for name in whole.ladder:
            fitted = self._fitted.get(name)
            if fitted is None:
                continue
            fitted.learned += 1
            # One that was never seen must be known at once, or it would be new again.
            if not fitted.baseline.traits.keys() >= traits:
                del self._fitted[name]
        self._forget([cohort for cohort, _ in whole.causes])

    def _forget(self, names: Iterable[str]) -> None:
        """Have them read anew: what was asked for until now may not know what has changed."""
        for name in names:
            self._fitted.pop(name, None)
            for key in [key for key in self._readings if key[0] == name]:
                del self._readings[key]

    def _ladder(self, baselines: Sequence[Baseline], finest: str) -> Ladder:
        ladder = self._ladders.get(finest)
        if ladder is None or any(map(is_not, ladder.baselines, baselines)):
            ladder = self._ladders[finest] = Ladder(baselines)
        self._ladders.move_to_end(finest)
        if len(self._ladders) > _MOST_LADDERS:
            self._ladders.popitem(last=False)
        return ladder

    async def _shared(self, names: Sequence[str], day: int) -> dict[str, Baseline]:
        """Baselines read now, each by one reader: sessions that want the same come together.

        Else all that are at work would read the account's in the same moment, once a minute.
        """
        number = sheet_of(day)
        alone = [name for name in names if (name, number) not in self._readings]
        if alone:
            task = asyncio.create_task(self._fit(alone, day))
            for name in alone:
                self._readings[name, number] = _Reading(task)
            task.add_done_callback(self._over)
        tasks = dict.fromkeys(self._readings[name, number].task for name in names)
        found: dict[str, Baseline] = {}
        for task in tasks:
            # Who is cancelled does not take it away from the others.
            found |= await asyncio.shield(task)
        return found

    async def _fit(self, names: Sequence[str], day: int) -> dict[str, Baseline]:
        begun, number = self._seconds(), sheet_of(day)
        read = zip(names, await self._read(names, day), strict=True)
        found = {name: fit(name, sheets, strange, day) for name, (sheets, strange) in read}
        for name, baseline in found.items():
            reading = self._readings.get((name, number))
            if (
                reading is not None
                and reading.task is asyncio.current_task()
                and baseline.traits.keys() >= reading.traits
            ):
                self._keep(name, _Fitted(baseline, number, begun, reading.learned))
        return found

    def _over(self, task: "asyncio.Task[dict[str, Baseline]]") -> None:
        over = [key for key, reading in self._readings.items() if reading.task is task]
        for key in over:
            del self._readings[key]
        if not task.cancelled():
            # Whoever still waits for it hears of it; asyncio need not complain that nobody does.
            task.exception()

    async def _read(
        self, names: Sequence[str], day: int
    ) -> list[tuple[dict[int, Sheet], dict[str, Evidence]]]:
        numbers = _sheets(day)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                for number in numbers:
                    pipe.hgetall(keys.sheet_key(name, number))
                pipe.hgetall(keys.strange_key(name))
            found: list[Mapping[bytes, bytes]] = await pipe.execute()
        step = len(numbers) + 1
        return [
            (
                {
                    number: read_sheet(number, fields)
                    for number, fields in zip(numbers, found[at : at + step - 1], strict=True)
                    if fields
                },
                read_evidence(found[at + step - 1]),
            )
            for at in range(0, len(found), step)
        ]


def _sheets(day: int) -> tuple[int, int]:
    number = sheet_of(day)
    return number - 1, number


def _days(sheets: Mapping[int, Sheet]) -> dict[int, int]:
    return {day: calls for sheet in sheets.values() for day, calls in sheet.days.items()}


def _arguments(whole: Taught, retention_ms: int) -> list[Any]:
    hour = whole.ended_ms // HOUR_MS
    causes: list[Any] = []
    for cohort, cause in whole.causes:
        if len(cause) <= LONGEST_NAME:
            causes += [cohort, evidence_fields(hour, cause, whole.buckets.get(cause))]
    return [
        msgspec.msgpack.encode(whole.ladder),
        flat(fields_of(whole.lesson)),
        msgspec.msgpack.encode(causes),
        sheet_of(whole.day),
        whole.ended_ms,
        max(retention_ms, _LEAST_MARK_MS),
    ]
