"""What was learned, read for people: cohorts by name, and all that is usual in one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from workers.baselines import Baselines, Known
from workers.detection.baseline import Baseline, fit
from workers.detection.histogram import Bar, bars_of, counts_of
from workers.detection.measure import TOTAL

_SHOWN_NAMES: Final = 10


class NotOne(Exception):
    """No cohort has that in its name, or several have; the message says which."""


@dataclass(frozen=True, slots=True)
class Learned:
    """One cohort."""

    known: Known
    baseline: Baseline
    bars: Sequence[Bar] = ()
    """How its calls' total cost is spread."""


async def cohorts(baselines: Baselines, day: int, *, limit: int) -> tuple[list[Learned], int]:
    """The cohorts with the latest calls, and how many there are in all."""
    every = await baselines.cohorts(day)
    shown = [Learned(known, await baselines.baseline(known.name, day)) for known in every[:limit]]
    return shown, len(every)


async def cohort(baselines: Baselines, wanted: str, day: int) -> Learned:
    """The cohort of that name, or the only one with that in its name. Raises NotOne."""
    known = _the_one(await baselines.cohorts(day), wanted)
    sheets, strange = await baselines.sheets(known.name, day)
    bars = bars_of(counts_of(TOTAL, sheets, day))
    return Learned(known, fit(known.name, sheets, strange, day), bars)


def _the_one(every: Sequence[Known], wanted: str) -> Known:
    exact = [known for known in every if known.name == wanted]
    found = exact or [known for known in every if wanted in known.name]
    if not found:
        raise NotOne(f"nothing was learned of a cohort {wanted}; `tollwatch baseline` lists them")
    if len(found) > 1:
        names = ", ".join(known.name for known in found[:_SHOWN_NAMES])
        more = f" and {len(found) - _SHOWN_NAMES} more" if len(found) > _SHOWN_NAMES else ""
        raise NotOne(f"{wanted} is in the names of {len(found)} cohorts: {names}{more}")
    return found[0]
