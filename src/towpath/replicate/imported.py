"""Where another tool's replication stands, as cursors: states of Singer, Stitch, Qlik, Airbyte, or CSV."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ..errors import TowpathError
from .names import canonical
from .tables import REPLICATED

Kind: TypeAlias = Literal["auto", "singer", "airbyte", "csv"]

SINGER_NAMES: Mapping[str, str] = {"objects": "object_types"}
"""What tap-customerio calls otherwise than anybody else: its `objects` are the types of objects."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SHOWN = 5
# The largest Unix time of each unit that can be meant: seconds go to the year 5138.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))


class Imported(Struct, frozen=True):
    """Where each table goes on (Unix seconds), and in words what was left out or changed, and why."""

    cursors: Mapping[str, float]
    notes: tuple[str, ...] = ()


class Stood(Struct, frozen=True):
    """What a state says of a stream: cursors by field, several where it was read in parts.

    `known` is the name that everybody else knows the stream by, where that is another.
    """

    stream: str
    parts: tuple[Mapping[str, Any], ...]
    known: str = ""


def cursors(text: str, kind: Kind = "auto", *, now: float) -> Imported:
    """Read another tool's state; `now` (Unix seconds) bounds the cursors.

    `singer`: the state file of tap-customerio, which Stitch and Qlik run, or its STATE messages.
    `airbyte`: the state of a connection (stream, global or legacy), or its STATE messages. `csv`: lines of
    `table,cursor`. Moments are ISO 8601, MM/DD/YYYY, or Unix seconds, milli-, micro- or nanoseconds.

    Raises `TowpathError` E5620 for what is no such file, E5621 for one that is not of `kind`, and E5622 where
    no cursor is in it.
    """
    text = text.removeprefix("\ufeff").lstrip().rstrip("\r\n ")
    if not text:
        raise _unusable("E5620", "the state is empty")
    stood = tuple(_READERS[kind](text))
    found, notes = _mapped(stood, now)
    if not found:
        more = "; ".join(notes[:_SHOWN]) or "it names no stream"
        raise _unusable("E5622", "the state holds no cursor that a table of ours could go on from", more)
    return Imported(found, tuple(notes))


def moment(value: Any) -> float | None:
    """Read a moment as Unix seconds; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _scaled(float(value)) if 0 <= value < 1e20 else None
    text = str(value).strip() if isinstance(value, str) else ""
    if re.fullmatch(r"\d{1,19}(\.\d*)?", text, re.ASCII):
        return _scaled(float(text))
    for read in (datetime.fromisoformat, lambda given: datetime.strptime(f"{given} +0000", "%m/%d/%Y %z")):
        try:
            found = read(text)
        except ValueError:
            continue
        seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        return seconds if seconds >= 0 else None
    return None


def _scaled(value: float) -> float:
    return next(value / unit for largest, unit in _UNITS if value < largest)


# -- our tables ----------------------------------------------------------------------------------------


def _mapped(stood: Iterable[Stood], now: float) -> tuple[dict[str, float], list[str]]:
    """The cursor of each of our tables; where two streams are one table, the earlier, which loses nothing."""
    found: dict[str, float] = {}
    notes: list[str] = []
    for one in stood:
        table = _table(one.known or one.stream)
        cursor, note = _cursor(one, table, now) if table else (None, f"{one.stream}: no table is called so")
        if note:
            notes.append(note)
        if table and cursor is not None:
            if table in found:
                notes.append(f"{table}: named more than once; the earlier cursor is taken")
            found[table] = min(cursor, found.get(table, cursor))
    return found, notes


def _table(stream: str) -> str:
    """Our table for a stream's name; empty where none is read."""
    try:
        (table,) = canonical((stream,)).names
    except ValueError:
        return ""
    return table if table in REPLICATED else ""


def _cursor(stood: Stood, table: str, now: float) -> tuple[float | None, str]:
    """The cursor of a table, and what is to be said of it."""
    field = REPLICATED[table].table.cursor
    if not field:
        read = table if table != stood.stream else "it"
        return None, f"{stood.stream}: {read} is read whole in each run, and needs no cursor"
    parts = [_value(part, field) for part in stood.parts]
    values = [value for _, value in parts if value is not None]
    moments = [found for value in values if (found := moment(value)) is not None]
    if not values:
        return None, f"{stood.stream}: holds no cursor"
    if len(moments) < len(values):
        wrong = next(value for value in values if moment(value) is None)
        return None, f"{stood.stream}: {msgspec.json.encode(wrong).decode()[:60]} is no moment"
    if min(moments) == 0:
        return None, f"{stood.stream}: stands at the very beginning"
    return _bounded(stood, table, min(moments), now, {name for name, _ in parts} - {field, ""})


def _bounded(stood: Stood, table: str, cursor: float, now: float, others: set[str]) -> tuple[float, str]:
    said = []
    if cursor > now:
        said.append("its cursor lies in the future; it is set to now")
    if len(stood.parts) > 1:
        said.append(f"has {len(stood.parts)} cursors, one for each part; the earliest is taken")
    if others:
        name = REPLICATED[table].table.cursor
        said.append(f"its cursor is of {', '.join(sorted(others))}, which is taken for {name}")
    return min(cursor, now), f"{stood.stream}: {'; '.join(said)}" if said else ""


def _value(part: Mapping[str, Any], field: str) -> tuple[str, Any]:
    """The value of the field that is our cursor, else of the only one there is, with the field's name."""
    if part.get(field) is not None:
        return field, part[field]
    others = [(name, value) for name, value in part.items() if value is not None]
    return others[0] if len(others) == 1 else (field, None)


# -- reading -------------------------------------------------------------------------------------------


def _guessed(text: str) -> Iterator[Stood]:
    if text[0] not in "{[":
        return _csv(text)
    documents = _documents(text)
    return _singer_streams(documents) if any(map(_is_singer, documents)) else _airbyte_streams(documents)


def _singer(text: str) -> Iterator[Stood]:
    documents = _documents(text)
    if not any(map(_is_singer, documents)):
        raise _unusable("E5621", "the state is no Singer state", "it has no `bookmarks`")
    return _singer_streams(documents)


def _airbyte(text: str) -> Iterator[Stood]:
    documents = _documents(text)
    if any(map(_is_singer, documents)):
        raise _unusable("E5621", "the state is no Airbyte state", "it has `bookmarks`, as Singer's have")
    return _airbyte_streams(documents)


def _documents(text: str) -> Sequence[Any]:
    """One JSON document, the entries of an array, or one document a line."""
    try:
        whole = msgspec.json.decode(text)
    except _UNREADABLE:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            return [msgspec.json.decode(line) for line in lines]
        except _UNREADABLE as error:
            raise _unusable("E5620", "the state is no JSON", str(error)) from None
    return whole if isinstance(whole, list) else [whole]


def _is_singer(document: Any) -> bool:
    return bool(_bookmarked(document)) or _object(document).get("bookmarks") == {}


def _bookmarked(document: Any) -> Mapping[str, Any]:
    """The bookmarks of a state, or of a message that carries one."""
    given = _object(document)
    return _object(_object(given.get("value")).get("bookmarks")) or _object(given.get("bookmarks"))


def _singer_streams(documents: Iterable[Any]) -> Iterator[Stood]:
    """The bookmarks of the last state: each holds all of them."""
    last = next(document for document in reversed([*documents]) if _is_singer(document))
    for stream, bookmark in _bookmarked(last).items():
        yield Stood(stream, tuple(_bookmarks(bookmark)), SINGER_NAMES.get(stream, ""))


def _bookmarks(bookmark: Any) -> Iterator[Mapping[str, Any]]:
    """The cursors of a bookmark; taps of the Singer SDK name the field beside its value."""
    if not isinstance(bookmark, dict):
        yield {"": bookmark}
        return
    parts = bookmark.get("partitions")
    for part in parts if isinstance(parts, list) and parts else [bookmark]:
        one = _object(part)
        if "replication_key_value" in one:
            yield {str(one.get("replication_key", "")): one["replication_key_value"]}
        else:
            yield _plain(one)


def _airbyte_streams(documents: Sequence[Any]) -> Iterator[Stood]:
    """The streams' states; of those that come again, the last."""
    found = {name: state for document in documents for name, state in _airbyte_states(document)}
    if not found:
        why = "it has neither Singer's `bookmarks` nor Airbyte's `stream`, `global` or `streamState`"
        raise _unusable("E5621", "the state is of no kind that is known", why)
    for name, state in found.items():
        yield Stood(name, tuple(_partitions(_object(state))))


def _airbyte_states(document: Any) -> Iterator[tuple[str, Any]]:
    """Each stream's name and state, of a message of the protocol or an answer of the configuration API."""
    message = _object(document)
    message = _object(message.get("state")) if message.get("type") == "STATE" else message
    shared = _object(message.get("global") or message.get("globalState"))
    entries = message.get("streamState") or shared.get("stream_states") or shared.get("streamStates")
    if "stream" in message:
        entries = [message["stream"]]
    for entry in map(_object, entries if isinstance(entries, list) else ()):
        descriptor = _object(entry.get("stream_descriptor") or entry.get("streamDescriptor"))
        yield str(descriptor.get("name", "")), entry.get("stream_state", entry.get("streamState"))
    if entries is None:
        legacy = _object(message.get("data") or message.get("state") or message)
        yield from ((name, state) for name, state in legacy.items() if isinstance(state, dict))


def _partitions(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The cursors of a stream: one, or one for each parent it was read under, or for each slice of time."""
    if isinstance(state.get("states"), list) and state["states"] and not state.get("use_global_cursor"):
        yield from (_plain(_object(_object(part).get("cursor"))) for part in state["states"])
    elif isinstance(state.get("slices"), list):
        # The first slice reaches up to what is read without a gap.
        first = min(map(_object, state["slices"]), key=lambda one: moment(one.get("start")) or 0, default={})
        yield {"": first.get("most_recent_cursor_value") or first.get("end")}
    elif isinstance(state.get("state"), dict):
        yield _plain(state["state"])
    elif state and all(isinstance(value, dict) for value in state.values()):
        yield from (_plain(value) for value in state.values())
    else:
        yield _plain(state)


def _plain(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """What can be cursors; Airbyte's own marks, as of a full refresh, are none."""
    return {
        str(name): value
        for name, value in state.items()
        if isinstance(value, str | int | float) and not str(name).startswith("__ab_")
    }


def _csv(text: str) -> Iterator[Stood]:
    """Lines of table and cursor, with or without a heading; of two `messages` the first are the templates."""
    try:
        rows = [row for row in csv.reader(text.splitlines(), _dialect(text)) if any(map(str.strip, row))]
    except csv.Error as error:
        raise _unusable("E5620", "the state is neither JSON nor CSV", str(error)) from None
    if not rows or any(len(row) < 2 for row in rows):
        short = next((",".join(row)[:60] for row in rows if len(row) < 2), "")
        raise _unusable("E5620", "the state is neither JSON nor CSV", f"{short!r} is no `table,cursor`")
    if moment(rows[0][1]) is None and not _table(rows[0][0].strip()):
        rows = rows[1:]
    twice = [row[0].strip().lower() for row in rows].count("messages") == 2
    for row in rows:
        name, known = row[0].strip(), ""
        if twice and name.lower() == "messages":
            known, twice = "transactional_messages", False
        yield Stood(name, ({"": row[1].strip() or None},), known)


def _dialect(text: str) -> type[csv.Dialect]:
    first = text.splitlines()[0]

    class Lines(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return Lines


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _unusable(code: str, title: str, why: str = "") -> TowpathError:
    return TowpathError(
        title,
        code=code,
        why=why,
        fix="give the state file of Singer, Stitch, Qlik or Airbyte, or lines of `table,cursor`, like "
        "`campaigns,2025-01-31`",
        data="nothing was changed",
    )


_READERS: Mapping[Kind, Callable[[str], Iterator[Stood]]] = {
    "auto": _guessed,
    "singer": _singer,
    "airbyte": _airbyte,
    "csv": _csv,
}
