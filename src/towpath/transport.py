"""A transport with threads of its own: pyreqwest, the fallback of `transport_http1`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.response import Response

from .http import Reply, Request, TransportError, Unsendable, Untrusted
from .url import read_url

if TYPE_CHECKING:
    from .guard import Pin

IDLE_CONNECTIONS_PER_HOST = 128
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# hyper names its error kinds in the causes; this one alone says that no byte of the request left.
_NOT_CONNECTED = "client error (Connect)"
_UNTRUSTED = "invalid peer certificate: "  # rustls


class PyreqwestTransport:
    """Requests over pyreqwest (reqwest, hyper, rustls): HTTP/1.1 with keep-alive, TLS ≥ 1.2.

    No redirects, no proxy from the environment, no decompression. `pin` fixes the address of a host;
    `root_certificate` (PEM) is trusted besides the system's.
    """

    def __init__(self, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        builder = ClientBuilder().no_proxy().follow_redirects(False)  # noqa: FBT003
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)  # noqa: FBT003
        builder = builder.min_tls_version("TLSv1.2").http1_only()
        if pin is not None:
            builder = builder.resolve(pin.host, pin.address, 0)  # port 0: the URL's
        if root_certificate is not None:
            builder = builder.add_root_certificate_pem(root_certificate)
        self._client = builder.pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST).build()

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        target = read_url(request.url)
        try:
            builder = self._client.request(request.method, request.url).headers(request.headers)
            if request.body:
                builder = builder.body_bytes(request.body)
            elif request.method in _WITH_BODY:
                builder = builder.header("content-length", "0")  # some servers answer 411 without it
            prepared = builder.timeout(timedelta(seconds=timeout_s)).build_streamed()
        except (BuilderError, ValueError) as error:
            raise Unsendable(f"not a request: {_causes(error)}") from error
        try:
            async with prepared as response:
                body, cut = await _body(response, request.limit_bytes)
                return Reply(response.status, _headers(response), body, cut)
        except BuilderError as error:
            raise Unsendable(f"not a request: {_causes(error)}") from error
        except PyreqwestError as error:
            raise _failure(error, timeout_s, target.origin.host) from error

    async def close(self) -> None:
        """Close idle connections; requests under way end with `TransportError`."""
        await self._client.close()


async def _body(response: Response, limit_bytes: int) -> tuple[bytes, bool]:
    """At most the limit, and whether there is more; leaving the response early drops the connection."""
    # `read` fills the amount unless the body ends, so a shorter piece is the whole body.
    first = await response.body_reader.read(limit_bytes + 1) or b""
    return bytes(first[:limit_bytes]), len(first) > limit_bytes


def _headers(response: Response) -> dict[str, str]:
    try:
        return dict(reversed([*response.headers.items()]))  # the first of a repeated header wins
    except ValueError:
        return _readable_headers(response)


def _readable_headers(response: Response) -> dict[str, str]:
    """Leave out the headers that are not text."""
    found: dict[str, str] = {}
    for name in response.headers:
        try:
            found[name] = response.headers[name]
        except ValueError:
            continue
    return found


def _causes(error: Exception) -> str:
    """Name the innermost cause; the outer ones repeat the URL."""
    details = getattr(error, "details", None) or {}
    causes = details.get("causes") or [{"message": str(error)}]
    return str(causes[-1]["message"])


def _failure(error: PyreqwestError, timeout_s: float, host: str) -> TransportError:
    details: Mapping[str, Any] = getattr(error, "details", None) or {}
    messages = [cause["message"] for cause in details.get("causes") or ()]
    sent = _NOT_CONNECTED not in messages
    if isinstance(error, TimeoutError):
        return TransportError(f"no complete answer within {round(timeout_s, 2):g} s", sent=sent)
    cause = _causes(error)
    if cause.startswith(_UNTRUSTED):
        return Untrusted(host, cause.removeprefix(_UNTRUSTED))
    return TransportError(f"{error.message}: {cause}", sent=sent)
