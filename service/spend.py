"""What calls have cost by hour, day and month: counted with the verdict, exactly once per session.

Each session remembers what it has counted for. A later verdict takes that back and counts anew, in
the script that concludes: so whoever is killed has counted all or nothing, whoever comes twice has
counted once, and a late leg adds its difference. That holds for as long as the session is kept; one
that is told of again after its retention is a new one.

Sums are whole millionths, so their order does not matter and no number of them loses anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from redis.asyncio import Redis

from service import keys
from service.money import millionths, of_millionths
from service.records import Spend, moment

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
HOUR_KEPT_MS: Final = 9 * _DAY_MS
DAY_KEPT_MS: Final = 40 * _DAY_MS
MONTH_KEPT_MS: Final = 365 * _DAY_MS

# The names of an hour, a day and a month are beginnings of each other: 2026-03-14T16.
_HOUR_LENGTH: Final = 13
_DAY_LENGTH: Final = 10
_MONTH_LENGTH: Final = 7

_TOLD: Final = "told:"

# count(key, spent) makes the session count for `spent` and for nothing else: "{millionths}
# {currency}:{hour} {scope} {scope}". What has ended meanwhile is not begun again by taking back.
COUNT: Final = f"""
local spans = {{{{{_HOUR_LENGTH}, {HOUR_KEPT_MS}}}, {{{_DAY_LENGTH}, {DAY_KEPT_MS}}},
               {{{_MONTH_LENGTH}, {MONTH_KEPT_MS}}}}}
local function add(spent, sign)
  local amount, currency, hour, scopes = string.match(spent, '^(%S+) (%a+):(%S+) (.+)$')
  for _, span in ipairs(spans) do
    local sums = '{keys.SPEND}' .. currency .. ':' .. string.sub(hour, 1, span[1])
    if sign > 0 or redis.call('EXISTS', sums) == 1 then
      for scope in string.gmatch(scopes, '%S+') do
        redis.call('HINCRBY', sums, scope, string.format('%.0f', sign * amount))
      end
      redis.call('PEXPIRE', sums, span[2])
    end
  end
end
local function count(key, spent)
  local before = redis.call('HGET', key, 'spent')
  if before == spent then return end
  if before then add(before, -1) end
  add(spent, 1)
  redis.call('HSET', key, 'spent', spent)
end
"""


def counted(spend: Spend) -> str:
    """As a session remembers it; short, so that its hash stays in one compact block."""
    amount = millionths(spend.amount)
    return f"{amount} {spend.currency}:{hour_name(spend.end_ms)} {' '.join(spend.scopes)}"


def hour_name(at_ms: int) -> str:
    """The hour of UTC in which a moment lies: `2026-03-14T16`."""
    return f"{moment(at_ms):%Y-%m-%dT%H}"


def kept_ms(period: str) -> int:
    """For how long an hour, a day or a month is kept after its last change."""
    lengths = {_HOUR_LENGTH: HOUR_KEPT_MS, _DAY_LENGTH: DAY_KEPT_MS}
    return lengths.get(len(period), MONTH_KEPT_MS)


@dataclass(frozen=True, slots=True)
class Sum:
    """What a scope has spent in a period, and how far one of its budgets was told, in percent."""

    spent: Decimal
    told: int


def told_field(budget: str) -> str:
    """Where a period remembers how far a budget was told."""
    return _TOLD + budget


class Spending:
    """The sums, to be read. Redis' errors pass through."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def sums(self, currency: str, wanted: Sequence[tuple[str, str, str]]) -> list[Sum]:
        """For each period, scope and budget of that scope."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for period, scope, budget in wanted:
                pipe.hmget(keys.spend_key(currency, period), [scope, told_field(budget)])
            found: list[list[bytes | None]] = await pipe.execute()
        return [Sum(of_millionths(int(spent or 0)), int(told or 0)) for spent, told in found]

    async def hours(
        self, currency: str, scopes: Sequence[str], now_ms: int, *, days: int
    ) -> list[dict[int, float]]:
        """For each scope: money by hour (its number since 1970), as far as there was any."""
        last = now_ms // _HOUR_MS
        numbers = range(last - 24 * days + 1, last + 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for hour in numbers:
                name = hour_name(hour * _HOUR_MS)
                pipe.hmget(keys.spend_key(currency, name), list(scopes))
            found: list[list[bytes | None]] = await pipe.execute()
        return [
            {
                hour: float(of_millionths(int(count)))
                for hour, row in zip(numbers, found, strict=True)
                if (count := row[place]) is not None
            }
            for place in range(len(scopes))
        ]
