"""Which entries of an append are new, whose they are, and so which partition they go to (P8)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from msgspec import Struct

from ...message import Envelope, identifier
from .. import Entry, Group
from ..runs import DIGEST
from .vault import Ids, Names, ids_of, names_of

PARTS = 8
"""Ids are forgotten by eighths of the window."""


class Draft(Struct, frozen=True, gc=False):
    """An entry that is new, on its way to a position."""

    partition: int
    digest: bytes
    names: Names
    envelope: Envelope
    entry: Entry


class Admitted(Struct):
    """What is new of an append, and how many were known, by source."""

    drafts: list[Draft]
    duplicates: Counter[str]


class Window:
    """The digests of a window of time, in memory (about 100 bytes each), and those being committed."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._part_s = window_s / PARTS
        self._parts: dict[int, set[bytes]] = {}
        self._pending: dict[bytes, asyncio.Future[None]] = {}

    def admit(self, groups: Sequence[Group], now: float, partitions: int) -> Admitted | asyncio.Future[None]:
        """What of these is new; or the end of the append under way that decides it."""
        self.age(now)
        fresh: dict[bytes, Draft] = {}
        duplicates: Counter[str] = Counter()
        for group in groups:
            for digest, entry in zip(digests_of(group), group.entries, strict=True):
                if (pending := self._pending.get(digest)) is not None:
                    return pending
                if digest in fresh or self._holds(digest):
                    duplicates[group.envelope.source] += 1
                else:
                    fresh[digest] = _draft(group.envelope, entry, digest, partitions)
        return Admitted(list(fresh.values()), duplicates)

    def _holds(self, digest: bytes) -> bool:
        return any(digest in part for part in self._parts.values())

    def begin(self, drafts: Iterable[Draft]) -> asyncio.Future[None]:
        """Remember that these are being committed; `finish` with what this returns."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.update((draft.digest, future) for draft in drafts)
        return future

    def finish(self, future: asyncio.Future[None], drafts: Iterable[Draft]) -> None:
        """The commit ended; what was stored has been `add`ed before."""
        for draft in drafts:
            del self._pending[draft.digest]
        future.set_result(None)

    def add(self, received_at: float, digests: Iterable[bytes]) -> None:
        """Take in the digests of kept records."""
        self._parts.setdefault(int(received_at // self._part_s), set()).update(digests)

    def age(self, now: float) -> None:
        """Forget the parts that are wholly outside the window."""
        for part in [part for part in self._parts if (part + 1) * self._part_s < now - self._window_s]:
            del self._parts[part]


def digests_of(group: Group) -> list[bytes]:
    """128 bits of (source, message id) for each entry; the same as `dedup` has."""
    start = hasher(group.envelope.source)
    return [digest_of(start, entry.message_id) for entry in group.entries]


def hasher(source: str) -> blake2b:
    """The beginning of the digests of a source."""
    return blake2b(source.encode() + b"\0", digest_size=DIGEST)


def digest_of(start: blake2b, message_id: str) -> bytes:
    """The digest of a message id of the source `start` is for."""
    copy = start.copy()
    copy.update(message_id.encode())
    return copy.digest()


def partition_for(ids: Ids | None, partitions: int) -> int:
    """The partition of a person: a hash of the userId, else of the anonymousId. Never change it."""
    if ids is None or partitions == 1:
        return 0
    person = identifier(ids.user_id) or identifier(ids.anonymous_id) or ""
    return int.from_bytes(blake2b(person.encode(), digest_size=8).digest(), "big") % partitions


def _draft(envelope: Envelope, entry: Entry, digest: bytes, partitions: int) -> Draft:
    ids = ids_of(entry.raw)
    return Draft(partition_for(ids, partitions), digest, names_of(ids, digest), envelope, entry)
