"""What reaches a build: `.dockerignore`, as the builder itself understands it."""

import shutil
from pathlib import Path
from typing import Final

from tests.image.build import mounted
from tests.image.tools import buildah, run
from tests.world.processes import ROOT

_WANTED: Final = (
    "service",
    "workers",
    "tests/__init__.py",
    "tests/world",
    "requirements/run.txt",
    "requirements/demo.txt",
)
_UNWANTED: Final = (
    ".env",
    ".git/config",
    ".netrc",
    "data/appendonly.aof",
    "service/.env",
    "service/__pycache__/app.cpython-311.pyc",
    "workers/notes/.secret",
    "tests/world/.env",
    "id_ed25519",
    "policy.yaml",
)


def test_only_what_is_built_reaches_a_build(tmp_path: Path) -> None:
    """Of a full checkout with secrets, history, data and tests, only sources and pins are sent."""
    _copy(run("git", "-C", ROOT, "ls-files").splitlines(), tmp_path)
    for name in _UNWANTED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a secret")
    (tmp_path / "Everything").write_text("FROM scratch\nCOPY . /\n")
    name = "localhost/tollwatch-context"
    file = tmp_path / "Everything"
    buildah("build", "--quiet", "--isolation=chroot", f"--file={file}", f"--tag={name}", tmp_path)
    with mounted(name) as root:
        sent = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert sent == set(run("git", "-C", ROOT, "ls-files", *_WANTED).splitlines())


def _copy(names: list[str], target: Path) -> None:
    for name in names:
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
