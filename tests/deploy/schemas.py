"""Rendered manifests against the schemas of Kubernetes and the operators, for `make deploy-lint`.

`python -m tests.deploy.schemas FILE…`, in the environment that holds the schemas. Strict: a field
that a schema does not know is a fault, since the API server would drop it, or refuse it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
from pydantic import ValidationError

VERSIONS: Final = ("1.33", "1.34", "1.35", "1.36", "1.37")
_OPERATORS: Final = {
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
}


def faults(manifest: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one object, a line each."""
    model = _OPERATORS.get((manifest["apiVersion"], manifest["kind"]))
    yield from _custom(manifest, model) if model else _builtin(manifest)


def _builtin(manifest: dict[str, Any]) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"Kubernetes {version} does not know {manifest['apiVersion']} {manifest['kind']}"
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"


def _custom(manifest: dict[str, Any], model: Any) -> Iterator[str]:
    try:
        read = model.model_validate(manifest)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            yield f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        return
    # The models take unknown fields, and drop them.
    kept = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    yield from (f"{path}: unknown" for path in _lost(manifest, kept, ""))


def _lost(given: Any, kept: Any, path: str) -> Iterator[str]:
    """The paths that are in `given` and not in `kept`."""
    match given, kept:
        case dict(), dict():
            for key, value in given.items():
                here = f"{path}.{key}".lstrip(".")
                yield from _lost(value, kept[key], here) if key in kept else (here,)
        case list(), list():
            for number, pair in enumerate(zip(given, kept, strict=True)):
                yield from _lost(*pair, f"{path}.{number}")


def main(paths: list[str]) -> int:
    """The command line; the exit code."""
    found, checked = 0, 0
    for path in paths:
        for manifest in yaml.safe_load_all(Path(path).read_text()):
            checked += 1
            for fault in faults(manifest):
                found += 1
                name = f"{manifest['kind']} {manifest['metadata']['name']}"
                sys.stdout.write(f"{Path(path).stem}: {name}: {fault}\n")
    sys.stdout.write(
        f"{checked} objects against Kubernetes {', '.join(VERSIONS)}: {found} faults\n"
    )
    return int(found > 0 or checked == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
