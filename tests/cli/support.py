"""Commands called in this process, as a shell would call them: arguments and input in; code and texts out."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from towpath import cli
from towpath.cli import logs
from towpath.sandbox.serve import Sandbox
from towpath.serve import Serving

from ..app.support import YAML, world


class Said(Struct):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Calls commands in one directory. Nothing is a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, stdin: bytes | str = b"") -> Said:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        self._monkeypatch.setattr(sys, "argv", ["towpath", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err + out
        return Said(int(leaving.value.code or 0), out, err)


class Server(Struct):
    """A hub and a sandbox in a thread of their own."""

    running: Serving
    box: Sandbox
    file: Path
    loop: asyncio.AbstractEventLoop


@contextmanager
def served(directory: Path, text: str = YAML, **values: Any) -> Iterator[Server]:
    """Run a hub beside the test while the block lasts."""
    logs.begin(logging.CRITICAL)
    ready, found = threading.Event(), list[Server]()
    failed: list[BaseException] = []

    async def serve() -> None:
        async with world(directory, text, **values) as (running, box, file):
            stop = asyncio.Event()
            server = Server(running, box, file, asyncio.get_running_loop())
            stops.append(stop)
            found.append(server)
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    stops: list[asyncio.Event] = []
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(30)
    try:
        assert not failed, failed
        yield found[0]
    finally:
        if found:
            found[0].loop.call_soon_threadsafe(stops[0].set)
        thread.join(30)
    assert not failed, failed
