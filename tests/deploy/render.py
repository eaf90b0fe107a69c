"""The manifests as a cluster would get them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from tests.deploy.tools import WORK, Failed, program, run
from tests.world.processes import ROOT

Object: TypeAlias = Mapping[str, Any]

OVERLAYS: Final = ("demo", "staging", "production")
ALL: Final = (*OVERLAYS, "production-keda")
"""With production as it is on KEDA, which a comment in it offers."""
_ON_KEDA: Final = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: tollwatch
resources: [../../deploy/overlays/production]
components: [../../deploy/components/keda]
"""


@lru_cache
def rendered(name: str) -> tuple[Object, ...]:
    """All objects of an overlay. Raises Failed."""
    if name != "production-keda":
        return build(ROOT / "deploy/overlays" / name)
    directory = WORK / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kustomization.yaml").write_text(_ON_KEDA)
    return build(directory)


def build(directory: Path) -> tuple[Object, ...]:
    """All objects of a kustomization. Raises Failed."""
    kustomize = program("kustomize")
    if kustomize is None:
        raise Failed("kustomize is missing: `make deploy-test` brings it")
    return tuple(yaml.safe_load_all(run([str(kustomize), "build", str(directory)])))


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def workloads(objects: Sequence[Object]) -> list[Object]:
    """What makes pods."""
    return of_kind(objects, "Deployment", "StatefulSet")


def containers(objects: Sequence[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Each container with the name of its workload and the pod's description."""
    for workload in workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield workload["metadata"]["name"], pod, container


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses what has these labels. Raises ValueError for the rest."""
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown:
        raise ValueError(f"not a label selector: {sorted(unknown)}")
    wanted = selector.get("matchLabels", {})
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions", ()))


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case other:
            raise ValueError(f"operator {other}")
