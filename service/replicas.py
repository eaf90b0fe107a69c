"""Scripts whose writes count only when replicas have them, too.

Redis answers before its replicas have a write, so a failover can lose what was acknowledged. `WAIT`
says how many have it, but only of what the same connection wrote, and an event that is here already
writes nothing. So the script, one small write and `WAIT` go out together, on one connection: what
comes later in Redis' stream is nowhere without what came before it.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from service.keys import MARK
from service.logs import get_logger

# Twice this, for the batch that is under way and the next, is below what a webhook waits for Redis,
# and once below the time-out of a connection.
_WAIT_MS: Final = 700
_MARK_MS: Final = 60_000
_log = get_logger()


class TooFewReplicas(RedisError):
    """The master has it, but not as many replicas as it takes to be sure of it."""

    def __init__(self, have: int, wanted: int) -> None:
        super().__init__(f"{have} of {wanted} replicas have it")


class ReplicatedScript:
    """A Lua script; its answer comes when `replicas` replicas have what it wrote.

    With none wanted it is an ordinary script. The script may run more than once: after a lost
    connection, and when a caller tries again because it heard of TooFewReplicas. With `best_effort`
    too few replicas are a line in the log.
    """

    def __init__(
        self, redis: Redis, text: str, *, replicas: int = 0, best_effort: bool = False
    ) -> None:
        self._redis = redis
        self._script = redis.register_script(text)
        self._replicas = replicas
        self._best_effort = best_effort

    async def __call__(self, *, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """The script's answer. Raises TooFewReplicas; Redis' errors pass through."""
        if not self._replicas:
            return await self._script(keys=keys, args=args)
        try:
            answer, have = await self._run(keys, args)
        except NoScriptError:
            # As after every failover: scripts do not come over to the new master.
            await self._redis.script_load(self._script.script)
            answer, have = await self._run(keys, args)
        if have < self._replicas:
            await self._complain(TooFewReplicas(have, self._replicas))
        return answer

    async def _run(self, keys: Sequence[Any], args: Sequence[Any]) -> tuple[Any, int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.evalsha(self._script.sha, len(keys), *keys, *args)
            pipe.set(MARK, "1", px=_MARK_MS)
            pipe.execute_command("WAIT", self._replicas, _WAIT_MS)
            # redis-py would put the arguments, which are an event, into the error's text.
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers[0], int(answers[2])

    async def _complain(self, too_few: TooFewReplicas) -> None:
        # Whom its replicas have left may be the master no more: the next try looks for it anew.
        await self._redis.connection_pool.disconnect(inuse_connections=False)
        if not self._best_effort:
            raise too_few
        _log.warning("a failover could lose this", reason=str(too_few))
