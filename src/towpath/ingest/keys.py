"""Write keys: which source a request belongs to, whether it is open, and how much it may send."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from msgspec import Struct

from ..clock import Clock
from ..errors import TowpathError
from ..sources.segment import SegmentSource
from .verify import Verifier


class Allowance:
    """A source's rate: a second's worth may come at once; a batch beyond it is paid off before the next."""

    def __init__(self, events_per_s: float, clock: Clock) -> None:
        self.events_per_s = events_per_s
        self._clock = clock
        self._most = max(1.0, events_per_s)
        self._left = self._most
        self._at = clock.monotonic()

    def wait_s(self) -> float:
        """Seconds until the source may send again; 0 when it may now."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self.events_per_s)
        self._at = now
        return 0.0 if self._left > 0 else max(-self._left / self.events_per_s, 0.001)

    def spend(self, events: int) -> None:
        """Count events that were sent."""
        self._left -= events


class Access(Struct, frozen=True):
    """What one write key opens. `write_key_id` names the key without telling it."""

    source: str
    write_key_id: str
    settings: SegmentSource
    allowance: Allowance | None
    verifier: Verifier | None


class Keys:
    """The write keys of all sources, kept as hashes."""

    def __init__(
        self, sources: Mapping[str, SegmentSource], clock: Clock, before: Keys | None = None
    ) -> None:
        self._allowances: dict[str, Allowance] = {}
        self._accesses: dict[bytes, Access] = {}
        for name, settings in sources.items():
            self._add(name, settings, clock, before)

    def _add(self, name: str, settings: SegmentSource, clock: Clock, before: Keys | None) -> None:
        allowance = self._allowance(name, settings, clock, before)
        secret = settings.verify_secret.get_secret_value() if settings.verify_secret else ""
        verifier = None if settings.verify == "off" else Verifier(settings.verify, secret, clock)
        for key in settings.write_keys:
            digest = _digest(key.get_secret_value().encode())
            if (taken := self._accesses.get(digest)) and taken.source != name:
                raise _shared(taken.source, name)
            self._accesses[digest] = Access(name, digest.hex()[:8], settings, allowance, verifier)

    def _allowance(
        self, name: str, settings: SegmentSource, clock: Clock, before: Keys | None
    ) -> Allowance | None:
        if settings.events_per_s is None:
            return None
        # A reload with the same rate must not hand out a fresh allowance.
        kept = before.allowance(name) if before else None
        same = kept is not None and kept.events_per_s == settings.events_per_s
        found = kept if kept is not None and same else Allowance(settings.events_per_s, clock)
        self._allowances[name] = found
        return found

    def allowance(self, source: str) -> Allowance | None:
        """Return a source's allowance; None when unlimited or unknown."""
        return self._allowances.get(source)

    def find(self, key: bytes) -> Access | None:
        """Return what a write key opens.

        Each key is compared, always all of them and in constant time, so that how long it takes tells nothing
        about any key (E031).
        """
        digest = _digest(key)
        found = None
        for known, access in self._accesses.items():
            if hmac.compare_digest(known, digest):
                found = access
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _shared(first: str, second: str) -> TowpathError:
    return TowpathError(
        f"sources {first} and {second} share a write key",
        code="E2114",
        why="a write key decides which source an event belongs to",
        fix=f"give {second} a write key of its own",
        data="nothing changed; the sources in force stay in force",
    )


def from_header(value: bytes) -> bytes:
    """Read the write key of an Authorization header: Basic's user name or a Bearer token, else empty."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[0]
    except (binascii.Error, ValueError):
        return b""
