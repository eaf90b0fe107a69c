"""The simulated outside as a process: `python -m tests.world --port 8900`; see `control`.

With `--webhooks URL` calls end all the time, as in `make demo`, and the alerts are printed.
"""

import argparse
import asyncio
import contextlib
import signal

from tests.world.control import Control
from tests.world.traffic import Traffic
from tests.world.world import World


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until the process is told to end."""
    world = World(
        seed=arguments.seed,
        port=arguments.port,
        host=arguments.host,
        latency_seconds=arguments.latency_ms / 1000,
        time_scale=arguments.time_scale,
    )
    world.telnyx.limit(arguments.rate_limit)
    Control(world)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with world:
        print(f"TELNYX_API_URL={world.telnyx_url}")
        print(f"TELNYX_API_KEY={world.api_key}")
        print(f"TELNYX_PUBLIC_KEY={world.public_key}")
        print(f"SLACK_WEBHOOK_URL={world.slack_url}", flush=True)
        if arguments.webhooks:
            await Traffic(world, arguments.webhooks).run(until=stopped)
        await stopped.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines, too")
    parser.add_argument("--webhooks", help="calls end all the time, and this URL is told")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--rate-limit", type=int, default=None, help="requests a minute")
    parser.add_argument("--time-scale", type=float, default=1.0, help="how much faster costs post")
    arguments = parser.parse_args()
    try:
        import uvloop  # noqa: PLC0415 - not on Windows
    except ImportError:
        asyncio.run(serve(arguments))
    else:
        uvloop.run(serve(arguments))


if __name__ == "__main__":
    main()
