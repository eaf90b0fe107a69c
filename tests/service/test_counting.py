"""Calls counted in a real Redis: once for each session, whatever comes how often."""

from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from service import keys
from service.counting import (
    LATE_MS,
    MOST_PLACES,
    MOST_SERIES,
    ONE_NUMBER,
    ONE_PREFIX,
    SHORT_CALLS,
)
from service.dialled import destination
from service.events import LISTED, Begun, Scheduling
from service.keys import FAMILIES
from service.owning import ALONE_MS, KNOWN_MS
from service.queue import session_line
from service.records import Alert, Call, Conclusion, Severity, Spend, State, Verdict, Watch
from service.store import Concluded, Store
from tests.samples import END_MS, scheduling

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
HOUR = END_MS // HOUR_MS
DAY = HOUR // 24
BEGUN_MS = END_MS - 120_000
RETENTION_MS = 40 * 86_400_000


def ended(session_id: str, key: str = "1", *, to: str = "", **fields: Any) -> Scheduling:
    """A hangup of assistant A, to that number."""
    fields = {"assistant_id": "A", **fields}
    made = scheduling(session_id, key, **fields)
    return replace(made, destination=destination(to, b"secret"))


async def record(redis: Redis, *events: Scheduling, now_ms: int = END_MS) -> None:
    store = Store(redis, retention_ms=RETENTION_MS)
    for event in events:
        await store.record(event, now_ms=now_ms)


async def of_day(redis: Redis, series: str, day: int = DAY) -> dict[str, int]:
    found = await cast("Any", redis.hgetall(f"{keys.CALLS_DAY}{day}:{series}"))
    return _counts(found)


async def of_minute(redis: Redis, at_ms: int = END_MS) -> dict[str, int]:
    return _counts(await cast("Any", redis.hgetall(f"{keys.CALLS_MINUTE}{at_ms // 60_000}")))


def _counts(found: dict[bytes, bytes]) -> dict[str, int]:
    """Without those of which all was taken back."""
    return {name.decode(): int(value) for name, value in found.items() if value != b"0"}


async def test_a_session_counts_once(redis: Redis) -> None:
    """Not once for each leg, event or delivery, and not again when it is reopened."""
    await record(redis, ended("a"), ended("a"), ended("a", "2", at_ms=END_MS - 400), ended("b"))
    assert await of_minute(redis) == {"velocity|account": 2, "velocity|A": 2}
    assert await of_day(redis, "velocity|account") == {f"c{HOUR}": 2}


async def test_a_cost_without_an_end_is_no_call_yet(redis: Redis) -> None:
    """It counts when its end is known."""
    cost = scheduling("a", "0", kind="call.cost", ends=False)
    await record(redis, cost)
    assert await of_minute(redis) == {}
    await record(redis, ended("a"))
    assert (await of_minute(redis))["velocity|account"] == 1


def begun(session_id: str, *, to: str = "", at_ms: int = BEGUN_MS, **fields: Any) -> Begun:
    """A call by connection C."""
    there = destination(to, b"secret")
    fields = {"connection_id": "C", "to_country": None, "is_dialled": True, **fields}
    fields = {"leg_id": f"{fields['is_dialled']} {to}", **fields}
    return Begun(session_id, "call.initiated", at_ms, destination=there, **fields)


async def begin(redis: Redis, *calls: Begun, now_ms: int = BEGUN_MS) -> list[bool]:
    store = Store(redis, retention_ms=RETENTION_MS)
    return [await store.begin(call, now_ms=now_ms) for call in calls]


async def taken(redis: Redis, connection: str, taker: str, *, since_ms: int = 0) -> None:
    """That one takes the connection's calls is known."""
    noted = f"{since_ms} {BEGUN_MS - 1000} {taker}"
    await cast("Any", redis.hset(keys.CALLS_TAKERS, connection, noted))


async def shared(redis: Redis) -> None:
    """Of connection C an assistant has just taken a call that another used to take."""
    await taken(redis, "C", "A", since_ms=BEGUN_MS - ALONE_MS // 2)


async def taker_of(redis: Redis, connection: str) -> tuple[int, str]:
    """Since when, and who."""
    found = await cast("Any", redis.hget(keys.CALLS_TAKERS, connection))
    since, _, taker = found.decode().split(" ", 2)
    return int(since), taker


def by(connection: str, assistant: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"assistant_id": assistant, "connection_id": connection, **fields}


async def test_a_call_counts_when_it_begins(redis: Redis) -> None:
    """Once, however often that is said, for who takes such calls; not again when it ends."""
    await taken(redis, "C", "A")
    assert await begin(redis, begun("a"), begun("a"), begun("b")) == [True, False, True]
    twice = {"velocity|account": 2, "velocity|A": 2}
    assert await of_minute(redis, BEGUN_MS) == twice
    ends = [ended("a", **by("C")), ended("a", "2", **by("C", "A")), ended("b", **by("C", "A"))]
    await record(redis, *ends)
    assert await of_minute(redis, BEGUN_MS) == twice
    assert await of_minute(redis) == {}


async def test_who_takes_a_connections_calls_is_learned_from_their_ends(redis: Redis) -> None:
    """Nobody, then an assistant; that some end without naming it changes nothing."""
    noted = [(None, "C"), ("A", "A"), (None, "A"), ("A", "A")]
    for number, (assistant, taker) in enumerate(noted):
        at_ms = END_MS + number * ALONE_MS
        await record(redis, ended(str(number), at_ms=at_ms, **by("C", assistant)), now_ms=at_ms)
        since_ms = END_MS + ALONE_MS if taker == "A" else END_MS
        assert await taker_of(redis, "C") == (since_ms, taker)
    assert await redis.pttl(keys.CALLS_TAKERS) > 0
    last_ms = END_MS + 3 * ALONE_MS
    await begin(redis, begun("next", at_ms=last_ms), now_ms=last_ms)
    assert (await of_minute(redis, last_ms))["velocity|A"] == 2, "one that ended, one that begins"


async def test_nobody_is_presumed_where_another_has_taken_a_call(redis: Redis) -> None:
    """Until one has taken those of a day, whoever it is; the event that names one tells."""
    await taken(redis, "C", "A")
    for at_ms, calls in ((END_MS, 0), (END_MS + ALONE_MS - 1000, 0), (END_MS + ALONE_MS, 1)):
        name = str(at_ms)
        end = ended(name, at_ms=at_ms - 60_000, **by("C", "B"))
        await record(redis, end, now_ms=at_ms)
        await begin(redis, begun(f"{name} next", at_ms=at_ms), now_ms=at_ms)
        assert (await of_minute(redis, at_ms)).get("velocity|B", 0) == calls


async def test_a_hangup_that_names_nobody_counts_for_who_takes_such_calls(redis: Redis) -> None:
    """Though nothing was heard of its beginning; and its money is that one's."""
    await taken(redis, "C", "A")
    await record(redis, ended("a", **by("C")), ended("a", "2", **by("C", "A")))
    assert await of_minute(redis) == {"velocity|account": 1, "velocity|A": 1}
    await _conclude(redis, Decimal("3.5"))
    assert (await of_day(redis, "velocity|A"))[f"u{HOUR}"] == 3_500_000


WAYS = ["begun", "hangup", "named"]


@pytest.mark.parametrize("order", list(permutations(WAYS)), ids="-".join)
@pytest.mark.parametrize("heard", [{"hangup", "named"}, set(WAYS)], ids=["ends", "all"])
async def test_a_call_of_a_shared_connection_is_the_assistants_that_an_event_names(
    redis: Redis, order: tuple[str, ...], heard: set[str]
) -> None:
    """In whatever order they come; its money, its shape and that it was short, too."""
    await shared(redis)
    to: dict[str, Any] = {"to": "+37120000149", "to_country": "LV"}
    for id in "ab":
        for what in order:
            if what == "begun" and what in heard:
                await begin(redis, begun(id, **to), now_ms=END_MS)
            elif what in heard:
                assistant = "B" if what == "named" else None
                end = ended(id, what, **to, **by("C", assistant, duration_seconds=8))
                await record(redis, end)
    for id in "ab":
        await _conclude(redis, Decimal("3.5"), session_id=id)
    paid = {f"c{HOUR}": 2, f"k{HOUR}": 2, f"u{HOUR}": 7_000_000, f"q{HOUR}": 2 * 35_000**2}
    for series in ("velocity|account", "velocity|LV", "velocity|B", f"{SHORT_CALLS}|B"):
        assert await of_day(redis, series) == paid, series
    assert (await of_day(redis, f"{ONE_NUMBER}|B"))[f"u{HOUR}"] == 3_500_000
    for series in ("velocity|C", "velocity|A", f"{SHORT_CALLS}|C"):
        assert await of_day(redis, series) == {}


@pytest.mark.parametrize("is_heard", [False, True])
async def test_a_call_of_a_shared_connection_is_its_own_as_long_as_no_event_names_another(
    redis: Redis, is_heard: bool
) -> None:
    """With all that it has: minute, shape, money; once it is judged it stays so."""
    await shared(redis)
    number = "+37120000149"
    for id in "ab":
        if is_heard:
            await begin(redis, begun(id, to=number))
        await record(redis, ended(id, to=number, **by("C", duration_seconds=8)))
    expected = {"velocity|C": 2, f"{SHORT_CALLS}|C": 2, f"{ONE_NUMBER}|C": 1}
    counts = await of_minute(redis)
    assert {name: counts[name] for name in expected} == expected
    await _conclude(redis, Decimal("3.5"), state=State.OPEN)
    await record(redis, ended("a", "2", to=number, **by("C", "B")))
    await _conclude(redis, Decimal("3.5"))
    assert (await of_minute(redis))["velocity|B"] == 1, "not judged yet"
    for late in "23":
        await _conclude(redis, Decimal("3.5"), session_id="b")
        paid = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 3_500_000, f"q{HOUR}": 35_000**2}
        assert await of_day(redis, "velocity|C") == paid
        await record(redis, ended("b", late, **by("C", "B")))
    assert (await of_day(redis, "velocity|B"))[f"c{HOUR}"] == 1


async def test_an_assistant_that_is_named_before_any_end_owns_the_call(redis: Redis) -> None:
    """An analysis may come first; the end that follows names the connection."""
    await shared(redis)
    early = scheduling("a", "0", kind="call.analyzed", ends=False, **by("C", "B"))
    await record(redis, early, ended("a", **by("C")))
    await _conclude(redis, Decimal("3.5"))
    paid = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 3_500_000, f"q{HOUR}": 35_000**2}
    assert await of_day(redis, "velocity|B") == paid
    assert await of_day(redis, "velocity|C") == {}


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
async def test_who_was_presumed_wrongly_loses_the_call(
    redis: Redis, order: tuple[str, str]
) -> None:
    """Assistant A was replaced while the call went on: what it counted moves to the other."""
    await taken(redis, "C", "A")
    number = "+37120000149"
    by_key = {"1": by("C", duration_seconds=8), "2": by("C", "B", duration_seconds=8)}
    await begin(redis, *(begun(id, to=number) for id in "ab"))
    for id in "ab":
        await record(redis, *(ended(id, key, to=number, **by_key[key]) for key in order))
    assert await of_minute(redis) == {f"{SHORT_CALLS}|B": 2}
    begun_then = {"velocity|account": 2, "velocity|+37120": 2, "velocity|B": 2}
    assert await of_minute(redis, BEGUN_MS) == begun_then | {f"{ONE_NUMBER}|B": 1}
    assert await of_day(redis, "velocity|A") == {}
    assert (await of_day(redis, f"{SHORT_CALLS}|B"))[f"c{HOUR}"] == 2


async def test_a_call_that_names_nobody_at_all_is_the_assistants_that_comes_later(
    redis: Redis,
) -> None:
    """Neither connection nor assistant in its first end."""
    await record(redis, ended("a", assistant_id=None, connection_id=None))
    await record(redis, ended("a", "2", **by("C", "B")))
    assert await of_minute(redis) == {"velocity|account": 1, "velocity|B": 1}


async def test_one_call_of_an_assistant_does_not_make_a_connection_its_own(redis: Redis) -> None:
    """A connection of plain calls goes on counting for itself."""
    await taken(redis, "C", "C")
    await record(redis, ended("a", **by("C", "A")))
    for later_ms in (60_000, *(days * ALONE_MS + 60_000 for days in range(1, 6))):
        now_ms = END_MS + later_ms
        name = str(later_ms)
        await record(redis, ended(name, at_ms=now_ms, **by("C")), now_ms=now_ms)
        assert (await of_minute(redis, now_ms))["velocity|C"] == 1


async def test_who_takes_calls_is_known_as_long_as_they_come(redis: Redis) -> None:
    """An assistant that takes them for longer than they are remembered without any."""
    await taken(redis, "C", "A")
    await redis.pexpire(keys.CALLS_TAKERS, 5000)
    await record(redis, ended("a", **by("C", "A")))
    assert await redis.pttl(keys.CALLS_TAKERS) > 5000
    late_ms = END_MS + KNOWN_MS - 60_000
    await begin(redis, begun("b", at_ms=late_ms), now_ms=late_ms)
    assert (await of_minute(redis, late_ms))["velocity|A"] == 1
    gone_ms = END_MS + KNOWN_MS + 60_000
    await begin(redis, begun("c", at_ms=gone_ms), now_ms=gone_ms)
    assert await of_minute(redis, gone_ms) == {"velocity|account": 1}


async def test_a_connection_that_nobody_takes_calls_of_is_alone_at_once(redis: Redis) -> None:
    """There is nobody else whose they may be."""
    await taken(redis, "C", "C", since_ms=BEGUN_MS - 1000)
    await begin(redis, begun("a"))
    assert (await of_minute(redis, BEGUN_MS))["velocity|C"] == 1


async def test_any_event_that_names_an_assistant_tells_who_takes_calls(redis: Redis) -> None:
    """Where no end does."""
    await record(redis, scheduling("a", "0", kind="call.analyzed", ends=False, **by("C", "A")))
    assert await taker_of(redis, "C") == (END_MS, "A")


async def test_who_was_presumed_rightly_counts_the_call_once(redis: Redis) -> None:
    """Its number, too."""
    await taken(redis, "C", "A")
    to: dict[str, Any] = {"to": "+37120000149"}
    await record(redis, ended("a", **to, **by("C")), ended("a", "2", **to, **by("C", "A")))
    assert await of_minute(redis) == dict.fromkeys(
        ("velocity|account", "velocity|+37120", "velocity|A"), 1
    )


async def test_the_shape_of_a_call_is_that_of_the_leg_that_was_dialled(redis: Redis) -> None:
    """Whichever leg came first, and though its assistant is only named at the end."""
    await shared(redis)
    for id in "ab":
        dialled = begun(id, to="+37120000149")
        inbound = begun(id, to="+15551234567", is_dialled=False)
        assert await begin(redis, dialled, inbound) == [True, True]
        await record(redis, ended(id, to="+15551234567", **by("C", "B")))
    assert await of_minute(redis) == {"velocity|B": 2, f"{ONE_NUMBER}|B": 1}


async def test_a_call_that_moves_late_moves_in_its_hour_alone(redis: Redis) -> None:
    """Its minute is not kept any more, and none is made that nobody would end."""
    await shared(redis)
    await record(redis, ended("a", **by("C")))
    minute = f"{keys.CALLS_MINUTE}{END_MS // 60_000}"
    await redis.delete(minute)
    await record(redis, ended("a", "2", **by("C", "B")))
    assert (await of_day(redis, "velocity|B"))[f"c{HOUR}"] == 1
    assert await redis.exists(minute) == 0


async def test_an_event_is_kept_where_it_cannot_be_counted(redis: Redis) -> None:
    """It is put to work all the same, and Telnyx sends it again."""
    key = f"{keys.CALLS_DAY}{DAY}:velocity|account"
    await cast("Any", redis.hset(key, f"c{HOUR}", "junk"))
    with pytest.raises(ResponseError):
        await record(redis, ended("a"))
    assert await redis.zscore(keys.ENDED, "a") == END_MS
    assert await Store(redis, retention_ms=RETENTION_MS).session("a") is not None


async def test_who_took_calls_long_ago_says_nothing_of_the_next(redis: Redis) -> None:
    """A search finds the calls of an assistant that was replaced."""
    await taken(redis, "C", "B")
    await record(redis, ended("a", **by("C", "A")), now_ms=END_MS + 20 * 86_400_000)
    assert await taker_of(redis, "C") == (0, "B")


async def test_a_place_counts_once_for_a_call_whoever_hears_of_it(redis: Redis) -> None:
    """Another web process has another name for the same number."""
    await taken(redis, "C", "C")
    number = "+37120000149"
    heard = [begun("a", to=number, to_country="LV")]
    heard.append(replace(heard[0], destination=destination(number, b"another")))
    await begin(redis, *heard)
    places = {"velocity|LV": 1, "velocity|+37120": 1}
    assert await of_minute(redis, BEGUN_MS) == {"velocity|account": 1, "velocity|C": 1} | places


@pytest.mark.parametrize("is_shared", [False, True])
async def test_where_the_end_tells_for_whom_a_call_counts_it_counts_then(
    redis: Redis, is_shared: bool
) -> None:
    """For its assistant and shapes; for the account and its places as it begins."""
    if is_shared:
        await shared(redis)
    number = "+37120000149"
    await begin(redis, *(begun(id, to=number, to_country="LV") for id in "ab"))
    places = {"velocity|account": 2, "velocity|LV": 2, "velocity|+37120": 2}
    assert await of_minute(redis, BEGUN_MS) == places
    end = by("C", "A", duration_seconds=8)
    await record(redis, *(ended(id, to=number, **end) for id in "ab"))
    assert await of_minute(redis, BEGUN_MS) == places
    owned = {"velocity|A": 2, f"{SHORT_CALLS}|A": 2, f"{ONE_NUMBER}|A": 1}
    assert await of_minute(redis) == owned
    await _conclude(redis, Decimal("3.5"))
    assert (await of_day(redis, "velocity|A"))[f"u{HOUR}"] == 3_500_000


async def test_that_a_call_was_short_counts_at_its_end(redis: Redis) -> None:
    """For whom it has counted."""
    await taken(redis, "C", "A")
    await begin(redis, begun("a"), begun("b"))
    await record(redis, ended("a", **by("C", duration_seconds=8)), ended("b", **by("C")))
    assert await of_minute(redis) == {f"{SHORT_CALLS}|A": 1}


async def test_where_a_call_is_passed_on_counts_once_it_is(redis: Redis) -> None:
    """An inbound call that dials out: its places, and the shape of what it dials; not a call more.

    Where it came in is no number that was dialled.
    """
    await taken(redis, "C", "C")
    for id in "ab":
        inbound = begun(id, to="+15551234567", to_country="US", is_dialled=False)
        outbound = begun(id, to="+37120000149", to_country="LV")
        again = begun(id, to="+37128000149", to_country="LV")
        told = await begin(redis, inbound, outbound, inbound, outbound, again)
        assert told == [True, True, False, False, True]
    counts = await of_minute(redis, BEGUN_MS)
    places = {f"velocity|{place}": 2 for place in ("US", "+15551", "LV", "+37120", "+37128")}
    calls = {"velocity|account": 2, "velocity|C": 2, f"{ONE_NUMBER}|C": 1}
    assert counts == places | calls
    await record(redis, *(ended(id, **by("C")) for id in "ab"))
    remembered = await cast("Any", redis.hget(keys.session_key("b"), "counted"))
    assert remembered.decode() == f"{HOUR} - US v n@{HOUR}:{BEGUN_MS // 60_000} LV"


@pytest.mark.parametrize("is_shared", [False, True])
async def test_where_a_call_is_passed_on_counts_after_its_assistant_has_ended(
    redis: Redis, is_shared: bool
) -> None:
    """Fraud by transfer: many calls to one number, dialled when the conversation is over."""
    await (shared(redis) if is_shared else taken(redis, "C", "A"))
    dialled: dict[str, Any] = {"to": "+37120000149", "to_country": "LV"}
    for id in "ab":
        inbound = begun(id, to="+15551234567", to_country="US", is_dialled=False)
        outbound = begun(id, at_ms=END_MS, **dialled)
        assert await begin(redis, inbound) == [True]
        await record(redis, ended(id, to="+15551234567", **by("C", "A")))
        assert await begin(redis, outbound, outbound, now_ms=END_MS) == [True, False]
        await record(redis, ended(id, "2", **by("C")))
        await _conclude(redis, Decimal("3.5"), session_id=id)
    paid = {f"c{HOUR}": 2, f"k{HOUR}": 2, f"u{HOUR}": 7_000_000, f"q{HOUR}": 2 * 35_000**2}
    assert await of_day(redis, "velocity|LV") == paid
    assert (await of_day(redis, "velocity|A"))[f"k{HOUR}"] == 2
    assert (await of_day(redis, "velocity|account"))[f"c{HOUR}"] == 2
    assert (await of_day(redis, "velocity|+37120")) == {f"c{HOUR}": 2}
    assert (await of_day(redis, f"{ONE_NUMBER}|A"))[f"u{HOUR}"] == 3_500_000


async def test_a_place_that_is_dialled_after_a_call_was_paid_counts_without_money(
    redis: Redis,
) -> None:
    """A later verdict corrects what was paid, and the place has had none of that."""
    await taken(redis, "C", "A")
    await begin(redis, begun("a", to="+15551234567"))
    await record(redis, ended("a", **by("C", "A")))
    await _conclude(redis, Decimal("3.5"))
    late = begun("a", to="+37120000149", to_country="LV", at_ms=END_MS)
    assert await begin(redis, late, now_ms=END_MS) == [True]
    await record(redis, ended("a", "2", **by("C")))
    await _conclude(redis, Decimal("4.5"))
    assert await of_day(redis, "velocity|LV") == {f"c{HOUR}": 1}
    assert (await of_day(redis, "velocity|A"))[f"u{HOUR}"] == 4_500_000
    again = [replace(late, leg_id=str(number)) for number in range(4)]
    assert await begin(redis, *again, now_ms=END_MS) == [True] * 4
    assert await of_day(redis, f"{ONE_NUMBER}|A") == {f"c{HOUR}": 1}, "once in each series"


async def test_a_leg_of_the_next_day_counts_without_money(redis: Redis) -> None:
    """A call's money is of one day."""
    await taken(redis, "C", "A")
    begun_ms = DAY * 86_400_000 - 60_000
    other = begun("b", to="+37120000149", to_country="LV", at_ms=begun_ms)
    mine = begun("a", to="+15551234567", at_ms=begun_ms)
    await begin(redis, mine, other, now_ms=begun_ms)
    late = begun("a", to="+37120000149", to_country="LV", at_ms=END_MS)
    assert await begin(redis, late, now_ms=END_MS) == [True]
    await record(redis, ended("a", **by("C")))
    await _conclude(redis, Decimal("3.5"))
    assert await of_day(redis, "velocity|LV") == {f"c{HOUR}": 1}
    assert await of_day(redis, "velocity|LV", DAY - 1) == {f"c{HOUR - HOUR % 24 - 1}": 1}


async def test_what_is_said_to_have_come_in_has_no_shape(redis: Redis) -> None:
    """The end of a TeXML call says it; an answer that names no direction says as little."""
    own: dict[str, Any] = {"to": "+15551234567"}
    await record(redis, *(ended(id, direction="inbound", **own) for id in "abc"))
    assert await of_minute(redis) == {"velocity|account": 3, "velocity|+15551": 3, "velocity|A": 3}


async def test_an_answer_is_no_leg_more(redis: Redis) -> None:
    """It tells of one that was heard beginning, whichever web process hears of it."""
    await taken(redis, "C", "A")
    for id in "abc":
        first = begun(id, to="+37120000149", leg_id="leg")
        answered = replace(first, destination=destination("+37120000149", b"another"))
        assert await begin(redis, first, answered) == [True, False]
    assert (await of_minute(redis, BEGUN_MS))[f"{ONE_NUMBER}|A"] == 2


async def test_what_came_in_has_no_shape_whoever_names_its_assistant(redis: Redis) -> None:
    """Repeated calls to one's own number are how calls come in."""
    await shared(redis)
    own = "+15551234567"
    for id in "ab":
        await begin(redis, begun(id, to=own, is_dialled=False))
        await record(redis, ended(id, to=own, **by("C")), ended(id, "2", to=own, **by("C", "B")))
    assert await of_minute(redis) == {"velocity|B": 2}


async def test_word_of_a_beginning_that_comes_after_the_end_counts_nothing(redis: Redis) -> None:
    """The end was counted."""
    await record(redis, ended("a"))
    assert await begin(redis, begun("a"), now_ms=END_MS) == [False]
    assert await of_minute(redis) == {"velocity|account": 1, "velocity|A": 1}
    assert await of_minute(redis, BEGUN_MS) == {}


async def test_word_of_a_beginning_that_comes_late_leaves_it_to_the_end(redis: Redis) -> None:
    """What began so long ago is no part of what happens now, but its end is."""
    late_ms = BEGUN_MS + LATE_MS + 60_000
    assert await begin(redis, begun("a"), now_ms=late_ms) == [False]
    assert await redis.exists(keys.begun_key("a")) == 0
    await record(redis, ended("a", at_ms=late_ms), now_ms=late_ms)
    assert await of_minute(redis, late_ms) == {"velocity|account": 1, "velocity|A": 1}


async def test_a_beginning_alone_is_no_session(redis: Redis) -> None:
    """There is nothing to look at yet, and what is kept of it ends by itself."""
    await begin(redis, begun("a", to="+37120000149"))
    assert await Store(redis, retention_ms=RETENTION_MS).session("a") is None
    assert await redis.exists(keys.SESSIONS, keys.ENDED, keys.DUE) == 0
    assert 4 * HOUR_MS < await redis.pttl(keys.begun_key("a")) <= 24 * HOUR_MS
    await record(redis, ended("a", **by("C")))
    assert 0 < await redis.pttl(keys.begun_key("a")) <= 4 * HOUR_MS
    await begin(redis, begun("a", to="+37120000150"))
    assert await redis.pttl(keys.begun_key("a")) <= 4 * HOUR_MS


async def test_money_of_a_call_counted_when_it_began_is_where_it_ended(redis: Redis) -> None:
    """For its connection, its shape and its country, in the hour of its end."""
    await taken(redis, "C", "C")
    before_ms = END_MS - 3_600_000
    calls = [begun(id, to="+37120000149", to_country="LV", at_ms=before_ms) for id in "ab"]
    await begin(redis, *calls, now_ms=before_ms)
    await record(redis, ended("a", **by("C")), ended("b", **by("C")))
    for id in "ab":
        await _conclude(redis, Decimal("3.5"), session_id=id)
    paid = {f"k{HOUR}": 2, f"u{HOUR}": 7_000_000, f"q{HOUR}": 2 * 35_000**2}
    for series in ("account", "C", "LV"):
        assert await of_day(redis, f"velocity|{series}") == {f"c{HOUR - 1}": 2, **paid}
    assert await of_day(redis, "velocity|A") == {}
    once = {f"k{HOUR}": 1, f"u{HOUR}": 3_500_000, f"q{HOUR}": 35_000**2}
    assert await of_day(redis, f"{ONE_NUMBER}|C") == {f"c{HOUR - 1}": 1, **once}


async def test_money_of_a_call_over_midnight_is_where_it_began(redis: Redis) -> None:
    """The next day may have no place for it yet."""
    await taken(redis, "C", "C")
    begun_ms = DAY * 86_400_000 - 60_000
    hour = begun_ms // 3_600_000
    await begin(redis, begun("a", at_ms=begun_ms), now_ms=begun_ms)
    await record(redis, ended("a", **by("C")))
    await _conclude(redis, Decimal("3.5"))
    paid = {f"k{hour}": 1, f"u{hour}": 3_500_000, f"q{hour}": 35_000**2}
    assert await of_day(redis, "velocity|C", DAY - 1) == {f"c{hour}": 1, **paid}
    assert await of_day(redis, "velocity|C") == {}


async def test_a_call_without_an_owner_counts_for_the_account(redis: Redis) -> None:
    """And for where it went."""
    await record(redis, ended("a", to="+4915112345678", assistant_id=None, connection_id=None))
    assert await of_minute(redis) == {"velocity|account": 1, "velocity|+49151": 1}


async def test_what_ended_long_ago_counts_for_its_hour_only(redis: Redis) -> None:
    """A webhook that was found again is no part of a surge now; after a month it is nothing."""
    late = END_MS - LATE_MS - 1
    await record(redis, ended("a", LISTED + "1", at_ms=late, to="+4915112345678"))
    assert await of_minute(redis, late) == {}
    assert (await of_day(redis, "velocity|A"))[f"c{late // 3_600_000}"] == 1
    await record(redis, ended("b", at_ms=END_MS - 31 * 86_400_000))
    assert await of_day(redis, "velocity|A", DAY - 31) == {}


async def test_the_shapes_of_calls_are_counted(redis: Redis) -> None:
    """Short ones, the same number again, a number beside another."""
    await record(
        redis,
        ended("a", to="+37120000149", duration_seconds=8),
        ended("b", to="+37120000149"),
        ended("c", to="+37120000777", start_ms=END_MS - 9000),
        ended("d", to="+37129999777", start_ms=END_MS - 90_000),
        ended("e", to="+37120000149", assistant_id="B"),
    )
    counts = await of_minute(redis)
    assert counts[f"{SHORT_CALLS}|A"] == 2
    assert counts[f"{ONE_NUMBER}|A"] == 1
    assert counts[f"{ONE_PREFIX}|A"] == 1
    assert counts["velocity|+37120"] == 4
    assert f"{ONE_NUMBER}|B" not in counts


async def test_no_number_is_kept(redis: Redis) -> None:
    """Neither in a name nor in a value."""
    await record(redis, ended("a", to="+4915112345678"))
    for key in await redis.keys("tollwatch:calls:*"):
        name = key.decode()
        is_set = name.startswith(keys.CALLS_ROSTER)
        found = await cast("Any", redis.smembers(name) if is_set else redis.hgetall(name))
        assert "5112345" not in f"{name} {found}"
        assert "12345678" not in f"{name} {found}"


async def test_all_counts_end(redis: Redis) -> None:
    """Each key is described, and has a time to live."""
    await record(redis, ended("a", to="+4915112345678"), ended("b", to="+4915112345678"))
    counted = [key.decode() for key in await redis.keys("tollwatch:calls:*")]
    assert len(counted) == 7
    for key in counted:
        assert [f for f in FAMILIES if f.id_of(key) is not None], key
        assert await redis.pttl(key) > 0, key


async def test_further_series_than_a_day_has_count_for_the_account_alone(redis: Redis) -> None:
    """What somebody makes up endlessly takes no memory without end; prefixes end first."""
    await record(redis, ended("a"))
    roster = f"{keys.CALLS_ROSTER}{DAY}"
    await cast("Any", redis.sadd(roster, *map(str, range(MOST_PLACES))))
    await record(redis, ended("b", to="+4915112345678"), ended("c", assistant_id="C"))
    assert await of_minute(redis) == {"velocity|account": 3, "velocity|A": 2, "velocity|C": 1}
    await cast("Any", redis.sadd(roster, *map(str, range(MOST_SERIES))))
    await record(redis, ended("d", assistant_id="D"), ended("e"))
    assert await of_minute(redis) == {"velocity|account": 5, "velocity|A": 3, "velocity|C": 1}


def _alert(session_id: str, verdict: Verdict) -> Alert:
    return Alert(f"{session_id}:high", Call(session_id), verdict, Severity.HIGH, END_MS)


async def _conclude(
    redis: Redis,
    total: Decimal,
    *,
    session_id: str = "a",
    currency: str = "USD",
    told: bool = False,
    state: State = State.VERDICT,
) -> None:
    """The session comes to its verdict, where the policy is in USD."""
    store = Store(redis, retention_ms=RETENTION_MS)
    line = session_line(redis)
    (mine,) = await line.claim(
        limit=1, lease_ms=20_000, token="t", delay_ms=0, now_ms=END_MS + 2 * 3_600_000
    )
    assert mine.id == session_id
    session = await store.take(session_id, mine.token)
    assert session
    verdict = Verdict(at_ms=END_MS, total=total, currency=currency)
    final = Conclusion(
        state,
        Watch(end_ms=END_MS),
        None if state is State.VERDICT else END_MS,
        "",
        answered=True,
        verdict=verdict,
        spend=Spend(total, "USD", session.end_ms) if currency == "USD" else None,
        alert=_alert(session_id, verdict) if told else None,
    )
    concluded = await store.conclude(session, mine.token, final, now_ms=END_MS)
    assert concluded is Concluded.CONCLUDED


async def test_money_is_added_with_the_verdict(redis: Redis) -> None:
    """For the account and its assistant; another verdict corrects it, and counts no call twice."""
    await record(redis, ended("a"))
    await _conclude(redis, Decimal("0.25"))
    for series in ("velocity|account", "velocity|A"):
        expected = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 250_000, f"q{HOUR}": 2500**2}
        assert await of_day(redis, series) == expected
    await record(redis, ended("a", "2"))
    await _conclude(redis, Decimal("0.10"))
    corrected = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 100_000, f"q{HOUR}": 1000**2}
    assert await of_day(redis, "velocity|A") == corrected


async def test_money_goes_to_each_series_that_counted_the_call(redis: Redis) -> None:
    """Its places and its shapes, too: what is dear there is seen there."""
    calls = [ended(id, to="+37120000149", to_country="LV", duration_seconds=8) for id in "ab"]
    await record(redis, *calls)
    for id in "ab":
        await _conclude(redis, Decimal("3.5"), session_id=id)
    twice = {f"c{HOUR}": 2, f"k{HOUR}": 2, f"u{HOUR}": 7_000_000, f"q{HOUR}": 2 * 35_000**2}
    for series in ("account", "A", "LV"):
        assert await of_day(redis, f"velocity|{series}") == twice
    assert await of_day(redis, "velocity|+37120") == {f"c{HOUR}": 2}, "digits stay unknown"
    assert await of_day(redis, f"{SHORT_CALLS}|A") == twice
    once = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 3_500_000, f"q{HOUR}": 35_000**2}
    assert await of_day(redis, f"{ONE_NUMBER}|A") == once


async def test_money_stays_where_the_call_was_counted(redis: Redis) -> None:
    """A later leg's hour changes nothing, nor does an assistant named once the call is judged."""
    await record(redis, ended("a", **by("C")))
    later_ms = END_MS + 3_600_000
    await record(redis, ended("a", "2", at_ms=later_ms, **by("C")))
    await _conclude(redis, Decimal("0.25"))
    await record(redis, ended("a", "3", at_ms=later_ms, **by("C", "A")))
    await _conclude(redis, Decimal("0.25"))
    expected = {f"c{HOUR}": 1, f"k{HOUR}": 1, f"u{HOUR}": 250_000, f"q{HOUR}": 2500**2}
    for series in ("velocity|account", "velocity|C"):
        assert await of_day(redis, series) == expected
    assert await of_day(redis, "velocity|A") == {}


async def test_money_of_another_currency_counts_nowhere(redis: Redis) -> None:
    """Sums are of one."""
    await record(redis, ended("a"))
    await _conclude(redis, Decimal(250), currency="JPY")
    assert await of_day(redis, "velocity|A") == {f"c{HOUR}": 1}


async def test_no_cost_is_too_large_for_its_alert(redis: Redis) -> None:
    """Telnyx says an absurd one: it is told each time, and sums stay sums."""
    ids = [f"s{number}" for number in range(12)]
    for id in ids:
        await record(redis, ended(id))
        await _conclude(redis, Decimal("1E+15"), session_id=id, told=True)
    assert await redis.zcard(keys.OUTBOX) == len(ids)
    counts = await of_day(redis, "velocity|account")
    assert counts[f"u{HOUR}"] == len(ids) * 5_000_000_000
    assert counts[f"q{HOUR}"] == len(ids) * 50_000_000**2


async def test_an_alert_is_made_before_money_is_added(redis: Redis) -> None:
    """Whatever is wrong with a sum, it costs no alert."""
    await record(redis, ended("a"))
    await cast("Any", redis.hset(f"{keys.CALLS_DAY}{DAY}:velocity|account", f"u{HOUR}", "junk"))
    with pytest.raises(ResponseError):
        await _conclude(redis, Decimal("0.25"), told=True)
    assert await redis.zcard(keys.OUTBOX) == 1
    assert await redis.zcard(keys.DUE) == 0


async def test_what_a_session_remembers_of_it_is_small(redis: Redis) -> None:
    """Not even the longest costs a session its compact block."""
    key = LISTED + "0" * 32
    to: dict[str, Any] = {"to": "+37120000149", "to_country": "LV", "duration_seconds": 8}
    await record(redis, *(ended(id, key, assistant_id="A" * 200, **to) for id in "ab"))
    remembered = await cast("Any", redis.hget(keys.session_key("b"), "counted"))
    assert remembered.decode() == f"{HOUR} e:{key} LV v s n"
    assert len(remembered) <= 60


async def test_money_of_what_was_never_counted_is_not_kept(redis: Redis) -> None:
    """A key that nobody would end is not made."""
    await record(redis, ended("a"))
    await redis.delete(f"{keys.CALLS_DAY}{DAY}:velocity|A")
    await _conclude(redis, Decimal("0.25"))
    assert await of_day(redis, "velocity|A") == {}
