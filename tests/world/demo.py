"""`make demo`: the whole product, against a simulated Telnyx and a simulated Slack.

Everything real is real: a Valkey, one web process, one worker, signed webhooks over HTTP. Only what
costs money and hours is simulated, and time is short: costs that take Telnyx minutes take seconds.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, zip_longest
from random import Random
from typing import Any, Final, Protocol

from rich.console import Console
from rich.live import Live

from tests.world import display, processes
from tests.world.board import Board, Row
from tests.world.calls import ANOMALIES, KINDS, MIX
from tests.world.draw import draw
from tests.world.model import Node
from tests.world.processes import Process, ProcessFailed, Server, read_event
from tests.world.valkey import Valkey
from tests.world.webhooks import Sender
from tests.world.world import World

# Costs that take Telnyx up to 220 s are complete after 4.6 s here: between the first look, which
# finds a part of them, and the second. Only the late charge comes after that one, before the last.
_TIME_SCALE: Final = 48.0
_AGES: Final = "2,5,9"
_LATEST_PART_SECONDS: Final = 7 * _TIME_SCALE

_BETWEEN_CALLS_SECONDS: Final = 0.5
_ENDLESS_PAUSE_SECONDS: Final = (0.4, 2.4)
_ANOMALOUS: Final = 0.2
_LOOK_EVERY_SECONDS: Final = 0.1
_KEPT_CALLS: Final = 200
# Time in which an alert that nobody should get would still come.
_QUIET_SECONDS: Final = 1.5
_SCENARIO_SECONDS: Final = 100.0
_WIDTH_WITHOUT_TERMINAL: Final = 120


class Show(Protocol):
    """How the spectator learns of it all."""

    def changed(self, row: Row) -> None:
        """A call has come further."""

    def alert(self, payload: Mapping[str, Any]) -> None:
        """Slack got a message."""

    def refresh(self) -> None:
        """Time has passed."""


class LiveShow:
    """A table that changes in place; alerts scroll by above it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def changed(self, row: Row) -> None:
        """The table is drawn again anyway."""

    def alert(self, payload: Mapping[str, Any]) -> None:
        """Draws the message as Slack would."""
        self._live.console.print(draw(payload, at=datetime.now(UTC)))

    def refresh(self) -> None:
        """Draws the table again."""
        self._live.refresh()


class PlainShow:
    """A line for each event, for logs and for continuous integration."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def changed(self, row: Row) -> None:
        """Says how far the call has come."""
        self._console.print(display.news(row), soft_wrap=True)

    def alert(self, payload: Mapping[str, Any]) -> None:
        """Draws the message as Slack would."""
        self._console.print(draw(payload, at=datetime.now(UTC)))

    def refresh(self) -> None:
        """Nothing to do: what was printed stays."""


@dataclass(slots=True)
class Stage:
    """The simulated outside and the real processes, all up and ready."""

    world: World
    valkey: Valkey
    web: Server
    worker: Server

    @property
    def processes(self) -> tuple[Process, ...]:
        """All that must not end before the demonstration does."""
        return (self.web, self.worker, self.valkey.process)


class Demo:
    """Lets calls happen, and tells the board and the show what comes of them."""

    def __init__(self, stage: Stage, board: Board, show: Show, sender: Sender) -> None:
        self._stage = stage
        self._board = board
        self._show = show
        self._sender = sender
        self._playing: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[Any]] = set()

    @property
    def is_playing(self) -> bool:
        """Whether more calls will come."""
        return self._playing is not None and not self._playing.done()

    def play(self, kinds: Iterator[str], pause_seconds: Callable[[], float]) -> None:
        """From now on let one call of each kind happen, after another."""
        self._playing = asyncio.create_task(self._play(kinds, pause_seconds))

    async def watch(self, *, until: Callable[[], bool]) -> None:
        """Look at everything until the condition holds. Raises ProcessFailed if a process ends."""
        while not until():
            for process in self._stage.processes:
                if not process.is_running:
                    raise process.failure("in the middle of the demonstration")
            self._raise_failures()
            self._look_at_slack()
            self._show.refresh()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def close(self) -> None:
        """No more calls, no more webhooks."""
        tasks = [task for task in (self._playing, *self._sending) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def happen(self, kind: str) -> None:
        """A call ends this moment, and Telnyx sends its webhooks."""
        world = self._stage.world
        call = world.generator.make(kind, end=datetime.now(UTC))
        call = world.telnyx.add(replace(call, root=hurried(call.root)))
        self._show.changed(self._board.add(call))
        sending = self._sender.send_call(call, paced_from=call.end)
        self._sending.add(asyncio.create_task(sending))

    def undelivered(self) -> list[str]:
        """Events that the web process did not take, one sentence each."""
        return [
            f"{outcome.delivery.session_id}: {outcome.delivery.event_type} was not taken: "
            f"{', '.join(map(str, outcome.statuses))} {outcome.answer}"
            for outcome in self._sender.outcomes
            if not outcome.delivered
        ]

    def forget(self) -> None:
        """Drop what is long over: an endless show must not fill the memory."""
        before = set(self._board.rows)
        self._board.forget(_KEPT_CALLS)
        for session_id in before - set(self._board.rows):
            self._stage.world.telnyx.forget(session_id)
        self._sender.outcomes.clear()

    async def _play(self, kinds: Iterator[str], pause_seconds: Callable[[], float]) -> None:
        for kind in kinds:
            self.happen(kind)
            await asyncio.sleep(pause_seconds())

    def _raise_failures(self) -> None:
        for task in (self._playing, *self._sending):
            if task and task.done():
                task.result()
        self._sending = {task for task in self._sending if not task.done()}

    def _look_at_slack(self) -> None:
        messages = self._stage.world.slack.messages
        while messages:
            payload = messages.pop(0).payload
            self._board.read_alert(payload)
            self._show.alert(payload)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
    try:
        return asyncio.run(_demonstrate(options, console))
    except ProcessFailed as failure:
        console.print(str(failure), style="red1", markup=False, soft_wrap=True)
        return 1


def scenario() -> list[str]:
    """Every sound kind once, every anomaly once among them; the guide's call comes first."""
    sound = sorted(KINDS, key=lambda kind: kind != "guide")
    pairs = zip_longest(sound[::2], sound[1::2], ANOMALIES)
    return [kind for kind in chain.from_iterable(pairs) if kind]


def endless(rng: Random) -> Iterator[str]:
    """First one of each, then a usual day's calls, with more trouble than on a usual day."""
    yield from scenario()
    while True:
        if rng.random() < _ANOMALOUS:
            yield rng.choice(ANOMALIES)
        else:
            yield rng.choices(list(MIX), list(MIX.values()))[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="a short scenario that ends by itself and is checked"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same calls")
    return parser


async def _demonstrate(options: argparse.Namespace, console: Console) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    board = Board()
    feed = _Feed(board)
    console.print("Starting Valkey, a simulated Telnyx and Slack, one web process, one worker …")
    async with _stage(options, feed) as stage, _sender(stage) as sender:
        with _show(board, _headline(stage, options), console) as show:
            feed.changed = show.changed
            demo = Demo(stage, board, show, sender)
            try:
                if options.once:
                    faults = await _once(demo, board, stop)
                else:
                    faults = await _endless(demo, stop, Random(options.seed))
            finally:
                await demo.close()
        console.print(display.report(board))
    return _conclude(faults, console, once=options.once)


async def _once(demo: Demo, board: Board, stop: asyncio.Event) -> list[str]:
    """The scenario from start to end; what differs from what must be."""
    deadline = time.monotonic() + _SCENARIO_SECONDS
    demo.play(iter(scenario()), lambda: _BETWEEN_CALLS_SECONDS)

    def is_over() -> bool:
        is_done = not demo.is_playing and board.is_done
        return stop.is_set() or is_done or time.monotonic() > deadline

    await demo.watch(until=is_over)
    quiet_until = time.monotonic() + _QUIET_SECONDS
    await demo.watch(until=lambda: stop.is_set() or time.monotonic() > quiet_until)
    if stop.is_set():
        return ["it was interrupted before its end"]
    return [*board.faults(), *demo.undelivered()]


async def _endless(demo: Demo, stop: asyncio.Event, rng: Random) -> list[str]:
    """Calls until somebody stops it; nothing is checked."""
    demo.play(endless(rng), lambda: rng.uniform(*_ENDLESS_PAUSE_SECONDS))

    def is_over() -> bool:
        demo.forget()
        return stop.is_set()

    await demo.watch(until=is_over)
    return []


def _conclude(faults: Sequence[str], console: Console, *, once: bool) -> int:
    if faults:
        console.print("\nNot as it must be:", style="bold red1")
        for fault in faults:
            console.print(f"  ✗ {fault}", style="red1", markup=False, soft_wrap=True)
        return 1
    if once:
        said = "Every call reached its end, and exactly the expected alerts were posted."
        console.print(f"\n✓ {said}", style="bold green")
    else:
        console.print("\nStopped.")
    return 0


class _Feed:
    """Brings the processes' log lines, which come from other threads, to the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._loop = asyncio.get_running_loop()
        self.changed: Callable[[Row], None] = lambda _row: None

    def web(self, line: str) -> None:
        """A line of the web process."""
        self._hand_over(self._board.read_web, line)

    def worker(self, line: str) -> None:
        """A line of the worker."""
        self._hand_over(self._board.read_worker, line)

    def _hand_over(self, read: Callable[[Mapping[str, Any]], Row | None], line: str) -> None:
        # The loop may be gone before the last line has come.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take, read, line)

    def _take(self, read: Callable[[Mapping[str, Any]], Row | None], line: str) -> None:
        row = read(read_event(line))
        if row is not None:
            self.changed(row)


@contextlib.asynccontextmanager
async def _stage(options: argparse.Namespace, feed: _Feed) -> AsyncIterator[Stage]:
    """All of it, ready; taken down in order at the end, the web process first."""
    with Valkey() as valkey:
        async with World(seed=options.seed, time_scale=_TIME_SCALE) as world:
            web = processes.web(redis_url=valkey.url, public_key=world.public_key, on_line=feed.web)
            worker = processes.worker(
                redis_url=valkey.url,
                api_url=world.telnyx_url,
                api_key=world.api_key,
                slack_url=world.slack_url,
                settings=_worker_settings(once=options.once),
                on_line=feed.worker,
            )
            async with _running(worker), _running(web):
                yield Stage(world, valkey, web, worker)


def _worker_settings(*, once: bool) -> dict[str, str]:
    return {
        "TOLLWATCH_FETCH_AFTER_SECONDS": _AGES,
        # Each call of the scenario stands for itself: none may be folded into another's alert.
        "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0" if once else "60",
        "TOLLWATCH_RECONCILE_MINUTES": "0",
    }


@contextlib.asynccontextmanager
async def _running(server: Server) -> AsyncIterator[None]:
    """Waiting happens in a thread: the simulated Telnyx has to go on answering meanwhile."""
    server.start()
    try:
        await asyncio.to_thread(server.wait_ready)
        yield
    finally:
        await asyncio.to_thread(server.terminate)


def _sender(stage: Stage) -> Sender:
    return stage.world.sender(f"{stage.web.url}/webhooks/telnyx", duplicates=0.2)


@contextlib.contextmanager
def _show(board: Board, headline: str, console: Console) -> Iterator[Show]:
    if not console.is_terminal or console.is_dumb_terminal:
        console.print(headline)
        yield PlainShow(console)
        return
    view = display.LiveView(board, headline)
    # At the end the final report takes its place.
    with Live(view, console=console, auto_refresh=False, transient=True) as live:
        yield LiveShow(live)


def _headline(stage: Stage, options: argparse.Namespace) -> str:
    ending = "It ends by itself" if options.once else "Ctrl-C stops it"
    return (
        f"tollwatch watches simulated calls, whose costs post {_TIME_SCALE:.0f} times faster than "
        f"real ones. {ending}.\n"
        f"webhooks: {stage.web.url}/webhooks/telnyx  ·  metrics: {stage.web.admin_url}/metrics, "
        f"{stage.worker.admin_url}/metrics"
    )


def hurried(node: Node) -> Node:
    """The same costs, none of which appears after the last look."""
    return replace(
        node,
        posted_after_seconds=min(node.posted_after_seconds, _LATEST_PART_SECONDS),
        children=tuple(map(hurried, node.children)),
    )


if __name__ == "__main__":
    sys.exit(main())
