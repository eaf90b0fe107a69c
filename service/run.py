"""Starts the web process: settings, logs, the two ports, and an orderly end."""

import sys
from typing import Final

import uvloop

from service import __version__
from service.app import create_web
from service.logs import configure_logs, get_logger
from service.server import Endpoint, PortInUse, serve
from service.settings import SettingsError, WebSettings

CANNOT_START: Final = 2
_log = get_logger()


def main() -> int:
    """Run until SIGTERM; the exit code. 2, with a line for each fault, where it cannot start."""
    try:
        settings = WebSettings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_START
    configure_logs(settings.log_format, settings.log_level)
    try:
        uvloop.run(_run(settings))
    except PortInUse as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_START
    return 0


async def _run(settings: WebSettings) -> None:
    async with create_web(settings) as web:

        def started(ports: tuple[int, ...]) -> None:
            _log.info("started", version=__version__, port=ports[0], admin_port=ports[1])

        def stopping() -> None:
            web.health.stopping = True
            _log.info("stopping")

        public = Endpoint(
            web.public,
            settings.host,
            settings.port,
            refused=web.metrics.count_limited,
            door=web.door,
        )
        admin = Endpoint(web.admin, settings.host, settings.admin_port)
        await serve(
            public,
            admin,
            on_start=started,
            on_stop=stopping,
            drain_seconds=settings.drain_seconds,
            finish_seconds=settings.grace_seconds,
        )
    _log.info("stopped")
