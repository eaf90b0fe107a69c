"""What every message to Slack is made of: texts from outside made harmless, blocks within limits.

Pure. Whatever comes from outside is put into plain text or code and escaped, so that it can neither
mention people nor break the layout, and every text is cut to Slack's limits.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from slack_sdk.models.blocks import (
    Block,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from service.records import Severity

# https://docs.slack.dev/reference/block-kit/blocks: header and section limits; the whole message
# has an undocumented one of about 13,200 characters, which every message leaves far away.
HEADER_LIMIT: Final = 150
SECTION_LIMIT: Final = 3000
TEXT_LIMIT: Final = 300
LONGEST_WORD: Final = 80
LONGEST_SENTENCE: Final = 400
_LONGEST_CURRENCY: Final = 5

SIGNS: Final[dict[Severity, str]] = {
    Severity.LOW: ":large_blue_circle:",
    Severity.MEDIUM: ":large_yellow_circle:",
    Severity.HIGH: ":large_orange_circle:",
    Severity.CRITICAL: ":red_circle:",
}
REPEATED: Final = "perhaps told before: Slack did not say whether it took the first one"


def header(text: str) -> Block:
    """The title."""
    return HeaderBlock(text=PlainTextObject(text=escape(text)[:HEADER_LIMIT], emoji=True))


def section(text: str) -> Block:
    """Text in Slack's markup: what is from outside in it must be escaped already."""
    return SectionBlock(text=MarkdownTextObject(text=text[:SECTION_LIMIT], verbatim=True))


def plain_section(text: str) -> Block:
    """For sentences that hold words from outside: plain text has no formatting to break out of."""
    escaped = escape(text)[:SECTION_LIMIT]
    return SectionBlock(text=PlainTextObject(text=escaped, emoji=False))


def context(lines: Iterable[str]) -> Block:
    """Small print, at most ten lines."""
    shown = [escape(clean(line, LONGEST_SENTENCE)) for line in lines]
    return ContextBlock(elements=[PlainTextObject(text=line, emoji=False) for line in shown[:10]])


def one_line(text: str, *, repeated: bool) -> str:
    """The line that a phone shows, escaped and cut; a repeated message says so in any case."""
    ending = f" ({REPEATED})" if repeated else ""
    return escape(clean(text, TEXT_LIMIT - len(ending)) + ending)


def currency_of(code: str) -> str:
    """A code of letters; anything else in its place is junk from outside."""
    is_code = code.isascii() and code.isalpha() and len(code) <= _LONGEST_CURRENCY
    return code if is_code else "(unknown currency)"


def date(time: datetime) -> str:
    """Slack shows it in the reader's own zone; the fallback is for those who can't.

    https://docs.slack.dev/messaging/formatting-message-text#date-formatting
    """
    utc = time.astimezone(UTC)
    fallback = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return f"<!date^{int(utc.timestamp())}^{{date_short_pretty}} {{time_secs}}|{fallback}>"


def clean(text: str, longest: int) -> str:
    """One line without control characters, cut with an ellipsis."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def code(text: str, longest: int = LONGEST_WORD) -> str:
    """Fit for a code span, which a backtick would end."""
    return clean(text, longest).replace("`", "'")


def escape(text: str) -> str:
    """The three characters that Slack wants escaped, and no others.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
