"""How calls are counted, for those who judge how many there are: what counts where, in a script.

Pure but for the keys' names. A call counts once: when Telnyx says that it begins, and where that
never came, in the very step that records its first end. It counts for the account, for its
assistant or connection, for the prefix that was dialled, and for the shapes that it has; nothing
else of it is kept, and no number. What only its end tells is counted then: which assistant took it,
whether it was short. All counts are sums, so it does not matter who counts when.

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
_KEPT_MS: Final = DAYS_KEPT * 86_400_000
_MINUTE_KEPT_MS: Final = 5 * 3_600_000
_NUMBERS_KEPT_MS: Final = 2 * 3_600_000
_BEGUN_KEPT_MS: Final = 86_400_000
"""A call that takes longer counts again when it ends."""
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
# and says whose call it is; then come the places, and a letter for each series of its owner. That
# it counts for the account goes without saying. Of a call that was counted when it began there was
# no event yet: "-", and whose it is stands beside it.
_KINDS: Final = f"""
local letters = {{['{CALLS}'] = 'v', ['{SHORT_CALLS}'] = 's',
                 ['{ONE_NUMBER}'] = 'n', ['{ONE_PREFIX}'] = 'p'}}
"""

COUNT_CALL: Final = (
    _KINDS
    + f"""
local function tally(kind, cohort, hour, minute, most)
  local series = kind .. '|' .. cohort
  local day = math.floor(hour / 24)
  local key = '{CALLS_DAY}' .. day .. ':' .. series
  if redis.call('EXISTS', key) == 0 then
    local roster = '{CALLS_ROSTER}' .. day
    if redis.call('SCARD', roster) >= (most or {MOST_SERIES}) then return false end
    redis.call('SADD', roster, series)
    redis.call('PEXPIRE', roster, {_KEPT_MS})
  end
  if redis.call('HINCRBY', key, 'c' .. hour, 1) == 1 then
    redis.call('PEXPIRE', key, {_KEPT_MS})
  end
  if minute and redis.call('HINCRBY', '{CALLS_MINUTE}' .. minute, series, 1) == 1 then
    redis.call('PEXPIRE', '{CALLS_MINUTE}' .. minute, {_MINUTE_KEPT_MS})
  end
  return true
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
  if now - at > {_KEPT_MS} then return nil end
  local minute = now - at <= {LATE_MS} and math.floor(at / 60000) or nil
  return math.floor(at / 3600000), minute
end
local function count_call(now, at, event, entity, places, number, block, short)
  local hour, minute = hour_of(now, at)
  if not hour then return nil end
  local where = {{hour, event}}
  tally('{CALLS}', '{ACCOUNT}', hour, minute)
  for place in string.gmatch(places, '%S+') do
    local is_counted = tally('{CALLS}', place, hour, minute, {MOST_PLACES})
    -- A session must not know which digits were dialled: prefixes have counts, and no money.
    if is_counted and string.sub(place, 1, 1) ~= '+' then where[#where + 1] = place end
  end
  local function count_as(kind)
    if tally(kind, entity, hour, minute) then where[#where + 1] = letters[kind] end
  end
  if entity ~= '' then
    count_as('{CALLS}')
    if short == '1' then count_as('{SHORT_CALLS}') end
    if number ~= '' and minute then
      local kind = shape(entity, number, block, hour)
      if kind then count_as(kind) end
    end
  end
  return table.concat(where, ' ')
end
"""
)

COUNT_BEGUN: Final = f"""
local function count_begun(session, begun, now, at, entity, places, number, block)
  if redis.call('EXISTS', begun) == 1 or redis.call('HEXISTS', session, 'end') == 1 then
    return 0
  end
  local counted = count_call(now, at, '-', entity, places, number, block, '')
  if not counted then return 0 end
  redis.call('HSET', begun, 'counted', counted, 'owner', entity)
  redis.call('PEXPIRE', begun, {_BEGUN_KEPT_MS})
  return 1
end
"""
"""Once for each session, before its first end. After `COUNT_CALL`."""

COUNT_ENDED: Final = f"""
-- What a session is to remember; nothing where it began unknown to us.
local function take_over(begun, now, end_at, short)
  local counted, owner = unpack(redis.call('HMGET', begun, 'counted', 'owner'))
  if not counted then return nil end
  redis.call('DEL', begun)
  local hour, minute = hour_of(now, end_at)
  local begun_hour, where = string.match(counted, '^(%d+)(.*)$')
  -- Its money belongs where it is spent; there is a day for it where the call was counted.
  if hour and math.floor(hour / 24) == math.floor(begun_hour / 24) then
    counted = hour .. where
  end
  if short == '1' and owner ~= '' and hour and tally('{SHORT_CALLS}', owner, hour, minute) then
    counted = counted .. ' ' .. letters['{SHORT_CALLS}']
  end
  return counted, owner
end
-- Whether it counts for that assistant now: a call that begins names its connection alone.
local function count_assistant(key, owner, now, end_at, assistant)
  local before, known, paid = unpack(redis.call('HMGET', key, 'owner', 'assistant', 'paid'))
  owner = owner or before
  if not owner or known or paid then return false end
  local hour, minute = hour_of(now, end_at)
  return hour and tally('{CALLS}', assistant, hour, minute)
end
"""
"""What the end of a call adds where it was counted when it began. After `COUNT_CALL`."""

PAY: Final = (
    _KINDS
    + f"""
local function square(micros)
  return math.floor(micros / 100) ^ 2
end
local function pay(key, entity, micros)
  local before, counted, owner, assistant =
    unpack(redis.call('HMGET', key, 'paid', 'counted', 'owner', 'assistant'))
  entity = owner or entity
  if not counted or before == micros then return end
  redis.call('HSET', key, 'paid', micros)
  local old, new = tonumber(before or 0), tonumber(micros)
  local hour, where = string.match(counted, '^(%d+) %S+(.*)$')
  local paid = {{'{CALLS}|{ACCOUNT}'}}
  if assistant then paid[#paid + 1] = '{CALLS}|' .. assistant end
  for place in string.gmatch(where, ' (%u%u)') do paid[#paid + 1] = '{CALLS}|' .. place end
  for kind, letter in pairs(letters) do
    if string.find(where, ' ' .. letter, 1, true) then paid[#paid + 1] = kind .. '|' .. entity end
  end
  for _, series in ipairs(paid) do
    local of_day = '{CALLS_DAY}' .. math.floor(hour / 24) .. ':' .. series
    if redis.call('EXISTS', of_day) == 1 then
      redis.call('HINCRBY', of_day, 'u' .. hour, string.format('%.0f', new - old))
      redis.call('HINCRBY', of_day, 'q' .. hour, string.format('%.0f', square(new) - square(old)))
      if not before then redis.call('HINCRBY', of_day, 'k' .. hour, 1) end
    end
  end
end
"""
)


def counted_cost(cost: Decimal) -> int:
    """What a call counts for in its series, in millionths."""
    return millionths(max(-_MOST_COST, min(_MOST_COST, cost)))
