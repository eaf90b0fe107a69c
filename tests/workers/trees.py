"""Session Analysis answers of any shape, as Telnyx would send them, for tests about trees."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from workers.products import CALL_SESSION, RECORD_TYPES

ROOT_ID = "session-0"


@dataclass(frozen=True)
class Branch:
    """An event with everything below it: what a perfect answer would show."""

    id: str
    product: str
    cost: Decimal
    children: tuple["Branch", ...] = ()

    @property
    def whole(self) -> Decimal:
        """Own plus all descendants' costs."""
        return self.cost + sum((child.whole for child in self.children), Decimal(0))

    def walk(self) -> Iterator["Branch"]:
        """All events, the top first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def costs(self) -> dict[str, Decimal]:
        """Cost by event id."""
        return {event.id: event.cost for event in self.walk()}

    def shuffled(self, random: Random) -> "Branch":
        """The same events with all children in another order."""
        children = [child.shuffled(random) for child in self.children]
        random.shuffle(children)
        return replace(self, children=tuple(children))


def wire_node(branch: Branch, levels: int = 1000, **extra: Any) -> dict[str, Any]:
    """The branch as JSON data, cut after so many levels; cumulative costs are of the whole."""
    return {
        "id": branch.id,
        "product": branch.product,
        "event_name": branch.product,
        "cost": {
            "event_cost": str(branch.cost),
            "cumulative_cost": str(branch.whole),
            "currency": "USD",
        },
        "children": [wire_node(c, levels - 1, **extra) for c in branch.children if levels > 1],
        **extra,
    }


def wire(branch: Branch, levels: int = 1000, *, count: bool = True, **extra: Any) -> bytes:
    """An answer about the branch. With `count` it says how many events there really are."""
    answer: dict[str, Any] = {
        "session_id": ROOT_ID,
        "cost": {"total": str(branch.whole), "currency": "USD"},
        "root": wire_node(branch, levels, **extra),
        "meta": {"products": []},
    }
    if count:
        answer["meta"]["event_count"] = len(list(branch.walk()))
    return msgspec.json.encode(answer)


def chain(length: int, cost: str = "0.01", product: str = "call-control") -> Branch:
    """One event below the other, the session on top."""
    branch: tuple[Branch, ...] = ()
    for depth in range(length, 1, -1):
        branch = (Branch(f"event-{depth}", product, Decimal(cost), branch),)
    return Branch(ROOT_ID, CALL_SESSION, Decimal(0), branch)


def guide() -> Branch:
    """The example of Telnyx's guide: a web call of 152 seconds with an assistant, 0.2128 USD."""
    turns = ("0.0010", "0.0015", "0.0029", "0.0033", "0.0034")
    inference = [Branch(f"turn-{n}", "inference", Decimal(c)) for n, c in enumerate(turns)]
    assistant = Branch("ai", "ai-voice-assistant", Decimal("0.1800"), tuple(inference))
    legs = (
        Branch("recording", "recording-cdrs", Decimal("0.0051")),
        Branch("web", "webrtc-cdrs", Decimal("0.0052")),
        Branch("sip", "siptrunking-cdrs", Decimal("0.0052")),
        Branch("control", "callcontrol-cdrs", Decimal("0.0052"), (assistant,)),
    )
    return Branch(ROOT_ID, "siptrunking-cdrs", Decimal("0.0000"), legs)


_KNOWN = sorted(set(RECORD_TYPES) - {CALL_SESSION})


def costs(smallest: int = 0) -> st.SearchStrategy[Decimal]:
    """Amounts as Telnyx bills them, down to the ten-millionth of a dollar."""
    return st.integers(smallest, 10**8).map(lambda n: Decimal(n).scaleb(-7))


@st.composite
def branches(
    draw: st.DrawFn,
    *,
    products: Sequence[str] = _KNOWN,
    most: int = 40,
    smallest: int = 0,
) -> Branch:
    """Sessions of any shape. Parents lie close to their children, so that many are deep."""
    size = draw(st.integers(0, most))
    offsets = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    kinds = draw(st.lists(st.sampled_from(products), min_size=size, max_size=size))
    amounts = draw(st.lists(costs(smallest), min_size=size, max_size=size))
    below: dict[int, list[Branch]] = {}
    for position in range(size, 0, -1):
        event = Branch(
            f"event-{position}",
            kinds[position - 1],
            amounts[position - 1],
            tuple(reversed(below.pop(position, []))),
        )
        below.setdefault(max(0, position - 1 - offsets[position - 1]), []).append(event)
    return Branch(ROOT_ID, CALL_SESSION, draw(costs()), tuple(reversed(below.get(0, []))))


def personal_record(secret: str) -> Mapping[str, Any]:
    """A detail record full of what must never be kept."""
    return {
        "record_type": "call-control",
        "cli": "+4915112345678",
        "cld": "+18008648331",
        "call_sec": 50,
        "rate": "0.002",
        "caller_name": secret,
        "caller_number": "+4915112345678",
        "dest_number": "+18008648331",
        "client_state": secret,
        "custom_headers": [{"name": "X-Secret", "value": secret}],
        "messages": [{"role": "user", "text": secret}],
        "transcript": secret,
        "transcription": {"text": secret},
        "tags": [secret],
    }
