"""Log lines: whatever is in them, one line each; and how many strangers can cause."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from service.logs import Digest, _renderer
from tests.world.processes import wait_until_async

# Half surrogate pairs as well.
ANY_TEXT = st.text(st.characters(), max_size=60) | st.sampled_from(["\ud800", "a\nb", "\x9b2J"])
ANY_VALUE = st.one_of(ANY_TEXT, st.none(), st.integers(), st.lists(ANY_TEXT), st.binary())


def rendered(log_format: str, fields: dict[str, Any]) -> str:
    line: Any = {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "e"} | fields
    for processor in _renderer(log_format):
        line = processor(None, "info", line)
    assert isinstance(line, str)
    return line


@given(fields=st.dictionaries(st.sampled_from(["event", "reason", "session_id"]), ANY_VALUE))
def test_any_json_line_is_one_object(fields: dict[str, Any]) -> None:
    """Whatever is logged, the line is one JSON object which a terminal shows as it is."""
    line = rendered("json", fields)
    assert line.isprintable()
    assert set(json.loads(line)) == {"timestamp", "level", "event", *fields}


@given(fields=st.dictionaries(st.sampled_from(["event", "reason", "session_id"]), ANY_VALUE))
def test_any_console_line_is_one_line(fields: dict[str, Any]) -> None:
    """The console's lines, too: nothing begins a line, moves the cursor or turns the direction."""
    assert rendered("console", fields).isprintable()


@given(text=ANY_TEXT)
def test_a_traceback_on_the_console_is_set_off(text: str) -> None:
    """What an exception says cannot look like a line of the log, nor command the terminal."""
    with pytest.raises(LookupError) as caught:
        raise LookupError(text)
    first, *more = rendered("console", {"exc_info": caught.value}).split("\n")
    assert first.isprintable()
    assert any("LookupError" in line for line in more)
    assert all(line.isprintable() and line[:4] in {"", "    "} for line in more)


def test_the_lines_of_libraries_are_rendered_alike() -> None:
    """What a library logs through `logging` is one JSON object as well."""
    script = (
        "import logging; from service.logs import configure_logs; configure_logs('json', 'info');"
        "logging.getLogger('uvicorn.error').warning('a %s', 'b\\n{\\x9b2J')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)  # noqa: S603
    (line,) = done.stdout.decode().splitlines()
    assert json.loads(line)["event"] == "a b\n{\x9b2J"
    assert line.isprintable()


# --- what strangers can cause ---------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def warnings(lines: list[Any]) -> list[tuple[str, str, int | None]]:
    return [(line["event"], line["reason"], line.get("more")) for line in lines]


@pytest.mark.anyio
async def test_the_first_is_logged_and_the_rest_is_counted(logged: list[Any]) -> None:
    """A thousand alike are two lines: the first at once, and at the end how many more."""
    digest = Digest(60)
    for _ in range(1000):
        digest.warning("refused", reason="a")
    digest.warning("refused", reason="b")
    assert warnings(logged) == [("refused", "a", None), ("refused", "b", None)]
    digest.close()
    assert warnings(logged)[2:] == [("refused", "a", 999)]


@pytest.mark.anyio
async def test_a_period_ends_by_itself(logged: list[Any]) -> None:
    """After the period its rest is told, and the next of the kind is logged at once again."""
    digest = Digest(0.01)
    digest.warning("refused", reason="a")
    digest.warning("refused", reason="a")
    await wait_until_async(lambda: len(logged) > 1, description="the rest")
    await wait_until_async(lambda: not digest._more, description="the end of the period")
    digest.warning("refused", reason="a")
    assert warnings(logged) == [
        ("refused", "a", None),
        ("refused", "a", 1),
        ("refused", "a", None),
    ]
