"""Whose likes a call is compared with: the finest cohort that it belongs to, and the coarser ones.

A cohort is an assistant or connection, a direction, a destination country and a kind of call; the
coarser ones leave out one after the other, up to the whole account.
"""

from functools import lru_cache
from typing import Final

import msgspec

from service.direction import way
from service.records import Call
from workers.products import ASSISTANT, CALL_CONTROL, SIP_TRUNKING
from workers.tree import CostTree

ACCOUNT: Final = "account"
UNANSWERED: Final = "unanswered"
ASSISTANT_CALLS: Final = "assistant"

_KINDS: Final = (
    (ASSISTANT, ASSISTANT_CALLS),
    ("conference", "conference"),
    ("conference-participant", "conference"),
    ("webrtc", "webrtc"),
    (SIP_TRUNKING, "phone"),
    (CALL_CONTROL, "phone"),
)
_ANY: Final = "*"
_UNKNOWN: Final = "?"


class Cohort(msgspec.Struct, frozen=True, gc=False):
    """The finest cohort of a call. What is not known of it is `?`."""

    entity: str
    """The assistant's id, or else the connection's."""
    direction: str
    country: str
    """Of the destination: ISO 3166, two letters."""
    kind: str
    """What the call mainly was: `assistant`, `conference`, `webrtc`, `phone`, `other`;
    `unanswered` where nobody talked."""

    @property
    def ladder(self) -> tuple[str, ...]:
        """The cohorts' names from the finest to the whole account."""
        return _ladder(self.entity, self.direction, self.country, self.kind)


@lru_cache(maxsize=1024)
def _ladder(entity: str, direction: str, country: str, kind: str) -> tuple[str, ...]:
    return (
        f"{entity}/{direction}/{country}/{kind}",
        f"{entity}/{direction}/{_ANY}/{kind}",
        f"{_ANY}/{direction}/{country}/{kind}",
        f"{_ANY}/{_ANY}/{_ANY}/{kind}",
        ACCOUNT,
    )


def cohort_of(tree: CostTree, call: Call) -> Cohort:
    """The cohort of a session. `call` is what is known of it, records included."""
    return Cohort(
        entity=call.assistant_id or call.connection_id or _UNKNOWN,
        direction=way(call.direction) or (call.direction or _UNKNOWN).lower(),
        country=call.to_country or _UNKNOWN,
        kind=_kind(tree, call),
    )


def _kind(tree: CostTree, call: Call) -> str:
    if not tree.real_seconds and not call.duration_seconds:
        return UNANSWERED
    if call.assistant_id:
        return ASSISTANT_CALLS
    products = tree.has_product
    return next((kind for product, kind in _KINDS if product in products), "other")
