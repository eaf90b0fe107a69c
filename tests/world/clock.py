"""A clock that moves only when told to, so that hours of posting pass in no time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970, as `time.time`."""


class ManualClock:
    """Call it for the time; `advance` and `set` move it."""

    def __init__(self, start: datetime) -> None:
        self._now = start.timestamp()

    def __call__(self) -> float:
        return self._now

    @property
    def now(self) -> datetime:
        """The same as an aware datetime."""
        return utc(self._now)

    def advance(self, seconds: float) -> None:
        """Later by so many seconds."""
        self._now += seconds

    def set(self, moment: datetime) -> None:
        """To that moment, which may lie in the past."""
        self._now = moment.timestamp()


def utc(seconds: float) -> datetime:
    """The aware UTC datetime of a clock's reading."""
    return datetime.fromtimestamp(seconds, UTC)


def iso_seconds(moment: datetime) -> str:
    """As detail records write times: `2026-03-17T10:00:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def iso_micros(moment: datetime) -> str:
    """As webhooks write times: `2026-03-17T10:00:00.123456Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def later(moment: datetime, seconds: float) -> datetime:
    """So many seconds after the moment."""
    return moment + timedelta(seconds=seconds)
