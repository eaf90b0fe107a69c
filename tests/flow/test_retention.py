"""The whole keyspace, with sessions in every state: each key has an end, or an owner."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from service import keys
from service.records import Delivery, State
from service.store import Store
from tests.flow.stage import Outside, Stage, now, now_ms, open_stage
from tests.world.model import Call
from workers.analyze import MOST_FAILURES

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

RETENTION_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A Redis that nobody works on any more, and the calls in it, by what has become of them."""

    redis: Redis
    calls: Mapping[str, Call]

    async def endless(self) -> set[str]:
        """The keys that do not end by themselves."""
        names = {name.decode() async for name in self.redis.scan_iter()}
        return {name for name in names if await self.redis.pttl(name) == -1}


@pytest.fixture(scope="module")
async def keyspace(
    outside: Outside, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Keyspace]:
    """Sessions that wait, are held, have a verdict, an alert, no cost, are dead and dropped."""
    poison = tmp_path_factory.mktemp("poison") / "sessions"
    poison.write_text("")
    spoiled = {"POISON": str(poison), "TOLLWATCH_GRACE_SECONDS": "1"}
    async with open_stage(
        outside, ages="1", worker=spoiled, worker_module="tests.flow.poisoned"
    ) as stage:
        calls = {
            "verdict": stage.past("sip_inbound"),
            "alerted": stage.past("dear_destination"),
            "unavailable": stage.world.generator.make("sip_inbound", end=now(stage)),
            "held": stage.past("sip_inbound"),
            "dead": stage.past("ai_inbound"),
            "dropped": stage.past("ai_inbound"),
        }
        poison.write_text(f"{calls['dead'].session_id}\n{calls['dropped'].session_id}")
        stage.world.telnyx.faults.status(403, path=calls["held"].session_id, times=None)
        await stage.hang_up(*calls.values())
        await _see_to_their_ends(stage, calls)
        await asyncio.to_thread(stage.worker.terminate)
        calls |= {"open": stage.world.call("sip_inbound"), "asked": stage.past("ai_inbound")}
        await stage.hang_up(calls["open"], calls["asked"])
        await asyncio.to_thread(stage.web.terminate)
        yield Keyspace(stage.redis, calls)


async def _see_to_their_ends(stage: Stage, calls: Mapping[str, Call]) -> None:
    await stage.ended(calls["verdict"])
    await stage.ended(calls["alerted"])
    await stage.told(calls["alerted"])
    await stage.ended(calls["unavailable"], State.UNAVAILABLE)
    await stage.held(calls["held"])
    for name in ("dead", "dropped"):
        for failures in range(1, MOST_FAILURES):
            await stage.heard(calls[name], "attempt failed", failures)
            await stage.hurry(calls[name])
        await stage.ended(calls[name], State.DEAD)
    await stage.until(lambda: stage.log(event="dead letters"), "the notice")
    await stage.tollwatch("dead", "drop", calls["dropped"].session_id)


async def test_every_state_is_there(keyspace: Keyspace) -> None:
    """The walk below meets what it is meant to meet."""
    store = Store(keyspace.redis, retention_ms=RETENTION_MS)
    found = {name: await store.session(call.session_id) for name, call in keyspace.calls.items()}
    states = {name: session.state for name, session in found.items() if session}
    assert states == {
        "verdict": State.VERDICT,
        "alerted": State.VERDICT,
        "unavailable": State.UNAVAILABLE,
        "held": State.OPEN,
        "open": State.OPEN,
        "asked": State.OPEN,
        "dead": State.DEAD,
        "dropped": State.DEAD,
    }
    ids = [alert_id async for alert_id in store.alert_ids()]
    postings = [posting for alert_id in ids if (posting := await store.posting(alert_id))]
    assert Delivery.POSTED in [posting.delivery for posting in postings]
    assert await store.raw(keyspace.calls["dead"].session_id)
    names = {name.decode() async for name in keyspace.redis.scan_iter()}
    families = {family.name for name in names if (family := keys.family_of(name))}
    assert families >= {
        "tollwatch:session:{id}",
        "tollwatch:ended",
        "tollwatch:due",
        "tollwatch:analysis:{id}",
        "tollwatch:dead",
        "tollwatch:dead:kinds",
        "tollwatch:dead:since",
        "tollwatch:raw:{id}",
        "tollwatch:alert:{id}",
    }


async def test_every_key_has_an_end_or_an_owner(keyspace: Keyspace) -> None:
    """Each key is described; one without an end is owned, or held by the line that it stands in."""
    unexplained = []
    for name in await keyspace.endless():
        family = keys.family_of(name)
        if family is None or not (
            family.owned or await _stands(keyspace.redis, family, family.id_of(name) or "")
        ):
            unexplained.append(name)
    assert unexplained == []
    names = {name.decode() async for name in keyspace.redis.scan_iter()}
    assert [name for name in names if keys.family_of(name) is None] == []


async def _stands(redis: Redis, family: keys.Family, id: str) -> bool:
    return any([await redis.zscore(line, id) is not None for line in family.held_by])


async def test_what_is_held_has_no_end_meanwhile(keyspace: Keyspace) -> None:
    """What somebody has still to look at, worker or person, cannot end before."""
    endless = await keyspace.endless()
    kept = {keys.session_key(keyspace.calls[name].session_id) for name in ("open", "held", "dead")}
    assert kept <= endless


async def test_after_the_retention_only_open_work_is_left(keyspace: Keyspace) -> None:
    """With time gone by, housekeeping leaves nothing of what has ended, and all that has not."""
    redis = keyspace.redis
    store = Store(redis, retention_ms=RETENTION_MS)
    later_ms = now_ms() + RETENTION_MS + 3_600_000
    await _let_end(redis)
    (expired,) = await store.trim(now_ms=later_ms)
    assert expired.session_id == keyspace.calls["dead"].session_id
    left = {keyspace.calls[name].session_id for name in ("open", "held", "asked")}
    names = {name.decode() async for name in redis.scan_iter()}
    assert names == {
        *(keys.session_key(id) for id in left),
        keys.SLACK,
        keys.SESSIONS,
        keys.ENDED,
        keys.DUE,
    }
    assert {id async for id in store.session_ids()} == left


async def _let_end(redis: Redis) -> None:
    """What has a time to live, has lived."""
    async for name in redis.scan_iter():
        if await redis.pttl(name) >= 0:
            await redis.delete(name)
