"""What ingest answers: statuses, texts and headers, and the one way they leave."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ..log import LogFailed, LogFull, Refused

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
# Every origin and never with credentials (D16): a write key is not a cookie.
CORS: tuple[Header, ...] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"retry-after"),
)


class Answer(Struct, frozen=True):
    """One HTTP answer. `close` ends the connection, for requests whose rest is not worth reading."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = (JSON,)
    close: bool = False


class Unacceptable(Exception):
    """The request gets this answer and nothing of it is kept beyond what was appended before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


ACCEPTED = Answer(200, b'{"success":true}')


def json(content: Any, status: int = 200) -> Answer:
    """Answer with a JSON document."""
    return Answer(status, msgspec.json.encode(content))


def text(status: int, sentence: str, *headers: Header, close: bool = False) -> Answer:
    """Answer with one plain line, which every SDK can take (E034)."""
    return Answer(status, sentence.encode() + b"\n", (TEXT, *headers), close)


def stop(
    status: int, sentence: str, *, retry_after_s: float | None = None, close: bool = False
) -> Unacceptable:
    """Make the exception that ends a request with one plain line."""
    headers = () if retry_after_s is None else ((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))),)
    return Unacceptable(text(status, sentence, *headers, close=close))


def unkept(error: Exception) -> Unacceptable:
    """Say why the log took nothing of a request, which is to be sent again later (E036)."""
    if isinstance(error, LogFull):
        return stop(507, "storage is full: nothing of this request was kept", retry_after_s=30)
    if isinstance(error, LogFailed):
        why = "storage fails, its disk cannot be written or read"
        return stop(503, f"{why}: nothing of this request was kept", retry_after_s=30)
    return stop(503, "service unavailable: nothing of this request was kept", retry_after_s=5)


def listed(refused: Sequence[Refused]) -> list[dict[str, Any]]:
    """Refused items as an answer lists them; index -1 is the request's own part, not an event."""
    return [{"index": item.index, "code": item.code, "reason": item.reason} for item in refused]


def verdict(accepted: int, refused: Sequence[Refused]) -> Answer:
    """Say what became of a batch: 200 when anything was kept, else a 400 that names every item (E035)."""
    if not refused:
        return ACCEPTED
    if accepted:
        return json({"success": True, "accepted": accepted, "refused": listed(refused)})
    said = {"code": "nothing_accepted", "message": "no event of the batch could be accepted", "accepted": 0}
    return json({**said, "refused": listed(refused)}, 400)


async def deliver(send: Send, answer: Answer, extra: tuple[Header, ...] = (), *, close: bool = False) -> None:
    """Send an answer with `extra` headers, and end the connection after it where that is asked for."""
    ends: tuple[Header, ...] = ((b"connection", b"close"),) if close or answer.close else ()
    length = (b"content-length", b"%d" % len(answer.body))
    headers = [length, *answer.headers, *extra, *ends]
    with contextlib.suppress(RuntimeError):  # the sender has left: uvicorn's transport is closed
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
