"""The audit of the dependencies: what was not checked is never called clean."""

import json
from typing import Any

import pytest

from tests.audit import PINS, Audit, pinned, read, together, verdict

CLEAN = {"name": "Good_One", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "odd", "skip_reason": "not found"}
NAMES = ["good-one", "bad", "odd"]


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages})


def test_what_is_found_is_an_error() -> None:
    """A vulnerability is told with the version that mends it, and the exit code is 1."""
    lines, code = verdict(read(report(CLEAN, BAD), NAMES[:2]), strict=False)
    assert code == 1
    assert lines[0] == "VULNERABLE: bad 2: X-1, mended in 3"
    assert lines[-1] == "2 of 2 packages checked, 1 vulnerabilities."


def test_nothing_found_is_clean() -> None:
    """Where all was checked and nothing found, that is said, and nothing else."""
    assert verdict(read(report(CLEAN), ["good-one"]), strict=True) == (
        ["1 of 1 packages checked, 0 vulnerabilities."],
        0,
    )


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"dependencies": 1}', "<html>", report()])
def test_no_answer_is_not_clean(answer: str) -> None:
    """A source that cannot be reached has checked nothing: said aloud, and an error if strict."""
    audit = read(answer, NAMES)
    lines, code = verdict(audit, strict=False)
    assert code == 0
    assert lines[0].startswith("NOT CHECKED: 3 of 3 packages")
    assert not any("checked, 0" in line for line in lines)
    assert verdict(audit, strict=True)[1] == 1


def test_what_was_passed_over_is_not_clean() -> None:
    """A package that a source skips, or does not mention, was not checked."""
    audit = read(report(CLEAN, SKIPPED), NAMES)
    assert audit.checked == {"good-one"}
    assert audit.unchecked.keys() == {"odd", "bad"}


def test_sources_complete_each_other() -> None:
    """What one source has checked is checked; what any has found is found, once."""
    first, second = read(report(CLEAN, BAD), NAMES), read(report(BAD, SKIPPED), NAMES)
    assert together([first, second]) == Audit(
        frozenset({"good-one", "bad"}),
        {"odd": "the source does not know it"},
        ("bad 2: X-1, mended in 3",),
    )


def test_every_pin_is_asked_for() -> None:
    """The names are those of the file that the service is installed from."""
    assert {"uvicorn", "redis", "pynacl", "msgspec"} <= set(pinned(PINS.read_text()))
    assert pinned("a.B_c[x]==1 ; x \\\n    --hash=sha256:a==\n# d==1\n") == ["a-b-c"]
