"""The manifests as kustomize renders them, for all tests that stand on them."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.world.processes import ROOT

DEPLOY: Final = ROOT / "deploy"
PATHS: Final = {
    "demo": DEPLOY / "overlays/demo",
    "staging": DEPLOY / "overlays/staging",
    "production": DEPLOY / "overlays/production",
    # production with the optional component
    "keda": ROOT / "tests/deploy/keda",
    "monitoring": DEPLOY / "monitoring",
}
"""What is rendered, by name."""

Manifest = dict[str, Any]


class CannotRender(Exception):
    """kustomize refuses; the message is its own."""


def kustomize(path: Path) -> str:
    """What `kubectl apply -k` would send, as YAML. Raises CannotRender."""
    done = subprocess.run(  # noqa: S603 - ours
        [_kubectl(), "kustomize", path], capture_output=True, text=True, check=False
    )
    # Whatever it warns of (a field that will go, a patch without effect) is to be mended.
    if done.returncode or done.stderr:
        raise CannotRender(done.stderr.strip())
    return done.stdout


def _kubectl() -> str:
    """The one that was installed beside this Python, and no other: old ones know no components."""
    found = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if found is None:
        raise CannotRender("kubectl is not in this environment: make test installs it")
    return found


def render(name: str) -> list[Manifest]:
    """The objects of what `PATHS` names so; rendered once in a process. Do not change them."""
    return _rendered(PATHS[name])


@functools.cache
def _rendered(path: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(kustomize(path)))


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Those of the kinds, in order."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of that kind and name. Raises KeyError where there is none."""
    for manifest in of_kind(manifests, kind):
        if manifest["metadata"]["name"] == name:
            return manifest
    raise KeyError(f"{kind} {name}")


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    """What runs pods, by its component: web, worker, redis, simulator."""
    return {
        workload["metadata"]["labels"]["app.kubernetes.io/component"]: workload
        for workload in of_kind(manifests, "Deployment", "StatefulSet")
    }


def pod(workload: Manifest) -> Manifest:
    """The pod's spec."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    """The pod's only container."""
    (only,) = pod(workload)["containers"]
    found: Manifest = only
    return found


def environment(workload: Manifest, manifests: list[Manifest]) -> dict[str, str]:
    """The container's variables, ConfigMaps resolved; a Secret is only ever named by a path."""
    values: dict[str, str] = {}
    for source in container(workload).get("envFrom", ()):
        values |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container(workload).get("env", ()):
        values[variable["name"]] = variable["value"]
    return values


def secret_files(workload: Manifest) -> dict[str, tuple[str, str]]:
    """Which files the pod has from Secrets: path → name and key of the Secret."""
    mounted = container(workload).get("volumeMounts", ())
    mounts = {mount["name"]: mount["mountPath"] for mount in mounted}
    return {
        f"{mounts[volume['name']]}/{item['path']}": (volume["secret"]["secretName"], item["key"])
        for volume in pod(workload).get("volumes", ())
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
