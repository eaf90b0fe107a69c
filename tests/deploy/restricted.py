"""The `restricted` Pod Security Standard over a pod's spec, its `baseline` included.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any, Final

Spec = dict[str, Any]

_VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP: Final = {"RuntimeDefault", "Localhost"}
_APPARMOR: Final = {None, "RuntimeDefault", "Localhost"}
_SELINUX: Final = {None, "", "container_t", "container_init_t", "container_kvm_t"}
_SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_HANDLERS: Final = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(spec: Spec) -> list[str]:
    """What the admission would refuse the pod for, a phrase each; empty if it is admitted."""
    found = list(_of_pod(spec))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, ()):
            found += [
                f"{container['name']}: {fault}"
                for fault in _of_container(container, spec.get("securityContext", {}))
            ]
    return found


def _of_pod(spec: Spec) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", ()):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume of the kind {kind}"
    security = spec.get("securityContext", {})
    for sysctl in security.get("sysctls", ()):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _shared(security)


def _of_container(container: Spec, pod: Spec) -> Iterator[str]:
    own = container.get("securityContext", {})
    yield from _shared(own)
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield "does not drop ALL capabilities"
    for added in set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"adds the capability {added}"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    # The container's own word counts, the pod's where it has none.
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {}))
    if profile.get("type") not in _SECCOMP:
        yield "no seccomp profile"
    for port in container.get("ports", ()):
        if port.get("hostPort"):
            yield f"host port {port['hostPort']}"
    hooks = container.get("lifecycle", {})
    for handler in [*(container.get(name, {}) for name in _HANDLERS), *hooks.values()]:
        if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe or hook of another host"


def _shared(security: Spec) -> Iterator[str]:
    """What pods and containers state alike."""
    if security.get("runAsUser") == 0:
        yield "runs as root"
    if security.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    if security.get("appArmorProfile", {}).get("type") not in _APPARMOR:
        yield "no AppArmor profile"
    if security.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP:
        yield "seccomp unconfined"
    selinux = security.get("seLinuxOptions", {})
    if selinux.get("type") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        yield "SELinux options"
