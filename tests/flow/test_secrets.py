"""Secrets stay inside: processes and commands that fail in every way, and all that they say.

The public key is no secret. What a process was given in its environment, its own user can read in
`/proc`; the `NAME_FILE` variants are for those who mind.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from service.connect import redis_pool
from service.settings import WebSettings, WorkerSettings
from tests.flow.stage import Outside, Stage, open_stage
from tests.world import processes
from tests.world.processes import PATIENCE_SECONDS, Process, Server, free_port
from tests.world.telnyx import API_KEY
from tests.world.valkey import Valkey
from workers.slack import SlackClient
from workers.telnyx import TelnyxClient

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]

PASSWORD: Final = "pass/word@of:redis?SECRET#1"  # every character that a URL would trip over
WRONG_PASSWORD: Final = "quite-the-WRONG-one"
SLACK_PATH: Final = "/services/T0SECRET/B0SECRET/xoxSECRET"
SECRETS: Final = (
    PASSWORD,
    quote(PASSWORD, safe=""),
    WRONG_PASSWORD,
    API_KEY,
    API_KEY[8:],
    SLACK_PATH,
    "T0/B0",
    "SECRET",
)
_DEBUG: Final = {"TOLLWATCH_LOG_LEVEL": "debug", "TOLLWATCH_GRACE_SECONDS": "1"}
_PUBLIC_KEY: Final = "/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU="
_TOLLWATCH: Final = Path(sys.executable).with_name("tollwatch")


class Guarded(Outside):
    """An outside whose Redis wants a password, which stands in the URL."""

    def redis_url(self, database: int = 0) -> str:
        return url_with(self.valkey, PASSWORD, database)


def url_with(valkey: Valkey, password: str, database: int = 0) -> str:
    address = urlsplit(valkey.url)
    return f"redis://default:{quote(password, safe='')}@{address.netloc}/{database}"


@pytest.fixture(scope="module")
async def guarded(outside: Outside) -> Guarded:
    """The outside, with a lock on its Redis."""
    async with Redis.from_url(outside.valkey.url) as redis:
        await redis.config_set("requirepass", PASSWORD)
    return Guarded(outside.world, outside.valkey)


def leaks(text: str) -> list[str]:
    """The secrets that stand in it, and where."""
    return [text[max(0, text.index(secret) - 100) :][:200] for secret in SECRETS if secret in text]


def command_line(process: Process) -> str:
    """What anybody on the machine sees of a process."""
    return Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")


async def said(server: Server) -> str:
    """All that a running process says to whom may ask: its lines, metrics, readiness, name."""
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        pages = [await client.get(f"{server.admin_url}/{page}") for page in ("metrics", "readyz")]
    return "\n".join([*server.lines, *(page.text for page in pages), command_line(server)])


# --- processes that run ---------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_worker_whose_vendors_tell_on_it(
    guarded: Guarded, tmp_path: Path, log_format: str
) -> None:
    """A Telnyx and a Slack that refuse, and print what they were sent, learn others nothing."""
    key, slack = tmp_path / "key", tmp_path / "slack"
    key.write_text(API_KEY)
    slack.write_text(guarded.world.slack_url)
    files = {
        "TELNYX_API_KEY": "",
        "TELNYX_API_KEY_FILE": str(key),
        "SLACK_WEBHOOK_URL": "",
        "SLACK_WEBHOOK_URL_FILE": str(slack),
        "TOLLWATCH_LOG_FORMAT": log_format,
        **_DEBUG,
    }
    database = {"json": 1, "console": 2}[log_format]
    async with open_stage(guarded, ages="1", database=database, web=_DEBUG, worker=files) as stage:
        await provoke(stage)
        for server in (stage.web, stage.worker):
            assert leaks(await said(server)) == []


async def provoke(stage: Stage) -> None:
    """Refusals that repeat what came with the question, then an alert that Slack refuses."""
    world = stage.world
    echo = {"errors": [{"code": "10009", "title": f"Bearer {API_KEY} is no key"}]}
    call = stage.past("wrong_rate")
    # Each time: the first answer comes to nothing where the second leg is taken meanwhile.
    refusal = msgspec.json.encode(echo)
    world.telnyx.faults.status(401, path=call.session_id, times=None, body=refusal)
    await stage.hang_up(call)
    await stage.until(lambda: any("401" in line for line in stage.worker.lines), "a refusal")
    await stage.held(call)
    world.telnyx.faults.clear()
    body = f"no_text at {world.slack_url}{SLACK_PATH}".encode()
    world.slack.faults.status(500, body=body)
    await stage.hurry(call)
    await stage.ended(call)
    await stage.until(lambda: "alert waits" in "".join(stage.worker.lines), "a refusal of Slack's")


@pytest.mark.parametrize("trouble", ["password", "host"])
async def test_processes_that_do_not_get_to_redis(guarded: Guarded, trouble: str) -> None:
    """A Redis that refuses, or that is not there, is told of without its URL."""
    url = url_with(guarded.valkey, WRONG_PASSWORD)
    if trouble == "host":
        url = f"redis://default:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}/0"
    world = guarded.world
    web = processes.web(redis_url=url, public_key=world.public_key, settings=_DEBUG)
    worker = processes.worker(
        redis_url=url,
        api_url=f"http://127.0.0.1:{free_port()}/v2",
        api_key=API_KEY,
        slack_url=f"http://127.0.0.1:{free_port()}{SLACK_PATH}",
        settings=_DEBUG,
    )
    async with started(web, worker):
        body = b"{}"
        signed = world.signer.headers(body, at=world.clock())
        headers = {"content-type": "application/json", **signed}
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
            await client.post(f"{web.url}/webhooks/telnyx", content=body, headers=headers)
            for server in (web, worker):
                readiness = await client.get(f"{server.admin_url}/readyz")
                assert readiness.status_code == 503
                assert leaks(await said(server)) == []


@asynccontextmanager
async def started(*servers: Server) -> AsyncIterator[None]:
    """Processes that answer on their admin port, ready or not."""
    for server in servers:
        server.start()
    try:
        for server in servers:
            await asyncio.to_thread(server.wait_ready, f"{server.admin_url}/livez")
        yield
    finally:
        for server in servers:
            await asyncio.to_thread(server.terminate)
    for server in servers:
        assert leaks("\n".join(server.lines)) == []


# --- processes that do not start ------------------------------------------------------------------


@pytest.mark.parametrize("module", ["service", "workers"])
def test_bad_settings_are_not_repeated(module: str, tmp_path: Path) -> None:
    """A secret that was put into the wrong place, or is malformed, is not printed back."""
    wrong = f"{PASSWORD} {API_KEY} \n{SLACK_PATH}"
    file = tmp_path / "file"
    file.write_text(wrong)
    names = ("REDIS_URL", "TELNYX_PUBLIC_KEY", "TELNYX_API_KEY", "TELNYX_API_URL")
    more = ("SLACK_WEBHOOK_URL", "TOLLWATCH_PORT", "TOLLWATCH_FETCH_AFTER_SECONDS")
    for environ in (
        dict.fromkeys((*names, *more), wrong),
        {f"{name}_FILE": str(file) for name in (*names, "SLACK_WEBHOOK_URL")},
        {f"{name}_FILE": wrong for name in names},
    ):
        process = Process(module, [sys.executable, "-m", module], {**environ, **_DEBUG})
        process.start()
        assert process.wait() == 2
        assert process.lines
        assert leaks("\n".join(process.lines)) == []


# --- the command line -----------------------------------------------------------------------------

_COMMANDS: Final = (
    ("show", "no-such-session"),
    ("sessions",),
    ("alerts",),
    ("analyze", "call-session", "no-such-session"),
    ("record-types",),
)


def good(guarded: Guarded) -> dict[str, str]:
    """Settings with which everything works."""
    return {
        "REDIS_URL": guarded.redis_url(),
        "TELNYX_API_KEY": API_KEY,
        "TELNYX_API_URL": guarded.world.telnyx_url,
        "SLACK_WEBHOOK_URL": guarded.world.slack_url,
        "TELNYX_PUBLIC_KEY": _PUBLIC_KEY,
    }


def bad(guarded: Guarded) -> dict[str, dict[str, str]]:
    """Settings with which it does not, by what is wrong."""
    closed = f"http://127.0.0.1:{free_port()}"
    return {
        "password": {"REDIS_URL": url_with(guarded.valkey, WRONG_PASSWORD)},
        "refused": {
            "TELNYX_API_KEY": f"{API_KEY}SECRET",
            "SLACK_WEBHOOK_URL": closed + SLACK_PATH,
        },
        "unreachable": {"TELNYX_API_URL": f"{closed}/v2", "REDIS_URL": f"redis://:{PASSWORD}@x"},
        "malformed": dict.fromkeys(good(guarded), f"{PASSWORD} {API_KEY}"),
    }


@pytest.mark.parametrize("trouble", ["password", "refused", "unreachable", "malformed", "none"])
async def test_a_check_tells_no_secret(guarded: Guarded, trouble: str) -> None:
    """However the check fails, neither its output nor its place in the process list has one."""
    await look_at_command(("check", "--slack"), good(guarded) | bad(guarded).get(trouble, {}))


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
async def test_commands_tell_no_secret(guarded: Guarded, command: tuple[str, ...]) -> None:
    """Nor has any other command's, where Redis' password and Telnyx's key are wrong."""
    wrong = bad(guarded)
    await look_at_command(command, good(guarded) | wrong["refused"] | wrong["password"])


async def look_at_command(command: tuple[str, ...], environ: Mapping[str, str]) -> None:
    process = Process("tollwatch", [_TOLLWATCH, *command], environ)
    process.start()
    assert leaks(command_line(process)) == []
    assert await asyncio.to_thread(process.wait, 60) in {0, 1, 2}
    assert process.lines
    assert leaks("\n".join(process.lines)) == []


# --- what an object says of itself ----------------------------------------------------------------


async def test_no_repr_tells_a_secret() -> None:
    """Settings, clients and connections, printed by mistake, show nothing."""
    url = f"redis://default:{quote(PASSWORD, safe='')}@127.0.0.1:1/0"
    web = WebSettings.load({"REDIS_URL": url, "TELNYX_PUBLIC_KEY": _PUBLIC_KEY})
    worker = WorkerSettings.load(
        {
            "REDIS_URL": url,
            "TELNYX_API_KEY": API_KEY,
            "SLACK_WEBHOOK_URL": f"https://hooks.slack.test{SLACK_PATH}",
        }
    )
    pool: Any = redis_pool(url, connections=1, timeout_seconds=0.1)
    things: list[Any] = [web, worker, web.model_dump(), worker.model_dump(), pool]
    things += [Redis(connection_pool=pool), pool.make_connection()]
    slack, telnyx = (
        SlackClient(worker.slack_url or ""),
        TelnyxClient("http://x", worker.api_key, version="0"),
    )
    things += [slack, telnyx, vars(slack), vars(telnyx), SecretStr(PASSWORD)]
    async with slack, telnyx:
        shown = "\n".join(f"{thing!r} {thing}" for thing in things)
    assert leaks(shown) == []
