"""The ASGI front of the sandbox's servers: reads requests, meets faults, has the development routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .exchange import Answer, ASGIScope, Incoming, Receive, Send, read, sever, write
from .faults import Fault, Faults, scripted

_JSON = [(b"content-type", b"application/json; charset=utf-8")]
_UNKNOWN = {"error": "there are only GET /_sandbox/state and GET, POST, DELETE /_sandbox/faults"}


class Front:
    """An ASGI app before `answer`, which handles one request as if there were no faults.

    `names` tells whether a request concerns a person; `met` hears of requests that a fault ended before they
    were handled, with the status (0: cut). With `summary` the routes under `/_sandbox/` exist.
    """

    def __init__(
        self,
        answer: Callable[[Incoming], Answer],
        faults: Faults,
        *,
        names: Callable[[Incoming, str], bool],
        met: Callable[[Incoming, int], None],
        summary: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._answer = answer
        self._faults = faults
        self._names = names
        self._met = met
        self._summary = summary

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            request = await read(scope, receive)
        except ConnectionError:
            return
        if self._summary is not None and request.path.startswith("/_sandbox/"):
            await write(send, _controlled(request, self._faults, self._summary))
            return
        fault = await self._faults.before(request, self._names) if self._faults.active else None
        if fault is None:
            await write(send, self._answer(request))
        else:
            await self._disturbed(fault, request, scope, receive, send)

    async def _disturbed(
        self, fault: Fault, request: Incoming, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        if fault.kind == "status":
            self._met(request, fault.status)
            await write(send, scripted(fault))
        elif fault.kind == "reset":
            self._met(request, 0)
            await sever(scope, receive)
        else:
            await self._faults.answer(fault, self._answer(request), scope, receive, send)


def _controlled(request: Incoming, faults: Faults, summary: Callable[[], dict[str, Any]]) -> Answer:
    if (request.method, request.path) == ("GET", "/_sandbox/state"):
        return _json(200, summary())
    if request.path != "/_sandbox/faults" or request.method not in {"GET", "POST", "DELETE"}:
        return _json(404, _UNKNOWN)
    if request.method == "POST":
        try:
            faults.put(msgspec.json.decode(request.body, type=Fault))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _json(400, {"error": f"not a fault: {error}"})
    elif request.method == "DELETE":
        faults.clear()
    return _json(200, {"faults": faults.active, "met": faults.met})


def _json(status: int, document: dict[str, Any]) -> Answer:
    return Answer(status, msgspec.json.encode(document), _JSON)
