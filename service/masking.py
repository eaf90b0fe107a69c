"""Phone numbers and SIP addresses, cut to what a log, an alert or a page may show."""

import re
from typing import Final

_DIGITS_SHOWN: Final = 2
_NOT_DIGITS: Final = re.compile(r"\D")
_MASKED: Final = re.compile(r"…\d{0,2}")
# Up to the parameters of an address, which may hold a number; without a letter or a dot it is one.
_HOST: Final = re.compile(r"[A-Za-z0-9-]*[A-Za-z.][A-Za-z0-9.-]*", re.ASCII)


def mask(party: str) -> str:
    """The last two digits of a number: "+4915112345678" is "…78"; of a SIP address its host.

    Masking what is masked already changes nothing.
    """
    if "@" in party:
        host = _HOST.match(party.rpartition("@")[2])
        return f"…@{host[0]}" if host else "…"
    digits = _NOT_DIGITS.sub("", party)
    if len(digits) <= _DIGITS_SHOWN:
        return party if _MASKED.fullmatch(party) else "…"
    return "…" + digits[-_DIGITS_SHOWN:]
