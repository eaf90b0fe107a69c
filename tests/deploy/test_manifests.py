"""The manifests: what runs is configured, hardened, reachable by whom it must be, and rolls."""

import base64
import ipaddress
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from service import __version__
from service.settings import SettingsError, Variable, WebSettings, WorkerSettings, variables
from tests.deploy.render import (
    DEPLOY,
    PATHS,
    Manifest,
    container,
    environment,
    kustomize,
    named,
    of_kind,
    pod,
    render,
    secret_files,
    workloads,
)
from tests.deploy.restricted import violations
from tests.world.world import World
from workers.metrics import WorkerMetrics
from workers.policy import Policy
from workers.policy_file import parse_policy

_PROCESSES: Final = ("web", "worker")
_VARIABLES: Final = {row.name: row for row in variables()}
_SECRETS: Final = {
    "web": {"REDIS_URL", "TELNYX_PUBLIC_KEY"},
    "worker": {"REDIS_URL", "TELNYX_API_KEY", "SLACK_WEBHOOK_URL"},
}
_EACH_OVERLAY: Final = pytest.mark.parametrize("name", [n for n in PATHS if n != "monitoring"])
_COMPONENT: Final = "app.kubernetes.io/component"


def _own(component: str) -> dict[str, Variable]:
    """The variables that a process reads."""
    is_web = component == "web"
    return {n: row for n, row in _VARIABLES.items() if (row.web if is_web else row.worker)}


def _settings(component: str, manifests: list[Manifest]) -> dict[str, str]:
    """A process' variables; one that is read from a file goes by the variable's own name."""
    given = environment(workloads(manifests)[component], manifests)
    return {variable.removesuffix("_FILE"): value for variable, value in given.items()}


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector selects what has the labels."""
    wanted = selector.get("matchLabels", {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", ())
    )


def _labels(workload: Manifest) -> dict[str, str]:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def _selected(selector: dict[str, Any], manifests: list[Manifest]) -> set[str]:
    """The components of the pods that a selector selects."""
    pods = workloads(manifests).items()
    return {component for component, workload in pods if _matches(selector, _labels(workload))}


# --- settings and secrets ---


@_EACH_OVERLAY
@pytest.mark.parametrize("component", _PROCESSES)
def test_each_process_gets_only_what_it_reads(name: str, component: str) -> None:
    """Each variable is a setting of that process: no misspelling, and none of the other."""
    assert set(_settings(component, render(name))) <= set(_own(component))


@_EACH_OVERLAY
@pytest.mark.parametrize("component", _PROCESSES)
def test_each_process_gets_what_it_needs(name: str, component: str) -> None:
    """Every required setting is there, and Redis, whose default is this machine."""
    required = {n for n, row in _own(component).items() if row.default == "required"}
    assert required | {"REDIS_URL"} <= set(_settings(component, render(name)))


@_EACH_OVERLAY
@pytest.mark.parametrize("component", _PROCESSES)
def test_each_process_gets_only_its_own_secrets_and_as_files(name: str, component: str) -> None:
    """What is secret is in a file of a Secret that no other process has, and in no variable."""
    manifests = render(name)
    workload = workloads(manifests)[component]
    given = environment(workload, manifests)
    files = secret_files(workload)
    assert {variable for variable in given if variable.endswith("_FILE")} == {
        f"{secret}_FILE" for secret in _SECRETS[component]
    }
    assert not _SECRETS[component] & set(given)
    assert {files[given[f"{secret}_FILE"]][1] for secret in _SECRETS[component]} == set(
        _SECRETS[component]
    )
    assert len(files) == len(_SECRETS[component])
    others = [secret_files(w) for c, w in workloads(manifests).items() if c != component]
    assert not {secret for secret, _ in files.values()} & {
        secret for other in others if other for secret, _ in other.values()
    }


@_EACH_OVERLAY
@pytest.mark.parametrize(
    ("component", "settings"), [("web", WebSettings), ("worker", WorkerSettings)]
)
def test_the_settings_are_accepted(
    name: str, component: str, settings: type[WebSettings | WorkerSettings]
) -> None:
    """With secrets of the right form the process would start."""
    world = World()
    secrets = {
        "REDIS_URL": "redis://redis/0",
        "TELNYX_PUBLIC_KEY": world.public_key,
        "TELNYX_API_KEY": world.api_key,
        "SLACK_WEBHOOK_URL": "https://slack.example/x",
    }
    given = _settings(component, render(name))
    loaded = settings.load(given | {key: secrets[key] for key in _SECRETS[component]})
    assert loaded.mask_numbers


def test_a_bad_setting_would_be_seen() -> None:
    """The test above is not content with anything."""
    given = _settings("worker", render("production")) | {"TOLLWATCH_GRACE_SECONDS": "soon"}
    with pytest.raises(SettingsError):
        WorkerSettings.load(given)


@pytest.mark.parametrize("name", ["staging", "production", "keda"])
def test_no_secret_is_in_the_manifests(name: str) -> None:
    """They are only referred to; the demonstration's open nothing."""
    assert of_kind(render(name), "Secret") == []


def test_the_demonstration_needs_no_credentials() -> None:
    """Its keys are those of the simulated account, and it talks to the simulator."""
    manifests, world = render("demo"), World()
    secrets: dict[str, str] = {}
    for component in _PROCESSES:
        for secret, _ in secret_files(workloads(manifests)[component]).values():
            data = named(manifests, "Secret", secret)
            secrets |= {key: _decoded(value) for key, value in data["data"].items()}
    given = _settings("worker", manifests)
    assert secrets["TELNYX_PUBLIC_KEY"] == world.public_key
    assert secrets["TELNYX_API_KEY"] == world.api_key
    assert secrets["SLACK_WEBHOOK_URL"].endswith(world.slack.path)
    host = named(manifests, "Service", "tollwatch-simulator")["metadata"]["name"]
    port = named(manifests, "Service", "tollwatch-simulator")["spec"]["ports"][0]["port"]
    assert given["TELNYX_API_URL"] == f"http://{host}:{port}/v2"
    assert secrets["SLACK_WEBHOOK_URL"].startswith(f"http://{host}:{port}/")
    service = named(manifests, "Service", "tollwatch-web")
    url = f"http://tollwatch-web:{service['spec']['ports'][0]['port']}/webhooks/telnyx"
    assert url in container(workloads(manifests)["simulator"])["args"]
    namespaces = {m["metadata"].get("namespace") for m in manifests} - {None}
    assert namespaces == {"tollwatch-demo"}, "it must not be mistaken for the real one"


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode()


def test_the_policy_is_the_built_in_one_until_it_is_changed() -> None:
    """Who applies the manifests as they are gets what the README describes."""
    manifests = render("production")
    (volume,) = (v for v in pod(workloads(manifests)["worker"])["volumes"] if "configMap" in v)
    text = named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]["policy.yaml"]
    assert parse_policy(text) == Policy()


@pytest.mark.parametrize(
    ("file", "component"),
    [("policy.yaml", "worker"), ("worker.env", "worker"), ("web.env", "web")],
)
def test_a_changed_policy_or_setting_rolls_the_pods_that_read_it(
    tmp_path: Path, file: str, component: str
) -> None:
    """And no others: a pod's template names its ConfigMaps, and their names follow their text."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    with (tmp_path / "deploy/base" / file).open("a") as changed:
        changed.write("\n# a change\n" if file == "policy.yaml" else "\nTOLLWATCH_HOST=127.0.0.1\n")
    text = kustomize(tmp_path / "deploy/overlays/production")
    before, after = workloads(render("production")), workloads(list(yaml.safe_load_all(text)))
    rolled = {name for name in before if before[name]["spec"] != after[name]["spec"]}
    assert rolled == {component}


# --- pods ---


@_EACH_OVERLAY
def test_every_pod_is_admitted_at_the_restricted_level(name: str) -> None:
    """And the namespace demands it."""
    manifests = render(name)
    for workload in workloads(manifests).values():
        assert violations(pod(workload)) == []
    (namespace,) = of_kind(manifests, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    kinds = {manifest["kind"] for manifest in manifests}
    assert not kinds & {"Job", "CronJob", "DaemonSet", "Pod", "ReplicaSet"}, "look at these, too"


@_EACH_OVERLAY
def test_every_pod_is_hardened(name: str) -> None:
    """Nothing writes to its root, asks the API, is told of services, or takes without limit."""
    for workload in workloads(render(name)).values():
        spec, only = pod(workload), container(workload)
        assert only["securityContext"]["readOnlyRootFilesystem"] is True
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert {"cpu", "memory"} <= set(only["resources"]["requests"])
        assert {"cpu", "memory"} <= set(only["resources"]["limits"])


@_EACH_OVERLAY
def test_selectors_match_the_pods_and_nothing_else(name: str) -> None:
    """Of workloads, services and budgets: each selects the pods of one component."""
    manifests = render(name)
    for component, workload in workloads(manifests).items():
        assert _selected(workload["spec"]["selector"], manifests) == {component}
        for spread in pod(workload).get("topologySpreadConstraints", ()):
            assert _selected(spread["labelSelector"], manifests) == {component}
    for service in of_kind(manifests, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        own = service["metadata"]["labels"][_COMPONENT]
        assert _selected(selector, manifests) == {own}
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        own = budget["metadata"]["labels"][_COMPONENT]
        assert _selected(budget["spec"]["selector"], manifests) == {own}


@_EACH_OVERLAY
def test_ports_that_are_named_exist(name: str) -> None:
    """Services, probes and network policies name ports of the containers that they are about."""
    manifests = render(name)
    ports = {
        component: {port["name"] for port in container(workload).get("ports", ())}
        for component, workload in workloads(manifests).items()
    }
    for service in of_kind(manifests, "Service"):
        own = service["metadata"]["labels"][_COMPONENT]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[own]
    for component, workload in workloads(manifests).items():
        only = container(workload)
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = only.get(kind, {})
            asked = probe.get("httpGet") or probe.get("tcpSocket")
            assert asked is None or asked["port"] in ports[component]
    for policy in of_kind(manifests, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            for component in _selected(policy["spec"]["podSelector"], manifests):
                assert {port["port"] for port in rule["ports"]} <= ports[component]


@pytest.mark.parametrize("component", _PROCESSES)
def test_ports_are_those_that_the_process_listens_on(component: str) -> None:
    """The container's ports are the settings' defaults, as the monitoring expects them."""
    ports = {p["name"]: p["containerPort"] for p in container(_production(component))["ports"]}
    assert ports == ({"http": 8080, "admin": 9090} if component == "web" else {"admin": 9091})
    assert WebSettings.model_fields["port"].default == 8080
    assert WebSettings.model_fields["admin_port"].default == 9090
    assert WorkerSettings.model_fields["admin_port"].default == 9091


def _production(component: str) -> Manifest:
    return workloads(render("production"))[component]


# --- coming and going ---


@_EACH_OVERLAY
@pytest.mark.parametrize("component", _PROCESSES)
def test_pods_may_finish_before_they_are_killed(name: str, component: str) -> None:
    """The hook, the drain and the grace together end before the kubelet's patience does."""
    manifests = render(name)
    workload = workloads(manifests)[component]
    given = _settings(component, manifests)
    hook = container(workload).get("lifecycle", {}).get("preStop", {"exec": {"command": ["", "0"]}})
    drain = given["TOLLWATCH_DRAIN_SECONDS"] if component == "web" else "0"
    own = float(hook["exec"]["command"][1]) + float(drain) + float(given["TOLLWATCH_GRACE_SECONDS"])
    assert own + 5 <= pod(workload)["terminationGracePeriodSeconds"]


def test_a_web_pod_leaves_before_it_closes() -> None:
    """Proxies have time to hear of it; and readiness has failed before the port closes."""
    web = _production("web")
    probe = container(web)["readinessProbe"]
    drain = float(_settings("web", render("production"))["TOLLWATCH_DRAIN_SECONDS"])
    assert container(web)["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert drain >= probe["periodSeconds"]
    # What readiness itself may take to say no.
    assert probe["timeoutSeconds"] > 2


@pytest.mark.parametrize("component", _PROCESSES)
def test_a_rollout_takes_no_pod_before_another_is_ready(component: str) -> None:
    """Nor is a pod restarted because Redis is away."""
    deployment = _production(component)
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert container(deployment)["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for kind in ("startupProbe", "livenessProbe"):
        assert container(deployment)[kind]["httpGet"]["path"] == "/livez"


@_EACH_OVERLAY
@pytest.mark.parametrize("component", _PROCESSES)
def test_one_scaler_and_one_budget_for_each_deployment(name: str, component: str) -> None:
    """Two would fight, and a count in the Deployment would undo what the scaler decided."""
    manifests = render(name)
    target = f"tollwatch-{component}"
    scalers = [
        scaler
        for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
        if scaler["spec"]["scaleTargetRef"]["name"] == target
    ]
    assert len(scalers) == 1
    assert "replicas" not in workloads(manifests)[component]["spec"]
    budget = named(manifests, "PodDisruptionBudget", target)
    assert budget["spec"]["maxUnavailable"] == 1
    spec = scalers[0]["spec"]
    least = spec.get("minReplicas", spec.get("minReplicaCount"))
    most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
    assert (2 if name != "demo" else 1) <= least < most


def test_the_component_scales_workers_by_metrics_that_they_have() -> None:
    """What the query names is what a worker shows."""
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    shown = generate_latest(registry).decode()
    (scaler,) = of_kind(render("keda"), "ScaledObject")
    query = scaler["spec"]["triggers"][0]["metadata"]["query"]
    metrics = re.findall(r"(tollwatch_\w+){", query)
    assert len(metrics) == 3
    for metric in metrics:
        assert re.search(rf"^{metric}[{{ ]", shown, re.MULTILINE), metric
    assert 'tollwatch_overdue{line="sessions"}' in shown


# --- the network ---


@_EACH_OVERLAY
def test_what_is_not_allowed_is_denied_to_every_pod(name: str) -> None:
    """One policy for all pods of the namespace allows nothing, in either direction."""
    manifests = render(name)
    (deny,) = (
        policy["spec"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if policy["spec"]["podSelector"] == {}
    )
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert "ingress" not in deny
    assert "egress" not in deny


def _allowed(name: str, component: str, direction: str) -> set[tuple[str, Any]]:
    """Who may come to a component's pods, or where they may go: (peer, port)."""
    manifests = render(name)
    found = set()
    side = "from" if direction == "ingress" else "to"
    for policy in of_kind(manifests, "NetworkPolicy"):
        if component in _selected(policy["spec"]["podSelector"], manifests):
            for rule in policy["spec"].get(direction, ()):
                for peer in rule[side]:
                    for who in _peers(peer, manifests):
                        found |= {(who, port["port"]) for port in rule["ports"]}
    return found


def _peers(peer: dict[str, Any], manifests: list[Manifest]) -> set[str]:
    if "ipBlock" in peer:
        return {peer["ipBlock"]["cidr"]}
    if "namespaceSelector" in peer:
        return {peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]}
    return _selected(peer["podSelector"], manifests)


def test_the_network_allows_what_production_needs_and_no_more() -> None:
    """The public port from the ingress, the admin port from monitoring; DNS, Redis and 443."""
    dns = {("kube-system", 53)}
    redis = {("10.0.0.0/8", 6379), ("10.0.0.0/8", 6380)}
    scrape = {("monitoring", "admin")}
    name = "production"
    assert _allowed(name, "web", "ingress") == {("ingress-nginx", "http")} | scrape
    assert _allowed(name, "worker", "ingress") == scrape
    assert _allowed(name, "web", "egress") == dns | redis
    assert _allowed(name, "worker", "egress") == dns | redis | {("0.0.0.0/0", 443), ("::/0", 443)}


def test_the_network_allows_the_demonstration_to_talk_to_itself() -> None:
    """The simulator, which is all of the outside, and Redis: the two ends of each way agree."""
    for client, server, out, into in (
        ("web", "redis", 6379, "redis"),
        ("worker", "redis", 6379, "redis"),
        ("worker", "simulator", "outside", "outside"),
        ("simulator", "web", "http", "http"),
    ):
        assert (server, out) in _allowed("demo", client, "egress")
        assert (client, into) in _allowed("demo", server, "ingress")
    assert _allowed("demo", "redis", "ingress") == {("web", "redis"), ("worker", "redis")}
    assert {peer for peer, _ in _allowed("demo", "redis", "egress")} == {"kube-system"}


@_EACH_OVERLAY
def test_workers_reach_nothing_private_but_redis(name: str) -> None:
    """Neither the cluster nor the cloud's metadata service."""
    policy = named(render(name), "NetworkPolicy", "tollwatch-worker")
    blocks = [peer["ipBlock"] for peer in policy["spec"]["egress"][0]["to"]]
    for address in ("10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "fd00::1"):
        ip = ipaddress.ip_address(address)
        for block in blocks:
            if ip in ipaddress.ip_network(block["cidr"]):
                assert any(ip in ipaddress.ip_network(hole) for hole in block["except"])


@pytest.mark.parametrize("name", ["staging", "production", "keda"])
def test_only_the_webhook_is_public(name: str) -> None:
    """Of one path, exactly, on TLS."""
    manifests = render(name)
    (ingress,) = of_kind(manifests, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/webhooks/telnyx", "Exact")
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]] != ["HOST"]
    assert "defaultBackend" not in ingress["spec"]
    backend = path["backend"]["service"]
    service = named(manifests, "Service", backend["name"])
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


@_EACH_OVERLAY
def test_no_service_can_be_reached_past_the_ingress(name: str) -> None:
    """None is of a kind that opens a port to the world; the demonstration has no ingress either."""
    for service in of_kind(render(name), "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert len(of_kind(render(name), "Ingress")) == (name != "demo")


# --- Redis, images ---


@pytest.mark.parametrize("name", ["demo", "staging"])
def test_redis_forgets_nothing(name: str) -> None:
    """It appends to a file on a volume, and evicts no key."""
    manifests = render(name)
    workload = workloads(manifests)["redis"]
    (volume,) = (v for v in pod(workload)["volumes"] if "configMap" in v)
    text = named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]["valkey.conf"]
    lines = (line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("#"))
    options = dict(lines)
    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "always"
    assert options["maxmemory-policy"] == "noeviction"
    only = container(workload)
    mounts = {mount["mountPath"]: mount["name"] for mount in only["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in workload["spec"]["volumeClaimTemplates"]}
    assert mounts[options["dir"]] in claims
    assert only["command"][1].rpartition("/")[0] in mounts
    assert only["resources"]["limits"]["memory"] == "1Gi"
    assert options["maxmemory"] == "512mb"


def test_staging_asks_for_a_password() -> None:
    """Users come from a Secret; the demonstration's Redis has nothing to keep."""
    redis = workloads(render("staging"))["redis"]
    assert container(redis)["args"][0] == "--aclfile"
    assert container(redis)["args"][1] in secret_files(redis)
    assert "redis" not in workloads(render("production"))


@_EACH_OVERLAY
def test_images_are_named_in_one_place(name: str) -> None:
    """The overlay's `images:` says which image and which version; nothing else does."""
    if name == "keda":
        return
    stated = yaml.safe_load((PATHS[name] / "kustomization.yaml").read_text())["images"]
    names = {f"{image['newName']}:{image['newTag']}" for image in stated}
    used = {container(workload)["image"] for workload in workloads(render(name)).values()}
    assert used == names
    ours = {image["newTag"] for image in stated if image["name"].startswith("tollwatch")}
    assert ours == {__version__}
    for file in DEPLOY.rglob("*.yaml"):
        if file.name != "kustomization.yaml":
            assert f":{__version__}" not in file.read_text()
