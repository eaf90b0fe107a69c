"""`tollwatch feedback`: what somebody says of a session, made sure of and done."""

from dataclasses import dataclass
from typing import Final, Literal

from redis.asyncio import Redis

from service.records import Call, State, moment
from workers.analysis import Unreadable, decode_analysis
from workers.baselines import Baselines
from workers.detection.mutes import Mute
from workers.feedback import Feedback, FeedbackBook, NothingTaught
from workers.judge import known_of
from workers.lookup import Known, look_up
from workers.products import CALL_SESSION
from workers.span import read_duration, read_moment
from workers.tree import build_tree

_LONGEST_NAME: Final = 80
_LONGEST_NOTE: Final = 200


class CannotSay(Exception):
    """Why it is not done. `is_usage`: it was asked for in a way that means nothing."""

    def __init__(self, words: str, *, is_usage: bool = False) -> None:
        super().__init__(words)
        self.is_usage = is_usage


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as it was typed."""

    session_id: str
    is_: Literal["expected", "anomaly", "planned", "undo"]
    by: str
    note: str = ""
    cohort: str = ""
    for_: str = ""
    from_: str = ""
    until: str = ""


async def say(redis: Redis, baselines: Baselines, wish: Wish, *, now_ms: int) -> str:
    """Does it, and says what that means. Raises CannotSay, and NotReadable."""
    book = FeedbackBook(redis, baselines, baselines.retention_ms)
    if wish.is_ == "undo":
        return await _undo(book, wish)
    known = await look_up(redis, wish.session_id)
    by, note = wish.by[:_LONGEST_NAME], wish.note[:_LONGEST_NOTE]
    if wish.is_ == "planned":
        if known is None:
            raise CannotSay(f"no session {wish.session_id} is known")
        mute = _mute(known, wish, by, note, now_ms)
        await book.plan(Feedback(wish.session_id, wish.is_, by, now_ms, note, mute))
        return (
            f"planned: nobody is told of calls of {mute.cohort} that end from "
            f"{_utc(mute.from_ms)} until {_utc(mute.until_ms)}, whatever they cost"
        )
    said = Feedback(wish.session_id, wish.is_, by, now_ms, note)
    try:
        if wish.is_ == "anomaly":
            await book.refuse(said)
            return "anomaly: nothing is learned from it"
        done = await book.expect(said)
    except NothingTaught as error:
        raise CannotSay(_nothing_taught(wish.session_id, known)) from error
    return f"expected: it counts {done.times:,} times among the usual calls, and less every day"


def _nothing_taught(session_id: str, known: Known | None) -> str:
    # One from before the first webhook, of a backfill, has taught without being known.
    if known is None:
        return f"no session {session_id} is known"
    if known.session.state is State.OPEN:
        return f"session {session_id} has no verdict yet: say it when it has one"
    return (
        f"session {session_id} has taught nothing: its cost was not compared with others, or that "
        "is longer ago than TOLLWATCH_RETENTION_DAYS"
    )


async def _undo(book: FeedbackBook, wish: Wish) -> str:
    if not await book.undo(wish.session_id):
        raise CannotSay(f"nothing was said of session {wish.session_id}")
    return "undone: as if nothing had been said"


def _mute(known: Known, wish: Wish, by: str, note: str, now_ms: int) -> Mute:
    call = known.session.call
    cohort = wish.cohort or _entity(known)
    if not cohort:
        raise CannotSay(
            f"neither assistant nor connection of session {wish.session_id} is known: say whom "
            "with --cohort ID, or --cohort account",
            is_usage=True,
        )
    from_ms, until_ms = _span(call, wish, now_ms)
    return Mute(cohort, from_ms, until_ms, by, note)


def _entity(known: Known) -> str:
    call = known.session.call
    if known.analysis:
        try:
            tree = build_tree(decode_analysis(known.analysis), CALL_SESSION)
        except Unreadable as error:
            raise CannotSay(f"the stored analysis cannot be read: {error}") from error
        call = known_of(call, tree)
    return call.assistant_id or call.connection_id or ""


def _span(call: Call, wish: Wish, now_ms: int) -> tuple[int, int]:
    if bool(wish.for_) == bool(wish.until):
        raise CannotSay("say how long: --for 2h, or --until 2026-03-17T18:00Z", is_usage=True)
    begun_ms = min(call.end_ms or now_ms, now_ms)
    from_ms = _moment("--from", wish.from_, now_ms) if wish.from_ else begun_ms
    if wish.until:
        until_ms = _moment("--until", wish.until, now_ms)
    else:
        length_ms = read_duration(wish.for_)
        if length_ms is None:
            raise CannotSay("--for: no duration such as 90m, 2h or 3d", is_usage=True)
        until_ms = (from_ms if wish.from_ else now_ms) + length_ms
    if until_ms <= from_ms:
        raise CannotSay("it would end before it begins", is_usage=True)
    return from_ms, until_ms


def _moment(option: str, text: str, now_ms: int) -> int:
    try:
        return read_moment(text, now_ms=now_ms)
    except ValueError as error:
        raise CannotSay(f"{option}: {error}", is_usage=True) from error


def _utc(at_ms: int) -> str:
    return f"{moment(at_ms):%Y-%m-%d %H:%M} UTC"
