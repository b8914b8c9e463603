"""The two kinds of change in Firebase, whichever way they were heard of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

Fields: TypeAlias = Mapping[str, Any]
"""A document's fields in Firestore's typed JSON (REST v1): `{"plan": {"stringValue": "gold"}}`."""


class DocumentChange(Struct, frozen=True, gc=False):
    """One version of a document, or its absence.

    `path` is relative: `users/u1`. `update_time` is RFC 3339 as Firestore gave it: the version's own; of a
    deletion (`fields` None) a moment at which the document is known to be gone or to have been as in `old`:
    the update time of its last version (events), or when the listing that lacks it was asked for (polls).
    `at` is the event's own time, for tombstones only. `epoch` marks what an import lists,
    `full` what is to be told whole again, also where it did not change.
    """

    database: str
    path: str
    fields: Fields | None
    update_time: str
    create_time: str = ""
    old: Fields | None = None
    event_id: str = ""
    epoch: bool = False
    at: str = ""
    full: bool = False

    @property
    def document_id(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class UserChange(Struct, frozen=True, gc=False):
    """An Auth user as of `at` (RFC 3339), or its deletion (`user` None).

    `user` has the names of any of Google's forms: UserRecord JSON, CloudEvent data, or the account of the
    Identity Toolkit API (`localId`, `photoUrl`, `createdAt` in milliseconds as text …). Of a listing, `at`
    is when its page was asked for. `old` is a deleted user as it was, where that is known.
    """

    uid: str
    user: Mapping[str, Any] | None
    at: str
    event_id: str = ""
    tenant: str = ""
    epoch: bool = False
    old: Mapping[str, Any] | None = None
    full: bool = False


Change: TypeAlias = DocumentChange | UserChange
