"""The alert rules before Prometheus' own judge: `make deploy-lint` brings it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy import tools
from tests.deploy.monitoring import MONITORING, rules

TESTS = sorted((MONITORING / "tests").glob("*.yaml"))


@pytest.fixture
def promtool() -> str:
    """Prometheus' own judge of rules. `make test` alone does without."""
    found = tools.promtool()
    return str(found) if found else pytest.skip("`make deploy-lint` brings promtool")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The rules as promtool reads them, with their tests beside them."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules(), sort_keys=False))
    for file in TESTS:
        shutil.copy(file, tmp_path)
    return tmp_path


def _run(promtool: str, place: Path, *arguments: str) -> None:
    command = [promtool, *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid(promtool: str, place: Path) -> None:
    """Prometheus would load them, and promtool's lint has nothing to say."""
    _run(promtool, place, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")


@pytest.mark.parametrize("name", [file.name for file in TESTS])
def test_each_alert_fires_and_keeps_quiet_when_it_should(
    promtool: str, place: Path, name: str
) -> None:
    """The rules' own tests hold."""
    _run(promtool, place, "test", "rules", name)
