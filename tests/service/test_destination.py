"""The country of a number: as the library has it, and None for whatever is no number."""

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.destination import country_of

CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
# Some toll-free numbers are the Dominican Republic's by their later digits.
TOLL_FREE = {"800", "888", "877", "866", "855", "844", "833", "822"}


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+4915112345678", "DE"),
        ("+49 (151) 123-456.78", "DE"),
        ("+13129457421", "US"),
        ("+18008648331", "US"),
        ("+16135550123", "CA"),
        ("+18765550123", "JM"),
        ("+77011234567", "KZ"),
        ("+441534123456", "JE"),
        ("+262262161234", "RE"),
        ("+390669812345", "VA"),
        ("+390612345678", "IT"),
        ("+6834123", "NU"),
        # A range of numbers for films, which the library does not count as anybody's.
        ("+447700900123", "GB"),
        ("+870773111632", "+870"),
        ("+881612345678", "+881"),
        ("+882161234567", "+882"),
        ("+883510012345", "+883"),
        ("+80012345678", "+800"),
    ],
)
def test_the_country_of_a_number(number: str, country: str) -> None:
    """Its ISO code; the calling code of what is of no country."""
    assert country_of(number) == country


@pytest.mark.parametrize(
    "junk",
    [
        *(None, "", "+", "…78", "911", "+911", "13129457421", "anonymous", "agent-7"),
        *("sip:+4915112345678@sip.telnyx.com", "+4915112345678@sip.telnyx.com"),
        *("+15551234567", "+1312945742", "+131294574210", "+2100000000", "+4915112345678901"),
        *("+٤٩١٥١١٢٣٤٥٦٧٨", "+49151123²5678", "+4915112345678x", "+0000000000"),
    ],
)
def test_what_is_no_number_has_no_country(junk: str | None) -> None:
    """Addresses, short codes, names, masked numbers, wrong lengths, areas that do not exist."""
    assert country_of(junk) is None


@given(text=st.text() | st.text(alphabet="+0123456789 -").map("+".__add__))
@example(text="+1" + "0" * 10)
def test_any_text_is_bearable(text: str) -> None:
    """Whatever the text, there is an answer."""
    country = country_of(text)
    assert country is None or len(country) in {2, 4}


def test_each_country_is_found() -> None:
    """The library's own example of a number of a country is of that country."""
    examples = filter(None, map(phonenumbers.example_number, phonenumbers.SUPPORTED_REGIONS))
    as_sent = {
        phonenumbers.format_number(n, phonenumbers.PhoneNumberFormat.E164): n for n in examples
    }
    assert len(as_sent) > 200
    said = {number: phonenumbers.region_code_for_number(n) for number, n in as_sent.items()}
    assert {number: country_of(number) for number in as_sent} == said


@given(
    area=st.integers(200, 999),
    subscriber=st.integers(0, 9_999_999),
)
def test_the_area_decides_in_north_america(area: int, subscriber: int) -> None:
    """What is remembered for the area is what the library says of any number it knows there."""
    number = f"+1{area}{subscriber:07d}"
    said = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    assert str(area) in TOLL_FREE or said in {None, country_of(number)}


@given(code=st.sampled_from(CODES), national=st.from_regex(r"\A[0-9]{6,12}\Z"))
def test_what_is_remembered_is_the_librarys_answer(code: int, national: str) -> None:
    """Elsewhere the library's answer comes, the second time as the first."""
    number = f"+{code}{national}"
    try:
        said = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        said = None
    if code == 1 or said is None or len(number) > len("+") + 15:
        return
    expected = f"+{code}" if said == "001" else said
    assert [country_of(number), country_of(number)] == [expected, expected]
