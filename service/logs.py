"""One renderer for every line: ours, uvicorn's, arq's and whatever else logs in this process."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import Processor

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


def _renderer(log_format: str) -> list[Processor]:
    if log_format == "console":
        # Its own tracebacks show the variables of every frame, whole numbers among them.
        plain = structlog.dev.plain_traceback
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)
        ]
    return [structlog.processors.format_exc_info, _as_json]


def _as_json(_logger: Any, _name: str, event_dict: MutableMapping[str, Any]) -> str:
    first = {name: event_dict.pop(name) for name in _FIRST if name in event_dict}
    # JSON escapes line breaks and control characters: nothing from outside can begin a line.
    return _ENCODER.encode({**first, **event_dict}).decode()


_ENCODER: Final = msgspec.json.Encoder(enc_hook=repr, decimal_format="string")
