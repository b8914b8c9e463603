"""What the SDK tests stand on: a towpath process with many sources, and a front that notes and disturbs."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web

from tests.app.support import SECRET, process, until
from tests.ingest.support import served
from towpath.cli.client import Client

SOURCES = 40
_CONFIG = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
{sources}
destinations:
  hook: {{type: webhook, url: "{sink}/hook", secret: "{secret}", allow_private: true}}
connections:
  - {{from: [{names}], to: [hook], start: earliest}}
"""


class Sink:
    """A webhook receiver that keeps the bodies it gets, in the order they come."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(msgspec.json.decode(body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Kept(NamedTuple):
    """One event as the log holds it: `message` is the JSON the SDK sent, `type` what it counts as."""

    position: int
    message_id: str
    type: str
    trust: str
    message: dict[str, Any]

    @property
    def said(self) -> str:
        return str(self.message["event"])


class Source(NamedTuple):
    """One source of the running hub, used by one test."""

    name: str
    key: str
    hub: Towpath

    def lines(self, limit: int = 10_000) -> list[dict[str, Any]]:
        """Return the log's lines of it, oldest first."""
        found: list[dict[str, Any]] = self.hub.admin.get("/events", source=self.name, limit=limit)
        return found[::-1]

    def kept(self) -> list[Kept]:
        """Return what the log holds of it, oldest first, read back through the admin API."""
        rows = [self.hub.admin.get(f"/events/{line['position']}")[0] for line in self.lines()]
        return [Kept(*(row[name] for name in Kept._fields)) for row in rows]

    async def until_kept(self, count: int) -> list[Kept]:
        """Wait until at least so many events are kept; all of them."""
        await until(lambda: len(self.lines()) >= count)
        return self.kept()

    def refused(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.hub.admin.get("/refusals", source=self.name)
        return found

    async def delivered(self, count: int) -> list[dict[str, Any]]:
        """Wait until the webhook has so many of the kept events; they, in the order they came."""
        ids = {line["message_id"] for line in self.lines()}
        await until(lambda: len(self._received(ids)) >= count)
        return self._received(ids)

    def _received(self, ids: set[str]) -> list[dict[str, Any]]:
        return [body for body in self.hub.sink.bodies if body["messageId"] in ids]


class Towpath:
    """`towpath run` in a process of its own, with sources of every kind to hand out."""

    def __init__(self, file: Path, address: str, sink: Sink) -> None:
        self.address = address
        self.url = f"http://{address}"
        self.sink = sink
        self.admin = Client(file)
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def source(self, kind: str) -> Source:
        """Hand out a source nobody uses: `web`, `mobile`, `server`, or `paced` (5 events a second)."""
        name = f"{kind}{next(self._numbers[kind])}"
        return Source(name, f"wk_{name}", self)

    def person(self, identifier: str) -> dict[str, str]:
        """Return whose an id is: `u:` and `a:` forms to the person."""
        found: dict[str, str] = self.admin.get(f"/people/{identifier}")["person"]
        return found


@contextmanager
def towpath(directory: Path) -> Iterator[Towpath]:
    """Run towpath, delivering to a webhook receiver in this process."""
    kinds = {"web": "", "mobile": "", "server": ", trust: server", "paced": ", rate: 5/s"}
    names = {f"{kind}{n}": more for kind, more in kinds.items() for n in range(SOURCES)}
    lines = [f"  {name}: {{type: segment, write_keys: [wk_{name}]{more}}}" for name, more in names.items()]
    sink, file = Sink(), directory / "towpath.yaml"
    with served(sink) as port:
        text = _CONFIG.format(
            sources="\n".join(lines), names=", ".join(names), sink=f"http://127.0.0.1:{port}", secret=SECRET
        )
        file.write_text(text)
        with process(file, {"TOWPATH_KEY_FILE": str(directory / "key")}) as running:
            yield Towpath(file, running.address, sink)


class Seen(NamedTuple):
    """One request as it came to the front."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def key(self) -> str:
        """The write key of its Authorization header, empty without one."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode().rstrip(":") if scheme == "Basic" else ""

    def json(self) -> Any:
        """Decode its body, inflated."""
        zipped = self.headers.get("Content-Encoding") == "gzip"
        return msgspec.json.decode(zlib.decompress(self.body, 31) if zipped else self.body)


class Fault(NamedTuple):
    """What becomes of one POST: an answer in the hub's place, or none although the hub took it (`lost`).

    With `over` it is passed on, right after that source has used up its rate.
    """

    status: int = 503
    retry_after: str = ""
    lost: bool = False
    over: str = ""


class Front:
    """A reverse proxy before the hub: notes all that passes; the next POSTs meet its `faults`."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.url = ""
        self.seen: list[Seen] = []
        self.faults: deque[Fault] = deque()
        self._session = session

    def posts(self, path: str = "") -> list[Seen]:
        """Return the POSTs so far, of one path or all."""
        return [seen for seen in self.seen if seen.method == "POST" and path in ("", seen.path)]

    async def until_posts(self, count: int) -> None:
        """Wait until so many POSTs have been answered."""
        await until(lambda: len(self.posts()) >= count)

    def preflights(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "OPTIONS"]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Pass one request on."""
        body = await request.read()
        fault = self.faults.popleft() if self.faults and request.method == "POST" else None
        if fault and fault.over:
            await self._use_up(fault.over)
        instead = fault and not fault.lost and not fault.over
        answer = _instead(fault) if fault and instead else await self._passed(request, body)
        self.seen.append(
            Seen(request.method, request.path, request.query, request.headers, body, answer.status)
        )
        if fault and fault.lost and request.transport:
            request.transport.abort()
        return answer

    async def _use_up(self, key: str) -> None:
        """Spend the rate of a paced source for a second to come, on events that are refused."""
        body = msgspec.json.encode({"writeKey": key, "batch": [{"type": "track"}] * 10})
        async with self._session.post(self.upstream + "/v1/batch", data=body) as answer:
            assert answer.status == 400

    async def _passed(self, request: web.Request, body: bytes) -> web.Response:
        url = self.upstream + request.raw_path
        # The host stays the front's, as with any reverse proxy, so that settings name the way in.
        sent = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        async with self._session.request(
            request.method, url, data=body or None, headers=sent, skip_auto_headers=("Content-Type",)
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)


_HOP = {"Connection", "Content-Length", "Date", "Server", "Transfer-Encoding"}


def _instead(fault: Fault) -> web.Response:
    retry = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    shared = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "retry-after"}
    return web.Response(status=fault.status, text="upstream is busy", headers=shared | retry)


@asynccontextmanager
async def listening(handler: Any, *routes: tuple[str, Any]) -> AsyncIterator[str]:
    """Serve `handler` for every path but the ones with a route of their own; gives the address."""
    app = web.Application(client_max_size=16 * 1024 * 1024)
    for path, own in routes:
        app.router.add_get(path, own)
    app.router.add_route("*", "/{any:.*}", handler)
    runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fronted(hub: Towpath) -> AsyncIterator[Front]:
    """Open a front before the hub."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        front = Front(hub.url, session)
        async with listening(front.serve) as front.url:
            yield front
