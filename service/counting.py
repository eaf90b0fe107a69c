"""How calls are counted, for those who judge how many there are: what counts where, in a script.

Pure but for the keys' names. A call counts once: when Telnyx says that it begins, and where that
never came, in the very step that records its first end. It counts for the account, for its
assistant or connection, for the prefix that was dialled, and for the shapes that it has; nothing
else of it is kept, and no number. All counts are sums, so it does not matter who counts when.

A beginning names its connection alone, and so does a hangup. Who takes the calls of a connection
shows in events that name an assistant: one, the same for a day, or nobody, and then calls count for
it as they begin. Where several take them, the event that names one says for whom a call counts, and
if there is none, the connection it is, once the call is judged. That it was short its end says.

A session has one owner for good, and once in each series. Legs that are dialled later add where
they go, and the shape of that, whether the session has ended or not. Where a leg comes in says
nothing of what is dialled, so it has no shape.

The session remembers where it was counted. Its cost comes minutes later and is added there, though
other legs may have ended meanwhile, for somebody else or in another hour.
"""

from decimal import Decimal
from typing import Final

from service.keys import CALLS_DAY, CALLS_MINUTE, CALLS_NUMBERS, CALLS_ROSTER, CALLS_TAKERS
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
ALONE_MS: Final = 86_400_000
"""So long after it took over from another is an assistant alone with a connection's calls."""
_MOST_TAKERS: Final = 10_000
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
# and says whose call it is unless that stands beside it; then come the places, and a letter for
# each series of its owner. That it counts for the account goes without saying. Of a call that was
# counted when it began there was no event yet: "-".
#
# Who takes a connection's calls: "{since} {taker}", since when it is, after another; 0 if there was
# none. The taker is an assistant, or the connection itself.
COUNT_CALL: Final = f"""
local letters = {{['{CALLS}'] = 'v', ['{SHORT_CALLS}'] = 's',
                 ['{ONE_NUMBER}'] = 'n', ['{ONE_PREFIX}'] = 'p'}}
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
local function count_as(where, kind, owner, hour, minute)
  if tally(kind, owner, hour, minute) then where[#where + 1] = letters[kind] end
end
local function count_shape(where, owner, hour, minute, number, block)
  if number == '' or block == '' or not minute then return end
  local kind = shape(owner, number, block, hour)
  if kind and not string.find(table.concat(where, ' '), ' ' .. letters[kind], 1, true) then
    count_as(where, kind, owner, hour, minute)
  end
end
local function count_owned(where, owner, hour, minute, number, block, short)
  if owner == '' then return end
  count_as(where, '{CALLS}', owner, hour, minute)
  if short == '1' then count_as(where, '{SHORT_CALLS}', owner, hour, minute) end
  count_shape(where, owner, hour, minute, number, block)
end
local function count_places(where, places, hour, minute)
  for place in string.gmatch(places, '%S+') do
    local is_counted = tally('{CALLS}', place, hour, minute, {MOST_PLACES})
    -- A session must not know which digits were dialled: prefixes have counts, and no money.
    if is_counted and string.sub(place, 1, 1) ~= '+' then where[#where + 1] = place end
  end
end
local function taker_of(connection)
  local since, taker = string.match(
    redis.call('HGET', '{CALLS_TAKERS}', connection) or '', '^(%d+) (.+)$')
  return taker, tonumber(since)
end
-- Whose a call is that no event has named an assistant of: '' where one that does may follow.
local function owner_at(at, connection)
  local taker, since = taker_of(connection)
  if not taker or at - since < {ALONE_MS} then return '', taker end
  return taker, taker
end
local function owner_by(event_at, connection, assistant)
  if assistant ~= '' then return assistant end
  local owner, taker = owner_at(event_at, connection)
  return taker and owner or connection
end
local function count_call(now, at, event, owner, places, number, block, short)
  local hour, minute = hour_of(now, at)
  if not hour then return nil end
  local where = {{hour, event}}
  tally('{CALLS}', '{ACCOUNT}', hour, minute)
  count_places(where, places, hour, minute)
  count_owned(where, owner, hour, minute, number, block, short)
  return table.concat(where, ' ')
end
"""

COUNT_BEGUN: Final = f"""
-- Those of the places that no leg of the call has gone to. Web processes name numbers each in its
-- own way, so what stands for a number does not tell whether the place is new.
local function unseen(begun, places)
  local new = {{}}
  for place in string.gmatch(places, '%S+') do
    if redis.call('HSETNX', begun, 'p' .. place, 1) == 1 then new[#new + 1] = place end
  end
  return table.concat(new, ' ')
end
local function count_first(begun, at, connection, places, number, block, hour, minute)
  local owner, where = owner_at(at, connection), {{hour, '-'}}
  tally('{CALLS}', '{ACCOUNT}', hour, minute)
  count_places(where, unseen(begun, places), hour, minute)
  count_owned(where, owner, hour, minute, number, block, '')
  redis.call('HSET', begun, 'counted', table.concat(where, ' '), 'owner', owner)
end
-- Where the call is counted is kept in its session, once that has ended.
local function count_further(key, begun, places, number, block, hour, minute)
  local counted, owner, paid = unpack(redis.call('HMGET', key, 'counted', 'owner', 'paid'))
  if not counted then return 0 end
  local where = {{counted}}
  count_places(where, unseen(begun, places), hour, minute)
  if owner ~= '' then count_shape(where, owner, hour, minute, number, block) end
  -- Money belongs to the day of the call, and to what was counted before it was paid.
  local is_that_day = math.floor(hour / 24) == math.floor(string.match(counted, '^%d+') / 24)
  if is_that_day and not paid then redis.call('HSET', key, 'counted', table.concat(where, ' ')) end
  return 1
end
local function count_begun(session, begun, now, at, connection, places, number, block)
  local hour, minute = hour_of(now, at)
  -- Word of it comes late: its end is counted instead, which is no longer ago.
  if not minute then return 0 end
  local is_first = redis.call('HEXISTS', begun, 'counted') == 0
  local has_ended = redis.call('HEXISTS', session, 'end') == 1
  if is_first and has_ended then return 0 end
  -- A further leg goes to another number, or is no news.
  if not is_first and number == '' then return 0 end
  if redis.call('HSETNX', begun, 'n' .. number, 1) == 0 then return 0 end
  redis.call('PEXPIRE', begun, {_BEGUN_KEPT_MS})
  if block ~= '' then redis.call('HSET', begun, 'number', number, 'block', block) end
  if is_first then
    count_first(begun, at, connection, places, number, block, hour, minute)
    return 1
  end
  return count_further(has_ended and session or begun, begun, places, number, block, hour, minute)
end
"""
"""Once for each session, before its first end, and then the places of its other legs. After
`COUNT_CALL`."""

COUNT_ENDED: Final = f"""
-- Where a session was counted when it began, with what its end adds, and for whom; nothing where no
-- beginning was counted.
local function take_over(begun, now, end_at, owner, short)
  local counted, known, number, block =
    unpack(redis.call('HMGET', begun, 'counted', 'owner', 'number', 'block'))
  if not counted then return nil end
  local hour, minute = hour_of(now, end_at)
  if not hour then return counted, known end
  local begun_hour, rest = string.match(counted, '^(%d+)(.*)$')
  -- Its money belongs where it is spent; there is a day for it where the call was counted.
  if math.floor(hour / 24) == math.floor(begun_hour / 24) then counted = hour .. rest end
  local where = {{counted}}
  if known == '' then
    known = owner
    count_owned(where, owner, hour, minute, number or '', block or '', short)
  elseif short == '1' then
    count_as(where, '{SHORT_CALLS}', known, hour, minute)
  end
  return table.concat(where, ' '), known
end
local function count_end(key, begun, now, end_at, event, places, number, block, short,
                         connection, assistant)
  local owner = owner_by(end_at, connection, assistant)
  local counted, known = take_over(begun, now, end_at, owner, short)
  if not counted then
    counted = count_call(now, end_at, event, owner, places, number, block, short)
    local said = assistant ~= '' and assistant or connection
    known = owner ~= said and owner
  end
  if counted then redis.call('HSET', key, 'counted', counted) end
  if known then redis.call('HSET', key, 'owner', known) end
end
-- An event names the assistant of a session that nobody owned so far.
local function count_named(key, begun, now, at, number, block, short, assistant)
  local counted, owner = unpack(redis.call('HMGET', key, 'counted', 'owner'))
  local hour, minute = hour_of(now, at)
  if not counted or owner ~= '' or not hour then return end
  if redis.call('HEXISTS', begun, 'counted') == 1 then
    number, block = unpack(redis.call('HMGET', begun, 'number', 'block'))
  end
  local where = {{counted}}
  count_owned(where, assistant, hour, minute, number or '', block or '', short)
  redis.call('HSET', key, 'counted', table.concat(where, ' '), 'owner', assistant)
end
-- For whom the connection's next call counts when it begins; what ended long ago does not tell.
local function note_taker(now, end_at, connection, assistant)
  local _, minute = hour_of(now, end_at)
  if not minute then return end
  local taker = taker_of(connection)
  if taker and (assistant == '' or taker == assistant) then return end
  if not taker and redis.call('HLEN', '{CALLS_TAKERS}') >= {_MOST_TAKERS} then return end
  local since = taker and taker ~= connection and end_at or 0
  local new = assistant ~= '' and assistant or connection
  redis.call('HSET', '{CALLS_TAKERS}', connection, string.format('%.0f %s', since, new))
  redis.call('PEXPIRE', '{CALLS_TAKERS}', {_KEPT_MS})
end
"""
"""What the end of a call adds where it was counted when it began. After `COUNT_CALL`."""

PAY: Final = f"""
local function square(micros)
  return math.floor(micros / 100) ^ 2
end
-- No event has named an assistant: then the call is the connection's.
local function close_owner(key, entity)
  local counted, owner = unpack(redis.call('HMGET', key, 'counted', 'owner'))
  if not counted or owner ~= '' or entity == '' then return end
  local where = {{counted}}
  count_as(where, '{CALLS}', entity, string.match(counted, '^%d+'), nil)
  redis.call('HSET', key, 'counted', table.concat(where, ' '), 'owner', entity)
end
local function pay(key, entity, micros)
  local before, counted, owner = unpack(redis.call('HMGET', key, 'paid', 'counted', 'owner'))
  entity = owner or entity
  if not counted or before == micros then return end
  redis.call('HSET', key, 'paid', micros)
  local old, new = tonumber(before or 0), tonumber(micros)
  local hour, where = string.match(counted, '^(%d+) %S+(.*)$')
  local paid = {{'{CALLS}|{ACCOUNT}'}}
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
"""What a call has cost, where it counts. After `COUNT_CALL`."""


def taker_in(noted: bytes) -> str:
    """Who takes a connection's calls, from what is noted of it; "" where that cannot be read."""
    _, _, taker = noted.decode(errors="replace").partition(" ")
    return taker


def counted_cost(cost: Decimal) -> int:
    """What a call counts for in its series, in millionths."""
    return millionths(max(-_MOST_COST, min(_MOST_COST, cost)))
