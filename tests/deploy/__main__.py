"""`make deploy-lint`: every overlay against Kubernetes' schemas, and by checkov. No network needed.

`--environment` is where those are installed: they want other versions of much than tollwatch does.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.deploy.render import DEPLOY, PATHS, kustomize
from tests.world.processes import ROOT

_CONFIG: Final = DEPLOY / "checkov.yaml"


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-deploy")
    programs = parser.parse_args().environment / "bin"
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, path in PATHS.items():
            files.append(Path(folder, f"{name}.yaml"))
            files[-1].write_text(kustomize(path))
        python, checkov = programs / "python", programs / "checkov"
        codes = [_run(python, "-m", "tests.deploy.schemas", *files)]
        codes += [_run(python, checkov, "--config-file", _CONFIG, "--file", file) for file in files]
    sys.stdout.write("FAILED\n" if any(codes) else "The manifests are as they must be.\n")
    return int(any(codes))


def _run(*command: str | Path) -> int:
    return subprocess.call(list(map(str, command)), cwd=ROOT)  # noqa: S603 - ours


if __name__ == "__main__":
    sys.exit(main())
