"""What sources remember of what they took in: read in turns, changed when a turn is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Engine, delete, func, literal, or_, select

from towpath.clock import Clock

from .tables import known

CHUNK = 500
# The three statements of every turn are text: made of expressions, each key costs more than its row does.
_READ = (
    "SELECT key, value FROM known WHERE source = ? AND (expires_at IS NULL OR expires_at > ?) AND key IN (%s)"
)
_WRITE = (
    "INSERT INTO known (source, key, value, expires_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (source, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
)
_FORGET = "DELETE FROM known WHERE source = ? AND key = ?"
TURN = "towpath: turn"
"""The key under which the number of the last turn stands; sources do not see it."""


class Fact(Struct, frozen=True, gc=False):
    """A remembered value; `expires_at` is Unix seconds, None for good."""

    value: bytes
    expires_at: float | None = None


class KnownFacts:
    """The facts of one source on disk. Every method blocks on the disk: call it off the loop."""

    def __init__(self, engine: Engine, source: str, clock: Clock) -> None:
        self._engine = engine
        self._source = source
        self._clock = clock

    def turn(self) -> Turn:
        """Begin a turn: what it changes is only seen in it until `keep`."""
        return Turn(self)

    def read(self, keys: Collection[str]) -> dict[str, bytes]:
        """The values of these keys, of those that have one."""
        wanted, found = list(keys), dict[str, bytes]()
        now = self._clock.now()
        with self._engine.connect() as connection:
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                sql = _READ % ", ".join("?" * len(some))
                for key, value in connection.exec_driver_sql(sql, (self._source, now, *some)):
                    found[key] = value
        return found

    def keep(self, changes: Mapping[str, Fact | None], turn: int = 0) -> None:
        """Write what a turn changed, and its number, in one transaction; None forgets a key."""
        if changes or turn:
            counted = {TURN: Fact(b"%d" % turn)} if turn else {}
            with self._engine.begin() as connection:
                self._write(connection, {**changes, **counted})

    def turns(self) -> int:
        """The number of the last turn that was kept."""
        return int(self.read((TURN,)).get(TURN, b"0"))

    def recover(self, changes: Mapping[str, Fact | None], turn: int) -> None:
        """Keep a turn's changes unless they are kept already."""
        if turn > self.turns():
            self.keep(changes, turn)

    def view(self) -> View:
        """What is kept, read anew each time."""
        return View(self)

    def _write(self, connection: Connection, changes: Mapping[str, Fact | None]) -> None:
        gone = [(self._source, key) for key, fact in changes.items() if fact is None]
        if gone:
            connection.exec_driver_sql(_FORGET, gone)
        rows = [
            (self._source, key, fact.value, fact.expires_at)
            for key, fact in changes.items()
            if fact is not None
        ]
        if rows:
            connection.exec_driver_sql(_WRITE, rows)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin so, in order, read a page at a time."""
        after = ""
        while page := self._page(prefix, after):
            yield from page
            after = page[-1]

    def _page(self, prefix: str, after: str) -> Sequence[str]:
        mine = (*self._live(), *_beginning(prefix), known.c.key > after, known.c.key != TURN)
        query = select(known.c.key).where(*mine)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(known.c.key).limit(10 * CHUNK)))

    def count(self, prefix: str = "") -> int:
        """How many keys begin so."""
        mine = (*self._live(), *_beginning(prefix), known.c.key != TURN)
        query = select(func.count()).select_from(known).where(*mine)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def expiry(self, ttl_s: float | None) -> float | None:
        """When something kept now for so long is over, in Unix seconds."""
        return None if ttl_s is None else self._clock.now() + ttl_s

    def _live(self) -> tuple[ColumnElement[bool], ...]:
        over = or_(known.c.expires_at.is_(None), known.c.expires_at > self._clock.now())
        return known.c.source == self._source, over


class View:
    """Implements `source.Known` for asking and listening: every look goes to the disk, nothing is changed."""

    def __init__(self, facts: KnownFacts) -> None:
        self.keys = facts.keys
        self.count = facts.count
        self._facts = facts

    def load(self, keys: Collection[str]) -> None:
        """Nothing is read ahead: it may change meanwhile."""

    def find(self, key: str) -> bytes | None:
        """The value as it is kept now."""
        return self._facts.read((key,)).get(key)

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Raise: only a turn changes what is known."""
        raise TypeError("what is known changes in `heard` alone")

    def drop(self, key: str) -> None:
        """Raise: only a turn changes what is known."""
        raise TypeError("what is known changes in `heard` alone")


class Turn:
    """Implements `source.Known` for one turn: reads through to the disk, holds changes back."""

    def __init__(self, facts: KnownFacts) -> None:
        self.changes: dict[str, Fact | None] = {}
        self._facts = facts
        self._read: dict[str, bytes | None] = {}

    def load(self, keys: Collection[str]) -> None:
        """Read the values of these keys at once."""
        fresh = [key for key in dict.fromkeys(keys) if key not in self._read]
        if fresh:
            self._read |= dict.fromkeys(fresh) | self._facts.read(fresh)

    def find(self, key: str) -> bytes | None:
        """The value as this turn left it."""
        if key in self.changes:
            fact = self.changes[key]
            return None if fact is None else fact.value
        if key not in self._read:
            self.load((key,))
        return self._read[key]

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Remember a value once the turn is kept."""
        self.changes[key] = Fact(value, self._facts.expiry(ttl_s))

    def drop(self, key: str) -> None:
        """Forget a key once the turn is kept."""
        self.changes[key] = None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys on disk that begin so."""
        return self._facts.keys(prefix)

    def count(self, prefix: str = "") -> int:
        """How many keys on disk begin so."""
        return self._facts.count(prefix)

    def undo(self, mark: Mapping[str, Fact | None]) -> None:
        """Go back to the changes there were at a mark (a copy of `changes`)."""
        self.changes = dict(mark)


def forget_naming(engine: Engine, texts: Collection[str]) -> int:
    """Forget every fact whose key or value holds one of these texts: an erasure. Returns how many."""
    gone = 0
    with engine.begin() as connection:
        for text in texts:
            part = func.instr(literal("/") + known.c.key + "/", f"/{text}/") > 0
            told = (msgspec.msgpack.encode(text), msgspec.json.encode(text))
            held: Any = or_(part, *(func.instr(known.c.value, one) > 0 for one in told))
            gone += connection.execute(delete(known).where(held)).rowcount
    return gone


def sources(engine: Engine) -> list[str]:
    """The sources that remember anything, in order."""
    with engine.connect() as connection:
        return list(connection.scalars(select(known.c.source).distinct().order_by(known.c.source)))


def forget_source(engine: Engine, source: str) -> int:
    """Forget every fact of a source. Returns how many; the number of its last turn is none."""
    with engine.begin() as connection:
        gone = connection.execute(delete(known).where(known.c.source == source, known.c.key != TURN)).rowcount
        connection.execute(delete(known).where(known.c.source == source))
    return gone


def prune(engine: Engine, now: float) -> int:
    """Delete the facts whose time is over. Returns how many."""
    with engine.begin() as connection:
        return connection.execute(delete(known).where(known.c.expires_at <= now)).rowcount


def _beginning(prefix: str) -> tuple[ColumnElement[bool], ...]:
    """A range, not LIKE: it uses the index, and no character of a prefix is special."""
    return (known.c.key >= prefix, known.c.key < prefix + "\U0010ffff") if prefix else ()
