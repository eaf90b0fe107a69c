"""The programs that check the manifests, of which none is left to chance.

A kubectl that happens to be installed may render something else: Debian 12's knows no
components. Neither kustomize nor promtool is on a package index of Python's or Node's.
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
_PACKAGES: Final = {"kustomize": ("kustomize", "trixie"), "promtool": ("prometheus", "bookworm")}
"""By program: the package that holds it, and a suite of Debian's that has that; neither needs a
newer libc than Debian 12's."""
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Failed(Exception):
    """A program failed; the message holds its last lines."""


def program(name: str) -> Path | None:
    """Kustomize or promtool; None where it was not brought yet. `KUSTOMIZE` may name another."""
    named = os.environ.get(name.upper())
    path = Path(named) if named else WORK / "usr/bin" / name
    return path if path.exists() else None


def bring(name: str) -> Path:
    """The program, from where this machine's apt gets its packages, signed by Debian.

    Nothing is installed: the package is unpacked into a directory of ours. Raises Failed.
    """
    found = program(name)
    if found:
        return found
    if not shutil.which("apt-get"):
        raise Failed(f"{name} is missing and there is no apt-get: let {name.upper()} name it")
    package, suite = _PACKAGES[name]
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        options = _apt(Path(directory), suite)
        run(["apt-get", *options, "update"])
        run(["apt-get", *options, "download", package], cwd=Path(directory))
        (archive,) = Path(directory).glob(f"{package}_*.deb")
        run(["dpkg", "-x", str(archive), str(Path(directory) / "unpacked")])
        (WORK / "usr/bin").mkdir(parents=True, exist_ok=True)
        shutil.move(Path(directory) / "unpacked/usr/bin" / name, WORK / "usr/bin" / name)
    return WORK / "usr/bin" / name


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


def _apt(directory: Path, suite: str) -> list[str]:
    """Options with which apt knows only that suite, and keeps all it knows in the directory."""
    targets = run(["apt-get", "indextargets", "--format", "$(SITE) $(LABEL)"]).splitlines()
    debian = next((site for site, *label in map(str.split, targets) if label == ["Debian"]), None)
    if debian is None:
        raise Failed("apt knows no Debian archive")
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    source = directory / "sources.list"
    source.write_text(f"deb [signed-by={_KEYRING}] {debian} {suite} main\n")
    given = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "root",
    }
    return [part for name, value in given.items() for part in ("-o", f"{name}={value}")]
