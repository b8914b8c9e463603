"""What the ingest tests stand on: a log in memory, a clock set by hand, a hub in process or on a port."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import uvicorn
from msgspec import Struct

from towpath.ingest import Ingest, IngestLimits
from towpath.ingest.protocol import BoundedHttp
from towpath.log import Appended, Group, Log, Refused, State
from towpath.message import Message, Record, read
from towpath.sources.segment import SegmentSource

KEY = "wk_web"
SENT = 1_760_000_000.0


class ManualClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.time = SENT
        self._random = random.Random(1)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, delay_s: float) -> None:
        self.time += delay_s

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class MemoryLog:
    """The part of a log that ingest uses; `failure` is raised in place of an append."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.refused: list[Refused] = []
        self.failure: Exception | None = None

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        if self.failure:
            raise self.failure
        before = len(self.records)
        for group in groups:
            for entry in group.entries:
                position = len(self.records) + 1
                self.records.append(Record(position, entry.message_id, group.envelope, entry.raw))
        self.refused += refused
        return Appended(len(self.records) - before, 0, len(self.records))

    def messages(self) -> list[Message]:
        return [read(record) for record in self.records]


class Reply(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def text(self) -> str:
        assert self.headers["content-type"].startswith("text/plain")
        return self.body.decode()


def basic(key: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def source(**settings: Any) -> SegmentSource:
    return SegmentSource.model_validate({"write_keys": [KEY], **settings})


class Hub:
    """`Ingest` with a log in memory, called in process."""

    def __init__(
        self,
        sources: Mapping[str, SegmentSource] | None = None,
        limits: IngestLimits | None = None,
        **settings: Any,
    ) -> None:
        self.log = MemoryLog()
        self.clock = ManualClock()
        chosen = {"web": source()} if sources is None else sources
        self.ingest = Ingest(cast("Log", self.log), chosen, self.clock, limits=limits, **settings)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = KEY,
        client: str = "203.0.113.7",
    ) -> Reply:
        route, _, query = path.partition("?")
        given = {**(basic(key) if key else {}), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": route,
            "query_string": query.encode(),
            "scheme": "http",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
            "client": (client, 1234),
        }
        parts = [body] if isinstance(body, bytes) else list(body)
        return await _exchange(self.ingest, scope, parts)

    async def post(
        self, path: str, content: Any, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Reply:
        """Post bytes as they are, anything else as JSON."""
        body = content if isinstance(content, bytes | list) else msgspec.json.encode(content)
        return await self.call("POST", path, body, headers, **options)

    async def batch(self, *items: bytes | Mapping[str, Any], **beside: Any) -> Reply:
        """Post a batch of events, raw or as mappings."""
        raws = [item if isinstance(item, bytes) else msgspec.json.encode(item) for item in items]
        members = b"".join(
            b',"%s":%s' % (name.encode(), msgspec.json.encode(value)) for name, value in beside.items()
        )
        return await self.call("POST", "/v1/batch", b'{"batch":[' + b",".join(raws) + b"]" + members + b"}")


async def _exchange(ingest: Ingest, scope: MutableMapping[str, Any], parts: list[bytes]) -> Reply:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await ingest(scope, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert headers["content-length"] == str(len(body["body"]))
    return Reply(start["status"], headers, body["body"])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an ASGI application on loopback, in a thread; gives the port."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=BoundedHttp, lifespan="off", log_config=None, proxy_headers=False
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(10)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        assert not thread.is_alive()
