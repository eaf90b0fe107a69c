"""Builds the image with buildah, and reads what was built."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from service import __version__
from tests.image.tools import WORK, Failed, buildah, run
from tests.world.processes import ROOT

_PIP_OPTIONS: Final = ("index-url", "extra-index-url", "trusted-host", "timeout")
_CERTIFICATE: Final = "cert"
_CERTIFICATE_INSIDE: Final = "/run/secrets/pip.pem"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: what it holds unpacked, and what a registry stores of it."""

    digest: str
    size_bytes: int
    packed_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. Its configuration is that of the OCI image specification."""

    name: str
    digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def environ(self) -> dict[str, str]:
        """The environment that it brings."""
        pairs = (entry.partition("=") for entry in self.config["Env"])
        return {name: value for name, _, value in pairs}


def build(name: str, target: str, base: str, *, cached: bool, context: Path = ROOT) -> Image:
    """Build one target anew, or on top of what is there. Raises Failed."""
    with tempfile.TemporaryDirectory() as directory:
        buildah(
            "build",
            "--quiet",
            "--isolation=chroot",
            "--layers",
            *([] if cached else ["--no-cache"]),
            f"--timestamp={commit_seconds()}",
            f"--target={target}",
            f"--build-arg=BASE_IMAGE={base}",
            f"--build-arg=VERSION={__version__}",
            f"--build-arg=REVISION={run('git', '-C', ROOT, 'rev-parse', 'HEAD').strip()}",
            *pip_secrets(Path(directory)),
            f"--tag={name}",
            f"--file={ROOT / 'Dockerfile'}",
            context,
        )
    return inspect(name)


def inspect(name: str) -> Image:
    """What was built under that name. Raises Failed."""
    found: Any = msgspec.json.decode(buildah("inspect", "--type", "image", name))
    stored = msgspec.json.decode(found["Manifest"], type=dict[str, Any])["layers"]
    packed = _packed(name)
    layers = zip(found["OCIv1"]["rootfs"]["diff_ids"], stored, packed, strict=True)
    return Image(
        name,
        found["FromImageID"],
        found["OCIv1"]["config"],
        tuple(Layer(digest, a["size"], b["size"]) for digest, a, b in layers),
    )


def commit_seconds() -> int:
    """SOURCE_DATE_EPOCH, if it is set; otherwise when the checked out commit was made."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given or run("git", "-C", ROOT, "log", "-1", "--format=%ct"))


@contextlib.contextmanager
def mounted(name: str) -> Iterator[Path]:
    """The image's files, for as long as this is open."""
    container = buildah("from", name)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("umount", container)
        buildah("rm", container)


def pip_secrets(directory: Path) -> Sequence[str]:
    """This machine's way to its package index, as secrets of the build: no layer keeps them."""
    options = _pip_options()
    certificate = options.pop(_CERTIFICATE, "")
    lines = ["[global]", *(f"{name} = {value}" for name, value in options.items())]
    secrets = []
    if certificate:
        lines.append(f"{_CERTIFICATE} = {_CERTIFICATE_INSIDE}")
        secrets.append(f"--secret=id=pip.pem,src={certificate}")
    written = directory / "pip.conf"
    written.write_text("\n".join([*lines, ""]))
    return [*secrets, f"--secret=id=pip.conf,src={written}"]


def _pip_options() -> dict[str, str]:
    """The options that say where packages are; those that name files of this machine are not."""
    options = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        quoted = value.strip().strip("'\"")
        if (name in _PIP_OPTIONS and "file:" not in quoted) or name == _CERTIFICATE:
            options[name] = " ".join(quoted.split("\\n"))
    return options


def _packed(name: str) -> list[dict[str, Any]]:
    """The layers as they would be pushed."""
    directory = WORK / "oci"
    shutil.rmtree(directory, ignore_errors=True)
    buildah("push", "--quiet", name, f"oci:{directory}:image")
    index: Any = msgspec.json.decode((directory / "index.json").read_bytes())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest: Any = msgspec.json.decode((directory / "blobs" / "sha256" / digest).read_bytes())
    shutil.rmtree(directory)
    layers: list[dict[str, Any]] = manifest["layers"]
    if not layers:
        raise Failed(f"{name} has no layers")
    return layers
