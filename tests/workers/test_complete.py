"""A tree that came cut is put together from its branches' own trees, or says that it is not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.trees import ROOT_ID, Branch, branches, chain, guide, wire
from workers.analysis import Analysis, decode_analysis, encode_analysis
from workers.answer import Meaning, NotReady, RateLimited, Ready, Refused, Transient
from workers.complete import Completed, complete, is_cut, key_of, missing_from
from workers.products import CALL_SESSION
from workers.tree import CostTree, build_tree


@dataclass
class Telnyx:
    """Serves every branch of a session, cut after so many levels, and notes what it is asked."""

    session: Branch
    levels: int = 5
    count: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def answer(self) -> Analysis:
        return self.about(self.session)

    def about(self, branch: Branch) -> Analysis:
        return decode_analysis(wire(branch, self.levels, count=self.count))

    async def fetch(self, record_type: str, event_id: str) -> Meaning:
        self.asked.append((record_type, event_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        found = next(event for event in self.session.walk() if event.id == event_id)
        assert found.product == record_type
        return Ready(self.about(found))


def run(telnyx: Telnyx, limit: int = 1000) -> Completed:
    return asyncio.run(complete(telnyx.answer(), telnyx.fetch, limit=limit))


def costs(tree: CostTree) -> dict[str, Decimal]:
    return {event.id: event.cost for event in tree.events}


def cut_tree(session: Branch, levels: int = 5, *, count: bool = True) -> CostTree:
    return build_tree(decode_analysis(wire(session, levels, count=count)), CALL_SESSION)


def names(tree: CostTree, asked: frozenset[str] = frozenset()) -> list[str]:
    return [event.id for event in missing_from(tree, asked)]


@given(branches(), st.sampled_from([5, 6]))
def test_any_cut_tree_is_completed(session: Branch, levels: int) -> None:
    """Whether Telnyx counts the root or not, all events and sums come together, free ones too."""
    telnyx = Telnyx(session, levels)
    completed = run(telnyx)
    assert completed.whole
    assert completed.failures == ()
    assert costs(completed.tree) == session.costs()
    assert completed.tree.sum == completed.tree.total == session.whole
    assert completed.tree.mismatches == ()
    assert completed.asked == len(telnyx.asked) == len(set(telnyx.asked))


@given(branches(smallest=1), st.sampled_from([5, 6]))
def test_cost_alone_shows_what_is_missing(session: Branch, levels: int) -> None:
    """Without a count of events, what costs money is still found."""
    completed = run(Telnyx(session, levels, count=False))
    assert completed.whole
    assert costs(completed.tree) == session.costs()
    assert completed.tree.sum == session.whole


@given(branches(), st.integers(0, 8))
def test_the_bound_is_respected(session: Branch, limit: int) -> None:
    """No more questions than allowed; a tree that is still cut then says so."""
    telnyx = Telnyx(session)
    completed = run(telnyx, limit)
    assert completed.asked == len(telnyx.asked) <= limit
    assert completed.whole == (costs(completed.tree) == session.costs())
    assert bool(completed.failures) == (not completed.whole)


@given(branches(), st.randoms(use_true_random=False))
def test_the_order_of_children_does_not_matter(session: Branch, random: Random) -> None:
    """The same session in another order takes the same questions and gives the same events."""
    one, other = Telnyx(session), Telnyx(session.shuffled(random))
    first, second = run(one, 7), run(other, 7)
    assert one.asked == other.asked
    assert costs(first.tree) == costs(second.tree)
    assert first.failures == second.failures


@given(branches())
def test_few_questions_at_once(session: Branch) -> None:
    """A deep tree does not empty the rate limit in one breath."""
    telnyx = Telnyx(session)
    run(telnyx)
    assert telnyx.most_at_once <= 5


def test_the_analysis_that_came_stays_as_it_was() -> None:
    """Completing works on a copy."""
    telnyx = Telnyx(chain(12))
    analysis = telnyx.answer()
    before = encode_analysis(analysis)
    completed = asyncio.run(complete(analysis, telnyx.fetch))
    assert encode_analysis(analysis) == before
    assert len(build_tree(completed.analysis).events) == 12


def test_a_whole_tree_asks_nothing() -> None:
    """The guide's session takes one answer and no more."""
    telnyx = Telnyx(guide())
    completed = run(telnyx)
    assert completed.whole
    assert telnyx.asked == []
    assert str(completed.tree.total) == "0.2128"


def test_a_broken_sum_near_the_root_asks_nothing() -> None:
    """A shallow event that states more than its children is a mismatch, not a cut."""
    session = chain(8)
    assert names(cut_tree(session, levels=3, count=False)) == []


def test_telnyxs_own_example_asks_nothing() -> None:
    """Three events counted, only the root received: there is nowhere to ask."""
    tree = cut_tree(chain(3), levels=1)
    assert tree.missing == 2
    assert is_cut(tree)
    assert names(tree) == []


def test_only_the_lowest_event_is_asked_for() -> None:
    """The events above it hide the same money, and asking them would bring fewer levels."""
    assert names(cut_tree(chain(12))) == ["event-5"]
    assert names(cut_tree(chain(12)), frozenset({"call-control/event-5"})) == []


def test_the_dearest_comes_first() -> None:
    """When the bound is tight, the money is found before the small change."""

    def leg(name: str, hidden: str) -> Branch:
        below: tuple[Branch, ...] = (Branch(f"{name}-5", "inference", Decimal(hidden)),)
        for depth in range(4, 0, -1):
            below = (Branch(f"{name}-{depth}", "call-control", Decimal(0), below),)
        return below[0]

    legs = (leg("cheap", "0.01"), leg("free", "0"), leg("dear", "5"), leg("fair", "0.2"))
    session = Branch(ROOT_ID, CALL_SESSION, Decimal(0), legs)
    assert names(cut_tree(session)) == ["dear-4", "fair-4", "cheap-4", "free-4"]
    assert names(cut_tree(session, count=False)) == ["dear-4", "fair-4", "cheap-4"]


def test_an_event_without_id_or_of_an_unknown_type_is_not_asked_for() -> None:
    """There is no path to ask under; the tree stays cut and says so."""
    for session in (chain(7, product="hologram-cdrs"), nameless(chain(7))):
        tree = cut_tree(session)
        assert names(tree) == []
        assert is_cut(tree)


def nameless(branch: Branch) -> Branch:
    return Branch("", branch.product, branch.cost, tuple(nameless(c) for c in branch.children))


@pytest.mark.parametrize(
    ("meaning", "questions"),
    [
        (NotReady(404, "Event not found"), 8),
        (Transient("SocketTimeoutError"), 8),
        (RateLimited(17, "Too many requests"), 5),
        (Refused(403, "Account is disabled D17"), 5),
    ],
)
def test_what_could_not_be_fetched_is_told(meaning: Meaning, questions: int) -> None:
    """The tree stays cut; an answer that holds for every question ends the asking."""
    legs = tuple(
        Branch(f"leg-{n}", "call-control", Decimal(n), chain(6).children) for n in range(8)
    )
    session = Branch(ROOT_ID, CALL_SESSION, Decimal(0), tuple(renamed(leg) for leg in legs))
    telnyx = Telnyx(session)

    async def fetch(record_type: str, event_id: str) -> Meaning:
        telnyx.asked.append((record_type, event_id))
        return meaning

    completed = asyncio.run(complete(telnyx.answer(), fetch))
    assert not completed.whole
    assert completed.tree.missing > 0
    assert completed.asked == len(telnyx.asked) == len(completed.failures) == questions
    assert all(meaning.name in words for words in completed.failures)


def renamed(branch: Branch, prefix: str = "") -> Branch:
    prefix = prefix or branch.id
    children = tuple(renamed(child, prefix) for child in branch.children)
    name = branch.id if branch.id == prefix else f"{prefix}-{branch.id}"
    return Branch(name, branch.product, branch.cost, children)


def with_answer(change: Callable[[Telnyx, Branch], Analysis]) -> Completed:
    """A chain of eight, whose branches are answered about in a strange way."""
    telnyx = Telnyx(chain(8))

    async def fetch(_record_type: str, event_id: str) -> Meaning:
        found = next(event for event in telnyx.session.walk() if event.id == event_id)
        return Ready(change(telnyx, found))

    return asyncio.run(complete(telnyx.answer(), fetch))


def test_a_wider_answer_is_searched_for_the_event() -> None:
    """Telnyx may answer with the whole session, whatever event was asked for."""
    completed = with_answer(lambda telnyx, _: decode_analysis(wire(telnyx.session)))
    assert completed.whole
    assert costs(completed.tree) == chain(8).costs()


def test_an_answer_about_another_event_is_not_grafted() -> None:
    """Somebody else's cost never gets into this tree."""
    completed = with_answer(lambda telnyx, _: telnyx.about(renamed(chain(9), "other")))
    assert not completed.whole
    assert len(completed.tree.events) == 5
    assert completed.failures == ("call-control event-5: the answer is about another event",)


def test_an_answer_that_leads_back_up_counts_nothing_twice() -> None:
    """Relationships go both ways; a parent among the children is not grafted."""

    def upward(telnyx: Telnyx, found: Branch) -> Analysis:
        parent = next(e for e in telnyx.session.walk() if found in e.children)
        lone = Branch(parent.id, parent.product, parent.cost)
        children = (*found.children, lone)
        return telnyx.about(Branch(found.id, found.product, found.cost, children))

    completed = with_answer(upward)
    assert costs(completed.tree) == chain(8).costs()
    assert completed.tree.sum == chain(8).whole


def test_a_poorer_answer_takes_nothing_away() -> None:
    """An own tree with fewer events than are known leaves the known ones."""
    completed = with_answer(
        lambda telnyx, found: telnyx.about(Branch(found.id, found.product, found.cost))
    )
    assert len(completed.tree.events) == 5
    assert not completed.whole


def test_a_count_of_what_was_sent_grows_with_it() -> None:
    """Where Telnyx counts only what it sends, the graft is no broken count."""
    telnyx = Telnyx(chain(8), count=False)
    analysis = telnyx.answer()
    assert analysis.meta is not None
    analysis.meta.event_count = 5
    completed = asyncio.run(complete(analysis, telnyx.fetch))
    assert completed.tree.mismatches == ()
    assert completed.tree.stated_count == 8


def test_a_failure_of_the_fetch_itself_is_not_swallowed() -> None:
    """It comes out as it is, and does not pass for an incomplete tree."""

    async def fetch(_record_type: str, _event_id: str) -> Meaning:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(complete(Telnyx(chain(8)).answer(), fetch))


def test_keys_tell_products_apart() -> None:
    """A leg's id may be that of its trunking and of its call control."""
    session = Branch(
        ROOT_ID,
        CALL_SESSION,
        Decimal(0),
        (Branch("leg", "sip-trunking", Decimal(1)), Branch("leg", "call-control", Decimal(2))),
    )
    assert len({key_of(event) for event in cut_tree(session).events}) == 3
