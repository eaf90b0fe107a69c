"""Lines to a file that is there whole or not at all, or to stdout."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class CannotWrite(Exception):
    """Where the lines go takes no more; the message says why."""


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[bytes], None]]:
    """Takes what is written to the file, or to stdout. Raises CannotWrite.

    The file has its name once all of it is written: what is broken off leaves an older one alone.
    A device or a pipe is written to as it is.
    """
    if path is None:
        yield from _through(sys.stdout.buffer, "stdout")
    elif path.exists() and not path.is_file():
        with _told(str(path)):
            device = path.open("wb", buffering=0)
        with device:
            yield from _through(device, str(path))
    else:
        yield from _whole(path)


def _whole(path: Path) -> Iterator[Callable[[bytes], None]]:
    real = path.resolve()
    part = real.with_name(f"{real.name}.part")
    with _told(str(path)):
        file = part.open("wb")
    try:
        with file:
            yield from _through(file, str(path))
            with _told(str(path)):
                os.fsync(file.fileno())
        with _told(str(path)):
            part.replace(real)
    finally:
        part.unlink(missing_ok=True)


def _through(file: IO[bytes], name: str) -> Iterator[Callable[[bytes], None]]:
    yield _writer(file, name)
    with _told(name):
        file.flush()


def _writer(file: IO[bytes], name: str) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        with _told(name):
            file.write(data)

    return write


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write to {name}: {error.strerror or error}") from error
