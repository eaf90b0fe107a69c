"""A base image that needs no registry: Debian with its Python, made by debootstrap.

It has pip and more that must not run in production, as the official Python image does.
"""

import shutil
from pathlib import Path
from typing import Final

from tests.image.tools import Failed, buildah, run

_SUITE: Final = "bookworm"
_PACKAGES: Final = "python3,python3-pip,ca-certificates"
NAME: Final = f"localhost/tollwatch-base:{_SUITE}"

# What debootstrap took from this machine, or leaves behind.
_LEFT: Final = ("etc/resolv.conf", "etc/hostname", "var/cache/apt", "var/lib/apt", "dev")


def ensure() -> str:
    """The base's name; it is made where the storage does not hold it yet. Raises Failed."""
    if NAME.partition(":")[0] not in buildah("images", "--format", "{{.Name}}"):
        container = buildah("from", "scratch")
        _fill(Path(buildah("mount", container)))
        buildah("umount", container)
        buildah("commit", "--quiet", "--timestamp", "0", "--rm", container, NAME)
    return NAME


def _fill(root: Path) -> None:
    run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, root, _mirror())
    for name in _LEFT:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
            path.mkdir()
        else:
            path.unlink(missing_ok=True)


def _mirror() -> str:
    """Where this machine's own apt gets Debian's main archive from. Raises Failed."""
    targets = run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(LABEL)")
    for line in targets.splitlines():
        site, codename, *label = line.split()
        if label == ["Debian"] and codename == _SUITE:
            return site
    raise Failed(f"apt has no source of Debian {_SUITE}: run apt-get update")
