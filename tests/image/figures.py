"""What the image is made of, and what its processes need, as tables."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.image.build import Image
from tests.image.tools import WORK

_FILE: Final = WORK / "figures.json"
_LARGEST: Final = 12
_MEBIBYTE: Final = 1024 * 1024
_LAYERS: Final = ("Debian and Python", "dependencies", "tollwatch")


def note(name: str, value: str) -> None:
    """Keep one figure of a test for the table at the end."""
    figures = noted()
    figures[name] = value
    _FILE.write_text(json.dumps(figures))


def noted() -> dict[str, str]:
    """The figures so far, in the order in which they came."""
    figures: dict[str, str] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return figures


def forget() -> None:
    """Begin anew."""
    _FILE.unlink(missing_ok=True)


def layers(image: Image) -> str:
    """Each layer, unpacked and as a registry stores it."""
    rows = [
        (name, mebibytes(layer.size_bytes), mebibytes(layer.packed_bytes), layer.digest[7:19])
        for name, layer in zip(_LAYERS, image.layers, strict=True)
    ]
    size, packed = (
        mebibytes(sum(sizes))
        for sizes in zip(*((x.size_bytes, x.packed_bytes) for x in image.layers), strict=True)
    )
    return _table([("layer", "unpacked", "packed", "digest"), *rows, ("all", size, packed, "")])


def largest(root: Path) -> str:
    """The parts of the image that take the most space."""
    sizes: dict[str, int] = defaultdict(int)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sizes[_part(path.relative_to(root))] += path.stat().st_size
    rows = sorted(sizes.items(), key=lambda row: -row[1])[:_LARGEST]
    return _table([("part", "size"), *((name, mebibytes(size)) for name, size in rows)])


def processes() -> str:
    """What the tests measured of the running processes."""
    return _table([("figure", "value"), *noted().items()])


def mebibytes(size_bytes: int) -> str:
    """In MiB, to a tenth."""
    return f"{size_bytes / _MEBIBYTE:.1f} MiB"


def _part(path: Path) -> str:
    """What a file is counted to: a Python package, a library directory, or a top directory."""
    parts = path.parts
    if "site-packages" in parts:
        return f"package {parts[parts.index('site-packages') + 1].removesuffix('.dist-info')}"
    if parts[0] == "app":
        return "/".join(parts[:2])
    return "/".join(parts[: 3 if parts[0] == "usr" else 1])


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Iterable[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    return ("  " + "  ".join(cells)).rstrip()
