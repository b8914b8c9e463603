"""The Singer tap for Customer.io, installed from a checkout into an environment of its own.

It is the program behind Stitch's and Qlik's Customer.io tables. It is on no package index: TAP_CUSTOMERIO
names a checkout of singer-io/tap-customerio, or anything else that pip takes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .npm import Unavailable

VARIABLE = "TAP_CUSTOMERIO"
_PATIENCE_S = 300
_ELSEWHERE = """
import os
import requests
import tap_customerio

send = requests.Session.send


def elsewhere(self, request, **more):
    request.url = request.url.replace("https://api.customer.io", os.environ["APP_API"])
    return send(self, request, **more)


requests.Session.send = elsewhere
tap_customerio.main()
"""
"""Runs the tap unchanged; only requests go to another host."""


class Synced(NamedTuple):
    """What a run of the tap came to: its exit code, the records it wrote, and what it complained of."""

    code: int
    records: list[dict[str, Any]]
    errors: str


def installed() -> Path:
    """Return the tap's Python, installed at the first call. Raises `Unavailable`."""
    source = os.environ.get(VARIABLE, "")
    if not source:
        raise Unavailable(f"{VARIABLE} names no checkout of singer-io/tap-customerio")
    place = Path(sys.prefix) / "sdks" / f"tap-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest workers may come at once
        if not (place / "done").exists():
            _install(source, place)
            (place / "done").touch()
    return place / "bin" / "python"


def _install(source: str, place: Path) -> None:
    venv.create(place, with_pip=True)
    command = [str(place / "bin" / "pip"), "install", "--quiet", source]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"pip did not run: {error}") from error
    if done.returncode:
        raise Unavailable(f"pip failed: {done.stderr.strip()[-600:]}")


class Tap:
    """The tap, pointed at an App API at `url`."""

    def __init__(self, python: Path, place: Path, url: str, key: str) -> None:
        self._python = python
        self._place = place
        self._environment = {**os.environ, "APP_API": url}
        self._settings = place / "settings.json"
        self._settings.write_text(json.dumps({"access_token": key, "start_date": "2020-01-01T00:00:00Z"}))

    def discover(self) -> dict[str, Any]:
        """Return its catalog: the streams it may read."""
        ran = self._run("--discover")
        assert ran.returncode == 0, ran.stderr[-2000:]
        catalog: dict[str, Any] = json.loads(ran.stdout)
        return catalog

    def sync(self, catalog: Mapping[str, Any], stream: str) -> Synced:
        """Read one stream whole."""
        chosen = json.loads(json.dumps(catalog))
        for each in chosen["streams"]:
            for entry in each["metadata"]:
                if not entry["breadcrumb"]:
                    entry["metadata"]["selected"] = each["tap_stream_id"] == stream
        file = self._place / f"{stream}.json"
        file.write_text(json.dumps(chosen))
        ran = self._run("--catalog", str(file))
        said = [json.loads(line) for line in ran.stdout.splitlines()]
        return Synced(
            ran.returncode, [each["record"] for each in said if each["type"] == "RECORD"], ran.stderr
        )

    def _run(self, *given: str) -> subprocess.CompletedProcess[str]:
        command = [str(self._python), "-c", _ELSEWHERE, "--config", str(self._settings), *given]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
