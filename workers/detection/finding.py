"""What is found in no single call: a surge, a fraud's shape, a drop, a budget, a balance."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell. Times are milliseconds since 1970, UTC; `excess` is money.

    `id` names it: whoever finds the same thing again, in another process or a minute later, gives
    it the same name, and it is told once.
    """

    id: str
    kind: str
    """What it is: `velocity`, `short_calls`, `one_number`, `one_prefix`, `drop`, `budget`."""
    cohort: str
    """Whose calls: `account`, or e.g. `assistant-…`, a connection's id, a country as `DE`."""
    from_ms: int
    to_ms: int
    at_ms: int
    """When it was told."""
    score: float
    """Higher is stranger: minus the decimal logarithm of its likelihood."""
    excess: Decimal
    text: str
    """One sentence that makes sense alone, with the money in it."""
    details: tuple[str, ...] = ()
    rung: str = ""
    """Of a budget: which percentage was passed."""
