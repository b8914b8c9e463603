"""The messages that changes in Firebase become: their ids, times and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..message import Message
from ..source import Unfit
from ._firebase_kinds import Change, DocumentChange, UserChange
from ._firebase_settings import FirebaseSettings

RAW_BYTES: Final = 64 * 1024
"""The most of an unfit change that is kept with its reason."""


class Letters:
    """Writes messages about one project's documents and users."""

    def __init__(self, settings: FirebaseSettings) -> None:
        self._project = settings.project
        # What a version becomes depends on these: after a change of them the same version is another message.
        told = (
            settings.collections,
            settings.timestamps,
            settings.identifier_changes,
            settings.anonymous_users,
        )
        self._salt = hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()

    def identify(
        self,
        change: Change,
        user_id: str | None,
        traits: dict[str, Any],
        *,
        anonymous_id: str | None = None,
        again: int = 0,
        **about: Any,
    ) -> Message:
        """What a person is now. `about` goes beside the place it comes from."""
        return Message(
            type="identify",
            message_id=self._id(
                change, "identify", user_id or "", *([f"again {again}"] if again else ()), *traits
            ),
            user_id=user_id,
            anonymous_id=anonymous_id,
            traits=traits,
            context=self._context(change, about),
            timestamp=_moment(change),
        )

    def parting(self, change: DocumentChange, user_id: str, names: Sequence[str]) -> Message:
        """What a person loses with one of their documents, who keeps others."""
        return Message(
            type="identify",
            message_id=self._id(change, "parting", user_id, *names),
            user_id=user_id,
            traits=dict.fromkeys(names, ""),
            context=self._context(change, {}),
            timestamp=change.at or change.update_time,
        )

    def delete(self, change: Change, user_id: str) -> Message:
        """The end of a person."""
        return Message(
            type="delete",
            message_id=self._id(change, "delete", user_id),
            user_id=user_id,
            context=self._context(change, {}),
            timestamp=_moment(change),
        )

    def alias(self, change: Change, previous_id: str, user_id: str) -> Message:
        """The union of two people."""
        return Message(
            type="alias",
            message_id=self._id(change, "alias", user_id),
            user_id=user_id,
            previous_id=previous_id,
            context=self._context(change, {}),
            timestamp=_moment(change),
        )

    def unfit(self, change: Change, code: str, says: str) -> Unfit:
        """What cannot be taken: where it is, and what is wrong, without its values."""
        try:
            raw = msgspec.json.encode(change)
        except (ValueError, OverflowError, RecursionError):  # values that JSON cannot carry on
            raw = b""
        return Unfit(code, f"{self._where(change)}: {says}", kept_of(raw))

    def _where(self, change: Change) -> str:
        if isinstance(change, DocumentChange):
            return f"project {self._project}, database {change.database}, document {change.path}"
        return f"project {self._project}, Auth user {change.uid}"

    def _context(self, change: Change, about: dict[str, Any]) -> dict[str, Any]:
        place: dict[str, Any] = {"project": self._project}
        if isinstance(change, DocumentChange):
            place |= {"database": change.database, "document": change.path, "update_time": change.update_time}
        else:
            place |= {"user": change.uid, "at": change.at}
            if change.tenant:
                place["tenant"] = change.tenant
        if change.epoch:
            place["listed"] = True
        return {"source": {"firebase": place | about}}

    def _id(self, change: Change, *said: str) -> str:
        """A hash of the version, or of a user's event, and of what is said: what comes twice is kept once.

        The names of attributes count, since one that another document took back is said again, alone.
        """
        if isinstance(change, UserChange):
            what = change.event_id or f"{change.tenant}\0{change.uid}\0{change.at}"
            made = f"user\0{what}"
        else:
            made = f"document\0{change.database}\0{change.path}\0{change.update_time}"
        text = "\0".join((self._project, self._salt, made, *said))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kept_of(raw: bytes) -> bytes:
    """What is kept of something unfit: all of it, or nothing where that is too much."""
    return raw if len(raw) <= RAW_BYTES else b""


def _moment(change: Change) -> str:
    return change.update_time if isinstance(change, DocumentChange) else change.at
