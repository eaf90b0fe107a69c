"""The net below the lines of work: whatever has to be looked at and stands in no line is put back.

Every change of state is one script, so nothing gets there by itself. What can is a write that Redis
had taken and then lost, as in a failover, or a hand that removed an id. One page of an index is
looked at in one script, so what is under way is never in between; looking twice changes nothing.
"""

from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from service import keys
from service.records import Delivery, State

PAGE: Final = 500

# Somebody may be at work on what has a token, and finds it in its line again, as if leased.
_LEASE_MS: Final = 30_000

_WALK: Final = """
local index, home, page, prefix = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(number) return string.format('%%.0f', number) end
local function stands(id)
  for line = 2, #KEYS do
    if redis.call('ZSCORE', KEYS[line], id) then return true end
  end
  return false
end
local function place_of(id)
%s
end
local found = redis.call('ZSCAN', index, ARGV[1], 'COUNT', page)
local lost = {}
for i = 1, #found[2], 2 do
  local id = found[2][i]
  local place = not stands(id) and place_of(id)
  if place then
    redis.call('ZADD', home, place, id)
    lost[#lost + 1] = id
  end
end
return {found[1], lost}
"""

# Each says where a record has to stand that stands nowhere, or nil where that is as it should be.
_OPEN_SESSION: Final = f"""
  local state = redis.call('HMGET', prefix .. id, 'state', 'token')
  if state[1] ~= '{State.OPEN}' then return nil end
  return text(state[2] and now + {_LEASE_MS} or now)
"""
_UNTOLD_ALERT: Final = f"""
  local key = prefix .. id
  local f = redis.call('HMGET', key, 'delivery', 'place', 'told_in')
  if f[1] ~= '{Delivery.WAITING}' and f[1] ~= '{Delivery.FOLDED}' then return nil end
  if f[3] and redis.call('EXISTS', prefix .. f[3]) == 1 then return nil end
  redis.call('HDEL', key, 'told_in')
  redis.call('HSET', key, 'delivery', '{Delivery.WAITING}')
  return f[2] or '0'
"""


@dataclass(frozen=True, slots=True)
class Net:
    """Which records of `index` have to stand in one of `lines`, and where: by Lua's `place`.

    What stands in none of them is put into the first.
    """

    name: str
    index: str
    prefix: str
    place: str
    lines: tuple[str, ...]


NETS: Final = (
    Net("sessions", keys.SESSIONS, keys.SESSION, _OPEN_SESSION, (keys.DUE, keys.ENDED)),
    Net(
        "alerts",
        keys.ALERTS,
        keys.ALERT,
        _UNTOLD_ALERT,
        (keys.OUTBOX, keys.FOLDED, keys.ASIDE),
    ),
)


@dataclass(slots=True)
class Sweep:
    """One walk after the other over one net's index, some pages at a time."""

    redis: Redis
    net: Net
    _cursor: int = 0
    _script: AsyncScript = field(init=False)

    def __post_init__(self) -> None:
        self._script = self.redis.register_script(_WALK % self.net.place)

    async def page(self) -> tuple[list[str], bool]:
        """Look at one more page: what was put back, and whether the walk is at its end.

        Redis' errors pass through; the next call looks at the same page again.
        """
        net = self.net
        answer = await self._script(
            keys=[net.index, *net.lines],
            args=[self._cursor, PAGE, net.prefix],
        )
        self._cursor = int(answer[0])
        return [id.decode(errors="replace") for id in answer[1]], self._cursor == 0
