"""Spans of time: what a person or a schedule wants searched. Pure.

Times are milliseconds since 1970; a span holds both its ends.
"""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

_DURATION: Final = re.compile(r"(\d{1,6})\s*([smhd])", re.ASCII)
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Span(msgspec.Struct, frozen=True):
    """From one moment to another, both included."""

    since_ms: int
    until_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether the moment lies in it."""
        return self.since_ms <= at_ms <= self.until_ms


def read_duration(text: str) -> int | None:
    """`90m`, `6h` or `2d` in milliseconds; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    return int(found[1]) * _UNIT_MS[found[2]] if found else None


def read_moment(text: str, *, now_ms: int) -> int:
    """`90m`, `6h` or `2d` ago, or an ISO 8601 time (UTC where it names no zone).

    Raises ValueError with what is wrong.
    """
    ago_ms = read_duration(text)
    if ago_ms is not None:
        return max(0, now_ms - ago_ms)
    try:
        time = datetime.fromisoformat(text.strip())
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            "neither a duration such as 90m, 6h or 2d, nor an ISO 8601 time such as "
            "2026-03-17T10:00Z"
        ) from error
