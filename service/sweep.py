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

_SWEEP: Final = """
local index, home = KEYS[1], KEYS[2]
local cursor, page, lease, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local field, wanted = ARGV[5], ARGV[6]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function stands(id)
  for line = 2, #KEYS do
    if redis.call('ZSCORE', KEYS[line], id) then return true end
  end
  return false
end
local found = redis.call('ZSCAN', index, cursor, 'COUNT', page)
local lost = {}
for i = 1, #found[2], 2 do
  local id = found[2][i]
  local state = redis.call('HMGET', prefix .. id, field, 'token')
  if state[1] == wanted and not stands(id) then
    redis.call('ZADD', home, string.format('%.0f', state[2] and now + lease or now), id)
    lost[#lost + 1] = id
  end
end
return {found[1], lost}
"""


@dataclass(frozen=True, slots=True)
class Net:
    """What has to stand in a line: the records of `index` whose `field` has the value `wanted`.

    The first of `lines` is where what stands in none of them is put, due now.
    """

    name: str
    index: str
    prefix: str
    field: str
    wanted: str
    lines: tuple[str, ...]


NETS: Final = (
    Net("sessions", keys.SESSIONS, keys.SESSION, "state", State.OPEN, (keys.DUE, keys.ENDED)),
    Net("alerts", keys.ALERTS, keys.ALERT, "delivery", Delivery.WAITING, (keys.OUTBOX,)),
)


@dataclass(slots=True)
class Sweep:
    """One walk after the other over one net's index, some pages at a time."""

    redis: Redis
    net: Net
    _cursor: int = 0
    _script: AsyncScript = field(init=False)

    def __post_init__(self) -> None:
        self._script = self.redis.register_script(_SWEEP)

    async def page(self) -> tuple[list[str], bool]:
        """Look at one more page: what was put back, and whether the walk is at its end.

        Redis' errors pass through; the next call looks at the same page again.
        """
        net = self.net
        answer = await self._script(
            keys=[net.index, *net.lines],
            args=[self._cursor, PAGE, _LEASE_MS, net.prefix, net.field, net.wanted],
        )
        self._cursor = int(answer[0])
        return [id.decode(errors="replace") for id in answer[1]], self._cursor == 0
