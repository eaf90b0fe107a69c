"""What a cluster would get: hardened, wired together, with settings that exist and no secret."""

import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service.settings import Variable, variables
from tests.deploy import render
from tests.deploy.render import Object, containers, of_kind, rendered, selects, workloads
from tests.world.processes import ROOT
from tests.world.world import World

_VARIABLES: Final = {row.name: row for row in variables()}
_SECRETS: Final = {"REDIS_URL", "TELNYX_PUBLIC_KEY", "TELNYX_API_KEY", "SLACK_WEBHOOK_URL"}
_SECRETS_DIRECTORY: Final = "/run/secrets/tollwatch"
_COMPONENT: Final = "app.kubernetes.io/component"
_PRODUCT: Final = ("web", "worker")

overlays = pytest.mark.parametrize("overlay", render.ALL)
components = pytest.mark.parametrize("component", _PRODUCT)


def _own(component: str) -> dict[str, Variable]:
    """The variables that a process reads."""
    return {n: v for n, v in _VARIABLES.items() if (v.web if component == "web" else v.worker)}


def _container(overlay: str, component: str) -> Object:
    name = f"tollwatch-{component}"
    (found,) = (c for w, _, c in containers(rendered(overlay)) if w == name)
    return found


def _named(overlay: str, kind: str, name: str) -> Object:
    (found,) = (o for o in of_kind(rendered(overlay), kind) if o["metadata"]["name"] == name)
    return found


def _settings(overlay: str, component: str) -> dict[str, str]:
    """What the environment says without any secret."""
    settings: dict[str, str] = {}
    container = _container(overlay, component)
    for source in container["envFrom"]:
        settings |= _named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    return settings | {variable["name"]: variable["value"] for variable in container["env"]}


# --- settings -----------------------------------------------------------------------------------


@overlays
@components
def test_each_variable_is_a_setting_of_its_process(overlay: str, component: str) -> None:
    """None is misspelt, and none is the other process'."""
    given = {name.removesuffix("_FILE") for name in _settings(overlay, component)}
    assert given <= set(_own(component))


@overlays
@components
def test_each_process_gets_what_it_needs(overlay: str, component: str) -> None:
    """Every required setting is there."""
    required = {name for name, row in _own(component).items() if row.default == "required"}
    assert required <= {n.removesuffix("_FILE") for n in _settings(overlay, component)}


@overlays
@components
def test_secrets_are_files_of_the_process_own_secret(overlay: str, component: str) -> None:
    """No secret is a variable; each process has its own, whole and nothing else in it."""
    settings = _settings(overlay, component)
    files = {name: path for name, path in settings.items() if name.endswith("_FILE")}
    own = _SECRETS & set(_own(component))
    assert files == {f"{name}_FILE": f"{_SECRETS_DIRECTORY}/{name}" for name in own}
    assert not _SECRETS & set(settings)
    ((_, pod, container),) = (
        found for found in containers(rendered(overlay)) if found[0] == f"tollwatch-{component}"
    )
    mounted = {m["name"] for m in container["volumeMounts"] if m["mountPath"] == _SECRETS_DIRECTORY}
    (source,) = (v["secret"] for v in pod["volumes"] if v["name"] in mounted)
    assert source["secretName"].startswith(f"tollwatch-{component}")
    assert not [v for v in pod["volumes"] if "secret" in v and v["name"] not in mounted]


def test_only_the_demonstration_brings_secrets() -> None:
    """And those open nothing: they are the simulated account's."""
    for overlay in ("staging", "production", "production-keda"):
        assert not of_kind(rendered(overlay), "Secret")
    world = World()
    assert f"TELNYX_PUBLIC_KEY={world.public_key}" in _demo()
    assert f"TELNYX_API_KEY={world.api_key}" in _demo()
    assert world.slack.path in _demo()


def _demo() -> str:
    return (ROOT / "deploy/overlays/demo/kustomization.yaml").read_text()


def test_a_changed_policy_rolls_the_workers(tmp_path: Path) -> None:
    """The ConfigMap's name is another, and the worker's pods name it."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    policy = tmp_path / "deploy/base/policy.yaml"
    policy.write_text(policy.read_text().replace("5.00", "6.00"))
    changed = render.build(tmp_path / "deploy/overlays/staging")
    assert _policies(changed) != _policies(rendered("staging"))
    assert len(_policies(changed)) == 1


def _policies(objects: tuple[Object, ...]) -> set[str]:
    """The names of the policies that pods mount, each of which is there."""
    there = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")}
    volumes = [v for _, pod, _ in containers(objects) for v in pod.get("volumes", ())]
    named = {v["configMap"]["name"] for v in volumes if v["name"] == "policy"}
    assert named <= there
    return named


# --- rights -------------------------------------------------------------------------------------


@overlays
def test_every_pod_satisfies_the_restricted_standard(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, all of it."""
    found = list(containers(rendered(overlay)))
    assert len(found) >= 2
    for workload, pod, container in found:
        assert not list(_unrestricted(pod, container)), workload
    assert {
        name: value
        for name, value in _namespace(overlay)["metadata"]["labels"].items()
        if name.startswith("pod-security")
    } == {
        f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
    }


def _namespace(overlay: str) -> Object:
    (found,) = of_kind(rendered(overlay), "Namespace")
    return found


def _unrestricted(pod: Object, container: Object) -> Any:
    of_pod, of_container = pod.get("securityContext", {}), container.get("securityContext", {})
    both = {**of_pod, **of_container}
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    kinds |= {"projected", "secret", "name"}
    checks = {
        "host namespaces": not any(pod.get(n) for n in ("hostNetwork", "hostPID", "hostIPC")),
        "privileged": not of_container.get("privileged"),
        "capabilities dropped": of_container.get("capabilities", {}).get("drop") == ["ALL"],
        "capabilities added": not of_container.get("capabilities", {}).get("add"),
        "volume types": all(set(v) <= kinds for v in pod.get("volumes", ())),
        "host ports": not any(p.get("hostPort") for p in container.get("ports", ())),
        "host probes": "host:" not in str(container.get("livenessProbe")),
        "/proc mount": of_container.get("procMount", "Default") == "Default",
        "sysctls": not of_pod.get("sysctls"),
        "AppArmor": "appArmorProfile" not in both,
        "SELinux": "seLinuxOptions" not in both,
        "seccomp": both.get("seccompProfile") == {"type": "RuntimeDefault"},
        "privilege escalation": of_container.get("allowPrivilegeEscalation") is False,
        "not root": both.get("runAsNonRoot") is True and both.get("runAsUser", 0) > 0,
        # Beyond the standard.
        "read-only root": of_container.get("readOnlyRootFilesystem") is True,
        "own group": both.get("runAsGroup", 0) > 0,
        "no token": pod.get("automountServiceAccountToken") is False,
        "no service links": pod.get("enableServiceLinks") is False,
        "memory bounded": "memory" in container["resources"]["limits"],
        "requests": set(container["resources"]["requests"]) == {"cpu", "memory"},
    }
    return (name for name, holds in checks.items() if not holds)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("container.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        ("container.securityContext.readOnlyRootFilesystem", False),
        ("pod.securityContext.runAsUser", 0),
        ("pod.securityContext.seccompProfile", {"type": "Unconfined"}),
        ("pod.hostNetwork", True),
        ("pod.volumes", [{"name": "x", "hostPath": {"path": "/"}}]),
        ("pod.enableServiceLinks", True),
    ],
)
def test_what_is_not_restricted_would_be_found(where: str, value: Any) -> None:
    """Each of them alone."""
    _, pod, container = next(containers(rendered("production")))
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump({"pod": pod, "container": container}))
    assert not list(_unrestricted(changed["pod"], changed["container"]))
    *path, last = where.split(".")
    place = changed
    for name in path:
        place = place[name]
    place[last] = value
    assert list(_unrestricted(changed["pod"], changed["container"]))


@overlays
def test_no_workload_shares_an_account(overlay: str) -> None:
    """Each has a service account of its own, which has no token."""
    objects = rendered(overlay)
    accounts = {
        each["metadata"]["name"]: each["automountServiceAccountToken"]
        for each in of_kind(objects, "ServiceAccount")
    }
    used = [w["spec"]["template"]["spec"]["serviceAccountName"] for w in workloads(objects)]
    assert sorted(used) == sorted(accounts)
    assert set(accounts.values()) == {False}


# --- wiring -------------------------------------------------------------------------------------


@overlays
def test_selectors_choose_just_their_pods(overlay: str) -> None:
    """Of workloads, services and disruption budgets, each those of one workload."""
    objects = rendered(overlay)
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in workloads(objects)
    }
    for each in objects:
        name, spec = each["metadata"]["name"], each.get("spec", {})
        match each["kind"]:
            case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
                selector = spec["selector"]
            case "Service":
                selector = {"matchLabels": spec["selector"]}
            case _:
                continue
        assert [pod for pod, labels in pods.items() if selects(selector, labels)] == [name]
    for workload in workloads(objects):
        spread = workload["spec"]["template"]["spec"].get("topologySpreadConstraints", ())
        for constraint in spread:
            assert selects(constraint["labelSelector"], pods[workload["metadata"]["name"]])


@overlays
def test_services_and_probes_name_ports_that_are_there(overlay: str) -> None:
    """By name, so that a changed number is changed once."""
    objects = rendered(overlay)
    ports = {
        name: {port["name"] for port in container["ports"]}
        for name, _, container in containers(objects)
    }
    for service in of_kind(objects, "Service"):
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports[
            service["metadata"]["name"]
        ]
    for name, _, container in containers(objects):
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind, {})
            asked = probe.get("httpGet") or probe.get("tcpSocket")
            assert not asked or asked["port"] in ports[name]
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                (service,) = (
                    each
                    for each in of_kind(objects, "Service")
                    if each["metadata"]["name"] == backend["name"]
                )
                assert backend["port"]["name"] in {p["name"] for p in service["spec"]["ports"]}


@overlays
@components
def test_ports_are_those_of_the_settings(overlay: str, component: str) -> None:
    """Nothing moves them, and the probes ask the admin port."""
    container = _container(overlay, component)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert not {"TOLLWATCH_PORT", "TOLLWATCH_ADMIN_PORT"} & set(_settings(overlay, component))
    assert ports["admin"] == {"web": 9090, "worker": 9091}[component]
    assert ports.get("http", 8080) == int(_VARIABLES["TOLLWATCH_PORT"].default)
    asked = {
        kind: container[kind]["httpGet"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert {probe["port"] for probe in asked.values()} == {"admin"}
    assert asked["readinessProbe"]["path"] == "/readyz"
    assert asked["livenessProbe"]["path"] == "/livez"


@overlays
@components
def test_a_pod_has_the_time_to_end(overlay: str, component: str) -> None:
    """The hook, draining and the grace fit into what Kubernetes grants, with some to spare."""
    ((_, pod, container),) = (
        found for found in containers(rendered(overlay)) if found[0] == f"tollwatch-{component}"
    )
    settings = _settings(overlay, component)
    seconds = float(settings.get("TOLLWATCH_GRACE_SECONDS", "20"))
    if component == "web":
        hook = container["lifecycle"]["preStop"]["exec"]["command"]
        assert hook[0] == "sleep"
        assert int(hook[1]) >= 5, "services must have the time to know"
        seconds += int(hook[1]) + float(settings.get("TOLLWATCH_DRAIN_SECONDS", "3"))
    assert pod["terminationGracePeriodSeconds"] >= seconds + 5


@overlays
@components
def test_a_rollout_never_takes_away_what_works(overlay: str, component: str) -> None:
    """A new pod is ready first; evictions take one at most; the autoscaler alone counts them."""
    workload = _named(overlay, "Deployment", f"tollwatch-{component}")
    strategy = workload["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert strategy["maxSurge"] >= 1
    assert "replicas" not in workload["spec"], "it would undo what the autoscaler said"
    budget = _named(overlay, "PodDisruptionBudget", f"tollwatch-{component}")
    assert budget["spec"]["maxUnavailable"] == 1
    assert _least(overlay, workload["metadata"]["name"]) >= 2


def _least(overlay: str, name: str) -> int:
    """How many pods its one autoscaler leaves it at least."""
    scalers = of_kind(rendered(overlay), "HorizontalPodAutoscaler", "ScaledObject")
    (spec,) = (s["spec"] for s in scalers if s["spec"]["scaleTargetRef"]["name"] == name)
    least, most = (
        (spec["minReplicas"], spec["maxReplicas"])
        if "minReplicas" in spec
        else (spec["minReplicaCount"], spec["maxReplicaCount"])
    )
    assert least < most
    return int(least)


# --- the network --------------------------------------------------------------------------------


@overlays
def test_nothing_is_allowed_that_is_not_named(overlay: str) -> None:
    """One policy denies all, in both directions, to every pod."""
    (nothing,) = (
        each
        for each in of_kind(rendered(overlay), "NetworkPolicy")
        if each["spec"]["podSelector"] == {}
    )
    assert nothing["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@overlays
def test_what_one_side_may_send_the_other_may_take(overlay: str) -> None:
    """Between pods each connection is allowed at both ends, and just these are."""
    wanted = {("web", "redis", 6379), ("worker", "redis", 6379)}
    if overlay == "demo":
        wanted |= {("simulator", "web", 8080), ("worker", "simulator", 8900)}
    if overlay.startswith("production"):
        wanted = set()
    sent, taken = _allowed(overlay, "egress"), _allowed(overlay, "ingress")
    assert sent & taken == wanted


def _allowed(overlay: str, direction: str) -> set[tuple[str, str, int]]:
    """By component: who may connect to whom, on which port of theirs."""
    objects = rendered(overlay)
    pods = {
        labels[_COMPONENT]: (labels, {p["name"]: p["containerPort"] for p in c["ports"]})
        for w in workloads(objects)
        for labels in [w["spec"]["template"]["metadata"]["labels"]]
        for c in w["spec"]["template"]["spec"]["containers"]
    }
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        ours = [
            c for c, (labels, _) in pods.items() if selects(policy["spec"]["podSelector"], labels)
        ]
        for rule in policy["spec"].get(direction, ()):
            peers = [
                component
                for peer in rule["from" if direction == "ingress" else "to"]
                if "podSelector" in peer
                for component, (labels, _) in pods.items()
                if selects(peer["podSelector"], labels)
            ]
            for our in ours:
                for peer in peers:
                    source, target = (peer, our) if direction == "ingress" else (our, peer)
                    for port in rule["ports"]:
                        number = pods[target][1].get(port["port"], port["port"])
                        found.add((source, target, number))
    return found


@overlays
def test_peers_of_policies_are_there(overlay: str) -> None:
    """A selector that a label transformer has spoiled would choose nobody."""
    objects = rendered(overlay)
    pods = [w["spec"]["template"]["metadata"]["labels"] for w in workloads(objects)]
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in [*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ())]:
            for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                if "podSelector" in peer and not overlay.startswith("production"):
                    assert any(selects(peer["podSelector"], labels) for labels in pods), policy


@overlays
def test_only_the_worker_reaches_the_internet(overlay: str) -> None:
    """On 443, and not what clouds tell their machines."""
    for policy in of_kind(rendered(overlay), "NetworkPolicy"):
        for rule in policy["spec"].get("egress", ()):
            for peer in rule["to"]:
                block = peer.get("ipBlock")
                if block and block["cidr"] == "0.0.0.0/0":
                    assert policy["spec"]["podSelector"]["matchLabels"][_COMPONENT] == "worker"
                    assert [port["port"] for port in rule["ports"]] == [443]
                    assert block["except"] == ["169.254.0.0/16"]


@overlays
def test_the_admin_port_is_for_the_monitoring_only(overlay: str) -> None:
    """And the public one for the ingress controller (and the demonstration's simulator)."""
    for component in _PRODUCT:
        policy = _named(overlay, "NetworkPolicy", f"tollwatch-{component}")
        from_where = {
            port["port"]: [
                peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
                for peer in rule["from"]
            ]
            for rule in policy["spec"]["ingress"]
            for port in rule["ports"]
        }
        public = {"http": ["ingress-nginx"]} if component == "web" else {}
        assert from_where == {"admin": ["monitoring"], **public}


@pytest.mark.parametrize("overlay", ["staging", "production", "production-keda"])
def test_only_the_webhooks_are_public(overlay: str) -> None:
    """By exact path, over TLS; no service has an address outside of the cluster."""
    (ingress,) = of_kind(rendered(overlay), "Ingress")
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert [(p["path"], p["pathType"]) for p in paths] == [("/webhooks/telnyx", "Exact")]
    hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
    assert hosts == {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
    for service in of_kind(rendered(overlay), "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


# --- the rest -----------------------------------------------------------------------------------


@overlays
def test_images_have_a_version(overlay: str) -> None:
    """None is `latest`, and web and worker are of one image."""
    images = {name: c["image"] for name, _, c in containers(rendered(overlay))}
    assert all(image.rpartition(":")[2] not in {"", "latest", image} for image in images.values())
    assert images["tollwatch-web"] == images["tollwatch-worker"]


@overlays
def test_all_is_in_one_namespace(overlay: str) -> None:
    """The one that the overlay brings."""
    name = _namespace(overlay)["metadata"]["name"]
    others = [each for each in rendered(overlay) if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in others} == {name}


@pytest.mark.parametrize("overlay", ["demo", "staging"])
def test_redis_forgets_nothing(overlay: str) -> None:
    """It appends to a file on a volume that outlives it, evicts no key, and has room to rewrite."""
    (redis,) = of_kind(rendered(overlay), "StatefulSet")
    (config,) = (
        each["data"]["valkey.conf"]
        for each in of_kind(rendered(overlay), "ConfigMap")
        if "valkey.conf" in each["data"]
    )
    options = dict(
        line.split(maxsplit=1) for line in config.splitlines() if line and line[0] != "#"
    )
    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "always"
    assert options["maxmemory-policy"] == "noeviction"
    (claim,) = redis["spec"]["volumeClaimTemplates"]
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == options["dir"]
    assert redis["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert options["maxmemory"] == "512mb"
    assert container["resources"]["limits"]["memory"] == "1Gi"
