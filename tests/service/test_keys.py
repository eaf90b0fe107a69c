"""The table of keys is the text about them, and knows its own."""

import re

import pytest

from service import keys
from service.keys import FAMILIES, Family


def test_the_table_is_the_text() -> None:
    """Each family of keys is described, in the same order, and nothing else is."""
    described = re.findall(r"^`([^`]+)`", keys.__doc__ or "", re.MULTILINE)
    assert [family.name for family in FAMILIES] == described


def test_owned_keys_are_owned_by_somebody() -> None:
    """What holds ids up is itself in the table, as owned."""
    owned = {family.name for family in FAMILIES if family.owned}
    assert {line for family in FAMILIES for line in family.held_by} <= owned


@pytest.mark.parametrize(
    ("key", "name", "id"),
    [
        ("tollwatch:session:a:b", "tollwatch:session:{id}", "a:b"),
        ("tollwatch:sessions", "tollwatch:sessions", ""),
        ("tollwatch:dead", "tollwatch:dead", ""),
        ("tollwatch:dead:kinds", "tollwatch:dead:kinds", ""),
        ("arq:queue:x", "arq:*", "queue:x"),
    ],
)
def test_a_key_has_one_family(key: str, name: str, id: str) -> None:
    """A key is of exactly one family, with its id."""
    (found,) = [(f.name, f.id_of(key)) for f in FAMILIES if f.id_of(key) is not None]
    assert found == (name, id)


def test_a_key_of_nobody() -> None:
    """A key that is not described has no family."""
    assert [f for f in FAMILIES if f.id_of("tollwatch:novel") is not None] == []
    assert Family("a").id_of("ab") is None
