"""Starts a worker: settings, policy, logs, the admin port, and an orderly end."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import uvloop

from service import __version__
from service.health import create_admin
from service.logs import configure_logs, get_logger
from service.server import Endpoint, PortInUse, serve
from service.settings import SettingsError, WorkerSettings
from workers.assembly import create_worker
from workers.policy import Policy
from workers.policy_file import PolicyError, parse_policy

CANNOT_START: Final = 2
_log = get_logger()


def main() -> int:
    """Run until SIGTERM; the exit code. 2, with a line for each fault, where it cannot start."""
    try:
        settings, policy = load(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_START
    configure_logs(settings.log_format, settings.log_level)
    try:
        uvloop.run(_run(settings, policy))
    except PortInUse as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_START
    return 0


def load(environ: Mapping[str, str]) -> tuple[WorkerSettings, Policy]:
    """Settings and policy. Raises SettingsError with every fault of both."""
    faults: list[str] = []
    settings, policy = None, Policy()
    try:
        settings = WorkerSettings.load(environ)
    except SettingsError as error:
        faults += error.faults
    path = environ.get("TOLLWATCH_POLICY", "").strip()
    if path:
        try:
            policy = _read_policy(Path(path))
        except SettingsError as error:
            faults += error.faults
    if faults or settings is None:
        raise SettingsError(tuple(faults))
    return settings, policy.with_max_session_cost(settings.max_session_cost)


def _read_policy(path: Path) -> Policy:
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except PolicyError as error:
        lines = (f"TOLLWATCH_POLICY: {path}:{fault}" for fault in error.faults)
        raise SettingsError(tuple(lines)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError((f"TOLLWATCH_POLICY: cannot read {path}: {reason}",)) from error
    except UnicodeDecodeError as error:
        raise SettingsError((f"TOLLWATCH_POLICY: {path} is not UTF-8 text",)) from error


async def _run(settings: WorkerSettings, policy: Policy) -> None:
    async with create_worker(settings, policy) as worker:
        stop = asyncio.Event()

        def started(ports: tuple[int, ...]) -> None:
            _log.info(
                "started", version=__version__, admin_port=ports[0], worker_id=worker.worker_id
            )
            if settings.slack_url is None:
                _log.warning("no SLACK_WEBHOOK_URL: alerts are kept and logged, nobody is told")

        def stopping() -> None:
            worker.health.stopping = True
            _log.info("stopping")

        admin = Endpoint(
            create_admin(worker.health, worker.registry), settings.host, settings.admin_port
        )
        await serve(
            admin,
            stop=stop,
            work=asyncio.create_task(worker.run(stop)),
            on_start=started,
            on_stop=stopping,
            drain_seconds=0,
        )
    _log.info("stopped")
