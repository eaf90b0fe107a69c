"""The settings of both processes, read from the environment, with every fault named at once.

Plain pydantic and not pydantic-settings: its reader stops at the first value it cannot split, and
its messages repeat the value, secrets included.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from nacl.signing import VerifyKey
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.connect import BadRedisUrl, check_redis_url
from service.signature import BadPublicKey, read_public_keys

_FILE: Final = "_FILE"
_LONGEST_FILE: Final = 65_536
_LARGEST_AGE: Final = 7 * 86_400
_LARGEST_RECHECK: Final = 30 * 86_400
_MOST_DIGITS: Final = 9


class SettingsError(Exception):
    """All that is wrong with the settings: a line for each fault, none of which repeats a value."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _checked(check: Callable[[str], Any]) -> BeforeValidator:
    """Keep the text if `check` accepts it."""

    def validate(value: Any) -> Any:
        check(str(value))
        return value

    return BeforeValidator(validate)


def _http_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError("not a URL") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_fine:
        raise ValueError("not a URL that begins with https:// or http://")


def _ages(value: Any) -> Any:
    """`90,300,1800` as whole seconds, positive and strictly ascending."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= _MOST_DIGITS for part in parts):
        raise ValueError("not whole numbers of seconds, separated by commas")
    ages = tuple(int(part) for part in parts)
    if ages[0] < 1 or any(later <= earlier for earlier, later in pairwise(ages)):
        raise ValueError("the ages must be positive and strictly ascending")
    if ages[-1] > _LARGEST_AGE:
        raise ValueError(f"an age is at most {_LARGEST_AGE} seconds (a week)")
    return ages


def _public_keys(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return read_public_keys(value)
    except BadPublicKey as error:
        raise ValueError(str(error)) from error


def _redis_url(value: str) -> None:
    try:
        check_redis_url(value)
    except BadRedisUrl as error:
        raise ValueError(str(error)) from error


def _header_safe(value: str) -> None:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("a key has no spaces, line breaks or non-ASCII characters")


Port = Annotated[int, Field(ge=0, le=65_535)]
PublicKeys = Annotated[tuple[VerifyKey, ...], BeforeValidator(_public_keys)]
Ages = Annotated[tuple[int, ...], BeforeValidator(_ages)]
RedisUrl = Annotated[SecretStr, _checked(_redis_url)]
SecretUrl = Annotated[SecretStr, _checked(_http_url)]
Url = Annotated[str, _checked(_http_url)]
ApiKey = Annotated[SecretStr, _checked(_header_safe)]
Money = Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class Settings(BaseModel):
    """What both processes read."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    redis_url: RedisUrl = Field(
        default=SecretStr("redis://localhost:6379/0"),
        alias="REDIS_URL",
        description="`redis://`, `rediss://`, `unix://`, or "
        "`redis+sentinel://[user:password@]host:port[,host:port…]/db?master=NAME` "
        "(`rediss+sentinel://` for TLS)",
    )
    redis_replicas: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0,
        alias="TOLLWATCH_REDIS_REPLICAS",
        description="How many replicas of Redis must have an event before its webhook is answered "
        "with 2xx: a failover to one of them loses none. Have one replica more than this",
    )
    retention_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        default=30,
        alias="TOLLWATCH_RETENTION_DAYS",
        description="How long finished sessions, their analyses and their alerts are kept",
    )
    mask_numbers: bool = Field(
        default=True,
        alias="TOLLWATCH_MASK_NUMBERS",
        description="Phone numbers are cut to their last two digits before they are stored",
    )
    log_format: Literal["json", "console"] = Field(
        default="json", alias="TOLLWATCH_LOG_FORMAT", description="`json` or `console`"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        alias="TOLLWATCH_LOG_LEVEL",
        description="`debug`, `info`, `warning` or `error`",
    )
    grace_seconds: Annotated[int, Field(ge=1, le=600)] = Field(
        default=20,
        alias="TOLLWATCH_GRACE_SECONDS",
        description="How long work in flight may take to finish after SIGTERM; keep it below the "
        "pod's grace period",
    )

    @property
    def retention_ms(self) -> int:
        """The retention in milliseconds."""
        return self.retention_days * 86_400_000

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings from the environment. Raises SettingsError with every fault."""
        return _load(cls, os.environ if environ is None else environ)


class WebSettings(Settings):
    """What the web process reads; neither the API key nor Slack's URL is among it."""

    public_keys: PublicKeys = Field(
        alias="TELNYX_PUBLIC_KEY",
        description="Telnyx's public key; several, by comma, while a key is rotated",
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a container is reached from outside
        alias="TOLLWATCH_HOST",
        description="Address of the public port",
    )
    port: Port = Field(default=8080, alias="TOLLWATCH_PORT", description="Public port")
    admin_port: Port = Field(
        default=9090,
        alias="TOLLWATCH_ADMIN_PORT",
        description="Port of `/livez`, `/readyz` and `/metrics` (worker: 9091)",
    )
    tolerance_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=300,
        alias="TOLLWATCH_WEBHOOK_TOLERANCE_SECONDS",
        description="How old or new a signed timestamp may be",
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=67_108_864)] = Field(
        default=1_048_576, alias="TOLLWATCH_MAX_BODY_BYTES", description="Largest webhook body"
    )
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=256,
        alias="TOLLWATCH_MAX_IN_FLIGHT",
        description="Requests worked on at once; one more is answered with 503",
    )
    drain_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        default=3.0,
        alias="TOLLWATCH_DRAIN_SECONDS",
        description="How long readiness fails before the port closes, so that no new request comes",
    )


class WorkerSettings(Settings):
    """What a worker reads; the public key is not among it."""

    api_key: ApiKey = Field(alias="TELNYX_API_KEY", description="Telnyx API key (v2)")
    api_url: Url = Field(
        default="https://api.telnyx.com/v2",
        alias="TELNYX_API_URL",
        description="Where Telnyx's API is; nothing is ever fetched from another host",
    )
    slack_url: SecretUrl | None = Field(
        default=None,
        alias="SLACK_WEBHOOK_URL",
        description="Slack incoming webhook; without one, alerts are kept and logged",
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a container is reached from outside
        alias="TOLLWATCH_HOST",
        description="Address of the admin port",
    )
    admin_port: Port = Field(
        default=9091,
        alias="TOLLWATCH_ADMIN_PORT",
        description="Port of `/livez`, `/readyz` and `/metrics`",
    )
    ages: Ages = Field(
        default=(90, 300, 1800, 10800),
        alias="TOLLWATCH_FETCH_AFTER_SECONDS",
        description="Ages after the call's end at which its analysis is fetched: positive, "
        "strictly ascending; ends early once settled; the first answer at or after the last age is "
        "final",
    )
    recheck_after_seconds: Annotated[int, Field(ge=0, le=_LARGEST_RECHECK)] = Field(
        default=86_400,
        alias="TOLLWATCH_RECHECK_AFTER_SECONDS",
        description="Age after the call's end at which a settled cost is fetched once more, for "
        "charges that came late; above the last of the ages, within the retention; `0` turns it "
        "off",
        validate_default=True,
    )
    concurrency: Annotated[int, Field(ge=1, le=5000)] = Field(
        default=50, alias="TOLLWATCH_WORKER_CONCURRENCY", description="Sessions worked on at once"
    )
    outage_notice_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=60,
        alias="TOLLWATCH_OUTAGE_NOTICE_SECONDS",
        description="How long Telnyx must have failed for all sessions before the operators are "
        "told, once",
    )
    reconcile_minutes: Annotated[int, Field(ge=0, le=10_080)] = Field(
        default=30,
        alias="TOLLWATCH_RECONCILE_MINUTES",
        description="How often Telnyx is asked for calls whose webhooks never came; `0` turns it "
        "off",
    )
    policy_path: Path | None = Field(
        default=None,
        alias="TOLLWATCH_POLICY",
        description="Path to a YAML policy; the built-in one otherwise",
    )
    max_session_cost: Money | None = Field(
        default=None,
        alias="TOLLWATCH_MAX_SESSION_COST",
        description="The simplest ceiling: above it a session always alerts. Overrides the "
        "policy's value",
        json_schema_extra={"shown": "5.00"},
    )
    alert_cooldown_seconds: Annotated[int, Field(ge=0, le=604_800)] = Field(
        default=3600,
        alias="TOLLWATCH_ALERT_COOLDOWN_SECONDS",
        description="After an alert, others with the same cause (same assistant or connection, "
        "same leading reason) and no higher severity are counted until it ends, and then told "
        "together; `0` turns it off",
    )
    alert_burst: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20,
        alias="TOLLWATCH_ALERT_BURST",
        description="So many messages to Slack at once, summaries included",
    )
    alerts_per_hour: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30,
        alias="TOLLWATCH_ALERTS_PER_HOUR",
        description="So many messages to Slack an hour on average; the rest comes as one summary",
    )

    @field_validator("recheck_after_seconds")
    @classmethod
    def _recheck_comes_last(cls, value: int, info: ValidationInfo) -> int:
        ages, days = info.data.get("ages"), info.data.get("retention_days")
        if value and ages and value <= ages[-1]:
            raise ValueError(
                f"must be greater than {ages[-1]}, the last of TOLLWATCH_FETCH_AFTER_SECONDS, or 0 "
                "for no re-check"
            )
        if value and days and value > days * 86_400:
            raise ValueError(
                f"must be at most {days * 86_400}, as long as TOLLWATCH_RETENTION_DAYS keeps "
                "sessions, or 0 for no re-check"
            )
        return value


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the settings table."""

    name: str
    web: bool
    worker: bool
    default: str
    description: str


def variables() -> tuple[Variable, ...]:
    """Every variable of both processes, in order: the README's table is made of them."""
    rows: dict[str, Variable] = {}
    for settings, is_web in ((WebSettings, True), (WorkerSettings, False)):
        for field in settings.model_fields.values():
            name = field.alias or ""
            known = rows.get(name)
            rows[name] = Variable(
                name,
                web=is_web or (known is not None and known.web),
                worker=not is_web,
                default=known.default if known else _shown_default(field),
                description=known.description if known else field.description or "",
            )
    return tuple(rows.values())


def _shown_default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    default = extra.get("shown", field.default) if isinstance(extra, dict) else field.default
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case SecretStr():
            return default.get_secret_value()
        case tuple():
            return ",".join(map(str, default))
        case _:
            return "required" if default is PydanticUndefined else str(default)


Loaded = TypeVar("Loaded", bound=Settings)


def _load(settings: type[Loaded], environ: Mapping[str, str]) -> Loaded:
    faults: list[str] = []
    values: dict[str, str] = {}
    for field in settings.model_fields.values():
        name = field.alias or ""
        try:
            value = _read(name, environ)
        except (OSError, ValueError) as error:
            faults.append(f"{name}{_FILE}: {_file_fault(error)}")
            # A value that will not be used: the field counts as given, its one fault is said.
            continue
        if value is not None:
            values[name] = value
    unread = {fault.partition(_FILE)[0] for fault in faults}
    try:
        loaded = settings.model_validate(values)
    except ValidationError as error:
        faults += [line for name, line in _lines(error, settings) if name not in unread]
        loaded = None
    if faults or loaded is None:
        raise SettingsError(tuple(faults))
    return loaded


def _read(name: str, environ: Mapping[str, str]) -> str | None:
    """The variable's value, or that of the file that NAME_FILE names. Empty counts as unset."""
    value = environ.get(name, "").strip()
    path = environ.get(name + _FILE, "").strip()
    if not path:
        return value or None
    if value:
        raise ValueError(f"{name} is set too; keep one of them")
    with Path(path).open("rb") as file:
        raw = file.read(_LONGEST_FILE + 1)
    if len(raw) > _LONGEST_FILE:
        raise ValueError("the file is too large to hold one value")
    try:
        return raw.decode().strip() or None
    except UnicodeDecodeError as error:
        raise ValueError("the file is not UTF-8 text") from error


def _file_fault(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot read the file: {error.strerror or type(error).__name__}"
    return str(error)


def _lines(error: ValidationError, settings: type[Settings]) -> list[tuple[str, str]]:
    # Of a default that does not fit, pydantic names the field and not its alias.
    aliases = {field: known.alias for field, known in settings.model_fields.items()}
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        place = str(fault["loc"][0])
        name = aliases.get(place) or place
        message = "required, but not set" if fault["type"] == "missing" else fault["msg"]
        lines.append((name, f"{name}: {message.removeprefix('Value error, ')}"))
    return lines
