"""Firebase meets the contracts of what is asked and of what is listened to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from towpath.http import Transport
from towpath.source import Page, SourceScope, State
from towpath.sources._firebase_polls import BACKFILL, RECONCILE
from towpath.sources._firebase_watch import Watch
from towpath.sources.firebase import Firebase
from towpath.testing import FakeClock, FakeTransport, ListeningContract, PolledContract
from towpath.vendors.firestore_stream import Ended, Target

from .google_world import PROJECT, Google
from .test_firebase_watch import changed, current, token

SETTINGS: Mapping[str, Any] = {
    "project": PROJECT,
    "emulator": True,
    "collections": ["users", "orgs/{org}/users"],
    "page_size": 2,
}


@pytest.mark.spec("F056", "P1")
class TestBackfill(PolledContract):
    """Users and two collections, in pages of two."""

    source = Firebase
    settings = SETTINGS
    poll = BACKFILL

    def vendor(self) -> Transport:
        """A project with three of each."""
        google = Google(FakeClock())
        for number in range(3):
            google.user(f"u{number}", email=f"u{number}@x.com")
            google.put(f"users/d{number}", attributes="a")
            google.put(f"orgs/o{number}/users/p{number}", attributes="a")
        return FakeTransport(("*", "*", google))


@pytest.mark.spec("F055", "P1")
class TestReconciliation(TestBackfill):
    """The same, compared with what is known."""

    poll = RECONCILE


class Firestore:
    """The other side of the stream: versions in order; a resume token is how many were said."""

    def __init__(self) -> None:
        self.transport: Transport = FakeTransport()
        self.versions: list[str] = []
        self.lines: list[asyncio.Queue[Any]] = []

    def happens(self, number: int) -> None:
        self.versions.append(f"users/d{number}")
        for line in self.lines:
            line.put_nowait("more")

    def cut(self) -> None:
        for line in self.lines:
            line.put_nowait(Ended("UNAVAILABLE", "gone"))

    async def connect(self, database: str, targets: Sequence[Target]) -> AsyncGenerator[Any, None]:
        [target] = targets
        line, said = asyncio.Queue[Any](), int(target.resume_token or 0)
        self.lines.append(line)
        try:
            for path in self.versions[said:]:
                yield changed(path)
            said = len(self.versions)
            yield current()
            yield token(b"%d" % said)
            while True:
                heard = await line.get()
                if isinstance(heard, Ended):
                    raise heard
                for path in self.versions[said:]:
                    yield changed(path)
                said = len(self.versions)
                yield token(b"%d" % said)
        finally:
            self.lines.remove(line)


class OnTheLine(Firebase):
    """The source, with a stream of the test's in the place of gRPC's."""

    firestore: Firestore

    def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page] | None:
        return Watch(self._project, scope, self.firestore.connect).pages(state)


@pytest.mark.spec("F054", "P1")
class TestWatch(ListeningContract):
    """One collection."""

    source = OnTheLine
    settings: ClassVar[Mapping[str, Any]] = {**SETTINGS, "collections": ["users"], "listen": True}

    def line(self) -> Firestore:
        """An empty collection."""
        return Firestore()

    def make(self, line: Any) -> OnTheLine:
        """Make the source on this line."""
        made = super().make(line)
        assert isinstance(made, OnTheLine)
        made.firestore = line
        return made
