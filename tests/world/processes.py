"""Real processes for tests and the demonstration: started as an operator would, never left behind.

What is under test runs apart from us, with an environment that holds nothing but what it was given,
so that neither a developer's shell nor an import can help it along.
"""

import asyncio
import atexit
import ctypes
import inspect
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS: Final = 90.0
"""How long what must come is waited for: a busy machine takes its time, a quick one waits no longer
than it has to."""
_KEPT_LINES: Final = 20_000
_SHOWN_LINES: Final = 25
_POLL_SECONDS: Final = 0.02
# What an interpreter needs to run at all, or what measures it; nothing that configures tollwatch.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")
PASSED_ON_PREFIXES: Final = ("COVERAGE_",)
# Below the range that Linux and macOS give to outgoing connections, so that none can take a port
# between our looking and the server's binding.
_PORTS: Final = range(20_000, 32_000)
_SLICES: Final = 8
_PR_SET_PDEATHSIG: Final = 1

_running: "weakref.WeakSet[Process]" = weakref.WeakSet()
_handed_out: set[int] = set()


class ProcessFailed(Exception):
    """A process ended, or did not get ready; the message holds its last lines."""


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on, never the same one twice."""
    for port in random.sample(_own_ports(), 200):
        if port not in _handed_out and is_free(port):
            _handed_out.add(port)
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _own_ports() -> range:
    """Each process of a test run has ports of its own: another could bind one that it looked at."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SLICES
    size = len(_PORTS) // _SLICES
    return _PORTS[number * size : (number + 1) * size]


def is_free(port: int) -> bool:
    """Whether nothing listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def clean_environ(given: Mapping[str, str]) -> dict[str, str]:
    """`given`, and of our own environment only what any Python process needs."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    return {**own, "PYTHONUNBUFFERED": "1", **given}


def wait_until(
    condition: Callable[[], T], *, description: str, timeout_seconds: float = PATIENCE_SECONDS
) -> T:
    """Ask until the answer is true, and return it. Raises TimeoutError that names `description`."""
    deadline = time.monotonic() + timeout_seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_seconds:g} s: {description}")
        time.sleep(_POLL_SECONDS)
    return answer


async def wait_until_async(
    condition: Callable[[], T | Awaitable[T]],
    *,
    description: str,
    timeout_seconds: float = PATIENCE_SECONDS,
) -> T:
    """`wait_until` that lets the event loop turn; the condition may be a coroutine function."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        result: T = await answer if inspect.isawaitable(answer) else answer
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_seconds:g} s: {description}")
        await asyncio.sleep(_POLL_SECONDS)


class Process:
    """One child process: its lines, its end, and no way to outlive us.

    Start it in a thread that lives as long as it should: Linux ends it with that thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environ: Mapping[str, str] | None = None,
        *,
        on_line: Callable[[str], None] | None = None,
        cwd: Path = ROOT,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """`on_line` is called with each line, from a thread of its own."""
        self.name = name
        self.command = [str(part) for part in command]
        self.environ = clean_environ(environ or {})
        self._on_line = on_line
        self._cwd = cwd
        self._pass_fds = tuple(pass_fds)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def start(self) -> None:
        """Start it, or start it again after its end."""
        if self.is_running:
            raise ProcessFailed(f"{self.name} runs already")
        self._popen = subprocess.Popen(  # noqa: S603 - the commands are ours
            self.command,
            env=self.environ,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # One pipe keeps a traceback where it happened between the log lines.
            stderr=subprocess.STDOUT,
            pass_fds=self._pass_fds,
            # Ctrl-C must reach only us: who is stopped first is for us to decide.
            start_new_session=True,
            preexec_fn=_dies_with_parent(),  # noqa: PLW1509 - it makes two system calls
        )
        _running.add(self)
        self._reader = threading.Thread(target=self._read, args=(self._popen,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, also after its end."""
        return self._started.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs. A signal's number is negative."""
        return self._started.poll()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def lines(self) -> list[str]:
        """What it has written so far, stdout and stderr as they came."""
        with self._lock:
            return list(self._lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its JSON log lines, read; other lines are left out."""
        return [fields for fields in map(read_event, self.lines) if fields]

    @property
    def last_lines(self) -> str:
        """The end of its output, for a message that says what went wrong."""
        return "\n".join(f"  {line}" for line in self.lines[-_SHOWN_LINES:]) or "  (no output)"

    def wait(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end and return the exit code. Raises ProcessFailed if it goes on."""
        try:
            code = self._started.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(
                f"{self.name} still ran after {timeout_seconds:g} s; its last lines:\n"
                f"{self.last_lines}"
            ) from None
        self._finish()
        return code

    def terminate(self, timeout_seconds: float = 25.0) -> int | None:
        """SIGTERM, and SIGKILL where that does not help in time. Returns the exit code.

        The default is longer than a worker's grace for what it is in the middle of.
        """
        return self._end(signal.SIGTERM, timeout_seconds)

    def kill(self) -> int | None:
        """SIGKILL: no chance to clean up."""
        return self._end(signal.SIGKILL, 5.0)

    def send_signal(self, number: signal.Signals) -> None:
        """Any other signal, SIGSTOP for one."""
        self._started.send_signal(number)

    def wait_ready(self, url: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until `url` answers 200. Raises ProcessFailed if it ends before, or is too late."""
        answer = "no answer"

        def is_ready() -> bool:
            nonlocal answer
            if not self.is_running:
                raise self.failure("before it was ready")
            try:
                response = httpx.get(url, timeout=2.0, trust_env=False)
            except httpx.HTTPError as error:
                answer = f"no answer ({type(error).__name__})"
                return False
            answer = f"{response.status_code} {response.text[:200]}"
            return response.status_code == httpx.codes.OK

        try:
            wait_until(is_ready, description=url, timeout_seconds=timeout_seconds)
        except TimeoutError:
            raise ProcessFailed(
                f"{self.name} was not ready after {timeout_seconds:g} s: {url} gave {answer}; its "
                f"last lines:\n{self.last_lines}"
            ) from None

    def failure(self, when: str = "") -> ProcessFailed:
        """An error that tells of its end: call it when it has ended and should not have."""
        self._finish()
        ended = f"{self.name} ended with exit code {self.returncode}"
        ended += f" {when}" if when else ""
        return ProcessFailed(f"{ended}; its last lines:\n{self.last_lines}")

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise ProcessFailed(f"{self.name} was never started")
        return self._popen

    def _read(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout
        with popen.stdout as output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip("\r\n")
                with self._lock:
                    self._lines.append(line)
                if self._on_line:
                    self._on_line(line)

    def _end(self, number: signal.Signals, timeout_seconds: float) -> int | None:
        if self._popen is None:
            return None
        if self._popen.poll() is None:
            # A stopped process would not see SIGTERM before it goes on.
            self._popen.send_signal(signal.SIGCONT)
            self._popen.send_signal(number)
        try:
            self._popen.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._finish()
        return self._popen.returncode

    def _finish(self) -> None:
        """Read what it wrote last. A grandchild may hold the pipe open: do not wait for that."""
        _running.discard(self)
        if self._reader and self._reader is not threading.current_thread():
            self._reader.join(timeout=2.0)


class Server(Process):
    """A web or worker process, with the addresses that it was told to use."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environ: Mapping[str, str],
        *,
        url: str,
        admin_url: str,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(name, command, environ, on_line=on_line)
        self.url = url
        self.admin_url = admin_url

    def wait_ready(self, url: str = "", timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for its own readiness page."""
        super().wait_ready(url or f"{self.admin_url}/readyz", timeout_seconds)


def web(
    *,
    redis_url: str,
    public_key: str,
    settings: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Server:
    """`python -m service` on free ports, not started yet; `settings` go above everything else."""
    environ = {
        "REDIS_URL": redis_url,
        "TELNYX_PUBLIC_KEY": public_key,
        "TOLLWATCH_PORT": str(free_port()),
        # Waiting for a load balancer to notice would only hold a test up.
        "TOLLWATCH_DRAIN_SECONDS": "0",
    }
    return _server("web", "service", {**environ, **(settings or {})}, on_line)


def worker(
    *,
    redis_url: str,
    api_url: str,
    api_key: str,
    slack_url: str | None = None,
    settings: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    name: str = "worker",
    module: str = "workers",
) -> Server:
    """`python -m workers` on a free admin port, not started yet; `settings` go above the rest.

    Tests may have a `module` of their own that spoils something before it starts the same.
    """
    environ = {
        "REDIS_URL": redis_url,
        "TELNYX_API_URL": api_url,
        "TELNYX_API_KEY": api_key,
        "SLACK_WEBHOOK_URL": slack_url or "",
    }
    return _server(name, module, {**environ, **(settings or {})}, on_line)


def read_event(line: str) -> dict[str, Any]:
    """A JSON log line's fields; empty for any other line."""
    if not line.startswith("{"):
        return {}
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _server(
    name: str, module: str, environ: Mapping[str, str], on_line: Callable[[str], None] | None
) -> Server:
    complete = {
        "TOLLWATCH_HOST": "127.0.0.1",
        "TOLLWATCH_ADMIN_PORT": str(free_port()),
        **environ,
    }
    return Server(
        name,
        [sys.executable, "-m", module],
        complete,
        url=f"http://127.0.0.1:{complete.get('TOLLWATCH_PORT', '')}".rstrip(":"),
        admin_url=f"http://127.0.0.1:{complete['TOLLWATCH_ADMIN_PORT']}",
        on_line=on_line,
    )


def _dies_with_parent() -> Callable[[], None] | None:
    """On Linux the kernel kills the child when we end, however we end; elsewhere `atexit` tries."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        # Whoever starts us in the background of a script has it ignored, and that is inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # We ended before the kernel was told.
            os._exit(1)

    return in_child


def _kill_all() -> None:
    for process in list(_running):
        process.kill()


atexit.register(_kill_all)
