"""What the tests of the image stand on; without one (`make image-test`) they are left out."""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.image.build import Image, inspect

_ROOTS: Final = ("IMAGE_ROOT", "IMAGE_DEMO_ROOT")

# `make test` has no image.
collect_ignore_glob = [] if all(name in os.environ for name in _ROOTS) else ["test_*.py"]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """All tests share a loop, and what runs on it."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def root() -> Path:
    """The image's files."""
    return Path(os.environ["IMAGE_ROOT"])


@pytest.fixture(scope="session")
def demo_root() -> Path:
    """The demonstration image's files."""
    return Path(os.environ["IMAGE_DEMO_ROOT"])


@pytest.fixture(scope="session")
def image() -> Image:
    """The image's description."""
    return inspect("localhost/tollwatch-runtime")
