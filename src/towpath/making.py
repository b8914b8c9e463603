"""Making: runs a connection's transform, ahead for what is read, and again for what comes back from a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .connection import Connection
from .lanes import Item, Lane
from .log import Key, Ledger, Log
from .message import Message, Record, Unreadable, read
from .outcome import Rejected, Retry, Skipped
from .settler import Settler
from .transform import Made, Transform

FAILED = 500  # a delivery that alone keeps failing gets the short budget, as with a failing vendor (D06)
AWAY = "transformed away"
PIECE = 4  # messages made in one go while they are read: those behind wait for a slow one only once
ROWS_MAX = 128


class Making:
    """Says what each delivery of a connection with a transform sends.

    One record makes as many deliveries as the transform returns messages, told apart by their index. The
    transform runs again when a delivery comes back from a row: what it no longer makes is skipped.
    """

    def __init__(
        self, connection: Connection, transform: Transform, log: Log, ledger: Ledger, settler: Settler
    ) -> None:
        self._connection = connection
        self._transform = transform
        self._log = log
        self._ledger = ledger
        self._settler = settler
        self._ahead: dict[int, Made] = {}
        self._later: set[int] = set()  # positions whose turn comes when they head their lane

    async def ahead(self, records: Sequence[Record]) -> Sequence[Record]:
        """Run the transform for the first of the records that are about to enter; those that now may."""
        piece, messages = records[:PIECE], dict[int, Message]()
        self._later.clear()
        for record in piece:
            message = self._wanted(record)
            if message is not None and self._transform.suspect(message):
                self._later.add(record.position)
            elif message is not None:
                messages[record.position] = message
        made = await self._transform.make(list(messages.values())) if messages else ()
        self._ahead = dict(zip(messages, made, strict=False))
        unmade = next((position for position in messages if position not in self._ahead), None)
        return piece if unmade is None else [record for record in piece if record.position < unmade]

    def _wanted(self, record: Record) -> Message | None:
        """The message of a record, where the connection takes it."""
        if record.source not in self._connection.sources:
            return None
        try:
            message = read(record)
        except Unreadable:
            return None
        return message if self._connection.skip(message) is None else None

    def items(self, record: Record, message: Message, known: Collection[Key]) -> list[Item]:
        """Return the deliveries of a record just read, without those of `known` keys."""
        made = self._ahead.pop(record.position, None)
        count = max(1, len(made.messages)) if made is not None else 1
        unknown = made.failure != "" if made is not None else record.position in self._later
        indexes = [index for index in range(count) if (record.position, index) not in known]
        if unknown and not indexes:
            indexes = [_first_unknown(record.position, known)]
        items = [Item(record, message, None, index) for index in indexes]
        for item in items:
            item.made = None if made is None else _part(made, item.index)
        return items

    async def again(self, item: Item, lane: Lane) -> list[Item]:
        """Run the transform for one delivery; the further ones that nobody knew of yet."""
        (made,) = await self._transform.make([item.message])
        item.made = _part(made, item.index)
        if made.failure:
            return []
        for other in lane.items:
            if other.record.position == item.record.position:
                other.made = _part(made, other.index)
        further = range(item.index + 1, len(made.messages))
        return await self._unknown(item, lane, further) if further else []

    async def _unknown(self, item: Item, lane: Lane, indexes: Sequence[int]) -> list[Item]:
        """Deliveries that have neither ended nor are held: the transform had failed at first."""
        position, name = item.record.position, self._connection.name
        await self._settler.flush()
        ended = await self._ledger.deliveries(name, position, ROWS_MAX)
        parked = await self._ledger.parked(self._settler.held(), lane.current().person, ROWS_MAX)
        known = {row.index for _, row in ended} | {row.index for row in parked if row.position == position}
        known |= {other.index for other in lane.items if other.record.position == position}
        kept = await self._log.read(position - 1, 1)
        if not kept or kept[0].position != position:
            return []  # trimmed: what had ended is forgotten, and must not be sent twice
        new = [Item(item.record, item.message, None, index) for index in indexes if index not in known]
        for each in new:
            each.row = True  # the cursor counts only what was read
        return new


def _part(made: Made, index: int) -> Message | Skipped | Rejected | Retry:
    if made.failure:
        return Rejected(made.failure) if made.final else Retry(made.failure, code=FAILED)
    if index < len(made.messages):
        return made.messages[index]
    return Skipped(AWAY, "the transform returned nothing for it")


def _first_unknown(position: int, known: Collection[Key]) -> int:
    index = 0
    while (position, index) in known:
        index += 1
    return index
