"""Writes months to files: `python -m tests.world.month DIRECTORY --seeds 101 102`."""

import argparse
import time
from pathlib import Path

from tests.world.month import files
from tests.world.month.customers import CUSTOMERS
from tests.world.month.table import REPORTING_SEEDS, TUNING_SEEDS


def main() -> None:
    """Writes what is missing, a line each."""
    parser = argparse.ArgumentParser(prog="python -m tests.world.month", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[*TUNING_SEEDS, *REPORTING_SEEDS])
    parser.add_argument("--customers", nargs="*", choices=list(CUSTOMERS), default=list(CUSTOMERS))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for name in arguments.customers:
            place = files.written(arguments.directory, name, seed)
            if not place.is_there:
                begun = time.perf_counter()
                count = files.write(place)
                seconds = time.perf_counter() - begun
                print(f"{place.lines}: {count:,} sessions in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
