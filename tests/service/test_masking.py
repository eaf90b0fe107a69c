"""A masked party cannot be called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.masking import mask


@pytest.mark.parametrize(
    ("party", "masked"),
    [
        ("+4915112345678", "…78"),
        ("+1512-737-6291", "…91"),
        ("(512) 737 6291", "…91"),
        ("4915112345678", "…78"),
        ("sip:ada@example.com", "…@example.com"),
        ("ada@b@example.com", "…@example.com"),
        ("+1", "…"),
        ("12", "…"),
        ("", "…"),
        ("anonymous", "…"),
        ("…78", "…78"),
        ("…@example.com", "…@example.com"),
        ("…", "…"),
        # What only looks masked, and addresses whose host or parameters are numbers.
        ("…Ada Lovelace", "…"),
        ("ada@+4915112345678", "…"),
        ("ada@4915112345678", "…"),
        ("sip:ada@example.com;tel=+4915112345678", "…@example.com"),
        ("sip:ada@10.0.0.1:5060", "…@10.0.0.1"),
    ],
)
def test_parties_are_masked(party: str, masked: str) -> None:
    """Two digits of a number, the host of a SIP address, nothing of a name."""
    assert mask(party) == masked


@given(st.text(max_size=60) | st.from_regex(r"\+?[\d \-()]{0,20}", fullmatch=True))
def test_masking_twice_is_masking_once(party: str) -> None:
    """What is masked stays as it is."""
    assert mask(mask(party)) == mask(party)


@given(st.text(max_size=60).filter(lambda text: "@" not in text), st.sampled_from(["", "…"]))
def test_no_more_than_two_digits_are_shown(party: str, prefix: str) -> None:
    """Of what has no host, an ellipsis and at most two digits remain."""
    assert re.fullmatch(r"…\d{0,2}", mask(prefix + party))


@given(st.from_regex(r"\+?[0-9]{7,15}", fullmatch=True), st.text("abc.", max_size=10))
def test_the_number_in_a_sip_address_is_not_shown(number: str, host: str) -> None:
    """The user part of an address is often a phone number."""
    assert number not in mask(f"sip:{number}@{host}.example")
