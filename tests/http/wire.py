"""A server on loopback that answers with scripted bytes, for what a well-behaved server would never do."""

from __future__ import annotations

import asyncio
import datetime as dates
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Script: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


PATIENCE_S = 5.0


class Wire:
    """What the server saw: request heads, bodies, connections opened; `gone` is set when one is dropped."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Closing TLS waits for the other side's goodbye, which may never come: the loop would end before.
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head.lower())
                self.bodies.append(await reader.readexactly(_length(head)))
                self.asked.set()
                await self.script(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            self.gone.set()
        finally:
            writer.close()


def _length(head: str) -> int:
    for line in head.lower().split("\r\n"):
        if line.startswith("content-length:"):
            return int(line.split(":")[1])
    return 0


@asynccontextmanager
async def serve(script: Script | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Answer every request on loopback by a script, or by the same bytes."""
    wire = Wire(_always(script) if isinstance(script, bytes) else script)
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    wire.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/path"
    try:
        yield wire
    finally:
        server.close()
        await wire.stop()
        await server.wait_closed()
        await _detached(server)


async def _detached(server: asyncio.Server) -> None:
    """Wait for connections that ended in the handshake: Python 3.11's own `wait_closed` does not."""
    deadline = time.monotonic() + PATIENCE_S
    while getattr(server, "_active_count", 0) and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.001)


def _always(answer: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return script


def certificate(directory: Path) -> tuple[ssl.SSLContext, bytes]:
    """Make a server's TLS context for `towpath.test`, and the root certificate (PEM) to trust it by."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "towpath test root")])
    root = _signed(root_name, root_name, root_key.public_key(), root_key, x509.BasicConstraints(True, None))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "towpath.test")])
    alternative = x509.SubjectAlternativeName([x509.DNSName("towpath.test")])
    leaf = _signed(name, root_name, key.public_key(), root_key, alternative)
    file = directory / "server.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, root.public_bytes(serialization.Encoding.PEM)


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = dates.datetime.now(dates.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(
        now - dates.timedelta(days=1)
    )
    builder = builder.not_valid_after(now + dates.timedelta(days=1)).add_extension(extension, critical=False)
    return builder.sign(by, hashes.SHA256())
