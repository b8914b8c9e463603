"""The connection to a NATS server: requests that end when the connection is lost, reads that try again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import nats
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from ...errors import TowpathError
from .durability import Durability

T = TypeVar("T")
ANSWER_S = 5.0
RECONNECT_S = 0.1
FETCH_MESSAGES = 64
FETCH_BYTES = 4 << 20
_Broken = (Error, OSError, TimeoutError, asyncio.TimeoutError)


class Lost(Exception):
    """No answer came: what was asked may or may not have been done."""


class Unreachable(TowpathError):
    """The server did not come back in time."""

    def __init__(self, servers: Sequence[str], patience_s: float) -> None:
        super().__init__(
            "the NATS server cannot be reached",
            code="E5043",
            why=f"no connection to {', '.join(servers)} within {patience_s:g} s",
            fix="start the server, or correct its address",
            data="What was acknowledged is on the server's disk; nothing of it is lost.",
        )


class Denied(Exception):
    """The server's own answer to a request: it did not do it. `code` is its `err_code`."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", "refused")))
        self.code = int(error.get("err_code", 0))


class Outgoing(Struct, frozen=True):
    """A message to be stored."""

    subject: str
    body: bytes
    headers: Mapping[str, str] = {}


class Stored(Struct, frozen=True):
    """A message of a stream."""

    subject: str
    sequence: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """One connection, kept up for as long as the log is open; waits at most `patience_s` for it."""

    def __init__(self, servers: Sequence[str], patience_s: float, durability: Durability) -> None:
        self.client = Client()
        self.patience_s = patience_s
        self._servers = list(servers)
        self._durability = durability
        self._up = asyncio.Event()
        self._down = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises `Unreachable`, and what `Durability.confirm` raises."""
        try:
            await self.client.connect(
                self._servers,
                name="towpath log",
                error_cb=_ignore,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._connected,
                reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # any number of seconds
                max_reconnect_attempts=max(1, int(self.patience_s / RECONNECT_S)),
                connect_timeout=2,
            )
        except (nats.errors.NoServersError, *_Broken) as error:
            raise Unreachable(self._servers, self.patience_s) from error
        self.client.options["max_reconnect_attempts"] = -1  # once it was there, it is waited for
        await self._connected()
        await self._durability.confirm(self.information)

    @property
    def information(self) -> Mapping[str, Any]:
        """What the server says about itself when a client connects (`INFO`)."""
        return self.client._server_info  # noqa: SLF001 - the client shows only parts of it

    async def _connected(self) -> None:
        self._down.clear()
        self._up.set()

    async def _disconnected(self) -> None:
        self._up.clear()
        self._down.set()

    async def ready(self) -> None:
        """Return once connected to a server that forces to disk before it answers. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(self.patience_s):
                await self._up.wait()
        except TimeoutError as error:
            raise Unreachable(self._servers, self.patience_s) from error
        await self._durability.confirm(self.information)

    async def ask(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> Msg:
        """One request, one answer. Raises `Lost` as soon as the connection breaks or time runs out."""
        return await self._unless_broken(
            self.client.request(subject, body, timeout=ANSWER_S, headers=dict(headers) if headers else None)
        )

    async def _unless_broken(self, asked: Coroutine[Any, Any, T]) -> T:
        """What is asked, or `Lost`; the client itself would wait for an answer that cannot come any more."""
        request, broken = asyncio.ensure_future(asked), asyncio.ensure_future(self._down.wait())
        try:
            await asyncio.wait((request, broken), return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                raise Lost("the connection broke")
            return request.result()
        except _Broken as error:
            raise Lost(str(error) or type(error).__name__) from error
        finally:
            broken.cancel()
            if request.cancel():
                await asyncio.gather(request, return_exceptions=True)

    async def push(self, message: Outgoing, headers: Mapping[str, str]) -> None:
        """Send a message that nobody answers. Raises `Lost`."""
        try:
            await self.client.publish(message.subject, message.body, headers=dict(headers))
        except _Broken as error:
            raise Lost(str(error)) from error

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JetStream API, repeated while no answer comes. Raises `Denied`, `Unreachable`."""
        asked = json.dumps(body).encode() if body is not None else b""
        for _ in range(self._attempts()):
            await self.ready()
            try:
                return answer_of(await self.ask(f"$JS.API.{verb}", asked))
            except Lost:
                await asyncio.sleep(0.05)
        raise Unreachable(self._servers, self.patience_s)

    async def fetch(self, stream: str, query: Mapping[str, Any]) -> list[Stored]:
        """Messages by direct get; `query` as in NATS' ADR-31. Raises `Unreachable`."""
        for _ in range(self._attempts()):
            await self.ready()
            try:
                return await self._fetch(stream, query)
            except Lost:
                await asyncio.sleep(0.05)
        raise Unreachable(self._servers, self.patience_s)

    def _attempts(self) -> int:
        return 2 + int(self.patience_s / ANSWER_S)

    async def _fetch(self, stream: str, query: Mapping[str, Any]) -> list[Stored]:
        subject, asked = f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode()
        if "batch" not in query:
            found = _stored(await self.ask(subject, asked))
            return [] if found is None else [found]
        return await self._unless_broken(self._gather(subject, asked))

    async def _gather(self, subject: str, asked: bytes) -> list[Stored]:
        inbox, messages = self.client.new_inbox(), []
        subscription = await self.client.subscribe(inbox)
        try:
            await self.client.publish(subject, asked, reply=inbox)
            while (found := _stored(await subscription.next_msg(ANSWER_S))) is not None:
                messages.append(found)
        finally:
            with suppress(*_Broken):
                await subscription.unsubscribe()
        return messages

    async def forward(self, stream: str, subject: str, sequence: int) -> AsyncIterator[Stored]:
        """The messages of a subject from a sequence on, in order."""
        while page := await self.page(stream, subject, sequence, FETCH_BYTES):
            for message in page:
                yield message
            sequence = page[-1].sequence + 1

    async def page(self, stream: str, subject: str, sequence: int, size: int) -> list[Stored]:
        """The next messages of a subject from a sequence on, of about this many bytes; empty at the end."""
        query = {"next_by_subj": subject, "batch": FETCH_MESSAGES, "max_bytes": size, "seq": sequence}
        return await self.fetch(stream, query)

    async def backward(self, stream: str, subject: str, sequence: int) -> AsyncIterator[Stored]:
        """The messages of a subject up to a sequence, the newest first."""
        while sequence > 0:
            start = max(1, sequence - FETCH_MESSAGES + 1)
            query = {"next_by_subj": subject, "batch": sequence - start + 1, "seq": start}
            for message in reversed(await self.fetch(stream, query)):
                if message.sequence <= sequence:
                    yield message
            sequence = start - 1

    async def close(self) -> None:
        """Close the connection."""
        await self.client.close()


def answer_of(message: Msg) -> dict[str, Any]:
    """The JSON of an answer. Raises `Denied`."""
    answer: dict[str, Any] = json.loads(message.data)
    if "error" in answer:
        raise Denied(answer["error"])
    return answer


def _stored(message: Msg) -> Stored | None:
    """The stored message in a direct get's answer; None at the end, or where there is none."""
    headers = message.headers or {}
    status = headers.get("Status")
    if status in ("204", "404"):
        return None
    if status is not None:
        raise Lost(f"direct get: {status} {headers.get('Description', '')}")
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers, message.data)


async def _ignore(_: Exception) -> None:
    """The client reports each failed attempt to connect; what matters is whether requests are answered."""
