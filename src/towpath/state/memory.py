"""The memory of a connection: bounded, in RAM, written behind to state.db by a thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select
from sqlalchemy.exc import DatabaseError

from towpath.clock import Clock
from towpath.errors import TowpathError

from .tables import memory

LARGEST = 50_000
LARGEST_LASTING = 200_000
LASTING_S = 2 * 24 * 3600.0
MOST_PENDING = 100_000
OWN = "towpath: "
"""Begins the keys of the program's own, which name nobody: no erase takes them."""

log = structlog.get_logger("towpath.state")


class Entry(Struct, frozen=True, gc=False):
    """A remembered value; `expires_at` is Unix seconds."""

    value: str
    expires_at: float


class Changes(Struct, frozen=True):
    """What is to be written: an entry to keep, None to delete; `anew` replaces all that is on disk."""

    entries: Mapping[str, Entry | None]
    anew: bool = False

    def __bool__(self) -> bool:
        return self.anew or bool(self.entries)


class DurableMemory:
    """Implements `destination.Memory`, for the loop and one writing thread.

    What lasts longer than two days has room of its own (200,000 entries): it may be the only copy of a fact,
    so look-ups remembered for a day (50,000 entries) never push it out. In either room the least recently
    used goes first. A crash loses what was kept in the last second.
    """

    def __init__(
        self, connection: str, entries: Mapping[str, Entry], clock: Clock, wake: threading.Event
    ) -> None:
        self.connection = connection
        self._passing: OrderedDict[str, Entry] = OrderedDict()
        self._lasting: OrderedDict[str, Entry] = OrderedDict()
        self._changes: dict[str, Entry | None] = {}
        self._anew = False
        self._clock = clock
        self._wake = wake
        self._lock = threading.RLock()
        for key, entry in entries.items():
            self._room(entry)[key] = entry

    def __len__(self) -> int:
        return len(self._passing) + len(self._lasting)

    def find(self, key: str) -> str | None:
        """The value, or None when absent or expired; what is found is the last to be evicted."""
        with self._lock:
            room = self._passing if key in self._passing else self._lasting
            if (entry := room.get(key)) is None:
                return None
            if entry.expires_at <= self._clock.now():
                self.drop(key)
                return None
            room.move_to_end(key)
            return entry.value

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Keep a value for some seconds; where its room is full, the least recently used goes."""
        entry = Entry(value, self._clock.now() + ttl_s)
        with self._lock:
            self._passing.pop(key, None)
            self._lasting.pop(key, None)
            self._room(entry)[key] = entry
            self._change(key, entry)
            for room, largest in ((self._passing, LARGEST), (self._lasting, LARGEST_LASTING)):
                while len(room) > largest:
                    self.drop(next(iter(room)))

    def drop(self, key: str) -> None:
        """Forget a key."""
        with self._lock:
            held = self._passing.pop(key, None) or self._lasting.pop(key, None)
            if held is not None:
                self._change(key, None)

    def clear(self) -> None:
        """Forget everything, what is still to be written too."""
        with self._lock:
            for room in (self._passing, self._lasting, self._changes):
                for key in [key for key in room if not key.startswith(OWN)]:
                    del room[key]
            self._anew = False

    def changes(self) -> Changes:
        """What has changed since the last call."""
        with self._lock:
            taken = Changes({**self._lasting, **self._passing} if self._anew else self._changes, self._anew)
            self._changes, self._anew = {}, False
        return taken

    def restore(self, taken: Changes) -> None:
        """Take back changes that could not be written; what has changed since then counts."""
        with self._lock:
            self._anew = self._anew or taken.anew
            self._changes = {**taken.entries, **self._changes}
            self._bound()
        self._wake.set()

    def _room(self, entry: Entry) -> OrderedDict[str, Entry]:
        lasts = entry.expires_at - self._clock.now() > LASTING_S
        return self._lasting if lasts else self._passing

    def _change(self, key: str, entry: Entry | None) -> None:
        self._changes[key] = entry
        self._bound()
        self._wake.set()

    def _bound(self) -> None:
        """Rather than remember ever more changes, write everything once the disk takes it again."""
        if self._anew or len(self._changes) > MOST_PENDING:
            self._changes, self._anew = {}, True


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
        if (found := self._open.get(connection)) is not None:
            return found
        with self._writing:
            entries = self._read(connection)
            found = self._open[connection] = DurableMemory(connection, entries, self._clock, self._wake)
        self._start()
        return found

    def flush(self) -> None:
        """Write what has changed; what cannot be written is kept for the next time."""
        with self._writing:
            taken = [(opened, opened.changes()) for opened in list(self._open.values())]
            try:
                self._write(taken)
            except BaseException:
                for opened, changed in taken:
                    opened.restore(changed)
                raise

    def clear(self) -> None:
        """Forget everything on disk and in RAM: for an erasure, since keys may be people's addresses.

        Safe in any thread. Raises `TowpathError` when another program keeps the write-ahead log from being
        emptied.
        """
        with self._writing:
            with self._engine.begin() as connection:
                connection.execute(delete(memory).where(~memory.c.key.startswith(OWN, autoescape=True)))
            for opened in list(self._open.values()):
                opened.clear()
            self._empty_log()

    def close(self) -> None:
        """Stop the thread and write what is left; where the disk takes no more, that is said."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except DatabaseError as error:
            log.error("memory not written at the stop: what it held is found out anew", reason=_reason(error))

    def _write(self, taken: Sequence[tuple[DurableMemory, Changes]]) -> None:
        if any(changed for _, changed in taken):
            with self._engine.begin() as connection:
                for opened, changed in taken:
                    _write(connection, opened.connection, changed)

    def _empty_log(self) -> None:
        """Move all pages into the file and empty state.db-wal, where deleted rows stay readable."""
        connection = self._engine.raw_connection()  # a checkpoint cannot run inside a transaction
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            busy = any(row[0] for row in cursor.fetchall())
            cursor.close()
        finally:
            connection.close()
        if busy:
            raise TowpathError(
                "another program reads state.db, so what was deleted is still in state.db-wal",
                code="E5103",
                fix="close the other program and erase again",
                data="The rows are deleted; their old pages are not overwritten yet.",
            )

    def _read(self, name: str) -> dict[str, Entry]:
        now = self._clock.now()
        with self._engine.begin() as connection:
            connection.execute(delete(memory).where(memory.c.expires_at <= now))
            rows = connection.execute(
                select(memory.c.key, memory.c.value, memory.c.expires_at)
                .where(memory.c.connection == name)
                .order_by(memory.c.expires_at)
            )
            return {row.key: Entry(row.value, row.expires_at) for row in rows}

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="towpath-memory", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failing = False
        while self._wake.wait() and not self._stop.is_set():
            self._wake.clear()
            try:
                self.flush()
                failing = False
            except Exception as error:  # whatever it is, the next changes must find a writer
                if not failing:
                    log.error("memory not written; it is tried again every second", reason=_reason(error))
                failing = True
            self._stop.wait(self._pause_s)


def _reason(error: Exception) -> str:
    """Why, in SQLite's words: the whole text would show the values, which may be people's addresses."""
    return str(getattr(error, "orig", None) or type(error).__name__)


def _write(connection: Connection, name: str, changes: Changes) -> None:
    if changes.anew:
        connection.execute(delete(memory).where(memory.c.connection == name))
    elif changes.entries:
        old = delete(memory).where(memory.c.connection == name, memory.c.key == bindparam("k"))
        connection.execute(old, [{"k": key} for key in changes.entries])
    rows = [
        {"connection": name, "key": key, "value": entry.value, "expires_at": entry.expires_at}
        for key, entry in changes.entries.items()
        if entry is not None
    ]
    if rows:
        connection.execute(insert(memory), rows)
