"""Changes of documents as messages: in the order of their versions (F050), as differences (F051)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from ..source import Heard, Ignored
from ._firebase_documents import Documents, Profile, Watched, Wrong
from ._firebase_kinds import DocumentChange
from ._firebase_known import (
    NEVER,
    Memory,
    Taken,
    document_key,
    hashes,
    keys_of_document,
    keys_of_others,
    user_key,
)
from ._firebase_messages import Letters
from ._firebase_settings import FirebaseSettings
from ._firebase_values import NS, Unreadable, version_time


class Version(Struct, frozen=True, gc=False):
    """A change of a watched document, read: `profile` where there is one and it is not `wrong`.

    `time` and `created` are nanoseconds; 0 where Firestore did not say when it was created.
    """

    change: DocumentChange
    watched: Watched
    key: str
    time: int
    created: int = 0
    profile: Profile | None = None
    wrong: str = ""

    def people(self, user_id: str) -> tuple[str, ...]:
        """The ids of a person: one known by e-mail bears the document's id as well."""
        document_id = self.change.document_id
        return (user_id, document_id) if "@" in user_id and user_id != document_id else (user_id,)


class DocumentChanges:
    """Makes messages of versions."""

    def __init__(self, settings: FirebaseSettings, documents: Documents, letters: Letters) -> None:
        self._documents = documents
        self._letters = letters
        self._identifier_changes = settings.identifier_changes
        self._tenants = ("", *settings.tenants) if settings.auth else ()

    def read(self, change: DocumentChange) -> Version | Heard:
        """Read a change; what says nothing of a person is answered at once."""
        watched = self._documents.of(change.database, change.path)
        if watched is None:
            return Ignored("collection")
        key = document_key(change.database, change.path)
        try:
            time = version_time(change.update_time)
        except Unreadable as error:
            return self._letters.unfit(change, "update_time", f"its update time is {error}")
        if change.fields is None:
            return Version(change, watched, key, time)
        created = _instant(change.create_time)
        try:
            profile = self._documents.profile(watched, change.path, change.fields)
        except Wrong as error:
            return Version(change, watched, key, time, created, wrong=str(error))
        return Version(change, watched, key, time, created, profile)

    def keys(self, version: Version) -> Iterable[str]:
        """What `heard` will look at, to be read at once."""
        document_id = version.change.document_id
        ids = {version.profile.user_id, document_id} if version.profile else {document_id}
        found = keys_of_document(version.key, ids, self._tenants)
        return [*found, *keys_of_others(document_id, self._documents)] if _is_end(version) else found

    def heard(self, version: Version, memory: Memory) -> Iterator[Heard]:
        """One version as messages."""
        if version.change.full:
            memory.owe(version.key)
        taken, ended = memory.taken(version.key), memory.ended(version.key)
        if _is_stale(version, taken, ended):
            yield Ignored("stale")
        elif version.profile is not None:
            yield from self._written(version, version.profile, taken, memory)
        elif version.wrong:
            says = f"{version.wrong}. It is taken again as soon as it is written anew"
            told = memory.told(version.key, version.time)
            yield Ignored("unfit") if told else self._letters.unfit(version.change, "document", says)
        else:
            yield from self._deleted(version, taken, memory)

    def _written(
        self, version: Version, profile: Profile, taken: Taken | None, memory: Memory
    ) -> Iterator[Heard]:
        people = version.people(profile.user_id)
        life = memory.life(people)
        again = taken.again if taken is not None and taken.time == version.time else 0
        now = Taken(version.time, profile.user_id, hashes(version.key, profile.attributes), life, again=again)
        if life and memory.closed(people, version.created, version.key):
            memory.take(version.key, msgspec.structs.replace(now, life=NEVER))
            yield Ignored("deleted")
            return
        before = taken if taken is not None else self._told_by_old(version)
        if before is not None and before.life != life:
            if version.created <= life and (before.user_id, before.hashes) == (now.user_id, now.hashes):
                memory.take(version.key, msgspec.structs.replace(now, life=before.life))
                yield Ignored("unchanged")
                return
            before = None
        self._take(version, now, taken, memory)
        if life:
            memory.open(people)
        yield from self._told(version, profile, before, now, memory, first=taken is None)

    def _told(
        self,
        version: Version,
        profile: Profile,
        before: Taken | None,
        now: Taken,
        memory: Memory,
        *,
        first: bool,
    ) -> Iterator[Heard]:
        """What of a version is news; all of it, where it is the first one heard of."""
        if before is not None and before.user_id != now.user_id:
            yield from self._renamed(version, profile, before, memory)
            return
        traits: dict[str, Any] = {}
        if before is not None:
            traits = _changed(profile, before, now.hashes) | self._removed(version, profile, before, memory)
        owed = before is not None and before.owed
        if before is None or first or (owed and (traits or version.change.full)):
            traits = self._in_full(version, profile, memory) | traits
        if traits or before is None or first:
            yield self._letters.identify(
                version.change, now.user_id, traits, again=now.again, **_about(profile)
            )
            return
        if owed:  # it is a dead letter already, and unchanged it would be one again
            memory.take(version.key, msgspec.structs.replace(now, owed=True))
        yield Ignored("unchanged")

    def _take(self, version: Version, now: Taken, taken: Taken | None, memory: Memory) -> None:
        memory.take(version.key, now)
        if taken is None and not version.watched.plain:
            memory.place(version.change.document_id, version.key)

    def _told_by_old(self, version: Version) -> Taken | None:
        """What an event says the document was before, where nothing was taken of it."""
        old = self._old_profile(version)
        return None if old is None else Taken(0, old.user_id, hashes(version.key, old.attributes))

    def _old_profile(self, version: Version) -> Profile | None:
        change = version.change
        try:
            return self._documents.profile(version.watched, change.path, change.old) if change.old else None
        except Wrong:
            return None

    def _in_full(self, version: Version, profile: Profile, memory: Memory) -> dict[str, Any]:
        return {**profile.attributes, **self._created_at(version, profile, memory)}

    def _created_at(self, version: Version, profile: Profile, memory: Memory) -> dict[str, int]:
        """When the document was created, where neither it nor an Auth user says it better (F038)."""
        if "created_at" in profile.attributes or not version.created:
            return {}
        for uid in {version.change.document_id, profile.user_id}:
            for tenant in self._tenants:
                user = memory.taken(user_key(tenant, uid))
                if user is not None and "created_at" in user.hashes and self._is_alive(user, version, memory):
                    return {}
        return {"created_at": version.created // NS}

    def _is_alive(self, user: Taken, version: Version, memory: Memory) -> bool:
        """Whether what was sent of a user outlived the person's last deletion."""
        return user.life == memory.life(version.people(user.user_id))

    def _removed(self, version: Version, profile: Profile, before: Taken, memory: Memory) -> dict[str, Any]:
        """Attributes the document had and has no more, as what removes them (F037).

        Its identifiers stay (F039). Whoever else gave the person one of them gives it again, later.
        """
        kept = {"id", "email"} if profile.by_email else {"id"}
        names = before.hashes.keys() - profile.attributes.keys() - kept
        if not names:
            return {}
        self._forget(version, names, memory)
        removed: dict[str, Any] = dict.fromkeys(sorted(names), "")
        if "created_at" in names:
            del removed["created_at"]
            removed |= self._created_at(version, profile, memory)
        return removed

    def _forget(self, version: Version, names: Collection[str], memory: Memory) -> None:
        document_id = version.change.document_id
        for key, taken in memory.documents_of(document_id, self._documents):
            if key != version.key:
                memory.forget(key, taken, names)
        for tenant in self._tenants:
            key = user_key(tenant, document_id)
            if (user := memory.taken(key)) is not None:
                memory.forget(key, user, names)

    def _renamed(self, version: Version, profile: Profile, before: Taken, memory: Memory) -> Iterator[Heard]:
        """The document names another person than before, or the same one by another identifier."""
        change, now = version.change, profile.user_id
        if _is_same_person(version, profile, before):
            traits = {**profile.attributes, **self._removed(version, profile, before, memory)}
            yield self._letters.identify(change, now, traits, **_about(profile))
        elif self._identifier_changes == "rename":
            traits = {**profile.attributes, **self._removed(version, profile, before, memory)}
            traits["email" if profile.by_email else "id"] = now
            yield self._letters.identify(change, before.user_id, traits, **_about(profile))
        else:
            traits = self._in_full(version, profile, memory)
            if profile.attributes.get("id") == version.change.document_id:  # perhaps the same person
                traits |= self._removed(version, profile, before, memory)
            about = {**_about(profile), "identifier_changed": True}
            yield self._letters.identify(change, now, traits, **about)
            if self._identifier_changes == "merge":
                yield self._letters.alias(change, before.user_id, now)
            else:
                yield Ignored("identifier changed")

    def _deleted(self, version: Version, taken: Taken | None, memory: Memory) -> Iterator[Heard]:
        """The end of the person whom the document named last (F036), unless another document still does."""
        last = taken if taken is not None else self._told_by_old(version)
        memory.end(version.key, version.time)
        if not version.watched.plain:
            memory.displace(version.change.document_id, version.key)
        if last is None:
            yield Ignored("unknown")
            return
        people = version.people(last.user_id)
        if taken.life != memory.life(people) if taken is not None else memory.closed(people, 0):
            yield Ignored("deleted")
        elif others := self._others(version, people, memory):
            yield self._parted(version, last, others, memory)
        else:
            memory.bury(people, max(version.time, _instant(version.change.at)), version.key)
            yield self._letters.delete(version.change, last.user_id)

    def _others(self, version: Version, people: Collection[str], memory: Memory) -> list[Taken]:
        """What was taken of further documents of the same id that name the same person."""
        document_id, life = version.change.document_id, memory.life(people)
        return [
            taken
            for key, taken in memory.documents_of(document_id, self._documents)
            if key != version.key
            and taken.life == life
            and (taken.user_id in people or (document_id in people and _bears(key, taken, document_id)))
        ]

    def _parted(self, version: Version, last: Taken, others: Collection[Taken], memory: Memory) -> Heard:
        """What only this document gave is removed; what another one gives as well, that one tells again."""
        kept = {"id", "email", "created_at"} if "@" in last.user_id else {"id", "created_at"}
        names = last.hashes.keys() - kept
        self._forget(version, names, memory)
        gone = sorted(names.difference(*(other.hashes for other in others)))
        if not gone:
            return Ignored("another document")
        return self._letters.parting(version.change, last.user_id, gone)


def _is_end(version: Version) -> bool:
    return version.change.fields is None


def _is_stale(version: Version, taken: Taken | None, ended: int | None) -> bool:
    """Whether something newer was taken. The same version is compared again: its mapping may differ now."""
    if taken is None:
        return ended is not None and version.time <= ended
    return version.time < taken.time


def _is_same_person(version: Version, profile: Profile, before: Taken) -> bool:
    """Whether the two ids are an e-mail and the document's id, which was or is that person's id."""
    document_id = version.change.document_id
    if before.user_id == document_id:
        return profile.by_email and profile.attributes.get("id") == document_id
    return profile.user_id == document_id and _bears(version.key, before, document_id)


def _bears(key: str, taken: Taken, document_id: str) -> bool:
    """Whether a document calls its person by e-mail, and gives them its own id."""
    return "@" in taken.user_id and hashes(key, {"id": document_id})["id"] == taken.hashes.get("id")


def _changed(profile: Profile, before: Taken, now: dict[str, bytes]) -> dict[str, Any]:
    had = before.hashes
    return {name: value for name, value in profile.attributes.items() if had.get(name) != now[name]}


def _about(profile: Profile) -> dict[str, Any]:
    return {"left_out": list(profile.left_out)} if profile.left_out else {}


def _instant(text: str) -> int:
    try:
        return version_time(text) if text else 0
    except Unreadable:
        return 0
