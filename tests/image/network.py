"""A network on which each container has an address of its own, as pods have.

One bridge, and one network namespace each.
"""

import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.image.tools import Failed, run

_NETWORK: Final = "10.213.77"
_PREFIX: Final = "twtest"
_NAMESPACES: Final = Path("/run/netns")


class Network:
    """The bridge, as a context manager. This machine is on it, too, at `gateway`."""

    gateway: Final = f"{_NETWORK}.1"

    def __init__(self) -> None:
        self._bridge = f"{_PREFIX}{os.getpid() % 100_000}"
        self._numbers = itertools.count(2)

    def __enter__(self) -> Self:
        remove_networks()
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "address", "add", f"{self.gateway}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        remove_networks()

    def attach(self) -> "Place":
        """A new place on it."""
        number = next(self._numbers)
        place = Place(f"{self._bridge}n{number}", f"{_NETWORK}.{number}")
        link = f"{_PREFIX}v{number}"
        run("ip", "netns", "add", place.namespace)
        run("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", place.namespace)
        run("ip", "link", "set", link, "master", self._bridge, "up")
        inside = ("ip", "-netns", place.namespace)
        run(*inside, "address", "add", f"{place.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run(*inside, "link", "set", device, "up")
        return place


class Place:
    """A network namespace with an address."""

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    @property
    def path(self) -> str:
        """For a container's limits."""
        return str(_NAMESPACES / self.namespace)

    def leave(self) -> None:
        """Give it up: its link goes with it."""
        run("ip", "netns", "del", self.namespace)


def remove_networks() -> None:
    """What this test run, or one that was killed, has made."""
    if _NAMESPACES.exists():
        for path in _NAMESPACES.glob(f"{_PREFIX}*"):
            with suppress(Failed):
                run("ip", "netns", "del", path.name)
    for line in run("ip", "-brief", "link", "show", "type", "bridge").splitlines():
        name = line.split()[0]
        if name.startswith(_PREFIX):
            run("ip", "link", "del", name)
