"""Which core does what: the measured process has one for itself, all that it talks to the other."""

import os
from pathlib import Path
from typing import Final

SERVER_CORE: Final = 0
LOAD_CORE: Final = min(1, (os.cpu_count() or 1) - 1)


def on_core(pid: int, core: int) -> None:
    """Bind a process, with all its threads, to a core; where that cannot be done, say so."""
    if not hasattr(os, "sched_setaffinity"):
        print("this system cannot bind processes to cores: the figures are of all cores")
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
