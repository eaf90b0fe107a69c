"""What time it is for a worker."""

import time

import pytest
from redis.asyncio import Redis

from workers.clock import RedisClock

pytestmark = pytest.mark.anyio


async def test_a_wrong_clock_does_not_matter(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker keeps Redis' time, however wrong its machine's is."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 150)
    clock = RedisClock(redis)
    assert abs(clock.now_ms() - right() * 1000 - 150_000) < 5_000
    await clock.adjust()
    assert abs(clock.now_ms() - right() * 1000) < 5_000


async def test_time_goes_on_between_two_looks(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is asked now and then only; between, time passes as it does for the machine."""
    clock = RedisClock(redis)
    await clock.adjust()
    before, monotonic = clock.now_ms(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 60)
    assert 60_000 <= clock.now_ms() - before < 65_000
