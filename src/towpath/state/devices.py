"""Devices, what is known of people for pushes, and the outbox: rows of state.db, of one Firebase project.

Plain SQL through SQLAlchemy Core. What decides is in `towpath.push.rules`; nothing here knows the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or

from towpath.device import Address, Device, Platform, Status, Traits

from .engine import reading
from .tables import devices, push_outbox, push_people

CHUNK = 500


class DeviceRow(Struct, frozen=True, gc=False):
    """One device as it is stored, with what `device.Device` does not show.

    `history`: messages came under its own id, as nobody had signed in. `claimed`: somebody has signed in.
    `proven`: its owner was not put there by what only a client says, whose key anybody can copy.
    `changed_at` and `received_at` order what was said of address and owner, `cause` is the message that said
    it last; `told_at` is the time of the report that destinations were told of last.
    """

    id: str
    person: str | None = None
    provisional: bool = False
    history: bool = False
    claimed: bool = False
    proven: bool = False
    kind: str | None = None
    address: str | None = None
    platform: Platform | None = None
    status: Status = "active"
    reason: str = ""
    first_seen: float = 0.0
    registered_at: float = 0.0
    changed_at: float = 0.0
    received_at: float = 0.0
    cause: str = ""
    seen_at: float = 0.0
    told_at: float = 0.0
    removed_at: float = 0.0
    app: str | None = None
    app_version: str | None = None
    locale: str | None = None
    timezone: str | None = None

    @property
    def order(self) -> tuple[float, float]:
        """What is said later than this counts; of two at the same time, what was received later."""
        return self.changed_at, self.received_at

    @property
    def place(self) -> Address | None:
        """Where FCM delivers."""
        return None if self.address is None else Address(self.kind, self.address)  # type: ignore[arg-type]

    @property
    def device(self) -> Device:
        """The device as others see it."""
        return Device(
            id=self.id,
            person=self.person,
            provisional=self.provisional,
            address=self.place,
            platform=self.platform,
            status=self.status,
            reason=self.reason,
            first_seen=self.first_seen,
            registered_at=self.registered_at,
            seen_at=self.seen_at,
            removed_at=self.removed_at,
            traits=Traits(self.app, self.app_version, self.locale, self.timezone),
        )


class PersonRow(Struct, frozen=True, gc=False):
    """What is known of a person. `traits` is JSON; `named` says that the id is a userId.

    `proven` says that this is not only what a client says, whose key anybody can copy.
    """

    person: str
    named: bool = True
    proven: bool = False
    traits: bytes = b"{}"
    at: float = 0.0
    consent: bool | None = None
    consent_at: float = 0.0


class Told(Struct, frozen=True, gc=False):
    """A message for the log: its id and its bytes. `id` orders them, 0 before they are stored."""

    message_id: str
    body: bytes
    id: int = 0

    def concerns(self, person: str) -> bool:
        """Whether it is told of a person."""
        return _of(person) in self.body


class Tally(Struct, frozen=True):
    """How many devices there are: by status, and of the active ones by platform ("" where nobody told).

    `late` are active ones whose token was not reported for some time; `newest` is when any was, in Unix
    seconds, 0 for never.
    """

    statuses: Mapping[str, int]
    platforms: Mapping[str, int]
    provisional: int
    late: int
    newest: float


_COLUMNS = tuple(devices.c[name] for name in DeviceRow.__struct_fields__)
_PERSON_COLUMNS = tuple(push_people.c[name] for name in PersonRow.__struct_fields__)
_NAMES = DeviceRow.__struct_fields__
# The statements of every batch are text: made of expressions, each row costs more than it does on the disk.
_LIST, _PLACES = ", ".join(_NAMES), ", ".join("?" * (len(_NAMES) + 1))
_SELECT = f"SELECT {_LIST} FROM devices WHERE project = ? AND %s IN (%s)"  # noqa: S608 - of constants
_INSERT = f"INSERT INTO devices (project, {_LIST}) VALUES ({_PLACES})"  # noqa: S608 - of constants
_TELL = "INSERT INTO push_outbox (message_id, body) VALUES (?, ?)"


class Devices:
    """The rows of one project. Every method blocks on the disk: call it off the loop."""

    def __init__(self, engine: Engine, project: str) -> None:
        self._engine = engine
        self.project = project
        self._mine = devices.c.project == project

    def begin(self) -> AbstractContextManager[Connection]:
        """Begin one transaction, which nobody else writes in meanwhile."""
        return self._engine.begin()

    # -- reading within a transaction ------------------------------------------------------------------

    def by_id(self, connection: Connection, ids: Collection[str]) -> Iterator[DeviceRow]:
        """Devices by their ids."""
        return self._rows(connection, "id", ids)

    def by_address(self, connection: Connection, places: Collection[Address]) -> Iterator[DeviceRow]:
        """Devices by their addresses."""
        for kind in sorted({place.kind for place in places}):
            values = [place.value for place in places if place.kind == kind]
            yield from self._rows(connection, "kind = ? AND address", values, kind)

    def by_person(self, connection: Connection, persons: Collection[str]) -> Iterator[DeviceRow]:
        """Every device of these persons, removed ones too."""
        return self._rows(connection, "person", persons)

    def counts(self, connection: Connection, persons: Collection[str]) -> dict[str, int]:
        """How many active devices these persons have."""
        person, found = devices.c.person, dict[str, int]()
        for some in _chunks(persons):
            # Not a condition: SQLite would choose the index of the status, which is no choice at all.
            active = func.sum(case((devices.c.status == "active", 1), else_=0))
            query = select(person, active).where(self._mine, person.in_(some)).group_by(person)
            found.update({row[0]: row[1] for row in connection.execute(query)})
        return found

    def people(self, connection: Connection, persons: Collection[str]) -> Iterator[PersonRow]:
        """What is known of these persons."""
        for some in _chunks(persons):
            query = select(*_PERSON_COLUMNS).where(push_people.c.person.in_(some))
            yield from (PersonRow(*row) for row in connection.execute(query).all())

    def _rows(
        self, connection: Connection, column: str, values: Collection[str], *more: str
    ) -> Iterator[DeviceRow]:
        for some in _chunks(values):
            sql = _SELECT % (column, ", ".join("?" * len(some)))
            yield from _read(connection.exec_driver_sql(sql, (self.project, *more, *some)).all())

    # -- writing within a transaction ------------------------------------------------------------------

    def save(self, connection: Connection, changes: Iterable[tuple[DeviceRow | None, DeviceRow]]) -> None:
        """Write devices, each with what it was before (None: it is new)."""
        fresh, released = list[tuple[Any, ...]](), list[str]()
        changed: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for before, after in changes:
            if before is None:
                fresh.append((self.project, *astuple(after)))
                continue
            if before.address is not None and before.place != after.place:
                released.append(before.id)
                before = replace(before, kind=None, address=None)  # so both are written again
            if not (names := _changed(before, after)):
                continue
            row = (*[getattr(after, name) for name in names], self.project, after.id)
            changed.setdefault(names, []).append(row)
        self._release(connection, released)
        for names, rows in changed.items():
            connection.exec_driver_sql(_update(names), rows)
        if fresh:
            connection.exec_driver_sql(_INSERT, fresh)

    def _release(self, connection: Connection, ids: Sequence[str]) -> None:
        """Take addresses off first: two devices may swap theirs, and no two have the same at any time."""
        for some in _chunks(ids):
            them = and_(self._mine, devices.c.id.in_(some))
            connection.execute(update(devices).where(them).values(address=None))

    def adopt(self, project: str) -> int:
        """Take over another project's devices, but for those known here. Returns how many."""
        with self._engine.begin() as connection:
            sql = "UPDATE OR IGNORE devices SET project = ? WHERE project = ?"
            return connection.exec_driver_sql(sql, (self.project, project)).rowcount

    def drop(self, connection: Connection, ids: Collection[str]) -> int:
        """Delete devices. Returns how many."""
        gone = 0
        for some in _chunks(ids):
            gone += connection.execute(delete(devices).where(self._mine, devices.c.id.in_(some))).rowcount
        return gone

    def save_people(self, connection: Connection, rows: Sequence[PersonRow]) -> None:
        """Write what is known of people over what was."""
        if rows:
            fresh = insert_or(push_people)
            names = PersonRow.__struct_fields__
            anew = {name: fresh.excluded[name] for name in names[1:]}
            values = [dict(zip(names, astuple(row), strict=True)) for row in rows]
            connection.execute(fresh.on_conflict_do_update(["person"], set_=anew), values)

    def drop_people(self, connection: Connection, persons: Collection[str]) -> int:
        """Delete what is known of people. Returns of how many."""
        gone = 0
        for some in _chunks(persons):
            gone += connection.execute(delete(push_people).where(push_people.c.person.in_(some))).rowcount
        return gone

    def untell(self, connection: Connection, persons: Collection[str]) -> None:
        """Take messages of these persons out of the outbox: they would bring them back where they go."""
        for person in persons:
            told = func.instr(push_outbox.c.body, literal(_of(person))) > 0
            connection.execute(delete(push_outbox).where(told))

    def tell(self, connection: Connection, told: Sequence[Told]) -> None:
        """Put messages into the outbox, in order."""
        if told:
            connection.exec_driver_sql(_TELL, [(one.message_id, one.body) for one in told])

    # -- reading ---------------------------------------------------------------------------------------

    def reachable(self, persons: Collection[str]) -> list[DeviceRow]:
        """The devices of these persons that can be reached."""
        with reading(self._engine) as connection:
            rows = self._rows(connection, "person", persons)
            return [row for row in rows if row.status == "active" and row.address is not None]

    def page(self, after: str, limit: int, *, audience: bool) -> list[DeviceRow]:
        """Devices in order of ids; for an `audience`, those with owner and address, not removed."""
        query = select(*_COLUMNS).where(self._mine, devices.c.id > after).order_by(devices.c.id).limit(limit)
        if audience:
            there = and_(devices.c.status != "removed", devices.c.address.is_not(None))
            query = query.where(there, devices.c.person.is_not(None))
        with reading(self._engine) as connection:
            return [DeviceRow(*row) for row in connection.execute(query).all()]

    def tally(self, late_before: float) -> Tally:
        """Count everything; it reads every device."""
        own = case((and_(devices.c.provisional, devices.c.status == "active"), 1), else_=0)
        query = select(devices.c.status, devices.c.platform, func.count(), func.sum(own)).where(self._mine)
        statuses, platforms, provisional = dict[str, int](), dict[str, int](), 0
        with reading(self._engine) as connection:
            for status, platform, count, owned in connection.execute(
                query.group_by(devices.c.status, devices.c.platform)
            ):
                statuses[status] = statuses.get(status, 0) + count
                provisional += owned
                if status == "active":
                    platforms[platform or ""] = platforms.get(platform or "", 0) + count
            late = select(func.count()).where(self._active, devices.c.registered_at < late_before)
            return Tally(
                statuses, platforms, provisional, connection.scalar(late) or 0, self.newest(connection)
            )

    @property
    def _active(self) -> ColumnElement[bool]:
        return and_(self._mine, devices.c.status == "active")

    def newest(self, connection: Connection) -> float:
        """When a token was reported last, 0 for never."""
        last = select(func.max(devices.c.registered_at))
        active = connection.scalar(last.where(self._active)) or 0.0
        removed = connection.scalar(last.where(self._mine, devices.c.status == "removed")) or 0.0
        return max(active, removed)

    def stale(self, connection: Connection, before: float, limit: int) -> list[DeviceRow]:
        """Active devices whose token was last reported before a moment, the oldest first."""
        old = select(*_COLUMNS).where(self._active, devices.c.registered_at < before)
        query = old.order_by(devices.c.registered_at).limit(limit)
        return [DeviceRow(*row) for row in connection.execute(query).all()]

    def count_active(self, connection: Connection) -> int:
        """How many devices are in use."""
        return connection.scalar(select(func.count()).where(self._active)) or 0

    def count_stale(self, connection: Connection, before: float) -> int:
        """How many active devices' tokens were last reported before a moment."""
        old = select(func.count()).where(self._active, devices.c.registered_at < before)
        return connection.scalar(old) or 0

    def outlived(self, connection: Connection, before: float, limit: int | None) -> list[str]:
        """Devices without use: removed, disabled, without address or owner; and unchanged since a moment."""
        idle = or_(devices.c.status != "active", devices.c.address.is_(None), devices.c.person.is_(None))
        newest = (devices.c.seen_at, devices.c.changed_at, devices.c.removed_at)
        old = and_(self._mine, idle, *(column < before for column in newest))
        return list(connection.scalars(select(devices.c.id).where(old).limit(limit)))


class OutboxRows:
    """What is to be told, whatever the project. Every method blocks on the disk: call it off the loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, limit: int) -> list[Told]:
        """The oldest messages, in order."""
        row = push_outbox.c
        query = select(row.message_id, row.body, row.id).order_by(row.id).limit(limit)
        with reading(self._engine) as connection:
            return [Told(*found) for found in connection.execute(query)]

    def delete(self, ids: Sequence[int]) -> None:
        """Delete messages, at most some hundreds: they are in the log."""
        with self._engine.begin() as connection:
            connection.execute(delete(push_outbox).where(push_outbox.c.id.in_(ids)))

    def forget(self, ids: Collection[str]) -> int:
        """Delete the messages that name one of these ids. Returns how many."""
        with self._engine.begin() as connection:
            return _forget_told(connection, ids)

    def count(self) -> int:
        """How many wait."""
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(push_outbox)) or 0


def forget(engine: Engine, ids: Collection[str]) -> int:
    """Delete every device, person and waiting message that has one of these ids: an erasure (D10).

    Of every project. Returns how many rows. Old pages stay until the caller truncates the write-ahead log.
    """
    gone = 0
    with engine.begin() as connection:
        for some in _chunks(ids):
            named = or_(devices.c.person.in_(some), devices.c.id.in_(some))
            gone += connection.execute(delete(devices).where(named)).rowcount
            gone += connection.execute(delete(push_people).where(push_people.c.person.in_(some))).rowcount
        gone += _forget_told(connection, ids)
    return gone


def _forget_told(connection: Connection, ids: Collection[str]) -> int:
    gone = 0
    for one in ids:
        told = func.instr(push_outbox.c.body, literal(msgspec.json.encode(one))) > 0
        gone += connection.execute(delete(push_outbox).where(told)).rowcount
    return gone


def _changed(before: DeviceRow, after: DeviceRow) -> tuple[str, ...]:
    """The columns to write: an index is only touched where one of its own is among them."""
    pairs = zip(_NAMES, astuple(before), astuple(after), strict=True)
    return tuple([name for name, old, new in pairs if old != new])


@lru_cache(maxsize=256)
def _update(names: tuple[str, ...]) -> str:
    values = ", ".join(f"{name} = ?" for name in names)
    return f"UPDATE devices SET {values} WHERE project = ? AND id = ?"  # noqa: S608 - of constants


def _of(person: str) -> bytes:
    """How a message names its person."""
    return b'"userId":' + msgspec.json.encode(person)


def _read(rows: Sequence[Any]) -> Iterator[DeviceRow]:
    """Rows as the driver gives them, which has no word for true and false."""
    for row in rows:
        provisional, history, claimed, proven = map(bool, row[2:6])
        yield DeviceRow(row[0], row[1], provisional, history, claimed, proven, *row[6:])


def _chunks(values: Collection[str]) -> Iterator[list[str]]:
    left = iter(values)
    while some := list(islice(left, CHUNK)):
        yield some
