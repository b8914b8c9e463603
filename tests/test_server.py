"""A listener that stops: quickly, with an answer to whoever is still there, and without a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from towpath import server
from towpath.api.answering import application
from towpath.ingest.protocol import BoundedHttp
from towpath.server import Listener, tcp, unix

from .ingest.support import Hub

HEAD = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


class Sent:
    """A request of which no more than this was sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> bytes:
        """What comes until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 30)
        finally:
            self.writer.close()


async def begun(address: str, request: bytes) -> Sent:
    if address.startswith("/"):
        streams = await asyncio.open_unix_connection(address)
    else:
        host, _, port = address.rpartition(":")
        streams = await asyncio.open_connection(host, int(port))
    streams[1].write(request)
    await streams[1].drain()
    return Sent(*streams)


def reached(app: Any) -> tuple[Callable[..., Awaitable[None]], asyncio.Semaphore]:
    """The application, and what is released once for each request that reaches it."""
    arrived = asyncio.Semaphore(0)

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        arrived.release()
        await app(scope, receive, send)

    return counted, arrived


@pytest.mark.spec("D05", "E036")
async def test_a_stop_ends_slow_uploads_with_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BoundedHttp, "upload_s", 0.05)
    monkeypatch.setattr(server, "GRACE_S", 3600)
    hub = Hub()
    app, arrived = reached(hub.ingest)
    listener = Listener(app, tcp("127.0.0.1:0", "server.listen"))
    await listener.start()
    uploads = [await begun(listener.address, HEAD + b'{"batch"') for _ in range(3)]
    for _ in uploads:
        await arrived.acquire()
    await asyncio.wait_for(listener.stop(), 30)
    for upload in uploads:
        assert (await upload.answer()).startswith(
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
        )
    assert [record.getMessage() for record in caplog.records] == []
    assert hub.log.records == []


@pytest.mark.spec("D05")
async def test_a_stop_ends_slow_uploads_of_the_admin_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(BoundedHttp, "upload_s", 0.05)

    async def answer(request: Request) -> Any:
        return await request.json()

    app, arrived = reached(application([("POST", "/v1/batch", answer)]))
    listener = Listener(app, unix(tmp_path / "towpath.sock"))
    await listener.start()
    upload = await begun(listener.address, HEAD + b"{")
    await arrived.acquire()
    await asyncio.wait_for(listener.stop(), 30)
    assert (await upload.answer()).startswith(b"HTTP/1.1 503 ")
    assert capsys.readouterr() == ("", "")


@pytest.mark.spec("D05", "E036")
async def test_a_stop_lets_an_upload_end_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "upload_s", 3600)
    told, shutdown = asyncio.Event(), BoundedHttp.shutdown

    def shut_down(connection: BoundedHttp) -> None:
        shutdown(connection)
        told.set()

    monkeypatch.setattr(BoundedHttp, "shutdown", shut_down)
    hub = Hub()
    app, arrived = reached(hub.ingest)
    listener = Listener(app, tcp("127.0.0.1:0", "server.listen"))
    await listener.start()
    upload = await begun(listener.address, HEAD)
    await arrived.acquire()
    stopping = asyncio.create_task(listener.stop())
    await told.wait()
    upload.writer.write(b" " * 100)
    assert (await upload.answer()).startswith(b"HTTP/1.1 401 ")
    await asyncio.wait_for(stopping, 30)


@pytest.mark.spec("D05", "E036")
async def test_a_stop_answers_what_takes_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "GRACE_S", 0)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    app, arrived = reached(endless)
    listener = Listener(app, unix(tmp_path / "towpath.sock"))
    await listener.start()
    request = await begun(listener.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await arrived.acquire()
    await asyncio.wait_for(listener.stop(), 30)
    answer = await request.answer()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"towpath is stopping, send this again\n")
    assert not [record for record in caplog.records if record.exc_info]
