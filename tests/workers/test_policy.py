"""A policy says exactly what its author wrote, or every line that is wrong with it."""

import itertools
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.records import Severity
from workers.policy import BUILT_IN, Budget, Ceiling, Policy, Scope, When, describe
from workers.policy_file import Fault, PolicyError, examine, parse_policy

WHOLE = """\
# Everything that can be said.
currency: EUR
max_session_cost: 2.50
severity: {low: 0.1, medium: 0.5, high: 2, critical: 1e1}
ceilings:
  - measure: cost_per_minute
    limit: 0.40
  - measure: product_events
    product: callcontrol-cdrs
    limit: 12
    when:
      assistant: assistant-1
      connection: 1293384261075731499
      direction: outbound
difference_tolerance: 0
learn: true
false_alerts_per_1000_normal_calls: 0.5
most_alerts_per_day: 20
least_factor: 2
budgets:
  - {per: day, amount: 30}
  - {per: month, amount: 99.50, when: {assistant: assistant-1, connection: '7'}}
balance_warning_days: 1
"""


def faults_of(text: str) -> tuple[Fault, ...]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return caught.value.faults


def fault_of(text: str) -> Fault:
    (fault,) = faults_of(text)
    return fault


# --- what a file says ----------------------------------------------------------------------------


def test_a_whole_policy_is_read() -> None:
    """Every key has its value, exact to the last digit, and a product its public name."""
    policy = parse_policy(WHOLE)
    assert (policy.currency, str(policy.max_session_cost)) == ("EUR", "2.50")
    assert policy.severity.critical == 10
    assert policy.difference_tolerance == 0
    assert policy.ceilings == (
        Ceiling(measure="cost_per_minute", limit=Decimal("0.40")),
        Ceiling(
            measure="product_events",
            product="call-control",
            limit=Decimal(12),
            when=When(
                assistant="assistant-1", connection="1293384261075731499", direction="outbound"
            ),
        ),
    )
    assert (policy.learn, policy.false_alerts_per_1000_normal_calls) == (True, Decimal("0.5"))
    assert (policy.most_alerts_per_day, str(policy.least_factor)) == (20, "2")
    assert policy.budgets == (
        Budget(per="day", amount=Decimal(30)),
        Budget(
            per="month",
            amount=Decimal("99.50"),
            when=Scope(assistant="assistant-1", connection="7"),
        ),
    )
    assert [budget.when.cohort for budget in policy.budgets] == ["account", "assistant-1, 7"]
    assert policy.balance_warning_days == 1


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "{}", "~", "\ufeff"])
def test_an_empty_file_is_the_built_in_policy(text: str) -> None:
    """Where a file says nothing, the built-in policy applies."""
    assert parse_policy(text) == BUILT_IN


def test_the_built_in_policy() -> None:
    """Without a file: 5.00 a session, 1.00 a minute, 200 turns of inference."""
    assert Policy() == BUILT_IN
    assert str(BUILT_IN.max_session_cost) == "5.00"
    assert (BUILT_IN.currency, BUILT_IN.difference_tolerance) == ("USD", Decimal("0.01"))
    assert BUILT_IN.ceilings_for(None, None, None) == (
        Ceiling(measure="cost_per_minute", limit=Decimal("1.00")),
        Ceiling(measure="product_events", product="inference", limit=Decimal(200)),
    )


def test_a_file_replaces_what_it_names() -> None:
    """A named value is replaced, ceilings as a whole; the rest stays built in."""
    policy = parse_policy("severity: {critical: 50}\nceilings: []")
    assert policy.ceilings == ()
    assert policy.severity.critical == 50
    assert policy.severity.low == BUILT_IN.severity.low
    assert policy.max_session_cost == BUILT_IN.max_session_cost


@pytest.mark.parametrize("number", ["0.1", "'0.1'", ".1", "1e-1", "+0.10", "1.E-1"])
def test_money_is_exact(number: str) -> None:
    """A tenth is a tenth, however it is written: no number goes through a float."""
    assert parse_policy(f"max_session_cost: {number}").max_session_cost == Decimal("0.1")


# --- what is wrong with a file -------------------------------------------------------------------


def test_all_faults_come_at_once_each_with_its_place() -> None:
    """One look at the messages is enough to mend the whole file."""
    faults = faults_of(
        """\
currency: usd
max_session_cost: .nan
max_session_cost: 3
ceilings:
  - measure: session_costs
    limit: -1
  - measure: product_cost
    limit: 1:30
  - measure: session_cost
    product: inference
    limit: 1
    when:
      assistant:
      conection: 12
  - 7
  - {measure: product_events, product: inference, limt: 1}
difference_tolerance: [1]
"""
    )
    assert [str(fault) for fault in faults] == [
        "1:11: must be a currency code of three capital letters, such as USD",
        "2:19: must be a number, such as 2.50",
        "3:1: the key 'max_session_cost' is given twice",
        "5:14: unknown measure 'session_costs'; did you mean session_cost?",
        "6:12: must be above 0",
        "7:5: a product_cost ceiling needs a product, such as inference",
        "8:12: must be a number, such as 2.50",
        "10:14: a session_cost ceiling is about the whole session: remove the product",
        "13:17: assistant has no value: give one, or remove the key",
        "14:7: unknown key 'conection'; did you mean connection?",
        "15:5: must be a mapping of measure, limit, product, when",
        "16:5: limit is missing",
        "16:51: unknown key 'limt'; did you mean limit?",
        "17:23: must be a number, such as 2.50",
    ]


@pytest.mark.parametrize(
    "number",
    [
        *(".nan", "NaN", "nan", "sNaN", ".inf", "-.inf", "Infinity", "0", "-1", "-0.0", "yes"),
        *("1:30", "0x10", "1_000", "1,5", "٣", "1e999", "9" * 5000, "two", "{}", "[1]", "''"),
        *("2026-03-17", "1e-99", "1000000001", "0.0000000000000000000000000001"),
    ],
)
def test_what_is_no_positive_number_is_refused(number: str) -> None:
    """Neither YAML's own readings (1:30 is 90) nor Decimal's (NaN) become a limit."""
    fault = fault_of(f"max_session_cost: {number}")
    assert (fault.line, fault.column) == (1, 19)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("severity: {low: 2, medium: 2}", (1, 28)),
        ("severity:\n  medium: 1\n  high: 0.5\n", (3, 9)),
        ("severity:\n  low: 30\n", (2, 3)),
    ],
)
def test_the_severities_must_ascend(text: str, place: tuple[int, int]) -> None:
    """Equal or descending steps are refused, also against those that are built in."""
    faults = faults_of(text)
    assert (faults[0].line, faults[0].column) == place
    assert all("must be above" in fault.message for fault in faults)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: [", 1, "not readable as YAML"),
        ("currency: USD\n\tx: 1", 2, "not readable as YAML"),
        ("x: \x00", 1, "a character that is not allowed"),
        ('\n"\\UFFFFFFFF": 1', 2, "a number out of range"),
        ("%YAML " + "9" * 5000 + ".1\n--- {}", 1, "a number out of range"),
        ("--- {}\n--- {}", 2, "not readable as YAML"),
        ("{" * 10_000, 1, "levels deep"),
        ("- " * 10_000, 1, "levels deep"),
        ("x" * 100_000, 1, "characters"),
        ("[]", 1, "a policy is a mapping"),
        ("5.00", 1, "a policy is a mapping"),
        ("max_session_cost: !!python/object:os.system 1", 1, "tags are not supported"),
        ("? [a, b]\n: 1", 1, "a key must be a single word"),
        ("? {}\n: 1", 1, "a key must be a single word"),
        ("ceilings: {}", 1, "must be a list"),
        ("ceilings: session_cost", 1, "must be a list"),
        ("severity: [1]", 1, "must be a mapping of low, medium, high, critical"),
        ("currency: NO", 1, "three capital letters"),
        ("ceiling: []", 1, "did you mean ceilings?"),
        ("max-session-cost: 1", 1, "did you mean max_session_cost?"),
        ("zzz: 1", 1, "known: currency, max_session_cost"),
        ("ceilings:\n- {measure: product_cost, limit: 1, product: ' '}", 2, "not empty"),
        ("<<: {currency: USD}", 1, "unknown key '<<'"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, line: int, word: str) -> None:
    """Syntax errors, wrong shapes and tricks each have a line and words that say what to do."""
    fault = fault_of(text)
    assert fault.line == line
    assert word in fault.message


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("false_alerts_per_1000_normal_calls: 0", "1:37", "must be above 0"),
        ("false_alerts_per_1000_normal_calls: 101", "1:37", "must be at most 100"),
        ("most_alerts_per_day: 1.5", "1:22", "must be a whole number, such as 50"),
        ("most_alerts_per_day: -1", "1:22", "must not be negative"),
        ("least_factor: 0.9", "1:15", "must be at least 1"),
        ("balance_warning_days: -1", "1:23", "must not be negative"),
        ("learn: yes", "1:8", "must be true or false"),
        ("learn: []", "1:8", "must be true or false"),
        ("budget: []", "1:1", "unknown key 'budget'; did you mean budgets?"),
        ("budgets: {}", "1:10", "must be a list, each entry with - before it"),
        ("budgets:\n- 30", "2:3", "must be a mapping of per, amount, when"),
        ("budgets:\n- {per: day}", "2:3", "amount is missing"),
        ("budgets:\n- {per: days, amount: 1}", "2:9", "unknown per 'days'; did you mean day?"),
        ("budgets:\n- {per: day, amount: 0}", "2:22", "must be above 0"),
        (
            "budgets:\n- {per: day, amount: 1, when: {direction: inbound}}",
            "2:32",
            "unknown key 'direction'; did you mean connection?",
        ),
        (
            "budgets:\n- {per: day, amount: 1, when: {asistant: a}}",
            "2:32",
            "unknown key 'asistant'; did you mean assistant?",
        ),
    ],
)
def test_each_fault_of_the_newer_keys_has_its_line(text: str, place: str, message: str) -> None:
    """What is learned, the budgets and the balance are refused as precisely as the ceilings."""
    assert str(fault_of(text)) == f"{place}: {message}"


def test_a_budget_given_twice_is_warned_of() -> None:
    """The same amount for the same calls is told once, so the second says nothing."""
    same = "- {per: day, amount: 1}\n"
    (warning,) = examine("budgets:\n" + same + same).warnings
    assert str(warning) == "3:3: the same budget is given twice"


@pytest.mark.parametrize("learn", ["true", "True", "TRUE"])
def test_what_is_true_is_true(learn: str) -> None:
    """YAML's three ways of writing it are one."""
    assert parse_policy(f"learn: {learn}").learn


def test_a_null_does_not_widen_a_ceiling() -> None:
    """`assistant:` without a value is no condition forgotten in silence."""
    ceiling = "{measure: session_cost, limit: 1, when: {assistant: }}"
    assert "assistant has no value" in fault_of(f"ceilings:\n- {ceiling}").message


def test_an_alias_bomb_costs_nothing() -> None:
    """Aliases are refused where they stand and never expanded, endless ones neither."""
    names = "abcdefgh"
    lines = ["a: &a [x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in itertools.pairwise(names)
    ]
    found = [f for f in faults_of("\n".join(lines)) if "aliases" in f.message]
    assert len(found) == 9 * 7
    assert found[0].line == 2
    assert "aliases" in faults_of("ceilings: &a [*a]")[0].message


def test_one_fault_is_said_once() -> None:
    """A value at fault draws no second message about what it should have been."""
    text = "ceilings:\n- {measure: product_cost, limit: !x 1, product: }"
    assert [str(fault) for fault in faults_of(text)] == [
        "2:34: tags are not supported",
        "2:48: product has no value: give one, or remove the key",
    ]


# --- what is allowed, but probably not meant -----------------------------------------------------


def test_doubtful_ceilings_are_warned_of() -> None:
    """An unknown product, a limit that lifts nothing and a repetition: all are allowed."""
    examined = examine(
        """\
ceilings:
- {measure: product_events, product: inferense, limit: 1}
- {measure: product_events, product: amd, limit: 2}
- {measure: product_events, product: amd, limit: 1}
- {measure: session_cost, limit: 7, when: {assistant: a}}
"""
    )
    assert len(examined.policy.ceilings) == 4
    assert [str(warning) for warning in examined.warnings] == [
        "2:38: 'inferense' is no record type of Telnyx's guide; did you mean inference?",
        "3:3: never applies: another ceiling for the same calls is lower",
        "5:34: never reached first: max_session_cost (5) always applies",
    ]


def test_a_usual_policy_has_no_warnings() -> None:
    """Neither the built-in policy nor the example has anything doubtful."""
    assert examine("").warnings == ()
    assert examine(WHOLE).warnings == ()


# --- which ceilings are in force -----------------------------------------------------------------


def ceiling(limit: int, **when: Any) -> Ceiling:
    return Ceiling(measure="session_cost", limit=Decimal(limit), when=When(**when))


def in_force(*ceilings: Ceiling, **call: str) -> list[int]:
    policy = Policy(ceilings=ceilings)
    asked = (call.get("assistant"), call.get("connection"), call.get("direction"))
    return [int(found.limit) for found in policy.ceilings_for(*asked)]


def test_the_most_specific_ceiling_applies() -> None:
    """Of those that match, the one with the most conditions, higher or lower than the others."""
    ceilings = (
        ceiling(2),
        ceiling(4, assistant="a"),
        ceiling(1, connection="c"),
        ceiling(3, assistant="a", direction="inbound"),
        ceiling(9, assistant="b", direction="inbound", connection="c"),
    )
    assert in_force(*ceilings) == [2]
    assert in_force(*ceilings, assistant="a") == [4]
    assert in_force(*ceilings, assistant="a", direction="inbound") == [3]
    assert in_force(*ceilings, assistant="b", direction="inbound") == [2]
    assert in_force(*ceilings, assistant="b", direction="inbound", connection="c") == [9]


@given(st.permutations([ceiling(3, assistant="a"), ceiling(2, connection="c"), ceiling(1)]))
def test_a_tie_takes_the_lowest(ceilings: list[Ceiling]) -> None:
    """Between equally specific ceilings the lowest limit applies, in whatever order they stand."""
    assert in_force(*ceilings, assistant="a", connection="c") == [2]


def test_measures_and_products_do_not_displace_each_other() -> None:
    """Each measure of each product has its own ceiling, by any name of the product."""
    policy = parse_policy(
        """\
ceilings:
- {measure: product_cost, product: callcontrol-cdrs, limit: 3}
- {measure: product_cost, product: call-control, limit: 2, when: {direction: outbound}}
- {measure: product_cost, product: recording, limit: 4}
- {measure: product_events, product: recording, limit: 5}
"""
    )
    found = policy.ceilings_for(None, None, "outbound")
    assert [(c.measure, c.product, int(c.limit)) for c in found] == [
        ("product_cost", "call-control", 2),
        ("product_cost", "recording", 4),
        ("product_events", "recording", 5),
    ]


@pytest.mark.parametrize(
    ("direction", "way"),
    [
        *(("outbound", "out"), ("outgoing", "out"), ("outbound-api", "out"), ("Outbound", "out")),
        *(("inbound", "in"), ("incoming", "in"), ("", ""), (None, ""), ("sideways", "")),
    ],
)
def test_a_direction_has_several_names(direction: str | None, way: str) -> None:
    """Telnyx's words for one direction are one; an unknown direction meets no condition."""
    assert When(direction="outbound").matches(None, None, direction) is (way == "out")
    assert When(direction="inbound").matches(None, None, direction) is (way == "in")


def test_the_settings_ceiling_overrides_the_files() -> None:
    """A value of the environment replaces the policy's; without one the policy stays."""
    assert BUILT_IN.with_max_session_cost(None) is BUILT_IN
    changed = BUILT_IN.with_max_session_cost(Decimal(2))
    assert (changed.max_session_cost, changed.ceilings) == (Decimal(2), BUILT_IN.ceilings)


@pytest.mark.parametrize(
    ("excess", "severity"),
    [
        *(("0", None), ("0.2499", None), ("0.25", Severity.LOW), ("0.99", Severity.LOW)),
        *(("1", Severity.MEDIUM), ("5", Severity.HIGH), ("24.99", Severity.HIGH)),
        *(("25", Severity.CRITICAL), ("1E+14", Severity.CRITICAL), ("-3", None)),
    ],
)
def test_the_excess_gives_the_severity(excess: str, severity: Severity | None) -> None:
    """A severity begins at its step, and below the lowest there is none."""
    assert BUILT_IN.severity_of(Decimal(excess)) is severity


def test_a_policy_cannot_be_changed_or_extended() -> None:
    """Policies are values; a misspelt field in code is an error, too."""
    with pytest.raises(ValidationError):
        BUILT_IN.max_session_cost = Decimal(1)
    with pytest.raises(ValidationError):
        Policy(max_cost=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Ceiling(measure="session_cost", limit=0.1)  # type: ignore[arg-type]


def test_what_will_apply_is_described() -> None:
    """Every limit, with its unit and the calls that it is for."""
    assert describe(parse_policy(WHOLE)) == (
        ("max_session_cost", "2.50 EUR", "every call, always"),
        ("cost_per_minute", "0.40 EUR a minute", "every call without a more specific ceiling"),
        (
            "product_events call-control",
            "12 events",
            "assistant assistant-1, connection 1293384261075731499, direction outbound",
        ),
        ("difference_tolerance", "0.00 EUR", "Telnyx's own figures against each other"),
        ("learn", "true", "every call, against what its like have cost"),
        ("false alerts", "0.5 per 1,000 normal calls", "alerts from what was learned"),
        ("most_alerts_per_day", "20", "alerts from what was learned"),
        ("least_factor", "2 times the expected", "what was learned"),
        ("budget", "30.00 EUR a day", "all calls of the account together"),
        ("budget", "99.50 EUR a month", "assistant assistant-1, connection 7"),
        ("balance_warning_days", "1 day", "before the account's balance is used up"),
        (
            "severity",
            "low 0.10 · medium 0.50 · high 2.00 · critical 10.00 EUR",
            "what is in excess",
        ),
    )


def test_what_is_turned_off_is_described() -> None:
    """Zero and false are said in words, so that nobody waits for what will not come."""
    rows = {row[0]: row[1:] for row in describe(parse_policy("learn: false"))}
    assert rows["learn"] == ("false", "nothing is learned of what calls usually cost")
    assert "least_factor" not in rows
    off = describe(parse_policy("most_alerts_per_day: 0\nbalance_warning_days: 0"))
    assert ("most_alerts_per_day", "none", "alerts from what was learned") in off
    assert ("balance_warning_days", "0", "the account's balance is not watched") in off


# --- whatever comes ------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        *("currency", "max_session_cost", "severity", "ceilings", "difference_tolerance"),
        *("low", "medium", "high", "critical", "measure", "limit", "product", "when"),
        *("assistant", "connection", "direction", "session_cost", "product_events", "inbound"),
        *("budgets", "per", "amount", "day", "learn", "most_alerts_per_day", "least_factor"),
        *("inference", "USD", "1", "0.5", ".nan", "~", "", "<<", "yes", "1:30", "-1"),
    ]
)
_TREES = st.recursive(
    _WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=20,
)
_PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "&a ",
        "*a",
        "!x ",
        "? ",
        "'",
        '"',
        "|\n",
        "%",
        "#",
    ]
)
_TEXTS = (
    st.text(max_size=200)
    | _TREES.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True))
    | st.lists(_PIECES | _WORDS, max_size=40).map("".join)
)


def outcome(text: str) -> Policy | PolicyError:
    try:
        return parse_policy(text)
    except PolicyError as error:
        return error


@given(_TEXTS)
def test_any_text_is_a_policy_or_its_faults(text: str) -> None:
    """No text gets another exception out of the reader, and each fault lies within the file."""
    match outcome(text):
        case Policy() as policy:
            assert policy.severity.low < policy.severity.critical
            assert describe(policy)
        case PolicyError(faults=faults):
            assert faults
            assert list(faults) == sorted(faults)
            lines = text.count("\n") + text.count("\r") + len(text.splitlines()) + 1
            assert all(1 <= fault.line <= lines and fault.column >= 1 for fault in faults)
