"""What Telnyx answered, without what people said or are called: fit to be kept for a while.

For answers on which our code broke, so nothing is taken for granted: the shape of the document
stays, since that is what one looks for; what is known to carry a person's words, and any sentence
under a name that we do not know, is replaced by its length; and whatever looks like a phone number
or an address is masked, wherever it stands. Pure, and never raises.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import msgspec

from service.masking import mask
from workers.analysis import Analysis, Links, Meta, Node, NodeCost, Record, Total

MOST_BYTES: Final = 1024 * 1024
"""A longer document is only described: walking it would hold up everything else."""
_LONGEST_TEXT: Final = 200
_LONGEST_PAGE: Final = 2000
_DEEPEST: Final = 100

_OURS: Final = frozenset(
    name
    for kind in (Analysis, Links, Meta, Node, NodeCost, Record, Total)
    for name in kind.__struct_fields__
) - {"cli", "cld"}
"""What is kept of an analysis anyway is kept here, too, but for its numbers."""

_PERSONAL: Final = re.compile(
    "name|transcript|message|content|text|speech|utter|prompt|instruct|greet|summar|note|subject"
    "|body|title|descri|client_state|header|sip_|custom|meta|variable|insight|mail|address|user"
    "|contact|display|caller|callee|from|to$|number|phone|cli$|cld$|secret|token|password|auth|key$"
    "|payload|argument|tool|recording_url|customer|agent|person|search|query",
    re.IGNORECASE,
)

_UUID: Final = r"(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])"
_BETWEEN: Final = r"[\s().\-–—/·_]{0,3}"
_SMALL_AMOUNT: Final = rf"(?<![\w.+(])0\.\d{{1,30}}(?!{_BETWEEN}\d)"
_DIGITS: Final = rf"[+(]{{0,2}}\d(?:{_BETWEEN}\d){{6,}}"
_NUMBER: Final = re.compile(f"(?P<kept>{_UUID}|{_SMALL_AMOUNT})|{_DIGITS}")
_ADDRESS: Final = re.compile(r"[^\s@\"'<>,;]+@[^\s@\"'<>,;]*")
# What looks like a number to the above, and is none when it stands alone.
_HARMLESS: Final = re.compile(
    r"""
      (?:19|20)\d\d-[01]\d-[0-3]\d (?:[T ][0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,9})?
                                   (?:Z|[+-][01]\d:?[0-5]\d)?)?  # a time
    | [1-9]\d{16,19}                                             # an id, longer than any number
    """,
    re.VERBOSE | re.ASCII,
)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)', re.DOTALL)

_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


def scrubbed(body: bytes) -> Any:
    """The document as JSON-able values; what is no JSON as the beginning of its text, masked."""
    if len(body) > MOST_BYTES:
        return f"[{len(body)} bytes]"
    try:
        document = _decode(body)
    except (ValueError, RecursionError, ArithmeticError):
        return _page(body[: _LONGEST_PAGE * 4].decode(errors="replace"))
    return _value(document, "", _DEEPEST)


def masked(text: str) -> str:
    """The text with every phone number, SIP and mail address cut to what may be shown."""
    if _HARMLESS.fullmatch(text):
        return text
    hidden = _ADDRESS.sub(lambda found: mask(found[0]), text)
    return _NUMBER.sub(lambda found: found["kept"] or mask(found[0]), hidden)


def _value(value: Any, name: str, depth: int) -> Any:
    if depth == 0:
        return "[deeper]"
    match value:
        case dict():
            return _object(value, name, depth)
        case list():
            return [_value(item, name, depth - 1) for item in value]
        case str():
            return _text(value, name)
        case bool() | None:
            return value
        case _:
            return _quantity(value, name)


def _object(value: dict[str, Any], name: str, depth: int) -> dict[str, Any]:
    """Below a personal name everything is personal."""
    inherited = name if _is_personal(name) else ""
    names = _distinct(masked(key[:_LONGEST_TEXT]) for key in value)
    items = zip(names, value.items(), strict=True)
    return {new: _value(item, inherited or key, depth - 1) for new, (key, item) in items}


def _distinct(names: Iterable[str]) -> list[str]:
    """The names, with a mark at those that masking has made alike."""
    seen: dict[str, None] = {}
    for name in names:
        new = name
        while new in seen:
            new += "'"
        seen[new] = None
    return list(seen)


def _text(value: str, name: str) -> str:
    if _is_personal(name) or (name not in _OURS and _is_prose(value)):
        return f"[{len(value)} characters]" if value else value
    return masked(value[:_LONGEST_TEXT])


def _quantity(value: Decimal | float, name: str) -> Any:
    said = str(value)
    return "[number]" if _is_personal(name) or masked(said) != said else value


def _is_personal(name: str) -> bool:
    return name not in _OURS and bool(_PERSONAL.search(name))


def _is_prose(value: str) -> bool:
    return any(character.isspace() for character in value.strip())


def _page(text: str) -> str:
    """What is no JSON: an error page, or a document cut off, whose quoted sentences go."""

    def without_prose(found: re.Match[str]) -> str:
        return f'"[{len(found[0])} characters]"' if _is_prose(found[0]) else found[0]

    return masked(_QUOTED.sub(without_prose, text)[:_LONGEST_PAGE])
