"""A worker put together: what its arq loop looks at, and what it does not begin."""

from collections.abc import AsyncIterator

import pytest

from service.queue import Claim
from service.settings import WorkerSettings
from tests.world.valkey import Valkey
from workers.assembly import create_worker
from workers.main import WorkerProcess
from workers.policy import Policy

pytestmark = pytest.mark.anyio


@pytest.fixture
async def worker(valkey: Valkey) -> AsyncIterator[WorkerProcess]:
    """A worker whose loops do not run."""
    settings = WorkerSettings.load({"REDIS_URL": valkey.url, "TELNYX_API_KEY": "KEY"})
    async with create_worker(settings, Policy()) as worker:
        yield worker


async def test_arq_looks_for_work_where_either_line_has_some(worker: WorkerProcess) -> None:
    """Sessions and alerts go to the same queue."""
    loop = worker._create_arq_worker()
    assert not loop.has_unstarted()
    for feeder in (worker.sessions, worker.alerts):
        feeder._held["id"] = "token"
        assert loop.has_unstarted()
        feeder._held.clear()


async def test_what_was_let_go_is_not_begun(worker: WorkerProcess) -> None:
    """A job whose lease this worker has not any more is somebody else's by now."""
    begun: list[Claim] = []

    async def work(claim: Claim) -> str:
        begun.append(claim)
        return "lost"

    held, gone = (Claim("id", token, 0, taken_over=False) for token in ("held", "gone"))
    worker.sessions._held["id"] = "held"
    for claim in (gone, held, held):
        await worker._work(worker.sessions, work, claim)
    assert begun == [held]
