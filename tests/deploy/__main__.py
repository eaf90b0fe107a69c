"""`make deploy-test`: renders all manifests, and has them checked by what others check with.

With `CI=true` a machine that cannot do it fails; elsewhere it says what is missing, and skips that.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import yaml

from tests.deploy.render import ALL, Object, build, rendered
from tests.deploy.tools import WORK, Failed, bring, run
from tests.world.processes import ROOT

_VERSIONS: Final = ("1.33", "1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes."""
_CUSTOM: Final = ("keda.sh", "monitoring.coreos.com")
_RENDERED: Final = WORK / "rendered"
_TOOLS: Final = ROOT / ".venv-deploy/bin"
_NODE: Final = WORK / "custom"
_CHECKOV: Final = ROOT / "deploy/.checkov.yaml"
_begun = time.monotonic()


def main() -> int:
    """The exit code."""
    try:
        for name in ("kustomize", "promtool"):
            _say(f"{name}: {bring(name)}")
        code = _pytest(sys.argv[1:])
        files, custom = _render()
        steps = [_schemas(files), _custom(custom), _checkov(files)]
    except Failed as failure:
        return _lacking(str(failure))
    return code or int(not all(steps))


def _render() -> tuple[list[Path], list[Path]]:
    """Files of built-in resources and of custom ones."""
    shutil.rmtree(_RENDERED, ignore_errors=True)
    _RENDERED.mkdir(parents=True)
    whole = {name: rendered(name) for name in ALL}
    whole["monitoring"] = build(ROOT / "deploy/monitoring")
    files, custom = [], []
    for name, objects in whole.items():
        ours = [o for o in objects if o["apiVersion"].partition("/")[0] in _CUSTOM]
        files += _write(name, [o for o in objects if o not in ours])
        custom += _write(f"{name}.custom", ours)
    _say(f"rendered: {', '.join(whole)}")
    return files, custom


def _write(name: str, objects: Sequence[Object]) -> list[Path]:
    if not objects:
        return []
    path = _RENDERED / f"{name}.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return [path]


def _schemas(files: Sequence[Path]) -> bool:
    """Against Kubernetes' own schemas, in which what is not known is an error."""

    def check(version: str, paths: Sequence[Path]) -> Callable[[], str]:
        program = str(_TOOLS / "kubernetes-validate")
        return partial(run, [program, "--strict", "-k", version, *map(str, paths)])

    found = [_passes(f"Kubernetes {version}", check(version, files)) for version in _VERSIONS]
    broken = _broken("Deployment", lambda spec: spec.update({"replica": 3}))
    return _fails("a misspelt field", check(_VERSIONS[-1], [broken])) and all(found)


def _custom(files: Sequence[Path]) -> bool:
    """Against the validators of their own projects' schemas, which let unknown fields pass."""
    if not shutil.which("npm"):
        return _lacking("the custom resources were not validated: npm is missing") == 0
    shutil.copytree(ROOT / "tests/deploy/custom", _NODE, dirs_exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved"]
    run(["npm", "ci", *options], cwd=_NODE)

    def check(paths: Sequence[Path]) -> str:
        return run(["node", "validate.mjs", *map(str, paths)], cwd=_NODE)

    ok = _passes("custom resources", lambda: check(files))
    broken = _broken("ScaledObject", lambda spec: spec.update({"maxReplicaCount": "many"}))
    return ok and _fails("a wrong type", lambda: check([broken]))


def _checkov(files: Sequence[Path]) -> bool:
    """By what others have learned; each exception is still one."""
    names = [part for path in files for part in ("--file", str(path))]
    program = str(_TOOLS / "checkov")
    ok = _passes("checkov", lambda: run([program, "--config-file", str(_CHECKOV), *names]))
    skipped = re.findall(r"^ +- (CKV\w+)$", _CHECKOV.read_text(), re.MULTILINE)
    common = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    for check in skipped:
        only = [program, *common, "--check", check, *names]
        ok = _fails(f"checkov's {check}", partial(run, only)) and ok
    return ok and bool(skipped)


def _broken(kind: str, spoil: Callable[[dict[str, object]], None]) -> Path:
    """A file with one object of that kind, spoilt."""
    objects = [o for o in rendered("production-keda") if o["kind"] == kind]
    spoilt = yaml.safe_load(yaml.safe_dump(objects[0]))
    spoil(spoilt["spec"])
    (path,) = _write(f"broken-{kind}", [spoilt])
    return path


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        check()
    except Failed as failure:
        _say(f"FAILED: {name}: {failure}")
        return False
    _say(f"ok: {name}")
    return True


def _fails(name: str, check: Callable[[], str]) -> bool:
    """A check that could not fail would be none."""
    try:
        check()
    except Failed:
        _say(f"ok: {name} is found")
        return True
    _say(f"FAILED: {name} is not found")
    return False


def _lacking(what: str) -> int:
    is_failure = os.environ.get("CI") == "true"
    _say(f"{'FAILED' if is_failure else 'SKIPPED'}: {what}")
    return int(is_failure)


def _pytest(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "tests/deploy", "-p", "no:cacheprovider", *arguments]
    return subprocess.call(command, cwd=ROOT)  # noqa: S603 - ours


def _say(text: str) -> None:
    sys.stdout.write(f"[{time.monotonic() - _begun:5.1f} s] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
