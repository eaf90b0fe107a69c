"""A call's direction: Telnyx has several words for each of the two. Pure."""

from functools import lru_cache
from typing import Final

INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"


# It is asked for each call and each event, and there are few words.
@lru_cache(maxsize=64)
def way(direction: str | None) -> str | None:
    """`inbound` or `outbound`; None for anything else.

    `incoming` and `outbound-api` are directions of Telnyx's, too.
    """
    said = (direction or "").lower()
    if said.startswith("in"):
        return INBOUND
    return OUTBOUND if said.startswith("out") else None
