"""A backlog after days without a worker is drained in order, and nobody waits behind it."""

import asyncio

import pytest

from tests.bench import backlog

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

_SESSIONS = 3_000


async def test_a_backlog_of_three_days_is_drained_beside_new_calls() -> None:
    """Sessions due for three days are judged oldest first, new ones meanwhile, in flat memory.

    arq's jobs expire after a day, so nothing may depend on them. The same with 100,000 sessions is
    `make bench ARGS=backlog`.
    """
    result = await asyncio.to_thread(backlog.run, _SESSIONS)
    assert result.sessions == _SESSIONS
    # Those worked on at the same time may end in any order.
    assert result.displaced <= 2 * backlog.CONCURRENCY
    assert result.overtaken_by < _SESSIONS / 2
    assert result.peak_mib - result.start_mib < 64
