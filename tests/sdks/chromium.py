"""Chromium without a window, driven over its DevTools websocket: one process, a clean profile per page."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from .npm import Unavailable

_PATIENCE_S = 30.0
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root; only our own pages are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


def found() -> str:
    """Return Chromium's path, installed first where this is Debian and we are root. Raises `Unavailable`."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if path := next(filter(None, map(shutil.which, names)), None):
        return path
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable("there is no chromium; on Debian: apt-get install chromium")
    for words in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(["apt-get", "-q", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"apt-get {words[0]} failed: {done.stderr.strip()[-300:]}")
    return shutil.which("chromium") or "chromium"


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """Run the browser; gives the address of its websocket. Raises `Unavailable`."""
    command = [found(), *_SWITCHES, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _address(process, profile / "DevToolsActivePort")
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_PATIENCE_S)


def _address(process: subprocess.Popen[bytes], file: Path) -> str:
    """Wait for the file in which Chromium says where it listens: the port, and a path."""
    deadline = time.monotonic() + 2 * _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise Unavailable(f"chromium did not start; exit code {process.poll()}")


class _Wire:
    """The DevTools protocol: numbered commands and their answers; events are noted by their names."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.loaded = asyncio.Event()

    async def read(self) -> None:
        async for frame in self._socket:
            message = frame.json()
            if "id" not in message:
                self.events.append(message)
                if message["method"] == "Page.loadEventFired":
                    self.loaded.set()
            elif not (waiting := self._waiting.pop(message["id"])).done():
                waiting.set_result(message)

    async def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json({**message, "sessionId": session} if session else message)
        async with asyncio.timeout(_PATIENCE_S):
            answer = await self._waiting[number]
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        result: dict[str, Any] = answer["result"]
        return result


class Page:
    """One tab with cookies and storage of its own."""

    def __init__(self, wire: _Wire, context: str, target: str, session: str) -> None:
        self._wire = wire
        self._context = context
        self._target = target
        self._session = session

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self._wire.loaded.clear()
        found = await self._wire.call("Page.navigate", self._session, url=url)
        assert "errorText" not in found, found
        async with asyncio.timeout(_PATIENCE_S):
            await self._wire.loaded.wait()

    async def run(self, script: str, **values: Any) -> Any:
        """Run the body of an async function with these values as its variables; what it returns."""
        names, given = ", ".join(values), json.dumps(list(values.values()))
        expression = f"(async ({names}) => {{ {script} }})(...{given})"
        found = await self._wire.call(
            "Runtime.evaluate",
            self._session,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"].get("exception")
        return found["result"].get("value")

    async def cookies(self) -> Mapping[str, str]:
        found = await self._wire.call("Storage.getCookies", browserContextId=self._context)
        return {cookie["name"]: cookie["value"] for cookie in found["cookies"]}

    async def close(self) -> None:
        """Close the tab, as a person does."""
        await self._wire.call("Target.closeTarget", targetId=self._target)

    def complaints(self) -> list[str]:
        """Return what went wrong in the page: uncaught exceptions, and errors on its console."""
        wrong = [event["params"] for event in self._wire.events if event["method"] in _COMPLAINTS]
        return [str(found) for found in wrong if found.get("type", "error") in ("error", "assert")]


_COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")


@asynccontextmanager
async def page(address: str) -> AsyncIterator[Page]:
    """Open a tab in a profile of its own."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        wire = _Wire(socket)
        reading = asyncio.create_task(wire.read())
        try:
            context = (await wire.call("Target.createBrowserContext"))["browserContextId"]
            target = (await wire.call("Target.createTarget", url="about:blank", browserContextId=context))[
                "targetId"
            ]
            attached = await wire.call("Target.attachToTarget", targetId=target, flatten=True)
            for domain in ("Page", "Runtime"):
                await wire.call(f"{domain}.enable", attached["sessionId"])
            yield Page(wire, context, target, attached["sessionId"])
            await wire.call("Target.disposeBrowserContext", browserContextId=context)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
