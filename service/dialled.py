"""Where a call went, as far as counting needs it: a prefix, and names that stand for a number.

Pure. Taken from the number before it is masked, and all that is kept of it. Many calls to one
number, or to neighbouring ones, are the shapes of toll fraud, so whoever counts has to know whether
two calls went to the same number, and never which it was.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

_PREFIX_DIGITS: Final = 5
_LEAST_DIGITS: Final = 7
"""Shorter ones are extensions and emergency numbers: a prefix would be the number."""
_BLOCK_DIGITS: Final = 3
"""Numbers that differ in these last ones only are neighbours."""
_DIGEST_BYTES: Final = 6
_NUMBER: Final = re.compile(r"\+?[\d ().-]+", re.ASCII)
_NOT_DIGITS: Final = re.compile(r"\D")


@dataclass(frozen=True, slots=True)
class Destination:
    """Whom a call was for. `number` and `block` mean nothing without the key they were made with.

    `block` is shared by the numbers that differ in the last three digits only.
    """

    prefix: str
    """The first digits, as "+4915"; "" where it was no number that has them to spare."""
    number: str
    block: str


def destination(party: str | None, key: bytes) -> Destination | None:
    """What is kept of the number or address that was called; None where there is neither.

    `key` (64 bytes at most) is a secret of those who count: without it numbers could be tried out,
    so nothing stands for them then.
    """
    if not party:
        return None
    prefix, number, block = in_clear(party)
    if not key:
        return Destination(prefix, number="", block="")
    return Destination(prefix, _digest(number, key), _digest(block, key))


def in_clear(party: str) -> tuple[str, str, str]:
    """Prefix, number and block of a number or address, the last two for nobody else to see."""
    digits = _digits(party)
    if not digits:
        return "", party, party
    prefix = f"+{digits[:_PREFIX_DIGITS]}" if len(digits) > _PREFIX_DIGITS + _BLOCK_DIGITS else ""
    return prefix, digits, digits[:-_BLOCK_DIGITS] + "…"


def _digits(party: str) -> str:
    """Those of a number that is long enough; none of anything else."""
    digits = _NOT_DIGITS.sub("", party) if _NUMBER.fullmatch(party) else ""
    return digits if len(digits) >= _LEAST_DIGITS else ""


def _digest(text: str, key: bytes) -> str:
    return hashlib.blake2b(text.encode(), key=key, digest_size=_DIGEST_BYTES).hexdigest()
