"""The public file of sessions, read: the other half of `workers.history`.

Pure: a line in, what is known of its call and its cost out. The format is described in the README
("Sessions in a file").
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service.destination import country_of
from service.events import read_time_ms
from service.masking import mask
from service.records import Call
from workers.analysis import Analysis, Unreadable, decode_analysis
from workers.products import CALL_SESSION
from workers.tree import CostTree, build_tree, text, whole_number


class _Webhook(msgspec.Struct):
    call_session_id: Any = None
    connection_id: Any = None
    assistant_id: Any = None
    # `from` is no name for an attribute, and the caller's number decides nothing.
    to: Any = None
    to_country: Any = None
    direction: Any = None
    duration_sec: Any = None


class _Line(msgspec.Struct):
    started_at: str
    ended_at: str
    webhook: _Webhook
    analysis: Analysis


class _OddLine(msgspec.Struct):
    started_at: str
    ended_at: str
    webhook: _Webhook
    analysis: msgspec.Raw


_TOO_LATE_MS: Final = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""The calendar ends with that year, and what is judged looks ahead."""
_COUNTRY: Final = re.compile(r"[A-Z]{2}|\+\d{1,4}", re.ASCII)
_LINES: Final = msgspec.json.Decoder(_Line)
_ODD_LINES: Final = msgspec.json.Decoder(_OddLine)


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One session of a file."""

    call: Call
    tree: CostTree
    called: str | None
    """The number that was called; None where the file has it masked: such as "…21" are many."""


def read_line(line: bytes) -> Recorded:
    """A line of the file. Raises Unreadable, whose words say what is wrong with it."""
    read = _decoded(line)
    start_ms, end_ms = read_time_ms(read.started_at), read_time_ms(read.ended_at)
    if start_ms is None or end_ms is None or max(start_ms, end_ms) >= _TOO_LATE_MS:
        raise Unreadable("started_at or ended_at is no time such as 2026-03-14T15:09:26Z")
    tree = build_tree(read.analysis, CALL_SESSION)
    webhook = read.webhook
    to_number = text(webhook.to)
    call = Call(
        session_id=text(webhook.call_session_id) or tree.session_id,
        start_ms=start_ms,
        end_ms=end_ms,
        direction=text(webhook.direction),
        connection_id=text(webhook.connection_id),
        assistant_id=text(webhook.assistant_id),
        to_number=to_number,
        to_country=_country(webhook.to_country) or country_of(to_number),
        duration_seconds=whole_number(webhook.duration_sec) or 0,
    )
    is_masked = to_number is not None and to_number[0] == "…" and mask(to_number) == to_number
    return Recorded(call, tree, None if is_masked else to_number)


def _country(value: Any) -> str | None:
    """What `country_of` may have said; anything else is no country."""
    said = text(value)
    return said if said and _COUNTRY.fullmatch(said) else None


def _decoded(line: bytes) -> _Line:
    try:
        return _LINES.decode(line)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a readable JSON document: {error}") from error
    try:
        odd = _ODD_LINES.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not a session: {error}") from error
    return _Line(odd.started_at, odd.ended_at, odd.webhook, decode_analysis(bytes(odd.analysis)))
