"""The programs that build and run the image, and what is missing of them here."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.world.processes import ROOT

WORK: Final = ROOT / ".image"
"""Where the images, the base and the figures are kept: git ignores it, `make clean` removes it."""

_PROGRAMS: Final = ("buildah", "debootstrap", "runc", "ip")
_PATIENCE_SECONDS: Final = 600.0
_SHOWN_LINES: Final = 30


class Failed(Exception):
    """A program failed; the message holds its last lines."""


def missing() -> list[str]:
    """What keeps this machine from building and starting the image, a phrase each."""
    if sys.platform != "linux":
        return ["Linux"]
    lacking = [] if os.geteuid() == 0 else ["root"]
    return lacking + [f"the program {name}" for name in _PROGRAMS if not shutil.which(name)]


def run(
    *command: str | Path,
    environ: Mapping[str, str] | None = None,
    timeout_seconds: float = _PATIENCE_SECONDS,
) -> str:
    """What it prints to stdout. Raises Failed where it fails, or takes too long."""
    words = [str(part) for part in command]
    try:
        done = subprocess.run(  # noqa: S603 - the commands are ours
            words,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{words[0]} did not end within {timeout_seconds:g} s") from None
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:])
        raise Failed(f"{' '.join(words[:6])} … exit code {done.returncode}:\n{lines}")
    return done.stdout


def buildah(*arguments: str | Path, timeout_seconds: float = _PATIENCE_SECONDS) -> str:
    """Run buildah on a storage of our own; what it prints. Raises Failed."""
    return run(
        "buildah",
        "--root",
        WORK / "storage",
        "--runroot",
        WORK / "run",
        "--storage-driver",
        "overlay",
        *arguments,
        timeout_seconds=timeout_seconds,
    ).strip()


def let_go() -> None:
    """Unmount all that a run, even one that was killed, has mounted: `make clean` can remove it."""
    storage = WORK / "storage" / "overlay"
    if storage.exists():
        buildah("rm", "--all")
        if storage.is_mount():
            run("umount", storage)
