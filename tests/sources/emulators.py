"""Google's own emulators on loopback: Firestore's jar where the machine has it, Auth's from npm."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.request import Request, urlopen

from ..sdks import npm
from ..sdks.npm import Unavailable

PROJECT = "demo-towpath"
PATIENCE_S = 90.0
ATTEMPTS = 3
JAR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
PACKAGES = Path(__file__).parent / "emulators"
QUIET = {"FIREBASE_CLI_DISABLE_UPDATE": "1", "NO_UPDATE_NOTIFIER": "1", "CI": "1"}


Command: TypeAlias = Callable[[Sequence[int]], list[str]]


class Ended(Exception):
    """An emulator ended before it was ready, as one does whose port was taken."""


@contextmanager
def firestore(directory: Path, *, functions: str = "") -> Iterator[str]:
    """Run Firestore's emulator; its host and port. It pushes events to `functions`, a host and port.

    Raises `Unavailable`, and says how to have it.
    """
    jar = Path(os.environ.get("FIRESTORE_EMULATOR_JAR", JAR))
    java = shutil.which("java")
    if java is None or not jar.exists():
        raise Unavailable(
            "Firestore's emulator needs Java and its jar: install the package "
            "google-cloud-cli-firestore-emulator, or name the jar in FIRESTORE_EMULATOR_JAR"
        )
    pushing = [f"--functions_emulator={functions}"] if functions else []

    def command(ports: Sequence[int]) -> list[str]:
        options = ["start", "--host=127.0.0.1", f"--port={ports[0]}", *pushing]
        return [java, "-Duser.language=en", "-Xmx512m", "-cp", str(jar), MAIN, *options]

    with _running(directory, "firestore", command, 1) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def auth(directory: Path) -> Iterator[str]:
    """Run the Auth emulator of firebase-tools; its host and port. Raises `Unavailable`."""
    tools = npm.installed(PACKAGES) / "firebase-tools" / "lib" / "bin" / "firebase.js"

    def command(ports: Sequence[int]) -> list[str]:
        names = ("auth", "hub", "logging")
        places = {name: {"host": "127.0.0.1", "port": port} for name, port in zip(names, ports, strict=True)}
        emulators = {**places, "ui": {"enabled": False}, "singleProjectMode": True}
        (directory / "firebase.json").write_text(json.dumps({"emulators": emulators}))
        return [str(npm.NODE), str(tools), "emulators:start", "--only", "auth", "--project", PROJECT]

    with _running(directory, "auth", command, 3, HOME=str(directory), **QUIET) as port:
        yield f"127.0.0.1:{port}"


def push_documents(emulator: str, trigger: str, pattern: str) -> None:
    """Have Firestore's emulator push what is written under a pattern, to the trigger of this name."""
    where = f"http://{emulator}/emulator/v1/projects/{PROJECT}/eventarcTrigger?eventarcTriggerId={trigger}"
    trigger_of = {
        "eventType": "google.cloud.firestore.document.v1.written",
        "database": "(default)",
        "namespace": "(default)",
        "document": {"value": pattern, "matchType": "PATH_PATTERN"},
    }
    _as_owner("POST", where, json.dumps(trigger_of).encode())


def reset(url: str) -> None:
    """Delete everything that an emulator has at this address."""
    _as_owner("DELETE", url)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody holds, all different."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


@contextmanager
def _running(directory: Path, name: str, command: Command, count: int, **env: str) -> Iterator[int]:
    """Run a server on free ports, the first of which answers HTTP; begun anew where a port was taken."""
    for attempt in range(1, ATTEMPTS + 1):
        ports = free_ports(count)
        output = directory / f"{name}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command(ports), cwd=directory, env={**os.environ, **env}, stdout=file, stderr=file
            )
        try:
            _await_answer(process, ports[0])
        except Ended:
            if attempt == ATTEMPTS:
                raise Unavailable(f"the {name} emulator did not start: {_tail(output)}") from None
            continue
        except BaseException:
            _end(process)
            raise
        try:
            yield ports[0]
        finally:
            _end(process)
        return


def _await_answer(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _answers(port):
        if process.poll() is not None:
            raise Ended
        if time.monotonic() > deadline:
            raise Unavailable(f"an emulator said nothing for {PATIENCE_S:.0f} s")
        time.sleep(0.1)


def _as_owner(method: str, url: str, body: bytes | None = None) -> None:
    headers = {"authorization": "Bearer owner", "content-type": "application/json"}
    with urlopen(Request(url, body, headers, method=method), timeout=PATIENCE_S) as answer:
        answer.read()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(output: Path) -> str:
    return output.read_text(errors="replace").strip()[-600:]
