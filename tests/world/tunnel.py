"""A port that leads to another: as a Kubernetes service does, or with TLS before what knows none.

And certificates of a CA of our own.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID: Final = timedelta(days=1)
_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: `certificate` is the file that clients are given."""

    certificate: Path
    _own: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, directory: Path, name: str = "an authority") -> Self:
        """A new one, whose certificate is a file in the directory."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = _certificate(name, key, issuer=name, signer=key, is_authority=True)
        file = directory / f"{name.replace(' ', '-')}.pem"
        file.write_bytes(own.public_bytes(serialization.Encoding.PEM))
        return cls(file, own, key)

    def server_context(self, directory: Path) -> ssl.SSLContext:
        """What a server on `localhost` presents."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._own.subject.rfc4514_string().removeprefix("CN=")
        presented = _certificate("localhost", key, issuer=issuer, signer=self._key)
        file = directory / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + presented.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@asynccontextmanager
async def tunnel(
    target: Callable[[], int], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that leads to the port which is the target when a connection is made.

    With a context it is spoken to over TLS.
    """
    tasks: set[asyncio.Task[None]] = set()
    is_open = True

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_open:
            # It was taken in the moment of our end.
            writer.close()
            return
        task = asyncio.ensure_future(_carry(reader, writer, target()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.wait([task])

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        is_open = False
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Both ways, until either side ends; wherever it is cancelled, nothing stays open.

    A loop of uvloop's that is closed waits for what is open, for ever.
    """
    with contextlib.closing(writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(inner_writer):
            ways = [
                asyncio.ensure_future(_copy(reader, inner_writer)),
                asyncio.ensure_future(_copy(inner_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_AT_ONCE):
            writer.write(data)
            await writer.drain()


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    is_authority: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())
