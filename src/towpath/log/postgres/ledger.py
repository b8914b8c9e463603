"""What became of every delivery, kept in PostgreSQL by any number of processes at once."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import psycopg

from ...clock import Clock
from ...errors import TowpathError
from .. import Dead, DeadFilter, Done, DoneState, Key, Lease, Parked, Pause, Progress, Settlement
from ..erase import Person
from ..halves import Change, Intent, Stand, Trimming, View
from ..settle import ERASED, KIND
from . import letters, losing, scope, tally
from .rows import COLUMNS, digest, lock, number_of, read_parked, relane, span
from .schema import upgrade
from .sessions import LedgerLost, Session, Sessions
from .settle import settle

_STATES: Mapping[int, DoneState] = {kind: state for state, kind in KIND.items()}
_LEASE = """
WITH taken AS (
  UPDATE place SET epoch = epoch + CASE owner WHEN %(owner)s THEN 0 ELSE 1 END, owner = %(owner)s,
    expires = %(until)s
  FROM connection c WHERE c.name = %(name)s AND connection = c.id AND partition = %(partition)s
    AND (owner = %(owner)s OR expires <= %(now)s)
  RETURNING epoch
)
SELECT (SELECT epoch FROM taken) FROM place p JOIN connection c ON c.id = p.connection
WHERE c.name = %(name)s AND p.partition = %(partition)s
"""
"""One row for a known place: the epoch, or none while another owner's lease has not run out."""
_DONE = "position, idx, kind, reason, code, attempts, ms, at_ms"


class PostgresLedger:
    """Implements `Ledger`, and `LedgerHalf` for the store of a log elsewhere; partitions are the log's.

    What is written is on disk when a call returns, whatever the server's `synchronous_commit` says. A call
    that cannot reach the server raises `LedgerLost`, an `OSError`, and may be made again; the next one
    connects anew.

    A lease runs out by the `clock` of whoever asks for it. A holder who renews in time keeps it unless the
    other's clock is ahead by what is always left of the lease (the loop renews when a third is gone). When
    the holder cannot renew, a clock that is ahead lets the other begin that much too early, and for so long
    both may send: twice, perhaps, and out of order. What is in the ledger stays right whatever the clocks
    say: `settle` compares epochs under a row lock, and an epoch is never given out twice.
    """

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    @classmethod
    async def begin(
        cls, dsn: str, clock: Clock, schema: str = "towpath", *, inline: bool = False, durable: bool = True
    ) -> PostgresLedger:
        """Connect, and make or upgrade the tables in this schema; the caller closes the ledger.

        `dsn` is a connection string or URL of libpq. For simulations, `inline` needs no thread and
        `durable=False` does not wait for the disk. Raises `TowpathError` when it cannot be used.
        """
        sessions = Sessions(dsn, schema, inline=inline, durable=durable)
        try:
            await sessions.write(upgrade)
        except BaseException as error:
            await sessions.close()
            if isinstance(error, LedgerLost | psycopg.Error):
                raise _unusable(error) from error
            raise
        return cls(sessions, clock)

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        await self._sessions.close()

    @property
    def short(self) -> bool:
        """Never: the room of the server's disk is its operator's."""
        return False

    # Leases

    async def lease(self, connection: str, owner: str, ttl_s: float, partition: int = 0) -> Lease | None:
        """Take or renew the lease; a renewal keeps its epoch. None while another owner's has not run out."""
        now = self._clock.now()
        values = {
            "name": connection,
            "partition": partition,
            "owner": owner,
            "now": now,
            "until": now + ttl_s,
        }
        found = await self._sessions.once(_LEASE, values)
        if not found:
            raise KeyError(connection)
        epoch = found[0][0]
        return None if epoch is None else Lease(connection, partition, owner, epoch)

    async def release(self, lease: Lease) -> None:
        """Give the lease back."""
        await self._sessions.once(
            "UPDATE place SET expires = 0, owner = '' FROM connection c WHERE c.name = %s "
            "AND connection = c.id AND partition = %s AND epoch = %s AND owner = %s",
            (lease.connection, lease.partition, lease.epoch, lease.owner),
        )

    async def progress(self, lease: Lease) -> Progress:
        """Where to go on."""
        return await self._sessions.read(lambda session: _progress(session, lease))

    async def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Apply one settlement, durably; False when the lease is no longer the newest.

        Raises `LedgerLost` or `LogFull`; settling the same again is right then, also when it was applied.
        """
        return await self._sessions.write(lambda session: settle(session, lease, settlement))

    # Parked deliveries

    async def parked(self, lease: Lease, person: str, limit: int = 64) -> Sequence[Parked]:
        """A person's parked deliveries in this partition, in order of key. Raises `Damaged`."""
        sql = (
            f"SELECT {COLUMNS} FROM parked "  # noqa: S608
            "WHERE connection = (SELECT id FROM connection WHERE name = %s) AND person_key = %s "
            "AND position BETWEEN %s AND %s ORDER BY position, idx LIMIT %s"
        )
        values = (lease.connection, digest(person), *span(lease.partition), limit)
        return await self._sessions.use(
            lambda session: [read_parked(session, row) for row in session.once(sql, values)]
        )

    async def due(self, lease: Lease, now: float, limit: int = 256) -> Sequence[tuple[str, float]]:
        """Persons whose first parked delivery is due, soonest first."""
        sql = (
            "SELECT person, due FROM lane JOIN connection c ON c.id = connection "
            "WHERE c.name = %s AND partition = %s AND due <= %s ORDER BY due LIMIT %s"
        )
        return await self._sessions.once(sql, (lease.connection, lease.partition, now, limit))

    async def hurry(self, connection: str, now: float, hold: str | None = None) -> int:
        """Make waiting parked rows due now; how many."""
        return await self._sessions.write(lambda session: _hurry(session, connection, now, hold))

    async def waiting(
        self, connection: str | None, limit: int, position: int | None = None
    ) -> Sequence[tuple[str, Parked]]:
        """Parked deliveries, soonest first, optionally of one position. Raises `Damaged`."""
        conditions = {"name": connection, "position": position}
        given = [f"{column} = %s" for column, value in conditions.items() if value is not None]
        sql = (
            f"SELECT name, {COLUMNS} FROM parked JOIN connection c ON c.id = connection "  # noqa: S608
            f"WHERE {' AND '.join(given) or 'true'} ORDER BY due, position, idx LIMIT %s"
        )
        values = (*[value for value in conditions.values() if value is not None], limit)
        return await self._sessions.read(
            lambda session: [(row[0], read_parked(session, row[1:])) for row in session.rows(sql, values)]
        )

    # Dead letters

    async def dead(self, where: DeadFilter) -> Sequence[Dead]:
        """Dead letters, newest first. Raises `Damaged`."""
        return await self._sessions.read(lambda session: letters.read(session, where))

    async def replay(self, where: DeadFilter, now: float) -> Mapping[str, int]:
        """All dead letters of the filter become parked and due, earlier ones no later than later ones."""
        ids = await self._sessions.read(lambda session: letters.chosen(session, where))
        replayed = Counter[str]()
        for first in range(0, len(ids), letters.STEP_LETTERS):
            step = ids[first : first + letters.STEP_LETTERS]
            replayed += await self._sessions.write(partial(letters.replay, ids=step, now=now))
        return dict(replayed)

    async def drop(self, where: DeadFilter) -> int:
        """Delete all letters of the filter for good; how many."""
        return await self._sessions.write(lambda session: letters.drop(session, where))

    async def prune(self, before: float) -> int:
        """Delete dead letters older than this; how many."""
        return await self._sessions.write(lambda session: letters.prune(session, before))

    # What was

    async def deliveries(
        self, connection: str | None, position: int | None, limit: int
    ) -> Sequence[tuple[str, Done]]:
        """Ended deliveries of the highest positions first."""
        return await self._sessions.read(lambda session: _deliveries(session, connection, position, limit))

    # Pauses, suppressed ids, links

    async def pause(self, pause: Pause) -> None:
        """Remember that a connection stands still."""
        await self._sessions.once(
            "INSERT INTO pause VALUES (%s, %s, %s, %s) ON CONFLICT (connection, capability) "
            "DO UPDATE SET reason = excluded.reason, since = excluded.since",
            (pause.connection, pause.capability, pause.reason, pause.since),
        )

    async def resume(self, connection: str, capability: str = "*") -> None:
        """Forget a pause."""
        sql = "DELETE FROM pause WHERE connection = %s AND capability = %s"
        await self._sessions.once(sql, (connection, capability))

    async def pauses(self) -> Sequence[Pause]:
        """All pauses in force."""
        return [
            Pause(*row)
            for row in await self._sessions.once("SELECT * FROM pause ORDER BY connection, capability")
        ]

    async def suppress(self, ids: Collection[str]) -> None:
        """Add exact ids to the suppressed ones."""
        rows = sorted((digest(one), one) for one in ids)
        sql = "INSERT INTO suppressed VALUES (%s, %s) ON CONFLICT DO NOTHING"
        await self._sessions.write(lambda session: session.run_many(sql, rows))

    async def unsuppress(self, ids: Collection[str]) -> None:
        """Take ids off."""
        await self._sessions.once(
            "DELETE FROM suppressed WHERE id_key = ANY(%s)", ([digest(one) for one in ids],)
        )

    async def suppressed(self) -> frozenset[str]:
        """All suppressed ids."""
        return frozenset(row[0] for row in await self._sessions.once("SELECT id FROM suppressed"))

    async def link(self, identifier: str, position: int, person: str) -> None:
        """Remember whose an identifier is from a position on; what is known of a position stays."""
        await self._sessions.once(
            "INSERT INTO link VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (digest(identifier), position, digest(person), identifier, person),
        )

    async def links(self, identifier: str) -> Sequence[tuple[int, str]]:
        """(position, person) of an identifier, ascending."""
        sql = "SELECT position, person FROM link WHERE identifier_key = %s ORDER BY position"
        return await self._sessions.once(sql, (digest(identifier),))

    async def links_of(self, identifiers: Collection[str]) -> Mapping[str, Sequence[tuple[int, str]]]:
        """The links of those of these identifiers that have any, each as `links` gives them."""
        names = {digest(identifier): identifier for identifier in identifiers}
        sql = (
            "SELECT identifier_key, position, person FROM link WHERE identifier_key = ANY(%s) "
            "ORDER BY identifier_key, position"
        )
        found: dict[str, list[tuple[int, str]]] = {}
        for key, position, person in await self._sessions.once(sql, (list(names),)) if names else ():
            found.setdefault(names[key], []).append((position, person))
        return found

    async def linked(self, person: str, before: int) -> int:
        """How many links to this person were made before a position."""
        sql = "SELECT count(*) FROM link WHERE person_key = %s AND position < %s"
        return int((await self._sessions.once(sql, (digest(person), before)))[0][0])

    async def identifiers(self, person: str, before: int, limit: int) -> int:
        """How many ids lead to this person by links made before a position; `limit` at most."""
        sql = (
            "WITH RECURSIVE own(id) AS (VALUES (%s::uuid) UNION "
            "SELECT identifier_key FROM link JOIN own ON person_key = own.id WHERE position < %s) "
            "SELECT count(*) FROM (SELECT FROM own LIMIT %s) AS found"
        )
        return int((await self._sessions.once(sql, (digest(person), before, limit)))[0][0])

    # For the store of a log elsewhere; see `LedgerHalf`

    async def stand(self, connection: str) -> Stand:
        """What is known of a connection."""
        return await self._sessions.read(lambda session: scope.stand(session, connection))

    async def change(self, connection: str, stand: Stand, change: Change) -> bool:
        """Make a connection known, or change it; False, and no change, when it stands otherwise by now."""
        return await self._sessions.write(lambda session: scope.change(session, connection, stand, change))

    async def disconnect(self, connection: str) -> bool:
        """Forget a connection and everything that became of its deliveries; False when it is unknown."""
        return await self._sessions.write(lambda session: scope.disconnect(session, connection))

    async def view(self, *, recount: bool) -> View:
        """Everything the balance needs, of one instant."""
        return await self._sessions.read(lambda session: tally.view(session, recount=recount))

    async def generation(self) -> int:
        """The generation now."""
        return int((await self._sessions.once(tally.GENERATION))[0][0])

    async def shown(self, below: Mapping[int, int]) -> Mapping[str, int]:
        """Per connection: first deliveries below these positions whose record is counted nowhere else."""
        return await self._sessions.read(lambda session: tally.shown(session, below))

    async def intents(self) -> Sequence[tuple[int, Intent]]:
        """What has been begun and not struck out, oldest first."""
        return await self._sessions.read(losing.intents)

    async def intend_trim(self, before: float, upto: Mapping[int, int]) -> tuple[int, Trimming]:
        """Write down a trim; in each partition no further than every connection's cursor."""
        return await self._sessions.write(lambda session: losing.intend_trim(session, before, upto))

    async def intend_erase(self, ids: frozenset[str]) -> int:
        """Write down an erase."""
        return await self._sessions.write(lambda session: losing.intend_erase(session, ids))

    async def trimmed(self, intent: int, upto: Mapping[int, int]) -> None:
        """Rows up to these positions move to the past, one place at a time; then the intent is struck."""
        for connection, partition in await self._sessions.read(losing.places):
            if partition in upto:
                move = partial(losing.move_to_past, connection=connection, partition=partition)
                await self._sessions.write(partial(move, upto=upto[partition]))
        await self._sessions.write(lambda session: losing.trimmed(session, intent))

    async def mark(self, intent: int, records: Collection[tuple[int, str]]) -> int:
        """These records (position, source) are being erased: their deliveries end. How many were parked."""
        if not records:
            return 0
        return await self._sessions.write(lambda session: losing.mark(session, intent, records))

    async def strike(self, ids: frozenset[str]) -> int:
        """Delete the parked and dead copies whose message is of one of these ids; how many."""
        person, struck = Person(ids), 0
        while found := await self._sessions.read(lambda session: losing.search(session, person)):
            struck += await self._sessions.write(partial(losing.strike_copies, copies=found))
        return struck

    async def erased(self, intent: int, ids: frozenset[str]) -> Sequence[tuple[str, str, str]]:
        """The log has erased them: their links go too, and the intent is struck out.

        How parked rows are called now: (connection, before, after).
        """
        return await self._sessions.write(lambda session: losing.erased(session, intent, ids))


def _unusable(error: Exception) -> TowpathError:
    return TowpathError(
        "the ledger's PostgreSQL cannot be used",
        code="E5004",
        why=str(error).strip(),
        fix="Check that the server runs, and the address, user and rights in the connection string.",
        data="Nothing was changed.",
    )


def _number(session: Session, connection: str) -> int:
    """The number of a connection. Raises `KeyError` for one that was never connected."""
    number = number_of(session, connection)
    if number is None:
        raise KeyError(connection)
    return number


def _progress(session: Session, lease: Lease) -> Progress:
    place = (_number(session, lease.connection), lease.partition)
    ((cursor,),) = session.rows("SELECT cursor FROM place WHERE connection = %s AND partition = %s", place)
    waiting = session.rows("SELECT person, due FROM lane WHERE connection = %s AND partition = %s", place)

    def keys(table: str) -> frozenset[Key]:
        sql = f"SELECT position, idx FROM {table} WHERE connection = %s AND position > %s AND position <= %s"  # noqa: S608
        rows = session.rows(sql, (place[0], cursor, span(lease.partition)[1]))
        return frozenset((position, index) for position, index in rows)

    return Progress(cursor, keys("settlement"), keys("parked"), dict(waiting))


def _hurry(session: Session, name: str, now: float, hold: str | None) -> int:
    connection = number_of(session, name)
    if connection is None:
        return 0
    lock(session, [connection])
    held = "AND hold = %s AND hold != ''" if hold is not None else ""
    found = session.rows(
        f"UPDATE parked SET due = %s WHERE connection = %s AND due > %s {held} "  # noqa: S608
        "RETURNING position >> 48, person",
        (now, connection, now, *([] if hold is None else [hold])),
    )
    relane(session, connection, {(partition, person) for partition, person in found})
    return len(found)


def _deliveries(
    session: Session, connection: str | None, position: int | None, limit: int
) -> list[tuple[str, Done]]:
    which = "" if position is None else "AND position = %s"
    sql = (
        f"SELECT {_DONE} FROM settlement WHERE connection = %s AND kind != {ERASED} {which} "  # noqa: S608
        "ORDER BY position DESC, idx DESC LIMIT %s"
    )
    values = (limit,) if position is None else (position, limit)
    names = session.rows(
        "SELECT id, name FROM connection WHERE %s::text IS NULL OR name = %s", (connection, connection)
    )
    found = [[(name, _done(*row)) for row in session.rows(sql, (number, *values))] for number, name in names]
    newest = heapq.merge(*found, key=lambda pair: (-pair[1].position, -pair[1].index))
    return list(newest)[:limit]


def _done(
    position: int, index: int, kind: int, reason: str, code: int, attempts: int, ms: int, at_ms: int
) -> Done:
    return Done(position, index, _STATES[kind], reason, code, attempts, ms, at_ms / 1000)
