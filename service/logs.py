"""One renderer for every line: ours, uvicorn's, arq's and whatever else logs in this process.

Nothing from outside can begin a line, end one, or command the terminal that shows it; and how many
lines strangers can cause is bounded.
"""

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from io import StringIO
from textwrap import indent
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import Processor

from service.printable import json_safe, safe, safe_lines

# What a person looks for in a line, in front.
_FIRST: Final = ("timestamp", "level", "event", "session_id")

# These print URLs (Slack's is a secret) or job arguments at INFO.
_QUIET: Final = ("httpx", "httpcore", "aiohttp", "arq", "slack_sdk", "asyncio")


def configure_logs(log_format: str, log_level: str) -> None:
    """Send all logs of this process to stdout, `json` or `console`, from `log_level` up."""
    level = logging.getLevelNamesMapping()[log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = _renderer(log_format)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger; what it prints follows `configure_logs`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class Digest:
    """Lines that strangers can cause: the first of each kind in a period, then one for the rest.

    The lines that a flood deserves would fill the disk, and cost more than the flood. A line's kind
    is its event with its fields, which must be few. Used on an event loop.
    """

    def __init__(self, period_seconds: float) -> None:
        self._period_seconds = period_seconds
        self._more: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def warning(self, event: str, **fields: str) -> None:
        """Log it, or count it: what was counted is logged, as `more`, when the period ends."""
        kind = event, tuple(fields.items())
        if kind in self._more:
            self._more[kind] += 1
            return
        self._more[kind] = 0
        get_logger().warning(event, **fields)
        asyncio.get_running_loop().call_later(self._period_seconds, self._end, kind)

    def close(self) -> None:
        """End all periods."""
        for kind in list(self._more):
            self._end(kind)

    def _end(self, kind: tuple[str, tuple[tuple[str, str], ...]]) -> None:
        more = self._more.pop(kind, 0)
        if more:
            event, fields = kind
            get_logger().warning(event, **dict(fields), more=more, seconds=self._period_seconds)


def _renderer(log_format: str) -> list[Processor]:
    if log_format == "console":
        return [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(), exception_formatter=_traceback
            ),
        ]
    return [structlog.processors.format_exc_info, _as_json]


def _traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """A traceback without variables, which hold whole numbers; indented, so no line looks ours."""
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write("\n" + indent(safe_lines(text.getvalue().strip("\n")), "    "))


def _printable(
    _logger: Any, _name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The console shows strings as they are."""
    return {name: _shown(value) for name, value in event_dict.items()}


def _shown(value: Any) -> Any:
    return safe(value) if isinstance(value, str) else value


def _as_json(_logger: Any, _name: str, event_dict: MutableMapping[str, Any]) -> str:
    first = {name: event_dict.pop(name) for name in _FIRST if name in event_dict}
    line = {**first, **event_dict}
    try:
        encoded = _ENCODER.encode(line)
    except UnicodeEncodeError:
        # Half a surrogate pair is no text in any encoding.
        encoded = _ENCODER.encode({name: safe(str(value)) for name, value in line.items()})
    # JSON itself escapes line breaks, but neither C1 controls nor marks of direction.
    return json_safe(encoded.decode())


_ENCODER: Final = msgspec.json.Encoder(enc_hook=repr, decimal_format="string")
