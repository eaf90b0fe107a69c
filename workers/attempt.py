"""What one ask for a session's cost came to: a cost, none yet, or no answer at all."""

from dataclasses import dataclass
from typing import TypeAlias

from workers.analysis import Analysis
from workers.tree import CostTree


@dataclass(frozen=True, slots=True)
class Found:
    """The cost as far as it has come. `remarks` say what could not be fetched."""

    analysis: Analysis
    tree: CostTree
    remarks: tuple[str, ...] = ()
    whole: bool = True
    """Whether nothing says that a part of the tree was left out."""
    grafted: bool = False
    """Whether parts were fetched apart: Telnyx's sums above them may then leave them out."""


@dataclass(frozen=True, slots=True)
class NothingYet:
    """Telnyx has no cost for it (yet). `last` is what an earlier ask found, if any."""

    reason: str
    last: Found | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """No answer could be had: an outage, a refusal, a rate limit. It ends nothing."""

    seconds: float
    reason: str


Attempt: TypeAlias = Found | NothingYet | Held
