"""A cancellation that got lost, found again: for long loops that a person may break off."""

import asyncio


def heed_cancellation() -> None:
    """Raises CancelledError where the running task was cancelled and goes on all the same.

    redis-py sends with `asyncio.wait_for`, and up to Python 3.11 that forgets a cancellation which
    comes in the moment in which the sending is done (CPython's issue 86296). The task remembers it.
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
