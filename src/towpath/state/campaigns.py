"""Push campaigns and the ledger of their sends: which device was told, and what became of it.

A send is pending, in flight from before its request leaves until its answer is written, then accepted, failed
or skipped. What is in flight when a process dies may have been taken, or not: `recover` makes it pending.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or

from .engine import reading
from .tables import devices, push_campaigns, push_members, push_sends, push_singles

CampaignState: TypeAlias = Literal["scheduled", "sending", "paused", "stopped", "cancelled", "done"]


class SendState(IntEnum):
    """Where one send stands."""

    PENDING = 0
    IN_FLIGHT = 1
    ACCEPTED = 2
    FAILED = 3
    SKIPPED = 4


MOVES: Mapping[str, frozenset[str]] = {
    "scheduled": frozenset({"sending", "paused", "stopped", "cancelled"}),
    "sending": frozenset({"paused", "stopped", "cancelled", "done"}),
    "paused": frozenset({"scheduled", "cancelled"}),
    "stopped": frozenset({"scheduled", "cancelled"}),
    "cancelled": frozenset(),
    "done": frozenset(),
}
"""From each state, those a campaign may move to."""

# The statements of every send are text: made of expressions, a row costs three times as much.
_ENLIST = "INSERT INTO push_sends VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_BEGIN = (
    "UPDATE push_sends SET state = 1, attempts = attempts + 1 WHERE campaign = ? AND device = ? AND state = 0"
)
_KEEP = "INSERT INTO push_members VALUES (?, ?) ON CONFLICT DO NOTHING"
_SETTLE = (
    "UPDATE push_sends SET state = ?, code = ?, name = ?, due_at = coalesce(?, due_at), changed_at = ? "
    "WHERE campaign = ? AND device = ?"
)

OVER = frozenset(state for state, after in MOVES.items() if not after)
HOLDS = OVER | {"paused"}
CHUNK = 500
MEMBERS_AT_ONCE = 5000
"""A segment may have a million: while so many are written, nobody else writes."""
ERASED = "erased"
"""Why a send is skipped whose person was erased."""


class Held(Exception):
    """The campaign was paused, or has ended."""


class CampaignRow(Struct, frozen=True):
    """One campaign as it is stored; times are Unix seconds, 0 for what has not happened.

    `cursor` is the last device enlisted, in order of ids, or the last person; None before enlisting began.
    `repeated` counts sends that were in flight when a process died and were made again. `members` is how many
    its segment had; None before all of them were read, and without one.
    """

    id: int
    code: str
    settings: str
    local_at: str
    due_at: float
    state: CampaignState
    reason: str
    cursor: str | None
    enlisted: int
    repeated: int
    created_at: float
    started_at: float
    ended_at: float
    enlisted_at: float = 0.0
    members: int | None = None


class NewCampaign(Struct, frozen=True):
    """A campaign to be made."""

    code: str
    settings: str
    due_at: float
    now: float
    local_at: str = ""


class Enlisted(Struct, frozen=True, gc=False):
    """A device that a campaign goes to, whose owner then was `person`; `skipped` says why not."""

    device: str
    person: str | None
    platform: str
    due_at: float
    skipped: str = ""


class DueSend(Struct, frozen=True, gc=False):
    """A send whose time has come."""

    device: str
    person: str | None
    due_at: float
    first_due_at: float
    attempts: int


class Settled(Struct, frozen=True, gc=False):
    """What became of a send. `code` is FCM's verdict or the reason it was skipped, `name` FCM's own id.

    `due_at` counts for one that is pending again.
    """

    device: str
    state: SendState
    code: str = ""
    name: str = ""
    due_at: float = 0.0


class Single(Struct, frozen=True):
    """A push that an event asked for: its key, whose it is, and the devices to tell."""

    key: str
    person: str
    devices: Sequence[str]


class Stood(Struct, frozen=True):
    """Where a push of an event stands at one device, since when: the first attempt while it is in flight."""

    state: SendState
    since: float


class Count(Struct, frozen=True):
    """How many sends of a campaign stand at a state with a code, on one platform."""

    state: SendState
    code: str
    platform: str
    number: int


class Campaigns:
    """Reads and writes campaigns and their sends. Every method blocks on the disk: call it off the loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- campaigns -------------------------------------------------------------------------------------

    def add(self, new: NewCampaign) -> int:
        """Make a scheduled campaign; its number."""
        row = {
            "code": new.code,
            "settings": new.settings,
            "local_at": new.local_at,
            "due_at": new.due_at,
            "state": "scheduled",
            "reason": "",
            "enlisted": 0,
            "repeated": 0,
            "created_at": new.now,
            "started_at": 0.0,
            "ended_at": 0.0,
            "enlisted_at": 0.0,
        }
        with self._engine.begin() as connection:
            key = connection.execute(insert(push_campaigns).values(row)).inserted_primary_key
            assert key is not None  # noqa: S101 - every engine here returns it
            return int(key[0])

    def find(self, campaign: int) -> CampaignRow | None:
        """One campaign."""
        with reading(self._engine) as connection:
            query = select(push_campaigns).where(push_campaigns.c.id == campaign)
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else CampaignRow(**row)

    def newest(self, limit: int = 20, states: Collection[str] = ()) -> list[CampaignRow]:
        """Campaigns, newest first."""
        query = select(push_campaigns).order_by(push_campaigns.c.id.desc()).limit(limit)
        if states:
            query = query.where(push_campaigns.c.state.in_(states))
        with reading(self._engine) as connection:
            return [CampaignRow(**row) for row in connection.execute(query).mappings()]

    def move(self, campaign: int, to: CampaignState, now: float, reason: str = "") -> bool:
        """Bring a campaign to another state; whether it may go there from where it stands."""
        before = [state for state, after in MOVES.items() if to in after]
        values: dict[str, Any] = {"state": to, "reason": reason}
        values |= {"ended_at": now} if to in OVER else {}
        change = update(push_campaigns).where(
            push_campaigns.c.id == campaign, push_campaigns.c.state.in_(before)
        )
        with self._engine.begin() as connection:
            moved = connection.execute(change.values(values)).rowcount == 1
            if moved and to == "sending":
                first = and_(push_campaigns.c.id == campaign, push_campaigns.c.started_at == 0.0)
                connection.execute(update(push_campaigns).where(first).values(started_at=now))
            if moved and to in OVER:
                _drop_pending(connection, campaign, to, now)
            return moved

    def retry(self, campaign: int, codes: Collection[str], now: float) -> int:
        """Make sends that failed with these codes pending again, as if due now. Returns how many.

        A campaign that was done is scheduled again; of one that is at work, or cancelled, none is taken.
        """
        mine = push_campaigns.c.id == campaign
        idle = select(push_campaigns.c.id).where(
            mine, push_campaigns.c.state.in_(("done", "paused", "stopped"))
        )
        sends = push_sends.c
        failed = and_(sends.campaign.in_(idle), sends.state == SendState.FAILED, sends.code.in_(codes))
        anew = {"state": SendState.PENDING, "due_at": now, "first_due_at": now, "attempts": 0, "code": ""}
        done = and_(mine, push_campaigns.c.state == "done")
        with self._engine.begin() as connection:
            taken = connection.execute(update(push_sends).where(failed).values(anew)).rowcount
            if taken:
                change = update(push_campaigns).where(done)
                connection.execute(change.values(state="scheduled", reason="", ended_at=0.0))
            return taken

    # -- sends -----------------------------------------------------------------------------------------

    def enlist(self, campaign: int, devices: Sequence[Enlisted], cursor: str, now: float) -> None:
        """Add devices to a campaign, and remember how far it came; a device is added once.

        Raises `Held`, with nothing added.
        """
        rows = [
            (
                campaign,
                one.device,
                one.person,
                one.platform,
                int(SendState.SKIPPED if one.skipped else SendState.PENDING),
                one.due_at,
                one.due_at,
                0,
                one.skipped,
                "",
                now,
            )
            for one in devices
        ]
        mine = push_campaigns.c.id == campaign
        with self._engine.begin() as connection:
            _check_not_held(connection, campaign)
            new = connection.exec_driver_sql(_ENLIST, rows).rowcount if rows else 0
            more = push_campaigns.c.enlisted + new
            connection.execute(update(push_campaigns).where(mine).values(cursor=cursor, enlisted=more))

    def end_enlisting(self, campaign: int, now: float) -> None:
        """Note that every device is added: whoever comes later is not meant."""
        mine = update(push_campaigns).where(push_campaigns.c.id == campaign)
        with self._engine.begin() as connection:
            connection.execute(mine.values(enlisted_at=now))
        self.drop_members(campaign)

    def keep_members(self, campaign: int, persons: Sequence[str]) -> None:
        """Add members of the segment a campaign goes to. Raises `Held`."""
        for start in range(0, len(persons), MEMBERS_AT_ONCE):
            rows = [(campaign, person) for person in persons[start : start + MEMBERS_AT_ONCE]]
            with self._engine.begin() as connection:
                _check_not_held(connection, campaign)
                connection.exec_driver_sql(_KEEP, rows)

    def end_members(self, campaign: int) -> int:
        """Note that all members are there, and how many; from now on they stay the same."""
        number = select(func.count()).where(push_members.c.campaign == campaign)
        mine = push_campaigns.c.id == campaign
        with self._engine.begin() as connection:
            found = connection.execute(number).scalar_one()
            connection.execute(update(push_campaigns).where(mine).values(members=found))
            return int(found)

    def members(self, campaign: int, after: str, limit: int) -> list[str]:
        """Members behind one, in order."""
        person = push_members.c.person
        mine = and_(push_members.c.campaign == campaign, person > after)
        with reading(self._engine) as connection:
            return list(connection.scalars(select(person).where(mine).order_by(person).limit(limit)))

    def drop_members(self, campaign: int) -> None:
        """Forget the members of a campaign's segment."""
        mine = select(push_members.c.person).where(push_members.c.campaign == campaign)
        some = push_members.c.person.in_(mine.limit(MEMBERS_AT_ONCE))
        change, gone = delete(push_members).where(push_members.c.campaign == campaign, some), 1
        while gone:
            with self._engine.begin() as connection:
                gone = connection.execute(change).rowcount

    def elsewhere(self, campaign: int, project: str) -> str:
        """Another project whose devices a campaign still goes to and `project` does not know; or empty."""
        here, there, sends = devices.alias(), devices.alias(), push_sends.c
        known = exists().where(here.c.project == project, here.c.id == sends.device)
        with reading(self._engine) as connection:
            for other in _projects(connection):
                theirs = exists().where(there.c.project == other, there.c.id == sends.device)
                query = select(sends.device).where(
                    sends.campaign == campaign, sends.state == SendState.PENDING, theirs, ~known
                )
                if other != project and connection.execute(query.limit(1)).first() is not None:
                    return other
        return ""

    def recover(self, campaign: int) -> int:
        """Make what a process left in flight pending again; how many devices may be told twice."""
        left = and_(push_sends.c.campaign == campaign, push_sends.c.state == SendState.IN_FLIGHT)
        with self._engine.begin() as connection:
            found = connection.execute(update(push_sends).where(left).values(state=SendState.PENDING))
            if found.rowcount:
                more = push_campaigns.c.repeated + found.rowcount
                mine = push_campaigns.c.id == campaign
                connection.execute(update(push_campaigns).where(mine).values(repeated=more))
            return found.rowcount

    def due(self, campaign: int, now: float, limit: int) -> list[DueSend]:
        """Sends whose time has come, longest due first."""
        sends = push_sends.c
        query = (
            select(sends.device, sends.person, sends.due_at, sends.first_due_at, sends.attempts)
            .where(sends.campaign == campaign, sends.state == SendState.PENDING, sends.due_at <= now)
            .order_by(sends.due_at)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [DueSend(*row) for row in connection.execute(query)]

    def begin(self, campaign: int, devices: Sequence[str], others: Sequence[Settled], now: float) -> None:
        """Note, before their requests leave, that sends are in flight; and settle others without sending.

        Raises `Held`, with nothing noted: then none may leave.
        """
        with self._engine.begin() as connection:
            _check_not_held(connection, campaign)
            if devices:
                connection.exec_driver_sql(_BEGIN, [(campaign, device) for device in devices])
            _settle(connection, campaign, others, now)

    def settle(self, campaign: int, settled: Sequence[Settled], now: float) -> None:
        """Write what became of sends; durable when it returns. Of one that is over, none is pending again."""
        with self._engine.begin() as connection:
            _settle(connection, campaign, settled, now)
            if any(one.state is SendState.PENDING for one in settled):
                state = _state(connection, campaign)
                if state in OVER:
                    _drop_pending(connection, campaign, state, now)

    def next_due(self, campaign: int) -> float | None:
        """When the next pending send is due; None when none is pending."""
        waiting = and_(push_sends.c.campaign == campaign, push_sends.c.state == SendState.PENDING)
        with reading(self._engine) as connection:
            found: float | None = connection.execute(
                select(func.min(push_sends.c.due_at)).where(waiting)
            ).scalar()
            return found

    def counts(self, campaign: int) -> list[Count]:
        """How many sends stand where."""
        sends = push_sends.c
        query = (
            select(sends.state, sends.code, sends.platform, func.count())
            .where(sends.campaign == campaign)
            .group_by(sends.state, sends.code, sends.platform)
        )
        with reading(self._engine) as connection:
            return [Count(SendState(row[0]), *row[1:]) for row in connection.execute(query)]

    def failed_with(self, campaign: int, code: str) -> list[str]:
        """The devices whose sends failed with a code."""
        sends = push_sends.c
        failed = and_(sends.campaign == campaign, sends.state == SendState.FAILED, sends.code == code)
        with reading(self._engine) as connection:
            return list(connection.scalars(select(sends.device).where(failed)))

    def sends(self, campaign: int, states: Collection[SendState] = (), limit: int = 100) -> list[Any]:
        """Single sends, by device."""
        query = select(push_sends).where(push_sends.c.campaign == campaign).limit(limit)
        if states:
            query = query.where(push_sends.c.state.in_(states))
        with reading(self._engine) as connection:
            found = connection.execute(query.order_by(push_sends.c.device))
            return [dict(row) for row in found.mappings()]

    # -- pushes of events ------------------------------------------------------------------------------

    def begin_singles(self, wanted: Sequence[Single], now: float) -> list[Mapping[str, Stood]]:
        """Note which devices are about to be told; for each push, where its devices stood before.

        A device that stood nowhere is not in the answer.
        """
        rows = [
            {
                "key": one.key,
                "device": device,
                "person": one.person,
                "state": SendState.IN_FLIGHT,
                "code": "",
                "changed_at": now,
            }
            for one in wanted
            for device in one.devices
        ]
        with self._engine.begin() as connection:
            found = _standing(connection, [one.key for one in wanted])
            if rows:
                connection.execute(insert_or(push_singles).on_conflict_do_nothing(), rows)
        return [found[one.key] for one in wanted]

    def settle_singles(self, settled: Sequence[tuple[str, Sequence[Settled]]], now: float) -> list[None]:
        """Write what became of pushes of events, by key."""
        single = push_singles.c
        change = update(push_singles).where(single.key == bindparam("k"), single.device == bindparam("d"))
        # What is tried again keeps the time of its first attempt: from there it is given up.
        at = case((bindparam("s") == int(SendState.IN_FLIGHT), single.changed_at), else_=now)
        values = {"state": bindparam("s"), "code": bindparam("c"), "changed_at": at}
        rows = [
            {"k": key, "d": one.device, "s": int(one.state), "c": one.code}
            for key, some in settled
            for one in some
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(change.values(values), rows)
        return [None] * len(settled)

    # -- forgetting ------------------------------------------------------------------------------------

    def forget_people(self, ids: Collection[str]) -> None:
        """Forget whom sends went to, of these persons or of devices that have these ids or are theirs.

        An erasure: of a campaign's sends it stays that there was one, and what became of it.
        """
        with self._engine.begin() as connection:
            _forget_in_settings(connection, frozenset(ids))
            for start in range(0, len(ids), CHUNK):
                some = list(ids)[start : start + CHUNK]
                theirs = select(devices.c.id).where(devices.c.person.in_(some))
                ours = select(push_sends.c.device).where(push_sends.c.person.in_(some))
                _move_cursors(connection, [some, theirs, ours])
                _make_nameless(connection, _of(push_sends, some, theirs))
                connection.execute(delete(push_singles).where(_of(push_singles, some, theirs)))
                connection.execute(delete(push_members).where(push_members.c.person.in_(some)))

    def prune(self, before: float) -> int:
        """Forget campaigns that ended, and pushes of events, before a time. Returns how many sends."""
        old = select(push_campaigns.c.id).where(
            push_campaigns.c.state.in_(OVER), push_campaigns.c.ended_at < before
        )
        with self._engine.begin() as connection:
            gone = connection.execute(delete(push_sends).where(push_sends.c.campaign.in_(old))).rowcount
            connection.execute(delete(push_members).where(push_members.c.campaign.in_(old)))
            connection.execute(delete(push_campaigns).where(push_campaigns.c.id.in_(old)))
            aged = delete(push_singles).where(push_singles.c.changed_at < before)
            return gone + connection.execute(aged).rowcount


def _forget_in_settings(connection: Connection, ids: frozenset[str]) -> None:
    """Take ids out of the audiences of campaigns.

    An id becomes "", which is nobody's: an audience without persons would be everybody.
    """
    columns = (push_campaigns.c.id, push_campaigns.c.settings)
    for campaign, settings in connection.execute(select(*columns)).all():
        told = msgspec.json.decode(settings)
        persons = (told.get("audience") or {}).get("persons") or ()
        if ids.isdisjoint(persons):
            continue
        told["audience"]["persons"] = list(dict.fromkeys("" if one in ids else one for one in persons))
        mine = update(push_campaigns).where(push_campaigns.c.id == campaign)
        connection.execute(mine.values(settings=msgspec.json.encode(told).decode()))


def _of(table: Table, ids: Sequence[str], theirs: Any) -> ColumnElement[bool]:
    """What concerns these persons and devices."""
    return or_(table.c.person.in_(ids), table.c.device.in_(ids), table.c.device.in_(theirs))


def _move_cursors(connection: Connection, named: Sequence[Any]) -> None:
    """Take ids out of the places where enlisting goes on: to before them, as a device is enlisted once."""
    place = push_campaigns.c.cursor
    connection.execute(
        update(push_campaigns).where(or_(*[place.in_(some) for some in named])).values(cursor="")
    )


def _make_nameless(connection: Connection, concerned: ColumnElement[bool]) -> None:
    """Let nothing tell whom sends went to; what had not left is skipped."""
    left = push_sends.c.state.in_((SendState.PENDING, SendState.IN_FLIGHT))
    connection.execute(
        update(push_sends)
        .where(concerned)
        .values(
            device="erased-" + func.lower(func.hex(func.randomblob(16))),
            person=None,
            name="",
            state=case((left, int(SendState.SKIPPED)), else_=push_sends.c.state),
            code=case((left, ERASED), else_=push_sends.c.code),
        )
    )


def totals(counts: Sequence[Count]) -> Counter[str]:
    """How many sends stand at each state, by its word."""
    found: Counter[str] = Counter()
    for count in counts:
        found[count.state.name.lower()] += count.number
    return found


def _standing(connection: Connection, keys: Sequence[str]) -> dict[str, dict[str, Stood]]:
    """Where the devices of these pushes stand, by key."""
    found: dict[str, dict[str, Stood]] = {key: {} for key in keys}
    single = push_singles.c
    for start in range(0, len(keys), CHUNK):
        some = single.key.in_(keys[start : start + CHUNK])
        for key, device, state, since in connection.execute(
            select(single.key, single.device, single.state, single.changed_at).where(some)
        ):
            found[key][device] = Stood(SendState(state), since)
    return found


def _projects(connection: Connection) -> Iterator[str]:
    """The projects that devices are of: few, found without reading all devices."""
    last = connection.execute(select(func.min(devices.c.project))).scalar()
    while last is not None:
        yield last
        query = select(func.min(devices.c.project)).where(devices.c.project > last)
        last = connection.execute(query).scalar()


def _check_not_held(connection: Connection, campaign: int) -> None:
    if (state := _state(connection, campaign)) in HOLDS:
        raise Held(f"campaign {campaign} is {state}")


def _state(connection: Connection, campaign: int) -> str:
    """Where a campaign stands; empty for none."""
    query = select(push_campaigns.c.state).where(push_campaigns.c.id == campaign)
    return connection.execute(query).scalar() or ""


def _settle(connection: Connection, campaign: int, settled: Sequence[Settled], now: float) -> None:
    if not settled:
        return
    rows = [
        (int(one.state), one.code, one.name, one.due_at or None, now, campaign, one.device) for one in settled
    ]
    connection.exec_driver_sql(_SETTLE, rows)


def _drop_pending(connection: Connection, campaign: int, why: str, now: float) -> None:
    waits: ColumnElement[bool] = or_(
        push_sends.c.state == SendState.PENDING, push_sends.c.state == SendState.IN_FLIGHT
    )
    change = update(push_sends).where(push_sends.c.campaign == campaign, waits)
    connection.execute(change.values(state=SendState.SKIPPED, code=why, changed_at=now))
