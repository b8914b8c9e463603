"""Keys by which a person's records can be read: one for each id, kept apart from the log, and destroyable."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from os import urandom
from typing import Protocol

from msgspec import Struct

from .stream import KNOWN_ID, WRONG_SEQUENCE, Stream, send
from .wire import Denied, Lost, Outgoing, Stored, Wire, answer_of

SECRET_BYTES = 32
CHUNK = 500
"""Keys made or looked up with one request; an atomic batch takes 1,000 messages."""
PEPPER = "pepper"


class Key(Struct, frozen=True):
    """A secret and its number, which no other key ever has."""

    number: int
    secret: bytes


class KeyStore(Protocol):
    """Where keys are kept. A name is whatever the caller calls an id; it is not written down in clear."""

    async def keys(self, names: Collection[str]) -> Mapping[str, Key]:
        """The key of each name, made where there is none; on disk when it returns."""
        ...

    async def known(self, names: Collection[str]) -> Mapping[str, Key]:
        """The keys that these names have now."""
        ...

    async def secrets(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """The secrets with these numbers, without those that were destroyed."""
        ...

    async def destroy(self, numbers: Collection[int]) -> None:
        """Overwrite these keys (idempotent). The next key of the same name is another one."""
        ...


class NatsKeys:
    """Keys in a NATS KV bucket; a key's number is the sequence of its message.

    A name is hashed with the bucket's own secret, so that neither the bucket nor what a deletion leaves
    behind tells whose key it was.
    """

    def __init__(self, wire: Wire, bucket: str) -> None:
        self._wire = wire
        self._stream = Stream(wire, f"KV_{bucket}")
        self._subjects = f"$KV.{bucket}."
        self._pepper = b""

    async def open(self, replicas: int) -> None:
        """Make the bucket if there is none."""
        await self._stream.open(
            {
                "subjects": [f"{self._subjects}>"],
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "num_replicas": replicas,
                "max_msgs_per_subject": 1,
                "allow_rollup_hdrs": True,
                "allow_direct": True,
                "allow_atomic": True,
            }
        )
        subject = self._subjects + PEPPER
        while not (found := await self._newest([subject])):
            await self._make([subject])
        self._pepper = found[subject].secret

    def _subject(self, name: str) -> str:
        return self._subjects + blake2b(name.encode(), key=self._pepper, digest_size=16).hexdigest()

    async def keys(self, names: Collection[str]) -> Mapping[str, Key]:
        """The key of each name; a request to look, and one commit for those that are missing."""
        found = dict(await self.known(names))
        while missing := [name for name in names if name not in found]:
            chunk = missing[:CHUNK]
            await self._make([self._subject(name) for name in chunk])
            found |= await self.known(chunk)
        return found

    async def known(self, names: Collection[str]) -> Mapping[str, Key]:
        """The keys that these names have now."""
        subjects = {self._subject(name): name for name in names}
        found: dict[str, Key] = {}
        remaining = iter(subjects)
        while chunk := list(islice(remaining, CHUNK)):
            newest = await self._newest(chunk)
            found |= {subjects[subject]: key for subject, key in newest.items()}
        return found

    async def _newest(self, subjects: Sequence[str]) -> dict[str, Key]:
        query = {"multi_last": list(subjects), "batch": len(subjects)}
        return {m.subject: Key(m.sequence, m.body) for m in await self._wire.fetch(self._stream.name, query)}

    async def _make(self, subjects: Sequence[str]) -> None:
        """Make keys, unless there is one of the same name by now; the caller looks again."""
        fresh = {"Nats-Expected-Last-Subject-Sequence": "0"}
        messages = [Outgoing(subject, urandom(SECRET_BYTES), fresh) for subject in subjects]
        await self._wire.ready()
        try:
            answer_of(await send(self._wire, messages, {}))
        except Denied as error:
            if error.code not in (WRONG_SEQUENCE, KNOWN_ID):
                raise
        except Lost:
            await asyncio.sleep(0.02)

    async def secrets(self, numbers: Collection[int]) -> Mapping[int, bytes]:
        """The secrets that are still there."""
        found: dict[int, bytes] = {}
        remaining = iter(sorted(numbers))
        while chunk := list(islice(remaining, CHUNK)):
            found |= {m.sequence: m.body for m in await self._with_numbers(chunk)}
        return found

    async def _with_numbers(self, numbers: Sequence[int]) -> Sequence[Stored]:
        """One request where the numbers lie close together, else one for each."""
        first, span = numbers[0], numbers[-1] - numbers[0] + 1
        if span <= 2 * len(numbers):
            query = {"seq": first, "batch": span, "next_by_subj": f"{self._subjects}>"}
            wanted = frozenset(numbers)
            return [m for m in await self._wire.fetch(self._stream.name, query) if m.sequence in wanted]
        each = [self._wire.fetch(self._stream.name, {"seq": number}) for number in numbers]
        return [message for messages in await asyncio.gather(*each) for message in messages]

    async def destroy(self, numbers: Collection[int]) -> None:
        """Overwrite these keys on disk."""
        for number in numbers:
            await self._stream.delete(number)
