"""Dead letters: listed and counted, retried and dropped, and ended by the retention."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from service import keys
from service.dead import MOST_KINDS, OTHER, Count, kind_of
from service.queue import session_line
from service.records import State
from service.store import RAW_MS, Recorded, Store
from tests.samples import END_MS, scheduling

pytestmark = pytest.mark.anyio

RETENTION_MS = 30 * 86_400_000


@pytest.fixture
def store(redis: Redis) -> Store:
    return Store(redis, retention_ms=RETENTION_MS)


async def die(
    redis: Redis,
    store: Store,
    *session_ids: str,
    kind: str = "Boom",
    now_ms: int = END_MS,
    raw: bytes = b"",
) -> None:
    """Let the sessions fail for good, each in its turn."""
    for session_id in session_ids:
        await store.record(scheduling(session_id, pulls=True, kind="call.cost"), now_ms=now_ms)
    claims = await session_line(redis).claim(
        limit=10_000, lease_ms=1000, token=f"t{now_ms}{kind}", now_ms=now_ms
    )
    for claim in claims:
        failures = await store.fail(
            claim.id,
            claim.token,
            now_ms=now_ms,
            first_wait_ms=0,
            most_failures=1,
            kind=kind,
            reason=f"{kind}: {claim.id}",
            raw=raw,
        )
        assert failures == 1


async def numbers(store: Store) -> dict[str, int]:
    return {count.kind: count.number for count in await store.dead.counts()}


async def hash_of(redis: Redis, session_id: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.hgetall(keys.session_key(session_id))  # type: ignore[misc]
    return found


async def test_the_dead_are_listed_by_their_death(redis: Redis, store: Store) -> None:
    """A dead letter is listed with kind, reason, failures and time, and does not end by itself."""
    await die(redis, store, "a", now_ms=END_MS)
    await die(redis, store, "b", kind="WrongRequest", now_ms=END_MS + 5)
    found = [letter async for letter in store.dead.newest()]
    assert [(letter.session_id, letter.kind) for letter in found] == [
        ("b", "WrongRequest"),
        ("a", "Boom"),
    ]
    assert (found[0].died_ms, found[0].reason, found[0].failures) == (
        END_MS + 5,
        "WrongRequest: b",
        1,
    )
    assert await redis.ttl(keys.session_key("a")) == -1
    assert await store.dead.find(["b", "c"]) == (found[0],)
    assert await store.dead.find([]) == ()


async def test_kinds_are_counted_since_their_first(redis: Redis, store: Store) -> None:
    """Each kind has its number, and the time since when there have been any."""
    await die(redis, store, "a", now_ms=END_MS)
    await die(redis, store, "b", now_ms=END_MS + 5)
    await die(redis, store, "c", kind="Bang", now_ms=END_MS + 9)
    assert await store.dead.counts() == (Count("Boom", 2, END_MS), Count("Bang", 1, END_MS + 9))
    await store.dead.drop(["a"], now_ms=END_MS)
    assert (await store.dead.counts())[1] == Count("Boom", 1, END_MS)
    await store.dead.drop(["b"], now_ms=END_MS)
    assert await redis.hkeys(keys.DEAD_SINCE) == [b"Bang"]  # type: ignore[misc]
    await die(redis, store, "d", now_ms=END_MS + 20)
    assert Count("Boom", 1, END_MS + 20) in await store.dead.counts()


async def test_the_number_of_kinds_is_bounded(redis: Redis, store: Store) -> None:
    """Beyond a hundred kinds all others count as one, and come off the list as that one."""
    for number in range(MOST_KINDS + 3):
        await die(redis, store, f"s{number}", kind=f"Kind{number}")
    counted = await numbers(store)
    assert len(counted) == MOST_KINDS + 1
    assert counted[OTHER] == 3
    assert await store.dead.retry(["s101"], now_ms=END_MS, kind=OTHER) == ("s101",)
    assert (await numbers(store))[OTHER] == 2


async def test_a_late_event_takes_a_session_off_the_list(redis: Redis, store: Store) -> None:
    """A dead letter that news reopens is dead no more, and counted no more."""
    await die(redis, store, "a", "b")
    late = scheduling("a", "2", at_ms=END_MS + 9)
    assert await store.record(late, now_ms=END_MS + 10) is Recorded.SCHEDULED
    assert [letter.session_id async for letter in store.dead.newest()] == ["b"]
    assert await numbers(store) == {"Boom": 1}
    assert {b"kind", b"reason", b"failures"}.isdisjoint(await hash_of(redis, "a"))
    assert await store.dead.drop(["a"], now_ms=END_MS) == ()
    session = await store.session("a")
    assert session
    assert session.state is State.OPEN


async def test_with_the_last_one_the_counts_go(redis: Redis, store: Store) -> None:
    """When no dead letter is left, neither list nor counts are."""
    await die(redis, store, "a")
    await store.dead.retry(["a"], now_ms=END_MS)
    assert await redis.exists(keys.DEAD, keys.DEAD_KINDS, keys.DEAD_SINCE) == 0
    assert await store.dead.counts() == ()


async def test_a_retried_session_is_due_with_all_its_tries(redis: Redis, store: Store) -> None:
    """It is open, due now, with no failures and no reason; its events are kept."""
    await die(redis, store, "a")
    before = await store.session("a")
    assert await store.dead.retry(["a"], now_ms=END_MS + 77) == ("a",)
    after = await store.session("a")
    assert before
    assert after
    assert (after.state, after.reason, after.events) == (State.OPEN, "", before.events)
    assert await redis.zscore(keys.DUE, "a") == END_MS + 77
    assert {b"kind", b"failures", b"token"}.isdisjoint(await hash_of(redis, "a"))
    assert await store.dead.retry(["a"], now_ms=END_MS + 99) == ()
    assert await redis.zscore(keys.DUE, "a") == END_MS + 77


async def test_a_dropped_session_says_so_and_ends(redis: Redis, store: Store) -> None:
    """It stays dead with its reason and says when it was dropped; the retention ends it."""
    await die(redis, store, "a", raw=b"answer")
    assert await store.dead.drop(["a"], now_ms=END_MS + 77) == ("a",)
    session = await store.session("a")
    assert session
    assert (session.state, session.dropped_ms) == (State.DEAD, END_MS + 77)
    assert session.reason == "Boom: a"
    assert 0 < await redis.pttl(keys.session_key("a")) <= RETENTION_MS
    assert await store.raw("a") is None
    assert await store.dead.drop(["a"], now_ms=END_MS + 99) == ()
    assert await store.dead.retry(["a"], now_ms=END_MS + 99) == ()


async def test_a_late_event_opens_a_dropped_session(redis: Redis, store: Store) -> None:
    """What a person gave up lives again with news, for good."""
    await die(redis, store, "a")
    await store.dead.drop(["a"], now_ms=END_MS)
    await store.record(scheduling("a", "2"), now_ms=END_MS)
    session = await store.session("a")
    assert session
    assert (session.state, session.dropped_ms) == (State.OPEN, None)
    assert await redis.ttl(keys.session_key("a")) == -1


@pytest.mark.parametrize("how", ["retry", "drop"])
async def test_only_one_kind_is_touched(redis: Redis, store: Store, how: str) -> None:
    """With a kind, dead letters of another are left alone, and so is what was never dead."""
    await die(redis, store, "a")
    await die(redis, store, "b", kind="Bang")
    await store.record(scheduling("open"), now_ms=END_MS)
    work = getattr(store.dead, how)
    assert await work(["a", "b", "open", "none"], now_ms=END_MS, kind="Bang") == ("b",)
    assert await numbers(store) == {"Boom": 1}


@pytest.mark.parametrize("how", ["retry", "drop"])
async def test_what_lives_is_only_struck_off(redis: Redis, store: Store, how: str) -> None:
    """A listed session that is open (opened by an older version) is not touched, only unlisted."""
    await die(redis, store, "a")
    await redis.hset(keys.session_key("a"), "state", "open")  # type: ignore[misc]
    before = await hash_of(redis, "a")
    assert await getattr(store.dead, how)(["a"], now_ms=END_MS) == ()
    assert await hash_of(redis, "a") == before
    assert await redis.exists(keys.DEAD, keys.DEAD_KINDS) == 0


async def test_two_people_at_once(redis: Redis, store: Store) -> None:
    """Whoever comes first has each dead letter, and nobody both."""
    ids = [f"s{number}" for number in range(50)]
    await die(redis, store, *ids)
    work: list[Any] = [
        store.dead.retry(ids[:30], now_ms=END_MS),
        store.dead.drop(ids[20:], now_ms=END_MS),
    ]
    retried, dropped = await asyncio.gather(*work)
    assert sorted([*retried, *dropped]) == sorted(ids)
    assert await store.dead.counts() == ()


async def test_the_retention_ends_dead_letters(redis: Redis, store: Store) -> None:
    """Trimming removes those that died long ago, sessions and all, and says which they were."""
    await die(redis, store, "old", now_ms=END_MS, raw=b"answer")
    await die(redis, store, "new", now_ms=END_MS + 1000)
    assert await store.trim(now_ms=END_MS + RETENTION_MS - 1) == ()
    (gone,) = await store.trim(now_ms=END_MS + RETENTION_MS)
    assert (gone.session_id, gone.reason, gone.kind) == ("old", "Boom: old", "Boom")
    assert await store.session("old") is None
    assert await redis.exists(keys.raw_key("old")) == 0
    assert [id async for id in store.session_ids()] == ["new"]
    assert await numbers(store) == {"Boom": 1}
    assert await store.trim(now_ms=END_MS + RETENTION_MS) == ()


async def test_the_retention_spares_what_lives(redis: Redis, store: Store) -> None:
    """A session on the list that is open is never removed, however old its death is."""
    await die(redis, store, "a")
    await redis.hset(keys.session_key("a"), "state", "open")  # type: ignore[misc]
    assert await store.trim(now_ms=END_MS + 2 * RETENTION_MS) == ()
    assert await store.session("a")
    assert await redis.exists(keys.DEAD) == 0


@pytest.mark.no_cover
async def test_ten_thousand_are_worked_on_in_pages(redis: Redis, store: Store) -> None:
    """Retrying while the list is walked reaches each of many, and leaves none."""
    ids = [f"s{number}" for number in range(10_000)]
    await die(redis, store, *ids)
    sizes: list[int] = []
    done: set[str] = set()
    async for page in store.dead.pages():
        sizes.append(len(page))
        done.update(await store.dead.retry(page, now_ms=END_MS))
    assert done == set(ids)
    assert max(sizes) < 2000
    assert await store.dead.counts() == ()
    assert await redis.zcard(keys.DUE) == 10_000


async def test_an_answer_is_kept_for_a_week(redis: Redis, store: Store) -> None:
    """What Telnyx answered is kept with each failure, and replaced by the next."""
    await die(redis, store, "a", raw=b"first")
    found = await store.raw("a")
    assert found
    assert found[0] == b"first"
    assert RAW_MS - 60_000 < found[1] <= RAW_MS
    await store.dead.retry(["a"], now_ms=END_MS)
    await die(redis, store, raw=b"second", now_ms=END_MS + 1)
    assert (await store.raw("a") or (b"", 0))[0] == b"second"


async def test_an_answer_is_kept_no_longer_than_the_retention(redis: Redis) -> None:
    """A retention of a day ends the answer, too."""
    await die(redis, store := Store(redis, retention_ms=86_400_000), "a", raw=b"first")
    assert (await store.raw("a") or (b"", RAW_MS))[1] <= 86_400_000


def test_the_kind_is_the_class() -> None:
    """A kind is a class name, however long somebody made it, and nothing of its message."""
    assert kind_of(ZeroDivisionError("+4915112345678")) == "ZeroDivisionError"
    assert len(kind_of(type("X" * 5000, (Exception,), {})())) == 100
