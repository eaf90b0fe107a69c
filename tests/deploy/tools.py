"""promtool, which judges the alert rules: it is on no package index, so it comes from Debian's."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.world.processes import ROOT

_PATH: Final = ROOT / ".deploy/promtool"
"""Git ignores it, `make clean` removes it."""
_PACKAGE: Final = "prometheus"
_SUITE: Final = "bookworm"
"""Debian 12's package holds promtool, the next one's does not."""
_PATIENCE_SECONDS: Final = 300.0
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Failed(Exception):
    """It cannot be had here; the message says why."""


def promtool() -> Path | None:
    """The one that `PROMTOOL` names. `make test` names none: these tests take long."""
    named = os.environ.get("PROMTOOL")
    return Path(named) if named else None


def bring_promtool() -> Path:
    """From where this machine's apt gets its packages, signed by Debian. Raises Failed.

    Only unpacked: installed, the package would start a server on the web process' admin port.
    """
    found = promtool() or _PATH
    if found.exists():
        return found
    if not shutil.which("apt-get"):
        raise Failed("promtool is missing, and there is no apt-get: let PROMTOOL name it")
    _PATH.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_PATH.parent) as name:
        directory = Path(name)
        options = _apt(directory)
        _run(["apt-get", *options, "update"])
        _run(["apt-get", *options, "download", _PACKAGE], cwd=directory)
        (archive,) = directory.glob(f"{_PACKAGE}_*.deb")
        _run(["dpkg", "-x", str(archive), str(directory / "unpacked")])
        shutil.move(directory / "unpacked/usr/bin/promtool", _PATH)
    return _PATH


def _apt(directory: Path) -> list[str]:
    """Options with which apt knows only that suite, and keeps all it knows in the directory."""
    targets = _run(["apt-get", "indextargets", "--format", "$(SITE) $(LABEL)"]).splitlines()
    debian = next((site for site, *label in map(str.split, targets) if label == ["Debian"]), None)
    if debian is None:
        raise Failed("apt knows no Debian archive: let PROMTOOL name the program")
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True)
    source = directory / "sources.list"
    source.write_text(f"deb [signed-by={_KEYRING}] {debian} {_SUITE} main\n")
    given = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "root",
    }
    return [part for name, value in given.items() for part in ("-o", f"{name}={value}")]


def _run(command: Sequence[str], *, cwd: Path = ROOT) -> str:
    """What it prints to stdout. Raises Failed where it fails, or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands are ours
            command, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise Failed(f"{' '.join(command[:2])} … exit code {done.returncode}:\n{lines}")
    return done.stdout
