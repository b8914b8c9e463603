"""Changes of Auth users as messages: by their times, as differences, without what their document says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from ..source import Heard, Ignored
from ._firebase_documents import Documents
from ._firebase_kinds import UserChange
from ._firebase_known import NEVER, Memory, Taken, hashes, keys_of_user, user_key
from ._firebase_messages import Letters
from ._firebase_settings import FirebaseSettings
from ._firebase_users import Account, account
from ._firebase_values import Unreadable, version_time


class Moment(Struct, frozen=True, gc=False):
    """A change of a user, read: `account` where the user is there."""

    change: UserChange
    key: str
    time: int
    account: Account | None = None


class _Person(Struct, frozen=True):
    """Who a user is to the destination. `user_id` is the uid, or the e-mail by which a document calls them.

    `ids` are all that they go by; `told` are attributes that their documents give, which stand above Auth's;
    `life` is the one they are in.
    """

    user_id: str
    ids: tuple[str, ...]
    told: frozenset[str]
    life: int


class UserChanges:
    """Makes messages of moments."""

    def __init__(self, settings: FirebaseSettings, documents: Documents, letters: Letters) -> None:
        self._auth = settings.auth
        self._anonymous = settings.anonymous_users
        self._documents = documents
        self._letters = letters

    def read(self, change: UserChange) -> Moment | Heard:
        """Read a change; what says nothing of a person is answered at once."""
        if not self._auth:
            return Ignored("auth")
        try:
            time = version_time(change.at)
        except Unreadable as error:
            return self._letters.unfit(change, "time", f"its time is {error}")
        read = None if change.user is None else account(change.user)
        return Moment(change, user_key(change.tenant, change.uid), time, read)

    def keys(self, moment: Moment) -> Iterator[str]:
        """What `heard` will look at, to be read at once."""
        yield from keys_of_user(moment.key, moment.change.uid, self._documents)

    def heard(self, moment: Moment, memory: Memory) -> Iterator[Heard]:
        """One moment as messages."""
        if moment.change.full:
            memory.owe(moment.key)
        taken, ended = memory.taken(moment.key), memory.ended(moment.key)
        if _is_stale(moment, taken, ended):
            yield Ignored("stale")
        elif moment.account is None:
            yield from self._deleted(moment, taken, memory)
        elif moment.account.anonymous and self._anonymous == "skip":
            yield Ignored("anonymous")
        else:
            yield from self._written(moment, moment.account, taken, memory)

    def _person(self, uid: str, memory: Memory) -> _Person:
        mine = [
            taken
            for _, taken in memory.documents_of(uid, self._documents)
            if taken.user_id == uid or "@" in taken.user_id
        ]
        emails = [taken.user_id for taken in mine if taken.user_id != uid]
        life = memory.life((uid, *emails))
        told = {name for taken in mine if taken.life == life for name in taken.hashes}
        # An e-mail that someone is called by is no attribute: another value would detach them from it.
        told |= {"email"} if emails else set()
        return _Person(emails[0] if emails else uid, (uid, *emails), frozenset(told), life)

    def _written(
        self, moment: Moment, account: Account, taken: Taken | None, memory: Memory
    ) -> Iterator[Heard]:
        person = self._person(moment.change.uid, memory)
        attributes = {name: value for name, value in account.attributes.items() if name not in person.told}
        now = self._now(moment, account, person, attributes, taken)
        if person.life and memory.closed(person.ids, now.created):
            memory.take(moment.key, msgspec.structs.replace(now, life=NEVER))
            yield Ignored("deleted")
            return
        before = taken
        if before is not None and before.life != person.life:
            if before.hashes == now.hashes:
                memory.take(moment.key, msgspec.structs.replace(now, life=before.life))
                yield Ignored("unchanged")
                return
            before = None
        told = self._told(moment, person, attributes, before, now)
        owed = before is not None and before.owed and isinstance(told, Ignored)
        memory.take(moment.key, msgspec.structs.replace(now, owed=owed))
        if person.life:
            memory.open(person.ids)
        yield told

    def _now(
        self,
        moment: Moment,
        account: Account,
        person: _Person,
        attributes: dict[str, Any],
        taken: Taken | None,
    ) -> Taken:
        return Taken(
            moment.time,
            person.user_id,
            hashes(moment.key, attributes),
            person.life,
            account.created_ns,
            anonymous=account.anonymous and self._anonymous == "anonymous",
            by_uid=person.user_id == moment.change.uid or (taken is not None and taken.by_uid),
        )

    def _told(
        self, moment: Moment, person: _Person, attributes: dict[str, Any], before: Taken | None, now: Taken
    ) -> Heard:
        """What of it is news. Who was anonymous so far is told of in full, with the id they had."""
        uid = moment.change.uid
        if now.anonymous:
            traits = _news(attributes, before, now, person)
            return self._said(moment, None, traits, uid) if traits or before is None else Ignored("unchanged")
        if before is None or before.anonymous:
            was = uid if before is not None else None
            return self._said(moment, person.user_id, attributes, was)
        traits = _news(attributes, before, now, person)
        if before.owed and (traits or moment.change.full):
            traits = attributes | traits
        return self._said(moment, person.user_id, traits) if traits else Ignored("unchanged")

    def _said(
        self, moment: Moment, user_id: str | None, traits: dict[str, Any], anonymous_id: str | None = None
    ) -> Heard:
        return self._letters.identify(moment.change, user_id, traits, anonymous_id=anonymous_id)

    def _deleted(self, moment: Moment, taken: Taken | None, memory: Memory) -> Iterator[Heard]:
        """The end of the person, by every id they were or are called by (F020)."""
        change = moment.change
        person = self._person(change.uid, memory)
        memory.end(moment.key, moment.time)
        if self._was_anonymous(change, taken):
            yield Ignored("anonymous")
        elif taken.life != person.life if taken is not None else memory.closed(person.ids, 0):
            yield Ignored("deleted")
        else:
            memory.bury(person.ids, moment.time, moment.key)
            called = [person.user_id, *([change.uid] if taken is not None and taken.by_uid else [])]
            yield from (self._letters.delete(change, user_id) for user_id in dict.fromkeys(called))

    def _was_anonymous(self, change: UserChange, taken: Taken | None) -> bool:
        if self._anonymous == "person":
            return False
        if taken is not None:
            return taken.anonymous
        return change.old is not None and account(change.old).anonymous


def _is_stale(moment: Moment, taken: Taken | None, ended: int | None) -> bool:
    """Whether something newer was taken. A deletion is past only for a user who was created after it."""
    if taken is None:
        return ended is not None and moment.time <= ended
    if moment.account is None:
        return taken.created > moment.time
    return moment.time < taken.time


def _news(attributes: dict[str, Any], before: Taken | None, now: Taken, person: _Person) -> dict[str, Any]:
    """Attributes that differ, and as empty those that are gone and that no document gives."""
    had = before.hashes if before is not None else {}
    changed = {name: value for name, value in attributes.items() if had.get(name) != now.hashes[name]}
    return changed | dict.fromkeys(sorted(had.keys() - attributes.keys() - person.told), "")
