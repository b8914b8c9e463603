"""Serve the sandbox's apps on loopback ports inside the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from towpath.clock import Clock

from .customerio import CustomerIoSimulator
from .exchange import SEVER, reset
from .fcm import FcmSimulator
from .kustomer import KustomerSimulator
from .sink import WebhookSink


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, plus the ASGI extension that resets the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {SEVER: {"sever": self._sever}}

    def _sever(self) -> None:
        reset(self.transport)


@asynccontextmanager
async def serve(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI app on the running loop; yields its URL. Port 0 takes a free one.

    At the end connections are cut and running requests cancelled. Raises `OSError` when the port is taken.
    uvicorn's own `Server` is not used: it takes the process's signal handlers and needs 0.2 s to stop.
    """
    config = uvicorn.Config(
        app, lifespan="off", ws="none", access_log=False, log_config=None, proxy_headers=False
    )
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Protocol(config=config, server_state=state, app_state={}, _loop=loop),
        host,
        port,
        backlog=2048,
    )
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await _end(state)
        await server.wait_closed()


async def _end(state: ServerState) -> None:
    for connection in list(state.connections):
        connection.transport.abort()
    tasks = list(state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Sandbox(Struct, frozen=True):
    """A running sandbox: the apps to look into, and the URLs to point destinations at."""

    kustomer: KustomerSimulator
    kustomer_url: str
    webhook: WebhookSink
    webhook_url: str
    customerio: CustomerIoSimulator
    customerio_url: str
    fcm: FcmSimulator
    fcm_url: str


@asynccontextmanager
async def sandbox(
    *,
    clock: Clock | None = None,
    kustomer_port: int = 0,
    webhook_port: int = 0,
    customerio_port: int = 0,
    fcm_port: int = 0,
    webhook_secrets: tuple[str, ...] = (),
    requests_per_minute: int = 1000,
) -> AsyncIterator[Sandbox]:
    """Run a Kustomer, a Customer.io, an FCM and a webhook receiver on loopback until the block ends.

    They have their control routes; Customer.io's reporting webhooks leave by themselves. FCM speaks plain
    HTTP/1.1 here; `http2.serve_http2` serves it as Google does.
    """
    kustomer = KustomerSimulator(clock=clock, requests_per_minute=requests_per_minute, control=True)
    webhook = WebhookSink(clock=clock, secrets=webhook_secrets, control=True)
    customerio = CustomerIoSimulator(clock=clock, control=True)
    fcm = FcmSimulator(clock=clock, control=True)
    async with (
        serve(kustomer, port=kustomer_port) as kustomer_url,
        serve(webhook, port=webhook_port) as webhook_url,
        serve(customerio, port=customerio_port) as customerio_url,
        serve(fcm, port=fcm_port) as fcm_url,
        customerio.webhooks.sending(),
    ):
        yield Sandbox(kustomer, kustomer_url, webhook, webhook_url, customerio, customerio_url, fcm, fcm_url)
