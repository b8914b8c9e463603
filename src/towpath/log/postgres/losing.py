"""What the log loses by a trim or an erase: the intents, and the ledger's side of both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from ...message import Record
from .. import PARTITION, Key, partition_of
from ..erase import PREFIXES, Person
from ..halves import Erasing, Intent, Trimming
from ..settle import ACCEPTED, DEAD, ERASED, EXTRA, SKIPPED, Letter
from .letters import unpack as unpack_letter
from .rows import GONE, REASON_MAX, Counts, array, count, digest, end, leave, lock, relane, span, strike
from .scope import move_on, scopes_of
from .sessions import Session

PAGE = 500
_encode = msgspec.msgpack.Encoder().encode
_intent: msgspec.msgpack.Decoder[Intent] = msgspec.msgpack.Decoder(Intent)
_record = msgspec.msgpack.Decoder(Record).decode


def intents(session: Session) -> list[tuple[int, Intent]]:
    """All intents, oldest first."""
    rows = session.rows("SELECT id, body FROM intent ORDER BY id")
    return [(number, _intent.decode(body)) for number, body in rows]


def _intend(session: Session, intent: Intent) -> int:
    sql = "INSERT INTO intent (body) VALUES (%s) RETURNING id"
    return int(session.rows(sql, (_encode(intent),))[0][0])


def _strike_out(session: Session, intent: int) -> None:
    session.run("DELETE FROM gone WHERE intent = %s", (intent,))
    session.run("DELETE FROM intent WHERE id = %s", (intent,))


# Trimming


def intend_trim(session: Session, before: float, upto: Mapping[int, int]) -> tuple[int, Trimming]:
    """Write down a trim that stops where some connection stands."""
    move_on(session)
    bounds = dict(upto)
    for _, partition, cursor, _ in lock(session):
        if partition in bounds:
            bounds[partition] = min(bounds[partition], cursor)
    intent = Trimming(before, bounds)
    return _intend(session, intent), intent


def places(session: Session) -> list[tuple[int, int]]:
    """Connection and partition of every place."""
    return session.rows("SELECT connection, partition FROM place ORDER BY 1, 2")


def move_to_past(session: Session, connection: int, partition: int, upto: int) -> None:
    """What a connection's rows up to a position show from now on stands in `past`."""
    move_on(session)
    found = [row for row in lock(session, [connection]) if row[1] == partition]
    if not found:
        return
    range_ = (connection, span(partition)[0], min(upto, found[0][2]))
    count(session, "past", _ended(session, range_) + _records(session, range_))
    session.run("DELETE FROM settlement WHERE connection = %s AND position BETWEEN %s AND %s", range_)
    session.run(
        f"UPDATE parked SET outside = {GONE} WHERE connection = %s AND position BETWEEN %s AND %s",  # noqa: S608
        range_,
    )
    session.run(
        "UPDATE place SET trimmed = greatest(trimmed, %s) WHERE connection = %s AND partition = %s",
        (range_[2], connection, partition),
    )


def _ended(session: Session, range_: tuple[int, int, int]) -> Counts:
    counts: Counts = Counter()
    sql = (
        f"SELECT kind, CASE kind WHEN {SKIPPED} THEN left(reason, {REASON_MAX}) ELSE '' END, count(*), "  # noqa: S608
        "count(*) FILTER (WHERE idx > 0) "
        "FROM settlement WHERE connection = %s AND position BETWEEN %s AND %s GROUP BY 1, 2"
    )
    for kind, reason, ended, extra in session.rows(sql, range_):
        counts[range_[0], partition_of(range_[1]), kind, reason] += ended
        counts[range_[0], partition_of(range_[1]), EXTRA, ""] += extra
    return counts


def _records(session: Session, range_: tuple[int, int, int]) -> Counts:
    """The records that were the connection's: each has a first delivery; erased ones are past already."""
    one = "SELECT count(*) FROM {} WHERE connection = %s AND position BETWEEN %s AND %s AND idx = 0 "
    one += f"AND outside < {GONE}"
    rows = session.rows(f"{one.format('settlement')} UNION ALL {one.format('parked')}", range_ * 2)
    return Counter({(range_[0], partition_of(range_[1]), ACCEPTED, ""): sum(row[0] for row in rows)})


def trimmed(session: Session, intent: int) -> None:
    """Strike the intent of a trim out."""
    move_on(session)
    _strike_out(session, intent)


# Erasing


def intend_erase(session: Session, ids: frozenset[str]) -> int:
    """Write down an erase."""
    move_on(session)
    return _intend(session, Erasing(ids))


def mark(session: Session, intent: int, records: Collection[tuple[int, str]]) -> int:
    """End the deliveries of records that are being erased; how many parked ones there were."""
    move_on(session)
    standing: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
    for connection, partition, cursor, trimmed_to in lock(session):
        standing[connection][partition] = cursor, trimmed_to
    session.run_many(
        "INSERT INTO gone VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        [(intent, position, source) for position, source in records],
    )
    return sum(_mark(session, connection, at, records) for connection, at in standing.items())


def _mark(
    session: Session, connection: int, at: Mapping[int, tuple[int, int]], records: Collection[tuple[int, str]]
) -> int:
    """What the loss of these records means for one connection; marking them twice is marking them once."""
    own = _own(session, connection, at, records)
    sql = "SELECT position, idx FROM parked WHERE connection = %s AND position = ANY(%s::bigint[])"
    waiting: list[Key] = [(row[0], row[1]) for row in session.rows(sql, (connection, array(own)))]
    gone = strike(session, connection, waiting)
    untried = [(position, 0) for position in own if position > at[partition_of(position)][0]]
    counts = end(session, connection, list(gone), ERASED, "", GONE)
    count(session, "counter", counts + end(session, connection, untried, ERASED, "", GONE))
    accepted: Counts = Counter((connection, partition_of(position), ACCEPTED, "") for position in own)
    count(session, "past", accepted)
    leave(session, connection, own, GONE)
    session.run(
        "UPDATE settlement SET reason = '' "
        "WHERE connection = %s AND kind = %s AND position = ANY(%s::bigint[])",
        (connection, DEAD, array(own)),
    )
    return len(gone)


def _own(
    session: Session, connection: int, at: Mapping[int, tuple[int, int]], records: Collection[tuple[int, str]]
) -> list[int]:
    """The positions of the connection's records among these, without those past or marked already."""
    of = scopes_of(session, connection)
    held = [
        position
        for position, source in records
        if (partition := partition_of(position)) in at
        and position > at[partition][1]
        and any(scope.holds(source, position) for scope in of.get(partition, ()))
    ]
    sql = (
        "SELECT position FROM settlement "
        "WHERE connection = %s AND position = ANY(%s::bigint[]) AND idx = 0 AND outside = %s"
    )
    marked = {row[0] for row in session.rows(sql, (connection, array(held), GONE))}
    return sorted(set(held) - marked)


class Copies(Struct, frozen=True):
    """Rows that hold a person: parked keys by connection, ids of letters."""

    parked: Mapping[int, Sequence[Key]]
    dead: Sequence[int]
    exchanges: Sequence[int] = ()
    """Letters of others whose request or answer names the person (a batch's)."""

    def __bool__(self) -> bool:
        return bool(self.parked or self.dead or self.exchanges)


def search(session: Session, person: Person) -> Copies:
    """Find a person's copies. Raises `Damaged`."""
    parked: dict[int, list[Key]] = defaultdict(list)
    sql = (
        "SELECT connection, position, idx, body FROM parked WHERE (connection, position, idx) > (%s, %s, %s) "
        "ORDER BY connection, position, idx LIMIT %s"
    )
    after: tuple[int, ...] = (0, 0, 0)
    while rows := session.rows(sql, (*after, PAGE)):
        for connection, position, index, body in rows:
            plain = session.codec.unpack(position, body)
            if person.perhaps(plain) and person.owns(_record(plain).raw):
                parked[connection].append((position, index))
        after = rows[-1][:3]
    return Copies(parked, *_letters(session, person))


def _letters(session: Session, person: Person) -> tuple[list[int], list[int]]:
    """The person's own letters, and those of others that name the person."""
    found: list[int] = []
    exchanges: list[int] = []
    after = 0
    sql = "SELECT id, position, body FROM dead WHERE id > %s ORDER BY id LIMIT %s"
    while rows := session.rows(sql, (after, PAGE)):
        for number, position, body in rows:
            plain = session.codec.unpack(position, body)
            if person.perhaps(plain):
                letter = unpack_letter(plain)
                if person.owns(letter.record.raw):
                    found.append(number)
                elif letter.exchange is not None and person.named_in(letter.exchange):
                    exchanges.append(number)
        after = rows[-1][0]
    return found, exchanges


def strike_copies(session: Session, copies: Copies) -> int:
    """Delete what was found; how many there were."""
    lock(session, list(copies.parked))
    struck = 0
    for connection, of in copies.parked.items():
        gone = strike(session, connection, of)
        count(session, "counter", end(session, connection, list(gone), ERASED, "", GONE))
        struck += len(gone)
    for letter in copies.exchanges:
        _strike_exchange(session, letter)
    return struck + session.run("DELETE FROM dead WHERE id = ANY(%s::bigint[])", (array(copies.dead),))


def _strike_exchange(session: Session, letter: int) -> None:
    for position, body in session.rows("SELECT position, body FROM dead WHERE id = %s", (letter,)):
        kept = unpack_letter(session.codec.unpack(position, body))
        bare = session.codec.pack(Letter(kept.record))
        session.run("UPDATE dead SET body = %s WHERE id = %s", (bare, letter))


def erased(session: Session, intent: int, ids: frozenset[str]) -> list[tuple[str, str, str]]:
    """Forget the links from and to these ids; what others have in their lanes goes on without a name.

    A lane keeps its name where the person has sent more since: that must not be overtaken by what follows.
    How parked rows are called now: (connection, before, after).
    """
    renamed: list[tuple[str, str, str]] = []
    person = Person(ids)
    lock(session)
    names = {digest(prefix + spelling): prefix + spelling for spelling in ids for prefix in PREFIXES}
    session.run(
        "DELETE FROM link WHERE identifier_key = ANY(%(k)s) OR person_key = ANY(%(k)s)", {"k": list(names)}
    )
    session.run(
        "UPDATE dead SET person = 'erased:' || position WHERE person = ANY(%s)", (list(names.values()),)
    )
    sql = (
        "SELECT p.connection, c.name, position / %s, person, min(position) FROM parked p "
        "JOIN connection c ON c.id = p.connection WHERE person_key = ANY(%s) GROUP BY 1, 2, 3, 4"
    )
    for connection, of, partition, name, position in session.rows(sql, (PARTITION, list(names))):
        if _in_lane(session, connection, partition, name, person):
            continue
        nameless = f"erased:{position}"
        session.run(
            "UPDATE parked SET person = %s, person_key = %s "
            "WHERE connection = %s AND person_key = %s AND position / %s = %s",
            (nameless, digest(nameless), connection, digest(name), PARTITION, partition),
        )
        relane(session, connection, {(partition, name), (partition, nameless)})
        renamed.append((of, name, nameless))
    _strike_out(session, intent)
    return renamed


def _in_lane(session: Session, connection: int, partition: int, lane: str, person: Person) -> bool:
    """Whether parked rows of a lane are the person's own."""
    sql = "SELECT position, body FROM parked WHERE connection = %s AND person_key = %s AND position / %s = %s"
    rows = session.rows(sql, (connection, digest(lane), PARTITION, partition))
    return any(person.owns(_record(session.codec.unpack(position, body)).raw) for position, body in rows)
