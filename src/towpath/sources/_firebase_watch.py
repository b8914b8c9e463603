"""Listening to Firestore: a stream per database, resumed where it stopped, renewed when it falls silent."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeAlias

from msgspec import Struct

from ..http import Undelivered
from ..outcome import Paused, Rejected, Retry
from ..source import Page, SourceScope, State
from ..vendors.firestore_stream import Ended, Target, require_grpc, responses, status_name
from ._firebase_changes import Change, DocumentChange, document_key
from ._firebase_lists import DocumentList, Seen, unseen
from ._firebase_project import Project
from ._firebase_values import document, rfc3339

MOST_WAITING = 1000
"""Changes read ahead of what is kept; beyond it Firestore is not read, and holds the rest back."""
MOST_AT_ONCE = 500
CURRENT, RESET = 3, 4
"""Of `google.firestore.v1.TargetChange.TargetChangeType`."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REFUSED: Mapping[str, type[Paused] | type[Rejected]] = {
    "PERMISSION_DENIED": Paused,
    "NOT_FOUND": Rejected,
    "INVALID_ARGUMENT": Rejected,
    "FAILED_PRECONDITION": Rejected,
    "UNIMPLEMENTED": Rejected,
}
"""What does not pass by itself; every other end of a stream does."""

Connect: TypeAlias = Callable[[str, Sequence[Target]], AsyncGenerator[Any, None]]
"""The responses about targets of a database, for as long as the connection lasts."""


class Token(Struct, frozen=True):
    """Everything about these targets up to here has been sent."""

    stream: Stream
    numbers: Sequence[int]
    value: bytes


class Set(Struct):
    """All documents of a target, as they come until it is said to be current.

    `anew` says that it replaces one that this connection had whole before.
    """

    seen: Seen
    anew: bool


class Failed(Struct, frozen=True):
    """A stream has ended for good."""

    error: Exception


Event: TypeAlias = Change | Token | Failed


def _text(token: bytes) -> str:
    return b64encode(token).decode()


def listen(project: Project, state: State, scope: SourceScope) -> AsyncIterator[Page] | None:
    """What changes in the collections, for ever; None where the settings ask for none.

    Without a `state` every document comes at first, like one that changed. Raises `TowpathError` where gRPC
    is not installed; the pages raise `Undelivered` for what Google refuses.
    """
    if not project.settings.listen or not project.settings.collections or project.credential is None:
        return None
    require_grpc()
    credential, url = project.credential, project.settings.firestore_url

    def connect(database: str, targets: Sequence[Target]) -> AsyncGenerator[Any, None]:
        return responses(scope.http, url, credential, database, targets)

    return Watch(project, scope, connect).pages(state)


class Stream:
    """One database's collections, by target number, and how far each is heard."""

    def __init__(self, name: str, collections: Sequence[DocumentList]) -> None:
        self.name = name
        self.collections = dict(enumerate(collections, 1))
        self._keys = {number: f"{one.root}/{one.name}" for number, one in self.collections.items()}
        self._tokens: dict[int, bytes] = {}

    def recall(self, state: State) -> None:
        """Go on where it was left, also by a process before this one."""
        found = {number: str(state.get(key, "")) for number, key in self._keys.items()}
        self._tokens = {number: b64decode(token) for number, token in found.items() if token}

    def targets(self) -> list[Target]:
        """What is listened to, each from where it was left."""
        return [
            Target(number, one.root, one.collection_id, one.everywhere, self._tokens.get(number, b""))
            for number, one in self.collections.items()
        ]

    def state(self, token: Token) -> State:
        """How far it is heard, to be kept with what was heard."""
        return dict.fromkeys([self._keys[number] for number in token.numbers], _text(token.value))

    def reached(self, token: Token) -> None:
        """Go on from here next time: it is kept."""
        self._tokens |= dict.fromkeys(token.numbers, token.value)

    def forget(self) -> bool:
        """Begin with everything next time; False where that was so already."""
        known = bool(self._tokens)
        self._tokens.clear()
        return known


class Watch:
    """Reads the streams of a project into one bounded queue, and renews them."""

    def __init__(self, project: Project, scope: SourceScope, connect: Connect) -> None:
        self.project = project
        self.scope = scope
        self.connect = connect
        self.silence_s = project.settings.silence.total_seconds()
        self._queue = asyncio.Queue[Event](MOST_WAITING)

    async def pages(self, state: State) -> AsyncIterator[Page]:
        """What comes after `state`, for ever, as much at once as waits."""
        streams = self._streams()
        for stream in streams:
            stream.recall(state)
        running = [asyncio.create_task(self._run(stream)) for stream in streams]
        try:
            while True:
                events = await self._waiting()
                tokens = [event for event in events if isinstance(event, Token)]
                items = [event for event in events if isinstance(event, DocumentChange)]
                for token in tokens:
                    state = {**state, **token.stream.state(token)}
                if items or tokens:
                    yield Page(items, state)
                for token in tokens:
                    token.stream.reached(token)
                for event in events:
                    if isinstance(event, Failed):
                        raise event.error
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _streams(self) -> list[Stream]:
        lists = [one for one in self.project.lists(self.scope) if isinstance(one, DocumentList)]
        databases = dict.fromkeys(one.database for one in lists)
        return [Stream(name, [one for one in lists if one.database == name]) for name in databases]

    async def _waiting(self) -> list[Event]:
        """At least one event, and what waits behind it."""
        events = [await self._queue.get()]
        with suppress(asyncio.QueueEmpty):
            while len(events) < MOST_AT_ONCE:
                events.append(self._queue.get_nowait())
        return events

    async def _run(self, stream: Stream) -> None:
        """Connect, and connect again, until something is refused for good."""
        pause_s = FIRST_PAUSE_S
        while True:
            connection = Connection(self, stream, self._queue)
            try:
                await connection.last()
            except Ended as error:
                if (outcome := self._refusal(error, stream)) is not None:
                    return await self._queue.put(Failed(Undelivered(outcome)))
            except Undelivered as error:
                if not isinstance(error.outcome, Retry):
                    return await self._queue.put(Failed(error))
            except Exception as error:
                return await self._queue.put(Failed(error))
            if connection.heard:
                pause_s = FIRST_PAUSE_S
            await self.scope.clock.sleep(pause_s * self.scope.clock.uniform(1.0, 1.2))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _refusal(self, error: Ended, stream: Stream) -> Paused | Rejected | None:
        """What an end for good means; None where it passes."""
        if error.code == "UNAUTHENTICATED" and self.project.credential is not None:
            self.project.credential.forget()
        refused = REFUSED.get(error.code)
        # It may be the resume token that is not taken any more.
        if refused is None or stream.forget():
            return None
        return refused(f"Firestore ended the stream of database {stream.name} ({error})")


class Connection:
    """One connection of a stream: it lasts until it ends, fails, or says nothing for too long."""

    def __init__(self, watch: Watch, stream: Stream, queue: asyncio.Queue[Event]) -> None:
        self.stream = stream
        self.heard = False
        self._connect = watch.connect
        self._clock = watch.scope.clock
        self._silence_s = watch.silence_s
        self._api = watch.project.firestore(watch.scope)
        self._known = watch.scope.known
        self._queue = queue
        self._last_s = self._clock.monotonic()
        self._putting = False
        self._sets: dict[int, Set] = {}
        self._whole: set[int] = set()

    async def last(self) -> None:
        """Read until it is over. Raises `Ended` or `Undelivered`; silence just returns."""
        reading = asyncio.create_task(self._read())
        watching = asyncio.create_task(self._await_silence())
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            for task in (reading, watching):
                task.cancel()
            await asyncio.gather(reading, watching, return_exceptions=True)

    async def _await_silence(self) -> None:
        """Return once nothing came for too long. Firestore says something every 30 s or so."""
        while True:
            quiet_s = 0.0 if self._putting else self._clock.monotonic() - self._last_s
            if quiet_s >= self._silence_s:
                return
            await self._clock.sleep(self._silence_s - quiet_s)

    async def _read(self) -> None:
        root = self._api.root(self.stream.name)
        targets = self.stream.targets()
        self._sets = {one.number: Set(Seen(), anew=False) for one in targets if not one.resume_token}
        async with aclosing(self._connect(root.removesuffix("/documents"), targets)) as heard:
            async for response in heard:
                self.heard = True
                await self._take(response, f"{root}/")
                self._last_s = self._clock.monotonic()

    async def _take(self, response: Any, root: str) -> None:
        self._putting = True
        try:
            for event in await self._events(response, root):
                await self._queue.put(event)
        finally:
            self._putting = False

    async def _events(self, response: Any, root: str) -> Sequence[Event]:
        match response.WhichOneof("response_type"):
            case "document_change":
                return await self._changed(response.document_change, root)
            case "document_delete":
                gone = response.document_delete
                return self._deleted(gone.document.removeprefix(root), gone.read_time)
            case "document_remove":
                return await self._removed(response.document_remove.document.removeprefix(root))
            case "target_change":
                return await self._moved(response.target_change)
        # An existence filter says that something was deleted while nobody listened; reconciling finds it.
        return ()

    async def _changed(self, change: Any, root: str) -> Sequence[Event]:
        found = document(change.document.SerializeToString())
        path = found["name"].removeprefix(root)
        if not change.target_ids:
            return await self._removed(path)
        for number in change.target_ids:
            if number in self._sets:
                self._sets[number].seen.add((document_key(self.stream.name, path),))
        if not self._meant(path):
            return ()
        fields, updated, created = found["fields"], found.get("updateTime", ""), found.get("createTime", "")
        return [DocumentChange(self.stream.name, path, fields, updated, created)]

    def _deleted(self, path: str, moment: Any) -> Sequence[Event]:
        if not self._meant(path):
            return ()
        return [DocumentChange(self.stream.name, path, None, rfc3339(moment.seconds, moment.nanos))]

    async def _removed(self, path: str) -> Sequence[Event]:
        """It has left a target's view: deleted, most likely. Ask, as a deletion has to be said (D14)."""
        listing = self._meant(path)
        return () if listing is None else await listing.gone([document_key(self.stream.name, path)])

    async def _moved(self, change: Any) -> Sequence[Event]:
        """What is said of targets themselves: refused, all to come again, or complete up to here."""
        if change.cause.code:
            raise Ended(status_name(change.cause.code), change.cause.message)
        numbers = list(change.target_ids or self.stream.collections)
        events: list[Event] = []
        if change.target_change_type == RESET:
            self._sets |= {number: Set(Seen(), anew=number in self._whole) for number in numbers}
        elif change.target_change_type == CURRENT:
            for number in numbers:
                events += await self._gone(number)
        # While a set is on its way its token would skip what it has not said to be gone.
        whole = tuple(number for number in numbers if number not in self._sets)
        return [*events, Token(self.stream, whole, change.resume_token)] if change.resume_token else events

    async def _gone(self, number: int) -> Sequence[Event]:
        """Those that a whole set does not have any more. One that is empty from the start is not believed."""
        whole = self._sets.pop(number, None)
        self._whole.add(number)
        if whole is None or not (len(whole.seen) or whole.anew):
            return ()
        listing = self.stream.collections[number]
        events: list[Event] = []
        async for keys in unseen(listing, whole.seen, self._known):
            events += await listing.gone(keys)
        return events

    def _meant(self, path: str) -> DocumentList | None:
        return next((one for one in self.stream.collections.values() if one.has(path)), None)
