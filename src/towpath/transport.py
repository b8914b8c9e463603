"""A transport with threads of its own: pyreqwest, for HTTP/2 and as the fallback of `transport_http1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.response import Response

from .http import Reply, Request, TransportError, Unsendable, Untrusted
from .url import read_url

if TYPE_CHECKING:
    from .guard import Pin

IDLE_CONNECTIONS_PER_HOST = 128
PLAIN_OK = 200
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# hyper names its error kinds in the causes; this one alone says that no byte of the request left.
_NOT_CONNECTED = "client error (Connect)"
# HTTP/2 can say of a request that left that nothing was done with it (RFC 9113, 8.7): the stream was refused,
# or lies beyond the last one that a GOAWAY names. The first cause says that no part of an answer had come.
_UNANSWERED = "client error (SendRequest)"
_NOT_PROCESSED = (
    "stream error received: refused stream before processing any application logic",
    "connection error received: ",
)
_UNTRUSTED = "invalid peer certificate: "  # rustls


class PyreqwestTransport:
    """Requests over pyreqwest (reqwest, hyper, rustls): HTTP/1.1 with keep-alive, TLS ≥ 1.2.

    No redirects, no proxy from the environment, no decompression. `pin` fixes the address of a host;
    `root_certificate` (PEM) is trusted besides the system's.
    """

    def __init__(self, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        builder = client_builder(pin, root_certificate).http1_only()
        self._client = builder.pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST).build()

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        return await exchange(self._client, request, timeout_s)

    async def close(self) -> None:
        """Close idle connections; requests under way end with `TransportError`."""
        await self._client.close()


async def exchange(client: Client, request: Request, timeout_s: float, *, bare: bool = False) -> Reply:
    """Do one exchange by a client of pyreqwest's, within a total deadline. Raises `TransportError`.

    `bare` leaves out what costs a quarter of it: the deadline, which must be the client's own then, and the
    headers of a 200.
    """
    target = read_url(request.url)
    try:
        builder = client.request(request.method, request.url).headers(request.headers)
        if request.body:
            builder = builder.body_bytes(request.body)
        elif request.method in _WITH_BODY:
            builder = builder.header("content-length", "0")  # some servers answer 411 without it
        if not bare:
            builder = builder.timeout(timedelta(seconds=timeout_s))
        prepared = builder.build_streamed()
    except (BuilderError, ValueError) as error:
        raise Unsendable(f"not a request: {_causes(error)}") from error
    try:
        async with prepared as response:
            body, cut = await _body(response, request.limit_bytes)
            status = response.status
            return Reply(status, {} if bare and status == PLAIN_OK else _headers(response), body, cut)
    except BuilderError as error:
        raise Unsendable(f"not a request: {_causes(error)}") from error
    except PyreqwestError as error:
        raise _failure(error, timeout_s, target.origin.host) from error


def client_builder(pin: Pin | None, root_certificate: bytes | None) -> ClientBuilder:
    """Begin a client with the limits that hold for every request; the HTTP version is still open."""
    builder = ClientBuilder().no_proxy().follow_redirects(False)  # noqa: FBT003
    builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)  # noqa: FBT003
    builder = builder.min_tls_version("TLSv1.2")
    if pin is not None:
        builder = builder.resolve(pin.host, pin.address, 0)  # port 0: the URL's
    if root_certificate is not None:
        builder = builder.add_root_certificate_pem(root_certificate)
    return builder


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
    sent = _NOT_CONNECTED not in messages and not _surely_not_processed(messages)
    if isinstance(error, TimeoutError):
        return TransportError(f"no complete answer within {round(timeout_s, 2):g} s", sent=sent)
    cause = _causes(error)
    if cause.startswith(_UNTRUSTED):
        return Untrusted(host, cause.removeprefix(_UNTRUSTED))
    return TransportError(f"{error.message}: {cause}", sent=sent)


def _surely_not_processed(messages: Sequence[str]) -> bool:
    return _UNANSWERED in messages and any(message.startswith(_NOT_PROCESSED) for message in messages)
