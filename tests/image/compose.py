"""compose.yaml, read as far as one can without Docker."""

from dataclasses import dataclass
from typing import Any, Final

import yaml

from tests.world.processes import ROOT

_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class Service:
    """One service as compose.yaml describes it, anchors resolved."""

    name: str
    given: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables; `${NAME:-default}` is left as it is."""
        environment: dict[str, str] = self.given.get("environment", {})
        return environment

    @property
    def memory_bytes(self) -> int:
        """What it may use."""
        stated: str = self.given["mem_limit"]
        return int(stated[:-1]) * _UNITS[stated[-1]]

    @property
    def probe(self) -> list[str]:
        """The command of its health check."""
        words: list[str] = self.given["healthcheck"]["test"]
        assert words[0] == "CMD", "a shell would be needed"
        return words[1:]


def services() -> dict[str, Service]:
    """The services by name."""
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return {name: Service(name, given) for name, given in document["services"].items()}
