"""How calls are counted, for those who judge how many there are: what counts where, in a script.

Pure but for the keys' names. A call counts once: when Telnyx says that it begins, and where that
never came, in the step that records its first end. It counts for the account, for its assistant or
connection (see `service.owning`), for the prefix that was dialled, and for the shapes that it has;
nothing else of it is kept, and no number. All counts are sums, so it does not matter who counts
when.

The session remembers where it was counted. Its cost comes minutes later and is added there, though
other legs may have ended meanwhile, for somebody else or in another hour.
"""

from decimal import Decimal
from typing import Final

from service.keys import CALLS_DAY, CALLS_MINUTE, CALLS_NUMBERS, CALLS_ROSTER
from service.money import millionths

ACCOUNT: Final = "account"
CALLS: Final = "velocity"
SHORT_CALLS: Final = "short_calls"
ONE_NUMBER: Final = "one_number"
ONE_PREFIX: Final = "one_prefix"
SHAPES: Final = (SHORT_CALLS, ONE_NUMBER, ONE_PREFIX)
SHORT_SECONDS: Final = 30
"""As long at most is a short call: billed as a minute, and many of them are a dialler's."""

LATE_MS: Final = 10 * 60_000
"""What ended longer ago counts for its hour only: it is no part of what happens now."""
DAYS_KEPT: Final = 30
KEPT_MS: Final = DAYS_KEPT * 86_400_000
_MINUTE_KEPT_MS: Final = 5 * 3_600_000
_NUMBERS_KEPT_MS: Final = 2 * 3_600_000
MOST_SERIES: Final = 1000
"""Series that a day has; calls of further ones count for the account alone."""
MOST_PLACES: Final = 500
"""So many series leave no room for a further place that is called: assistants must find some."""
_MOST_NUMBERS: Final = 100_000
"""Numbers and blocks that an hour tells apart."""
_MOST_COST: Final = Decimal(5000)
"""What a call counts for at most: such squares are exact in a script, and their sums have room."""

# Fields of a series' day:  c{hour} calls   k{hour} those whose cost is known
#   u{hour} that cost in millionths         q{hour} the sum of its squares
#   b{minutes}:{hour} a burst that was out of the ordinary, written by workers
#
# Where a session was counted: "{hour} {event} DE v s". The event is the one by which it was,
# and says whose call it is unless that stands beside it; then come the places, and a letter for
# each series of its owner. That it counts for the account goes without saying. Of a call that was
# counted when it began there was no event yet: "-". What has no money of it is marked, "-LV".
# What was counted at another moment than the call says so, "s@{hour}:{minute}"; its money is there.
COUNT: Final = f"""
local letters = {{['{CALLS}'] = 'v', ['{SHORT_CALLS}'] = 's',
                 ['{ONE_NUMBER}'] = 'n', ['{ONE_PREFIX}'] = 'p'}}
local function of_day(kind, cohort, hour)
  return '{CALLS_DAY}' .. math.floor(hour / 24) .. ':' .. kind .. '|' .. cohort
end
local function tally(kind, cohort, hour, minute, most)
  local series = kind .. '|' .. cohort
  local day = math.floor(hour / 24)
  local key = of_day(kind, cohort, hour)
  if redis.call('EXISTS', key) == 0 then
    local roster = '{CALLS_ROSTER}' .. day
    if redis.call('SCARD', roster) >= (most or {MOST_SERIES}) then return false end
    redis.call('SADD', roster, series)
    redis.call('PEXPIRE', roster, {KEPT_MS})
  end
  if redis.call('HINCRBY', key, 'c' .. hour, 1) == 1 then
    redis.call('PEXPIRE', key, {KEPT_MS})
  end
  if minute and redis.call('HINCRBY', '{CALLS_MINUTE}' .. minute, series, 1) == 1 then
    redis.call('PEXPIRE', '{CALLS_MINUTE}' .. minute, {_MINUTE_KEPT_MS})
  end
  return true
end
-- What has no count any more stays as it is.
local function less(key, field)
  local now = tonumber(redis.call('HGET', key, field) or 0)
  if now > 0 then redis.call('HINCRBY', key, field, -1) end
end
local function take_back(kind, cohort, hour, minute)
  less(of_day(kind, cohort, hour), 'c' .. hour)
  if minute then less('{CALLS_MINUTE}' .. minute, kind .. '|' .. cohort) end
end
local function seen(key, name)
  local times = redis.call('HINCRBY', key, name, 1)
  if times == 1 then redis.call('PEXPIRE', key, {_NUMBERS_KEPT_MS}) end
  return times
end
local function shape(entity, number, block, hour)
  local key = '{CALLS_NUMBERS}' .. hour
  if redis.call('HLEN', key) >= {_MOST_NUMBERS} then return nil end
  local times, near = seen(key, entity .. '|' .. number), seen(key, entity .. '|' .. block)
  if times > 1 then return '{ONE_NUMBER}' end
  if near > 1 then return '{ONE_PREFIX}' end
end
-- The hour of a moment, and its minute unless that is no part of what happens now; nil where
-- nothing of it is kept.
local function hour_of(now, at)
  at = math.min(now, at)
  if now - at > {KEPT_MS} then return nil end
  local minute = now - at <= {LATE_MS} and math.floor(at / 60000) or nil
  return math.floor(at / 3600000), minute
end
-- `apart`: at another moment than the call.
local function count_as(where, kind, owner, hour, minute, apart)
  if not tally(kind, owner, hour, minute) then return end
  local moment = apart and '@' .. hour .. ':' .. (minute or '') or ''
  where[#where + 1] = letters[kind] .. moment
end
local function count_shape(where, owner, hour, minute, number, block, apart)
  if number == '' or not minute then return end
  local kind = shape(owner, number, block, hour)
  if kind and not string.find(table.concat(where, ' '), ' %-?' .. letters[kind]) then
    count_as(where, kind, owner, hour, minute, apart)
  end
end
local function count_owned(where, owner, hour, minute, number, block, short, apart)
  if owner == '' then return end
  count_as(where, '{CALLS}', owner, hour, minute, apart)
  if short == '1' then count_as(where, '{SHORT_CALLS}', owner, hour, minute, apart) end
  count_shape(where, owner, hour, minute, number, block, apart)
end
local function count_places(where, places, hour, minute)
  for place in string.gmatch(places, '%S+') do
    local is_counted = tally('{CALLS}', place, hour, minute, {MOST_PLACES})
    -- A session must not know which digits were dialled: prefixes have counts, and no money.
    if is_counted and string.sub(place, 1, 1) ~= '+' then where[#where + 1] = place end
  end
end
"""

PAY: Final = f"""
local function square(micros)
  return math.floor(micros / 100) ^ 2
end
local function pay(key, entity, micros)
  local before, counted, owner = unpack(redis.call('HMGET', key, 'paid', 'counted', 'owner'))
  entity = owner or entity
  if not counted or before == micros then return end
  redis.call('HSET', key, 'paid', micros)
  local old, new = tonumber(before or 0), tonumber(micros)
  local hour, where = string.match(counted, '^(%d+) %S+(.*)$')
  local function add(kind, cohort, at)
    local series = of_day(kind, cohort, at)
    if redis.call('EXISTS', series) == 0 then return end
    redis.call('HINCRBY', series, 'u' .. at, string.format('%.0f', new - old))
    redis.call('HINCRBY', series, 'q' .. at, string.format('%.0f', square(new) - square(old)))
    if not before then redis.call('HINCRBY', series, 'k' .. at, 1) end
  end
  add('{CALLS}', '{ACCOUNT}', hour)
  for place in string.gmatch(where, ' (%u%u)') do add('{CALLS}', place, hour) end
  for kind, letter in pairs(letters) do
    local at = string.match(where, ' ' .. letter .. '@?(%d*)')
    if at then add(kind, entity, at ~= '' and at or hour) end
  end
end
"""
"""What a call has cost, where it counts. After `COUNT`."""


def counted_cost(cost: Decimal) -> int:
    """What a call counts for in its series, in millionths."""
    return millionths(max(-_MOST_COST, min(_MOST_COST, cost)))
