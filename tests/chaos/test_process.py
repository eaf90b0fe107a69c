"""That the processes which are wrong on purpose are so."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.chaos import process


def test_a_clock_is_put_forward_for_those_who_ask_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """`time.time` is ahead by what was said, and goes on."""
    right = time.time
    monkeypatch.setattr(time, "time", right)
    process.set_clock(150)
    assert 149 < time.time() - right() < 151


def test_a_modules_datetime_is_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that took `datetime` gets one whose now is wrong; others keep theirs."""
    ours, other = ModuleType("ours.module"), ModuleType("other.module")
    for module in (ours, other):
        vars(module)["datetime"] = datetime
        monkeypatch.setitem(sys.modules, module.__name__, module)
    process.set_datetime(-150, packages=("ours",))
    assert -151 < (vars(ours)["datetime"].now(UTC) - datetime.now(UTC)).total_seconds() < -149
    assert vars(other)["datetime"] is datetime


def test_judging_a_marked_session_breaks(tmp_path: Path) -> None:
    """Only sessions that the file names break our code, from the moment on at which it does."""
    marked = tmp_path / "poison"
    marked.write_text("a\n")
    judge = process.poisoned(lambda case, policy, *, at_ms: (case, policy, at_ms), marked)
    fine, bad = (SimpleNamespace(call=SimpleNamespace(session_id=id)) for id in ("b", "a"))
    assert judge(fine, "policy", at_ms=1) == (fine, "policy", 1)
    with pytest.raises(process.Poisoned):
        judge(bad, "policy", at_ms=1)
    marked.write_text("a\nb\n")
    with pytest.raises(process.Poisoned):
        judge(fine, "policy", at_ms=1)
