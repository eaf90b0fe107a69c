"""arq's worker on a queue of its own: the only module that knows arq's Worker."""

import asyncio
from collections.abc import Callable
from typing import Any

from arq.utils import timestamp_ms
from arq.worker import Worker


class LeasedWorker(Worker):
    """Starting a job needs no agreement with other workers: the queue holds this one's leases.

    arq watches and marks each job in four round trips, so that two workers do not start the same.
    Here the lease has settled that already.
    """

    def __init__(
        self,
        *,
        all_tasks: set["asyncio.Task[None]"],
        has_unstarted: Callable[[], bool],
        **options: Any,
    ) -> None:
        """`all_tasks` takes in each job's task until it has ended; the rest is arq's."""
        super().__init__(**options)
        self.all_tasks = all_tasks
        self.has_unstarted = has_unstarted

    async def _poll_iteration(self) -> None:
        """Ask Redis for work only where there is some.

        Nobody but this worker's feeders fills the queue, and fifty questions a second would be most
        of what an idle worker costs. What has ended is for arq to look at: its loop dies of errors.
        """
        if self.has_unstarted() or any(task.done() for task in self.tasks.values()):
            await super()._poll_iteration()
        else:
            await self.heart_beat()

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start what there is room for; the rest stays in the queue."""
        fresh = [id for id in job_ids if id.decode() not in self.tasks]
        starting = fresh[: self.max_jobs - self.job_counter]
        if not starting:
            return
        await self.pool.zrem(self.queue_name, *starting)
        for id in starting:
            await self.sem.acquire()
            self.job_counter += 1
            task = self.loop.create_task(self.run_job(id.decode(), timestamp_ms()))
            task.add_done_callback(lambda _: self._release_sem_dec_counter_on_complete())
            self.tasks[id.decode()] = task
            self.all_tasks.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        """Look at what ended a job: arq's own bookkeeping may fail with Redis.

        The main loop, if it lives, dies of that; if it is dead, nobody else would look, which
        asyncio reports as an error.
        """
        self.all_tasks.discard(task)
        if not task.cancelled():
            task.exception()
