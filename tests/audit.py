"""`make audit`: whether a known vulnerability is in what the service runs with.

pip-audit runs in an environment of its own, so that nothing else depends on it, and asks one source
of advisories after the other. It passes over what a source does not know, and would call the rest
clean: so what was not checked is said as plainly as what was found. Exit codes: 0 nothing found,
1 something found, or, with STRICT=1, something not checked.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PINS: Final = ROOT / "requirements" / "run.txt"
HOME: Final = ROOT / ".venv-audit"
AUDITOR: Final = "pip-audit>=2.10,<3"
# The package index' own advisories, and a database of them.
SOURCES: Final = ((), ("--vulnerability-service", "osv"))
_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Audit:
    """What one source, or all of them together, had to say."""

    checked: frozenset[str] = frozenset()
    unchecked: Mapping[str, str] = field(default_factory=dict)
    """Why not, by package."""
    found: tuple[str, ...] = ()
    """A line for each vulnerability."""


def read(report: str, names: Iterable[str]) -> Audit:
    """pip-audit's JSON; a package of `names` that it does not mention was not checked."""
    try:
        listed = json.loads(report)["dependencies"]
        packages = {_normal(each["name"]): each for each in listed}
        checked = {name for name, each in packages.items() if "vulns" in each}
        found = [line for name in sorted(checked) for line in _lines(packages[name])]
    except (ValueError, KeyError, TypeError):
        return Audit(unchecked=dict.fromkeys(names, "the source gave no answer"))
    skipped = {name: "the source does not know it" for name in packages if name not in checked}
    silent = {name: "not mentioned" for name in names if name not in packages}
    return Audit(frozenset(checked), {**skipped, **silent}, tuple(found))


def _lines(package: Mapping[str, Any]) -> Iterable[str]:
    for each in package["vulns"]:
        mended = ", ".join(each.get("fix_versions") or ()) or "no version yet"
        yield f"{package['name']} {package['version']}: {each['id']}, mended in {mended}"


def together(audits: Iterable[Audit]) -> Audit:
    """Checked is what any source has checked; found is what any has found."""
    every = list(audits)
    checked = frozenset[str]().union(*(audit.checked for audit in every))
    unchecked = {name: why for audit in every for name, why in audit.unchecked.items()}
    found = dict.fromkeys(line for audit in every for line in audit.found)
    left = {name: why for name, why in unchecked.items() if name not in checked}
    return Audit(checked, left, tuple(found))


def verdict(audit: Audit, *, strict: bool) -> tuple[list[str], int]:
    """What to print, and the exit code."""
    lines = [f"VULNERABLE: {line}" for line in audit.found]
    count, all_of = len(audit.checked), len(audit.checked) + len(audit.unchecked)
    if audit.unchecked:
        lines += _not_checked(audit, all_of)
    if count:
        lines.append(f"{count} of {all_of} packages checked, {len(audit.found)} vulnerabilities.")
    failed = audit.found or (audit.unchecked and strict)
    return lines, 1 if failed else 0


def _not_checked(audit: Audit, all_of: int) -> Iterable[str]:
    yield (
        f"NOT CHECKED: {len(audit.unchecked)} of {all_of} packages could not be checked for known "
        "vulnerabilities."
    )
    for why in sorted(set(audit.unchecked.values())):
        names = sorted(name for name, reason in audit.unchecked.items() if reason == why)
        yield fill(f"{why}: {', '.join(names)}", 100, initial_indent="  ", subsequent_indent="    ")
    yield (
        "This does not say that they are sound. Run it where a source of advisories can be "
        "reached; STRICT=1 makes this an error."
    )


def pinned(text: str) -> list[str]:
    """The names of all packages that are pinned."""
    return [
        _normal(line.partition("==")[0].partition("[")[0].strip())
        for line in text.splitlines()
        if "==" in line and not line.startswith((" ", "#", "-"))
    ]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _auditor() -> Path | None:
    """pip-audit, set up at the first run; None where that cannot be done."""
    program = HOME / ("Scripts" if os.name == "nt" else "bin") / "pip-audit"
    if not program.exists():
        venv.create(HOME, with_pip=True, clear=True)
        pip = [str(program.with_name("python")), "-m", "pip", "install", "--quiet", AUDITOR]
        done = subprocess.run(pip, capture_output=True, check=False)  # noqa: S603 - our own
        if done.returncode:
            return None
    return program


def _ask(program: Path, source: tuple[str, ...], names: list[str]) -> Audit:
    command = [str(program), "--requirement", str(PINS), "--require-hashes", "--disable-pip"]
    options = [*source, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # noqa: S603 - our own environment
            [*command, *options], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return read("", names)
    return read(done.stdout, names)


def main() -> int:
    """Ask each source until all is checked."""
    names = pinned(PINS.read_text())
    program = _auditor()
    audits = [Audit(unchecked=dict.fromkeys(names, "pip-audit could not be installed"))]
    for source in SOURCES if program else ():
        assert program
        audits.append(_ask(program, source, names))
        if not together(audits).unchecked:
            break
    lines, code = verdict(together(audits), strict=os.environ.get("STRICT") == "1")
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
