"""What is in the image, and what is not."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from service import __version__
from tests.image.build import Image
from tests.image.container import Container
from tests.world.processes import ROOT

_USER: Final = 10_001
_TOOLS: Final = re.compile(
    r"(python3?-)?(pip|uv|apt|dpkg|rpm|gcc|g\+\+|cc|c\+\+|cpp|clang|ld|as|make|perl|git|curl|wget)"
    r"(-.*|[\d.]*)"
)
_UNCHECKED: Final = b"\x01\x00\x00\x00"


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """Every file and directory of the image."""
    return list(root.rglob("*"))


def test_it_runs_as_a_number_and_starts_without_a_shell(image: Image) -> None:
    """The user is a number other than 0, the command a list of words, SIGTERM its end."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["User"])
    assert image.config["Cmd"] == ["python", "-m", "service"]
    assert "Entrypoint" not in image.config
    assert image.config["StopSignal"] == "SIGTERM"


def test_it_says_what_it_was_built_from(image: Image) -> None:
    """The labels hold the version, the commit and the licence."""
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in image.config["Labels"].items()}
    assert labels["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
    assert labels["licenses"] == "MIT"


def test_dependencies_are_a_layer_of_their_own(image: Image) -> None:
    """The system, the dependencies, tollwatch: three layers."""
    assert len(image.layers) == 3


def test_no_file_lends_rights(files: list[Path]) -> None:
    """There is no setuid and no setgid file."""
    assert [path for path in files if _is_file(path) and path.lstat().st_mode & 0o6000] == []


def test_the_user_can_write_to_nothing(files: list[Path], root: Path) -> None:
    """Nothing is the user's own or writable for all, but for the usual temporary directories."""
    writable = {
        str(path.relative_to(root))
        for path in files
        if not path.is_symlink() and _is_writable(path.lstat())
    }
    assert writable <= {"tmp", "var/tmp", "run/lock"}


def test_no_package_can_be_installed(root: Path, image: Image) -> None:
    """Neither Python has an installer."""
    code = (
        "import importlib.util as u; "
        "print(*filter(u.find_spec, ('pip', 'setuptools', 'wheel', 'ensurepip')))"
    )
    for python in ("python", _system_python(root)):
        container = Container("python", root, [python, "-c", code], image.environ)
        container.start()
        assert (container.wait(), container.lines) == (0, [""])


def test_there_is_no_compiler_and_no_installer(root: Path) -> None:
    """No program on the path builds or fetches anything."""
    assert [name for name in _programs(root) if _TOOLS.fullmatch(name)] == []


def test_only_the_product_is_in_it(root: Path) -> None:
    """Of tollwatch there are the two packages and the command line: no tests, nothing else."""
    app = root / "app"
    assert {path.name for path in app.iterdir()} == {"bin", "service", "venv", "workers"}
    for package in ("service", "workers"):
        assert _sources(app / package) == _sources(ROOT / package)


def test_only_pinned_packages_are_in_it(root: Path) -> None:
    """The distributions are those of requirements/run.txt, and no others."""
    text = (ROOT / "requirements" / "run.txt").read_text()
    pinned = {
        (_plain(name), version)
        for name, version in re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^ ;\\]+)", text, re.MULTILINE)
    }
    installed = set()
    for path in root.glob("app/venv/lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        installed.add((_plain(name), version))
    assert installed <= pinned
    assert {"arq", "uvicorn", "redis"} <= {name for name, _ in installed}


def test_nothing_is_compiled_at_a_start(root: Path) -> None:
    """Every module has its bytecode, which is valid whatever the time stamps of the files are."""
    for directory in (root / "app", _standard_library(root)):
        compiled = list(directory.rglob("*.pyc"))
        assert all(path.read_bytes()[4:8] == _UNCHECKED for path in compiled)
        modules = [path for path in directory.rglob("*.py") if "-" not in path.parent.name]
        assert len(compiled) > 0.98 * len(modules) > 0


def test_nothing_of_the_building_machine_is_in_it(root: Path) -> None:
    """No package index, mirror, resolver or cache came along."""
    for name in ("etc/pip.conf", "run/secrets/pip.pem", "etc/apt", "root/.cache", "build"):
        assert not (root / name).exists()
    resolver = root / "etc/resolv.conf"
    assert not resolver.exists() or resolver.read_text() == ""
    assert list((root / "var/log").iterdir()) == list((root / "var/cache").iterdir()) == []


def test_the_demonstration_has_the_world_and_no_other_tests(demo_root: Path) -> None:
    """Beside the product the demonstration's image has the simulated outside only."""
    tests = demo_root / "app" / "tests"
    assert {path.name for path in tests.iterdir()} - {"__pycache__"} == {"__init__.py", "world"}
    assert _sources(tests / "world") == _sources(ROOT / "tests" / "world")


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_writable(status: os.stat_result) -> bool:
    own = _USER in {status.st_uid, status.st_gid}
    return own or bool(status.st_mode & stat.S_IWOTH)


def _programs(root: Path) -> Iterator[str]:
    for name in ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "app/bin"):
        yield from (path.name for path in (root / name).glob("*"))
    yield from (path.name for path in root.glob("app/venv/bin/*"))


def _system_python(root: Path) -> str:
    config = (root / "app/venv/pyvenv.cfg").read_text()
    return f"{re.findall(r'^home = (.*)$', config, re.MULTILINE)[0]}/python3"


def _standard_library(root: Path) -> Path:
    (found,) = [*root.glob("usr/lib/python3.*/os.py"), *root.glob("usr/local/lib/python3.*/os.py")]
    return found.parent


def _sources(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.py")}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
