"""The check that all pods must pass fails for each thing that the standard forbids."""

import copy
from typing import Any, Final

import pytest

from tests.deploy.restricted import violations

_GOOD: Final[dict[str, Any]] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "a", "secret": {"secretName": "a"}}],
    "containers": [
        {
            "name": "c",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
}


def test_a_good_pod_is_admitted() -> None:
    """What the standard asks for is enough."""
    assert violations(_GOOD) == []


@pytest.mark.parametrize(
    ("pod", "fault"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "volume of the kind hostPath"),
        ({"securityContext": {}}, "c: runAsNonRoot is not true"),
    ],
)
def test_a_pod_that_asks_for_the_node_is_refused(pod: dict[str, Any], fault: str) -> None:
    """Its namespaces, its files, and its root."""
    assert fault in violations(_GOOD | pod)


@pytest.mark.parametrize(
    ("own", "fault"),
    [
        ({"privileged": True}, "privileged"),
        ({"allowPrivilegeEscalation": None}, "allowPrivilegeEscalation is not false"),
        ({"capabilities": {}}, "does not drop ALL capabilities"),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "the capability NET_ADMIN"),
        ({"procMount": "Unmasked"}, "procMount"),
        ({"runAsNonRoot": False}, "runAsNonRoot is not true"),
        ({"runAsUser": 0}, "runs as root"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccomp unconfined"),
        ({"seccompProfile": {}}, "no seccomp profile"),
        ({"appArmorProfile": {"type": "Unconfined"}}, "no AppArmor profile"),
        ({"seLinuxOptions": {"type": "spc_t"}}, "SELinux options"),
        ({"seLinuxOptions": {"user": "u"}}, "SELinux options"),
        ({"windowsOptions": {"hostProcess": True}}, "hostProcess"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_container_with_more_rights_is_refused(
    own: dict[str, Any], fault: str, kind: str
) -> None:
    """Whichever kind of container it is."""
    pod = copy.deepcopy(_GOOD)
    (container,) = copy.deepcopy(_GOOD["containers"])
    container["securityContext"] |= own
    pod[kind] = [container]
    assert any(fault in found for found in violations(pod))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"ports": [{"containerPort": 1, "hostPort": 1}]}, "host port 1"),
        ({"livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}, "another host"),
        ({"lifecycle": {"preStop": {"httpGet": {"host": "h"}}}}, "another host"),
    ],
)
def test_a_container_may_not_reach_for_other_hosts(given: dict[str, Any], fault: str) -> None:
    """Neither by a port of the node nor by its probes and hooks."""
    pod = copy.deepcopy(_GOOD)
    pod["containers"][0] |= given
    assert any(fault in found for found in violations(pod))


def test_unsafe_kernel_settings_are_refused() -> None:
    """A pod may set only those that are its own."""
    security = _GOOD["securityContext"] | {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}
    assert violations(_GOOD | {"securityContext": security}) == ["sysctl kernel.msgmax"]
