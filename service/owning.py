"""Whose a call is: the assistant that takes it, or its connection; in scripts, after `COUNT`.

A beginning names its connection alone, and so does a hangup. Other events name an assistant, and
then the call is that one's for good. Until one does it is presumed: where one assistant alone has
taken the connection's calls, the next is its call as it begins. Where several take them nobody is
presumed before the end, and then the connection is. A call that was presumed somebody else's moves,
with all that it counted for; what no event has named by the time it is judged stays where it is.

Legs that are dialled later add where they go, and the shape of that, whether the session has ended
or not. Where a leg comes in says nothing of what is dialled, so it has no shape.
"""

from typing import Final

from service.counting import ACCOUNT, CALLS, KEPT_MS, SHORT_CALLS
from service.keys import CALLS_MINUTE, CALLS_TAKERS

ALONE_MS: Final = 86_400_000
"""So long after it took over from another is an assistant alone with a connection's calls."""
KNOWN_MS: Final = 4 * ALONE_MS
"""So long after it took the last one it is not known any more who does: a long weekend."""
_MOST_TAKERS: Final = 10_000
_BEGUN_KEPT_MS: Final = 86_400_000
"""A call that takes longer counts again when it ends."""
_LEGS_KEPT_MS: Final = 4 * 3_600_000
"""So long after the first end further legs may begin: Telnyx ends calls after that."""

# Who takes a connection's calls: "{since} {last} {taker}". The taker is an assistant, or the
# connection itself where nobody does; since when, and when it took the last. Of an assistant that
# found nobody, or the connection known for less than a day, that is 0.
#
# Where a session's owner is presumed, in `presumed`: "{hour} {minute} {end}", in which it was
# counted for it, and the minute in which it was counted as short. There is no minute of what is no
# part of what happens now.
TAKERS: Final = f"""
local function taker_of(at, connection)
  local noted = redis.call('HGET', '{CALLS_TAKERS}', connection) or ''
  local since, last, taker = string.match(noted, '^(%d+) (%d+) (.+)$')
  if taker and at - last <= {KNOWN_MS} then return taker, tonumber(since) end
end
-- Who is presumed to take a call; nothing where it may be one of several, or is not known.
local function lone_taker(at, connection)
  local taker, since = taker_of(at, connection)
  if taker and (taker == connection or at - since >= {ALONE_MS}) then return taker end
end
-- What happened long ago does not tell who takes the next.
local function note_taker(now, at, connection, assistant)
  local _, minute = hour_of(now, at)
  if connection == '' or not minute then return end
  local taker, since = taker_of(at, connection)
  local new = assistant ~= '' and assistant or connection
  -- That nobody takes some is no change: they were not answered, or no event has said it yet.
  if taker and taker ~= new and assistant == '' then return end
  if redis.call('HEXISTS', '{CALLS_TAKERS}', connection) == 0
    and redis.call('HLEN', '{CALLS_TAKERS}') >= {_MOST_TAKERS} then return end
  if taker ~= new then
    local is_first = not taker or (taker == connection and at - since < {ALONE_MS})
    since = (assistant == '' or not is_first) and at or 0
  end
  local noted = string.format('%.0f %.0f %s', since, at, new)
  redis.call('HSET', '{CALLS_TAKERS}', connection, noted)
  redis.call('PEXPIRE', '{CALLS_TAKERS}', {KEPT_MS})
end
"""

COUNT_BEGUN: Final = f"""
-- Those of the places that no leg of the call has gone to.
local function unseen(begun, places)
  local new = {{}}
  for place in string.gmatch(places, '%S+') do
    if redis.call('HSETNX', begun, 'p' .. place, 1) == 1 then new[#new + 1] = place end
  end
  return table.concat(new, ' ')
end
local function count_first(begun, at, connection, places, number, block, hour, minute)
  local owner, where = lone_taker(at, connection) or '', {{hour, '-'}}
  tally('{CALLS}', '{ACCOUNT}', hour, minute)
  count_places(where, unseen(begun, places), hour, minute)
  count_owned(where, owner, hour, minute, number, block, '')
  redis.call('HSET', begun, 'counted', table.concat(where, ' '), 'owner', owner,
             'at', hour .. ' ' .. minute)
end
-- Where the call is counted is kept in its session, once that has ended.
local function count_further(key, begun, places, number, block, hour, minute)
  local counted, owner, paid = unpack(redis.call('HMGET', key, 'counted', 'owner', 'paid'))
  if not counted then return 0 end
  local where = {{counted}}
  -- Money belongs to the day of the call, and to what was counted before it was paid.
  local is_that_day = math.floor(hour / 24) == math.floor(string.match(counted, '^%d+') / 24)
  if (paid or not is_that_day) and not string.find(counted, '/', 1, true) then
    where[2] = '/'
  end
  count_places(where, unseen(begun, places), hour, minute)
  if owner ~= '' then count_shape(where, owner, hour, minute, number, block) end
  redis.call('HSET', key, 'counted', table.concat(where, ' '))
  return 1
end
local function count_begun(session, begun, now, at, connection, leg, places, number, block)
  local hour, minute = hour_of(now, at)
  -- Word of it comes late: its end is counted instead, which is no longer ago.
  if not minute then return 0 end
  local is_first = redis.call('HEXISTS', begun, 'counted') == 0
  local has_ended = redis.call('HEXISTS', session, 'end') == 1
  if is_first and has_ended then return 0 end
  local name = 'l' .. string.sub(redis.sha1hex(leg), 1, 8)
  if redis.call('HSETNX', begun, name, 1) == 0 then return 0 end
  redis.call('PEXPIRE', begun, has_ended and {_LEGS_KEPT_MS} or {_BEGUN_KEPT_MS})
  if block ~= '' then redis.call('HSET', begun, 'number', number, 'block', block) end
  if is_first then
    count_first(begun, at, connection, places, number, block, hour, minute)
    return 1
  end
  return count_further(has_ended and session or begun, begun, places, number, block, hour, minute)
end
"""
"""Once for each session, before its first end, and then where its other legs go; after `TAKERS`."""

MOVE: Final = f"""
-- Where a session is counted, once all that it counted for one counts for another.
local function moved(counted, place, owner, new, number, block)
  local hour, minute, end_minute = string.match(place, '^(%d+) (%d*) ?(%d*)$')
  local end_hour = end_minute ~= '' and math.floor(end_minute / 60) or hour
  -- Minutes are kept for some hours.
  local function kept(of)
    return redis.call('EXISTS', '{CALLS_MINUTE}' .. of) == 1 and of or nil
  end
  minute, end_minute = kept(minute), kept(end_minute)
  local of_letter, is_short, others = {{}}, false, {{}}
  for kind, letter in pairs(letters) do of_letter[letter] = kind end
  local words = string.gmatch(counted, '%S+')
  local where = {{words(), words()}}
  for word in words do
    local kind = of_letter[word]
    if kind == '{SHORT_CALLS}' then
      take_back(kind, owner, end_hour, end_minute)
      is_short = true
    elseif kind then
      take_back(kind, owner, hour, minute)
    else
      others[#others + 1] = word
    end
  end
  count_owned(where, new, hour, minute, number, block, '')
  if is_short then count_as(where, '{SHORT_CALLS}', new, end_hour, end_minute) end
  for _, word in ipairs(others) do where[#where + 1] = word end
  return table.concat(where, ' ')
end
-- An event names the assistant of a call.
local function name_owner(key, begun, number, block, assistant)
  local counted, place, owner = unpack(redis.call('HMGET', key, 'counted', 'presumed', 'owner'))
  if not place then return end
  redis.call('HDEL', key, 'presumed')
  if owner == assistant then return end
  if redis.call('HEXISTS', begun, 'counted') == 1 then
    number, block = unpack(redis.call('HMGET', begun, 'number', 'block'))
  end
  counted = moved(counted, place, owner, assistant, number or '', block or '')
  redis.call('HSET', key, 'counted', counted, 'owner', assistant)
end
"""

COUNT_ENDED: Final = f"""
-- Where a call that was counted when it began is counted, and whose it is, with what its end says.
local function take_over(begun, hour, minute, owner, assistant, short)
  local counted, known, place, number, block =
    unpack(redis.call('HMGET', begun, 'counted', 'owner', 'at', 'number', 'block'))
  if not counted then return nil end
  redis.call('PEXPIRE', begun, {_LEGS_KEPT_MS})
  local begun_hour, rest = string.match(counted, '^(%d+)(.*)$')
  -- Its money belongs where it is spent; there is a day for it where the call was counted.
  if math.floor(hour / 24) == math.floor(begun_hour / 24) then counted = hour .. rest end
  number, block = number or '', block or ''
  if known == '' then
    local where = {{counted}}
    count_owned(where, owner, hour, minute, number, block, short)
    return table.concat(where, ' '), owner
  end
  if assistant ~= '' and known ~= assistant then
    counted, known = moved(counted, place, known, assistant, number, block), assistant
  end
  local where = {{counted}}
  if short == '1' then count_as(where, '{SHORT_CALLS}', known, hour, minute) end
  return table.concat(where, ' '), known, place
end
local function count_end(key, begun, now, end_at, event, places, number, block, short,
                         connection, assistant)
  local hour, minute = hour_of(now, end_at)
  if not hour then return end
  local is_named = assistant ~= ''
  local owner = is_named and assistant or lone_taker(end_at, connection) or connection
  local counted, known, place = take_over(begun, hour, minute, owner, assistant, short)
  if not counted then
    local where = {{hour, event}}
    tally('{CALLS}', '{ACCOUNT}', hour, minute)
    count_places(where, places, hour, minute)
    count_owned(where, owner, hour, minute, number, block, short)
    counted = table.concat(where, ' ')
  end
  redis.call('HSET', key, 'counted', counted)
  if known or not is_named then redis.call('HSET', key, 'owner', known or owner) end
  if not is_named then
    minute = minute or ''
    redis.call('HSET', key, 'presumed', (place or hour .. ' ' .. minute) .. ' ' .. minute)
  end
end
"""
"""What the first end of a session counts, or adds to what its beginning did; after `MOVE`."""

SETTLE: Final = """
-- A call is judged: from now on it is whose it was taken for, or whom an event has named.
local function settle_owner(key, begun, assistant)
  if assistant ~= '' then name_owner(key, begun, '', '', assistant) end
  redis.call('HDEL', key, 'presumed')
end
"""
"""After `MOVE`."""


def taker_in(noted: bytes, connection: str, now_ms: int) -> str | None:
    """Who takes a connection's calls, from what is noted of it: itself where nobody does.

    "" where it may be one of several, and None where it is not known any more.
    """
    since, _, rest = noted.decode(errors="replace").partition(" ")
    last, _, taker = rest.partition(" ")
    if not (since.isdecimal() and last.isdecimal()) or now_ms - int(last) > KNOWN_MS:
        return None
    return taker if taker == connection or now_ms - int(since) >= ALONE_MS else ""
