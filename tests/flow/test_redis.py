"""Whatever befalls Redis: what was accepted gets its verdict, what cannot be kept is refused."""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest

from service import keys
from tests.flow.stage import (
    ALL_POSTED_BY_AGE_ONE,
    Outside,
    Stage,
    hangups,
    now_ms,
    open_stage,
)
from tests.world import processes
from tests.world.model import Call
from tests.world.processes import PATIENCE_SECONDS, ROOT, Process, Server, wait_until
from tests.world.tunnel import Authority, tunnel
from tests.world.valkey import Sentinel, Valkey
from tests.world.webhooks import Delivery
from tests.world.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

# --- what can be wrong with it --------------------------------------------------------------------


@contextlib.contextmanager
def _away(valkey: Valkey) -> Iterator[None]:
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()


@contextlib.contextmanager
def _full(valkey: Valkey) -> Iterator[None]:
    valkey.obey("CONFIG SET maxmemory 1")
    try:
        yield
    finally:
        valkey.obey("CONFIG SET maxmemory 0")


@contextlib.contextmanager
def _unable_to_save(valkey: Valkey) -> Iterator[None]:
    """A snapshot cannot take its place, since a directory has it."""
    in_the_way = Path(valkey.ask("CONFIG GET dir").split()[-1].decode()) / "dump.rdb"
    (in_the_way / "something").mkdir(parents=True)
    valkey.obey("CONFIG SET save '3600 1'")
    _save(valkey, "err")
    try:
        yield
    finally:
        (in_the_way / "something").rmdir()
        in_the_way.rmdir()
        _save(valkey, "ok")
        valkey.obey("CONFIG SET save ''")


def _save(valkey: Valkey, outcome: str) -> None:
    valkey.obey("BGSAVE")
    said = f"rdb_last_bgsave_status:{outcome}\r\n".encode()
    wait_until(lambda: said in valkey.ask("INFO persistence"), description=f"a save: {outcome}")


@contextlib.contextmanager
def _demoted(valkey: Valkey) -> Iterator[None]:
    valkey.obey("REPLICAOF 127.0.0.1 1")
    try:
        yield
    finally:
        valkey.obey("REPLICAOF NO ONE")


@contextlib.contextmanager
def _loading(valkey: Valkey) -> Iterator[None]:
    """It loads what it holds, slowly: ten seconds, or until it is told to be quick."""
    valkey.obey("DEBUG POPULATE 2000 scratch 1100")
    valkey.obey("CONFIG SET key-load-delay 5000")
    with socket.create_connection(("127.0.0.1", valkey.port)) as connection:
        connection.sendall(b"DEBUG RELOAD\r\n")
        wait_until(lambda: valkey.ask("GET x").startswith(b"-LOADING"), description="loading")
        try:
            yield
        finally:
            valkey.obey("CONFIG SET key-load-delay 0")
            assert connection.recv(16).startswith(b"+OK")
    valkey.obey("EVAL \"return redis.call('DEL', unpack(redis.call('KEYS', 'scratch:*')))\" 0")


@dataclass(frozen=True)
class Fault:
    """Something that befalls Redis while its context is open."""

    open: Callable[[Valkey], contextlib.AbstractContextManager[None]]
    said: str
    """What readiness says meanwhile."""
    loses_work: bool = True
    """Whether an attempt that ends meanwhile is sure not to be concluded, and is made again."""


FAULTS: Final = {
    "away": Fault(_away, "Redis: ConnectionError"),
    "slow": Fault(Valkey.paused, "no answer within 2 s", loses_work=False),
    "full": Fault(_full, "Redis: OutOfMemoryError OOM"),
    "unable to save": Fault(_unable_to_save, "Redis: ResponseError MISCONF"),
    "demoted": Fault(_demoted, "Redis: NotTheMaster READONLY"),
    # A worker's patience may outlast it.
    "loading": Fault(_loading, "Redis: BusyLoadingError LOADING", loses_work=False),
}


@pytest.fixture(scope="module")
async def shaken() -> AsyncIterator[Stage]:
    """Processes whose Redis goes through all of it, one fault after the other."""
    options = {"enable-debug-command": "yes", "loading-process-events-interval-bytes": "1024"}
    with Valkey(persistent=True, options=options) as valkey:
        async with (
            World(time_scale=ALL_POSTED_BY_AGE_ONE) as world,
            open_stage(Outside(world, valkey), ages="1") as stage,
        ):
            yield stage


@pytest.mark.parametrize("name", FAULTS)
async def test_a_redis_that_fails(shaken: Stage, name: str) -> None:
    """While Redis fails, webhooks are refused for later, and both processes say what is wrong.

    When it is over the same processes go on: what waited, what was worked on and what was refused
    gets its verdict, is told once, and has used up no try.
    """
    stage, fault = shaken, FAULTS[name]
    servers = (stage.web, stage.worker)
    pids = [server.pid for server in servers]
    in_work, refused = stage.past("dear_destination"), stage.past("sip_inbound")
    waiting = stage.world.call("sip_inbound")
    slow = stage.world.telnyx.faults.delay(0.5, path=in_work.session_id)
    await stage.hang_up(waiting, in_work)
    await stage.until(lambda: slow.taken, "an attempt")
    with fault.open(stage.valkey):
        answers, unready = await asyncio.gather(
            asyncio.gather(*(stage.post(event) for event in hangups(refused) * 20)),
            asyncio.gather(*(stage.ready(server) for server in servers)),
        )
        if fault.loses_work:
            await stage.heard(in_work, "attempt lost Redis")
    assert {(a.status_code, a.headers["retry-after"]) for a in answers} == {(503, "5")}
    assert [status for status, _ in unready] == [503, 503]
    # While it loads, Redis answers only between its pieces.
    known = (fault.said, "no answer within") if name == "loading" else (fault.said,)
    problems = [json.loads(body)["problem"] for _, body in unready]
    assert all(problem.startswith(known) for problem in problems), problems
    for server in servers:
        await stage.until(partial(_is_ready, stage, server), f"readiness of the {server.name}")
    for event in hangups(refused):
        # A server that was only slow may have taken what nobody waited for any more.
        assert (await stage.post(event)).status_code in {200, 202}
    for call in (in_work, refused, waiting):
        await _judged(stage, call)
    assert len(await stage.told(in_work)) == 1
    assert [server.pid for server in servers] == pids
    assert all(server.is_running for server in servers)


async def test_a_slow_redis_piles_nothing_up(shaken: Stage) -> None:
    """However many webhooks come while Redis hangs, each is answered, on a few connections."""
    stage = shaken
    (event,) = hangups(stage.past("sip_inbound"))
    with stage.valkey.paused():
        answers = await asyncio.gather(*(stage.post(event) for _ in range(150)))
    assert {answer.status_code for answer in answers} == {503}
    await stage.until(partial(_is_ready, stage, stage.web), "readiness of the web process")
    assert (await stage.post(event)).is_success
    # The tests' own and the worker's are among them.
    assert (await stage.redis.info("clients"))["connected_clients"] < 40


async def _is_ready(stage: Stage, server: Server) -> bool:
    status, _ = await stage.ready(server)
    return status == 200


async def _judged(stage: Stage, call: Call) -> None:
    """The call comes to its verdict, and no try was spent on what was not its own failure."""
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    assert await stage.failures(call) == 0
    assert stage.log(call, "attempt failed") == []


# --- failover -------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A master, its replica, and a sentinel that watches over them."""

    master: Valkey
    replica: Valkey
    sentinel: Sentinel

    async def fail_over(self) -> None:
        """Wait until the replica is the master."""
        await asyncio.to_thread(
            wait_until,
            lambda: self.sentinel.master_port == self.replica.port,
            description="the failover",
        )


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with (
        Valkey(persistent=True) as master,
        Valkey(persistent=True, replica_of=master) as replica,
        Sentinel(master) as sentinel,
    ):
        wait_until(sentinel.knows_replica, description="a replica that could be the master")
        yield Cluster(master, replica, sentinel)


@asynccontextmanager
async def _stage_on(cluster: Cluster, redis_url: str) -> AsyncIterator[Stage]:
    replicas = {"TOLLWATCH_REDIS_REPLICAS": "1"}
    async with World(time_scale=ALL_POSTED_BY_AGE_ONE) as world:
        outside = Outside(world, cluster.master)
        async with open_stage(
            outside, ages="1", redis_url=redis_url, web=replicas, worker=replicas
        ) as stage:
            yield stage


@dataclass
class Flow:
    """Webhooks that come one after the other, and which of them were taken."""

    stage: Stage
    taken: list[Call] = field(default_factory=list)
    refused: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        streams = [asyncio.create_task(self._send()) for _ in range(4)]
        try:
            yield
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def more(self) -> None:
        """Wait until some more were taken."""
        wanted = len(self.taken) + 20
        await self.stage.until(lambda: len(self.taken) >= wanted, "webhooks taken", 40)

    async def _send(self) -> None:
        while True:
            call = self.stage.past("sip_inbound")
            (event,) = hangups(call)
            answer = await self.stage.post(event)
            assert answer.status_code in {202, 503}
            if answer.is_success:
                self.taken.append(call)
            else:
                self.refused += 1


@pytest.mark.parametrize("planned", [False, True], ids=["the master dies", "planned"])
async def test_a_failover_loses_nothing_that_was_taken(cluster: Cluster, planned: bool) -> None:
    """With a replica that must have it, each event that got a 2xx is there after the failover.

    Web and worker follow the sentinel to the new master by themselves.
    """
    async with _stage_on(cluster, cluster.sentinel.url) as stage, AsyncExitStack() as later:
        pids = [stage.web.pid, stage.worker.pid]
        flow = Flow(stage)
        async with flow.running():
            await flow.more()
            if planned:
                cluster.sentinel.fail_over()
            else:
                cluster.master.kill()
            await cluster.fail_over()
            another = Valkey(persistent=True, replica_of=cluster.replica)
            later.callback(another.stop)
            await asyncio.to_thread(another.start)
            await flow.more()
        assert flow.refused, "nothing was under way when the master went"
        found = [await stage.store.session(call.session_id) for call in flow.taken]
        assert all(found), f"{found.count(None)} of {len(found)} are lost"
        # Leases whose claim was answered by nobody end by themselves, in twenty seconds.
        for id in await stage.redis.zrange(keys.DUE, 0, -1):
            await stage.redis.zadd(keys.DUE, {id: now_ms()}, xx=True)
        for call in flow.taken:
            await _judged(stage, call)
        assert [stage.web.pid, stage.worker.pid] == pids


async def test_what_no_replica_has_is_not_taken(cluster: Cluster) -> None:
    """While the replica hangs a webhook is refused, also one whose event the master has already.

    Readiness says that too few replicas have it. When the replica is back both are taken.
    """
    async with _stage_on(cluster, cluster.master.url) as stage:
        (event,) = hangups(stage.past("sip_inbound"))
        with cluster.replica.paused():
            answers = [await stage.post(event) for _ in range(2)]
            ready = [await stage.ready(server) for server in (stage.web, stage.worker)]
        assert [answer.status_code for answer in answers] == [503, 503]
        said = "Redis: TooFewReplicas 0 of 1 replicas have it"
        assert ready == [(503, f'{{"status":"not ready","problem":"{said}"}}')] * 2
        not_kept = await stage.until(lambda: stage.log(event="webhook not kept"), "the reason")
        assert not_kept[0]["error"] == "TooFewReplicas 0 of 1 replicas have it"
        assert await stage.metric(stage.web, "tollwatch_redis_errors_total") == 2
        taken = await stage.until(partial(_taken, stage, event), "the webhook taken")
        assert taken
        assert taken.json() == {"status": "duplicate"}


@pytest.mark.parametrize("demoted", [True, False], ids=["demoted", "left by its replicas"])
async def test_a_plain_url_follows_the_service(cluster: Cluster, demoted: bool) -> None:
    """Behind a name that leads to another server after a failover, connections are made anew.

    Also where the old master has not heard of it: that it has no replicas any more is enough.
    """
    target = cluster.master
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(tunnel(lambda: target.port))
        stage = await stack.enter_async_context(_stage_on(cluster, f"redis://127.0.0.1:{port}/0"))
        before, after = stage.past("dear_destination"), stage.past("sip_inbound")
        await stage.hang_up(before)
        await _judged(stage, before)
        await stage.told(before)
        cluster.sentinel.stop()  # It would undo this.
        cluster.replica.obey("REPLICAOF NO ONE")
        target = cluster.replica
        if demoted:
            cluster.master.obey(f"REPLICAOF 127.0.0.1 {cluster.replica.port}")
        else:
            stack.enter_context(Valkey(persistent=True, replica_of=cluster.replica))
        (event,) = hangups(after)
        await stage.until(partial(_taken, stage, event), "a webhook taken by the new master")
        for server in (stage.web, stage.worker):
            await stage.until(partial(_is_ready, stage, server), "readiness")
        # The tests' own know nothing of it.
        await stage.redis.connection_pool.disconnect()
        await _judged(stage, after)
        assert (await stage.session(before)).verdict


async def _taken(stage: Stage, event: Delivery) -> httpx.Response | None:
    answer = await stage.post(event)
    return answer if answer.is_success else None


# --- TLS, and a user who may do only what is needed -----------------------------------------------


async def test_tls(outside: Outside, tmp_path: Path) -> None:
    """Over rediss:// a call comes to its verdict; who does not trust the server says so."""
    authority = Authority.create(tmp_path)
    other = Authority.create(tmp_path, "another authority")
    async with tunnel(lambda: outside.valkey.port, authority.server_context(tmp_path)) as port:
        url = f"rediss://localhost:{port}/2?ssl_ca_certs="
        async with open_stage(
            outside, ages="1", redis_url=f"{url}{authority.certificate}"
        ) as stage:
            call = stage.past("dear_destination")
            await stage.hang_up(call)
            await _judged(stage, call)
            assert len(await stage.told(call)) == 1
            assert len((await stage.show(call))["alerts"]) == 1
        problem = await _readiness_without_redis(outside, f"{url}{other.certificate}")
    assert problem.startswith("Redis: ConnectionError TLS: ")
    assert "certificate" in problem


async def _readiness_without_redis(outside: Outside, redis_url: str) -> str:
    """What a web process says that cannot reach Redis."""
    web = processes.web(redis_url=redis_url, public_key=outside.world.public_key)
    web.start()
    try:
        await asyncio.to_thread(web.wait_ready, f"{web.admin_url}/livez")
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            problem: str = (await client.get(f"{web.admin_url}/readyz")).json()["problem"]
    finally:
        await asyncio.to_thread(web.terminate)
    return problem


async def test_a_user_of_its_own(outside: Outside) -> None:
    """The user that the README proposes may do all that web, worker and command line need."""
    rule = _proposed_user()
    outside.valkey.obey(rule.replace("PASSWORD", "a-password"))
    url = outside.valkey.url.replace("redis://", "redis://tollwatch:a-password@")
    async with open_stage(outside, ages="1", redis_url=url) as stage:
        call = stage.past("dear_destination")
        await stage.hang_up(call)
        await _judged(stage, call)
        assert len(await stage.told(call)) == 1
        assert len((await stage.show(call))["alerts"]) == 1
        for command in (["sessions"], ["alerts"], ["check"]):
            await _run_cli(stage, url, *command)
        outside.valkey.obey("ACL SETUSER tollwatch -hdel")
        ready = [await stage.ready(server) for server in (stage.web, stage.worker)]
        said = "Redis: NOPERM no permission to run HDEL"
        assert ready == [(503, f'{{"status":"not ready","problem":"{said}"}}')] * 2
        assert stage.log(event="loop failed") == []
        outside.valkey.obey("ACL SETUSER tollwatch +hdel")


def _proposed_user() -> str:
    readme = (ROOT / "README.md").read_text()
    (rule,) = (line for line in readme.splitlines() if line.startswith("ACL SETUSER tollwatch "))
    return rule


async def _run_cli(stage: Stage, redis_url: str, *command: str) -> None:
    environ = {
        "REDIS_URL": redis_url,
        "TELNYX_API_KEY": stage.world.api_key,
        "TELNYX_API_URL": stage.world.telnyx_url,
        "TELNYX_PUBLIC_KEY": stage.world.public_key,
    }
    process = Process("tollwatch", [Path(sys.executable).with_name("tollwatch"), *command], environ)
    process.start()
    assert await asyncio.to_thread(process.wait) == 0, process.last_lines
