"""The fallback transport: aiohttp, an optional package, under the same contract as the default one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from .http import Reply, Request, TransportError, Unsendable, Untrusted

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from .guard import Pin


class AiohttpTransport:
    """Requests over aiohttp: HTTP/1.1 with keep-alive, TLS ≥ 1.2; for when pyreqwest is in the way.

    No redirects, no proxy from the environment, no decompression. `pin` fixes the address of a host;
    `root_certificate` (PEM) is trusted besides the system's.
    """

    def __init__(self, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        self._pin = pin
        self._context = ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        if root_certificate is not None:
            self._context.load_verify_locations(cadata=root_certificate.decode())
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        progress = SimpleNamespace(sent=False)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request, progress)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Untrusted(error.host, str(error.certificate_error)) from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
            raise Unsendable(f"not a request: {error}") from error
        except TimeoutError as error:
            raise TransportError(f"no complete answer within {timeout_s:g} s", sent=progress.sent) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"{type(error).__name__}: {error}", sent=progress.sent) from error

    async def close(self) -> None:
        """Close idle connections."""
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: Request, progress: SimpleNamespace) -> Reply:
        # A session belongs to a running loop, so the first request makes it.
        self._session = self._session or self._open()
        context = self._session.request(
            request.method,
            URL(request.url),
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            trace_request_ctx=progress,
        )
        async with context as response:
            body, cut = await _body(response.content, request.limit_bytes)
            return Reply(response.status, _first_values(response.headers), body, cut)

    def _open(self) -> aiohttp.ClientSession:
        resolver = None if self._pin is None else _PinnedResolver(self._pin)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._context, resolver=resolver),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_tracing()],
        )


class _PinnedResolver(AbstractResolver):
    """Knows one name."""

    def __init__(self, pin: Pin) -> None:
        self._pin = pin

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._pin.host:
            raise OSError(f"{host} is not the pinned host")
        address = self._pin.address
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _tracing() -> aiohttp.TraceConfig:
    """Note on the request's own context that its headers left."""
    config = aiohttp.TraceConfig()

    async def note(_: object, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent = True

    config.on_request_headers_sent.append(note)
    return config


async def _body(content: aiohttp.StreamReader, limit_bytes: int) -> tuple[bytes, bool]:
    """At most the limit, and whether there is more; leaving the response early drops the connection."""
    kept = bytearray()
    while len(kept) <= limit_bytes and (piece := await content.read(limit_bytes + 1 - len(kept))):
        kept += piece
    return bytes(kept[:limit_bytes]), len(kept) > limit_bytes


def _first_values(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name.lower(): value for name, value in reversed(list(headers.items()))}
