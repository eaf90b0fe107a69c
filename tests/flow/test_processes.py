"""How the processes start, say how they are, stop, and get over what is done to them."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from service.queue import Claim
from service.records import Delivery, State
from service.settings import WorkerSettings
from tests.flow.stage import Outside, Stage, half_a_webhook, hangups, now, open_outside, open_stage
from tests.world import processes
from tests.world.clock import later
from tests.world.model import Call
from tests.world.processes import PATIENCE_SECONDS, Process, Server
from tests.world.valkey import Valkey
from tests.world.world import World
from workers.assembly import create_worker
from workers.feed import LEASE_MS
from workers.main import WorkerProcess
from workers.policy import Policy

pytestmark = pytest.mark.anyio


# --- how they start -------------------------------------------------------------------------------

_NO_REDIS = "redis://127.0.0.1:1/0"
_SECRET = "a-secret-that-must-not-be-repeated"
_BAD_FOR_BOTH = {
    "REDIS_URL": f"http://user:{_SECRET}@localhost",
    "TOLLWATCH_LOG_LEVEL": "loud",
    "TOLLWATCH_RETENTION_DAYS": "0",
}
_BAD_FOR_WEB = {
    "TELNYX_PUBLIC_KEY": _SECRET,
    "TOLLWATCH_MAX_BODY_BYTES": "1.5",
    "TOLLWATCH_WEBHOOK_TOLERANCE_SECONDS": "-1",
}
_BAD_FOR_WORKER = {
    "TELNYX_API_KEY": "",
    "TELNYX_API_URL": "ftp://example.com",
    "SLACK_WEBHOOK_URL": _SECRET,
    "TOLLWATCH_FETCH_AFTER_SECONDS": "300,90",
    "TOLLWATCH_WORKER_CONCURRENCY": "none",
    "TOLLWATCH_MAX_SESSION_COST": "-5",
    "TOLLWATCH_RECONCILE_MINUTES": "-1",
}


@pytest.fixture
def taken_ports() -> Iterator[dict[str, str]]:
    """Ports that are in use: whoever tried to open them would say so."""
    with contextlib.ExitStack() as opened:
        names = ("TOLLWATCH_PORT", "TOLLWATCH_ADMIN_PORT")
        sockets = [opened.enter_context(socket.socket()) for _ in names]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
        ports = (str(listener.getsockname()[1]) for listener in sockets)
        yield dict(zip(names, ports, strict=True))


def _web(**settings: str) -> Server:
    return processes.web(redis_url=_NO_REDIS, public_key=World().public_key, settings=settings)


def _worker(**settings: str) -> Server:
    return processes.worker(
        redis_url=_NO_REDIS, api_url="http://localhost/v2", api_key="KEY", settings=settings
    )


@pytest.mark.parametrize(
    ("make", "bad"), [(_web, _BAD_FOR_WEB), (_worker, _BAD_FOR_WORKER)], ids=["web", "worker"]
)
async def test_bad_settings_are_all_named_before_a_port_opens(
    make: Callable[..., Server], bad: dict[str, str], taken_ports: dict[str, str]
) -> None:
    """Each bad setting is named on a line of its own, no value is repeated, and the exit is 2."""
    wrong = {**_BAD_FOR_BOTH, **bad}
    process = make(**wrong, TOLLWATCH_GRACE_SECONDS="", **taken_ports)
    assert await _exit_code(process) == 2
    assert sorted(line.partition(":")[0] for line in process.lines) == sorted(wrong)
    assert _SECRET not in "\n".join(process.lines)


async def test_a_bad_policy_is_refused_with_its_lines(
    tmp_path: Path, taken_ports: dict[str, str]
) -> None:
    """A worker with a bad policy says each fault with file and line, and exits with 2."""
    policy = _bad_policy(tmp_path)
    process = _worker(TOLLWATCH_POLICY=str(policy), **taken_ports)
    assert await _exit_code(process) == 2
    named = [line[: len(f"TOLLWATCH_POLICY: {policy}:1")] for line in process.lines]
    assert named == [f"TOLLWATCH_POLICY: {policy}:{number}" for number in (1, 2, 3)]


async def test_bad_settings_and_a_bad_policy_are_named_at_once(
    tmp_path: Path, taken_ports: dict[str, str]
) -> None:
    """Who has bad settings and a bad policy hears of both at the first start."""
    policy = _bad_policy(tmp_path)
    process = _worker(TOLLWATCH_POLICY=str(policy), TOLLWATCH_LOG_LEVEL="loud", **taken_ports)
    assert await _exit_code(process) == 2
    named = {line.partition(":")[0] for line in process.lines}
    assert named == {"TOLLWATCH_LOG_LEVEL", "TOLLWATCH_POLICY"}


@pytest.mark.parametrize("make", [_web, _worker], ids=["web", "worker"])
async def test_a_port_in_use_is_one_line(
    make: Callable[..., Server], taken_ports: dict[str, str]
) -> None:
    """A process whose port is taken says which, in one line, and exits with 2."""
    process = make(**taken_ports)
    assert await _exit_code(process) == 2
    (line,) = process.lines
    assert line.startswith("cannot listen on 127.0.0.1 port ")


async def test_neither_process_reads_the_others_secrets(outside: Outside) -> None:
    """Junk in what only the other process needs keeps neither from starting."""
    for_worker = dict.fromkeys(_BAD_FOR_WEB, "junk")
    for_web = {"TELNYX_API_KEY_FILE": "/nowhere", "SLACK_WEBHOOK_URL": "junk"}
    async with open_stage(outside, ages="1", database=1, web=for_web, worker=for_worker) as stage:
        assert [await stage.ready(server) for server in (stage.web, stage.worker)] == [
            (200, '{"status":"ready"}')
        ] * 2


def _bad_policy(directory: Path) -> Path:
    policy = directory / "policy.yaml"
    policy.write_text("currency: dollars\nmax_session_cost: -1\nseverity: {lwo: 1}\n")
    return policy


async def _exit_code(process: Process) -> int:
    if not process.is_running:
        process.start()
    return await asyncio.to_thread(process.wait)


# --- how they are ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def shaken() -> AsyncIterator[Stage]:
    """A stage with a Valkey of its own, to which things may be done."""
    async with open_outside() as outside, open_stage(outside, ages="1,2") as stage:
        yield stage


async def test_each_process_has_an_admin_port(shaken: Stage) -> None:
    """Web and worker say that they are alive, that they are ready, and what they have counted."""
    for server in (shaken.web, shaken.worker):
        pages = {
            page: await shaken.client.get(f"{server.admin_url}/{page}")
            for page in ("livez", "readyz", "metrics")
        }
        assert {answer.status_code for answer in pages.values()} == {200}
        samples = [line for line in pages["metrics"].text.splitlines() if line[0] != "#"]
        assert samples
        assert all(line.startswith(("tollwatch_", "process_")) for line in samples)


async def test_readiness_follows_redis(shaken: Stage) -> None:
    """While Redis is away both processes live and are not ready; when it is back they are again."""
    servers = (shaken.web, shaken.worker)
    shaken.valkey.stop()
    try:
        unready = [await shaken.ready(server) for server in servers]
        alive = [await shaken.client.get(f"{server.admin_url}/livez") for server in servers]
    finally:
        shaken.valkey.start()
    assert [status for status, _ in unready] == [503, 503]
    assert all('"problem":"Redis: ' in body for _, body in unready)
    assert [answer.status_code for answer in alive] == [200, 200]
    for server in servers:
        await shaken.until(partial(_is_ready, shaken, server), f"readiness of the {server.name}")


async def test_processes_may_start_before_redis(outside: Outside) -> None:
    """Without Redis both processes start, live and are not ready, until it comes."""
    with Valkey() as valkey:
        url = valkey.url
    servers = [
        processes.web(redis_url=url, public_key=outside.world.public_key),
        processes.worker(redis_url=url, api_url=outside.world.telnyx_url, api_key="KEY"),
    ]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False)
        )
        for server in servers:
            server.start()
            stack.push_async_callback(asyncio.to_thread, server.terminate)
        for server in servers:
            await asyncio.to_thread(server.wait_ready, f"{server.admin_url}/livez")
            assert (await client.get(f"{server.admin_url}/readyz")).status_code == 503
        stack.enter_context(Valkey(port=valkey.port))
        for server in servers:
            await asyncio.to_thread(server.wait_ready)


async def test_a_worker_goes_on_when_redis_has_restarted(shaken: Stage) -> None:
    """A session that waits, and one that is worked on, while Redis restarts get their verdicts."""
    waiting, in_work = shaken.world.call("sip_inbound"), shaken.past("sip_inbound")
    slow = shaken.world.telnyx.faults.delay(0.5, path=in_work.session_id)
    await shaken.hang_up(waiting, in_work)
    await shaken.until(lambda: slow.taken, "an attempt")
    shaken.valkey.restart()
    for call in (waiting, in_work):
        # A lease whose claim was answered by nobody has to end first.
        verdict = (await shaken.ended(call)).verdict
        assert verdict
        assert verdict.total == call.total
    assert shaken.worker.is_running


async def _is_ready(stage: Stage, server: Server) -> bool:
    status, _ = await stage.ready(server)
    return status == 200


# --- how they stop --------------------------------------------------------------------------------


async def test_readiness_fails_before_the_port_closes(outside: Outside) -> None:
    """After SIGTERM webhooks are still taken for a while, though the process is not ready any more.

    A second SIGTERM ends the wait, and the exit code is 0.
    """
    drain = {"TOLLWATCH_DRAIN_SECONDS": "30"}
    async with open_stage(outside, ages="1", database=2, workers=0, web=drain) as stage:
        stage.web.send_signal(signal.SIGTERM)
        await stage.until(partial(_is_stopping, stage), "failing readiness")
        (event,) = hangups(stage.past("sip_inbound"))
        assert (await stage.post(event)).status_code == 202
        stage.web.send_signal(signal.SIGTERM)
        assert await _exit_code(stage.web) == 0


async def test_a_webhook_in_flight_is_answered_at_the_end(outside: Outside) -> None:
    """A webhook whose body is still coming when SIGTERM does is taken; then the exit code is 0."""
    async with open_stage(outside, ages="1", database=3, workers=0) as stage:
        call = stage.past("sip_inbound")
        reader, writer = await half_a_webhook(stage, call)
        stage.web.send_signal(signal.SIGTERM)
        await stage.until(lambda: stage.log(event="stopping"), "the end's beginning")
        writer.write(b" ")
        assert (await reader.readline()).split()[1] == b"202"
        writer.close()
        assert await _exit_code(stage.web) == 0
        assert len((await stage.session(call)).events) == 1


async def test_an_attempt_in_flight_is_finished_at_the_end(outside: Outside) -> None:
    """A worker that is told to stop while Telnyx answers still concludes; its exit code is 0."""
    async with open_stage(outside, ages="1", database=4) as stage:
        call = stage.past("sip_inbound")
        slow = stage.world.telnyx.faults.delay(0.5, path=call.session_id)
        await stage.hang_up(call)
        await stage.until(lambda: slow.taken, "an attempt")
        stage.worker.send_signal(signal.SIGTERM)
        assert await _exit_code(stage.worker) == 0
        assert (await stage.session(call)).state is State.VERDICT


async def test_a_worker_stops_whatever_it_is_doing(outside: Outside) -> None:
    """A worker that is told to stop does so, at whichever moment of its life.

    In this process, because forty of its own would take too long.
    """
    environ = {
        "REDIS_URL": outside.redis_url(9),
        "TELNYX_API_URL": outside.world.telnyx_url,
        "TELNYX_API_KEY": outside.world.api_key,
    }
    settings = WorkerSettings.load(environ)
    for moment in range(40):
        async with create_worker(settings, Policy()) as worker:
            stuck = await _stuck_after(worker, moment / 1000)
        assert not stuck, f"told to stop after {moment} ms, at work 5 s later: {stuck}"


async def _stuck_after(worker: WorkerProcess, seconds: float) -> list[str]:
    """Run the worker for so long; what is still at work five seconds after it was told to stop."""
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(stop))
    await asyncio.wait([working], timeout=seconds)
    stop.set()
    await asyncio.wait([working], timeout=5)
    if working.done():
        return []
    left = {task for task in worker._background if not task.done()}
    stuck = sorted(task.get_name() for task in left)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
    await working
    return stuck


async def test_a_post_in_flight_is_finished_at_the_end(outside: Outside) -> None:
    """A worker that is told to stop while Slack answers still remembers that it has told."""
    async with open_stage(outside, ages="1", database=8) as stage:
        call = stage.past("dear_destination")
        slow = stage.world.slack.faults.delay(0.5)
        await stage.hang_up(call)
        await stage.until(lambda: slow.taken, "a post")
        stage.worker.send_signal(signal.SIGTERM)
        assert await _exit_code(stage.worker) == 0
        assert [posting.delivery for posting in await stage.postings(call)] == [Delivery.POSTED]


async def test_a_worker_without_redis_gives_its_work_the_grace(outside: Outside) -> None:
    """Without Redis what is not begun cannot be given back; what is begun has its grace anyway."""
    environ = {
        "REDIS_URL": _NO_REDIS,
        "TELNYX_API_URL": outside.world.telnyx_url,
        "TELNYX_API_KEY": outside.world.api_key,
        "TOLLWATCH_GRACE_SECONDS": "1",
    }
    async with create_worker(WorkerSettings.load(environ), Policy()) as worker:
        worker.sessions._held["not begun"] = worker.alerts._held["begun"] = "token"
        claim = Claim("begun", "token", 0, taken_over=False)
        async with worker.alerts.working_on(claim):
            told = time.monotonic()
            await worker._wind_down()
    assert time.monotonic() - told >= 1


async def test_an_attempt_that_outlasts_the_grace_is_handed_on(outside: Outside) -> None:
    """What a stopping worker cannot finish it gives back: another begins at once, on no lease."""
    grace = {"TOLLWATCH_GRACE_SECONDS": "1"}
    async with open_stage(outside, ages="1", database=5, workers=2, worker=grace) as stage:
        call = stage.past("sip_inbound")
        holder, other = await _stuck(stage, call)
        holder.send_signal(signal.SIGTERM)
        assert await _exit_code(holder) == 0
        await stage.ended(call)
        assert await stage.metric(other, "tollwatch_takeovers_total") == 0


async def _is_stopping(stage: Stage) -> bool:
    return await stage.ready(stage.web) == (
        503,
        '{"status":"not ready","problem":"shutting down"}',
    )


async def _stuck(stage: Stage, call: Call) -> tuple[Server, Server]:
    """Let one of two workers be stuck at the call; that worker, and the other one."""
    stage.world.telnyx.faults.stall(path=call.session_id)
    return await _asked_by(stage, call)


async def _asked_by(stage: Stage, call: Call) -> tuple[Server, Server]:
    """Let one of two workers ask for the call; that worker, and the other one."""
    await stage.hang_up(call)
    await stage.first_asked(call)
    token = await stage.token(call)
    first, second = stage.workers
    started = await stage.until(lambda: [e for e in first.events if "worker_id" in e], "its id")
    return (first, second) if token.startswith(started[0]["worker_id"]) else (second, first)


# --- several workers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patience:
    """What takes its time: nearly half a minute in which the other tests of this module run."""

    stage: Stage
    orphan: Call
    """Its worker was killed in mid-attempt, so its lease has to end first."""
    survivor: Server
    """The worker that is left."""
    stalled: Call
    """Telnyx' first answer about it begins and does not go on."""
    shared: Stage
    """Two workers, with the grace period that is the default."""
    long: Call
    """An attempt at it takes longer than a lease."""
    handed_on: Call
    """So does this one's, whose worker is told to stop."""
    stopped: Server
    """That worker."""
    told_at: float


@pytest.fixture(scope="module", autouse=True)
async def patience(outside: Outside) -> AsyncIterator[Patience]:
    """It begins with the module's first test."""
    async with open_stage(outside, ages="1", database=6, workers=2) as stage:
        orphan, stalled = stage.past("dear_destination"), stage.past("sip_inbound")
        holder, survivor = await _stuck(stage, orphan)
        holder.kill()
        stage.world.telnyx.faults.stall(path=stalled.session_id)
        await stage.hang_up(stalled)
        default = {"TOLLWATCH_GRACE_SECONDS": "20"}
        async with open_stage(outside, ages="1", database=10, workers=2, worker=default) as shared:
            long = _slow_call(shared)
            _, other = await _asked_by(shared, long)
            handed_on = await _held_by(shared, other)
            other.send_signal(signal.SIGTERM)
            yield Patience(
                stage, orphan, survivor, stalled, shared, long, handed_on, other, time.monotonic()
            )


def _slow_call(stage: Stage) -> Call:
    """An unknown call: two questions, each as long as a patient client bears, 26 s together."""
    call = stage.world.generator.make("sip_inbound", end=later(now(stage), -30))
    stage.world.telnyx.faults.delay(13, path=call.session_id, times=2)
    return call


async def _held_by(stage: Stage, wanted: Server) -> Call:
    """A slow call that this worker has taken up."""
    for _ in range(20):
        call = _slow_call(stage)
        holder, _ = await _asked_by(stage, call)
        if holder is wanted:
            return call
    raise AssertionError(f"{wanted.name} took up none of 20 calls")


async def test_two_workers_never_work_on_one_session_at_once(outside: Outside) -> None:
    """Two workers share what is due: both judge some, and Telnyx is asked once for each."""
    few = {"TOLLWATCH_WORKER_CONCURRENCY": "5"}
    async with open_stage(outside, ages="1", database=7, workers=2, worker=few) as stage:
        calls = [stage.past("sip_inbound") for _ in range(40)]
        stage.world.telnyx.latency_seconds = 0.2
        try:
            await stage.hang_up(*calls)
            for call in calls:
                await stage.ended(call)
                assert len(stage.asked(call)) == 1
        finally:
            stage.world.telnyx.latency_seconds = 0
        await stage.until(lambda: len(stage.log(event="verdict")) == len(calls), "all verdicts")
        judged = [[e for e in worker.events if e["event"] == "verdict"] for worker in stage.workers]
        assert all(judged)


async def test_a_killed_workers_session_is_taken_up(patience: Patience) -> None:
    """When a worker dies at work, its lease ends and another one judges the call and tells once."""
    stage, call = patience.stage, patience.orphan
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    assert len(await stage.told(call)) == 1
    assert len(await stage.heard(call, "verdict")) == 1
    assert await stage.metric(patience.survivor, "tollwatch_takeovers_total") == 1


async def test_an_answer_that_stops_halfway_is_given_up(patience: Patience) -> None:
    """A worker does not wait for ever: the session is held, uses up no try, and is asked again."""
    stage, call = patience.stage, patience.stalled
    verdict = (await stage.ended(call)).verdict
    assert verdict
    assert verdict.total == call.total
    assert [request.fault for request in stage.asked(call)] == ["stall", None]
    assert len(await stage.heard(call, "waiting")) == 1
    assert stage.log(call, "attempt failed") == []


async def test_a_job_longer_than_its_lease_is_not_taken_over(patience: Patience) -> None:
    """A worker that lives keeps its lease for as long as its work takes."""
    stage, call = patience.shared, patience.long
    await stage.ended(call, State.UNAVAILABLE)
    (ended,) = await stage.heard(call, "unavailable")
    asked = stage.asked(call)
    begun, done = asked[0].at, datetime.fromisoformat(ended["timestamp"]).timestamp()
    assert done - begun > LEASE_MS / 1000
    assert len(asked) == 2


async def test_a_worker_stops_within_the_default_grace_whatever_it_does(patience: Patience) -> None:
    """With the default settings SIGTERM ends a worker in half a minute, and costs no try."""
    stage, call = patience.shared, patience.handed_on
    remaining = 30 - (time.monotonic() - patience.told_at)
    assert await asyncio.to_thread(patience.stopped.wait, max(0.1, remaining)) == 0
    assert await stage.failures(call) == 0
    await stage.ended(call, State.UNAVAILABLE)
