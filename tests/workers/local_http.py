"""A local HTTP server in a thread, for tests whose subject runs an event loop of its own."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


@dataclass(frozen=True)
class Asked:
    """One request as it came; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Vendor:
    """A vendor that gives each path its answer, and 404 to the others."""

    port: int = 0
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its base URL, with a path as Telnyx's has one."""
        return f"http://127.0.0.1:{self.port}/v2"

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        """What a path gives: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.answers[f"/v2{path}"] = (status, raw)


@contextmanager
def vendor() -> Iterator[Vendor]:
    """A vendor on loopback while this is open."""
    here = Vendor()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            here.asked.append(Asked(self.command, path, query, headers, body))
            missing = b'{"errors": [{"code": "10005", "message": "Event not found"}]}'
            status, answer = here.answers.get(path, (404, missing))
            self.send_response(status)
            for name, value in here.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - the standard library's own way of naming

        def log_message(self, format: str, *args: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join()
