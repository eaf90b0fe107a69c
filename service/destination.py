"""The country of a number: what a call costs depends on it, and a masked number has lost it.

Pure. libphonenumber's plan of the world's numbers decides, but it is asked as little as may be:
most calling codes belong to one country, and of North America's numbers the area code decides.
"""

from functools import lru_cache
from typing import Final

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber, region_code_for_number

# ITU-T E.164: no number is longer. The shortest, of small islands, have four digits of their own.
_SHORTEST: Final = 7
_LONGEST: Final = 15
_CODE_LENGTHS: Final = (1, 2, 3)
_PUNCTUATION: Final = str.maketrans("", "", " -.()/\u00a0")
_NOWHERE: Final = "001"
_NORTH_AMERICA: Final = "1"
_NORTH_AMERICAN_DIGITS: Final = 11


def country_of(number: str | None) -> str | None:
    """The ISO 3166 alpha-2 code of an international number's country ("+49…" is "DE").

    Of numbers that belong to no country, such as those of satellites, the calling code: "+882".
    North America's toll-free numbers count as "US". None for whatever is no international number:
    an address, a short code, a name, a masked number.
    """
    if not number or number[0] != "+":
        return None
    digits = number[1:]
    if not digits.isdecimal():
        digits = digits.translate(_PUNCTUATION)
    if _SHORTEST <= len(digits) <= _LONGEST and digits.isascii() and digits.isdecimal():
        return _by_calling_code(digits)
    return None


def _by_calling_code(digits: str) -> str | None:
    for length in _CODE_LENGTHS:
        if digits[:length] in _REGIONS:
            break
    else:
        return None
    code = digits[:length]
    regions = _REGIONS[code]
    if len(regions) == 1:
        return "+" + code if regions[0] == _NOWHERE else regions[0]
    if code == _NORTH_AMERICA:
        return _of_area(digits[1:4]) if len(digits) == _NORTH_AMERICAN_DIGITS else None
    # Where the library knows no such number (yet), the largest of the countries is most likely.
    return _of_shared(code, digits[len(code) :]) or regions[0]


_REGIONS: Final = {str(code): regions for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}


@lru_cache(maxsize=1_000)
def _of_area(area: str) -> str | None:
    """By a subscriber's number that is valid in every area."""
    return _asked(_NORTH_AMERICA, area + "2345678")


@lru_cache(maxsize=20_000)
def _of_shared(code: str, national: str) -> str | None:
    return _asked(code, national)


def _asked(code: str, national: str) -> str | None:
    number = PhoneNumber(
        country_code=int(code),
        national_number=int(national),
        italian_leading_zero=national.startswith("0"),
        number_of_leading_zeros=max(1, len(national) - len(national.lstrip("0"))),
    )
    region: str | None = region_code_for_number(number)
    return region
