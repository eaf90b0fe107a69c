"""Sound calls, one recipe per kind: none of them is anything to alert about.

Each stays below 2 USD, below 100 inference turns and below 0.60 USD per minute of its own length.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from tests.world.draft import Draft
from tests.world.model import Call, Leg, Node
from tests.world.records import uuid4

Recipe: TypeAlias = Callable[[Draft], Call]

_AI_PLACES: Final = ("US", "US", "US", "CA", "GB mobile", "DE mobile", "DE landline", "NG mobile")
_SIP_PLACES: Final = ("US", "US", "US toll-free", "GB landline", "DE landline", "DE mobile")
_SECONDS_PER_TURN: Final = 13
_CHARACTERS_PER_TURN: Final = 85
_CUT_TURNS: Final = 60
_CUT_SHOWN: Final = 20


def ai_inbound(draft: Draft) -> Call:
    """Somebody calls an AI assistant."""
    leg = draft.leg(draft.number("US"), draft.number("US toll-free"), "inbound")
    return draft.finish("ai_inbound", [leg], _ai_parts(draft, leg), with_assistant=True)


def ai_outbound(draft: Draft) -> Call:
    """An AI assistant calls somebody, in one of several countries."""
    return outbound_assistant(draft, draft.rng.choice(_AI_PLACES))


def sip_outbound(draft: Draft) -> Call:
    """A telephone system calls out over SIP: two legs, the one to the network is billed."""
    return trunk_call(draft, draft.rng.choice(_SIP_PLACES))


def sip_inbound(draft: Draft) -> Call:
    """A call comes in over SIP."""
    leg = draft.leg(draft.number("US"), draft.number("US"), "inbound")
    return draft.finish("sip_inbound", [leg], [draft.parts.sip(leg)])


def webrtc(draft: Draft) -> Call:
    """A browser calls a phone."""
    browser = draft.leg("agent-7@sip.telnyx.com", draft.number("US"), "outbound")
    phone = draft.leg(browser.from_, browser.to, "outbound")
    parts = [
        draft.parts.webrtc(browser),
        draft.parts.sip(phone, draft.prices.sip_outbound_per_minute["US"]),
        draft.parts.call_control(browser),
    ]
    return draft.finish("webrtc", [browser, phone], parts)


def conference(draft: Draft) -> Call:
    """Three to six people talk with each other; they come and go one by one."""
    conference_id = uuid4(draft.rng)
    room = draft.number("US")
    most = min(30, draft.talk_seconds // 3)
    legs = [
        draft.leg(
            draft.number("US"),
            room,
            "inbound",
            joined_after_seconds=draft.rng.randint(0, most) if place else 0,
            ended_before_seconds=draft.rng.randint(0, most) if place else 0,
        )
        for place in range(draft.rng.randint(3, 6))
    ]
    parts = [part for leg in legs for part in _participant_parts(draft, leg, conference_id)]
    return draft.finish("conference", legs, parts, conference_id=conference_id)


def failed(draft: Draft) -> Call:
    """Nobody picks up, or the number is wrong: nothing is charged."""
    return unanswered(draft, "DE mobile")


def guide(draft: Draft) -> Call:
    """The example of Telnyx's guide: 152 seconds, 11 events, exactly 0.2128 USD.

    The amounts are those printed there, and they add up exactly; nothing was rounded to make them
    fit. The printed 0.0052 is 0.002 a minute in steps of six seconds (156 s); 0.0051 for the
    recording is what 152 s come to (0.005067) when it is rounded to four places.
    """
    draft = replace(draft, talk_seconds=150, ring_seconds=2)
    leg = draft.leg("web-dialer@sip.telnyx.com", draft.sip_address(), "inbound")
    parts = draft.parts
    fine = Decimal("0.0052")
    costs = ("0.0010", "0.0015", "0.0029", "0.0033", "0.0034")
    turns = [
        parts.turn(number, leg.start + timedelta(seconds=20 + 25 * number), cost=Decimal(cost))
        for number, cost in enumerate(costs)
    ]
    rate = Decimal("0.06")
    assistant = parts.assistant(leg, turns, rate=rate, cost=rate * 3)
    trunk = draft.leg(leg.from_, leg.to, "inbound")
    children = [
        parts.recording(leg, cost=Decimal("0.0051")),
        parts.webrtc(leg, cost=fine),
        parts.sip(trunk, draft.prices.webrtc_per_minute, cost=fine),
        parts.call_control(leg, [assistant], cost=fine),
    ]
    return draft.finish("guide", [leg, trunk], children, with_assistant=True)


def de_mobile_ai_57s(draft: Draft) -> Call:
    """As measured on a live account: 57 s to a German mobile phone, 0.0942421 USD.

    The inference turns of that call were nowhere to be found.
    """
    draft = replace(draft, talk_seconds=57)
    leg = draft.leg(draft.number("US"), draft.number("DE mobile"), "outbound")
    control = [draft.parts.assistant(leg, []), draft.parts.text_to_speech(leg, 203)]
    parts = [
        draft.parts.sip(leg, draft.prices.sip_outbound_per_minute["DE mobile"]),
        draft.parts.recording(leg),
        draft.parts.call_control(leg, control),
    ]
    return draft.finish("de_mobile_ai_57s", [leg], parts, with_assistant=True)


def ng_mobile(draft: Draft) -> Call:
    """As measured on a live account: two billed minutes to a Nigerian mobile phone, 0.3485 USD."""
    draft = replace(draft, talk_seconds=draft.rng.randint(70, 118))
    leg = draft.leg(draft.number("US"), draft.number("NG mobile"), "outbound")
    control = [draft.parts.assistant(leg, []), draft.parts.machine_detection(leg)]
    parts = [
        draft.parts.sip(leg, draft.prices.sip_outbound_per_minute["NG mobile"]),
        draft.parts.recording(leg),
        draft.parts.call_control(leg, control),
    ]
    return draft.finish("ng_mobile", [leg], parts, with_assistant=True)


def seven_levels(draft: Draft) -> Call:
    """A tree so deep that no `max_depth` reaches its leaves: seven levels, where five are shown."""
    conference_id = uuid4(draft.rng)
    leg = draft.leg(draft.number("US"), draft.number("US"), "inbound")
    parts = draft.parts
    turns = [replace(turn, children=(parts.embedding(),)) for turn in parts.turns(leg, 3)]
    control = parts.call_control(
        leg, [parts.assistant(leg, turns)], parent="conference-participant"
    )
    room = parts.conference(leg, conference_id, [parts.participant(leg, conference_id, [control])])
    call = draft.finish(
        "seven_levels",
        [leg],
        [parts.sip(leg), room],
        with_assistant=True,
        conference_id=conference_id,
    )
    return replace(call, root=parts_in_order(call.root))


def cut(draft: Draft) -> Call:
    """An answer that shows only twenty of an assistant's sixty turns, though it counts them all.

    Asked for by its own id the assistant shows every turn.
    """
    draft = replace(draft, talk_seconds=max(300, draft.talk_seconds))
    leg = draft.leg(draft.number("US"), draft.number("US toll-free"), "inbound")
    assistant = replace(
        draft.parts.assistant(leg, draft.parts.turns(leg, _CUT_TURNS)), shown_children=_CUT_SHOWN
    )
    parts = [draft.parts.sip(leg), draft.parts.call_control(leg, [assistant])]
    return draft.finish("cut", [leg], parts, with_assistant=True)


RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        recipe.__name__: recipe
        for recipe in (
            ai_inbound,
            ai_outbound,
            sip_outbound,
            sip_inbound,
            webrtc,
            conference,
            failed,
            guide,
            de_mobile_ai_57s,
            ng_mobile,
            seven_levels,
            cut,
        )
    }
)


# --- parts that anomalies use as well -----------------------------------------------------------


def outbound_assistant(
    draft: Draft, place: str, *, rate: Decimal | None = None, turns: int | None = None
) -> Call:
    """An AI assistant's call to that place, at the book's rate unless another is given."""
    leg = draft.leg(draft.number("US"), draft.number(place), "outbound")
    charged = draft.prices.sip_outbound_per_minute[place] if rate is None else rate
    parts = _ai_parts(draft, leg, charged, turns)
    return draft.finish("ai_outbound", [leg], parts, with_assistant=True)


def trunk_call(draft: Draft, place: str, *, rate: Decimal | None = None) -> Call:
    """A call from a telephone system: its own leg is free, the one to the network is billed."""
    inside = draft.leg("pbx@sip.telnyx.com", draft.number(place), "outbound")
    outside = draft.leg(draft.number("US"), inside.to, "outbound")
    charged = draft.prices.sip_outbound_per_minute[place] if rate is None else rate
    parts = [
        draft.parts.sip(inside, Decimal(0), leg_direction="inbound"),
        draft.parts.sip(outside, charged),
    ]
    return draft.finish("sip_outbound", [inside, outside], parts)


def unanswered(draft: Draft, place: str) -> Call:
    """A call to that place to which nobody answers."""
    cause, source, sip = draft.rng.choice(
        (
            ("call_rejected", "callee", "603"),
            ("user_busy", "callee", "486"),
            ("no_answer", "callee", "480"),
            ("originator_cancel", "caller", "487"),
            ("not_found", "callee", "404"),
        )
    )
    leg = replace(
        draft.leg(draft.number("US"), draft.number(place), "outbound"),
        answered=None,
        hangup_cause=cause,
        hangup_source=source,
        sip_hangup_cause=sip,
    )
    part = draft.parts.sip(leg, draft.prices.sip_outbound_per_minute[place])
    return draft.finish("failed", [leg], [part])


def inbound_assistant(draft: Draft, turns: int) -> Call:
    """A call to an AI assistant in which so many turns were taken."""
    leg = draft.leg(draft.number("US"), draft.number("US toll-free"), "inbound")
    return draft.finish(
        "ai_inbound", [leg], _ai_parts(draft, leg, turns=turns), with_assistant=True
    )


def parts_in_order(node: Node, not_before: float = 0.0) -> Node:
    """The same events, none of which appears before the one above it."""
    posted = max(node.posted_after_seconds, not_before)
    children = tuple(parts_in_order(child, posted) for child in node.children)
    return replace(node, posted_after_seconds=posted, children=children)


def _ai_parts(
    draft: Draft, leg: Leg, rate: Decimal | None = None, turns: int | None = None
) -> list[Node]:
    count = max(1, draft.talk_seconds // _SECONDS_PER_TURN) if turns is None else turns
    control = [
        draft.parts.assistant(leg, draft.parts.turns(leg, count)),
        draft.parts.text_to_speech(leg, count * _CHARACTERS_PER_TURN),
        draft.parts.speech_to_text(leg),
    ]
    if leg.direction == "outbound":
        control.append(draft.parts.machine_detection(leg))
    return [
        draft.parts.sip(leg, rate),
        draft.parts.recording(leg),
        draft.parts.call_control(leg, control),
    ]


def _participant_parts(draft: Draft, leg: Leg, conference_id: str) -> list[Node]:
    return [
        draft.parts.sip(leg),
        draft.parts.call_control(leg),
        draft.parts.participant(leg, conference_id),
    ]
