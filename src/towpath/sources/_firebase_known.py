"""What is remembered of Firebase's documents and users: what was taken of each, and who was deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from ..source import Known
from ._firebase_documents import Documents

DAY_S: Final = 86_400.0
LATE_S: Final = 31 * DAY_S
"""How long a deletion turns late events away: the longest that Pub/Sub keeps one."""
FORGOTTEN_S: Final = 400 * DAY_S
MOST_PLACES: Final = 16
"""How many documents of one id are remembered, of collections with wildcards: the latest."""
NEVER: Final = -1
"""The life of something taken that was never sent."""


class Taken(Struct, frozen=True, array_like=True, gc=False):
    """What was last taken of a live document or user.

    `time` is its version, in nanoseconds; `hashes` say which attributes it had, without their values;
    `life` says which life of the person they were sent to (a deletion ends one); `created` is when a user
    was created, in nanoseconds; `anonymous` is one that was sent by its anonymous id only, `by_uid` one that
    was sent by its uid at some time, even if its document calls it by e-mail now.
    """

    time: int
    user_id: str
    hashes: dict[str, bytes]
    life: int = 0
    created: int = 0
    anonymous: bool = False
    by_uid: bool = False
    again: int = 0  # how often this version is to be told anew
    owed: bool = False  # it did not arrive somewhere: the next version is told whole


class Gone(Struct, frozen=True, array_like=True, gc=False):
    """A person who was deleted: when, in nanoseconds, and by which document's or user's end."""

    at: int
    cause: str


def document_key(database: str, path: str) -> str:
    """Where `Known` keeps what was taken of a live document; deleted ones have no such key."""
    return f"d/{database}/{path}"


def _place_of(key: str) -> tuple[str, str]:
    """The database and path that a document's key was made of."""
    database, _, path = key.removeprefix("d/").partition("/")
    return database, path


def user_key(tenant: str, uid: str) -> str:
    """Where `Known` keeps what was taken of a live Auth user; deleted ones have no such key."""
    return f"u/{tenant}/{uid}"


def hashes(salt: str, attributes: Mapping[str, Any]) -> dict[str, bytes]:
    """A short hash of each attribute; equal values of two people have different ones."""
    digest = hashlib.blake2b
    return {
        name: digest(_comparable((salt, name, value)), digest_size=8).digest()
        for name, value in attributes.items()
    }


def _ended(key: str) -> str:
    return f"z/{key}"


def _life(user_id: str) -> str:
    return f"x/{_digest(user_id)}"


def _closed(user_id: str) -> str:
    return f"t/{_digest(user_id)}"


def _elsewhere(document_id: str) -> str:
    return f"l/{_digest(document_id)}"


def _unfit(key: str) -> str:
    return f"b/{key}"


def _digest(user_id: str) -> str:
    """Ids are keys of their own documents anyway; an e-mail is nowhere but where it has to be."""
    return hashlib.blake2b(user_id.encode(), digest_size=12).hexdigest() if "@" in user_id else user_id


_encode = msgspec.msgpack.Encoder().encode
_comparable = msgspec.msgpack.Encoder(order="deterministic").encode
_taken = msgspec.msgpack.Decoder(Taken).decode
_gone = msgspec.msgpack.Decoder(Gone).decode
_number = msgspec.msgpack.Decoder(int).decode
_keys = msgspec.msgpack.Decoder(str | list[str]).decode


def keys_of_document(key: str, ids: Collection[str], tenants: Iterable[str]) -> list[str]:
    """What taking a document looks at, to be read at once; `ids` are its person's and its own."""
    users = [user_key(tenant, uid) for tenant in tenants for uid in ids]
    return [key, _ended(key), *map(_life, ids), *users]


def keys_of_user(key: str, uid: str, documents: Documents) -> Iterator[str]:
    """What taking a user looks at, to be read at once."""
    yield from (key, _ended(key), _life(uid))
    yield from keys_of_others(uid, documents)


def keys_of_others(document_id: str, documents: Documents) -> Iterator[str]:
    """Where the documents that bear an id are found."""
    yield _elsewhere(document_id)
    for database, path in documents.plain_paths(document_id):
        yield document_key(database, path)


class Memory:
    """What is known, read and kept by what it means."""

    def __init__(self, known: Known, tombstone_s: float) -> None:
        self._known = known
        self._tombstone_s = tombstone_s

    def taken(self, key: str) -> Taken | None:
        """What was last taken of a document or user; None when it never was, or is deleted."""
        value = self._known.find(key)
        return None if value is None else _taken(value)

    def take(self, key: str, taken: Taken) -> None:
        """Remember what is taken of it now."""
        self._known.keep(key, _encode(taken))

    def ended(self, key: str) -> int | None:
        """The time of the last version of a document or user that was deleted lately."""
        value = self._known.find(_ended(key))
        return None if value is None else _number(value)

    def end(self, key: str, time: int) -> None:
        """Remember that it is deleted, and since which version."""
        self._known.drop(key)
        self._known.keep(_ended(key), _encode(time), LATE_S)

    def gone(self, user_id: str) -> Gone | None:
        """The person's last deletion."""
        value = self._known.find(_life(user_id))
        return None if value is None else _gone(value)

    def life(self, user_ids: Iterable[str]) -> int:
        """Which life a person is in, who may be known by several ids; 0 is the first."""
        life = 0
        for user_id in user_ids:
            if (gone := self.gone(user_id)) is not None and gone.at > life:
                life = gone.at
        return life

    def bury(self, user_ids: Iterable[str], at: int, cause: str) -> None:
        """Remember that a person is deleted; for a while only something newly created brings them back."""
        for user_id in user_ids:
            before = self.gone(user_id)
            later = at if before is None else max(at, before.at + 1)
            self._known.keep(_life(user_id), _encode(Gone(later, cause)), FORGOTTEN_S)
            if self._tombstone_s:
                self._known.keep(_closed(user_id), b"", self._tombstone_s)

    def closed(self, user_ids: Iterable[str], created: int, key: str = "") -> bool:
        """Whether a person is deleted, and this, created then and kept under `key`, is too old to return."""
        for user_id in user_ids:
            gone = self.gone(user_id)
            if gone is None or created > gone.at or gone.cause == key:
                continue
            if self._known.find(_closed(user_id)) is not None:
                return True
        return False

    def open(self, user_ids: Iterable[str]) -> None:
        """Let everything bring a person back: something newly created has."""
        for user_id in user_ids:
            if self.gone(user_id) is not None:
                self._known.drop(_closed(user_id))

    def place(self, document_id: str, key: str) -> None:
        """Remember where a document of this id is whose collection has wildcards."""
        places = [place for place in self._places(document_id) if place != key]
        self._known.keep(_elsewhere(document_id), _encode([*places, key][-MOST_PLACES:]))

    def displace(self, document_id: str, key: str) -> None:
        """Forget where a document of this id was."""
        places = self._places(document_id)
        left = [place for place in places if place != key]
        if left:
            self._known.keep(_elsewhere(document_id), _encode(left))
        elif places:
            self._known.drop(_elsewhere(document_id))

    def _places(self, document_id: str) -> list[str]:
        value = self._known.find(_elsewhere(document_id))
        places = [] if value is None else _keys(value)
        return [places] if isinstance(places, str) else places  # one alone, as it was kept at first

    def documents_of(self, uid: str, documents: Documents) -> list[tuple[str, Taken]]:
        """The live documents that bear an id, and what was taken of each."""
        keys = [document_key(database, path) for database, path in documents.plain_paths(uid)]
        keys += [key for key in self._places(uid) if documents.of(*_place_of(key)) is not None]
        return [(key, taken) for key in keys if (taken := self.taken(key)) is not None]

    def forget(self, key: str, taken: Taken, names: Collection[str]) -> None:
        """Have attributes sent again when this document or user is next looked at."""
        if any(name in taken.hashes for name in names):
            left = {name: digest for name, digest in taken.hashes.items() if name not in names}
            self.take(key, msgspec.structs.replace(taken, hashes=left, again=taken.again + 1))

    def owe(self, key: str) -> None:
        """Have a document or user told whole when it is next told: what it was did not arrive somewhere."""
        taken = self.taken(key)
        if taken is not None:
            self.take(key, msgspec.structs.replace(taken, again=taken.again + 1, owed=True))

    def told(self, key: str, time: int) -> bool:
        """Whether this version was found unfit before; from now on it was."""
        value = self._known.find(_unfit(key))
        if value is not None and _number(value) == time:
            return True
        self._known.keep(_unfit(key), _encode(time), FORGOTTEN_S)
        return False
