"""Text from outside, made fit for a terminal and for one line of a log.

What cannot be printed (control characters, line and paragraph separators, marks that turn the
reading direction) could move a cursor, forge a line or hide one. Pure.
"""

from typing import Final

_ASTRAL: Final = 0xFFFF


def safe(said: str) -> str:
    """One line that a terminal shows as it is: what cannot be printed becomes a question mark."""
    return said if said.isprintable() else "".join(c if c.isprintable() else "�" for c in said)


def safe_lines(said: str) -> str:
    """The same for a text of several lines, such as a traceback."""
    return "\n".join(safe(line) for line in said.split("\n"))


def json_safe(document: str) -> str:
    """The same JSON, with what cannot be printed as escapes: these stand in strings only."""
    if document.replace("\n", "").isprintable():
        return document
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in document)


def _escaped(character: str) -> str:
    code = ord(character)
    if code <= _ASTRAL:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
