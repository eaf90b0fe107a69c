"""Slack's Block Kit drawn in a terminal, so that the demonstration shows what Slack would show.

Pure: a payload in, a rich renderable out. Only what incoming webhooks use is drawn with care; an
unknown block says its type, so that nothing is lost without a word.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from rich.box import Box
from rich.console import Group, RenderableType
from rich.emoji import Emoji, NoEmoji
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

_BAR: Final = Box("▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n")
_CODE: Final = "bright_red on grey11"
_PREFORMATTED: Final = "bright_white on grey11"
_LINK: Final = "bright_blue"
_MENTION: Final = "bold black on yellow"
_QUIET: Final = "grey62"
_BUTTONS: Final = {"primary": "bold white on green4", "danger": "bold white on red3"}

# Slack's names that rich does not know.
_EMOJI: Final = {
    "large_yellow_circle": "🟡",
    "large_orange_circle": "🟠",
    "large_green_circle": "🟢",
    "large_purple_circle": "🟣",
    "slightly_smiling_face": "🙂",
    "money_with_wings": "💸",
}
# A message has no colour of its own: it takes the first sign that its author put into it.
_SIGNS: Final = {
    "red_circle": "red1",
    "rotating_light": "red1",
    "fire": "red1",
    "large_orange_circle": "dark_orange",
    "warning": "dark_orange",
    "large_yellow_circle": "yellow1",
    "large_blue_circle": "dodger_blue1",
    "large_green_circle": "green3",
    "white_check_mark": "green3",
}
_NAMED_COLOURS: Final = {"danger": "red1", "warning": "dark_orange", "good": "green3"}
_PLAIN_BAR: Final = "grey50"

# https://docs.slack.dev/messaging/formatting-message-text
_SHORTCODE: Final = re.compile(r":([a-z0-9_+-]+):")
_TOKEN: Final = re.compile(
    r"```(?P<pre>.+?)```"
    r"|`(?P<code>[^`\n]+)`"
    r"|<(?P<entity>[^<>\n]+)>"
    r"|(?<![\w*])\*(?P<bold>[^*\n]+)\*(?![\w*])"
    r"|(?<![\w_])_(?P<italic>[^_\n]+)_(?![\w_])"
    r"|(?<![\w~])~(?P<strike>[^~\n]+)~(?![\w~])",
    re.DOTALL,
)
_SPANS: Final = {"bold": "bold", "italic": "italic", "strike": "strike"}
_DATE: Final = re.compile(r"!date\^(?P<time>\d+)\^(?P<format>[^|^]*)(?:\^[^|]*)?(?:\|.*)?")
_DATE_PART: Final = re.compile(r"\{(\w+)\}")
_DATE_FORMATS: Final = {
    "date_num": "%Y-%m-%d",
    "date_slash": "%d/%m/%Y",
    "date": "%B %-d, %Y",
    "date_short": "%b %-d, %Y",
    "date_long": "%A, %B %-d, %Y",
    "time": "%H:%M",
    "time_secs": "%H:%M:%S",
}


class Reader:
    """Who looks at the message: their time zone, None for this machine's, and their now."""

    def __init__(self, now: datetime, zone: tzinfo | None = None) -> None:
        self.zone = zone
        self.now = now.astimezone(zone)


def draw(
    payload: Json, *, at: datetime, app: str = "tollwatch", zone: tzinfo | None = None
) -> RenderableType:
    """An incoming webhook's payload as its reader sees it at `at`, an aware time."""
    reader = Reader(at, zone)
    blocks = payload.get("blocks") or ()
    body: list[RenderableType] = [_byline(app, reader)]
    # Slack shows `text` only where there are no blocks.
    body += [_block(block, reader) for block in blocks] or [mrkdwn(payload.get("text", ""), reader)]
    body += [_attachment(attached, reader) for attached in payload.get("attachments") or ()]
    return Panel(Group(*body), box=_BAR, border_style=colour_of(payload), padding=(0, 1))


def colour_of(payload: Json) -> str:
    """The colour of the first sign in the message."""
    for text in _texts(payload.get("blocks") or [payload]):
        for name in _SHORTCODE.findall(text):
            if name in _SIGNS:
                return _SIGNS[name]
    return _PLAIN_BAR


def mrkdwn(source: str, reader: Reader, style: str = "") -> Text:
    """Slack's own markup as styled text."""
    text = Text(style=style)
    end = 0
    for token in _TOKEN.finditer(source):
        text.append(_plain(source[end : token.start()]))
        _append(text, token, reader)
        end = token.end()
    text.append(_plain(source[end:]))
    return text


def shortcodes(source: str) -> str:
    """`:name:` as its character, where the name is known."""
    return _SHORTCODE.sub(lambda match: _emoji(match[1]) or match[0], source)


def _append(text: Text, token: re.Match[str], reader: Reader) -> None:
    kind, inner = next((k, v) for k, v in token.groupdict().items() if v is not None)
    if kind == "pre":
        _append_preformatted(text, _unescape(inner))
    elif kind == "code":
        text.append(f" {_unescape(inner)} ", _CODE)
    elif kind == "entity":
        text.append_text(_entity(inner, reader))
    else:
        inside = mrkdwn(inner, reader)
        inside.stylize(_SPANS[kind])
        text.append_text(inside)


def _append_preformatted(text: Text, source: str) -> None:
    """A block of its own: on its own lines, all of them as wide as the widest."""
    lines = source.strip("\n").split("\n")
    width = max(map(len, lines))
    if text.plain and not text.plain.endswith("\n"):
        text.append("\n")
    for number, line in enumerate(lines):
        text.append("\n" if number else "")
        text.append(f" {line:<{width}} ", _PREFORMATTED)


def _entity(inner: str, reader: Reader) -> Text:
    """What Slack writes between < and >: a date, a mention, a channel or a link."""
    date = _DATE.fullmatch(inner)
    if date:
        return Text(_date(date, reader))
    target, _, label = inner.partition("|")
    if target[0] in "!@":
        name = target[1:].partition("^")[0]
        return Text(f"@{_plain(label or name).lstrip('@')}", _MENTION)
    if target[0] == "#":
        return Text(f"#{_plain(label or target[1:])}", _LINK)
    return _link(_unescape(target), _plain(label))


def _link(url: str, label: str = "", style: str = _LINK) -> Text:
    shown = label or url.removeprefix("mailto:")
    return Text(shown, Style.parse(f"underline {style}") + Style(link=url))


def _date(match: re.Match[str], reader: Reader) -> str:
    time = datetime.fromtimestamp(int(match["time"]), tz=UTC).astimezone(reader.zone)
    return _DATE_PART.sub(lambda part: _date_part(part, time, reader), match["format"])


def _date_part(part: re.Match[str], time: datetime, reader: Reader) -> str:
    name = part[1].removesuffix("_pretty")
    if name not in _DATE_FORMATS:
        return part[0]
    if name != part[1]:
        days = (time.date() - reader.now.date()).days
        near = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(days)
        if near:
            return near
    return time.strftime(_DATE_FORMATS[name])


def _plain(source: str) -> str:
    return shortcodes(_unescape(source))


def _unescape(source: str) -> str:
    return source.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _emoji(name: str) -> str:
    if name in _EMOJI:
        return _EMOJI[name]
    try:
        return str(Emoji(name))
    except NoEmoji:
        return ""


def _texts(blocks: Iterable[Json]) -> Iterator[str]:
    for block in blocks:
        text = block.get("text")
        if isinstance(text, Mapping):
            text = text.get("text")
        if isinstance(text, str):
            yield text


def _byline(app: str, reader: Reader) -> Text:
    """The line above every message: who wrote it, that it is no person, and when."""
    return Text.assemble(
        (app, "bold"), " ", (" APP ", "grey11 on grey62"), (f" {reader.now:%H:%M}", _QUIET)
    )


def _attachment(attached: Json, reader: Reader) -> RenderableType:
    body = [_block(block, reader) for block in attached.get("blocks") or ()]
    colour = str(attached.get("color") or _PLAIN_BAR)
    text = mrkdwn(attached.get("text") or attached.get("fallback") or "", reader)
    style = colour if colour.startswith("#") else _NAMED_COLOURS.get(colour, _PLAIN_BAR)
    return Panel(Group(*(body or [text])), box=_BAR, border_style=style, padding=(0, 1))


def _block(block: Json, reader: Reader) -> RenderableType:
    """One block, by https://docs.slack.dev/reference/block-kit/blocks ."""
    kind = str(block.get("type"))
    if kind not in _BLOCKS:
        return Text(f"[{kind} block]", _QUIET)
    return Padding(_BLOCKS[kind](block, reader), (1, 0, 0, 0))


def _header(block: Json, reader: Reader) -> Text:
    return _object(block["text"], reader, "bold")


def _divider(_block: Json, _reader: Reader) -> Rule:
    return Rule(style="grey35")


def _image(block: Json, _reader: Reader) -> Text:
    return Text(f"[image: {block.get('alt_text', '')}]", _QUIET)


def _object(text: Json, reader: Reader, style: str = "") -> Text:
    """A text object: mrkdwn, or plain text, in which only emoji are read."""
    source = str(text.get("text", ""))
    if text.get("type") == "mrkdwn":
        return mrkdwn(source, reader, style)
    return Text(shortcodes(source) if text.get("emoji", True) else source, style)


def _section(block: Json, reader: Reader) -> RenderableType:
    parts: list[RenderableType] = []
    if block.get("text"):
        parts.append(_object(block["text"], reader))
    if block.get("fields"):
        parts.append(_fields(block["fields"], reader))
    if not block.get("accessory"):
        return Group(*parts)
    beside = Table.grid(padding=(0, 2), expand=True)
    beside.add_column(ratio=1)
    beside.add_column(justify="right")
    beside.add_row(Group(*parts), _button(block["accessory"]))
    return beside


def _fields(fields: Sequence[Json], reader: Reader) -> Table:
    """Two columns, filled row by row."""
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    drawn = [_object(field, reader) for field in fields]
    for left in range(0, len(drawn), 2):
        grid.add_row(*drawn[left : left + 2])
    return grid


def _context(block: Json, reader: Reader) -> Text:
    elements = (
        Text(f"[{element.get('alt_text', 'image')}]")
        if element.get("type") == "image"
        else _object(element, reader)
        for element in block.get("elements") or ()
    )
    text = Text("   ").join(elements)
    text.style = _QUIET
    return text


def _actions(block: Json, _reader: Reader) -> Text:
    return Text("  ").join(_button(element) for element in block.get("elements") or ())


def _button(element: Json) -> Text:
    if element.get("type") == "image":
        return Text(f"[{element.get('alt_text', 'image')}]", _QUIET)
    label = shortcodes(str((element.get("text") or {}).get("text", element.get("type", ""))))
    style = Style.parse(_BUTTONS.get(str(element.get("style")), "bold white on grey30"))
    return Text(f" {label} ", style + Style(link=element.get("url")))


def _rich_text(block: Json, reader: Reader) -> RenderableType:
    """Text as Slack's own editor makes it: /reference/block-kit/blocks/rich-text-block ."""
    return Group(*(_rich_part(part, reader) for part in block.get("elements") or ()))


def _rich_part(part: Json, reader: Reader) -> RenderableType:
    elements = part.get("elements") or ()
    match part.get("type"):
        case "rich_text_list":
            numbered = part.get("style") == "ordered"
            return Group(
                *(
                    Text(f"{number}. " if numbered else "• ").append_text(_run(item, reader))
                    for number, item in enumerate(elements, 1)
                )
            )
        case "rich_text_preformatted":
            text = Text()
            _append_preformatted(text, _run(part, reader).plain)
            return text
        case "rich_text_quote":
            return Text("▏ ", _QUIET).append_text(_run(part, reader))
        case _:
            return _run(part, reader)


def _run(part: Json, reader: Reader) -> Text:
    text = Text()
    for element in part.get("elements") or ():
        text.append_text(_rich_element(element, reader))
    return text


def _rich_element(element: Json, reader: Reader) -> Text:
    styles = [name for name, is_on in (element.get("style") or {}).items() if is_on is True]
    style = " ".join(_CODE if name == "code" else name for name in styles)
    match element.get("type"):
        case "text":
            return Text(str(element.get("text", "")), style)
        case "link":
            return _link(str(element.get("url", "")), str(element.get("text", "")))
        case "emoji":
            name = str(element.get("name", ""))
            return Text(_emoji(name) or f":{name}:")
        case "date":
            return _entity(f"!date^{element.get('timestamp')}^{element.get('format')}", reader)
        case kind:
            named = (element.get(key) for key in ("range", "user_id", "channel_id"))
            return Text(f"@{next(filter(None, named), kind)}", _MENTION)


_BLOCKS: Final[Mapping[str, Callable[[Json, Reader], RenderableType]]] = {
    "header": _header,
    "section": _section,
    "context": _context,
    "divider": _divider,
    "actions": _actions,
    "image": _image,
    "rich_text": _rich_text,
}
