"""What is under way at once: bodies that still arrive, and requests that are worked on.

The two are bounded apart. A client decides how long its body takes, so a body that is under way
takes up memory, but no request's place; and work begins only when the whole body is there.
"""

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

BODIES_BYTES: Final = 67_108_864
"""What bodies under way may take together; twice the largest body at least."""


class BodyTooLarge(Exception):
    """The request's body is larger than allowed; it has not been read whole."""


class Crowded(Exception):
    """There is no room for this request now; it should come again."""


class Bodies:
    """Reads bodies of up to `each` bytes, which take up to `together` while they arrive.

    When they would take more, the largest is given up: whoever fills the memory pays for it, and
    a body of ordinary size comes through.
    """

    def __init__(self, each: int, together: int = 0) -> None:
        self._each = each
        self._together = together or max(BODIES_BYTES, 2 * each)
        self._sizes: dict[asyncio.Timeout, int] = {}
        self._sum = 0

    async def read(self, receive: Receive) -> bytes:
        """The request's body.

        Raises BodyTooLarge as soon as it is known to be, Crowded when it was given up, and
        ClientDisconnect, which `serve` takes quietly, when the client is gone before its end.
        """
        body, more = await _next(receive)
        if len(body) > self._each:
            raise BodyTooLarge
        # Most come in one piece with their head, and never wait.
        return await self._rest(receive, body) if more else body

    async def _rest(self, receive: Receive, begun: bytes) -> bytes:
        body, more = bytearray(begun), True
        try:
            async with asyncio.timeout(None) as patience:
                try:
                    while more:
                        self._note(patience, len(body))
                        piece, more = await _next(receive)
                        body += piece
                        if len(body) > self._each:
                            raise BodyTooLarge
                finally:
                    self._sum -= self._sizes.pop(patience, 0)
        except TimeoutError as error:
            raise Crowded from error
        return bytes(body)

    def _note(self, patience: asyncio.Timeout, size: int) -> None:
        """This body has grown to `size`; where all are too much, the largest has to go."""
        if patience.when() is not None:
            return
        self._sum += size - self._sizes.get(patience, 0)
        self._sizes[patience] = size
        if self._sum > self._together:
            largest = max(self._sizes, key=lambda body: self._sizes[body])
            self._sum -= self._sizes.pop(largest)
            largest.reschedule(asyncio.get_running_loop().time())


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


class Places:
    """So many requests are worked on at once. Used with `with`; raises Crowded when all are taken.

    Unlike uvicorn's `limit_concurrency` it counts neither idle connections nor arriving bodies.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._limit:
            raise Crowded
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1
