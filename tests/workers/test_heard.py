"""The answers of an attempt are at hand when our code breaks on them, and nowhere else."""

import asyncio

import msgspec
import pytest

from workers.heard import Heard, hear, listening, read_raw

pytestmark = pytest.mark.anyio


def kept(heard: Heard) -> list[dict[str, object]]:
    found: list[dict[str, object]] = msgspec.json.decode(read_raw(heard.raw()))
    return found


async def test_answers_are_heard_from_below() -> None:
    """Whoever listens hears what tasks that were started inside were answered."""
    with listening() as heard:
        await asyncio.gather(*(asyncio.create_task(_asks(name)) for name in "ab"))
    hear("c", 200, b"{}")
    assert kept(heard) == [
        {"asked": "call-session/a", "status": 200, "bytes": 8, "body": {"id": 1}},
        {"asked": "call-session/b", "status": 200, "bytes": 8, "body": {"id": 1}},
    ]


async def _asks(name: str) -> None:
    hear(f"call-session/{name}", 200, b'{"id":1}')


async def test_two_attempts_do_not_hear_each_other() -> None:
    """Attempts that run at the same time have their own answers each."""

    async def attempt(name: str) -> list[object]:
        with listening() as heard:
            await asyncio.sleep(0)
            hear(name, 200, b"{}")
            await asyncio.sleep(0)
            return [answer["asked"] for answer in kept(heard)]

    assert await asyncio.gather(attempt("a"), attempt("b")) == [["a"], ["b"]]


async def test_silence_is_nothing() -> None:
    """Where nothing was answered nothing is kept."""
    with listening() as heard:
        pass
    assert heard.raw() == b""


async def test_what_is_kept_is_bounded() -> None:
    """Neither many answers nor large ones make much to keep; an answer too many does not count."""
    with listening() as heard:
        for number in range(50):
            hear(str(number), 200, msgspec.json.encode(["x" * 150] * 600))
        hear("large", 200, b" " * 1024 * 1024)
    found = kept(heard)
    assert [answer["asked"] for answer in found] == [str(number) for number in range(10)]


async def test_a_long_document_is_cut() -> None:
    """Of a document beyond measure the beginning of its text is kept."""
    with listening() as heard:
        hear("a", 200, msgspec.json.encode(["x" * 150] * 6000))
    body = kept(heard)[0]["body"]
    assert isinstance(body, str)
    assert len(body) == 256 * 1024


async def test_the_question_names_nobody() -> None:
    """An id that is a phone number is masked."""
    with listening() as heard:
        hear("call-session/+4915112345678", 500, b"")
    assert kept(heard)[0]["asked"] == "call-session/…78"


def test_junk_is_said() -> None:
    """What was not packed here is a ValueError."""
    with pytest.raises(ValueError, match="header"):
        read_raw(b"junk")
