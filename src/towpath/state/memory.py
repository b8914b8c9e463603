"""The memory of a connection: a bounded cache in RAM, written behind to state.db by a thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from msgspec import Struct
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from towpath.clock import Clock

from .tables import memory

LARGEST = 50_000


class Entry(Struct, frozen=True, gc=False):
    """A remembered value; `expires_at` is Unix seconds."""

    value: str
    expires_at: float


Changes = Mapping[str, Entry | None]
"""What is to be written: an entry to keep, None to delete."""


class DurableMemory:
    """Implements `destination.Memory`. A crash loses what was kept in the last second: it is a cache."""

    def __init__(
        self, connection: str, entries: Mapping[str, Entry], clock: Clock, wake: threading.Event
    ) -> None:
        self.connection = connection
        self._entries = OrderedDict(entries)
        self._changes: dict[str, Entry | None] = {}
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> str | None:
        """The value, or None when absent or expired; what is found is the last to be evicted."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock.now():
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Keep a value for some seconds; the least recently used goes when there are too many."""
        entry = Entry(value, self._clock.now() + ttl_s)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._change(key, entry)
        if len(self._entries) > LARGEST:
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        """Forget a key."""
        if self._entries.pop(key, None) is not None:
            self._change(key, None)

    def clear(self) -> None:
        """Forget everything, what is still to be written too."""
        with self._lock:
            self._entries.clear()
            self._changes.clear()

    def changes(self) -> Changes:
        """What has changed since the last call."""
        with self._lock:
            taken, self._changes = self._changes, {}
        return taken

    def _change(self, key: str, entry: Entry | None) -> None:
        with self._lock:
            self._changes[key] = entry
        self._wake.set()


class Memories:
    """The memories of all connections, and the thread that writes their changes, at most once a second."""

    def __init__(self, engine: Engine, clock: Clock, pause_s: float = 1.0) -> None:
        self._engine = engine
        self._clock = clock
        self._pause_s = pause_s
        self._open: dict[str, DurableMemory] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def of(self, connection: str) -> DurableMemory:
        """The memory of a connection, read from disk the first time."""
        if connection not in self._open:
            self._open[connection] = DurableMemory(
                connection, self._read(connection), self._clock, self._wake
            )
            self._start()
        return self._open[connection]

    def flush(self) -> None:
        """Write what has changed."""
        with self._writing:
            changes = {opened.connection: opened.changes() for opened in list(self._open.values())}
            if any(changes.values()):
                with self._engine.begin() as connection:
                    for name, changed in changes.items():
                        _write(connection, name, changed)

    def clear(self) -> None:
        """Forget everything on disk and in RAM: for an erasure, since keys may be people's addresses."""
        with self._writing:
            for opened in self._open.values():
                opened.clear()
            with self._engine.begin() as connection:
                connection.execute(delete(memory))

    def close(self) -> None:
        """Stop the thread and write what is left."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _read(self, name: str) -> dict[str, Entry]:
        now = self._clock.now()
        with self._engine.begin() as connection:
            connection.execute(delete(memory).where(memory.c.expires_at <= now))
            rows = connection.execute(
                select(memory.c.key, memory.c.value, memory.c.expires_at)
                .where(memory.c.connection == name)
                .order_by(memory.c.expires_at)
                .limit(LARGEST)
            )
            return {row.key: Entry(row.value, row.expires_at) for row in rows}

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="towpath-memory", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._wake.wait() and not self._stop.is_set():
            self._wake.clear()
            self.flush()
            self._stop.wait(self._pause_s)


def _write(connection: Connection, name: str, changes: Changes) -> None:
    if not changes:
        return
    old = delete(memory).where(memory.c.connection == name, memory.c.key == bindparam("k"))
    connection.execute(old, [{"k": key} for key in changes])
    rows = [
        {"connection": name, "key": key, "value": entry.value, "expires_at": entry.expires_at}
        for key, entry in changes.items()
        if entry is not None
    ]
    if rows:
        connection.execute(insert(memory), rows)
