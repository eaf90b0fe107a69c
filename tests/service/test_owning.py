"""Whose a call is: whatever is heard of it in whatever order, it is one call of one owner."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service import keys
from service.counting import ACCOUNT, CALLS, ONE_NUMBER, ONE_PREFIX, SHORT_CALLS, SHORT_SECONDS
from service.destination import country_of
from service.dialled import destination
from service.events import Begun, Scheduling
from service.owning import ALONE_MS
from service.records import Conclusion, Spend, State, Verdict, Watch
from service.store import Store
from tests.samples import scheduling

pytestmark = pytest.mark.anyio

MIDNIGHT_MS: Final = 20_500 * 86_400_000
TAKERS: Final = {
    "nobody known": None,
    "A alone": (MIDNIGHT_MS - 2 * ALONE_MS, "A"),
    "A of several": (MIDNIGHT_MS - ALONE_MS // 2, "A"),
    "the connection": (MIDNIGHT_MS - 2 * ALONE_MS, "C"),
}
OWNERS: Final = ("A", "B", "C")
OWN: Final = "+15551234567"
FAR: Final = "+37120000149"


@dataclass(frozen=True)
class Heard:
    """A webhook: what it tells of, so many seconds after the call began, so much later."""

    what: str
    after_seconds: int
    late_seconds: int


@st.composite
def webhooks(draw: st.DrawFn) -> list[Heard]:
    """Those of one call in the order in which they come; one end at least."""
    talked = draw(st.integers(5, 3 * 3600))
    late = st.one_of(st.integers(0, 30), st.just(0), st.integers(601, 4000))
    when = {
        "inbound": 0,
        "transfer": draw(st.integers(1, talked + 20)),
        "hangup": talked,
        "second hangup": talked + draw(st.integers(0, 60)),
        "conversation": talked - draw(st.integers(0, 3)),
        "analyzed": talked + draw(st.integers(0, 30)),
    }
    wanted = draw(st.sets(st.sampled_from(sorted(when)), min_size=1))
    heard = [Heard(what, when[what], draw(late)) for what in sorted(wanted | {"hangup"})]
    heard += draw(st.lists(st.sampled_from(heard), max_size=2))
    return sorted(heard, key=lambda each: each.after_seconds + each.late_seconds)


def _event(heard: Heard, at_ms: int, talked: int) -> Scheduling:
    named = heard.what in {"conversation", "analyzed"}
    fields: dict[str, Any] = {"connection_id": "C", "assistant_id": "B" if named else None}
    if heard.what == "analyzed":
        fields |= {"kind": "call.analyzed", "ends": False}
    else:
        fields["duration_seconds"] = talked
    made = scheduling("s", heard.what, at_ms=at_ms, **fields)
    to = FAR if heard.what == "second hangup" else OWN
    return replace(made, destination=None if heard.what == "analyzed" else destination(to, b"k"))


def _begun(heard: Heard, at_ms: int) -> Begun:
    is_dialled = heard.what == "transfer"
    to = FAR if is_dialled else OWN
    there = destination(to, b"k")
    country = country_of(to)
    return Begun("s", "call.initiated", at_ms, "C", country, there, heard.what, is_dialled)


async def _conclude(store: Store, redis: Redis, now_ms: int) -> None:
    await cast("Any", redis.hset(keys.session_key("s"), "token", "t"))
    session = await store.take("s", "t")
    assert session
    verdict = Verdict(at_ms=now_ms, total=Decimal("3.5"), currency="USD")
    spend = Spend(Decimal("3.5"), "USD", session.end_ms)
    final = Conclusion(
        State.VERDICT, Watch(end_ms=session.end_ms), None, "", True, verdict=verdict, spend=spend
    )
    await store.conclude(session, "t", final, now_ms=now_ms)


async def _sums(redis: Redis, series: str) -> dict[str, int]:
    """Of all days, by what it is: calls, those that were paid, their money."""
    sums = {"c": 0, "k": 0, "u": 0}
    for key in await redis.keys(f"{keys.CALLS_DAY}*:{series}"):
        of_day = dict.fromkeys(sums, 0)
        for name, value in (await cast("Any", redis.hgetall(key))).items():
            if (field := name[:1].decode()) in sums:
                of_day[field] += int(value)
        assert of_day["k"] <= of_day["c"], f"money without a call: {key}"
        sums = {field: amount + of_day[field] for field, amount in sums.items()}
    return sums


async def _minutes(redis: Redis, series: str) -> list[int]:
    found = []
    for key in await redis.keys(f"{keys.CALLS_MINUTE}*"):
        assert await redis.pttl(key) > 0
        found.append(int(await cast("Any", redis.hget(key, series)) or 0))
    return [calls for calls in found if calls]


@pytest.mark.no_cover
@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(heard=webhooks(), begin_ms=st.integers(MIDNIGHT_MS - 3 * 3_600_000, MIDNIGHT_MS))
async def test_a_call_is_one_call_of_one_owner(
    redis: Redis, taker: tuple[int, str] | None, heard: list[Heard], begin_ms: int
) -> None:
    """Whom an event names before the verdict, if one does; its money is where it is counted."""
    await redis.flushdb()
    if taker:
        noted = f"{taker[0]} {begin_ms - 1000} {taker[1]}"
        await cast("Any", redis.hset(keys.CALLS_TAKERS, "C", noted))
    store = Store(redis, retention_ms=40 * 86_400_000)
    talked = next(each.after_seconds for each in heard if each.what == "hangup")
    now_ms = begin_ms
    for each in heard:
        at_ms = begin_ms + 1000 * each.after_seconds
        now_ms = at_ms + 1000 * each.late_seconds
        if each.what in {"inbound", "transfer"}:
            await store.begin(_begun(each, at_ms), now_ms=now_ms)
        else:
            await store.record(_event(each, at_ms, talked), now_ms=now_ms)
    await _conclude(store, redis, now_ms + 300_000)

    once = {"c": 1, "k": 1, "u": 3_500_000}
    assert await _sums(redis, f"{CALLS}|{ACCOUNT}") == once
    counted = {owner: await _sums(redis, f"{CALLS}|{owner}") for owner in OWNERS}
    (owner,) = (owner for owner, sums in counted.items() if sums["c"])
    assert counted[owner] == once
    if any(each.what in {"conversation", "analyzed"} for each in heard):
        assert owner == "B"
    for other in OWNERS:
        for kind in (CALLS, SHORT_CALLS, ONE_NUMBER, ONE_PREFIX):
            minutes = await _minutes(redis, f"{kind}|{other}")
            assert minutes in (([], [1]) if other == owner else ([],)), (kind, other)
            sums = await _sums(redis, f"{kind}|{other}")
            assert sums["c"] <= (other == owner), (kind, other)
    short = await _sums(redis, f"{SHORT_CALLS}|{owner}")
    assert short["c"] == short["k"] == (talked <= SHORT_SECONDS)
