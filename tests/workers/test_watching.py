"""How a search shows while it goes: a bar on a terminal, lines in a pipe."""

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from tests.samples import scheduling
from workers.span import Span
from workers.walk import SOURCES, Tally, Walk
from workers.watching import Bar, LearningLines, Lines, fraction, learning, watching

SPAN = Span(1_790_000_000_000, 1_790_003_600_000)
MIDDLE = (SPAN.since_ms + SPAN.until_ms) // 2
FIRST, SECOND = SOURCES[:2]


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is searched, how far it is, and how much was found."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with watching(SPAN) as watcher:
        watcher.page(FIRST, Walk(SPAN, page=2, reached_ms=MIDDLE))
        watcher.found(FIRST, scheduling("lost"))
    shown = terminal.getvalue()
    assert "webhook_deliveries" in shown
    assert "10 %" in shown
    assert "1 found · lost" in shown


def test_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each page, session and wait, with nothing that a terminal would obey."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with watching(SPAN) as watcher:
        assert isinstance(watcher, Lines)
        watcher.page(FIRST, Walk(SPAN, reached_ms=MIDDLE, tally=Tally(pages=3)))
        watcher.page(FIRST, Walk(SPAN, tally=Tally(pages=4)))
        watcher.found(FIRST, scheduling("s\x1b[2J"))
        watcher.waiting(SECOND, 17.4, "rate limit\x07")
    assert pipe.getvalue().splitlines() == [
        "webhook_deliveries: page 3, back to 2026-09-21 14:43:20 UTC",
        "webhook_deliveries: page 4, no rows",
        "webhook_deliveries: found s�[2J, ended 2026-09-21 14:13:20 UTC",
        "call-control: waits 17 s: rate limit�",
    ]


def test_a_bar_says_why_it_waits() -> None:
    """Until the next page comes."""
    progress = Progress(console=Console(file=io.StringIO()))
    bar = Bar(progress, SPAN)
    [task] = progress.tasks
    bar.waiting(SECOND, 17.4, "rate limit")
    assert (task.description, task.fields["note"]) == (SECOND.name, " · waits 17 s: rate limit")
    bar.page(SECOND, Walk(SPAN, page=0))
    assert (task.fields["note"], task.completed, task.total) == ("", 200, 500)


def test_how_far_a_list_is() -> None:
    """Newest first: the oldest row shows it, and the end is the end."""
    assert fraction(Walk(SPAN), SPAN) == 0
    assert fraction(Walk(SPAN, reached_ms=MIDDLE), SPAN) == 0.5
    assert fraction(Walk(SPAN, reached_ms=SPAN.since_ms - 9), SPAN) == 1
    assert fraction(Walk(SPAN, reached_ms=SPAN.until_ms + 9), SPAN) == 0
    assert fraction(Walk(SPAN, page=0), SPAN) == 1


def test_a_pipe_gets_no_line_for_each_session_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are thousands, and all are expected."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with watching(SPAN, each=False) as watcher:
        watcher.found(FIRST, scheduling("s"))
    assert pipe.getvalue() == ""


def test_learning_shows_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many of how many sessions, why it waits, and what cannot be read above it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with learning() as watcher:
        watcher.done(3, 7)
        watcher.waiting(17.4, "rate limit\x07")
        watcher.unreadable("s\x1b[2J", "junk")
    shown = terminal.getvalue()
    assert "3/7" in shown
    assert "waits 17 s: rate limit�" in shown
    assert "s�[2J: junk" in shown


def test_learning_shows_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each hundred sessions and for the last, and one for all that wait together."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with learning() as watcher:
        assert isinstance(watcher, LearningLines)
        for done in range(1, 151):
            watcher.done(done, 150)
        watcher.waiting(17.4, "rate limit\x07")
        watcher.waiting(17.9, "rate limit")
        watcher.unreadable("s", "junk")
    assert pipe.getvalue().splitlines() == [
        "100 of 150 sessions",
        "150 of 150 sessions",
        "waits 17 s: rate limit�",
        "s: junk",
    ]
