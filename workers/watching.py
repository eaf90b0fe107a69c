"""How what takes long shows on a terminal, above all a search for webhooks that never came.

A search shows as a bar, or as lines in a pipe. All goes to stderr: the result belongs to stdout.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from service.events import Scheduling
from service.printable import safe
from workers.backfill import Watcher as Learning
from workers.display import when
from workers.reconcile import Watcher
from workers.span import Span
from workers.walk import SOURCES, Source, Walk

_PER_SOURCE = 100.0


@contextmanager
def watching(wanted: Span, *, each: bool = True) -> Iterator[Watcher]:
    """Who shows how the search goes; a terminal gets a bar, anything else lines.

    `each`: whether every session found is worth a line.
    """
    if not sys.stderr.isatty():
        yield Lines(each=each)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[found]} found{task.fields[note]}"),
    )
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, wanted)


@contextmanager
def counting(name: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Takes how many of how many are done; a terminal gets a bar where it is to be shown."""
    if not (shown and sys.stderr.isatty()):
        yield lambda _done, _total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Bar:
    """One bar for all lists: lists come newest first, so the oldest row tells how far it is."""

    def __init__(self, progress: Progress, wanted: Span) -> None:
        self._progress = progress
        self._wanted = wanted
        self._found = 0
        self._task: TaskID = progress.add_task(
            SOURCES[0].name, total=_PER_SOURCE * len(SOURCES), found=0, note=""
        )

    def page(self, source: Source, walk: Walk) -> None:
        """So much of the bar is done."""
        done = (SOURCES.index(source) + fraction(walk, self._wanted)) * _PER_SOURCE
        self._progress.update(self._task, completed=done, description=source.name, note="")

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """One more, and which it is."""
        self._found += 1
        note = safe(f" · {scheduling.session_id}")
        self._progress.update(self._task, description=source.name, found=self._found, note=note)

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        """Why the bar stands still."""
        note = safe(f" · waits {seconds:.0f} s: {reason}")
        self._progress.update(self._task, description=source.name, note=note)


class Lines:
    """A line for each page, each session found and each wait."""

    def __init__(self, *, each: bool = True) -> None:
        self._each = each

    def page(self, source: Source, walk: Walk) -> None:
        """How far it is."""
        if walk.reached_ms is not None:
            reached = when(max(walk.reached_ms, walk.span.since_ms))
            self._say(f"{source.name}: page {walk.tally.pages}, back to {reached}")
        else:
            self._say(f"{source.name}: page {walk.tally.pages}, no rows")

    def found(self, source: Source, scheduling: Scheduling) -> None:
        """Which session, and when it ended."""
        if not self._each:
            return
        ended = when(scheduling.event.at_ms)
        self._say(f"{source.name}: found {scheduling.session_id}, ended {ended}")

    def waiting(self, source: Source, seconds: float, reason: str) -> None:
        """How long, and why."""
        self._say(f"{source.name}: waits {seconds:.0f} s: {reason}")

    def _say(self, line: str) -> None:
        _say(line)


@contextmanager
def learning() -> Iterator[Learning]:
    """Who shows how learning from the past goes; a terminal gets a bar, anything else lines."""
    if not sys.stderr.isatty():
        yield LearningLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console) as progress:
        yield LearningBar(progress)


class LearningBar:
    """One bar for all sessions; what cannot be read stands above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("sessions", total=None, note="")

    def done(self, done: int, total: int) -> None:
        """So much of the bar is done."""
        self._progress.update(self._task, completed=done, total=total, note="")

    def waiting(self, seconds: float, reason: str) -> None:
        """Why the bar stands still."""
        self._progress.update(self._task, note=safe(f" · waits {seconds:.0f} s: {reason}"))

    def unreadable(self, session_id: str, reason: str) -> None:
        """Which, and why."""
        self._progress.console.print(safe(f"{session_id}: {reason}"))


class LearningLines:
    """A line for each hundred sessions, for what cannot be read, and for a wait of all."""

    def __init__(self) -> None:
        self._waits = False

    def done(self, done: int, total: int) -> None:
        """How far it is."""
        self._waits = False
        if done % _PER_LINE == 0 or done == total:
            _say(f"{done} of {total} sessions")

    def waiting(self, seconds: float, reason: str) -> None:
        """How long, and why; of those that wait together the first says it."""
        if not self._waits:
            _say(f"waits {seconds:.0f} s: {reason}")
        self._waits = True

    def unreadable(self, session_id: str, reason: str) -> None:
        """Which, and why."""
        _say(f"{session_id}: {reason}")


_PER_LINE: Final = 100


def _say(line: str) -> None:
    sys.stderr.write(safe(line) + "\n")
    sys.stderr.flush()


def fraction(walk: Walk, wanted: Span) -> float:
    """How much of a source is done, 0 to 1."""
    if not walk.page:
        return 1.0
    if walk.reached_ms is None:
        return 0.0
    length = max(1, wanted.until_ms - wanted.since_ms)
    return min(max((wanted.until_ms - walk.reached_ms) / length, 0.0), 1.0)
