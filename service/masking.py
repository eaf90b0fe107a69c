"""Phone numbers and SIP addresses, cut to what a log, an alert or a page may show."""

import re
from typing import Final

_DIGITS_SHOWN: Final = 2
_NOT_DIGITS: Final = re.compile(r"\D")


def mask(party: str) -> str:
    """The last two digits of a number: "+4915112345678" is "…78"; of a SIP address its host.

    Masking what is masked already changes nothing.
    """
    if "@" in party:
        return "…@" + party.rpartition("@")[2]
    digits = _NOT_DIGITS.sub("", party)
    if len(digits) <= _DIGITS_SHOWN:
        return party if party.startswith("…") else "…"
    return "…" + digits[-_DIGITS_SHOWN:]
