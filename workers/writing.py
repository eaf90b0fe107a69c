"""Lines to a file that is there whole or not at all, or to stdout."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class CannotWrite(Exception):
    """Where the lines go takes no more; the message says why."""


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[bytes], None]]:
    """Takes what is written to the file, or to stdout. Raises CannotWrite.

    The file has its name once all of it is written: what is broken off leaves an older one alone.
    """
    if path is None:
        yield _writer(sys.stdout.buffer, "stdout")
        with _told("stdout"):
            sys.stdout.buffer.flush()
        return
    part = path.with_name(f"{path.name}.part")
    with _told(str(path)):
        file = part.open("wb")
    try:
        with file:
            yield _writer(file, str(path))
            with _told(str(path)):
                file.flush()
                os.fsync(file.fileno())
        with _told(str(path)):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _writer(file: BinaryIO, name: str) -> Callable[[bytes], None]:
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
