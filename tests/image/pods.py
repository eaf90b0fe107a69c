"""A workload's pod, read from rendered manifests as a kubelet reads it. Pure.

Only what tollwatch's own manifests use is known here; anything else is refused, since a test that
left it out would show something else than what a cluster starts.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][\w.-]*)\)")


class Unshown(Exception):
    """The manifests use something that is not modelled here."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How often something is asked, and when that is believed; times in seconds."""

    port: int | None
    path: str
    """Of a request; without one a connection is enough."""
    command: tuple[str, ...]
    """In place of both."""
    delay: float
    period: float
    timeout: float
    failures: int
    """So many in a row are one."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """What is at a path of the container: files, or (None) a directory that is empty at first."""

    path: str
    files: Mapping[str, bytes] | None
    writable: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod of a workload, of one container. Its environment is whole."""

    workload: str
    labels: Mapping[str, str]
    image: str
    command: tuple[str, ...]
    """Empty where the image's own is meant; `arguments` then replace nothing."""
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    ports: Mapping[str, int]
    user: int
    group: int
    memory_bytes: int
    mounts: tuple[Mounted, ...]
    startup: Probe | None
    readiness: Probe | None
    liveness: Probe | None
    pre_stop: tuple[str, ...] | float | None
    """A command, or seconds to sleep."""
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Manifests:
    """The rendered objects of one overlay, and the secrets that somebody made beside them."""

    objects: Sequence[Mapping[str, Any]]
    secrets: Mapping[str, Mapping[str, str]]

    def find(self, kind: str, name: str) -> Mapping[str, Any]:
        """The object of that kind whose name is, or begins with, that: hashes are appended."""
        of_kind = [each for each in self.objects if each["kind"] == kind]
        exact = [each for each in of_kind if each["metadata"]["name"] == name]
        found = exact or [e for e in of_kind if e["metadata"]["name"].startswith(f"{name}-")]
        if len(found) != 1:
            raise LookupError(f"{len(found)} objects of kind {kind} are named {name}")
        return found[0]

    def services(self) -> Iterator[tuple[str, int, str]]:
        """Each service's name, its port, and the name of the pods' port behind that."""
        for each in self.objects:
            if each["kind"] == "Service":
                (port,) = each["spec"]["ports"]
                yield each["metadata"]["name"], int(port["port"]), port["targetPort"]

    def replicas(self, name: str) -> int:
        """How many pods a Deployment has at first: what its autoscaler allows at least."""
        for each in self.objects:
            if each["kind"] == "HorizontalPodAutoscaler":
                spec = each["spec"]
                if spec["scaleTargetRef"]["name"] == name:
                    return int(spec.get("minReplicas", 1))
        return int(self.find("Deployment", name)["spec"].get("replicas", 1))

    def pod(self, kind: str, name: str) -> Pod:
        """What the workload of that name starts. Raises Unshown."""
        workload = self.find(kind, name)
        template = workload["spec"]["template"]
        spec = template["spec"]
        (container,) = spec["containers"]
        _refuse(spec, "initContainers", "hostNetwork", "hostPID", "shareProcessNamespace")
        security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        if not security["readOnlyRootFilesystem"] or not security["runAsNonRoot"]:
            raise Unshown(f"{name} may write to its root, or be root")
        ports = {p["name"]: int(p["containerPort"]) for p in container.get("ports", ())}
        return Pod(
            workload=name,
            labels=template["metadata"]["labels"],
            image=container["image"],
            command=tuple(container.get("command", ())),
            arguments=tuple(container.get("args", ())),
            environ=self._environ(container),
            ports=ports,
            user=int(security["runAsUser"]),
            group=int(security["runAsGroup"]),
            memory_bytes=_bytes(container["resources"]["limits"]["memory"]),
            mounts=tuple(self._mounts(workload, spec, container)),
            startup=_probe(container.get("startupProbe"), ports),
            readiness=_probe(container.get("readinessProbe"), ports),
            liveness=_probe(container.get("livenessProbe"), ports),
            pre_stop=_pre_stop(container),
            grace_seconds=float(spec.get("terminationGracePeriodSeconds", 30)),
        )

    def _environ(self, container: Mapping[str, Any]) -> dict[str, str]:
        environ: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            _only(source, "configMapRef", "secretRef")
            reference = source.get("configMapRef") or source["secretRef"]
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            environ |= self._data(kind, reference)
        for variable in container.get("env", ()):
            environ[variable["name"]] = self._value(variable, environ)
        return environ

    def _value(self, variable: Mapping[str, Any], known: Mapping[str, str]) -> str:
        if "valueFrom" not in variable:
            text = variable.get("value", "")
            return _REFERENCE.sub(lambda match: known.get(match[1], match[0]), text)
        source = variable["valueFrom"]
        _only(source, "configMapKeyRef", "secretKeyRef")
        kind = "ConfigMap" if "configMapKeyRef" in source else "Secret"
        reference = source.get("configMapKeyRef") or source["secretKeyRef"]
        data = self._data(kind, reference)
        if reference["key"] not in data and not reference.get("optional"):
            raise LookupError(f"{kind} {reference['name']} has no {reference['key']}")
        return data.get(reference["key"], "")

    def _data(self, kind: str, reference: Mapping[str, Any]) -> dict[str, str]:
        """What a ConfigMap or Secret holds, as text; nothing where it is optional and not there."""
        name = reference.get("name") or reference["secretName"]
        if kind == "Secret" and name in self.secrets:
            return dict(self.secrets[name])
        try:
            found = self.find(kind, name)
        except LookupError:
            if reference.get("optional"):
                return {}
            raise
        data: dict[str, str] = found.get("data", {})
        if kind == "ConfigMap":
            return dict(data)
        coded = {key: base64.b64decode(value).decode() for key, value in data.items()}
        return {**coded, **found.get("stringData", {})}

    def _mounts(
        self, workload: Mapping[str, Any], spec: Mapping[str, Any], container: Mapping[str, Any]
    ) -> Iterator[Mounted]:
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
        volumes |= {each["metadata"]["name"]: {"persistentVolumeClaim": {}} for each in claims}
        for mount in container.get("volumeMounts", ()):
            _refuse(mount, "subPathExpr", "mountPropagation")
            files = self._files(volumes[mount["name"]])
            path = mount["mountPath"]
            if (part := mount.get("subPath")) is not None and files is not None:
                path, files = path.rpartition("/")[0], {path.rpartition("/")[2]: files[part]}
            yield Mounted(path, files, writable=files is None and not mount.get("readOnly"))

    def _files(self, volume: Mapping[str, Any]) -> dict[str, bytes] | None:
        _only(volume, "name", "configMap", "secret", "emptyDir", "persistentVolumeClaim")
        source = volume.get("configMap") or volume.get("secret")
        if source is None:
            return None
        data = self._data("ConfigMap" if "configMap" in volume else "Secret", source)
        items = source.get("items", [{"key": key, "path": key} for key in data])
        return {item["path"]: data[item["key"]].encode() for item in items}


def _probe(given: Mapping[str, Any] | None, ports: Mapping[str, int]) -> Probe | None:
    if given is None:
        return None
    _refuse(given, "grpc")
    request = given.get("httpGet") or given.get("tcpSocket") or {}
    port: Any = request.get("port")
    return Probe(
        port=ports.get(port, port),
        path=request.get("path", "/") if "httpGet" in given else "",
        command=tuple(given.get("exec", {}).get("command", ())),
        delay=float(given.get("initialDelaySeconds", 0)),
        period=float(given.get("periodSeconds", 10)),
        timeout=float(given.get("timeoutSeconds", 1)),
        failures=int(given.get("failureThreshold", 3)),
    )


def _pre_stop(container: Mapping[str, Any]) -> tuple[str, ...] | float | None:
    hook = container.get("lifecycle", {}).get("preStop")
    if hook is None:
        return None
    _only(hook, "exec", "sleep")
    return float(hook["sleep"]["seconds"]) if "sleep" in hook else tuple(hook["exec"]["command"])


def _bytes(amount: str) -> int:
    return int(amount[:-2]) * _UNITS[amount[-2:]]


def _refuse(given: Mapping[str, Any], *names: str) -> None:
    used = [name for name in names if given.get(name)]
    if used:
        raise Unshown(f"{', '.join(used)} cannot be shown here")


def _only(given: Mapping[str, Any], *names: str) -> None:
    _refuse(given, *(name for name in given if name not in names))
