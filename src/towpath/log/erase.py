"""Erasing a person: the records, and every copy a connection holds, by exact ids."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from ..http import Exchange
from ..message import Record, identifier
from .append import insert
from .blob import Codec
from .schema import select
from .scope import leave, load, scopes
from .settle import (
    ACCEPTED,
    DEAD,
    DELIVERED,
    ERASED,
    Counts,
    Letter,
    count,
    has_ended,
    insert_ended,
    relane,
    unpark,
)

STEP_BLOBS = 64
LONG_ID = 6  # a shorter id as a bare word is as likely something else
PREFIXES = ("", "u:", "a:")
"""How an id is spelled as an identifier of links and as the name of a lane."""
_record = msgspec.msgpack.Decoder(Record).decode
_letter = msgspec.msgpack.Decoder(Letter).decode


class _Head(Struct, rename="camel"):
    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None


_head = msgspec.json.Decoder(_Head).decode


class Person:
    """The exact ids of one person, and how to find them in bytes."""

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)
        self._spellings = [spelling.encode() for spelling in self.ids]
        words = [re.escape(id_) for id_ in self.ids if len(id_) >= LONG_ID]
        quoted = [re.escape(json.dumps(id_)) for id_ in self.ids]
        self._named = re.compile("|".join([*quoted, *[rf"(?<!\w){word}(?!\w)" for word in words]])).search
        self._any = any(_numeric(spelling) for spelling in self.ids)  # 1e2 and 100.0 are one id

    def perhaps(self, data: bytes) -> bool:
        """False: certainly not in these bytes, in no spelling JSON allows."""
        return self._any or b"\\" in data or any(spelling in data for spelling in self._spellings)

    def owns(self, raw: bytes) -> bool:
        """Whether this message is the person's; one that cannot be read is when it shows an id."""
        try:
            head = _head(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return any(spelling in raw for spelling in self._spellings) or self._escaped(raw)
        found = (head.user_id, head.anonymous_id, head.previous_id)
        return any(identifier(value) in self.ids for value in found)

    def shows(self, raw: bytes) -> bool:
        """Whether something refused is the person's, or an id is a JSON string in it or part of a path."""
        return self.perhaps(raw) and (
            self.owns(raw)
            or any(re.search(rb'["/]%b["/]' % re.escape(spelling), raw) for spelling in self._spellings)
        )

    def named_in(self, exchange: Exchange) -> bool:
        """Whether a request or its answer names the person: as a JSON string, or a long id as a word."""
        return any(self._named(text) is not None for text in (exchange.url, exchange.body, exchange.answer))

    def _escaped(self, raw: bytes) -> bool:
        text = raw.decode("utf-8", "replace")
        unescaped = text.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
        return any(spelling in unescaped for spelling in self.ids)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Found(Struct, frozen=True):
    """One step of the search: blob position -> record positions, and where to go on (None: done)."""

    records: Mapping[int, frozenset[int]]
    after: int | None


def search(connection: apsw.Connection, codec: Codec, person: Person, after: int, last: int) -> Found:
    """Look through the next `STEP_BLOBS` blobs. Raises `Damaged`."""
    found: dict[int, frozenset[int]] = {}
    sql = "SELECT position, count, body FROM blob WHERE position BETWEEN ? AND ? ORDER BY position LIMIT ?"
    position = None
    for position, span, body in connection.execute(sql, (after + 1, last, STEP_BLOBS)):
        plain = codec.unpack(position, body, span)
        if person.perhaps(plain):
            records = codec.parse(position, span, plain).records()
            if own := frozenset(record.position for record in records if person.owns(record.raw)):
                found[position] = own
    return Found(found, position)


def strike(
    connection: apsw.Connection, codec: Codec, found: Mapping[int, frozenset[int]]
) -> tuple[list[tuple[int, str]], int]:
    """Take these records out of their blobs and their deliveries into `erased`.

    What went, as (position, source), and how many parked copies did.
    """
    records, copies = list[tuple[int, str]](), 0
    counts: Counts = Counter()
    targets = select(connection, "SELECT id, cursor FROM connection")
    for position, gone in found.items():
        blob = load(connection, codec, position)
        if blob is None:
            continue
        removed = [record for record in blob.records() if record.position in gone]
        rest = blob.without(gone)
        insert(connection, rest, rest.sources(), codec.encode(rest))
        records += [(record.position, record.source) for record in removed]
        for target, cursor in targets:
            copies += _settle(connection, target, cursor, removed, counts)
    _count(connection, counts)
    return records, copies


def _settle(
    connection: apsw.Connection, target: int, cursor: int, removed: Sequence[Record], counts: Counts
) -> int:
    """What the loss of these records means for one connection; how many parked copies went."""
    of = scopes(connection, target)
    own = [r.position for r in removed if any(scope.holds(r.source, r.position) for scope in of)]
    counts[target, ACCEPTED, ""] += len(own)
    copies = _strike_parked(connection, target, _parked(connection, target, own), counts)
    untried = [p for p in own if p > cursor and not has_ended(connection, (target, p, 0))]
    _end(connection, target, ((position, 0) for position in untried), counts)
    leave(connection, target, own)
    connection.executemany(
        "UPDATE settlement SET reason = '' WHERE connection = ? AND position = ? AND kind IN (?, ?)",
        [(target, position, DEAD, DELIVERED) for position in own],
    )
    return copies


def _parked(connection: apsw.Connection, target: int, positions: Iterable[int]) -> list[tuple[int, int]]:
    sql = "SELECT position, idx FROM parked WHERE connection = ? AND position = ?"
    return list(connection.executemany(sql, [(target, position) for position in positions]))


def _strike_parked(
    connection: apsw.Connection, target: int, keys: Collection[tuple[int, int]], counts: Counts
) -> int:
    gone = unpark(connection, target, keys)
    _end(connection, target, gone, counts)
    relane(connection, target, {person for person, _ in gone.values()})
    return len(gone)


def _end(connection: apsw.Connection, target: int, keys: Iterable[tuple[int, int]], counts: Counts) -> None:
    ended = insert_ended(connection, [(target, *key, ERASED, "", 0, 0, 0, 0, 1) for key in keys])
    counts[target, ERASED, ""] += len(ended)


def _count(connection: apsw.Connection, counts: Counts) -> None:
    count(connection, "past", Counter({key: n for key, n in counts.items() if key[1] == ACCEPTED}))
    count(connection, "counter", Counter({key: n for key, n in counts.items() if key[1] == ERASED}))


class Copies(Struct, frozen=True):
    """Rows outside the log that hold the person: parked keys by connection, ids of letters and refusals."""

    parked: Mapping[int, Collection[tuple[int, int]]]
    dead: Collection[int]
    refused: Collection[int]
    exchanges: Collection[int] = ()
    """Letters of others whose request or answer names the person (a batch's)."""

    def __bool__(self) -> bool:
        return bool(self.parked or self.dead or self.refused or self.exchanges)


def search_copies(connection: apsw.Connection, codec: Codec, person: Person, last: int) -> Copies:
    """Find the copies made of records up to position `last`. Raises `Damaged`."""
    parked: dict[int, list[tuple[int, int]]] = {}
    sql = "SELECT connection, position, idx, body FROM parked WHERE position <= ?"
    for target, position, index, body in connection.execute(sql, (last,)):
        plain = codec.unpack(position, body)
        if person.perhaps(plain) and person.owns(_record(plain).raw):
            parked.setdefault(target, []).append((position, index))
    dead: list[int] = []
    exchanges: list[int] = []
    for id_, position, body in connection.execute(
        "SELECT id, position, body FROM dead WHERE position <= ?", (last,)
    ):
        plain = codec.unpack(position, body)
        if person.perhaps(plain):
            letter = _letter(plain)
            if person.owns(letter.record.raw):
                dead.append(id_)
            elif letter.exchange is not None and person.named_in(letter.exchange):
                exchanges.append(id_)
    refused = [id_ for id_, raw in connection.execute("SELECT id, raw FROM refused") if person.shows(raw)]
    return Copies(parked, dead, refused, exchanges)


def strike_copies(connection: apsw.Connection, codec: Codec, copies: Copies) -> int:
    """Delete what was found; how many parked and dead copies there were."""
    counts: Counts = Counter()
    gone = 0
    for target, keys in copies.parked.items():
        gone += _strike_parked(connection, target, keys, counts)
    _count(connection, counts)
    letters = connection.executemany(
        "DELETE FROM dead WHERE id = ? RETURNING id", [(i,) for i in copies.dead]
    )
    gone += len(letters.fetchall())
    connection.executemany("DELETE FROM refused WHERE id = ?", [(i,) for i in copies.refused])
    for id_ in copies.exchanges:
        _strike_exchange(connection, codec, id_)
    return gone


def _strike_exchange(connection: apsw.Connection, codec: Codec, letter: int) -> None:
    row = connection.execute("SELECT position, body FROM dead WHERE id = ?", (letter,)).fetchone()
    if row is not None:
        kept = _letter(codec.unpack(*row))
        body = codec.pack(Letter(kept.record))
        connection.execute("UPDATE dead SET body = ? WHERE id = ?", (body, letter)).fetchall()


def unlink(connection: apsw.Connection, codec: Codec, person: Person) -> list[tuple[str, str, str]]:
    """Forget the links from and to these ids; what others have in their lanes goes on without a name.

    A lane keeps its name where the person has sent more since: that must not be overtaken by what follows.
    How parked rows are called now: (connection, before, after).
    """
    renamed: list[tuple[str, str, str]] = []
    for name in [prefix + spelling for spelling in person.ids for prefix in PREFIXES]:
        connection.execute("DELETE FROM link WHERE identifier = ?1 OR person = ?1", (name,))
        connection.execute("UPDATE dead SET person = 'erased:' || position WHERE person = ?", (name,))
        sql = (
            "SELECT connection, name, min(position) FROM parked JOIN connection ON id = connection "
            "WHERE person = ? GROUP BY connection"
        )
        for target, of, position in select(connection, sql, [name]):
            if _in_lane(connection, codec, target, name, person):
                continue
            sql = "UPDATE parked SET person = ? WHERE connection = ? AND person = ?"
            connection.execute(sql, (f"erased:{position}", target, name))
            relane(connection, target, {name, f"erased:{position}"})
            renamed.append((of, name, f"erased:{position}"))
    return renamed


def _in_lane(connection: apsw.Connection, codec: Codec, target: int, lane: str, person: Person) -> bool:
    """Whether parked rows of a lane are the person's own."""
    sql = "SELECT position, body FROM parked WHERE connection = ? AND person = ?"
    return any(
        person.owns(_record(codec.unpack(position, body)).raw)
        for position, body in select(connection, sql, [target, lane])
    )
