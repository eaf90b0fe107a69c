"""Writes months to a directory: the lines in one file, the labels in another, for a detector apart.

What has been written stays until the simulator's code changes: the directory's name says of which
code it is.
"""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from tests.world.month import month
from tests.world.month.customers import CUSTOMERS

_WORLD: Final = Path(__file__).parent.parent
_ROOT: Final = _WORLD.parent.parent


@dataclass(frozen=True, slots=True)
class Written:
    """One customer's month on disk."""

    customer: str
    seed: int
    lines: Path
    labels: Path

    @property
    def is_there(self) -> bool:
        """Whether it is complete: the labels are written last."""
        return self.labels.exists()


def version() -> str:
    """Names the code that makes the months: another code may make others."""
    digest = hashlib.sha256()
    for path in sorted(sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def sources() -> set[Path]:
    """This package's modules, and whatever of the simulator they import."""
    found: set[Path] = set()
    waiting = sorted(Path(__file__).parent.glob("*.py"))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


def _imported(path: Path) -> list[Path]:
    """The simulator's modules that a module imports, by any of the two ways to write it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [_ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return [place for place in places if _WORLD in place.parents and place.exists()]


def written(directory: Path, customer: str, seed: int) -> Written:
    """Where that month is or will be."""
    folder = directory / version() / str(seed)
    return Written(
        customer, seed, folder / f"{customer}.ndjson", folder / f"{customer}.labels.json"
    )


def write(place: Written) -> int:
    """Writes a month; returns how many sessions it has."""
    made = month.make(CUSTOMERS[place.customer], place.seed)
    place.lines.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with place.lines.open("wb") as file:
        for line in made.lines():
            file.write(msgspec.json.encode(line) + b"\n")
            count += 1
    place.labels.write_text(json.dumps(made.labels.as_json()))
    return count


def write_missing(
    directory: Path, seeds: Iterable[int], customers: Iterable[str] = tuple(CUSTOMERS)
) -> list[Written]:
    """Writes what is not there yet; returns all of it."""
    places = [written(directory, name, seed) for seed in seeds for name in customers]
    for place in places:
        if not place.is_there:
            write(place)
    return places
