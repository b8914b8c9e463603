"""Sealing records: each is encrypted under a key that needs the key of every id it carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from os import urandom
from typing import Any, TypeAlias

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from ...message import identifier
from .keys import Key, KeyStore

FORMAT = b"\x01"
"""First byte of what is sealed: AES-256-GCM under HKDF-SHA-256 of the secrets; then nonce, ciphertext."""
NONCE_BYTES = 12
CACHED = 100_000
Names: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = tuple[int, ...]
NOBODY: Names = ("nobody",)


class Ids(Struct, rename="camel"):
    """The ids a message may carry, as the client wrote them."""

    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None


_ids = msgspec.json.Decoder(Ids).decode


def ids_of(raw: bytes) -> Ids | None:
    """The ids of a message; None where it cannot be read."""
    try:
        return _ids(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def names_of(ids: Ids | None, digest: bytes) -> Names:
    """Under which keys a message is sealed; one that cannot be read has a key of its own."""
    if ids is None:
        return (unread(digest),)
    values = (identifier(ids.user_id), identifier(ids.anonymous_id), identifier(ids.previous_id))
    return tuple(dict.fromkeys(name_of(value) for value in values if value is not None)) or NOBODY


def name_of(identifier: str) -> str:
    """The key name of an id."""
    return f"id:{identifier}"


def unread(digest: bytes) -> str:
    """The key name of a message whose ids cannot be read."""
    return f"message:{digest.hex()}"


class Broken(Exception):
    """What was sealed is not what is there, or not under this key."""


class Cipher:
    """Seals and opens under one set of keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        keys = list(keys)
        self.numbers: Numbers = tuple(key.number for key in keys)
        secret = b"".join(key.secret for key in keys)
        info = b"towpath record" + bytes([len(keys)])
        self._cipher = AESGCM(HKDF(SHA256(), length=32, salt=None, info=info).derive(secret))

    def seal(self, plain: bytes) -> bytes:
        """Encrypt with a random nonce."""
        nonce = urandom(NONCE_BYTES)
        return FORMAT + nonce + self._cipher.encrypt(nonce, plain, FORMAT)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt. Raises `Broken`."""
        if sealed[:1] != FORMAT:
            raise Broken(f"unknown format {sealed[:1].hex() or 'empty'}")
        try:
            return self._cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], FORMAT)
        except InvalidTag as error:
            raise Broken("the seal does not fit") from error


class Vault:
    """Remembers keys and ciphers; at most `CACHED` of each."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._keys: dict[str, Key] = {}
        self._ciphers: dict[Numbers, Cipher] = {}

    async def sealing(self, persons: Collection[Names]) -> Mapping[Names, Cipher]:
        """A cipher for each set of names; new names get keys."""
        names = {name for person in persons for name in person}
        missing = names - self._keys.keys()
        keys = {name: self._keys[name] for name in names - missing}
        keys |= await self._store.keys(missing) if missing else {}
        self._forget_when_full()
        self._keys |= keys
        return {person: self._cipher([keys[name] for name in person]) for person in persons}

    async def opening(self, wanted: Collection[Numbers]) -> Mapping[Numbers, Cipher]:
        """A cipher for each set of numbers of which no key was destroyed."""
        found = {numbers: self._ciphers[numbers] for numbers in wanted if numbers in self._ciphers}
        if len(found) < len(wanted):
            rest = [numbers for numbers in wanted if numbers not in found]
            secrets = await self._store.secrets({number for numbers in rest for number in numbers})
            self._forget_when_full()
            for numbers in rest:
                if all(number in secrets for number in numbers):
                    found[numbers] = self._cipher([Key(number, secrets[number]) for number in numbers])
        return found

    def _cipher(self, keys: list[Key]) -> Cipher:
        numbers = tuple(key.number for key in keys)
        if (cipher := self._ciphers.get(numbers)) is None:
            cipher = self._ciphers[numbers] = Cipher(keys)
        return cipher

    def _forget_when_full(self) -> None:
        if len(self._keys) > CACHED or len(self._ciphers) > CACHED:
            self.forget()

    def forget(self) -> None:
        """Empty the memory."""
        self._keys.clear()
        self._ciphers.clear()

    async def known(self, names: Collection[str]) -> Mapping[str, Key]:
        """The keys that these names have now."""
        return await self._store.known(names)

    async def destroy(self, numbers: Collection[int]) -> None:
        """Destroy keys, here and where they are kept."""
        await self._store.destroy(numbers)
        self.forget()
