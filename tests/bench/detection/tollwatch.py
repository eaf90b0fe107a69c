"""The adapter to tollwatch: its public command `tollwatch backtest`, and how its output is read."""

import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.detection.timeline import Alert

COMMAND: Final = (".venv/bin/tollwatch", "backtest")
NAME: Final = "tollwatch"
_TIMEOUT_SECONDS: Final = 600
_DROP, _BUDGET, _VELOCITY = "drop", "budget", "velocity"


class WrongOutput(Exception):
    """`tollwatch backtest` failed, or said something else than its format allows."""


@dataclass(frozen=True, slots=True)
class Said:
    """What it said of one session."""

    session_id: str
    anomalous: bool
    score: float
    severity: str | None
    reasons: tuple[str, ...]
    """The reasons' codes."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """A whole run: a session for each input line in its order, and then the findings."""

    sessions: tuple[Said, ...]
    findings: tuple[Alert, ...]


def is_there(command: Sequence[str] = COMMAND) -> bool:
    """Whether this tollwatch can backtest."""
    try:
        run = subprocess.run([*command, "--help"], capture_output=True, check=False, timeout=60)  # noqa: S603
    except OSError:
        return False
    return run.returncode == 0


def policy(budget_per_day: str | None) -> str:
    """The policy beside the data: a customer to whom every cent matters.

    What it says of anomalies that are small in money is the same for all detectors: none of the
    visible ones is about less than two cents.
    """
    lines = [
        "currency: USD",
        "max_session_cost: 5.00",
        "severity: {low: 0.01, medium: 1, high: 5, critical: 25}",
        "ceilings: []",
        "difference_tolerance: 0.0001",
    ]
    if budget_per_day:
        lines.append(f"budgets: [{{per: day, amount: {budget_per_day}}}]")
    return "\n".join(lines) + "\n"


def backtest(
    file: Path,
    session_ids: Sequence[str],
    budget_per_day: str | None,
    command: Sequence[str] = COMMAND,
) -> Backtest:
    """Runs it over a file, which holds those sessions. Raises WrongOutput."""
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "policy.yaml"
        rules.write_text(policy(budget_per_day))
        arguments = [*command, str(file), "--policy", str(rules), "--format", "ndjson"]
        run = subprocess.run(  # noqa: S603
            arguments, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS
        )
    if run.returncode:
        raise WrongOutput(f"exit code {run.returncode}: {run.stderr.decode(errors='replace')}")
    found = read(run.stdout.decode().splitlines())
    if [said.session_id for said in found.sessions] != list(session_ids):
        raise WrongOutput(f"{file}: other sessions than in the file, or in another order")
    return found


def read(lines: Iterable[str]) -> Backtest:
    """Decodes the output. Raises WrongOutput."""
    sessions: list[Said] = []
    findings: list[Alert] = []
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            if "session_id" in said:
                if findings:
                    raise WrongOutput(f"line {number}: a session after a finding")
                sessions.append(_session(said))
            else:
                findings.append(_finding(said))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WrongOutput(f"line {number}: {error!r} in {line[:200]}") from error
    return Backtest(tuple(sessions), tuple(findings))


def _session(said: Mapping[str, Any]) -> Said:
    return Said(
        session_id=said["session_id"],
        anomalous=bool(said["anomalous"]),
        score=float(said["score"]),
        severity=said["severity"],
        reasons=tuple(reason["code"] for reason in said["reasons"]),
    )


def _finding(said: Mapping[str, Any]) -> Alert:
    """`at` is when it was told; without one it counts as told at the end of what it covers."""
    start, end = _seconds(said["from"]), _seconds(said["to"])
    return Alert(
        kind=_kind(said["kind"]),
        at=_seconds(said["at"]) if "at" in said else end,
        start=start,
        end=end,
        score=float(said["score"]),
        cohort=str(said["cohort"]),
        shape=str(said.get("rung", "")),
    )


def _kind(kind: str) -> str:
    """A drop, a budget, or else some form of too much at once."""
    for known in (_DROP, _BUDGET):
        if known in kind:
            return known
    return _VELOCITY


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
