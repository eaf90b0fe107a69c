"""The workers' time is that of Redis, by which what is due is claimed: their own clocks differ.

A worker whose clock is minutes ahead would take a call's last age for passed and give a final word
too early; one whose clock is behind would put the next look into the past and ask without a pause.
"""

import time
from dataclasses import dataclass

from redis.asyncio import Redis


@dataclass(slots=True)
class RedisClock:
    """Redis' time as it was read last, carried on by this machine's monotonic clock.

    Until `adjust` has been answered once, the machine's own time.
    """

    redis: Redis
    _ahead_ms: float | None = None
    """Of the monotonic clock."""

    async def adjust(self) -> None:
        """Read Redis' time; what is read is right to half a round trip. Redis' errors pass."""
        asked = time.monotonic()
        seconds, microseconds = await self.redis.time()
        middle = (asked + time.monotonic()) / 2
        self._ahead_ms = seconds * 1000 + microseconds / 1000 - middle * 1000

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        if self._ahead_ms is None:
            return int(time.time() * 1000)
        return int(time.monotonic() * 1000 + self._ahead_ms)
