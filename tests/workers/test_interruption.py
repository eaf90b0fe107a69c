"""A cancellation that a library forgot is found again."""

import asyncio
import contextlib

import pytest

from workers.interruption import heed_cancellation

pytestmark = pytest.mark.anyio


async def test_a_loop_that_lost_its_cancellation_ends() -> None:
    """What was swallowed in one step ends the loop at the next."""
    steps = 0

    async def loop() -> None:
        nonlocal steps
        while steps < 10:
            heed_cancellation()
            steps += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert steps == 1


async def test_whoever_is_wanted_goes_on() -> None:
    """Nothing happens to a task that nobody has cancelled."""
    heed_cancellation()
