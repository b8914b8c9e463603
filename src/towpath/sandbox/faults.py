"""Faults on request: refusals, delays, cut connections, lost answers, broken bodies; for chosen requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.clock import Clock

from .exchange import Answer, ASGIScope, Incoming, Receive, Send, sever, write

Kind: TypeAlias = Literal[
    "status", "delay", "reset", "drop_answer", "garbage", "truncated", "drip", "endless"
]
ENDLESS_LIMIT_BYTES = 1024 * 1024 * 1024
GARBAGE = b'{"data": {"id": \xff\xfe, ]'


class Fault(Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault and the requests it meets; empty conditions meet all.

    `status`: answered with `status`, `headers` and `body` before anything is handled. `delay`: handled after
    `delay_s`. `reset`: the connection is cut before anything is handled. `drop_answer`: **handled, then cut
    without an answer**. `garbage`: handled, answered with a body that is no JSON. `truncated`: handled,
    answered with the first half of the body. `drip`: handled, answered one byte every `delay_s`. `endless`:
    handled, answered with a body without an end (1 GiB at most).

    `path` is a prefix of the path without the query, `person` an id or e-mail the request names. It stays
    until `count` requests met it (None: until cleared); `probability` picks among those that match.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    person: str = ""
    status: int = 503
    headers: Mapping[str, str] = {}
    body: str | None = None
    delay_s: float = 1.0
    count: int | None = None
    probability: float = 1.0


class Faults:
    """The faults in force. Chance comes from `seed`, so a run can be repeated; `met` counts by kind."""

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self.active: list[Fault] = []
        self.met: dict[str, int] = {}
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311

    def add(self, kind: Kind, **conditions: Any) -> Fault:
        """Put a fault in force, by the fields of `Fault`."""
        return self.put(msgspec.convert({"kind": kind, **conditions}, Fault))

    def put(self, fault: Fault) -> Fault:
        """Put a fault in force."""
        self.active = [*self.active, fault]
        return fault

    def clear(self) -> None:
        """Take every fault back."""
        self.active = []

    async def before(self, request: Incoming, names: Callable[[Incoming, str], bool]) -> Fault | None:
        """Wait for the delays that this request meets, and return the first other fault it meets."""
        verdict: Fault | None = None
        for fault in self.active:
            if (verdict is not None and fault.kind != "delay") or not self._meets(fault, request, names):
                continue
            self._spend(fault)
            if fault.kind == "delay":
                await self._clock.sleep(fault.delay_s)
            else:
                verdict = fault
        return verdict

    async def answer(
        self, fault: Fault, answer: Answer, scope: ASGIScope, receive: Receive, send: Send
    ) -> None:
        """Answer a handled request in the way of the fault."""
        if fault.kind == "drop_answer":
            await sever(scope, receive)
        elif fault.kind == "garbage":
            await write(send, Answer(answer.status, GARBAGE, answer.headers))
        elif fault.kind == "truncated":
            await write(send, Answer(answer.status, answer.body[: len(answer.body) // 2], answer.headers))
        else:
            await self._unfinished(fault, answer, receive, send)

    def _meets(self, fault: Fault, request: Incoming, names: Callable[[Incoming, str], bool]) -> bool:
        if fault.count == 0:
            return False
        if fault.method and fault.method.upper() != request.method:
            return False
        if not request.path.startswith(fault.path):
            return False
        if fault.person and not names(request, fault.person):
            return False
        return fault.probability >= 1.0 or self._random.random() < fault.probability

    def _spend(self, fault: Fault) -> None:
        self.met[fault.kind] = self.met.get(fault.kind, 0) + 1
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                self.active = [other for other in self.active if other is not fault]

    async def _unfinished(self, fault: Fault, answer: Answer, receive: Receive, send: Send) -> None:
        """Send a slow or endless body until it ends or the caller leaves."""
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]})
        body = asyncio.ensure_future(self._drip(answer, fault, send) if fault.kind == "drip" else _pour(send))
        left = asyncio.ensure_future(_left(receive))
        _, pending = await asyncio.wait([body, left], return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(body, left, return_exceptions=True)

    async def _drip(self, answer: Answer, fault: Fault, send: Send) -> None:
        for index in range(len(answer.body)):
            part = answer.body[index : index + 1]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await self._clock.sleep(fault.delay_s)
        await send({"type": "http.response.body", "body": b""})


async def _pour(send: Send) -> None:
    part = b" " * 65536
    for _ in range(ENDLESS_LIMIT_BYTES // len(part)):
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def scripted(fault: Fault) -> Answer:
    """Return the answer of a `status` fault; without a body it is a JSON error that names the sandbox."""
    error = {"errors": [{"status": fault.status, "code": "sandbox", "title": "a fault of the sandbox"}]}
    body = msgspec.json.encode(error) if fault.body is None else fault.body.encode()
    headers = {"content-type": "application/json; charset=utf-8"}
    headers |= {name.lower(): value for name, value in fault.headers.items()}
    return Answer(fault.status, body, [(name.encode(), value.encode()) for name, value in headers.items()])
