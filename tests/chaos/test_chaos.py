"""Two minutes of every fault that production has, against the real processes.

`make chaos` does the same for as long as you like; CONTRIBUTING says how to read what it prints.
"""

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.report import show
from tests.chaos.run import Options, run

pytestmark = [pytest.mark.anyio, pytest.mark.no_cover]


async def test_nothing_is_lost_and_nothing_told_twice(tmp_path: Path) -> None:
    """Every kind of fault hits work in flight, and all is accounted for at the end."""
    console = Console(width=140, highlight=False)
    options = Options(minutes=2, seed=11)
    result = await run(options, tmp_path, console.print)
    show(result, console)
    assert [f"{v.rule}: {v.text}" for v in result.violations] == []
