"""A tree for other programs: stable columns, exact numbers, nothing that runs or hides."""

import csv
import io
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.printable import json_safe, safe
from tests.samples import analysis, node
from tests.workers.trees import Branch, branches, guide, wire
from workers.analysis import Analysis, decode_analysis, encode_analysis
from workers.export import COLUMNS, as_csv, as_ndjson, compact, pretty, rows
from workers.products import CALL_SESSION
from workers.tree import CostTree, build_tree


def read(body: bytes) -> tuple[Analysis, CostTree]:
    found = decode_analysis(body)
    encode_analysis(found)
    return found, build_tree(found, CALL_SESSION)


def table(body: bytes) -> list[dict[str, str]]:
    """The CSV as another program reads it."""
    return list(csv.DictReader(io.StringIO("".join(as_csv(rows(*read(body)))))))


def session_with(**record: Any) -> bytes:
    leg = node("sip-trunking", "7.0E-7", id="leg", **record)
    return msgspec.json.encode(analysis(node("call-session", "0.0000", leg, id="s")))


def test_the_columns_are_a_promise() -> None:
    """Names and order of the columns never change: a new one comes at the end, and here."""
    assert (
        *("session_id", "depth", "path", "parent_id", "id", "record_type", "product"),
        *("event_name", "event_cost", "cumulative_cost", "subtotal", "currency", "rate"),
        *("rate_measured_in", "billed_seconds", "real_seconds", "started_at", "finished_at"),
        *("direction", "connection_id", "assistant_id", "model"),
    ) == COLUMNS


def test_the_guides_example_as_rows() -> None:
    """Telnyx's own example is eleven rows, parents before children, and adds up."""
    found = table(wire(guide()))
    assert len(found) == 11
    assert [row["depth"] for row in found[:7]] == ["1", "2", "2", "2", "2", "3", "4"]
    assert sum(Decimal(row["event_cost"]) for row in found) == Decimal("0.2128")
    turn = found[-1]
    assert turn["path"] == "call-session/call-control/ai-voice-assistant/inference"
    assert (turn["parent_id"], turn["id"], turn["product"]) == ("ai", "turn-4", "inference")
    control = next(row for row in found if row["id"] == "control")
    assert (control["record_type"], control["product"]) == ("call-control", "callcontrol-cdrs")
    assert (control["event_cost"], control["cumulative_cost"]) == ("0.0052", "0.1973")


def test_a_record_fills_its_columns() -> None:
    """Rates, seconds, times and ids come from the record; what it lacks is empty."""
    row = table(
        session_with(
            rate="0.0401",
            rate_measured_in="minutes",
            billed_sec=60,
            call_sec=35,
            started_at="2026-03-17T10:00:00Z",
            completed_at="2026-03-17T10:00:35Z",
            direction="outbound",
            connection_id=2519141575053804765,
            llm_model="gpt",
        )
    )[1]
    assert row["event_cost"] == "0.0000007"
    assert (row["rate"], row["rate_measured_in"]) == ("0.0401", "minutes")
    assert (row["billed_seconds"], row["real_seconds"]) == ("60", "35")
    assert (row["started_at"], row["finished_at"]) == (
        "2026-03-17T10:00:00Z",
        "2026-03-17T10:00:35Z",
    )
    assert (row["connection_id"], row["assistant_id"]) == ("2519141575053804765", "")
    assert (row["direction"], row["model"]) == ("outbound", "gpt")


@pytest.mark.parametrize(
    "formula",
    ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x")', " =1", "\t=1", "\n=1", "\x00=1", "=a,b\n"],
)
def test_no_cell_is_a_formula(formula: str) -> None:
    """Text from outside that a spreadsheet would run is quoted, in every column that holds any."""
    rows_ = table(session_with(model=formula, direction=formula, rate_measured_in=formula))
    assert len(rows_) == 2
    for name in ("model", "direction", "rate_measured_in"):
        assert rows_[1][name].startswith("'") == bool(rows_[1][name])
        assert rows_[1][name].isprintable()


def test_a_negative_cost_stays_a_number() -> None:
    """A credit is money and no formula."""
    body = wire(Branch("s", CALL_SESSION, Decimal("-0.5")))
    assert table(body)[0]["event_cost"] == "-0.5"


def test_ndjson_holds_the_record_without_numbers() -> None:
    """One object for each event, with its record as it is kept: phone numbers masked."""
    body = session_with(cli="+4915112345678", cld="+18008648331", caller_name="Ada", rate="0.01")
    lines = "".join(as_ndjson(*read(body))).splitlines()
    found = [msgspec.json.decode(line) for line in lines]
    assert [tuple(row)[:-1] for row in found] == [COLUMNS, COLUMNS]
    assert found[1]["record"] == {
        "record_type": "sip-trunking",
        "cli": "…78",
        "cld": "…31",
        "rate": "0.01",
    }


@given(branches())
def test_any_tree_has_a_row_for_each_event(branch: Branch) -> None:
    """Whatever the shape: as many rows as events, with the costs that Telnyx sent."""
    found = table(wire(branch))
    assert {row["id"]: Decimal(row["event_cost"]) for row in found} == branch.costs()


@given(st.text())
def test_what_is_shown_cannot_move_the_cursor(text: str) -> None:
    """Safe text is one printable line of the same length; printable text stays as it is."""
    shown = safe(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert shown == text or not text.isprintable()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_safe_json_is_the_same_json(value: Any) -> None:
    """Escaping what a terminal would obey changes nothing for a program that reads it."""
    plain = msgspec.json.encode(value).decode(errors="surrogatepass")
    assert msgspec.json.decode(json_safe(plain)) == value
    assert compact(value).isprintable()
    assert msgspec.json.decode(pretty(value)) == value
    assert pretty(value).replace("\n", "").isprintable()


def test_json_escapes_what_terminals_obey() -> None:
    """Control sequences, reading direction and characters beyond the first plane."""
    assert compact("a\x9b\u202e\U000e0041") == '"a\\u009b\\u202e\\udb40\\udc41"'
