"""Calls that must be alerted, one recipe per cause, each with the truth of what was injected.

A watch with these limits finds every one: 5.00 USD a session, 200 inference turns a session,
1.00 USD a minute, 0.25 USD charged twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from tests.world.draft import Draft
from tests.world.kinds import inbound_assistant, outbound_assistant, trunk_call
from tests.world.model import Call, Expected, Node

Recipe: TypeAlias = Callable[[Draft], Call]

SEVERITIES: Final = ("low", "medium", "high", "critical")
_STEPS: Final = (Decimal("0.25"), Decimal(1), Decimal(5), Decimal(25))
"""USD of excess from which on each severity is due."""
LATE_SECONDS: Final = 1200.0
"""How long after the end the late charge appears: after two looks that saw nothing wrong."""

_LONGEST_SOUND_SECONDS: Final = 480
_USUAL_TURNS: Final = 40
_SMALLEST: Final = Decimal("0.0001")


def runaway_assistant(draft: Draft) -> Call:
    """Nobody hung up: about 95 minutes with an assistant that listens to hold music."""
    seconds = draft.rng.randint(92 * 60, 98 * 60)
    call = inbound_assistant(replace(draft, talk_seconds=seconds), draft.rng.randint(60, 90))
    sound = call.total * _LONGEST_SOUND_SECONDS / seconds
    return _expecting(call, "runaway_assistant", call.total - sound, "session_cost")


def inference_loop(draft: Draft) -> Call:
    """An assistant that talks to itself: more than four hundred turns in ten minutes."""
    turns = draft.rng.randint(420, 600)
    call = inbound_assistant(replace(draft, talk_seconds=draft.rng.randint(540, 660)), turns)
    spent = sum((node.cost for node in call.of_type("inference")), Decimal(0))
    excess = spent * (turns - _USUAL_TURNS) / turns
    return _expecting(call, "inference_loop", excess, "product_events")


def dear_destination(draft: Draft) -> Call:
    """A call to where no assistant should call: a satellite phone, a premium number or Cuba."""
    place, seconds = draft.rng.choice(
        (("satellite", (61, 170)), ("premium", (130, 290)), ("CU", (361, 540)))
    )
    call = outbound_assistant(replace(draft, talk_seconds=draft.rng.randint(*seconds)), place)
    excess = sum((node.cost for node in call.of_type("sip-trunking")), Decimal(0))
    return _expecting(call, "dear_destination", excess, "session_cost", "cost_per_minute")


def doubled_charge(draft: Draft) -> Call:
    """The same SIP leg is charged twice, each time with at least 0.30 USD."""
    draft = replace(draft, talk_seconds=draft.rng.randint(8 * 60, 14 * 60))
    call = trunk_call(draft, "DE mobile")
    charge = max(call.of_type("sip-trunking"), key=lambda node: node.cost)
    again = replace(charge, posted_after_seconds=charge.posted_after_seconds + 40)
    return _expecting(_with_part(call, again), "doubled_charge", charge.cost, "double_charge")


def wrong_rate(draft: Draft) -> Call:
    """A domestic call at several hundred times its rate."""
    draft = replace(draft, talk_seconds=draft.rng.randint(62, 115))
    rate = Decimal(draft.rng.randint(160, 220)) / 100
    call = trunk_call(draft, "US", rate=rate)
    sound = draft.prices.timed(draft.prices.sip_outbound_per_minute["US"], draft.talk_seconds)
    return _expecting(call, "wrong_rate", call.total - sound, "cost_per_minute")


def late_charge(draft: Draft) -> Call:
    """A sound call at first; twenty minutes later the leg of a dear transfer is charged.

    The recording posts between the first two looks, so that these two do not agree either.
    """
    draft = replace(draft, talk_seconds=draft.rng.randint(240, 300))
    draft.parts.parts_posted_at["recording"] = 190.0
    call = inbound_assistant(draft, draft.rng.randint(10, 20))
    leg = draft.leg(call.legs[0].to, draft.number("premium"), "outbound", joined_after_seconds=60)
    rate = draft.prices.sip_outbound_per_minute["premium"]
    charge = draft.parts.sip(leg, rate, posted_after_seconds=LATE_SECONDS)
    call = replace(_with_part(call, charge), legs=(*call.legs, leg))
    return _expecting(call, "late_charge", charge.cost, "session_cost", "cost_per_minute")


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        recipe.__name__: recipe
        for recipe in (
            runaway_assistant,
            inference_loop,
            dear_destination,
            doubled_charge,
            wrong_rate,
            late_charge,
        )
    }
)


def _with_part(call: Call, part: Node) -> Call:
    return replace(call, root=replace(call.root, children=(*call.root.children, part)))


def _expecting(call: Call, anomaly: str, excess: Decimal, *reasons: str) -> Call:
    excess = excess.quantize(_SMALLEST)
    above = [_ABOVE_LIMIT[reason](call, excess) for reason in reasons]
    severities = severities_between(min(money for money in above if money > 0), excess)
    expected = Expected(frozenset(reasons), severities, excess)
    return replace(call, anomaly=anomaly, expects=expected)


def severities_between(least: Decimal, most: Decimal) -> frozenset[str]:
    """The severities of all amounts from `least` to `most`; there is none below low."""
    grades = [_grade(least), _grade(most)]
    return frozenset(SEVERITIES[min(grades) : max(grades) + 1])


def _grade(amount: Decimal) -> int:
    return max(0, sum(amount >= step for step in _STEPS) - 1)


def _above_session_cost(call: Call, excess: Decimal) -> Decimal:
    return call.total - 5


def _above_cost_per_minute(call: Call, excess: Decimal) -> Decimal:
    return call.total - Decimal(max(60, round(call.duration_seconds))) / 60


def _above_product_events(call: Call, excess: Decimal) -> Decimal:
    turns = call.of_type("inference")
    spent = sum((node.cost for node in turns), Decimal(0))
    return spent * (len(turns) - 200) / len(turns)


def _charged_again(call: Call, excess: Decimal) -> Decimal:
    return excess


_ABOVE_LIMIT: Final[Mapping[str, Callable[[Call, Decimal], Decimal]]] = {
    "session_cost": _above_session_cost,
    "cost_per_minute": _above_cost_per_minute,
    "product_events": _above_product_events,
    "double_charge": _charged_again,
}
"""Money above the limit: the least that a watch may call excess, where it counts no more."""
