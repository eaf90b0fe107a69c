"""The policy as people write it: YAML, and everything that is wrong with it, by line.

Pure: text in, a policy or every fault in it out. A file that says something else than its author
thinks is worse than one that is refused, so nothing is guessed: unknown and repeated keys, keys
without a value and numbers that YAML would read in its own way are faults, each with its line.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ValidationError

from service.money import plain
from workers.policy import Budget, Ceiling, Direction, Measure, Per, Policy, Scope, Steps, When
from workers.products import RECORD_TYPES, is_known

_LONGEST_TEXT: Final = 65_536
_DEEPEST: Final = 10
_LONGEST_SHOWN: Final = 200


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

_WORDS_FOR: Final = {"measure": Measure, "direction": Direction, "per": Per}
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
        known = get_args(_WORDS_FOR[str(path[-1])])
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
        case ("budgets", _):
            model = Budget
        case ("budgets", _, "when"):
            model = Scope
        case _:
            model = When
    return model.model_fields


def _unknown(kind: str, given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given.strip().lower().replace("-", "_"), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {_shown(given)}; {hint}"


def _shown(text: str) -> str:
    return repr(text[:_LONGEST_SHOWN])


def _warnings(policy: Policy, reading: _Reading) -> Iterator[Fault]:
    for place, budget in enumerate(policy.budgets):
        if budget in policy.budgets[:place]:
            yield Fault(*reading.place(("budgets", place)), "the same budget is given twice")
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
