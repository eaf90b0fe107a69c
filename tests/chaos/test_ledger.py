"""What is read from the processes' lines."""

import json
from pathlib import Path

import pytest

from tests.chaos.ledger import REDIS_TROUBLE, Ledger


def _line(event: str, level: str = "info", **fields: object) -> str:
    return json.dumps({"timestamp": "2026-01-01", "level": level, "event": event, **fields})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Nothing in it yet."""
    return Ledger(tmp_path)


def test_a_restarted_worker_has_a_new_id(ledger: Ledger) -> None:
    """The last start counts."""
    hear = ledger.listener("worker 1")
    for id in ("a", "b"):
        hear(_line("started", worker_id=id))
    assert ledger.worker_ids == {"worker 1": "b"}


def test_events_are_counted_over_all_processes(ledger: Ledger) -> None:
    """How often Redis was missed is what all of them say together."""
    ledger.listener("worker 1")(_line("Redis failed", "warning"))
    ledger.listener("web 1")(_line("webhook not kept", "warning"))
    ledger.listener("web 1")(_line("webhook"))
    assert ledger.count(*REDIS_TROUBLE) == 2


@pytest.mark.parametrize(
    "line",
    [
        _line("loop failed", "error"),
        _line("attempt failed", "error", session_id="s", reason="KeyError: 'x'"),
        _line("Task exception was never retrieved\nfuture: <Task ...>", "error"),
        _line("job expired, CancelledError", "error", logger="other"),
        "Traceback (most recent call last):",
    ],
)
def test_what_nobody_expected_is_a_complaint(ledger: Ledger, line: str) -> None:
    """Errors, failures of our own, and whatever is no log line."""
    ledger.listener("worker 1")(line)
    assert ledger.complaints == [f"worker 1: {line}"]


@pytest.mark.parametrize(
    "line",
    [
        _line("attempt failed", "error", session_id="s", reason="Poisoned: it breaks"),
        _line("alert refused", "error"),
        _line("0.05s ! id:analyze failed, CancelledError: ", "error", logger="arq.worker"),
        _line("attempt lost Redis", "warning"),
        _line("verdict"),
        '{"timestamp": "2026-01-01", "half a li',
        "",
    ],
)
def test_what_is_done_on_purpose_is_none(ledger: Ledger, line: str) -> None:
    """The poison's failures, Slack's refusals, what a rollout cuts off, what a kill cuts short."""
    ledger.listener("worker 1")(line)
    assert ledger.complaints == []


def test_tries_are_counted_by_session(ledger: Ledger) -> None:
    """Whose attempts failed, and how often."""
    for id in ("a", "b", "a"):
        line = _line("attempt failed", "error", session_id=id, reason="Poisoned: it breaks")
        ledger.listener("worker 1")(line)
    assert ledger.failed_tries == {"a": 2, "b": 1}


def test_a_sessions_story_is_told_in_order(ledger: Ledger) -> None:
    """All lines about it, of whichever process, by time."""
    lines = [json.dumps({"timestamp": at, "session_id": "id-1"}) for at in "123"]
    ledger.listener("worker 1")(lines[2])
    ledger.listener("web 1")(lines[0])
    ledger.listener("worker 2")(lines[1])
    ledger.listener("web 1")(_line("webhook", session_id="another"))
    told = [f"web-1: {lines[0]}", f"worker-2: {lines[1]}", f"worker-1: {lines[2]}"]
    assert ledger.about("id-1") == told
