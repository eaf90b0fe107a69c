"""The policy: what a session may cost, as people write it in YAML.

Pure: text in, a policy or every fault in it out. A file that says something else than its author
thinks is worse than one that is refused, so nothing is guessed: unknown and repeated keys, keys
without a value and numbers that YAML would read in its own way are faults, each with its line.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from service.money import money, plain
from service.records import Severity
from workers.products import RECORD_TYPES, is_known, normalise
from workers.wording import amount

Measure: TypeAlias = Literal["session_cost", "cost_per_minute", "product_cost", "product_events"]
Direction: TypeAlias = Literal["inbound", "outbound"]

_LONGEST_TEXT: Final = 65_536
_DEEPEST: Final = 10
_LONGEST_NAME: Final = 200
_LARGEST: Final = 1_000_000_000
# Stricter than YAML, which reads 1:30 as 90 and 1_0 as 10, and than Decimal, which takes NaN.
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)


# --- what a policy holds -------------------------------------------------------------------------


def _number(value: Any) -> Decimal:
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    said = str(value) if is_number else value
    found = money(said) if isinstance(said, str) and _NUMBER.fullmatch(said.strip()) else None
    if found is None:
        raise ValueError("must be a number, such as 2.50")
    if found > _LARGEST:
        raise ValueError(f"must be at most {_LARGEST:,}")
    return found


def _positive(value: Any) -> Decimal:
    found = _number(value)
    if found <= 0:
        raise ValueError("must be above 0")
    return found


def _not_negative(value: Any) -> Decimal:
    found = _number(value)
    if found < 0:
        raise ValueError("must not be negative")
    return found


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    if len(value) > _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"must be one line of at most {_LONGEST_NAME} characters")
    return value.strip()


def _currency(value: Any) -> str:
    if not isinstance(value, str) or not _CURRENCY.fullmatch(value):
        raise ValueError("must be a currency code of three capital letters, such as USD")
    return value


Positive = Annotated[Decimal, BeforeValidator(_positive)]
NotNegative = Annotated[Decimal, BeforeValidator(_not_negative)]
Name = Annotated[str, BeforeValidator(_name)]
Currency = Annotated[str, BeforeValidator(_currency)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class When(_Part):
    """Which calls a ceiling is for; what is not named may be anything."""

    assistant: Name | None = None
    connection: Name | None = None
    direction: Direction | None = None

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """The conditions that are named, each with the value it asks for."""
        named = (
            ("assistant", self.assistant),
            ("connection", self.connection),
            ("direction", self.direction),
        )
        return tuple((name, value) for name, value in named if value is not None)

    def may_match(
        self, assistant: str | None, connection: str | None, direction: str | None
    ) -> bool:
        """Whether a call may be meant once more is known of it."""
        return (
            (self.assistant is None or assistant in {None, self.assistant})
            and (self.connection is None or connection in {None, self.connection})
            and (self.direction is None or _way(direction) in {None, self.direction})
        )

    def matches(self, assistant: str | None, connection: str | None, direction: str | None) -> bool:
        """Whether a call is meant. A condition on something unknown of the call is not met."""
        return (
            (self.assistant is None or self.assistant == assistant)
            and (self.connection is None or self.connection == connection)
            and (self.direction is None or self.direction == _way(direction))
        )


class Ceiling(_Part):
    """A limit on one measure: money for costs, a number for `product_events`."""

    measure: Measure
    limit: Positive
    product: Name | None = Field(default=None, validate_default=True)
    """The public record type; only for the measures of a product."""
    when: When = When()

    @field_validator("product")
    @classmethod
    def _fits_the_measure(cls, product: str | None, info: ValidationInfo) -> str | None:
        measure = info.data.get("measure")
        if measure is None:  # It is at fault itself.
            return product
        of_product = measure.startswith("product_")
        if of_product and product is None:
            raise ValueError(f"a {measure} ceiling needs a product, such as inference")
        if not of_product and product is not None:
            raise ValueError(f"a {measure} ceiling is about the whole session: remove the product")
        return normalise(product) if product is not None else None


class Steps(_Part):
    """The excess, in money, from which on a reason has each severity; strictly ascending."""

    low: Positive = Decimal("0.25")
    medium: Positive = Field(default=Decimal(1), validate_default=True)
    high: Positive = Field(default=Decimal(5), validate_default=True)
    critical: Positive = Field(default=Decimal(25), validate_default=True)

    @field_validator("medium", "high", "critical")
    @classmethod
    def _ascends(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        below = list(info.data.items())[-1:]
        for name, least in below:
            if value <= least:
                raise ValueError(
                    f"{info.field_name} ({plain(value)}) must be above {name} ({plain(least)})"
                )
        return value


class Policy(_Part):
    """What a session may cost. Built without arguments it is the built-in policy."""

    currency: Currency = "USD"
    max_session_cost: Positive = Decimal("5.00")
    """Above it a session always alerts; no ceiling can lift it."""
    severity: Steps = Steps()
    ceilings: tuple[Ceiling, ...] = (
        Ceiling(measure="cost_per_minute", limit=Decimal("1.00")),
        Ceiling(measure="product_events", limit=Decimal(200), product="inference"),
    )
    difference_tolerance: NotNegative = Decimal("0.01")
    """Money; smaller disagreements between Telnyx's own figures are no reasons."""

    def ceilings_for(
        self, assistant: str | None, connection: str | None, direction: str | None
    ) -> tuple[Ceiling, ...]:
        """The ceilings in force for a call, at most one for each measure and product.

        Of those that match, the one with the most conditions; of several such, the lowest.
        `max_session_cost` is not among them: it applies besides.
        """
        chosen: dict[tuple[str, str | None], Ceiling] = {}
        for ceiling in self.ceilings:
            if ceiling.when.matches(assistant, connection, direction):
                key = (ceiling.measure, ceiling.product)
                other = chosen.get(key)
                if other is None or _precedence(ceiling) < _precedence(other):
                    chosen[key] = ceiling
        return tuple(chosen.values())

    def lenient_ceilings_for(
        self, assistant: str | None, connection: str | None, direction: str | None
    ) -> tuple[Ceiling, ...]:
        """The same while not all is known of the call: of those that may apply, the highest."""
        chosen: dict[tuple[str, str | None], Ceiling] = {}
        for ceiling in self.ceilings:
            if ceiling.when.may_match(assistant, connection, direction):
                key = (ceiling.measure, ceiling.product)
                chosen[key] = max(chosen.get(key, ceiling), ceiling, key=lambda c: c.limit)
        return tuple(chosen.values())

    def severity_of(self, excess: Decimal) -> Severity | None:
        """The severity of so much excess, in money; None where it is below the lowest step."""
        reached = [s for s in Severity if excess >= getattr(self.severity, s.value)]
        return reached[-1] if reached else None

    def with_max_session_cost(self, limit: Decimal | None) -> Self:
        """The policy with another `max_session_cost`, or itself for None."""
        return self if limit is None else self.model_copy(update={"max_session_cost": limit})


def _precedence(ceiling: Ceiling) -> tuple[int, Decimal]:
    return -len(ceiling.when.conditions), ceiling.limit


def _way(direction: str | None) -> str | None:
    """`incoming` and `outbound-api` are directions of Telnyx's, too."""
    words = {"in": "inbound", "out": "outbound"}
    said = (direction or "").lower()
    return next((way for word, way in words.items() if said.startswith(word)), None)


BUILT_IN: Final = Policy()

_UNITS: Final[Mapping[Measure, str]] = {
    "session_cost": "{currency}",
    "cost_per_minute": "{currency} a minute",
    "product_cost": "{currency}",
    "product_events": "events",
}


def describe(policy: Policy) -> tuple[tuple[str, str, str], ...]:
    """What will apply, as rows of three texts: what is measured, its limit, for which calls."""
    units = policy.currency
    steps = " · ".join(f"{s} {amount(getattr(policy.severity, s.value))}" for s in Severity)
    return (
        ("max_session_cost", f"{amount(policy.max_session_cost)} {units}", "every call, always"),
        *(_described(ceiling, units) for ceiling in policy.ceilings),
        (
            "difference_tolerance",
            f"{amount(policy.difference_tolerance)} {units}",
            "Telnyx's own figures against each other",
        ),
        ("severity", f"{steps} {units}", "what is in excess"),
    )


def _described(ceiling: Ceiling, currency: str) -> tuple[str, str, str]:
    measured = f"{ceiling.measure} {ceiling.product}" if ceiling.product else ceiling.measure
    is_money = ceiling.measure != "product_events"
    limit = amount(ceiling.limit) if is_money else plain(ceiling.limit)
    calls = ", ".join(f"{name} {value}" for name, value in ceiling.when.conditions)
    return (
        measured,
        f"{limit} {_UNITS[ceiling.measure].format(currency=currency)}",
        calls or "every call without a more specific ceiling",
    )


# --- how it is read ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong at a place in the file; line and column count from 1.

    The message may repeat text from the file: escape it for a terminal.
    """

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


class PolicyError(Exception):
    """All that is wrong with a policy, in the order of the file."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Examined:
    """A policy, and what in it is allowed but probably not meant."""

    policy: Policy
    warnings: tuple[Fault, ...]


def parse_policy(text: str) -> Policy:
    """The policy in `text`: YAML. What it does not name is as in the built-in policy.

    Raises PolicyError with every fault.
    """
    return examine(text).policy


def examine(text: str) -> Examined:
    """The policy in `text`, with warnings. Raises PolicyError with every fault."""
    reading = _Reading()
    root = _compose(text, reading)
    values = reading.read(root) if root is not None else {}
    if not isinstance(values, dict):
        reading.add((), "a policy is a mapping, such as `max_session_cost: 5.00`")
        values = {}
    policy = _validated(values, reading)
    if policy is None or reading.faults:
        raise PolicyError(tuple(sorted(reading.faults)))
    return Examined(policy, tuple(sorted(_warnings(policy, reading))))


Path: TypeAlias = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    _TAG + kind
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "seq", "map")
)


@dataclass(slots=True)
class _Reading:
    """The nodes of one file as plain values, where each stood, and what was wrong so far."""

    faults: list[Fault] = field(default_factory=list)
    marks: dict[Path, yaml.Mark] = field(default_factory=dict)
    keys: dict[Path, yaml.Mark] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    _seen: set[int] = field(default_factory=set)

    def place(self, path: Path, *, of_key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the nearest that contains it."""
        if of_key and path in self.keys:
            return _at(self.keys[path])
        around = (path[:length] for length in range(len(path), -1, -1))
        return _at(next((self.marks[part] for part in around if part in self.marks), None))

    def add(self, path: Path, message: str, *, of_key: bool = False) -> None:
        """One fault at the value at `path`. Nothing more will be said of that value."""
        self.faulty.add(path)
        self.faults.append(Fault(*self.place(path, of_key=of_key), message))

    def add_at(self, mark: Any, message: str) -> None:
        """One fault at a mark of PyYAML's."""
        self.faults.append(Fault(*_at(mark), message))

    def read(self, node: yaml.Node, path: Path = ()) -> Any:
        """Text, a list or a mapping; None where the value is at fault.

        Every scalar stays the text that was written, so that numbers are exact and long ids whole.
        """
        is_alias = id(node) in self._seen
        self._seen.add(id(node))
        if is_alias:  # Said already, where it stood.
            self.faulty.add(path)
            return None
        self.marks[path] = node.start_mark
        if node.tag not in _TAGS:
            self.add(path, "tags are not supported")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag != _TAG + "null":
            return node.value
        if not path:  # Nothing but comments, or `---`.
            return {}
        self.add(path, f"{path[-1]} has no value: give one, or remove the key")
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.add_at(key.start_mark, "a key must be a single word")
            elif key.value in values:
                self.add_at(key.start_mark, f"the key {_shown(key.value)} is given twice")
            else:
                self.keys[*path, key.value] = key.start_mark
                values[key.value] = self.read(value, (*path, key.value))
        return values


def _compose(text: str, reading: _Reading) -> yaml.Node | None:
    """The root node, or None for an empty file. Raises PolicyError where there is no tree."""
    if len(text) > _LONGEST_TEXT:
        raise PolicyError((Fault(1, 1, f"a policy has at most {_LONGEST_TEXT:,} characters"),))
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        _survey(loader, reading)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        place = _at(error.problem_mark or error.context_mark)
        raise _not_yaml(reading, place, error.problem or error.context) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, error.position - before.rfind("\n")
        raise _not_yaml(reading, place, "a character that is not allowed") from error
    except (ValueError, OverflowError) as error:
        # Of PyYAML's own number reading: the code of a character, the version of a directive.
        raise _not_yaml(reading, _at(loader), "a number out of range") from error


def _not_yaml(reading: _Reading, place: tuple[int, int], problem: str | None) -> PolicyError:
    fault = Fault(*place, f"not readable as YAML: {problem or 'no reason given'}")
    return PolicyError(tuple(sorted([*reading.faults, fault])))


def _at(mark: Any) -> tuple[int, int]:
    """Line and column from 1, of whatever knows them; PyYAML's marks may be absent."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _survey(loader: yaml.SafeLoader, reading: _Reading) -> None:
    """What must be known before a tree is built: how deep it is, and where its aliases are."""
    depth = 0
    while loader.check_event():
        event = loader.get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                reading.add_at(event.start_mark, f"nested more than {_DEEPEST} levels deep")
                raise PolicyError(tuple(reading.faults))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            reading.add_at(event.start_mark, "anchors and aliases are not supported: write it out")


# --- what is wrong with it, in words -------------------------------------------------------------

_WORDS: Final[Mapping[str, str]] = {
    "missing": "{name} is missing",
    "model_type": "must be a mapping of {known}",
    "tuple_type": "must be a list, each entry with - before it",
    "string_type": "must be a text",
}


def _validated(values: dict[str, Any], reading: _Reading) -> Policy | None:
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            path = tuple(found["loc"])
            if not any(path[:length] in reading.faulty for length in range(1, len(path) + 1)):
                is_key = found["type"] == "extra_forbidden"
                reading.add(path, _message(path, found), of_key=is_key)
    return None


def _message(path: Path, found: Mapping[str, Any]) -> str:
    kind = found["type"]
    if kind == "extra_forbidden":
        return _unknown("key", str(path[-1]), _known(path[:-1]))
    if kind == "literal_error":
        known = get_args(Measure if path[-1] == "measure" else Direction)
        given = found["input"]
        return _unknown(str(path[-1]), given if isinstance(given, str) else "", known)
    words = _WORDS.get(kind)
    if words is None:
        return str(found["msg"]).removeprefix("Value error, ")
    return words.format(name=path[-1], known=", ".join(_known(path)))


def _known(path: Path) -> Iterable[str]:
    """The keys of the mapping at `path`."""
    model: type[BaseModel]
    match path:
        case ():
            model = Policy
        case ("severity",):
            model = Steps
        case ("ceilings", _):
            model = Ceiling
        case _:
            model = When
    return model.model_fields


def _unknown(kind: str, given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given.strip().lower().replace("-", "_"), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {_shown(given)}; {hint}"


def _shown(text: str) -> str:
    return repr(text[:_LONGEST_NAME])


def _warnings(policy: Policy, reading: _Reading) -> Iterator[Fault]:
    if "ceilings" not in policy.model_fields_set:
        return
    for place, ceiling in enumerate(policy.ceilings):
        product = ceiling.product
        if product is not None and not is_known(product):
            near = difflib.get_close_matches(product, RECORD_TYPES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            at = reading.place(("ceilings", place, "product"))
            yield Fault(*at, f"{_shown(product)} is no record type of Telnyx's guide{hint}")
        if ceiling.measure == "session_cost" and ceiling.limit > policy.max_session_cost:
            at = reading.place(("ceilings", place, "limit"))
            most = plain(policy.max_session_cost)
            yield Fault(*at, f"never reached first: max_session_cost ({most}) always applies")
        if _is_shadowed(ceiling, policy.ceilings[:place] + policy.ceilings[place + 1 :]):
            at = reading.place(("ceilings", place))
            yield Fault(*at, "never applies: another ceiling for the same calls is lower")


def _is_shadowed(ceiling: Ceiling, others: Iterable[Ceiling]) -> bool:
    return any(
        (other.measure, other.product, other.when)
        == (ceiling.measure, ceiling.product, ceiling.when)
        and other.limit < ceiling.limit
        for other in others
    )
