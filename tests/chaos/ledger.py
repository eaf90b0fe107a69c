"""What the processes say, read as it comes: who they are, what failed, and what nobody expected.

Every line goes into a file as well, so that a run which failed can be read afterwards.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.world.processes import read_event

_WORRYING: Final = frozenset({"error", "critical"})
REDIS_TROUBLE: Final = frozenset(
    {"Redis failed", "webhook not kept", "attempt lost Redis", "posted, but not noted yet"}
)
"""What the processes say when Redis is not there for them."""
_EXPECTED: Final = frozenset({"alert refused", "Slack's channel is shut", "Telnyx fails for all"})
"""Errors that belong to what is done to them; the record shows whether they were right."""
_POISON: Final = "Poisoned"
_ARQ: Final = "arq.worker"
_CUT_OFF: Final = "CancelledError"
_UNHEARD: Final = "Task exception was never retrieved"
_BOOKKEEPING: Final = "Worker.finish_job()"


class Ledger:
    """Lines come from other threads, each process's from one of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.worker_ids: dict[str, str] = {}
        """By process, the id under which it works now."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """By process and event."""
        self.failed_tries: Counter[str] = Counter()
        """By session."""
        self.complaints: list[str] = []
        self._lock = threading.Lock()

    def listener(self, name: str) -> Callable[[str], None]:
        """For `Process.on_line`."""
        path = self.directory / f"{name.replace(' ', '-')}.log"

        def on_line(line: str) -> None:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            with self._lock:
                self._read(name, line)

        return on_line

    def count(self, *events: str) -> int:
        """How often all processes together have said any of it."""
        with self._lock:
            return sum(n for (_, event), n in self.counts.items() if event in events)

    def about(self, session_id: str) -> list[str]:
        """All lines about a session, in order of time, each with its process."""
        lines = [
            (str(read_event(line).get("timestamp", "")), path.stem, line)
            for path in sorted(self.directory.glob("*.log"))
            for line in path.read_text(encoding="utf-8").splitlines()
            if session_id in line
        ]
        return [f"{name}: {line}" for _, name, line in sorted(lines)]

    def _read(self, name: str, line: str) -> None:
        fields = read_event(line)
        if not fields:
            self._read_other(name, line)
            return
        event = str(fields.get("event"))
        self.counts[name, event] += 1
        if event == "started" and "worker_id" in fields:
            self.worker_ids[name] = str(fields["worker_id"])
        elif event == "attempt failed":
            self._read_failure(name, line, fields)
        elif fields.get("level") in _WORRYING and not _is_expected(event, fields):
            self.complaints.append(f"{name}: {line}")

    def _read_failure(self, name: str, line: str, fields: Mapping[str, Any]) -> None:
        self.failed_tries[str(fields.get("session_id"))] += 1
        if not str(fields.get("reason")).startswith(_POISON):
            self.complaints.append(f"{name}: {line}")

    def _read_other(self, name: str, line: str) -> None:
        # A process that is killed may leave half a line behind.
        if line and not line.startswith("{"):
            self.complaints.append(f"{name}: {line}")


def _is_expected(event: str, fields: Mapping[str, Any]) -> bool:
    # A worker that is stopped cuts off what outlasts its grace. arq, which remembers nothing that
    # matters, calls that a failure, and cannot put it down where Redis is away as well.
    cut_off = fields.get("logger") == _ARQ and _CUT_OFF in event
    unheard = event.startswith(_UNHEARD) and _BOOKKEEPING in event
    return cut_off or unheard or event in _EXPECTED
