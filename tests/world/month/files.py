"""Writes months to a directory: the lines in one file, the labels in another, for a detector apart.

What has been written stays until the simulator's code changes: the directory's name says of which
code it is.
"""

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
    """Names the simulator's code: another code may make other months."""
    digest = hashlib.sha256()
    for path in sorted(_WORLD.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


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
