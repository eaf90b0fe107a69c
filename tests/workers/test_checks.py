"""`tollwatch check` finds what is wrong before a call is lost by it, and says what to mend."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.workers.local_http import Vendor, vendor
from tests.world.valkey import Valkey
from workers import checks as checks_module
from workers.checks import Check, Result, check_policy, check_settings, run_checks

KEY = "KEY0189ABCDEF0123456789ABCDEF01234567_abcdefGHIJKLmnopqrstuv"
PUBLIC_KEY = base64.b64encode(bytes(range(32))).decode()
METADATA = {"record_types": [{"record_type": "call-session"}, {"record_type": "inference"}]}
NOWHERE = "redis://127.0.0.1:1/0"

pytestmark = pytest.mark.anyio


@pytest.fixture
def telnyx() -> Iterator[Vendor]:
    """A Telnyx that knows two record types, and a Slack that takes messages."""
    with vendor() as here:
        here.answer("/session_analysis/metadata", METADATA)
        here.answers["/services/T0/B0/x"] = (200, b"ok")
        yield here


@pytest.fixture(scope="module")
def durable() -> Iterator[Valkey]:
    """A server as it should be: nothing evicted, an append-only file."""
    with Valkey(persistent=True) as server:
        yield server


def environ_for(telnyx: Vendor, redis_url: str, **more: str) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "TELNYX_PUBLIC_KEY": PUBLIC_KEY,
        "TELNYX_API_KEY": KEY,
        "TELNYX_API_URL": telnyx.url,
        "SLACK_WEBHOOK_URL": telnyx.url.removesuffix("/v2") + "/services/T0/B0/x",
        **more,
    }


async def checks(environ: dict[str, str], *, post: bool = False) -> dict[str, Check]:
    found = [check async for check in run_checks(environ, post=post)]
    text = repr(found)
    assert KEY not in text
    assert "/services/" not in text
    assert all(check.fix for check in found if check.result is not Result.OK)
    return {check.name: check for check in found}


def results(found: dict[str, Check]) -> dict[str, str]:
    return {name: check.result for name, check in found.items() if check.result is not Result.OK}


async def test_all_is_well(telnyx: Vendor, durable: Valkey) -> None:
    """With everything in place nothing is to be done, and Slack is left in peace."""
    found = await checks(environ_for(telnyx, durable.url))
    assert results(found) == {}
    assert found["Telnyx API key"].found == "accepted; Telnyx knows 2 record types"
    assert found["Redis"].found.startswith("Valkey 9.")
    assert found["Redis maxmemory-policy"].found == "noeviction"
    assert found["public key"].found == "an Ed25519 key of 32 bytes"
    assert [request.path for request in telnyx.asked] == ["/v2/session_analysis/metadata"]


async def test_slack_gets_a_message_only_when_asked_to(telnyx: Vendor, durable: Valkey) -> None:
    """With `--slack` one message is posted that says that it is a test."""
    found = await checks(environ_for(telnyx, durable.url), post=True)
    assert found["Slack"].found == "a test message was posted"
    (posted,) = [request for request in telnyx.asked if request.method == "POST"]
    assert b"test message" in posted.body


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (404, b"no_service", "failed"),
        (500, b"", "failed"),
        (429, b"", "warning"),
    ],
)
async def test_a_slack_that_takes_no_message(
    telnyx: Vendor, durable: Valkey, status: int, body: bytes, result: str
) -> None:
    """A revoked webhook is found before it is needed."""
    telnyx.answers["/services/T0/B0/x"] = (status, body)
    found = await checks(environ_for(telnyx, durable.url), post=True)
    assert results(found) == {"Slack": result}


async def test_no_slack_is_a_warning(telnyx: Vendor, durable: Valkey) -> None:
    """Without Slack nobody is told, which may be meant; asked to try it, that is a failure."""
    environ = environ_for(telnyx, durable.url, SLACK_WEBHOOK_URL="")
    assert results(await checks(environ)) == {"Slack": "warning"}
    assert results(await checks(environ, post=True)) == {"Slack": "failed"}


async def test_a_slack_url_that_is_none(telnyx: Vendor, durable: Valkey) -> None:
    """A bad URL is named as a setting, and as what it keeps from working."""
    environ = environ_for(telnyx, durable.url, SLACK_WEBHOOK_URL="hooks.slack.com/services/x")
    assert set(results(await checks(environ))) == {"SLACK_WEBHOOK_URL", "Slack"}


# --- Telnyx --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "result", "word"),
    [
        (401, {"errors": [{"title": "Authentication failed"}]}, "failed", "TELNYX_API_KEY"),
        (403, {"errors": [{"title": "Account is disabled D17"}]}, "failed", "disabled"),
        (404, {}, "failed", "TELNYX_API_URL"),
        (400, {}, "failed", "TELNYX_API_URL"),
        (429, {}, "warning", "asks too much"),
        (500, {}, "failed", "TELNYX_API_URL"),
        (200, {"surprise": 1}, "failed", "TELNYX_API_URL"),
    ],
)
async def test_a_telnyx_that_does_not_take_the_key(
    telnyx: Vendor, durable: Valkey, status: int, body: Any, result: str, word: str
) -> None:
    """Each refusal says what to look at, in Telnyx's own words."""
    telnyx.answer("/session_analysis/metadata", body, status)
    found = await checks(environ_for(telnyx, durable.url))
    assert results(found) == {"Telnyx API key": result}
    assert word in found["Telnyx API key"].fix


async def test_a_key_over_plain_http_is_warned_of(durable: Valkey, telnyx: Vendor) -> None:
    """An API key that anybody on the way can read is worth a word, even where it works."""
    environ = environ_for(telnyx, durable.url, TELNYX_API_URL="http://telnyx.invalid/v2")
    found = await checks(environ)
    assert results(found) == {"TELNYX_API_URL": "warning", "Telnyx API key": "failed"}


# --- Redis ---------------------------------------------------------------------------------------


async def test_a_redis_that_is_not_there(telnyx: Vendor) -> None:
    """The other checks go on."""
    found = await checks(environ_for(telnyx, NOWHERE))
    assert results(found) == {"Redis": "failed"}
    assert "ConnectionError" in found["Redis"].found
    assert "Telnyx API key" in found


async def test_a_redis_that_forgets(telnyx: Vendor) -> None:
    """Eviction loses sessions while it runs and fails; no append-only file is a warning."""
    with Valkey(options={"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as server:
        found = await checks(environ_for(telnyx, server.url))
    assert results(found) == {
        "Redis maxmemory-policy": "failed",
        "Redis persistence": "warning",
    }
    assert found["Redis maxmemory-policy"].found == "allkeys-lru"


async def forbidding(server: Valkey, *commands: str) -> str:
    """The URL of a user to whom a managed server forbids these."""
    async with Redis.from_url(server.url) as redis:
        rules = ["on", "nopass", "~*", "&*", "+@all", *(f"-{command}" for command in commands)]
        await redis.execute_command("ACL", "SETUSER", "managed", "reset", *rules)
    return server.url.replace("redis://", "redis://managed:any@")


async def test_a_redis_that_forbids_config(telnyx: Vendor, durable: Valkey) -> None:
    """A managed Redis without CONFIG is no failure: INFO says the same."""
    url = await forbidding(durable, "config")
    assert results(await checks(environ_for(telnyx, url))) == {}


async def test_a_redis_that_forbids_info(telnyx: Vendor, durable: Valkey) -> None:
    """Where INFO is forbidden and CONFIG is not, CONFIG is asked."""
    url = await forbidding(durable, "info")
    found = await checks(environ_for(telnyx, url))
    assert results(found) == {"Redis": "warning"}
    assert found["Redis persistence"].found == "append-only file"


async def test_a_redis_that_tells_nothing(telnyx: Vendor, durable: Valkey) -> None:
    """What cannot be read is said, with what to make sure of; it is no failure."""
    url = await forbidding(durable, "info", "config", "time")
    found = await checks(environ_for(telnyx, url))
    assert results(found) == {
        "Redis": "warning",
        # The scripts ask for the time, too.
        "Redis takes writes": "failed",
        "Redis maxmemory-policy": "warning",
        "Redis persistence": "warning",
    }
    assert "does not let it be read" in found["Redis persistence"].found


async def test_a_redis_that_takes_no_writes(telnyx: Vendor) -> None:
    """A replica answers reads, and would take no call."""
    options = {"replicaof": "127.0.0.1 1"}
    with Valkey(persistent=True, options=options) as server:
        found = await checks(environ_for(telnyx, server.url))
    assert results(found) == {"Redis takes writes": "failed"}
    assert found["Redis takes writes"].found.endswith("READONLY")


async def test_a_user_who_may_not_do_all(telnyx: Vendor, durable: Valkey) -> None:
    """A permission that is missing is named before a script fails halfway for want of it."""
    url = await forbidding(durable, "hdel")
    found = await checks(environ_for(telnyx, url))
    assert results(found) == {"Redis takes writes": "failed"}
    assert found["Redis takes writes"].found == "Redis: NOPERM no permission to run HDEL"
    assert "what this user may do" in found["Redis takes writes"].fix


@pytest.mark.parametrize(
    ("there", "wanted", "result"),
    [
        (0, 0, None),
        (None, 1, None),
        (1, 0, Result.WARNING),
        (2, 1, Result.OK),
        (1, 1, Result.WARNING),
        (1, 2, Result.WARNING),
    ],
)
def test_replicas_are_there_to_be_used(
    there: int | None, wanted: int, result: Result | None
) -> None:
    """Replicas that nobody waits for, and waiting for as many as there are, are worth a word."""
    info = {} if there is None else {"connected_slaves": there}
    check = checks_module._replicas(info, wanted)
    assert (check and check.result) == result


async def test_replicas_that_are_not_there(telnyx: Vendor, durable: Valkey) -> None:
    """Where replicas are wanted and none has the write, no call would be taken."""
    environ = environ_for(telnyx, durable.url, TOLLWATCH_REDIS_REPLICAS="1")
    found = await checks(environ)
    assert results(found) == {"Redis takes writes": "failed", "Redis replicas": "warning"}
    assert found["Redis takes writes"].found == "Redis: TooFewReplicas 0 of 1 replicas have it"


async def test_a_redis_that_is_nearly_full(telnyx: Vendor) -> None:
    """Full, it refuses calls; that is seen coming."""
    options = {"maxmemory": "1mb"}
    with Valkey(persistent=True, options=options) as server:
        found = await checks(environ_for(telnyx, server.url))
    assert found["Redis memory"].result is Result.WARNING
    assert found["Redis memory"].found.endswith("% used")


async def test_a_redis_cluster(telnyx: Vendor) -> None:
    """The scripts change several keys in one step, which a Cluster does not allow."""
    with Valkey(persistent=True, options={"cluster-enabled": "yes"}) as server:
        found = await checks(environ_for(telnyx, server.url))
    assert found["Redis Cluster"].result is Result.FAILED


@pytest.mark.parametrize(
    ("info", "result"),
    [
        ({"redis_version": "6.0.16"}, Result.FAILED),
        ({"redis_version": "6.2.0"}, Result.OK),
        ({"redis_version": "8.4.1"}, Result.OK),
        ({"redis_version": "255.255.255"}, Result.OK),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, Result.OK),
        ({}, Result.WARNING),
    ],
)
def test_the_version_must_be_new_enough(info: dict[str, str], result: Result) -> None:
    """Redis before 6.2 lacks what the scripts use."""
    assert checks_module._version(info).result is result


class Clock:
    """A Redis whose clock differs from ours."""

    def __init__(self, ahead_seconds: float) -> None:
        self.ahead_seconds = ahead_seconds

    async def time(self) -> tuple[int, int]:
        return int(time.time() + self.ahead_seconds), 0


@pytest.mark.parametrize(
    ("ahead_seconds", "found"),
    [(0, None), (-60, "ahead of Redis'"), (60, "behind Redis'"), (2, None)],
)
async def test_clocks_that_differ(ahead_seconds: float, found: str | None) -> None:
    """Seconds do not matter, a minute does: when a call is fetched depends on both clocks."""
    clock: Any = Clock(ahead_seconds)
    check = await checks_module._clock(clock)
    assert (check is None) == (found is None)
    if check and found:
        assert check.found.endswith(found)


async def test_a_wrong_password(telnyx: Vendor, durable: Valkey) -> None:
    """Whoever is refused is told to look at user and password, and sees neither."""
    url = durable.url.replace("redis://", "redis://somebody:hunter2@")
    found = await checks(environ_for(telnyx, url))
    assert results(found) == {"Redis": "failed"}
    assert "user and password" in found["Redis"].fix
    assert "hunter2" not in repr(found)


# --- settings and policy -------------------------------------------------------------------------


def settings_of(**environ: str) -> list[tuple[str, str, str]]:
    return [(c.name, c.result, c.found) for c in check_settings(environ)]


def test_each_process_is_checked_where_its_secret_is() -> None:
    """A machine with one of the two is in order; without either nothing can run."""
    assert [(name, result) for name, result, _ in settings_of(TELNYX_API_KEY=KEY)] == [
        ("settings of the web", "warning"),
        ("settings of the worker", "ok"),
    ]
    assert [(name, result) for name, result, _ in settings_of(TELNYX_PUBLIC_KEY=PUBLIC_KEY)] == [
        ("settings of the web", "ok"),
        ("settings of the worker", "warning"),
        ("public key", "ok"),
    ]
    assert [result for _, result, _ in settings_of()] == ["failed", "failed"]


def test_every_fault_is_said_once() -> None:
    """Faults of both processes come together, each variable by its name, none twice."""
    found = settings_of(
        REDIS_URL="http://x",
        TELNYX_PUBLIC_KEY="c2hvcnQ=",
        TELNYX_API_KEY="with space",
        TOLLWATCH_LOG_LEVEL="loud",
        TOLLWATCH_FETCH_AFTER_SECONDS="3,2,1",
    )
    assert sorted(name for name, result, _ in found if result == "failed") == [
        "REDIS_URL",
        "TELNYX_API_KEY",
        "TELNYX_PUBLIC_KEY",
        "TOLLWATCH_FETCH_AFTER_SECONDS",
        "TOLLWATCH_LOG_LEVEL",
    ]
    assert "key 1 has 5 bytes, an Ed25519 key has 32" in repr(found)


def test_a_fault_without_any_secret_is_said_too() -> None:
    """What both processes need is checked whether or not a secret is there."""
    assert ("REDIS_URL", "failed") in [found[:2] for found in settings_of(REDIS_URL="x")]


def test_secrets_may_be_files(tmp_path: Path) -> None:
    """A secret in a file counts as given, and is read from there."""
    path = tmp_path / "key"
    path.write_text(f"{PUBLIC_KEY},{PUBLIC_KEY}\n")
    found = settings_of(TELNYX_PUBLIC_KEY_FILE=str(path))
    assert ("public key", "ok", "2 Ed25519 keys of 32 bytes") in found


def policy_of(path: Path) -> list[Check]:
    return list(check_policy({"TOLLWATCH_POLICY": str(path)}))


def test_the_policy_is_read(tmp_path: Path) -> None:
    """The built-in one, a good one, one with doubts, and one with faults, each with its place."""
    assert [check.found for check in check_policy({})] == ["the built-in one"]
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbfmax_session_cost: 2")
    assert [check.result for check in policy_of(path)] == [Result.OK]
    path.write_text("ceilings:\n- {measure: product_cost, product: zzz, limit: 1}")
    (doubt,) = policy_of(path)
    assert (doubt.result, doubt.fix) == (Result.WARNING, "mend line 2")
    path.write_text("max_session_cost: x\ncurrency: 1")
    assert [check.found for check in policy_of(path)] == [
        f"{path}:1:19: must be a number, such as 2.50",
        f"{path}:2:11: must be a currency code of three capital letters, such as USD",
    ]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 2_000_000])
def test_a_policy_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """No file, no text and far too much text are faults of the policy, like others."""
    path = tmp_path / "policy.yaml"
    if content is not None:
        path.write_bytes(content)
    (check,) = policy_of(path)
    assert check.result is Result.FAILED
    assert check.found.startswith(f"{path}:1:1: ")
