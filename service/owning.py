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

from service.counting import ACCOUNT, CALLS, KEPT_MS, ONE_NUMBER, ONE_PREFIX, SHORT_CALLS
from service.keys import CALLS_MINUTE, CALLS_NUMBERS, CALLS_TAKERS

ALONE_MS: Final = 86_400_000
"""An assistant that took a connection's calls for so long, and no other did, is alone with them."""
KNOWN_MS: Final = 4 * ALONE_MS
"""So long after it took the last one it is not known any more who does: a long weekend."""
_MOST_TAKERS: Final = 10_000
_BEGUN_KEPT_MS: Final = 86_400_000
"""A call that takes longer counts again when it ends."""
_LEGS_KEPT_MS: Final = 4 * 3_600_000
"""So long after the first end further legs may begin: Telnyx ends calls after that."""

# Who takes a connection's calls: "{since} {last} {taker}". The taker is an assistant, or the
# connection itself where nobody does; since when, and when it took the last.
#
# Where a session's owner is presumed, in `presumed`: "{hour} {minute}" in which it was counted for
# it. There is no minute of what is no part of what happens now.
TAKERS: Final = f"""
local function taker_of(at, connection)
  local noted = redis.call('HGET', '{CALLS_TAKERS}', connection) or ''
  local since, last, taker = string.match(noted, '^(%d+) (%d+) (.+)$')
  if taker and at - last <= {KNOWN_MS} then return taker, tonumber(since), tonumber(last) end
end
-- Who is presumed to take a call; nothing where it may be one of several, or is not known.
local function lone_taker(at, connection)
  local taker, since, last = taker_of(at, connection)
  if taker and (taker == connection or last - since >= {ALONE_MS}) then return taker end
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
  local noted = string.format('%.0f %.0f %s', taker == new and since or at, at, new)
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
  local where, went = {{counted}}, {{}}
  if owner ~= '' then count_shape(where, owner, hour, minute, number, block, true) end
  -- Money belongs to what was counted before it was paid; that of places to the day of the call.
  if paid and where[2] then where[2] = '-' .. where[2] end
  local is_that_day = math.floor(hour / 24) == math.floor(string.match(counted, '^%d+') / 24)
  local unpaid = (paid or not is_that_day) and '-' or ''
  count_places(went, unseen(begun, places), hour, minute)
  for _, place in ipairs(went) do where[#where + 1] = unpaid .. place end
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
  if number ~= '' then redis.call('HSET', begun, 'number', number, 'block', block) end
  if is_first then
    count_first(begun, at, connection, places, number, block, hour, minute)
    return 1
  end
  return count_further(has_ended and session or begun, begun, places, number, block, hour, minute)
end
"""
"""Once for each session, before its first end, and then where its other legs go; after `TAKERS`."""

MOVE: Final = f"""
local of_letter = {{}}
for kind, letter in pairs(letters) do of_letter[letter] = kind end
-- What a session has counted for its owner, taken back: by kind, when; and what is not its owner's.
local function taken_back(counted, place, owner)
  local found, others = {{}}, {{}}
  for word in string.gmatch(counted, '%S+') do
    local letter, hour, minute = string.match(word, '^%-?(%l)@?(%d*):?(%d*)$')
    local kind = letter and of_letter[letter]
    if kind then
      local apart = hour ~= ''
      if not apart then hour, minute = string.match(place, '^(%d+) (%d*)$') end
      -- Minutes are kept for some hours.
      if redis.call('EXISTS', '{CALLS_MINUTE}' .. minute) == 0 then minute = nil end
      take_back(kind, owner, hour, minute)
      found[kind] = {{hour, minute, apart}}
    else
      others[#others + 1] = word
    end
  end
  return found, others
end
-- Where a session is counted, once all that it counted for one counts for another.
local function moved(counted, place, owner, new, number, block, short)
  local found, others = taken_back(counted, place, owner)
  local where = {{table.remove(others, 1), table.remove(others, 1)}}
  local hour, minute = string.match(place, '^(%d+) (%d*)$')
  local call = found['{CALLS}'] or {{hour, minute ~= '' and minute or nil, false}}
  count_as(where, '{CALLS}', new, unpack(call, 1, 3))
  local was_short = found['{SHORT_CALLS}'] or (owner == '' and short == '1' and call)
  if was_short then count_as(where, '{SHORT_CALLS}', new, unpack(was_short, 1, 3)) end
  local shaped, kind = found['{ONE_NUMBER}'], '{ONE_NUMBER}'
  if not shaped then shaped, kind = found['{ONE_PREFIX}'], '{ONE_PREFIX}' end
  local at = shaped or call
  if number ~= '' and at[2] then
    local of_hour = '{CALLS_NUMBERS}' .. at[1]
    less(of_hour, owner .. '|' .. number)
    less(of_hour, owner .. '|' .. block)
    count_shape(where, new, at[1], at[2], number, block, at[3])
  elseif shaped then
    count_as(where, kind, new, unpack(shaped, 1, 3))
  end
  for _, word in ipairs(others) do where[#where + 1] = word end
  return table.concat(where, ' ')
end
-- An event names the assistant of a call.
local function name_owner(key, begun, number, block, short, assistant)
  local counted, place, owner = unpack(redis.call('HMGET', key, 'counted', 'presumed', 'owner'))
  if not place then return end
  if owner ~= assistant then
    if redis.call('HEXISTS', begun, 'counted') == 1 then
      number, block = unpack(redis.call('HMGET', begun, 'number', 'block'))
    end
    counted = moved(counted, place, owner, assistant, number or '', block or '', short)
    redis.call('HSET', key, 'counted', counted, 'owner', assistant)
  end
  redis.call('HDEL', key, 'presumed')
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
  local is_that_day = math.floor(hour / 24) == math.floor(begun_hour / 24)
  if is_that_day then counted = hour .. rest end
  number, block = number or '', block or ''
  if known == '' then
    local where = {{counted}}
    count_owned(where, owner, hour, minute, number, block, short, not is_that_day)
    return table.concat(where, ' '), owner
  end
  if assistant ~= '' and known ~= assistant and place then
    counted, known = moved(counted, place, known, assistant, number, block, ''), assistant
  end
  local where = {{counted}}
  if short == '1' then count_as(where, '{SHORT_CALLS}', known, hour, minute, true) end
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
    redis.call('HSET', key, 'presumed', place or hour .. ' ' .. (minute or ''))
  end
end
"""
"""What the first end of a session counts, or adds to what its beginning did; after `MOVE`."""

SETTLE: Final = """
-- A call is judged: from now on it is whose it was taken for, or whom an event has named.
local function settle_owner(key, begun, assistant)
  if assistant ~= '' then name_owner(key, begun, '', '', '', assistant) end
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
    return taker if taker == connection or int(last) - int(since) >= ALONE_MS else ""
