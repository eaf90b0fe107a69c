"""`make run`: the real service in one terminal, with an embedded Valkey where there is no Redis.

For one machine and for trying tollwatch out with a real account. It restarts nothing: a process
that ends is worth looking at, and what keeps a service up is a supervisor's work.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from dotenv import dotenv_values
from rich.console import Console
from rich.text import Text

from tests.world.processes import ROOT, Process, ProcessFailed, is_free
from tests.world.valkey import Valkey

BAD_SETTINGS: Final = 2
# Where the command line looks when it is told nothing else.
_REDIS_PORT: Final = 6379
_COLOURS: Final = {"web": "cyan", "worker": "magenta", "local": "green"}
_DEFAULT_GRACE_SECONDS: Final = 20
_LOOK_EVERY_SECONDS: Final = 0.05
# How long one process may take to name its bad settings, once the other has.
_COMPLAINT_SECONDS: Final = 5.0
_EXAMPLES: Final = {
    "TELNYX_PUBLIC_KEY": "your public key      # Telnyx portal: Keys & Credentials, Public Key",
    "TELNYX_API_KEY": "KEY…                    # Telnyx portal: Keys & Credentials, API Keys",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/…  # optional: where alerts go",
}


def read_environ(env_file: Path, real: Mapping[str, str]) -> dict[str, str]:
    """`real` above the file's settings; what is empty counts as unset."""
    given = {name: value for name, value in real.items() if value}
    from_file = {name: value for name, value in dotenv_values(env_file).items() if value}
    return {**from_file, **given}


def has(environ: Mapping[str, str], name: str) -> bool:
    """Whether a setting is given, itself or as a file to read it from."""
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))


def settings_of_both(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What web and worker are told: the same, apart from the port that both would want."""
    # Nobody balances load here, and a person reads the lines.
    common = {"TOLLWATCH_DRAIN_SECONDS": "0", "TOLLWATCH_LOG_FORMAT": "console", **environ}
    port = environ.get("TOLLWATCH_ADMIN_PORT", "")
    apart = {"TOLLWATCH_ADMIN_PORT": str(int(port) + 1)} if port.isdecimal() and int(port) else {}
    return common, {**common, **apart}


def grace_seconds(environ: Mapping[str, str]) -> float:
    """How long a process may take to end: its own grace period, and a little more."""
    own = environ.get("TOLLWATCH_GRACE_SECONDS", "")
    return 10.0 + (int(own) if own.isdecimal() else _DEFAULT_GRACE_SECONDS)


def shell_code(code: int) -> int:
    """An exit code as a shell tells it: 128 and the number where a signal ended the process."""
    return code if code >= 0 else 128 - code


class Terminal:
    """One terminal for several processes: each line says whose it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()

    def say(self, line: str, name: str = "local") -> None:
        """Write a line of `name`; safe from any thread."""
        prefix = Text(f"{name:<6} │ ", _COLOURS.get(name, "yellow"))
        with self._lock:
            self._console.print(prefix.append(Text(line, "default")), soft_wrap=True)


class Group:
    """Processes that live and end together, in the order in which they are to be stopped.

    `watched` is not stopped here, but its end ends the others as well.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        watched: Sequence[Process] = (),
        grace_seconds: float = 30.0,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._processes = processes
        self._watched = watched
        self._grace_seconds = grace_seconds
        self._say = say
        self._stopping = False

    def stop(self, *_: int | FrameType | None) -> None:
        """End all, gently; asked a second time, at once. Fit for a signal handler."""
        if self._stopping:
            for process in self._processes:
                if process.is_running:
                    process.send_signal(signal.SIGKILL)
        self._stopping = True

    def run(self) -> int:
        """Start all, wait for the first end or `stop`; the first failure's exit code."""
        try:
            for process in self._processes:
                process.start()
            ended = self._wait()
        finally:
            codes = [process.terminate(self._grace_seconds) for process in self._processes]
        if ended is None:
            return shell_code(next((code for code in codes if code), 0))
        # All are needed: even one that ended without an error has ended too early.
        return shell_code(ended.returncode or 1)

    def _wait(self) -> Process | None:
        while not self._stopping:
            ended = [p for p in (*self._processes, *self._watched) if not p.is_running]
            if ended:
                if ended[0].returncode == BAD_SETTINGS:
                    self._let_others_complain()
                self._say(f"{ended[0].name} ended with exit code {ended[0].returncode}")
                return ended[0]
            # No threading.Event: a signal handler that sets one can find its lock taken, for ever.
            time.sleep(_LOOK_EVERY_SECONDS)
        return None

    def _let_others_complain(self) -> None:
        """Each names the settings that it misses; to stop the second early would hide half."""
        for process in self._processes:
            with contextlib.suppress(ProcessFailed):
                process.wait(_COMPLAINT_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C, SIGTERM or the end of one process."""
    options = _parser().parse_args(arguments)
    terminal = Terminal(Console(highlight=False, emoji=False, markup=False))
    try:
        return _run(read_environ(options.env, os.environ), options, terminal)
    except ProcessFailed as failure:
        terminal.say(str(failure))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.world.local", description=__doc__)
    parser.add_argument("--env", type=Path, default=ROOT / ".env", help="the file with settings")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the embedded Valkey's")
    return parser


def _run(environ: dict[str, str], options: argparse.Namespace, terminal: Terminal) -> int:
    with _redis(environ, options.data, terminal) as watched:
        for_web, for_worker = settings_of_both(environ)
        group = Group(
            [_process("web", for_web, terminal), _process("worker", for_worker, terminal)],
            watched=watched,
            grace_seconds=grace_seconds(environ),
            say=terminal.say,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, group.stop)
        port = environ.get("TOLLWATCH_PORT", "8080")
        terminal.say(f"Telnyx's webhooks go to port {port}, /webhooks/telnyx. Ctrl-C stops all")
        code = group.run()
    if code == BAD_SETTINGS:
        _advise(environ, options.env, terminal)
    return code


@contextlib.contextmanager
def _redis(environ: dict[str, str], data: Path, terminal: Terminal) -> Iterator[list[Process]]:
    """The Redis that is configured; where none is, an embedded one that goes last."""
    if has(environ, "REDIS_URL"):
        yield []
        return
    with Valkey(data, port=_REDIS_PORT if is_free(_REDIS_PORT) else 0) as valkey:
        terminal.say(f"no REDIS_URL: an embedded Valkey on {valkey.url} keeps its data in {data}")
        if valkey.port != _REDIS_PORT:
            terminal.say(f"for the command line: export REDIS_URL={valkey.url}")
        environ["REDIS_URL"] = valkey.url
        yield [valkey.process]


def _process(name: str, environ: Mapping[str, str], terminal: Terminal) -> Process:
    module = {"web": "service", "worker": "workers"}[name]
    command = [sys.executable, "-m", module]
    return Process(name, command, environ, on_line=lambda line: terminal.say(line, name))


def _advise(environ: Mapping[str, str], env_file: Path, terminal: Terminal) -> None:
    terminal.say(f"It could not start: see above. Settings are read from {env_file}:")
    for name, example in _EXAMPLES.items():
        if not has(environ, name):
            terminal.say(f"  {name}={example}")


if __name__ == "__main__":
    sys.exit(main())
