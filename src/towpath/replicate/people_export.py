"""People by export: a handful of requests for any number of them, and a file read piece by piece."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Sequence

import msgspec
from msgspec import Raw, Struct

from ..http import Reply
from ..vendors.customerio import AppApi
from .people import EVERYBODY, Customer
from .reading import NULL, Chain, Declined, Denied, Door, Step, Unreachable, Wanted, page

PIECE_BYTES = 4 * 1024 * 1024
POLL_S, LONGEST_S = 5.0, 3600.0
IDENTIFIERS = ("cio_id", "id", "email")
PARTIAL, OUT_OF_RANGE = 206, 416
_TRUE = frozenset({"true", "1"})
_encode = msgspec.json.Encoder().encode


class Export(Struct, frozen=True):
    """How far an export is read: bytes up to the end of a record; `columns` once they are known."""

    id: int | str
    offset: int = 0
    columns: tuple[str, ...] = ()


class Piece(Struct, frozen=True):
    """A part of the file, and whether it is the last."""

    body: bytes
    last: bool


class _State(Struct):
    id: int | str
    status: str = ""


class _Told(Struct):
    export: _State


class _Link(Struct):
    url: str


class PeopleExport(Struct, frozen=True):
    """Everybody with attributes; the file names neither the times of these nor devices.

    The vendor prepares it in its own time. Its link lasts 15 minutes, and is asked for anew when it is over.
    """

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        del wanted
        return [Chain("export")]

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Ask for the export, wait until it is done, and read it."""
        del chain, wanted
        export = msgspec.json.decode(place, type=Export) if place else await _asked(door)
        if not place:
            yield Step((), _encode(export).decode(), 0)
        await _done(door, export)
        file = _File(door, export)
        while True:
            piece = await file.piece(export.offset)
            body = piece.body if piece.last else piece.body[: whole_records(piece.body)]
            if not body and not piece.last:
                raise Unreachable(f"no record of the export ends within {len(piece.body)} bytes")
            export, people = _read(export, body)
            records = page(_encode(people), {})
            yield Step(records, None if piece.last else _encode(export).decode(), len(people))
            if piece.last:
                return


async def _asked(door: Door) -> Export:
    return Export(_told(await door.ask(AppApi.export_customers, body={"filters": EVERYBODY})).id)


def _told(reply: Reply) -> _State:
    try:
        return msgspec.json.decode(reply.body, type=_Told).export
    except msgspec.DecodeError as error:
        raise Unreachable(f"the answer describes no export: {error}") from error


async def _done(door: Door, export: Export) -> None:
    """Wait until the file is there."""
    waited_s = 0.0
    while (status := _told(await door.ask(AppApi.export, export.id)).status) != "done":
        if status == "failed" or waited_s >= LONGEST_S:
            said = "failed" if status == "failed" else f"is not done after {waited_s:.0f} s"
            raise Unreachable(f"the export {export.id} {said}")
        await door.rest(POLL_S)
        waited_s += POLL_S


class _File:
    """The file behind a link; a link that is over is replaced once in a row."""

    def __init__(self, door: Door, export: Export) -> None:
        self._door = door
        self._export = export
        self._link = ""

    async def piece(self, offset: int) -> Piece:
        """Read on from a byte."""
        if self._link:
            try:
                return await self._piece(offset)
            except Denied:
                self._link = ""
        self._link = await self._linked()
        try:
            return await self._piece(offset)
        except Denied as denied:
            raise Unreachable(f"the link of the export {self._export.id} is refused: {denied}") from denied

    async def _linked(self) -> str:
        reply = await self._door.ask(AppApi.export_link, self._export.id)
        try:
            return msgspec.json.decode(reply.body, type=_Link).url
        except msgspec.DecodeError as error:
            raise Unreachable(f"the answer holds no link: {error}") from error

    async def _piece(self, offset: int) -> Piece:
        end = offset + PIECE_BYTES - 1
        reply = await self._door.fetch(self._link, {"range": f"bytes={offset}-{end}"})
        if reply.status == OUT_OF_RANGE:
            return Piece(b"", last=True)
        if reply.status == PARTIAL:
            return Piece(reply.body, last=_reaches_the_end(reply, offset))
        if reply.cut:
            raise Declined("the export's link takes no ranges, and the file is too large to be read at once")
        return Piece(reply.body[offset:], last=True)


def _reaches_the_end(reply: Reply, offset: int) -> bool:
    """Whether a part is the last: the file's size tells, as a server may send less than it was asked for."""
    size = reply.headers.get("content-range", "").rpartition("/")[2]
    if not size.isdecimal():
        return len(reply.body) < PIECE_BYTES
    return offset + len(reply.body) >= int(size)


def whole_records(body: bytes) -> int:
    """How many bytes of a part of a CSV file are whole records: up to a line's end outside of quotes."""
    end = body.rfind(b"\n")
    quotes = body.count(b'"', 0, max(end, 0))
    while end >= 0 and quotes % 2:
        before, end = end, body.rfind(b"\n", 0, end)
        quotes -= body.count(b'"', max(end, 0), before)
    return end + 1


def _read(export: Export, body: bytes) -> tuple[Export, list[Customer]]:
    """Read whole records; the first of the file names the columns."""
    rows = csv.reader(io.StringIO(body.decode("utf-8-sig" if not export.offset else "utf-8", "replace"), ""))
    try:
        columns = export.columns or tuple(next(rows, ()))
        people = [_customer(dict(zip(columns, row, strict=False))) for row in rows if row]
    except csv.Error as error:
        raise Declined(f"the export is no CSV: {error}") from error
    if "cio_id" not in columns:
        raise Declined("the export has no column cio_id")
    return Export(export.id, export.offset + len(body), columns), [one for one in people if one.cio_id]


def _customer(values: dict[str, str]) -> Customer:
    """A record as the search's would be; the file says nothing where an attribute is not set."""
    given = {name: value for name, value in values.items() if value}
    return Customer(
        given.get("cio_id", ""),
        given.get("id"),
        given.get("email"),
        given.get("unsubscribed", "").lower() in _TRUE,
        Raw(_encode(given)),
        Raw(NULL),
        Raw(NULL),
    )
