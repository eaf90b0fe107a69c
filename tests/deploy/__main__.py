"""`make deploy-lint`: the manifests against schemas and by checkov, the alert rules by promtool.

`--environment` is where schemas and checkov are installed: they want other versions of much than
tollwatch does. With `CI=true` a machine that cannot bring promtool fails; elsewhere it says so.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from tests.deploy.render import (
    DEPLOY,
    PATHS,
    Manifest,
    container,
    kustomize,
    of_kind,
    render,
    workloads,
)
from tests.deploy.tools import Failed, bring_promtool
from tests.world.processes import ROOT

_CONFIG: Final = DEPLOY / "checkov.yaml"


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-deploy")
    programs = parser.parse_args().environment / "bin"
    with tempfile.TemporaryDirectory() as folder:
        wrong = not _passes(programs, _written(Path(folder)))
        for spoilt in _spoilt(Path(folder)):
            if _passes(programs, [spoilt]):
                sys.stdout.write(f"{spoilt.stem} was not found.\n")
                wrong = True
    wrong = not _rules() or wrong
    sys.stdout.write("FAILED\n" if wrong else "The manifests are as they must be.\n")
    return int(wrong)


def _written(folder: Path) -> list[Path]:
    files = []
    for name, path in PATHS.items():
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(kustomize(path))
    return files


def _spoilt(folder: Path) -> list[Path]:
    """What one check each must find, or it is none; everything else is as it was."""

    def write(name: str, spoil: Callable[[Manifest], None], kind: str = "") -> Path:
        of = {"ScaledObject": "keda", "": "production"}.get(kind, "monitoring")
        objects = yaml.safe_load(yaml.safe_dump(render(of)))
        spoil(of_kind(objects, kind)[0] if kind else workloads(objects)["web"])
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        return path

    def misspell(thing: Manifest) -> None:
        thing["spec"]["mispelt"] = 3

    def grant(web: Manifest) -> None:
        container(web)["securityContext"]["allowPrivilegeEscalation"] = True

    custom = ("ScaledObject", "PodMonitor", "PrometheusRule")
    return [
        write("a right too much", grant),
        write("a misspelt field", misspell),
        *(write(f"a misspelt field of a {kind}", misspell, kind) for kind in custom),
    ]


def _passes(programs: Path, files: list[Path]) -> bool:
    python, checkov = programs / "python", programs / "checkov"
    codes = [_run(python, "-m", "tests.deploy.schemas", *files)]
    codes += [_run(python, checkov, "--config-file", _CONFIG, "--file", file) for file in files]
    return not any(codes)


def _rules() -> bool:
    try:
        os.environ["PROMTOOL"] = str(bring_promtool())
    except Failed as failure:
        is_failure = os.environ.get("CI") == "true"
        word = "FAILED" if is_failure else "SKIPPED"
        sys.stdout.write(f"{word}: the alert rules were not tested: {failure}\n")
        return not is_failure
    return not _run(sys.executable, "-m", "pytest", "-q", "tests/deploy/test_promtool.py")


def _run(*command: str | Path) -> int:
    return subprocess.call(list(map(str, command)), cwd=ROOT)  # noqa: S603 - ours


if __name__ == "__main__":
    sys.exit(main())
