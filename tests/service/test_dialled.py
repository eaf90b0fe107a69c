"""What is kept of the number that was dialled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dialled import Destination, destination

KEY = b"secret"


def _of(party: str, key: bytes = KEY) -> Destination:
    found = destination(party, key)
    assert found
    return found


def test_a_number_is_cut_to_its_first_digits() -> None:
    """However it is written."""
    assert _of("+49 151 1234-5678").prefix == _of("4915112345678").prefix == "+49151"


def test_neighbours_share_a_block_and_are_told_apart() -> None:
    """Numbers that differ in the last three digits."""
    one, other, far = map(_of, ("+37120000149", "+37120000777", "+37120001149"))
    assert one.block == other.block
    assert one.number != other.number
    assert far.block != one.block


@pytest.mark.parametrize("party", ["pbx@sip.telnyx.com", "112", "1001", "sip:+4915112345678@x.de"])
def test_what_has_no_digits_to_spare_has_no_prefix(party: str) -> None:
    """An extension is not to be read from what is kept."""
    kept = _of(party)
    assert kept.prefix == ""
    assert party not in kept.number + kept.block


@pytest.mark.parametrize("party", [None, ""])
def test_nobody_is_no_destination(party: str | None) -> None:
    """A conference has no number."""
    assert destination(party, KEY) is None


def test_without_the_key_numbers_cannot_be_tried_out() -> None:
    """Another key, other names."""
    assert _of("+4915112345678").number != _of("+4915112345678", b"other").number


def test_without_any_key_only_the_prefix_is_kept() -> None:
    """Names that everybody could make would be numbers."""
    assert destination("+4915112345678", b"") == Destination("+49151", "", "")


@given(st.text(max_size=40))
def test_any_text_is_kept_without_being_it(party: str) -> None:
    """Five digits of it at most, whatever it is."""
    kept = destination(party, KEY)
    if kept:
        assert len(kept.prefix) <= 6
        assert len(kept.number) == len(kept.block) == 12
