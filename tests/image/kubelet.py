"""Starts the pods of rendered manifests, asks their probes, and replaces them, as a cluster would.

Each pod has an address of its own. A service is a proxy that knows which pods are ready, and learns
with some delay that one is about to end: that is what a rollout has to bear.
"""

import asyncio
import itertools
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import httpx

from tests.image.container import Container, Limits, Mount
from tests.image.network import Network, Place
from tests.image.pods import Pod, Probe
from tests.world.processes import wait_until_async

ENDPOINT_LAG_SECONDS: Final = 1.5
"""How long a service still sends to a pod after its end was decided."""
_READY_SECONDS: Final = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Program:
    """What an image name stands for: its files, environment, directory and command."""

    root: Path
    environ: Mapping[str, str]
    cwd: str
    command: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What stands here for programs that the manifests call by name."""

    def words(self, command: Sequence[str]) -> list[str]:
        """The command as it can be run here."""
        return [*self.names.get(command[0], command[:1]), *command[1:]]


class RunningPod:
    """A pod that was started, and what its probes say of it."""

    def __init__(self, pod: Pod, program: Program, container: Container, place: Place) -> None:
        self.pod = pod
        self._program = program
        self.container = container
        self.place = place
        self.is_ready = False
        self.is_ending = False
        """Whether its end was decided; services know that a little later."""
        self.failures: list[str] = []
        """Liveness probes that failed so often that a kubelet would start it anew."""
        self.probed = 0
        self.seconds_to_ready = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start it and begin to probe."""
        begun = time.monotonic()
        # Not in a thread of a pool: what it starts would end with that thread.
        self.container.start()
        self._tasks.append(asyncio.create_task(self._probing(begun)))

    async def until_ready(self) -> None:
        """Wait for its readiness. Raises ProcessFailed where it ends before."""

        def is_ready() -> bool:
            if not self.container.is_running:
                raise self.container.failure("before it was ready")
            return self.is_ready

        try:
            await wait_until_async(
                is_ready, description=f"{self.container.name} ready", timeout_seconds=_READY_SECONDS
            )
        except TimeoutError as late:
            raise TimeoutError(f"{late}:\n{self.container.last_lines}") from None

    async def end(self) -> tuple[int, float]:
        """As when it is deleted: the hook, SIGTERM, its grace. The exit code, and the seconds."""
        begun = time.monotonic()
        self.is_ending = True
        hook = self.pod.pre_stop
        if isinstance(hook, float):
            await asyncio.sleep(hook)
        elif hook:
            assert await self._execute(hook) == 0, hook
        left = self.pod.grace_seconds - (time.monotonic() - begun)
        if self.container.is_running:
            await asyncio.to_thread(self.container.tell, signal.SIGTERM)
        code = await asyncio.to_thread(self.container.wait, left)
        await self._cancel()
        self.is_ready = False
        await asyncio.to_thread(self.place.leave)
        return code, time.monotonic() - begun

    async def stop(self) -> None:
        """End it at once, whatever it is at."""
        self.is_ending = True
        await asyncio.to_thread(self.container.terminate)
        await asyncio.to_thread(self.place.leave)
        await self._cancel()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError | None):
                raise ended

    async def _probing(self, begun: float) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            if self.pod.startup:
                await self._until_started(client, self.pod.startup)
            await asyncio.gather(
                self._watch(client, self.pod.readiness, self._readiness(begun)),
                self._watch(client, self.pod.liveness, self._liveness),
            )

    async def _until_started(self, client: httpx.AsyncClient, probe: Probe) -> None:
        await asyncio.sleep(probe.delay)
        for _ in range(probe.failures):
            if await self._ask(client, probe):
                return
            await asyncio.sleep(probe.period)
        self.failures.append("startup")

    async def _watch(
        self, client: httpx.AsyncClient, probe: Probe | None, tell: Callable[[bool], None]
    ) -> None:
        """Probes for ever; what holds is told."""
        if probe is None:
            tell(True)
            return
        await asyncio.sleep(probe.delay)
        failed = 0
        while True:
            begun = time.monotonic()
            failed = 0 if await self._ask(client, probe) else failed + 1
            if not failed or failed >= probe.failures:
                tell(not failed)
            await asyncio.sleep(max(0.0, probe.period - (time.monotonic() - begun)))

    def _readiness(self, begun: float) -> Callable[[bool], None]:
        def tell(holds: bool) -> None:
            if holds and not self.seconds_to_ready:
                self.seconds_to_ready = time.monotonic() - begun
            self.is_ready = holds

        return tell

    def _liveness(self, holds: bool) -> None:
        if not holds and not self.is_ending:
            self.failures.append("liveness")

    async def _ask(self, client: httpx.AsyncClient, probe: Probe) -> bool:
        self.probed += 1
        if probe.command:
            return await self._execute(probe.command) == 0
        if not probe.path:
            return await _connects(self.place.address, probe)
        url = f"http://{self.place.address}:{probe.port}{probe.path}"
        try:
            answer = await client.get(url, timeout=probe.timeout)
        except httpx.HTTPError:
            return False
        return answer.is_success

    async def _execute(self, command: Sequence[str]) -> int:
        return await asyncio.to_thread(self.container.execute, self._program.words(command))


class Cluster:
    """The pods, on one network; `names` are what they know each other by."""

    def __init__(
        self, network: Network, programs: Mapping[str, Program], scratch: Path, names: Sequence[str]
    ) -> None:
        """`programs` by the image's name. Services listen on this machine's address."""
        self._network = network
        self._programs = programs
        self._scratch = scratch
        hosts = scratch / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{network.gateway} {' '.join(names)}\n")
        hosts.chmod(0o644)
        self._hosts = Mount(hosts, "/etc/hosts")
        self.pods: list[RunningPod] = []

    async def start(self, pod: Pod, **more: str) -> RunningPod:
        """A new pod of that kind. `more` is added to its environment."""
        place = await asyncio.to_thread(self._network.attach)
        program = self._program(pod)
        running = RunningPod(pod, program, self._container(pod, program, place, more), place)
        self.pods.append(running)
        await running.start()
        return running

    async def end(self, running: RunningPod) -> tuple[int, float]:
        """The end of one of them: its exit code, and how many seconds that took."""
        try:
            return await running.end()
        finally:
            self.pods.remove(running)

    async def roll_out(self, workload: str, pod: Pod, **more: str) -> list[tuple[int, float]]:
        """Replaces a workload's pods one by one: a new one is ready before an old one ends."""
        ends = []
        for old in [each for each in self.pods if each.pod.workload == workload]:
            new = await self.start(pod, **more)
            await new.until_ready()
            ends.append(await self.end(old))
        return ends

    async def close(self) -> None:
        """End all that runs, the newest first."""
        for running in reversed(self.pods):
            await running.stop()
        self.pods.clear()

    def _program(self, pod: Pod) -> Program:
        """By the image's own name: whose registry holds it and which version it is are left out."""
        return self._programs[pod.image.rpartition("/")[2].partition("@")[0].partition(":")[0]]

    def _container(
        self, pod: Pod, program: Program, place: Place, more: Mapping[str, str]
    ) -> Container:
        number = next(_numbers)
        words = program.words([*(pod.command or program.command), *pod.arguments])
        mounts, temporary = self._volumes(pod, self._scratch / f"{pod.workload}-{number}")
        limits = Limits(
            user=pod.user,
            group=pod.group,
            memory_bytes=pod.memory_bytes,
            mounts=[self._hosts, *mounts],
            temporary=temporary,
            network=place.path,
        )
        name = f"{pod.workload} {number}"
        environ = {**program.environ, **pod.environ, **more}
        return Container(name, program.root, words, environ, cwd=program.cwd, limits=limits)

    def _volumes(self, pod: Pod, directory: Path) -> tuple[list[Mount], list[str]]:
        mounts, temporary = [], []
        for number, mounted in enumerate(pod.mounts):
            if mounted.files is None:
                temporary.append(mounted.path)
                continue
            source = directory / str(number)
            source.mkdir(parents=True)
            source.chmod(0o755)
            for name, content in mounted.files.items():
                path = source / name
                path.write_bytes(content)
                path.chmod(0o440)
                shutil.chown(path, 0, pod.group)
            mounts.append(Mount(source, mounted.path))
        return mounts, temporary


class ServiceProxy:
    """Passes connections on to ready pods in turn, as kube-proxy does; as a context manager."""

    def __init__(
        self, cluster: Cluster, network: Network, workload: str, port: int, to: str
    ) -> None:
        """`to` is the name of the pods' port."""
        self._cluster = cluster
        self._address = (network.gateway, port)
        self._workload = workload
        self._to = to
        self._turn = 0
        self._known: list[RunningPod] = []
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, *self._address)
        self._updating = asyncio.create_task(self._update())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [self._updating, *self._passing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """For whoever is outside."""
        host, port = self._address
        return f"http://{host}:{port}"

    async def _update(self) -> None:
        """What the pods are is known with a delay, as on a busy cluster."""
        while True:
            loop = asyncio.get_running_loop()
            now = [
                each
                for each in self._cluster.pods
                if each.pod.workload == self._workload and each.is_ready and not each.is_ending
            ]
            loop.call_later(ENDPOINT_LAG_SECONDS if self._known else 0.0, self._learn, now)
            await asyncio.sleep(0.05)

    def _learn(self, pods: list[RunningPod]) -> None:
        self._known = pods

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        # Cancelled at the end: an exception of a connection's task would be an error in the log.
        with suppress(asyncio.CancelledError):
            try:
                upstream = await self._connect()
                if upstream:
                    await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """To the pod whose turn it is; None where none is known, or that one does not answer."""
        if self._known:
            self._turn += 1
            pod = self._known[self._turn % len(self._known)]
            with suppress(OSError):
                return await asyncio.open_connection(pod.place.address, pod.pod.ports[self._to])
        return None


async def _connects(host: str, probe: Probe) -> bool:
    try:
        async with asyncio.timeout(probe.timeout):
            _, writer = await asyncio.open_connection(host, probe.port)
    except OSError:  # A time-out is one.
        return False
    writer.close()
    return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()
