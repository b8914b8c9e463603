"""What changed in Firebase, and the messages it becomes, against what is known of what was taken before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..message import Message
from ..source import Heard, Known
from ._firebase_document_changes import DocumentChanges, Version
from ._firebase_documents import Documents
from ._firebase_kinds import Change, DocumentChange, Fields, UserChange
from ._firebase_known import Memory, document_key, user_key
from ._firebase_messages import Letters
from ._firebase_settings import FirebaseSettings
from ._firebase_user_changes import Moment, UserChanges

__all__ = ["Change", "Changes", "DocumentChange", "Fields", "UserChange", "document_key", "user_key"]


class Changes:
    """Makes messages of changes, in order; what they rest on is remembered in `known`."""

    def __init__(self, settings: FirebaseSettings) -> None:
        documents, letters = Documents(settings), Letters(settings)
        self._tombstone_s = settings.tombstone.total_seconds()
        self._documents = DocumentChanges(settings, documents, letters)
        self._users = UserChanges(settings, documents, letters)

    def heard(self, changes: Iterable[Change | Heard], known: Known) -> Iterator[Heard]:
        """Changes as messages; what is none, like something unfit, is passed on in its place."""
        read = [self._read(change) for change in changes]
        known.load(list(self._keys(read)))
        memory = Memory(known, self._tombstone_s)
        for one in read:
            if isinstance(one, Version):
                yield from self._documents.heard(one, memory)
            elif isinstance(one, Moment):
                yield from self._users.heard(one, memory)
            else:
                yield one

    def undelivered(self, message: Message, known: Known) -> None:
        """Have what a message told told whole again, once it changes: somewhere it became a dead letter."""
        source = message.context.get("source")
        place = source.get("firebase") if isinstance(source, dict) else None
        if not isinstance(place, dict):
            return
        memory = Memory(known, self._tombstone_s)
        if "document" in place:
            memory.owe(document_key(str(place.get("database")), str(place["document"])))
        elif "user" in place:
            memory.owe(user_key(str(place.get("tenant", "")), str(place["user"])))

    def _read(self, change: Change | Heard) -> Version | Moment | Heard:
        if isinstance(change, DocumentChange):
            return self._documents.read(change)
        return self._users.read(change) if isinstance(change, UserChange) else change

    def _keys(self, read: Iterable[Version | Moment | Heard]) -> Iterator[str]:
        for one in read:
            if isinstance(one, Version):
                yield from self._documents.keys(one)
            elif isinstance(one, Moment):
                yield from self._users.keys(one)
