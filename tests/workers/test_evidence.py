"""The answers of an attempt are at hand when our code breaks on them, and nowhere else."""

import asyncio

import msgspec
import pytest

from workers.evidence import Evidence, gathering, note_answer, read_raw

pytestmark = pytest.mark.anyio


def kept(evidence: Evidence) -> list[dict[str, object]]:
    found: list[dict[str, object]] = msgspec.json.decode(read_raw(evidence.raw()))
    return found


async def test_answers_are_heard_from_below() -> None:
    """Whoever listens hears what tasks that were started inside were answered."""
    with gathering() as evidence:
        await asyncio.gather(*(asyncio.create_task(_asks(name)) for name in "ab"))
    note_answer("c", 200, b"{}")
    assert kept(evidence) == [
        {"asked": "call-session/a", "status": 200, "bytes": 8, "body": {"id": 1}},
        {"asked": "call-session/b", "status": 200, "bytes": 8, "body": {"id": 1}},
    ]


async def _asks(name: str) -> None:
    note_answer(f"call-session/{name}", 200, b'{"id":1}')


async def test_two_attempts_do_not_hear_each_other() -> None:
    """Attempts that run at the same time have their own answers each."""

    async def attempt(name: str) -> list[object]:
        with gathering() as evidence:
            await asyncio.sleep(0)
            note_answer(name, 200, b"{}")
            await asyncio.sleep(0)
            return [answer["asked"] for answer in kept(evidence)]

    first, second = await asyncio.gather(attempt("a"), attempt("b"))
    assert (first, second) == (["a"], ["b"])


async def test_silence_is_nothing() -> None:
    """Where nothing was answered nothing is kept."""
    with gathering() as evidence:
        pass
    assert evidence.raw() == b""


async def test_what_is_kept_is_bounded() -> None:
    """Neither many answers nor large ones make much to keep; an answer too many does not count."""
    with gathering() as evidence:
        for number in range(50):
            note_answer(str(number), 200, msgspec.json.encode(["x" * 150] * 600))
        note_answer("large", 200, b" " * 1024 * 1024)
    found = kept(evidence)
    assert [answer["asked"] for answer in found] == [str(number) for number in range(10)]


async def test_a_long_document_is_cut() -> None:
    """Of a document beyond measure the beginning of its text is kept."""
    with gathering() as evidence:
        note_answer("a", 200, msgspec.json.encode(["x" * 150] * 6000))
    body = kept(evidence)[0]["body"]
    assert isinstance(body, str)
    assert len(body) == 256 * 1024


async def test_the_question_names_nobody() -> None:
    """An id that is a phone number is masked."""
    with gathering() as evidence:
        note_answer("call-session/+4915112345678", 500, b"")
    assert kept(evidence)[0]["asked"] == "call-session/…78"


def test_junk_is_said() -> None:
    """What was not packed here is a ValueError."""
    with pytest.raises(ValueError, match="header"):
        read_raw(b"junk")
