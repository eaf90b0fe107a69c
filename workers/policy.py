"""The policy: what a session may cost, what all of them together may, and how much is told.

Pure. `workers.policy_file` reads it from what people write.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from service.direction import way
from service.money import money, plain
from service.records import ACCOUNT, Severity
from workers.products import normalise
from workers.wording import amount

Measure: TypeAlias = Literal["session_cost", "cost_per_minute", "product_cost", "product_events"]
Direction: TypeAlias = Literal["inbound", "outbound"]
Per: TypeAlias = Literal["day", "month"]

_LONGEST_NAME: Final = 200
_LARGEST: Final = 1_000_000_000
# Stricter than YAML, which reads 1:30 as 90 and 1_0 as 10, and than Decimal, which takes NaN.
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)
_PER_THOUSAND: Final = 100
_DIGEST_BYTES: Final = 6


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


def _false_alerts(value: Any) -> Decimal:
    found = _positive(value)
    if found > _PER_THOUSAND:
        raise ValueError(f"must be at most {_PER_THOUSAND}")
    return found


def _factor(value: Any) -> Decimal:
    found = _number(value)
    if found < 1:
        raise ValueError("must be at least 1")
    return found


def _whole(value: Any) -> int:
    found = _not_negative(value)
    if found != int(found):
        raise ValueError("must be a whole number, such as 50")
    return int(found)


def _yes_or_no(value: Any) -> bool:
    """YAML's other words (yes, on) are refused, as are its other numbers."""
    said = str(value).lower()
    if said not in {"true", "false"} or not isinstance(value, str | bool):
        raise ValueError("must be true or false")
    return said == "true"


Positive = Annotated[Decimal, BeforeValidator(_positive)]
NotNegative = Annotated[Decimal, BeforeValidator(_not_negative)]
Name = Annotated[str, BeforeValidator(_name)]
Currency = Annotated[str, BeforeValidator(_currency)]
FalseAlerts = Annotated[Decimal, BeforeValidator(_false_alerts)]
Factor = Annotated[Decimal, BeforeValidator(_factor)]
Whole = Annotated[int, BeforeValidator(_whole)]
YesOrNo = Annotated[bool, BeforeValidator(_yes_or_no)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Scope(_Part):
    """Whose calls a budget is for; what is not named may be anything."""

    assistant: Name | None = None
    connection: Name | None = None

    @property
    def conditions(self) -> tuple[tuple[str, str], ...]:
        """The conditions that are named, each with the value it asks for."""
        return tuple((name, value) for name, value in self if value is not None)

    @property
    def cohort(self) -> str:
        """Whose calls these are, in a word: `account` where nobody is named."""
        return ", ".join(value for _, value in self.conditions) or ACCOUNT

    @property
    def key(self) -> str:
        """Its name in Redis: `account`, or eight characters, whatever the names hold."""
        if not self.conditions:
            return ACCOUNT
        names = repr(self.conditions).encode()
        return urlsafe_b64encode(blake2b(names, digest_size=_DIGEST_BYTES).digest()).decode()

    def includes(self, assistant: str | None, connection: str | None) -> bool:
        """Whether a call counts. One of which nothing is known counts for the account alone."""
        call = {"assistant": assistant, "connection": connection}
        return all(call[name] == value for name, value in self.conditions)


class When(Scope):
    """Which calls a ceiling is for; what is not named may be anything."""

    direction: Direction | None = None

    def may_match(
        self, assistant: str | None, connection: str | None, direction: str | None
    ) -> bool:
        """Whether a call may be meant once more is known of it."""
        return (
            (self.assistant is None or assistant in {None, self.assistant})
            and (self.connection is None or connection in {None, self.connection})
            and (self.direction is None or way(direction) in {None, self.direction})
        )

    def matches(self, assistant: str | None, connection: str | None, direction: str | None) -> bool:
        """Whether a call is meant. A condition on something unknown of the call is not met."""
        return (
            (self.assistant is None or self.assistant == assistant)
            and (self.connection is None or self.connection == connection)
            and (self.direction is None or self.direction == way(direction))
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


class Budget(_Part):
    """What all calls of a scope may cost together, in a day or a month of UTC."""

    per: Per
    amount: Positive
    when: Scope = Scope()

    @property
    def key(self) -> str:
        """Its name in Redis, among those of the same period: another amount is another budget."""
        return f"{self.when.key}:{plain(self.amount)}"


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
    learn: YesOrNo = True
    """Whether what is usual is learned, and departures from it are reasons."""
    false_alerts_per_1000_normal_calls: FalseAlerts = Decimal(1)
    """How many of the learned kind are wanted at most: it sets how unlikely a cost must be."""
    most_alerts_per_day: Whole = 50
    """Of the learned kind, too."""
    least_factor: Factor = Decimal("1.25")
    """A cost must be so many times what was expected."""
    budgets: tuple[Budget, ...] = ()
    balance_warning_days: NotNegative = Decimal(3)
    """So many days before the account's balance runs out the operators hear of it; 0: never."""

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
        *_learned(policy),
        *(_budgeted(budget, units) for budget in policy.budgets),
        _balance(policy.balance_warning_days),
        ("severity", f"{steps} {units}", "what is in excess"),
    )


def _learned(policy: Policy) -> tuple[tuple[str, str, str], ...]:
    if not policy.learn:
        return (("learn", "false", "nothing is learned of what calls usually cost"),)
    wanted = plain(policy.false_alerts_per_1000_normal_calls)
    most = policy.most_alerts_per_day
    return (
        ("learn", "true", "every call, against what its like have cost"),
        ("false alerts", f"{wanted} per 1,000 normal calls", "alerts from what was learned"),
        ("most_alerts_per_day", str(most) if most else "none", "alerts from what was learned"),
        ("least_factor", f"{plain(policy.least_factor)} times the expected", "what was learned"),
    )


def _budgeted(budget: Budget, currency: str) -> tuple[str, str, str]:
    calls = ", ".join(f"{name} {value}" for name, value in budget.when.conditions)
    return (
        "budget",
        f"{amount(budget.amount)} {currency} a {budget.per}",
        calls or "all calls of the account together",
    )


def _balance(days: Decimal) -> tuple[str, str, str]:
    if not days:
        return ("balance_warning_days", "0", "the account's balance is not watched")
    unit = "day" if days == 1 else "days"
    return (
        "balance_warning_days",
        f"{plain(days)} {unit}",
        "before the account's balance is used up",
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
