"""Slack's rules for an incoming webhook's payload: what it refuses, and what would page people.

https://docs.slack.dev/reference/block-kit/blocks ; the total is not documented, but enforced.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

MOST_BLOCKS: Final = 50
MOST_SECTION_TEXT: Final = 3_000
MOST_FIELDS: Final = 10
MOST_FIELD_TEXT: Final = 2_000
MOST_HEADER_TEXT: Final = 150
MOST_CONTEXT_ELEMENTS: Final = 10
MOST_BUTTON_TEXT: Final = 75
MOST_URL: Final = 3_000
MOST_ALT_TEXT: Final = 2_000
MOST_ACTIONS: Final = 25
MOST_BLOCK_ID: Final = 255
MOST_CHARACTERS: Final = 13_200
MOST_TEXT: Final = 40_000

_MENTION: Final = re.compile(r"<(?:!(?:channel|here|everyone|subteam\b)|@[UW])[^>]*>?")
_TEXTS: Final = frozenset({"mrkdwn", "plain_text"})


class Refused(Exception):
    """Slack's word for what is wrong with the payload, such as `invalid_blocks`, and the place."""

    def __init__(self, word: str, place: str) -> None:
        super().__init__(f"{word}: {place}")
        self.word = word
        self.place = place


def check(payload: Any) -> None:
    """Nothing where Slack would take the payload; raises Refused otherwise."""
    if not isinstance(payload, dict):
        raise Refused("invalid_payload", "not an object")
    text, blocks = payload.get("text"), payload.get("blocks")
    if text is None and not blocks and not payload.get("attachments"):
        raise Refused("no_text", "neither text nor blocks")
    if text is not None and (not isinstance(text, str) or len(text) > MOST_TEXT):
        raise Refused("invalid_payload", "text")
    if blocks is None:
        return
    if not isinstance(blocks, list) or len(blocks) > MOST_BLOCKS:
        raise Refused("invalid_blocks", f"more than {MOST_BLOCKS} blocks")
    for number, block in enumerate(blocks):
        _block(block, f"blocks[{number}]")
    if sum(map(len, texts(blocks))) > MOST_CHARACTERS:
        raise Refused("msg_blocks_too_long", f"more than {MOST_CHARACTERS} characters")


def mentions(payload: Any) -> list[str]:
    """Everything that would page somebody, wherever Slack reads markup."""
    return [found for text in _markup(payload) for found in _MENTION.findall(text)]


def texts(data: Any) -> Iterator[str]:
    """All texts that are shown."""
    if isinstance(data, Mapping):
        if data.get("type") in _TEXTS and isinstance(data.get("text"), str):
            yield data["text"]
        for value in data.values():
            yield from texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from texts(value)


def _markup(data: Any) -> Iterator[str]:
    """Texts in which Slack reads `<…>`: the message's own and every mrkdwn object."""
    if isinstance(data, Mapping):
        text = data.get("text")
        if isinstance(text, str) and data.get("type") != "plain_text":
            yield text
        for value in data.values():
            yield from _markup(value)
    elif isinstance(data, list):
        for value in data:
            yield from _markup(value)


def _block(block: Any, place: str) -> None:
    if not isinstance(block, dict):
        raise Refused("invalid_blocks", place)
    check_block = _BLOCKS.get(str(block.get("type")))
    if check_block is None:
        raise Refused("invalid_blocks", f"{place}: unknown type {block.get('type')!r}")
    _need(len(str(block.get("block_id", ""))) <= MOST_BLOCK_ID, f"{place}.block_id")
    check_block(block, place)


def _section(block: dict[str, Any], place: str) -> None:
    text, fields = block.get("text"), block.get("fields")
    _need(text is not None or fields, f"{place}: neither text nor fields")
    if text is not None:
        _text(text, MOST_SECTION_TEXT, f"{place}.text")
    if fields is not None:
        _need(isinstance(fields, list) and 0 < len(fields) <= MOST_FIELDS, f"{place}.fields")
        for number, field in enumerate(fields):
            _text(field, MOST_FIELD_TEXT, f"{place}.fields[{number}]")
    if "accessory" in block:
        _element(block["accessory"], f"{place}.accessory")


def _header(block: dict[str, Any], place: str) -> None:
    _text(block.get("text"), MOST_HEADER_TEXT, f"{place}.text", only="plain_text")


def _context(block: dict[str, Any], place: str) -> None:
    elements = block.get("elements")
    _need(
        isinstance(elements, list) and 0 < len(elements) <= MOST_CONTEXT_ELEMENTS,
        f"{place}.elements",
    )
    for number, element in enumerate(elements or ()):
        where = f"{place}.elements[{number}]"
        _need(isinstance(element, dict), where)
        if element.get("type") == "image":
            _image(element, where)
        else:
            _text(element, MOST_SECTION_TEXT, where)


def _actions(block: dict[str, Any], place: str) -> None:
    elements = block.get("elements")
    _need(isinstance(elements, list) and 0 < len(elements) <= MOST_ACTIONS, f"{place}.elements")
    for number, element in enumerate(elements or ()):
        _element(element, f"{place}.elements[{number}]")


def _divider(block: dict[str, Any], place: str) -> None:
    _need(set(block) <= {"type", "block_id"}, place)


def _image(block: dict[str, Any], place: str) -> None:
    _url(block.get("image_url"), f"{place}.image_url")
    alt = block.get("alt_text")
    _need(isinstance(alt, str) and 0 < len(alt) <= MOST_ALT_TEXT, f"{place}.alt_text")


def _rich_text(block: dict[str, Any], place: str) -> None:
    _need(isinstance(block.get("elements"), list), f"{place}.elements")


_BLOCKS: Final[Mapping[str, Callable[[dict[str, Any], str], None]]] = {
    "section": _section,
    "header": _header,
    "context": _context,
    "actions": _actions,
    "divider": _divider,
    "image": _image,
    "rich_text": _rich_text,
}


def _element(element: Any, place: str) -> None:
    _need(isinstance(element, dict), place)
    if element.get("type") == "image":
        _image(element, place)
        return
    _need(element.get("type") == "button", f"{place}: unknown type {element.get('type')!r}")
    _text(element.get("text"), MOST_BUTTON_TEXT, f"{place}.text", only="plain_text")
    if "url" in element:
        _url(element["url"], f"{place}.url")
    _need(element.get("style", "primary") in {"primary", "danger"}, f"{place}.style")


def _text(text: Any, most: int, place: str, *, only: str | None = None) -> None:
    _need(isinstance(text, dict), place)
    kind, content = text.get("type"), text.get("text")
    _need(kind in _TEXTS and only in {None, kind}, f"{place}.type")
    _need(isinstance(content, str) and 0 < len(content) <= most, f"{place}.text")
    known = {"type", "text", "emoji" if kind == "plain_text" else "verbatim"}
    _need(set(text) <= known, f"{place}: {sorted(set(text) - known)}")


def _url(url: Any, place: str) -> None:
    _need(
        isinstance(url, str) and url.startswith(("https://", "http://")) and len(url) <= MOST_URL,
        place,
    )


def _need(condition: object, place: str) -> None:
    if not condition:
        raise Refused("invalid_blocks", place)
