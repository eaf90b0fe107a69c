"""Dead letters on the command line: which are meant, and what is done to them, page by page.

Workers run meanwhile, and so may others who do the same: what is not dead any more by the time its
turn comes is left alone, so all of this may be repeated.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from redis.asyncio import Redis

from service import keys
from service.dead import DeadLetter, DeadLetters
from service.store import Store
from workers.evidence import read_raw
from workers.lookup import Known, NotReadable, look_up, whole

Action: TypeAlias = Literal["retry", "drop"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters are meant: those named, or where none is, all, or all of a kind."""

    sessions: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What was (or with a dry run would be) done: how many of each kind.

    Of the sessions that were named: those that are no dead letters (any more), and the unknown.
    """

    kinds: Counter[str]
    not_dead: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """All that there is to know of one dead letter.

    `known` is None where its record cannot be read, which may be what it died of. `raw_key` is
    where the answer is on which our code broke last, for `raw_left_ms` still.
    """

    letter: DeadLetter
    known: Known | None
    raw_key: str = ""
    raw_left_ms: int = 0
    raw: bytes = b""


async def listed(letters: DeadLetters, *, kind: str, limit: int) -> AsyncIterator[DeadLetter]:
    """Up to `limit` dead letters (of that kind), the latest death first."""
    found = 0
    async for letter in letters.newest():
        if kind in {"", letter.kind}:
            yield letter
            found += 1
            if found >= limit:
                return


async def act(store: Store, action: Action, chosen: Chosen, *, now_ms: int, dry_run: bool) -> Done:
    """Retry or drop what is chosen, but for what dies meanwhile.

    Redis' errors pass through: what is done by then is done.
    """
    done: dict[str, str] = {}
    async for page in _pages(store.dead, chosen):
        found = {
            letter.session_id: letter.kind
            for letter in await store.dead.find(page)
            if chosen.kind in {"", letter.kind} and letter.died_ms <= now_ms
        }
        ids = tuple(found)
        if not dry_run:
            ids = await _do(store.dead, action, ids, chosen.kind, now_ms)
        done |= {id: found[id] for id in ids}
    left = [id for id in chosen.sessions if id not in done]
    known = [id for id in left if await store.is_known(id)]
    unknown = [id for id in left if id not in known]
    return Done(Counter(done.values()), tuple(known), tuple(unknown))


async def look(redis: Redis, store: Store, session_id: str) -> Looked | None:
    """What is known of a dead letter; None where the session is none."""
    found = await store.dead.find([session_id])
    if not found:
        return None
    try:
        known = await look_up(redis, session_id)
    except NotReadable:
        known = None
    raw, left_ms = await store.raw(session_id) or (b"", 0)
    name = keys.raw_key(session_id) if raw else ""
    return Looked(found[0], known, name, left_ms, read_raw(raw) if raw else b"")


def brief_letter(letter: DeadLetter) -> dict[str, Any]:
    """One dead letter on one line, for JSON."""
    return {
        "session_id": letter.session_id,
        "died_ms": letter.died_ms,
        "kind": letter.kind,
        "failures": letter.failures,
        "reason": letter.reason,
    }


def whole_letter(looked: Looked) -> dict[str, Any]:
    """All that is known of a dead letter, for JSON."""
    return {
        **brief_letter(looked.letter),
        "raw_key": looked.raw_key or None,
        "raw_left_ms": looked.raw_left_ms or None,
        "session": whole(looked.known) if looked.known else None,
    }


async def _pages(letters: DeadLetters, chosen: Chosen) -> AsyncIterator[Sequence[str]]:
    if chosen.sessions:
        yield chosen.sessions
        return
    async for page in letters.pages():
        yield page


async def _do(
    letters: DeadLetters, action: Action, ids: tuple[str, ...], kind: str, now_ms: int
) -> tuple[str, ...]:
    if not ids:
        return ()
    work = letters.retry if action == "retry" else letters.drop
    return await work(ids, now_ms=now_ms, kind=kind)
