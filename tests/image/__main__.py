"""`make image-test`: builds the image twice, compares the two, starts what it holds, measures it.

With `CI=true` a machine that cannot do it fails; elsewhere it says what is missing, and skips.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.image import base, figures
from tests.image.build import Image, build, mounted
from tests.image.container import remove_all
from tests.image.network import remove_networks
from tests.image.tools import WORK, Failed, let_go, missing
from tests.world.processes import ROOT

NAME: Final = "localhost/tollwatch"
_HOW: Final = "apt-get install --no-install-recommends buildah debootstrap runc iproute2"
_begun = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="build it once, on top of what is there"
    )
    options, for_pytest = parser.parse_known_args(arguments)
    lacking = missing()
    if lacking:
        return _skip(lacking)
    WORK.mkdir(exist_ok=True)
    try:
        _clean_up()
        image = _build("runtime", cached=options.quick)
        if not options.quick and not _is_the_same_twice(image):
            return 1
        return _test(image, for_pytest)
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    finally:
        _clean_up()


def _clean_up() -> None:
    remove_all()
    remove_networks()
    let_go()


def _skip(lacking: Sequence[str]) -> int:
    is_failure = os.environ.get("CI") == "true"
    word = "FAILED" if is_failure else "SKIPPED"
    _say(f"{word}: the image was neither built nor started. Missing: {', '.join(lacking)}.")
    _say(f"On Debian, as root: {_HOW}")
    return int(is_failure)


def _is_the_same_twice(first: Image) -> bool:
    second = _build("runtime", cached=False)
    if (first.digest, first.layers) == (second.digest, second.layers):
        _say(f"The same twice: {first.digest}")
        return True
    _say("FAILED: built twice from the same commit, the image differs:")
    _say(figures.layers(first), figures.layers(second))
    return False


def _test(image: Image, arguments: Sequence[str]) -> int:
    demo = _build("demo", cached=True)
    figures.forget()
    with mounted(image.name) as root, mounted(demo.name) as demo_root:
        _say(figures.layers(image), figures.largest(root))
        code = _pytest(arguments, {"IMAGE_ROOT": str(root), "IMAGE_DEMO_ROOT": str(demo_root)})
    _say(figures.processes())
    return code


def _build(target: str, *, cached: bool) -> Image:
    image = build(f"{NAME}-{target}", target, base.ensure(), cached=cached)
    _say(f"{target} is built")
    return image


def _pytest(arguments: Sequence[str], environ: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "tests/image", "-p", "no:cacheprovider", *arguments]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **environ})  # noqa: S603 - ours


def _say(*texts: str) -> None:
    for text in texts:
        sys.stdout.write(f"[{time.monotonic() - _begun:5.1f} s] {text.lstrip()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
