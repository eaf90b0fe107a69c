"""`tollwatch check`: whether everything that both processes need is as it must be.

Each thing is tried by the code that will use it, and a fault in one setting hides none of the
others: every check reads only the settings that it needs. A result says what was found and what to
do about it, and never holds a secret.
"""

import enum
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from service import __version__
from service.health import redis_check
from service.settings import Settings, SettingsError, WebSettings, WorkerSettings
from workers.answer import (
    Failure,
    Invalid,
    NotReady,
    RateLimited,
    Refused,
    Transient,
    clean,
)
from workers.lookup import open_redis
from workers.metadata import RecordTypes
from workers.policy_file import Fault, PolicyError, examine
from workers.slack import SlackClient
from workers.slack_answer import Posted
from workers.slack_answer import RateLimited as SlackLimited
from workers.telnyx import TelnyxClient
from workers.transport import Timeouts

_FILE: Final = "_FILE"
_PUBLIC_KEY: Final = "TELNYX_PUBLIC_KEY"
_KEY: Final = "TELNYX_API_KEY"
_REPLICAS: Final = "TOLLWATCH_REDIS_REPLICAS"
_TIMEOUTS: Final = Timeouts(connect=5, pool=10, read=10, total=15)
# The scripts use ZADD with LT: https://redis.io/docs/latest/commands/zadd/
_OLDEST_REDIS: Final = (6, 2)
_LARGEST_SKEW_SECONDS: Final = 5.0
_LARGEST_FILE: Final = 1_000_000
_NEARLY_FULL: Final = 0.9


class Result(enum.StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked: what was found, and what to do where it is not ok."""

    name: str
    result: Result
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Result.OK, found)


def warning(name: str, found: str, fix: str) -> Check:
    """It works, or could not be looked at; somebody should know."""
    return Check(name, Result.WARNING, found, fix)


def failed(name: str, found: str, fix: str) -> Check:
    """It will not work this way."""
    return Check(name, Result.FAILED, found, fix)


async def run_checks(environ: Mapping[str, str], *, post: bool) -> AsyncIterator[Check]:
    """All checks, one after the other; with `post` a test message goes to Slack."""
    for check in check_settings(environ):
        yield check
    for check in check_policy(environ):
        yield check
    async for check in check_redis(environ):
        yield check
    async for check in check_telnyx(environ):
        yield check
    yield await check_slack(environ, post=post)


def only(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    """The part of the environment that gives these variables, themselves or as files."""
    wanted = {given for name in names for given in (name, name + _FILE)}
    return {name: value for name, value in environ.items() if name in wanted}


def has(environ: Mapping[str, str], name: str) -> bool:
    """Whether a variable is given, itself or as a file."""
    return bool(environ.get(name, "").strip() or environ.get(name + _FILE, "").strip())


Loaded = TypeVar("Loaded", bound=Settings)


def _load(kind: type[Loaded], environ: Mapping[str, str]) -> Loaded | None:
    """The settings, or None: what is wrong with them is said by another check."""
    try:
        return kind.load(environ)
    except SettingsError:
        return None


def _worker_settings(environ: Mapping[str, str], *names: str) -> WorkerSettings | None:
    """A worker's settings from these variables alone; the key is made up if it is not named."""
    made_up = {} if _KEY in names else {_KEY: "none"}
    return _load(WorkerSettings, {**only(environ, *names), **made_up})


# --- settings ------------------------------------------------------------------------------------


def check_settings(environ: Mapping[str, str]) -> Iterator[Check]:
    """The settings of each process whose secret is there, every fault once."""
    processes = (("web", WebSettings, _PUBLIC_KEY), ("worker", WorkerSettings, _KEY))
    given = [process for process in processes if has(environ, process[2])]
    faults = dict.fromkeys(_faults(Settings, environ))
    for process in processes:
        name, kind, secret = process
        if process not in given:
            # One machine often has only one of the two; without either nothing can run.
            say = warning if given else failed
            fix = f"set {secret}, where the {name} process is to run"
            yield say(f"settings of the {name}", f"{secret} is missing", fix)
            continue
        found = _faults(kind, environ)
        faults |= dict.fromkeys(found)
        if not found:
            yield ok(f"settings of the {name}", "complete and readable")
    for fault in faults:
        variable, _, words = fault.partition(": ")
        yield failed(variable, words, f"mend {variable}")
    yield from _public_key(environ)


def _public_key(environ: Mapping[str, str]) -> Iterator[Check]:
    settings = _load(WebSettings, only(environ, _PUBLIC_KEY))
    if settings:
        count = len(settings.public_keys)
        found = "an Ed25519 key" if count == 1 else f"{count} Ed25519 keys"
        yield ok("public key", f"{found} of 32 bytes")


def _faults(kind: type[Settings], environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        kind.load(environ)
    except SettingsError as error:
        return error.faults
    return ()


# --- the policy ----------------------------------------------------------------------------------


def check_policy(environ: Mapping[str, str]) -> Iterator[Check]:
    """The policy's file, if one is named."""
    settings = _worker_settings(environ, "TOLLWATCH_POLICY")
    path = settings.policy_path if settings else None
    if path is None:
        if settings:
            yield ok("policy", "the built-in one")
        return
    try:
        examined = examine(read_policy(path))
    except PolicyError as error:
        yield from _at_fault(path, error.faults, Result.FAILED)
        return
    if not examined.warnings:
        yield ok("policy", f"{path} is readable")
    yield from _at_fault(path, examined.warnings, Result.WARNING)


def _at_fault(path: Path, faults: Iterable[Fault], result: Result) -> Iterator[Check]:
    for fault in faults:
        yield Check("policy", result, f"{path}:{fault}", f"mend line {fault.line}")


def read_policy(path: Path) -> str:
    """The text of a policy's file. Raises PolicyError where there is none."""
    try:
        with path.open("rb") as file:
            # A byte order mark is what some editors begin a file with.
            return file.read(_LARGEST_FILE).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise PolicyError((Fault(1, 1, f"cannot be read: {reason}"),)) from error
    except UnicodeDecodeError as error:
        raise PolicyError((Fault(1, 1, "is not UTF-8 text"),)) from error


# --- Redis ---------------------------------------------------------------------------------------


async def check_redis(environ: Mapping[str, str]) -> AsyncIterator[Check]:
    """Whether Redis is there, takes writes, forgets nothing and loses nothing."""
    settings = _load(Settings, only(environ, "REDIS_URL"))
    if settings is None:
        return
    # One that cannot be read is said elsewhere, and hides nothing here.
    wanted = (_load(Settings, only(environ, _REPLICAS)) or settings).redis_replicas
    try:
        async with open_redis(settings.redis_url.get_secret_value()) as redis:
            checks = [check async for check in _redis_checks(redis, wanted)]
    except (RedisError, OSError) as error:
        yield failed("Redis", redis_problem(error), _redis_fix(error))
        return
    for check in checks:
        yield check


def redis_problem(error: Exception) -> str:
    """What went wrong with Redis, in its own words but for secrets."""
    return clean(f"{type(error).__name__}: {error}")


def _redis_fix(error: Exception) -> str:
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return "check user and password in REDIS_URL, and what this user may do"
    return "check REDIS_URL, and that the server runs and can be reached from here"


async def _redis_checks(redis: Redis, replicas: int) -> AsyncIterator[Check]:
    await redis.ping()
    try:
        info: dict[str, Any] = await redis.info()
    except ResponseError:
        info = {}
    yield _version(info)
    yield await _writable(redis, replicas)
    if info.get("cluster_enabled") == 1:
        yield failed("Redis Cluster", "this is one", "use a Redis that is no Cluster: one database")
    yield _eviction(await _setting(redis, info, "maxmemory_policy", "maxmemory-policy"))
    yield _persistence(await _setting(redis, info, "aof_enabled", "appendonly"))
    for check in (_replicas(info, replicas), _memory(info), await _clock(redis)):
        if check:
            yield check


def _version(info: Mapping[str, Any]) -> Check:
    version = str(info.get("redis_version", ""))
    own = info.get("valkey_version")
    named = f"Valkey {own} (as Redis {version})" if own else f"Redis {version}"
    if not version:
        return warning(
            "Redis", "reachable; it does not let INFO be read", "allow INFO to this user"
        )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST_REDIS:
        return failed("Redis", named, "use Redis 6.2 or later, or Valkey")
    return ok("Redis", f"{named}, reachable")


async def _writable(redis: Redis, replicas: int) -> Check:
    problem = await redis_check(redis, replicas=replicas)()
    if problem is None:
        return ok("Redis takes writes", "yes")
    return failed(
        "Redis takes writes",
        clean(problem),
        "look at its memory, its disk, its replicas, whether it is one, and what this user may do",
    )


async def _setting(
    redis: Redis, info: Mapping[str, Any], in_info: str, in_config: str
) -> str | None:
    """From INFO, which managed services allow, or from CONFIG; None where both are forbidden."""
    if in_info in info:
        return str(info[in_info])
    try:
        found = await redis.config_get(in_config)
    except ResponseError:
        return None
    value = found.get(in_config)
    return None if value is None else str(value)


def _eviction(policy: str | None) -> Check:
    name, wanted = "Redis maxmemory-policy", "noeviction"
    if policy is None:
        return warning(name, "this Redis does not let it be read", f"make sure that it is {wanted}")
    if policy == wanted:
        return ok(name, policy)
    fix = f"set it to {wanted}: anything else drops sessions silently when memory runs out"
    return failed(name, policy, fix)


def _persistence(append_only: str | None) -> Check:
    name = "Redis persistence"
    fix = "switch on append-only persistence (appendonly yes): a restart loses what waits"
    if append_only is None:
        return warning(name, "this Redis does not let it be read", f"make sure: {fix}")
    if append_only in {"1", "yes"}:
        return ok(name, "append-only file")
    return warning(name, "no append-only file", fix)


def _replicas(info: Mapping[str, Any], wanted: int) -> Check | None:
    name, there = "Redis replicas", info.get("connected_slaves")
    if there is None or there == wanted == 0:
        return None
    found = f"{there} connected, {_REPLICAS} is {wanted}"
    if there > wanted > 0:
        return ok(name, found)
    if there > 0 == wanted:
        fix = f"set {_REPLICAS} to {max(1, there - 1)}: a failover can lose what was acknowledged"
    else:
        fix = f"have {wanted + 1}: after a failover one is missing, and no webhook would be taken"
    return warning(name, found, fix)


def _memory(info: Mapping[str, Any]) -> Check | None:
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    if not most or used < most * _NEARLY_FULL:
        return None
    return warning(
        "Redis memory", f"{used / most:.0%} used", "give it more memory: full, it refuses"
    )


async def _clock(redis: Redis) -> Check | None:
    """Leases are measured by Redis' clock, the ends of calls by ours and Telnyx's."""
    try:
        seconds, micros = await redis.time()
    except ResponseError:
        return None
    skew = time.time() - (seconds + micros / 1_000_000)
    if abs(skew) <= _LARGEST_SKEW_SECONDS:
        return None
    return warning(
        "clock",
        f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Redis'",
        "use NTP on both",
    )


# --- Telnyx --------------------------------------------------------------------------------------


async def check_telnyx(environ: Mapping[str, str]) -> AsyncIterator[Check]:
    """Whether Telnyx takes the key, asked by what costs nothing: the metadata."""
    settings = _worker_settings(environ, _KEY, "TELNYX_API_URL")
    if settings is None:
        return
    url = urlsplit(settings.api_url)
    if url.scheme == "http" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
        yield warning(
            "TELNYX_API_URL", "not encrypted", "use https: the key can be read on the way"
        )
    client = TelnyxClient(
        settings.api_url, settings.api_key, version=__version__, timeouts=_TIMEOUTS
    )
    async with client:
        yield _telnyx(await client.record_types())


def _telnyx(answer: RecordTypes | Failure) -> Check:
    name = "Telnyx API key"
    match answer:
        case RecordTypes(record_types=known):
            return ok(name, f"accepted; Telnyx knows {len(known)} record types")
        case RateLimited(reason=reason):
            return warning(name, reason, "accepted, but the account asks too much at the moment")
        case Refused(reason=reason):
            fix = "check TELNYX_API_KEY (an API v2 key), and that the account is not disabled"
            return failed(name, reason, fix)
        case NotReady(reason=reason) | Invalid(reason=reason):
            return failed(name, reason, "check TELNYX_API_URL: is this Telnyx's API, with /v2?")
        case Transient(reason=reason):
            return failed(name, reason, "check TELNYX_API_URL, and the way out to the internet")


# --- Slack ---------------------------------------------------------------------------------------


async def check_slack(environ: Mapping[str, str], *, post: bool) -> Check:
    """Whether Slack takes a message; without `post`, only whether it is set."""
    name = "Slack"
    if not has(environ, "SLACK_WEBHOOK_URL"):
        found = "no SLACK_WEBHOOK_URL: alerts are kept and logged, nobody is told"
        return (failed if post else warning)(name, found, "create an incoming webhook and set it")
    settings = _worker_settings(environ, "SLACK_WEBHOOK_URL")
    if settings is None or settings.slack_url is None:
        return failed(name, "SLACK_WEBHOOK_URL cannot be read", "mend SLACK_WEBHOOK_URL")
    if not post:
        return ok(name, "set; not tried: `tollwatch check --slack` posts a test message")
    async with SlackClient(settings.slack_url, version=__version__) as slack:
        outcome = await slack.post({"text": "tollwatch: a test message. Alerts will come here."})
    match outcome:
        case Posted():
            return ok(name, "a test message was posted")
        case SlackLimited(retry_after_seconds=seconds):
            return warning(name, "rate-limited", f"try again in {seconds} s")
        case _:
            return failed(
                name, outcome.reason, "check SLACK_WEBHOOK_URL, and whether it is revoked"
            )
