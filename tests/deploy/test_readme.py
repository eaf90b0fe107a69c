"""deploy/README.md: its commands name what exists, and what it proposes for Redis is enough."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.health import redis_check
from tests.deploy.readme import TEXT, users
from tests.deploy.render import DEPLOY, PATHS, named, of_kind, pod, render, workloads
from tests.world.processes import ROOT
from tests.world.valkey import Valkey


def _commands() -> list[list[str]]:
    """The lines of the indented blocks that are commands, and commands between back-ticks."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
    lines = blocks.replace("\\\n", " ").splitlines()
    inline = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", TEXT)]
    begins = ("kubectl ", "docker ", "make ", "kind ")
    return [shlex.split(line) for line in lines + inline if line.startswith(begins)]


def test_commands_name_what_exists() -> None:
    """Folders and files, Deployments, namespaces and make's targets."""
    objects = {m["metadata"]["name"] for name in PATHS for m in render(name)}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = _commands()
    assert len(commands) > 15
    for words in commands:
        for flag, value in itertools.pairwise(words):
            if flag in {"-k", "-f"} and value != "-":
                assert (ROOT / value).exists(), value
            if flag in {"-n", "--namespace"}:
                assert value in objects
        for word in words:
            if word.startswith("deployment/"):
                assert word.removeprefix("deployment/") in objects
        if words[0] == "make":
            assert words[1] in targets


def test_paths_in_the_text_exist() -> None:
    """Of the tables and between back-ticks."""
    paths = re.findall(
        r"`((?:base|redis|ingress|overlays|components)(?:/[\w./-]+)?|checkov\.yaml)`", TEXT
    )
    assert len(set(paths)) > 8
    for path in paths:
        assert (DEPLOY / path).exists(), path


@pytest.mark.parametrize("name", ["staging", "production"])
def test_every_secret_that_is_referred_to_is_made_by_a_command(name: str) -> None:
    """With all the keys that the pods mount."""
    made: dict[str, set[str]] = {}
    for words in _commands():
        if words[3:6] == ["create", "secret", "generic"]:
            keys = {w.removeprefix("--from-file=") for w in words if w.startswith("--from-file=")}
            assert made.setdefault(words[6], keys) == keys, "they would remove each other's"
    volumes = [v for w in workloads(render(name)).values() for v in pod(w).get("volumes", ())]
    mounted = [volume["secret"] for volume in volumes if "secret" in volume]
    assert mounted
    for secret in mounted:
        assert {item["key"] for item in secret["items"]} == made[secret["secretName"]]


def test_the_seconds_of_a_rollout_are_those_of_the_manifests() -> None:
    """What the text says of the hook, the drain, the grace and the end."""
    manifests = render("production")
    web = workloads(manifests)["web"]
    (config,) = (c for c in of_kind(manifests, "ConfigMap") if "-web-" in c["metadata"]["name"])
    text = " ".join(TEXT.split())
    assert "waits 5 s before it is told (preStop)" in text
    assert f"for {config['data']['TOLLWATCH_DRAIN_SECONDS']} s more" in text
    assert f"gives requests {config['data']['TOLLWATCH_GRACE_SECONDS']} s to end" in text
    assert f"killed after {pod(web)['terminationGracePeriodSeconds']} s" in text


@pytest.mark.anyio
async def test_the_users_of_staging_can_do_what_they_must_and_rotate(tmp_path: Path) -> None:
    """The rendered configuration and the file of the README, on a real Valkey."""
    file = tmp_path / "users.acl"
    # What waits for the server to answer asks more than the default user of the README may.
    file.write_text("user default on nopass ~* &* +@all\n")
    (config,) = (
        c for c in of_kind(render("staging"), "ConfigMap") if "redis" in c["metadata"]["name"]
    )
    lines = (line.split(maxsplit=1) for line in config["data"]["valkey.conf"].splitlines())
    options = {line[0]: line[1].strip('"') for line in lines if line[0] not in {"#", "dir", "port"}}
    with Valkey(tmp_path / "data", options=options | {"aclfile": str(file)}) as valkey:

        async def load(passwords: str) -> None:
            file.write_text(users(passwords))
            async with Redis.from_url(valkey.url) as probe:
                assert await probe.ping()
                await probe.execute_command("ACL", "LOAD")

        async def fault(user: str) -> str | None:
            async with Redis.from_url(valkey.url.replace("//", f"//{user}@")) as redis:
                return await redis_check(redis)()

        await load(">old")
        assert await fault("tollwatch:old") is None
        assert await fault("tollwatch:new") is not None
        assert await fault("default:") is not None
        await load(">old >new")
        assert await fault("tollwatch:old") is None
        assert await fault("tollwatch:new") is None
        await load(">new")
        assert await fault("tollwatch:old") is not None


def test_the_user_is_the_one_that_is_proposed_everywhere() -> None:
    """The README at the root has its rights, too, and a flow test shows that they are enough."""
    readme = (ROOT / "README.md").read_text()
    (rule,) = (line for line in readme.splitlines() if line.startswith("ACL SETUSER tollwatch "))
    rights = rule.partition(">PASSWORD ")[2]
    assert f"user tollwatch reset on >PASSWORD {rights}\n" in TEXT
    assert named(render("staging"), "Service", "tollwatch-redis")


def test_the_sizes_are_computed_as_the_text_says() -> None:
    """All calls that are kept fit, at 4.5 KB and a quarter more; volumes are four times that."""
    rows = re.findall(
        r"^\| ([\d,]+)(?:, (\d+) days kept)? \|.*?\| (\d+) ([GM])B.*?\| (\d+) GiB \|$",
        TEXT,
        re.MULTILINE,
    )
    assert len(rows) == 5
    for calls, days, memory, unit, volume in rows:
        needed = int(calls.replace(",", "")) * int(days or 30) * 4.5e3 * 1.25
        megabytes = int(memory) * (1000 if unit == "G" else 1)
        assert needed / 1e6 <= megabytes
        assert megabytes * 4 <= int(volume) * 1024 * 1.05
