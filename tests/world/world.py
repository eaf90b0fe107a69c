"""The simulated outside in one piece: Telnyx, Slack, the calls and the signer, on one port.

`async with World() as world:` in a test or the demonstration; `python -m tests.world` as a process
of its own.
"""

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.world.calls import CallGenerator
from tests.world.clock import Clock, utc
from tests.world.model import Call
from tests.world.prices import PriceBook
from tests.world.server import LoopbackServer
from tests.world.signing import Signer
from tests.world.slack import SlackWorld
from tests.world.telnyx import API_KEY, TelnyxWorld
from tests.world.webhooks import Sender

_NOWHERE: Final = PlainTextResponse("nothing here", 404)


class World:
    """Everything outside of the product. Durations of posting are divided by `time_scale`.

    One seed, one key, one set of calls. Calls that `call` makes end at the clock's now.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        port: int = 0,
        host: str = "127.0.0.1",
        latency_seconds: float = 0.0,
        time_scale: float = 1.0,
        clock: Clock = time.time,
        api_key: str = API_KEY,
        prices: PriceBook | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.time_scale = time_scale
        self.api_key = api_key
        self.signer = Signer(seed)
        self.generator = CallGenerator(seed, start=utc(clock()), prices=prices)
        self.telnyx = TelnyxWorld(
            clock=clock, time_scale=time_scale, api_key=api_key, latency_seconds=latency_seconds
        )
        self.slack = SlackWorld(clock=clock)
        self._more: dict[str, ASGIApp] = {}
        self._server = LoopbackServer(self._serve, port, host)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop()

    @property
    def public_key(self) -> str:
        """The account's public key in base64."""
        return self.signer.public_key

    @property
    def url(self) -> str:
        """The server's own URL, on this machine."""
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def telnyx_url(self) -> str:
        """For `TELNYX_API_URL`."""
        return f"{self.url}/v2"

    @property
    def slack_url(self) -> str:
        """For `SLACK_WEBHOOK_URL`."""
        return f"{self.url}{self.slack.path}"

    def call(self, kind: str, *, end: datetime | None = None, **options: Any) -> Call:
        """A call of that kind, or with that anomaly, that Telnyx knows of. It ends now by default.

        The options are those of `CallGenerator.make`.
        """
        ended = end or utc(self.clock())
        return self.telnyx.add(self.generator.make(kind, end=ended, **options))

    def calls(self, kinds: Iterable[str], *, end: datetime | None = None) -> list[Call]:
        """One call of each, in that order."""
        return [self.call(kind, end=end) for kind in kinds]

    def sender(self, url: str, failover_url: str | None = None, **options: Any) -> Sender:
        """A sender of this account's webhooks; the options are those of `Sender`."""
        own = {"seed": self.seed, "time_scale": self.time_scale, "clock": self.clock}
        given = {**own, "log": self.telnyx.deliveries, **options}
        return Sender(self.signer, url, failover_url, **given)

    def mount(self, prefix: str, app: ASGIApp) -> None:
        """Serves one more application below the prefix."""
        self._more[prefix] = app

    def down(self) -> AbstractAsyncContextManager[None]:
        """Inside it nothing answers: connections are cut and refused."""
        return self._down()

    @asynccontextmanager
    async def _down(self) -> AsyncIterator[None]:
        await self._server.stop()
        try:
            yield
        finally:
            await self._server.start()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        app: ASGIApp = _NOWHERE
        if path.startswith("/v2/"):
            app = self.telnyx.app
        elif path.startswith("/services/"):
            app = self.slack.app
        else:
            app = next((a for prefix, a in self._more.items() if path.startswith(prefix)), app)
        await app(scope, receive, send)
