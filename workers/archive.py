"""What is stored of finished sessions, read in order of their ends, for a file.

Only ids and ends are held at once, and a page of whole sessions; workers may go on meanwhile.
"""

import asyncio
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from redis.asyncio import Redis

from service import keys
from service.records import State
from service.store import Store
from workers.analysis import Unreadable
from workers.history import line_of
from workers.span import Span

_SCANNED: Final = 500
# Each is read over a connection of its own.
_PAGE: Final = 50
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, zlib.error, Unreadable)


@dataclass(slots=True)
class Tally:
    """How many sessions were written, and how many were left out for which reason."""

    written: int = 0
    unfinished: int = 0
    """Open, or dead."""
    without_analysis: int = 0
    unreadable: int = 0


async def write_sessions(
    redis: Redis,
    span: Span,
    write: Callable[[bytes], object],
    advance: Callable[[int, int], None],
) -> Tally:
    """Write a line for each finished session whose call ended in the span, by end.

    `advance` is told how many of how many have been looked at. Redis' errors pass through.
    """
    store = Store(redis, retention_ms=0)
    ends = await _ends(redis, span)
    tally = Tally()
    for start in range(0, len(ends), _PAGE):
        ids = [id for _, id in ends[start : start + _PAGE]]
        for line in await asyncio.gather(*(_line(store, id, tally) for id in ids)):
            if line is not None:
                write(line)
                tally.written += 1
        advance(min(start + _PAGE, len(ends)), len(ends))
    return tally


async def _ends(redis: Redis, span: Span) -> list[tuple[int, str]]:
    """When which calls in the span ended, in order."""
    found: set[tuple[int, str]] = set()
    cursor = -1
    while cursor:
        # By cursor: what changes meanwhile moves within the index, and hides no other.
        cursor, page = await redis.zscan(keys.SESSIONS, max(cursor, 0), count=_SCANNED)
        ids = [id.decode(errors="replace") for id, _ in page]
        found |= {
            (end_ms, id)
            for id, end_ms in zip(ids, await _ends_of(redis, ids), strict=True)
            if end_ms is not None and span.holds(end_ms)
        }
    return sorted(found)


async def _ends_of(redis: Redis, ids: Sequence[str]) -> list[int | None]:
    async with redis.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.hmget(keys.session_key(id), ["end", "cost"])
        found = await pipe.execute()
    return [int(end or cost) if end or cost else None for end, cost in found]


async def _line(store: Store, id: str, tally: Tally) -> bytes | None:
    try:
        session = await store.session(id)
        # Its retention may have ended, and a late event opened it, since the ends were read.
        if session is None or session.state in {State.OPEN, State.DEAD}:
            tally.unfinished += session is not None
            return None
        analysis = await store.analysis(id)
        if analysis is None:
            tally.without_analysis += 1
            return None
        return line_of(session, analysis)
    except _UNREADABLE:
        tally.unreadable += 1
        return None
