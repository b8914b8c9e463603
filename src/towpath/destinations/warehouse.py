"""Warehouse: events, pages and profiles in tables, as users of Segment and RudderStack know them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
from msgspec import Struct
from pydantic import Field, field_validator, model_validator

from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope, Settings
from towpath.errors import TowpathError
from towpath.http import Undelivered
from towpath.message import KINDS, Message, identifier
from towpath.outcome import Delivered, Rejected, Retry, Skipped
from towpath.warehouse import Contract, Load, Lost, Page, Refusal, Warehouse
from towpath.warehouse.faults import UNFORESEEN, unforeseen
from towpath.warehouse.port import PORT
from towpath.warehouse.settings import WarehouseAccount

from ._warehouse_columns import Columns
from ._warehouse_flat import Privacy
from ._warehouse_layout import PERSONS, STANDARD, USERS, Layout, Part, Row, without_own

BATCH = 5000
BATCH_BYTES = 4_000_000
STATE = "events/"
RUN = "events"
NEEDED = frozenset({"id", "received_at", "timestamp"})
Place: TypeAlias = tuple[str, str]
Taken: TypeAlias = tuple[Payload, list[str]]
"""A payload that is written, and what there is to report of it."""


class EventTables(Settings):
    """Which tables there are."""

    tracks: bool = Field(default=True, description="Every track event, without its properties.")
    per_event: bool = Field(default=True, description="One table per event name, with its properties.")
    identifies: bool = Field(default=True, description="Every identify call, with its traits.")
    users: bool = Field(default=True, description="One row per userId with the latest traits.")
    pages: bool = Field(default=True, description="Every page call.")
    screens: bool = Field(default=True, description="Every screen call.")
    groups: bool = Field(default=True, description="Every group call.")
    aliases: bool = Field(default=True, description="Every alias call.")
    deliveries: bool = Field(
        default=True,
        description="What Customer.io's reporting webhooks tell of deliveries, also as rows of "
        "`message_events`, which the ready views of a replication read.",
    )

    @property
    def parts(self) -> frozenset[Part]:
        """Those that are on."""
        return frozenset(
            part for part in STANDARD if getattr(self, "per_event" if part == "events" else part)
        )


class WarehouseSettings(WarehouseAccount):
    """Which tables, and what they hold."""

    tables: EventTables = Field(default=EventTables(), description="Which tables there are; all by default.")
    prefix: str = Field(
        default="",
        max_length=20,
        pattern=r"^([a-z][a-z0-9_]*)?$",
        description="What every table's name begins with, for a schema that holds others too.",
    )
    contract: Contract = Field(
        default="evolve",
        description="A new property becomes a column (evolve), its message a dead letter (freeze), or it is "
        "left out (discard).",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Columns to leave out, in every table, with all below them: `email`, `context_ip`.",
    )
    hash: tuple[str, ...] = Field(
        default=(),
        description="Columns, with all below them, that hold a hash by `hash_key` instead of the value.",
    )
    max_columns: int = Field(
        default=500, ge=20, le=1500, description="Columns a table gets at most; the rest is kept in `_extra`."
    )
    max_tables: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Tables of one event there may be; events beyond are kept in `tracks`, with their "
        "properties.",
    )
    levels: int = Field(
        default=3, ge=1, le=10, description="How deep objects become columns; what is deeper stays JSON."
    )
    skip_events: tuple[str, ...] = Field(default=(), description="Names of events to leave out.")

    @field_validator("exclude")
    @classmethod
    def _without_keys(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if found := sorted(NEEDED.intersection(names)):
            raise ValueError(
                f"{', '.join(found)} cannot be left out: rows are told apart and ordered by them"
            )
        return names

    @model_validator(mode="after")
    def _with_a_key(self) -> WarehouseSettings:
        if self.hash and self.hash_key is None:
            raise ValueError("hash needs hash_key: the secret that the hashes are made with")
        return self

    @property
    def layout(self) -> Layout:
        """What messages become."""
        return Layout(
            self.tables.parts,
            self.levels,
            self.prefix,
            Privacy(frozenset(self.exclude), frozenset(self.hash)),
        )


class Erase(Struct, frozen=True):
    """Persons to remove."""

    ids: tuple[str, ...]


class EventsToWarehouse(Destination[WarehouseSettings]):
    """Asks the port `warehouse`, at which replications load too.

    A row's key is the messageId, and its workspace the source: what is delivered again changes nothing.
    """

    name: ClassVar[str] = "warehouse"
    Settings: ClassVar[type[WarehouseSettings]] = WarehouseSettings
    ports: ClassVar[tuple[str, ...]] = (PORT,)

    def __init__(self, settings: WarehouseSettings) -> None:
        super().__init__(settings)
        self._layout = settings.layout
        self._columns: Columns | None = None

    def limits(self) -> Limits:
        """Large batches, one after another: a warehouse takes thousands of rows as easily as one."""
        return Limits(batch=BATCH, batch_bytes=BATCH_BYTES, in_flight=1, ordered_batch=True)

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """The rows that a message becomes, table by table; a delete erases its person."""
        if message.type not in KINDS:
            return Skipped("unsupported", f"{message.type!r} is not a call of the Segment spec")
        if message.type == "delete":
            return _erase(message)
        if message.type == "track" and identifier(message.event) in self.settings.skip_events:
            return Skipped("filtered", f"skip_events names {message.event!r}")
        if not message.message_id:
            return Rejected("the message has no messageId, by which its rows are told apart")
        rows = self._layout.rows(message)
        if not rows:
            return Skipped("filtered", f"the tables of {message.type} calls are off")
        shown = [Call("INSERT", f"towpath:warehouse/{row.table}", row.shown()) for row in rows]
        return Payload(shown, data=rows)

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered:
        """Write or erase what one message says."""
        (ended,) = await self.deliver_batch([payload], scope)
        if isinstance(ended, Rejected):
            raise Undelivered(ended)
        if isinstance(ended, Exception):
            raise ended
        return ended if isinstance(ended, Delivered) else Delivered()

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        """Write payloads table by table, in as few parts as deletes allow; what fails is tried again.

        When the first part of a batch is in and the next fails, the rest counts as not sent.
        """
        ended: list[Ended] = [None] * len(payloads)
        for erases, places in _parts(payloads):
            part = [payloads[place] for place in places]
            try:
                warehouse: Warehouse = scope.ports[PORT].warehouse(self.settings)
                came = await (_erased(part, warehouse) if erases else self._sift(part, warehouse))
            except BaseException as error:  # also of one that is cut off, what it learnt may not be in
                self._columns = None
                if not isinstance(error, Exception):
                    raise
                if any(one is not None for one in ended):
                    return ended
                if isinstance(error, Lost | TowpathError):
                    raise Undelivered(Retry(scope.http.redacted(_said(error)))) from error
                raise
            for place, end in zip(places, came, strict=True):
                ended[place] = end
        return ended

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Open the target, and say what it is."""
        name = f"the warehouse opens ({self.settings.target.about})"
        try:
            found = await scope.ports[PORT].warehouse(self.settings).state(STATE)
            kept = {key.removeprefix(STATE): said for key, said in found.items()}
        except Undelivered as error:
            return [Check.failed(name, error)]
        except (Lost, TowpathError) as error:
            said = scope.http.redacted(_said(error))
            return [Check(name, ok=False, detail=said, reached=not isinstance(error, Lost))]
        return [Check(name, ok=True, detail=f"{len(_of_tables(kept))} tables of events")]

    async def _sift(self, payloads: Sequence[Payload], warehouse: Warehouse) -> list[Ended]:
        """Write payloads; where the loader meets what it does not know, find the one at fault.

        Whoever it concerns keeps the rest of his order for the next time.
        """
        try:
            return await self._write(payloads, warehouse)
        except TowpathError as error:
            self._columns = None
            if error.code != UNFORESEEN:
                raise
            if len(payloads) == 1:
                return [error]
        middle = len(payloads) // 2
        first = await self._sift(payloads[:middle], warehouse)
        held = {
            payload.person
            for payload, end in zip(payloads, first, strict=False)
            if payload.person and (end is None or isinstance(end, Exception))
        }
        later = [payload for payload in payloads[middle:] if payload.person not in held]
        second = iter(await self._sift(later, warehouse) if later else ())
        return [*first, *(None if one.person in held else next(second) for one in payloads[middle:])]

    async def _write(self, payloads: Sequence[Payload], warehouse: Warehouse) -> list[Ended]:
        columns = self._columns
        if columns is None:
            kept = await warehouse.state(STATE)
            known = {key.removeprefix(STATE): said for key, said in kept.items()}
            columns = self._columns = Columns(_of_tables(known), self.settings)
        housed = [self._housed(payload, columns) for payload in payloads]
        ended = [one if isinstance(one, Rejected) else None for one in housed]
        taken = [one for one in housed if not isinstance(one, Rejected)]
        refusals = await self._load(taken, columns, warehouse)
        outcomes = iter(_outcome(payload, reports, refusals) for payload, reports in taken)
        return [next(outcomes) if no is None else no for no in ended]

    def _housed(self, payload: Payload, columns: Columns) -> Taken | Rejected:
        """A payload with the tables there may be for it."""
        rows: Sequence[Row] = payload.data
        if self.settings.contract == "freeze":
            missing = next((found for row in rows if (found := columns.unknown(row))), None)
            if missing is not None:
                return Rejected(f"contract: freeze, and there is no {missing}")
        lacking = next((row.table for row in rows if not columns.has_room(row)), None)
        if lacking is None:
            return payload, []
        said = f"there are as many tables of events as `max_tables` allows, so that there is no {lacking}"
        if (together := without_own(rows)) is None:
            return Rejected(said)
        return msgspec.structs.replace(payload, data=together), [f"{said}: the event is in tracks"]

    async def _load(
        self, taken: Sequence[Taken], columns: Columns, warehouse: Warehouse
    ) -> Mapping[Place, Refusal]:
        """Write the rows, each table in one transaction; what was refused, by table and key."""
        changed: dict[str, str | None] = {}
        parts = {row.table: row.part for payload, _ in taken for row in payload.data}
        rows: defaultdict[str, list[Row]] = defaultdict(list)
        for payload, _ in taken:
            for row in payload.data:
                rows[row.table].append(row)
        for table, part in parts.items():
            if (kept := columns.learn(table, part, rows[table])) is not None:
                changed[table] = kept
        if parts:
            await warehouse.prepare(
                [columns.shape(table, part, self._layout.privacy) for table, part in parts.items()]
            )
        refusals: dict[Place, Refusal] = {}
        for (table, workspace), records in _records(taken, columns).items():
            state = {STATE + table: changed.pop(table)} if table in changed else {}
            told = _latest(records) if parts[table] == USERS else records
            wrote = await warehouse.load(_load_of(table, workspace, parts[table], told, state))
            refusals.update(((table, _id(one, told)), one) for one in wrote.refusals)
        return refusals


def _parts(payloads: Sequence[Payload]) -> Iterator[tuple[bool, list[int]]]:
    """The places of what goes in together, erasing or not: in order for whoever is deleted.

    To erase may be to write a whole file anew, so that deletes go together as far as they can.
    """
    rows: list[int] = []
    erases: list[int] = []
    gone: set[str] = set()
    for place, payload in enumerate(payloads):
        if isinstance(payload.data, Erase):
            erases.append(place)
            gone.update((*payload.data.ids, payload.person))
            continue
        if erases and not gone.isdisjoint(_persons(payload)):
            yield from _filled(rows, erases)
            rows, erases, gone = [], [], set()
        rows.append(place)
    yield from _filled(rows, erases)


def _filled(rows: list[int], erases: list[int]) -> Iterator[tuple[bool, list[int]]]:
    return ((bool(erase), places) for erase, places in enumerate((rows, erases)) if places)


def _persons(payload: Payload) -> Iterator[str]:
    """Every id by which a row of a payload may be somebody's; and who its order is kept for."""
    if payload.person:
        yield payload.person
    for row in payload.data:
        yield from (row.standard[name] for name in PERSONS[row.part] if row.standard.get(name))


def _of_tables(kept: Mapping[str, str]) -> Mapping[str, str]:
    """Without what a replication keeps that is called `events` too."""
    return {name: said for name, said in kept.items() if "/" not in name}


def _erase(message: Message) -> Payload | Skipped:
    """Exactly the id that the message names (D15)."""
    named = message.user_id or message.anonymous_id
    if named is None:
        return Skipped("nobody", "the delete names neither a userId nor an anonymousId")
    return Payload([Call("ERASE", "towpath:warehouse", {"ids": [named]})], data=Erase((named,)))


async def _erased(payloads: Sequence[Payload], warehouse: Warehouse) -> list[Ended]:
    ids = dict.fromkeys(id_ for payload in payloads for id_ in payload.data.ids)
    gone = await warehouse.erase(list(ids))
    told = [f"{rows} rows of {table} erased" for table, rows in gone.items() if rows]
    return [Delivered(reports=tuple(told) if len(payloads) == 1 else ()) for _ in payloads]


def _records(taken: Sequence[Taken], columns: Columns) -> Mapping[Place, list[dict[str, Any]]]:
    """The records by table and workspace, with what there is to report noted beside each payload."""
    found: dict[Place, list[dict[str, Any]]] = {}
    for payload, reports in taken:
        for row in payload.data:
            record = columns.record(row, reports)
            found.setdefault((row.table, row.workspace), []).append(record)
    return found


def _load_of(
    table: str, workspace: str, part: Part, records: list[dict[str, Any]], state: dict[str, str | None]
) -> Load:
    page = Page(msgspec.json.encode(records))
    return Load(table, workspace, RUN, (page,), "patch" if part == USERS else "append", state=state)


def _latest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per user: of each trait the latest."""
    folded: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda one: one["timestamp"]):
        folded[record["id"]] = {**folded.get(record["id"], {}), **record}
    return list(folded.values())


def _id(refusal: Refusal, told: Sequence[dict[str, Any]]) -> str:
    """Whose row it was. Raises `TowpathError` where nobody can say, so that fewer are tried at once.

    A record is kept without what is hashed or left out, which may be its id.
    """
    ids = [record["id"] for record in told]
    if refusal.place >= 0 or len(ids) == 1:
        return str(ids[max(refusal.place, 0)])
    found = msgspec.json.decode(refusal.record).get("id")
    if found in ids:
        return str(found)
    raise unforeseen("a row was refused that cannot be told from others")


def _outcome(payload: Payload, reports: Sequence[str], refusals: Mapping[Place, Refusal]) -> Ended:
    found = (refusals.get((row.table, row.id)) for row in payload.data)
    refused = next((refusal for refusal in found if refusal is not None), None)
    if refused is not None:
        return Rejected(f"the warehouse takes no such row: {refused.reason}")
    return Delivered(reports=tuple(dict.fromkeys(reports)))


def _said(error: Lost | TowpathError) -> str:
    if isinstance(error, TowpathError):
        return ". ".join(part for part in (error.title, error.why, error.fix) if part)
    return str(error) or "the loading process ended; what was not confirmed is not in"
