"""compose.yaml: every variable exists, each process has its own secrets only, all is hardened."""

import re
from datetime import timedelta
from typing import Final

import pytest

from service.settings import Variable, variables
from tests.image.compose import Service, services
from tests.world.world import World

_VARIABLES: Final = {row.name: row for row in variables()}
_WEB: Final = ("web", "demo-web")
_WORKERS: Final = ("worker", "demo-worker")


def _own(name: str) -> dict[str, Variable]:
    """The variables that a service's process reads."""
    is_web = name in _WEB
    return {n: row for n, row in _VARIABLES.items() if (row.web if is_web else row.worker)}


@pytest.mark.parametrize("name", [*_WEB, *_WORKERS])
def test_each_process_gets_only_what_it_reads(name: str) -> None:
    """Each variable is a setting of that process: no secret of the other, and no misspelling."""
    assert set(services()[name].environment) <= set(_own(name))


@pytest.mark.parametrize("name", [*_WEB, *_WORKERS])
def test_each_process_gets_what_it_needs(name: str) -> None:
    """Every required setting is there."""
    required = {n for n, row in _own(name).items() if row.default == "required"}
    assert required <= set(services()[name].environment)


@pytest.mark.parametrize("name", [*_WEB, *_WORKERS])
def test_what_comes_from_the_env_file_has_the_settings_default(name: str) -> None:
    """A value is passed on under its own name; where none is given, the setting's default holds."""
    for variable, value in services()[name].environment.items():
        if found := re.fullmatch(r"\$\{(\w+):-(.*)\}", value):
            assert found[1] == variable
            assert found[2] in {"", _VARIABLES[variable].default}


@pytest.mark.parametrize("service", services().values(), ids=lambda service: service.name)
def test_every_service_is_hardened(service: Service) -> None:
    """Nothing can write to its root or gain rights, and nothing takes more memory than agreed."""
    assert service.given["read_only"] is True
    assert service.given["cap_drop"] == ["ALL"]
    assert service.given["security_opt"] == ["no-new-privileges:true"]
    assert service.memory_bytes > 0
    assert service.given["image"].partition(":")[2] != "latest"


def test_redis_forgets_nothing() -> None:
    """It appends to a file that outlives it, and evicts no key."""
    redis = services()["redis"]
    words = redis.given["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis.given["volumes"] == [f"redis:{options['--dir']}"]
    assert int(options["--maxmemory"].removesuffix("mb")) << 20 <= redis.memory_bytes / 2


def test_processes_may_finish() -> None:
    """They are killed later than they end by themselves."""
    for name in (*_WEB, *_WORKERS):
        grace = services()[name].given["stop_grace_period"].removesuffix("s")
        own = float(_VARIABLES["TOLLWATCH_DRAIN_SECONDS"].default) + float(
            _VARIABLES["TOLLWATCH_GRACE_SECONDS"].default
        )
        assert timedelta(seconds=int(grace)) > timedelta(seconds=own)


def test_only_the_public_port_is_published() -> None:
    """Neither Redis nor an admin port can be reached from outside."""
    published = {name: s.given["ports"] for name, s in services().items() if "ports" in s.given}
    assert published == {"web": ["8080:8080"]}


def test_the_demonstration_needs_no_credentials() -> None:
    """Its keys are those of the simulated account; it has a Redis database of its own."""
    world = World()
    web, worker = (services()[name].environment for name in ("demo-web", "demo-worker"))
    assert web["TELNYX_PUBLIC_KEY"] == world.public_key
    assert worker["TELNYX_API_KEY"] == world.api_key
    assert worker["SLACK_WEBHOOK_URL"].endswith(world.slack.path)
    assert web["REDIS_URL"] == worker["REDIS_URL"] != services()["web"].environment["REDIS_URL"]
    assert all(
        services()[name].given["profiles"] == ["demo"] for name in services() if "demo" in name
    )
