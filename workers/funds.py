"""Watches the account's balance: asks now and then, remembers, shows, and tells before it is gone.

One worker asks, every ten minutes at most, and whatever goes wrong with that is a line in the log
and a metric: no work waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, cast

from redis.asyncio import Redis

from service import keys
from service.logs import get_logger
from service.money import ZERO, millionths, money, plain
from service.records import ACCOUNT, moment
from service.spend import HOUR_KEPT_MS, Spending, hour_name
from service.store import Rung, Store
from workers.answer import Failure
from workers.detection.balance import Balance, RunOut, balance_notice, is_top_up, run_out
from workers.detection.pace import DAY_MS, DAYS_KNOWN
from workers.metrics import WorkerMetrics
from workers.telnyx import TelnyxClient

ASK_MS: Final = 600_000
_KEPT_MS: Final = 30 * 86_400_000
_OUTAGE_MS: Final = 2 * 3_600_000
"""Nobody asked for longer: the fall belongs to hours that are over, in which calls have cost."""
_LOOK_SECONDS: Final = 10.0
_TOLD: Final = "told"
# What the balance fell by in an hour goes before what our calls cost in it: other products and fees
# take from the same account. The calls' cost is there for the time before it was first heard.
_FALLS: Final = "balance"

# Fields of the hash:
#   available, balance, currency   as Telnyx last told
#   heard   when that was, ms
#   since   when the present fall began, with the first answer or the last top-up, ms
#   empty   when it is used up at this pace, ms; "" where it lasts for a month
#   told    the highest rung of this fall that the operators heard of

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Heard:
    """The balance as Telnyx last told it, and since when it has been falling."""

    found: RunOut
    since_ms: int


@dataclass(slots=True)
class Purse:
    """What is remembered of the balance. Redis' errors pass through."""

    redis: Redis
    spending: Spending

    async def load(self) -> Heard | None:
        """What was last heard, or None."""
        # redis-py types one method for its blocking and its asyncio client at once.
        asked = cast("Awaitable[Mapping[bytes, bytes]]", self.redis.hgetall(keys.BALANCE))
        fields = {name.decode(): value.decode() for name, value in (await asked).items()}
        if "heard" not in fields:
            return None
        balance = Balance(
            money(fields["available"]) or ZERO, money(fields["balance"]) or ZERO, fields["currency"]
        )
        empty = fields["empty"]
        found = RunOut(balance, int(fields["heard"]), int(empty) if empty else None)
        return Heard(found, int(fields["since"]))

    async def forecast(self, balance: Balance, now_ms: int) -> RunOut:
        """When it is used up, by what the last days took."""
        calls, falls = await self.spending.hours(
            balance.currency, [ACCOUNT, _FALLS], now_ms, days=DAYS_KNOWN
        )
        return run_out(balance, calls | falls, now_ms)

    async def save(self, balance: Balance, now_ms: int) -> Heard:
        """Keep what was heard: a fall goes on, and a top-up begins a new one."""
        before = await self.load()
        fall = before and before.found.balance.currency == balance.currency
        last = before.found.balance.available if before and fall else balance.available
        is_new = not fall or is_top_up(last, balance.available)
        since_ms = now_ms if before is None or is_new else before.since_ms
        if before is None or now_ms - before.found.at_ms <= _OUTAGE_MS:
            await self._note_fall(balance.currency, last - balance.available, now_ms)
        found = await self.forecast(balance, now_ms)
        async with self.redis.pipeline() as pipe:
            pipe.hset(
                keys.BALANCE,
                mapping={
                    "available": plain(balance.available),
                    "balance": plain(balance.balance),
                    "currency": balance.currency,
                    "heard": now_ms,
                    "since": since_ms,
                    "empty": "" if found.empty_ms is None else found.empty_ms,
                },
            )
            if is_new:
                pipe.hdel(keys.BALANCE, _TOLD)
            pipe.pexpire(keys.BALANCE, _KEPT_MS)
            await pipe.execute()
        return Heard(found, since_ms)

    async def _note_fall(self, currency: str, fall: Decimal, now_ms: int) -> None:
        key = keys.spend_key(currency, hour_name(now_ms))
        async with self.redis.pipeline() as pipe:
            pipe.hincrby(key, _FALLS, millionths(max(ZERO, fall)))
            pipe.pexpire(key, HOUR_KEPT_MS)
            await pipe.execute()


def brief(found: RunOut) -> dict[str, Any]:
    """The balance for other programs."""
    return {
        "available": plain(found.balance.available),
        "balance": plain(found.balance.balance),
        "currency": found.balance.currency,
        "empty_at": moment(found.empty_ms).isoformat() if found.empty_ms is not None else None,
    }


@dataclass(slots=True)
class BalanceWatch:
    """Asks for the balance as often as may be, whichever worker comes first."""

    redis: Redis
    store: Store
    purse: Purse
    telnyx: TelnyxClient
    metrics: WorkerMetrics
    warning_days: Decimal
    now_ms: Callable[[], int]

    async def run(self) -> None:
        """Watch for ever. Redis' errors pass through."""
        while True:
            await self.turn()
            await asyncio.sleep(_LOOK_SECONDS)

    async def turn(self) -> None:
        """Ask if it is time to, tell what is to be told, and show what is known."""
        if await self.redis.set(keys.BALANCE_LEASE, "1", nx=True, px=ASK_MS):
            await self._ask()
        heard = await self.purse.load()
        if heard:
            found = heard.found
            left_ms = None if found.empty_ms is None else max(0, found.empty_ms - self.now_ms())
            days = found.days_left if left_ms is None else left_ms / DAY_MS
            available = float(found.balance.available)
            self.metrics.show_balance(available, days, heard_ms=found.at_ms)

    async def _ask(self) -> None:
        answer = await self.telnyx.balance()
        if isinstance(answer, Failure):
            _log.warning("balance not known", meaning=answer.name, reason=answer.reason)
            return
        now_ms = self.now_ms()
        heard = await self.purse.save(answer, now_ms)
        rung = heard.found.rung(self.warning_days)
        if not rung:
            return
        notice = balance_notice(heard.found, rung, heard.since_ms)
        told = Rung(keys.BALANCE, _TOLD, rung, _KEPT_MS)
        if await self.store.notify(notice, now_ms=now_ms, rung=told):
            _log.warning("balance runs out", rung=rung, available=answer.available)
