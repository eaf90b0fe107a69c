"""Amounts by hour since 1970, side by side: those of the same hour of many days are one slice.

Pure. Only so many days are of use: what is older may be forgotten at any time.
"""

from collections.abc import Iterator
from typing import Final

DAY_HOURS: Final = 24
DAYS_KEPT: Final = 28
HOURS_KEPT: Final = DAYS_KEPT * DAY_HOURS
_SPARE: Final = 2 * DAY_HOURS
"""Hours in front of those that are asked for, so that every slice ends before the list does."""
_LONGEST_GAP: Final = 2 * HOURS_KEPT
"""A clock that was wrong must not fill the memory with nothing."""


class Hours:
    """Whole numbers that are added to. What was never added to is 0."""

    __slots__ = ("_amounts", "_first")

    def __init__(self, hour: int) -> None:
        """`hour` is about where the amounts will begin."""
        self._first = hour - _SPARE
        self._amounts: list[int] = []

    def __getitem__(self, hour: int) -> int:
        place = hour - self._first
        return self._amounts[place] if 0 <= place < len(self._amounts) else 0

    def __len__(self) -> int:
        """How many hours there is room for."""
        return len(self._amounts)

    def items(self) -> Iterator[tuple[int, int]]:
        """Hours with their amounts, in order, but for those with none."""
        hours = enumerate(self._amounts, self._first)
        return ((hour, amount) for hour, amount in hours if amount)

    def add(self, hour: int, amount: int) -> None:
        """Adds to an hour. One that is too far from the others to be of use is left out."""
        place = hour - self._first
        if not 0 <= place < len(self._amounts):
            if not self._amounts:
                self._first = hour - _SPARE
            elif not -_LONGEST_GAP <= place - _SPARE <= len(self._amounts) + _LONGEST_GAP:
                return
            self.reach(hour, hour + 1)
            place = hour - self._first
        self._amounts[place] += amount

    def reach(self, first: int, end: int) -> None:
        """Has `same` answer for hours from `first` to before `end`, and that before each of them.

        What is too far from them to be of use is dropped.
        """
        first -= _SPARE
        if not -_LONGEST_GAP <= first - self._first <= len(self._amounts) + _LONGEST_GAP:
            self._first, self._amounts = first, []
        if first < self._first:
            self._amounts[:0] = [0] * (self._first - first)
            self._first = first
        self._amounts += [0] * (end - self._first - len(self._amounts))

    def same(self, hour: int, days: int) -> list[int]:
        """The same hour of so many days up to and with that one's, the latest first.

        All of them must have been made to be in `reach`.
        """
        place = hour - self._first
        return self._amounts[place : place - days * DAY_HOURS : -DAY_HOURS]

    def total(self, first: int, end: int) -> int:
        """All from one hour to before another."""
        begin = max(0, first - self._first)
        return sum(self._amounts[begin : max(begin, end - self._first)])

    def forget(self, before: int) -> None:
        """Drops what was before that hour."""
        drop = before - _SPARE - self._first
        if drop > 0:
            del self._amounts[:drop]
            self._first += drop
        old = max(0, min(before - self._first, len(self._amounts)))
        self._amounts[:old] = [0] * old
