"""What happens to a simulated Customer.io workspace between two reads: changes, deletions, late metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from .customerio import CustomerIoSimulator
from .customerio_messages import Record, touch
from .customerio_state import Activity, CustomerIoState, Segment

_UPDATED: Mapping[str, str] = {
    "campaigns": "updated",
    "broadcasts": "updated",
    "newsletters": "updated",
    "transactional": "updated_at",
    "snippets": "updated_at",
    "exports": "updated_at",
}
"""What says when a record of a list was changed; the other lists do not say it."""


def change(state: CustomerIoState, table: str, key: Any, **fields: Any) -> Record:
    """Change a record of a list (`campaigns`, `snippets` …) by its id, or name where it has none."""
    record: Record = _record(state, table, key)
    record.update(fields)
    updated = _UPDATED.get(table)
    if updated:
        record[updated] = state.now()
        touch(record, state.now())
    return record


def remove(state: CustomerIoState, table: str, key: Any) -> None:
    """Take a record out of a list by its id or name."""
    _list(state, table).remove(_record(state, table, key))


def change_action(state: CustomerIoState, parent: str, action_id: Any, **fields: Any) -> Record:
    """Change an action of a campaign or broadcast, `campaigns/5`."""
    record = next(each for each in state.actions[parent] if str(each["id"]) == str(action_id))
    record.update(fields, updated=state.now())
    touch(record, state.now())
    return record


def change_segment(state: CustomerIoState, segment_id: int, **fields: Any) -> Segment:
    """Change a segment: its name, `archived`, `members` and so on."""
    changed = structs.replace(state.segments[segment_id], **{"updated_at": state.now(), **fields})
    state.segments[segment_id] = changed
    return changed


def delete_segment(state: CustomerIoState, segment_id: int) -> None:
    """Delete a segment."""
    del state.segments[segment_id]


def rewrite_collection(state: CustomerIoState, collection_id: int, rows: list[Any]) -> None:
    """Give a collection new contents; like live, its `updated_at` does not move."""
    _record(state, "collections", collection_id).update(data=rows, rows=len(rows))


def open_late(state: CustomerIoState, message_id: str, metric: str = "opened") -> Record:
    """Let somebody open a message now, however long ago it was sent."""
    message = state.messages.find(message_id)
    if message is None:
        raise LookupError(f"no message {message_id}")
    message["metrics"] = {**(message.get("metrics") or {}), metric: state.now()}
    touch(message, state.now())
    return message


def delete_person(simulator: CustomerIoSimulator, **identifier: str) -> None:
    """Delete a person by one of id, email, phone and cio_id; what was sent to them is forgotten."""
    ((kind, value),) = identifier.items()
    simulator.profiles.delete((kind, value))


def tell(state: CustomerIoState, *, at: Iterable[float], kind: str = "event", name: str = "told") -> None:
    """Write activities that are told now and happened at those times, whether long ago or yet to come."""
    person = next(iter(state.people.values()), None)
    for moment in at:
        serial, now = state.serial(), state.now()
        state.activities.append(Activity(serial, kind, int(moment), person, {"n": serial}, name, now))


def _list(state: CustomerIoState, table: str) -> list[Any]:
    """Return a list of the state by its name."""
    records: list[Any] = getattr(state, table)
    return records


def _record(state: CustomerIoState, table: str, key: Any) -> Any:
    """Return a record of a list by its id or name, or the text itself. Raises `LookupError`."""
    for record in _list(state, table):
        if key in ((record.get("id"), record.get("name")) if isinstance(record, dict) else (record,)):
            return record
    raise LookupError(f"no {key!r} in {table}")
