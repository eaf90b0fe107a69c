"""The programs that check the manifests, of which none is left to chance: kustomize above all.

A kubectl that happens to be installed may render something else: Debian 12's knows no components.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.world.processes import ROOT

WORK: Final = ROOT / ".deploy"
"""Where the programs are kept: git ignores it, `make clean` removes it."""
_PATIENCE_SECONDS: Final = 300.0
_SUITE: Final = "trixie"
"""Debian's, in which kustomize is a package. The program needs no more than Debian 12's libc."""
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Failed(Exception):
    """A program failed; the message holds its last lines."""


def kustomize() -> Path | None:
    """The program; None where it was not brought yet. `KUSTOMIZE` may name another."""
    named = os.environ.get("KUSTOMIZE")
    path = Path(named) if named else WORK / "usr/bin/kustomize"
    return path if path.exists() else None


def bring() -> Path:
    """kustomize, from where this machine's apt gets its packages, signed by Debian. Raises Failed.

    Nothing is installed: the package is unpacked into a directory of ours.
    """
    found = kustomize()
    if found:
        return found
    if not shutil.which("apt-get"):
        raise Failed("kustomize is missing and there is no apt-get: set KUSTOMIZE to a version 5")
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        options = _apt(Path(directory))
        run(["apt-get", *options, "update"])
        run(["apt-get", *options, "download", "kustomize"], cwd=Path(directory))
        (package,) = Path(directory).glob("kustomize_*.deb")
        run(["dpkg", "-x", str(package), str(WORK)])
    return WORK / "usr/bin/kustomize"


def run(command: Sequence[str], *, cwd: Path = ROOT) -> str:
    """What it prints to stdout. Raises Failed where it fails, or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands are ours
            command, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise Failed(f"{' '.join(command[:4])} … exit code {done.returncode}:\n{lines}")
    return done.stdout


def _apt(directory: Path) -> list[str]:
    """Options with which apt knows only that suite, and keeps all it knows in the directory."""
    targets = run(["apt-get", "indextargets", "--format", "$(SITE) $(LABEL)"]).splitlines()
    debian = next((site for site, *label in map(str.split, targets) if label == ["Debian"]), None)
    if debian is None:
        raise Failed("apt knows no Debian archive: set KUSTOMIZE to a version 5 of kustomize")
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
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
