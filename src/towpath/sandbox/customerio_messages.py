"""What a simulated workspace sent: hundreds of thousands of deliveries, kept small and paged fast."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

Record: TypeAlias = dict[str, Any]
"""A record as the App API shows it: a test puts its own into the lists of `CustomerIoState`."""


class Sent(Struct, gc=False):
    """What deliveries are chosen by."""

    type: Any = None
    action_id: Any = None
    campaign_id: Any = None
    broadcast_id: Any = None
    newsletter_id: Any = None
    transactional_message_id: Any = None
    metrics: dict[str, Any] | None = None
    customer_identifiers: dict[str, Any] | None = None

    @property
    def is_draft(self) -> bool:
        """Whether it waits for somebody to send it."""
        metrics = self.metrics or {}
        return "drafted" in metrics and "sent" not in metrics

    @property
    def cio_id(self) -> Any:
        """Whom it went to."""
        return (self.customer_identifiers or {}).get("cio_id")


Chosen: TypeAlias = Callable[[Sent], bool]
_encode = msgspec.json.Encoder().encode
_sent = msgspec.json.Decoder(Sent).decode


class Messages:
    """Deliveries by the time they were made, oldest first.

    Seeded ones are kept as the JSON they are answered with, a quarter of what a record takes; whichever is
    looked up by `find` or `of` becomes a record, and what a caller changes in it is shown from then on.
    """

    def __init__(self) -> None:
        self._rows: list[Record | bytes] = []
        self._created: list[int] = []
        self._live: dict[int, Record] = {}
        self._in_order = True

    def append(self, record: Record) -> None:
        """Keep a record; it may be changed by whoever has it, except `created`."""
        self._live[id(record)] = record
        self._keep(record, int(record.get("created") or 0))

    def seed(self, records: Iterable[Record]) -> None:
        """Keep many records that are sent and no drafts, as JSON."""
        for record in records:
            self._keep(_encode(record), record["created"])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        """Yield every record, oldest first; a seeded one is a copy."""
        for row in self._rows:
            yield msgspec.json.decode(row) if isinstance(row, bytes) else row

    def __getitem__(self, index: int) -> Record:
        return self._thawed(index)

    def find(self, message_id: str) -> Record | None:
        """Return a record by its id, to be changed."""
        start = b'{"id":%s,' % _encode(message_id)
        for index, row in enumerate(self._rows):
            if row.startswith(start) if isinstance(row, bytes) else row["id"] == message_id:
                return self._thawed(index)
        return None

    def of(self, cio_id: str) -> list[Record]:
        """Return the records of a person, to be changed."""
        name = b'"cio_id":%s' % _encode(cio_id)
        found = []
        for index, row in enumerate(self._rows):
            if isinstance(row, bytes):
                theirs = name in row
            else:
                theirs = (row.get("customer_identifiers") or {}).get("cio_id") == cio_id
            if theirs:
                found.append(self._thawed(index))
        return found

    def chosen(self, since: int, until: int, *, drafts: bool, test: Chosen | None) -> Sequence[int]:
        """Return where the deliveries of a window are, newest first; `until` is in it."""
        self._order()
        window = range(bisect_right(self._created, until) - 1, bisect_left(self._created, since) - 1, -1)
        if test is None and not drafts and not any(_facts(each).is_draft for each in self._live.values()):
            return window
        facts = ((index, _facts(self._rows[index])) for index in window)
        return [index for index, each in facts if each.is_draft == drafts and (not test or test(each))]

    def encoded(self, places: Iterable[int]) -> msgspec.Raw | None:
        """Return the deliveries at such places as a JSON array; None where there are none."""
        rows = (self._rows[index] for index in places)
        joined = b",".join(row if isinstance(row, bytes) else _encode(row) for row in rows)
        return msgspec.Raw(b"[%s]" % joined) if joined else None

    def _keep(self, row: Record | bytes, created: int) -> None:
        self._in_order = self._in_order and (not self._created or created >= self._created[-1])
        self._rows.append(row)
        self._created.append(created)

    def _thawed(self, index: int) -> Record:
        row = self._rows[index]
        if isinstance(row, bytes):
            row = msgspec.json.decode(row)
            self._rows[index] = row
            self._live[id(row)] = row
        return row

    def _order(self) -> None:
        if not self._in_order:
            places = sorted(range(len(self._rows)), key=self._created.__getitem__)
            self._rows = [self._rows[place] for place in places]
            self._created = [self._created[place] for place in places]
            self._in_order = True


def touch(message: Record, now: int) -> None:
    """Say that a delivery changed: what deduplicates it ends in the time of its last change."""
    if "deduplicate_id" in message:
        message["deduplicate_id"] = f"{message['id']}:{now}"


def forget(message: Record, now: int) -> None:
    """Reduce a delivery to what stays of it when its person is deleted."""
    cio_id = message["customer_identifiers"]["cio_id"]
    message.update(customer_id=None, customer_identifiers={"cio_id": cio_id}, forgotten=True)
    touch(message, now)


def _facts(row: Record | bytes) -> Sent:
    return _sent(row) if isinstance(row, bytes) else msgspec.convert(row, Sent)
