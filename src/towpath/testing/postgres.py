"""A PostgreSQL server of one's own for tests and benchmarks: made, broken and thrown away here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

READY_S = 30
DEBIAN = Path("/usr/lib/postgresql")
ACCOUNT = "postgres"
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "10s",
    "logging_collector": "off",
}

AFTERWARDS = """
read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
rm -rf "$0"
"""
"""Waits for the end of its input, which also comes when whoever holds it is killed; then clears up."""


def programs() -> Path | None:
    """The directory with `initdb` and `postgres`, newest version first; None where there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


class PostgresServer:
    """A server in a directory of its own, reached by a Unix socket in it. As root it runs as `postgres`.

    `durable=False` never forces anything to disk: right where only processes die, and much faster.
    """

    def __init__(self, *, durable: bool = True) -> None:
        found = programs()
        if found is None:
            raise FileNotFoundError("no PostgreSQL here: install it (Debian: apt-get install postgresql)")
        self._programs = found
        self._settings = SETTINGS | {"fsync": "on" if durable else "off"}
        self._directory = Path(tempfile.mkdtemp(prefix="towpath-pg-"))
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._account = {"user": ACCOUNT, "group": ACCOUNT, "extra_groups": []}
            shutil.chown(self._directory, ACCOUNT, ACCOUNT)
        self._process: subprocess.Popen[bytes] | None = None
        self._afterwards = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", AFTERWARDS, str(self._directory)], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def dsn(self) -> str:
        """How to connect to it."""
        return f"host={self._directory} user={ACCOUNT} dbname=postgres"

    def create(self) -> None:
        """Make the cluster's files."""
        options = ["--username", ACCOUNT, "--encoding", "UTF8", "--locale", "C", "--auth", "trust"]
        command = [str(self._programs / "initdb"), *options, "--pgdata", str(self._data)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._in_directory)  # noqa: S603

    def start(self) -> None:
        """Start, and return once it answers."""
        settings = self._settings | {"unix_socket_directories": str(self._directory)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        log = (self._directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(  # noqa: S603
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdout=log, stderr=log, **self._in_directory,
            )  # fmt: skip
        ready = [str(self._programs / "pg_isready"), "--host", str(self._directory), "--timeout", "1"]
        for _ in range(READY_S * 20):
            if subprocess.run(ready, check=False, stdout=subprocess.DEVNULL).returncode == 0:  # noqa: S603
                return
            if self._process.poll() is not None:
                break
            self._pause()
        raise RuntimeError(f"PostgreSQL does not start: {(self._directory / 'log').read_text()[-2000:]}")

    def _pause(self) -> None:
        try:
            if self._process is not None:
                self._process.wait(0.05)
        except subprocess.TimeoutExpired:
            return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: by SIGINT in good order, by SIGQUIT at once, so that the next start recovers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(READY_S)
            self._process = None

    def crash(self) -> None:
        """Every client is cut off at once; the server comes back and recovers."""
        self.stop(signal.SIGQUIT)
        self.start()

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator; its rows, if it has any."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """Stop, and delete everything."""
        self.stop(signal.SIGQUIT)
        self._afterwards.communicate()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    @property
    def _in_directory(self) -> dict[str, Any]:
        return {"cwd": self._directory, **self._account}
