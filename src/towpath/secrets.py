"""The encrypted store of credentials: AES-256-GCM, bound to each secret's name, the key outside the data."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from .clock import Clock, SystemClock
from .errors import TowpathError
from .state import FILE, Sealed, State

KEY_BYTES = 32
NONCE_BYTES = 12
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class SecretName(Struct, frozen=True):
    """What may be shown of a secret: its name and when it was set, in Unix seconds."""

    name: str
    updated_at: float


class Key:
    """One key; `id` is safe to show."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.id = hashlib.sha256(b"towpath key id" + raw).hexdigest()[:8]
        self._cipher = AESGCM(raw)

    def __repr__(self) -> str:
        return f"Key({self.id})"

    def seal(self, name: str, value: str) -> bytes:
        """The value encrypted and bound to the name."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), name.encode())

    def unseal(self, name: str, sealed: bytes) -> str:
        """The value. Raises `InvalidTag` when it was changed or moved, or the key is another."""
        return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode()).decode()

    def encoded(self) -> str:
        """The key as a line of the key file."""
        return base64.b64encode(self.raw).decode()


class KeyRing:
    """The keys of a store: the first seals, all unseal. They come from TOWPATH_KEY or from a file."""

    def __init__(self, keys: Sequence[Key], file: Path | None) -> None:
        self.keys = tuple(keys)
        self.file = file

    @classmethod
    def read(
        cls, data_directory: Path, file: Path | None = None, env: Mapping[str, str] | None = None
    ) -> KeyRing:
        """The keys there are; none when the file does not exist yet. Raises `TowpathError`.

        Without `file`, TOWPATH_KEY holds the keys, else TOWPATH_KEY_FILE names the file, else it is
        ~/.config/towpath/key.
        """
        env = os.environ if env is None else env
        if file is None and env.get("TOWPATH_KEY"):
            return cls(_parse(env["TOWPATH_KEY"], "TOWPATH_KEY"), None)
        file = file or _place(env)
        _check_place(file, data_directory)
        if not file.exists():
            return cls((), file)
        _check_mode(file)
        return cls(_parse(_text(file), str(file)), file)

    def find(self, key_id: str) -> Key | None:
        """The key of an id."""
        return next((key for key in self.keys if key.id == key_id), None)

    def first(self) -> Key:
        """The key that seals, made and written on first use."""
        if not self.keys:
            with self._changing() as (file, written):
                self._save(file, written or [_new_key()])
        return self.keys[0]

    def renew(self) -> Key:
        """A fresh key in front of the file's others, which other data directories may need."""
        with self._changing() as (file, written):
            fresh = _new_key()
            held = {key.id for key in written}
            self._save(file, [fresh, *written, *(key for key in self.keys if key.id not in held)])
        return fresh

    def drop(self, keys: Collection[Key]) -> None:
        """Take keys out of the file: what any data directory has sealed with them is lost."""
        dropped = {key.id for key in keys}
        with self._changing() as (file, written):
            self._save(file, [key for key in written if key.id not in dropped])

    @contextmanager
    def _changing(self) -> Iterator[tuple[Path, list[Key]]]:
        """The file and the keys it holds by now, while no other process changes it. Raises `TowpathError`."""
        if self.file is None:
            raise _error(
                "E2205", "TOWPATH_KEY cannot be changed from here", "put the new key in front of the old one"
            )
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.file):
                yield self.file, _parse(_text(self.file), str(self.file)) if self.file.exists() else []
        except OSError as error:
            raise _error(
                "E2204", f"{self.file} cannot be written: {error.strerror}", "name another: TOWPATH_KEY_FILE"
            ) from None

    def _save(self, file: Path, keys: Sequence[Key]) -> None:
        """Replace the file's keys, in one step and on disk when it returns."""
        _write(file, "".join(f"{key.encoded()}\n" for key in keys))
        self.keys = tuple(keys)


class Secrets:
    """Secrets by name. Values go in and, for the configuration alone, come out; they are never shown."""

    def __init__(self, state: State, ring: KeyRing, clock: Clock) -> None:
        self._rows = state.sealed_secrets
        self._ring = ring
        self._clock = clock

    @classmethod
    def open(cls, state: State, key_file: Path | None = None, clock: Clock | None = None) -> Secrets:
        """The store of a data directory. Raises `TowpathError` when its key is lost, wrong or exposed."""
        opened = cls(state, KeyRing.read(state.directory, key_file), clock or SystemClock())
        for row in opened._rows.all():
            opened._key_of(row)
        return opened

    def __repr__(self) -> str:
        return f"Secrets({len(self.names())})"

    def set(self, name: str, value: str) -> None:
        """Store a value under a name, in place of an older one."""
        if not NAME.fullmatch(name):
            raise _error("E2206", f'"{name}" cannot be a name', "use letters, digits and . _ -")
        key = self._ring.first()
        self._rows.replace([Sealed(name, key.id, key.seal(name, value), self._clock.now())])

    def names(self) -> Sequence[SecretName]:
        """What is stored: names and times, never values."""
        return [SecretName(row.name, row.updated_at) for row in self._rows.all()]

    def delete(self, name: str) -> None:
        """Remove a secret. Raises `TowpathError` when there is none of that name."""
        if not self._rows.delete(name):
            raise _error("E2207", f'there is no secret "{name}"', "towpath secrets list  shows the names")

    def values(self) -> Mapping[str, str]:
        """Every value by name, to fill in `${secret:…}`. Raises `TowpathError` for a tampered one."""
        return {row.name: self._unseal(row) for row in self._rows.all()}

    def rekey(self, *, drop_old: bool = False) -> None:
        """Seal everything anew with a fresh key, or with the first of TOWPATH_KEY. Raises `TowpathError`.

        The old keys stay in the file behind the new one, for the other data directories of this user; with
        `drop_old` they go, and what others have sealed with them is lost. A crash in between loses nothing.
        """
        values = self.values()
        old = self._ring.keys
        key = self._ring.first() if self._ring.file is None else self._ring.renew()
        times = {row.name: row.updated_at for row in self._rows.all()}
        self._rows.replace(
            [Sealed(name, key.id, key.seal(name, values[name]), times[name]) for name in values]
        )
        if drop_old and self._ring.file is not None:
            self._ring.drop(old)

    def _unseal(self, row: Sealed) -> str:
        try:
            return self._key_of(row).unseal(row.name, row.sealed)
        except InvalidTag:
            title = f'the secret "{row.name}" was damaged or changed in the database'
            raise _error("E2203", title, f"towpath secrets set {row.name}") from None

    def _key_of(self, row: Sealed) -> Key:
        key = self._ring.find(row.key_id)
        if key is not None:
            return key
        where = self._ring.file or "TOWPATH_KEY"
        fix = (
            "put the key file back, or name it with TOWPATH_KEY_FILE; without the key, set every secret again"
        )
        if not self._ring.keys:
            raise _error("E2201", f"the key of the stored secrets is lost: there is no {where}", fix)
        held = ", ".join(key.id for key in self._ring.keys)
        title = f"{where} is not the key of the stored secrets: it is {held}, they need {row.key_id}"
        raise _error("E2202", title, fix)


def stored(storage: Path) -> Mapping[str, str]:
    """Every secret of a data directory by name, as `config.load` asks for them. Raises `TowpathError`."""
    if not (storage / FILE).exists():
        return {}
    state = State.open(storage)
    try:
        return Secrets.open(state).values()
    finally:
        state.close()


def _new_key() -> Key:
    return Key(AESGCM.generate_key(8 * KEY_BYTES))


def _parse(text: str, where: str) -> list[Key]:
    """The keys of a text: one per line, or separated by commas."""
    keys: list[Key] = []
    for part in text.replace(",", "\n").split():
        try:
            raw = base64.b64decode(part, altchars=b"-_" if set(part) & set("-_") else None, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != KEY_BYTES:
            raise _error(
                "E2202",
                f"{where} holds no key",
                "a key is 32 random bytes in base64: openssl rand -base64 32",
            )
        keys.append(Key(raw))
    if not keys:
        raise _error(
            "E2202", f"{where} is empty", "put the key back, or remove the file to start with a new one"
        )
    return keys


def _place(env: Mapping[str, str]) -> Path:
    try:
        return Path(env.get("TOWPATH_KEY_FILE") or "~/.config/towpath/key").expanduser()
    except RuntimeError:
        title = "this user has no home directory to keep the key file in"
        raise _error("E2204", title, "name a file with TOWPATH_KEY_FILE") from None


def _check_place(file: Path, data_directory: Path) -> None:
    if data_directory.resolve() in file.resolve().parents:
        title = f"the key file {file} lies inside the data directory it protects"
        raise _error("E2208", title, "move it elsewhere and name it with TOWPATH_KEY_FILE")


def _check_mode(file: Path) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise _error("E2209", f"others may read the key file {file} (mode {mode:04o})", f"chmod 600 {file}")


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except OSError as error:
        raise _error(
            "E2204", f"{file} cannot be read: {error.strerror}", f"chmod 600 {file}, owned by this user"
        ) from None
    except ValueError:
        raise _error("E2202", f"{file} holds no key", "name the right file with TOWPATH_KEY_FILE") from None


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes from changing a file; the lock is a neighbour, since the file is replaced."""
    descriptor = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(file: Path, text: str) -> None:
    """Replace a file by way of a neighbour, 0600 from its first byte, flushed before it takes the name."""
    neighbour = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    neighbour.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _error(code: str, title: str, fix: str) -> TowpathError:
    return TowpathError(title, code=code, fix=fix, data="The stored secrets were not changed.")
