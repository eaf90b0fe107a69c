"""`tollwatch dead`: what a person sees of dead letters, and does about them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from redis.asyncio import Redis

from service import keys
from service.records import State
from service.store import Store
from tests.samples import END_MS, scheduling
from tests.service.test_dead import RETENTION_MS, die
from tests.workers.test_cli import Cli, words
from tests.world.valkey import Valkey
from workers.evidence import gathering, note_answer

T = TypeVar("T")


class Kept:
    """A Redis with dead letters in it, and the command line in front of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cli = Cli({"REDIS_URL": url})

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        return self.cli.run("dead", *arguments, code=code)

    def do(self, work: Callable[[Redis, Store], Awaitable[T]]) -> T:
        async def body() -> T:
            async with Redis.from_url(self.url) as redis:
                return await work(redis, Store(redis, retention_ms=RETENTION_MS))

        return asyncio.run(body())

    def kinds(self) -> dict[str, int]:
        counts = self.do(lambda _, store: store.dead.counts())
        return {count.kind: count.number for count in counts}

    def state(self, session_id: str) -> tuple[State, bool]:
        session = self.do(lambda _, store: store.session(session_id))
        assert session
        return session.state, session.dropped_ms is not None


def answered() -> bytes:
    """An answer with a number in it, as it is kept."""
    with gathering() as evidence:
        note_answer("call-session/a", 200, b'{"root":{"cli":"+4915112345678","x":1.50}}')
    return evidence.raw()


async def fill(redis: Redis, store: Store) -> None:
    """`a`, `b` and `broken` are dead, `open` is not."""
    await redis.flushall()
    await die(redis, store, "a", raw=answered())
    await die(redis, store, "b", now_ms=END_MS + 5000)
    await die(redis, store, "broken", kind="DecodeError", now_ms=END_MS + 9000)
    await redis.hset(keys.session_key("broken"), "watch", "junk")  # type: ignore[misc]
    await store.record(scheduling("open"), now_ms=END_MS)


@pytest.fixture
def kept(valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.chdir(tmp_path)
    here = Kept(valkey.url)
    here.do(fill)
    return here


# --- list and show --------------------------------------------------------------------------------


def test_dead_letters_are_listed(kept: Kept) -> None:
    """The latest death first, with kind and reason, and how many there are of each kind."""
    text, _ = kept.run("list")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert [row[0] for row in rows if row[0] in {"a", "b", "broken", "open"}] == [
        "broken",
        "b",
        "a",
    ]
    assert "Boom: a" in text
    assert "Boom 2 20" in words(text)
    assert "DecodeError 1 20" in words(text)


def test_one_kind_is_listed(kept: Kept) -> None:
    """By kind, and no more than wanted, for programs; none at all is said on stderr."""
    text, _ = kept.run("list", "--reason", "Boom", "--format", "ndjson")
    found = [msgspec.json.decode(line) for line in text.splitlines()]
    assert [(each["session_id"], each["kind"], each["failures"]) for each in found] == [
        ("b", "Boom", 1),
        ("a", "Boom", 1),
    ]
    assert found[0]["died_ms"] == END_MS + 5000
    assert len(kept.run("list", "--limit", "1", "--format", "ndjson")[0].splitlines()) == 1
    assert kept.run("list", "--reason", "No\x1b") == ("", "no dead letters of the kind No�\n")
    kept.run("drop", "--all")
    assert kept.run("list") == ("", "no dead letters\n")


def test_a_dead_letter_is_shown(kept: Kept) -> None:
    """When it died of what after how many tries, where the answer is, and the whole session."""
    text = words(kept.run("show", "a")[0])
    for word in (
        "Dead letter a",
        "kind Boom",
        "why Boom: a",
        "failures 1",
        "tollwatch:raw:a for 167",
    ):
        assert word in text
    assert "Session a: given up" in text
    found = msgspec.json.decode(kept.run("show", "a", "--format", "json")[0])
    assert (found["kind"], found["raw_key"]) == ("Boom", "tollwatch:raw:a")
    assert found["session"]["state"] == "dead"


def test_a_record_that_cannot_be_read_is_shown_as_such(kept: Kept) -> None:
    """What it died of may be its record: all else is shown all the same."""
    text = words(kept.run("show", "broken")[0])
    assert "kind DecodeError" in text
    assert "its record cannot be read" in text
    assert "is not kept" in text
    assert msgspec.json.decode(kept.run("show", "broken", "--format", "json")[0])["session"] is None


def test_the_raw_answer_is_printed(kept: Kept) -> None:
    """As JSON, without numbers, with every digit of an amount; without one, a line says so."""
    text, _ = kept.run("show", "a", "--raw")
    (answer,) = msgspec.json.decode(text)
    assert answer["asked"] == "call-session/a"
    assert "5112345" not in text
    assert "1.50" in text
    assert "no answer" in kept.run("show", "b", "--raw", code=1)[1]


def test_what_is_no_dead_letter_is_not_shown(kept: Kept) -> None:
    """An open session, or none, is one line and exit code 1."""
    for name in ("open", "nobody"):
        text, told = kept.run("show", name, code=1)
        assert (text, told.count("\n")) == ("", 1)
        assert "no dead letter" in told


# --- retry and drop -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "state"), [("retry", (State.OPEN, False)), ("drop", (State.DEAD, True))]
)
def test_named_ones(kept: Kept, command: str, state: tuple[State, bool]) -> None:
    """Those named are worked on, what is not dead is left alone, and doing it again is harmless."""
    verb = {"retry": "retried", "drop": "dropped"}[command]
    text, told = kept.run(command, "a", "open", "a")
    assert text == f"1 dead letter {verb}: Boom 1\n"
    assert told == "open is no dead letter (any more): left as it is\n"
    assert kept.state("a") == state
    assert kept.state("open") == (State.OPEN, False)
    assert kept.run(command, "a") == (
        f"0 dead letters {verb}\n",
        "a is no dead letter (any more): left as it is\n",
    )
    text, told = kept.run(command, "b", "nobody", code=1)
    assert text == f"1 dead letter {verb}: Boom 1\n"
    assert told == "no session nobody is known\n"


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_all_of_a_kind(kept: Kept, command: str) -> None:
    """With a kind only its dead letters are worked on, with --all every one."""
    assert kept.run(command, "--reason", "Boom")[0].endswith("ed: Boom 2\n")
    assert kept.kinds() == {"DecodeError": 1}
    assert kept.run(command, "--reason", "Boom")[0].startswith("0 dead letters")
    assert kept.run(command, "--all")[0].endswith("ed: DecodeError 1\n")
    assert kept.kinds() == {}


@pytest.mark.parametrize("command", ["retry", "drop"])
@pytest.mark.parametrize("chosen", [["--all"], ["--reason", "Boom"], ["a", "b", "open"]])
def test_a_dry_run_changes_nothing(kept: Kept, command: str, chosen: list[str]) -> None:
    """It says what would be done, and does nothing."""
    before = kept.kinds()
    text, _ = kept.run(command, "--dry-run", *chosen)
    assert "would be" in text
    assert "Boom 2" in text
    assert kept.kinds() == before
    assert kept.state("a") == (State.DEAD, False)


@pytest.mark.parametrize("command", ["retry", "drop"])
@pytest.mark.parametrize(
    "chosen", [[], ["a", "--all"], ["a", "--reason", "Boom"], ["--all", "--reason", "x"]]
)
def test_what_is_meant_must_be_said(kept: Kept, command: str, chosen: list[str]) -> None:
    """Nothing named, or more than one way of naming, is bad usage, and nothing is done."""
    _, told = kept.run(command, *chosen, code=2)
    assert f"say what to {command}: SESSION..., --reason KIND or --all" in words(told)
    assert kept.kinds() == {"Boom": 2, "DecodeError": 1}


def test_a_dropped_session_says_so(kept: Kept) -> None:
    """`tollwatch show` says that a person gave it up, and when, until the retention ends it."""
    kept.run("drop", "a")
    text = words(kept.cli.run("show", "a")[0])
    assert "dropped by a person, 20" in text
    assert msgspec.json.decode(kept.cli.run("show", "a", "--format", "json")[0])["dropped_ms"]
    assert 0 < kept.do(lambda redis, _: redis.ttl(keys.session_key("a"))) <= RETENTION_MS / 1000
