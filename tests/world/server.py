"""A server inside the running event loop, which starts and stops in no time; on loopback at first.

It takes no signals and says nothing; a stop cuts every connection, as when a machine goes away.
"""

import asyncio
import socket
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_SECONDS = 75
_LATE_TURNS = 5


class LoopbackServer:
    """Serves an application on `host`, as an async context manager. Port 0: any free one.

    It may be stopped and started again, on the same port.
    """

    def __init__(self, app: ASGIApp, port: int = 0, host: str = "127.0.0.1") -> None:
        self._app = app
        self._host = host
        self._wanted_port = port
        self._server: uvicorn.Server | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port, once it has been started."""
        return self._wanted_port

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens; returns when requests are answered."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self._host, self._wanted_port))
        self._wanted_port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            backlog=1024,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[self._socket])
        self._server = server

    async def stop(self) -> None:
        """Answers no more: the port is closed, connections and running requests are cut."""
        server, self._server = self._server, None
        if server is None:
            return
        for listener in server.servers:
            listener.close()
        assert self._socket is not None
        self._socket.close()
        # One that was just being accepted shows up a turn of the loop later.
        for _ in range(_LATE_TURNS):
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
