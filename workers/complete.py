"""Trees deeper than one answer goes: asks for the missing branches' own trees and grafts them in.

Telnyx goes at most five levels down from the event that is asked for, so what lies deeper has to be
asked for from further down. Planning is pure; only `complete` fetches, and only when something says
that the answer was cut: a count of events, or a cost that nothing received accounts for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from service.money import ZERO
from workers.analysis import Analysis, Node
from workers.answer import Meaning, RateLimited, Ready, Refused
from workers.products import CALL_SESSION, is_known
from workers.tree import CostTree, Event, build_tree

CUT_DEPTH: Final = 5
"""Telnyx's largest `max_depth`. Whether it counts the root is not known: a cut answer may hold five
levels or six, so its deepest level is looked for and not assumed."""

_BATCH: Final = 5
_LIMIT: Final = 40

Fetch: TypeAlias = Callable[[str, str], Awaitable[Meaning]]


@dataclass(frozen=True, slots=True)
class Completed:
    """The analysis with all that could be fetched, and how that went."""

    analysis: Analysis
    tree: CostTree
    asked: int
    failures: tuple[str, ...]
    """In words: which event's own tree could not be had, and why."""
    blocked: RateLimited | Refused | None = None
    """What stopped it, where every further question would have met the same."""
    grafted: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing says any more that the tree is cut."""
        return not is_cut(self.tree)


def key_of(event: Event) -> str:
    """Names an event within a session. A leg's id may serve several products, hence both."""
    return f"{event.product}/{event.id}"


def is_cut(tree: CostTree) -> bool:
    """Whether Telnyx counts events that it did not send, or a deep leaf hides cost.

    A shallow event that states more than its children is not enough: that is a broken sum.
    """
    return tree.missing > 0 or any(
        event.depth >= CUT_DEPTH and not event.children for event in tree.hidden
    )


def missing_from(tree: CostTree, asked: frozenset[str] = frozenset()) -> tuple[Event, ...]:
    """The events whose own trees to ask for next, the likeliest to bring money first.

    `asked` holds the keys (`key_of`) of those asked for before; the root always counts as asked.
    """
    if not is_cut(tree):
        return ()
    wanted = [*_hiding(tree), *(_at_the_cut(tree, asked) if tree.missing else ())]
    done = asked | {key_of(tree.events[0])}
    askable: dict[str, Event] = {}
    for event in wanted:
        if event.id and is_known(event.product):
            askable.setdefault(key_of(event), event)
    return tuple(event for key, event in askable.items() if key not in done)


async def complete(
    analysis: Analysis,
    fetch: Fetch,
    *,
    root_type: str | None = CALL_SESSION,
    limit: int = _LIMIT,
) -> Completed:
    """Fetch and graft until nothing is missing, nothing is left to ask for, or `limit` is reached.

    `fetch(record_type, event_id)` asks for one event's own tree. `analysis` is left as it was.
    """
    tree = build_tree(analysis, root_type)
    if not missing_from(tree):
        return Completed(analysis, tree, 0, ())
    work = _Work(_copied(analysis), tree, root_type)
    while not work.blocked and (batch := work.next_batch(limit)):
        await work.ask(fetch, batch)
    if not work.blocked and missing_from(work.tree, work.asked):
        work.failures.append(f"stopped after {limit} questions")
    return Completed(
        work.analysis,
        work.tree,
        len(work.asked),
        tuple(work.failures),
        work.blocked,
        work.grafted,
    )


@dataclass(slots=True)
class _Work:
    """The tree as far as it has come. The analysis is this work's own copy."""

    analysis: Analysis
    tree: CostTree
    root_type: str | None
    asked: frozenset[str] = frozenset()
    failures: list[str] = field(default_factory=list)
    blocked: RateLimited | Refused | None = None
    grafted: bool = False

    def next_batch(self, limit: int) -> list[Event]:
        """The next questions; never one branch and a part of it, which the whole may bring."""
        room = min(_BATCH, limit - len(self.asked))
        batch: list[Event] = []
        for event in missing_from(self.tree, self.asked):
            if len(batch) < room and not any(_related(self.tree, event, b) for b in batch):
                batch.append(event)
        return batch

    async def ask(self, fetch: Fetch, batch: Sequence[Event]) -> None:
        """Ask all at once, and take the answers in the order of the questions.

        What `fetch` raises passes through as it is: to the caller a lost Redis is no failure, and
        must not be hidden in a group.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_asked(fetch, event)) for event in batch]
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from raised
        self.asked |= {key_of(event) for event in batch}
        nodes = _nodes(self.analysis.root)
        targets = [nodes[event.position] for event in batch]
        for event, node, task in zip(batch, targets, tasks, strict=True):
            self.take(event, node, task.result())

    def take(self, event: Event, node: Node, meaning: Meaning) -> None:
        """Graft the answer, or note why there is none."""
        if isinstance(meaning, Ready):
            words = self.graft(event, node, meaning.analysis)
        else:
            words = f"{meaning.name}, {meaning.reason}"
            if isinstance(meaning, RateLimited | Refused):
                self.blocked = meaning
        if words:
            self.failures.append(f"{event.product} {event.id}: {words}")

    def graft(self, event: Event, node: Node, answer: Analysis) -> str | None:
        """Give the node the answer's children if they are more; words where that cannot be."""
        own = _within(answer, event)
        if own is None:
            return "the answer is about another event"
        # Its place has moved where an earlier graft of the same batch brought events.
        place = next(n for n, other in enumerate(_walk(self.analysis.root)) if other is node)
        size = _size(self.tree, place)
        outside = (*self.tree.events[: place + 1], *self.tree.events[place + size :])
        children, count = _without(own, {key_of(e) for e in outside if e.id})
        if count > size:
            node.children = children
            self.grafted = True
            self.rebuild()
        return None

    def rebuild(self) -> None:
        """The tree anew, after a graft."""
        self.tree = build_tree(self.analysis, self.root_type)
        meta, events = self.analysis.meta, len(self.tree.events)
        if meta and self.tree.stated_count is not None and self.tree.stated_count < events:
            # What Telnyx counted was what it sent; after the graft that is no longer so.
            meta.event_count = events
            self.tree = build_tree(self.analysis, self.root_type)


async def _asked(fetch: Fetch, event: Event) -> Meaning:
    return await fetch(event.product, event.id)


def _hiding(tree: CostTree) -> list[Event]:
    """Events that themselves lack children, the dearest gap first.

    Not those above them, whose gap is only that of the events below.
    """
    gaps = [(_gap(tree, event), event) for event in tree.hidden]
    return [event for gap, event in sorted(gaps, key=_dearest) if gap > 0]


def _dearest(found: tuple[Decimal, Event]) -> tuple[Decimal, int, str]:
    gap, event = found
    return -gap, -event.depth, key_of(event)


def _gap(tree: CostTree, event: Event) -> Decimal:
    below = sum((_stated(tree, child) for child in event.children), ZERO)
    return (event.cumulative or ZERO) - event.cost - below


def _stated(tree: CostTree, position: int) -> Decimal:
    cumulative = tree.events[position].cumulative
    return tree.subtotals[position] if cumulative is None else cumulative


def _at_the_cut(tree: CostTree, asked: frozenset[str]) -> list[Event]:
    """Leaves on the deepest level that any answer reached, counted from the event asked for.

    Those first whose cost says nothing of children; the rest can only hide free ones.
    """
    levels = _levels(tree, asked)
    deepest = max(levels)
    if deepest < CUT_DEPTH:
        return []
    leaves = [e for e in tree.events if levels[e.position] == deepest and not e.children]
    return sorted(leaves, key=lambda e: (e.cumulative is not None, key_of(e)))


def _levels(tree: CostTree, asked: frozenset[str]) -> list[int]:
    """Each event's level in the answer that brought it; the root of an answer is on the first."""
    levels: list[int] = []
    for event in tree.events:
        if event.parent is None:
            levels.append(1)
        else:
            above = tree.events[event.parent]
            levels.append(2 if key_of(above) in asked else levels[event.parent] + 1)
    return levels


def _related(tree: CostTree, one: Event, other: Event) -> bool:
    first, second = sorted((one.position, other.position))
    return second < first + _size(tree, first)


def _size(tree: CostTree, position: int) -> int:
    """How many events the branch holds, its top included: in pre-order they lie side by side."""
    depth = tree.events[position].depth
    after = tree.events[position + 1 :]
    return 1 + next((n for n, e in enumerate(after) if e.depth <= depth), len(after))


@dataclass(frozen=True, slots=True)
class _Own:
    """Where an event was found in the answer to the question for it."""

    tree: CostTree
    nodes: Sequence[Node]
    place: int


def _within(answer: Analysis, event: Event) -> _Own | None:
    """The event in its own answer: at the root, or below, where Telnyx sends a wider tree."""
    tree = build_tree(answer, event.product)
    same_id = [e for e in tree.events if e.id == event.id]
    same = [e for e in same_id if e.product == event.product] or same_id
    if same:
        return _Own(tree, _nodes(answer.root), same[0].position)
    return None if tree.events[0].id else _Own(tree, _nodes(answer.root), 0)


def _without(own: _Own, elsewhere: set[str]) -> tuple[list[Node], int]:
    """Copies of the event's children that the tree does not have elsewhere, and the branch's size.

    An answer may lead back up to the parent; to graft that would count its cost twice.
    """
    copies: dict[int, Node] = {own.place: copy(own.nodes[own.place])}
    copies[own.place].children = []
    end = own.place + _size(own.tree, own.place)
    for event in own.tree.events[own.place + 1 : end]:
        parent = copies.get(event.parent) if event.parent is not None else None
        if parent is None or (event.id and key_of(event) in elsewhere):
            continue
        copies[event.position] = node = copy(own.nodes[event.position])
        node.children = []
        if parent.children is not None:
            parent.children.append(node)
    return copies[own.place].children or [], len(copies)


def _copied(analysis: Analysis) -> Analysis:
    twin = copy(analysis)
    twin.root = copy(analysis.root)
    twin.meta = copy(analysis.meta)
    for node in _walk(twin.root):
        node.children = [copy(child) for child in node.children or ()]
    return twin


def _nodes(root: Node) -> list[Node]:
    """All nodes in the order of `CostTree.events`."""
    return list(_walk(root))


def _walk(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children or ()))
