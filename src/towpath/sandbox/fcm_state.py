"""What the simulated FCM knows: addresses and their fates, quotas, and a ledger of what it accepted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.clock import Clock

from .fcm_rules import Platform

Fate: TypeAlias = Literal[
    "ok",
    "unregistered",
    "invalid",
    "mismatch",
    "third_party",
    "quota",
    "busy",
    "error",
    "hang",
    "reset",
    "refused",
    "away",
]
"""What becomes of a message to an address. From `hang` on nothing is answered: the stream stays open, ends
with RST_STREAM, ends with it as REFUSED_STREAM, or is given back with a GOAWAY of its connection."""

PREFIXES: Mapping[str, Fate] = {
    "ok": "ok",
    "gone": "unregistered",
    "bad": "invalid",
    "other": "mismatch",
    "apns": "third_party",
    "quota": "quota",
    "busy": "busy",
    "error": "error",
    "hang": "hang",
    "reset": "reset",
    "refused": "refused",
    "away": "away",
}
PASSING: frozenset[Fate] = frozenset({"quota", "busy", "error", "hang", "reset", "refused", "away"})
"""Fates that strike an address once, or as often as its name says, before it is `ok`."""

QUOTA_PER_MIN = 600_000
DEVICE_PER_MIN = 240
DEVICE_PER_H = 5_000

_SCRIPTED = re.compile(rf"({'|'.join(PREFIXES)})(?:(\d+)-)?")
_ADDRESS = re.compile(r"[A-Za-z0-9:_\-.~%+/=]{1,4096}")


class Switches(Struct, frozen=True, kw_only=True):
    """Behaviour that differs or is not documented.

    `unknown`: what an address is that was never registered and has no scripted name. `address_error`: the
    body for a malformed address, as recorded lately (`current`), as documented (`plain`), or as recorded
    years ago. `retry_after`: the header on 429 and 503 (empty: none). `gateway_words`: a
    THIRD_PARTY_AUTH_ERROR comes with the sentence of a missing OAuth token, as was seen once.
    """

    unknown: Literal["ok", "unregistered"] = "ok"
    address_error: Literal["current", "plain", "older"] = "current"
    retry_after: str = ""
    gateway_words: bool = False


class Script(Struct):
    """The fate of one address for the next `times` (None: every) messages."""

    fate: Fate
    times: int | None
    retry_after: str


class Accepted(Struct, frozen=True, gc=False):
    """One message as it was accepted: `number` is its place in the ledger, `at` Unix seconds.

    `tag`, `collapse_key`, `collapse_id` and `web_tag` are what makes a later message replace it on Android,
    while it waits, on iOS and in a browser.
    """

    number: int
    name: str
    kind: str
    address: str
    tag: str
    collapse_key: str
    collapse_id: str
    web_tag: str
    body: bytes
    at: float

    def message(self) -> dict[str, Any]:
        """Decode the message as it was sent."""
        document: dict[str, dict[str, Any]] = msgspec.json.decode(self.body)
        return document["message"]


class FcmState:
    """Addresses, scripts and the ledger.

    `accepted` is the ledger in order; without `keep_bodies` it has no bodies. `broken` platforms answer
    THIRD_PARTY_AUTH_ERROR: their APNs or web-push key is missing.
    """

    def __init__(self, clock: Clock, switches: Switches, *, keep_bodies: bool) -> None:
        self.accepted: list[Accepted] = []
        self.validated = 0
        self.platforms: dict[str, Platform | None] = {}
        self.unregistered: set[str] = set()
        self.broken: set[Platform] = set()
        self._clock = clock
        self._switches = switches
        self._keep_bodies = keep_bodies
        self._scripts: dict[str, Script] = {}
        self._struck: Counter[str] = Counter()

    def register(self, address: str, platform: Platform | None = None) -> None:
        """Make an address known, or known again."""
        self.platforms[address] = platform
        self.unregistered.discard(address)

    def unregister(self, address: str) -> None:
        """The app is gone: the address answers UNREGISTERED until it is registered again."""
        self.platforms.pop(address, None)
        self.unregistered.add(address)

    def script(
        self, address: str, fate: Fate, times: int | None = None, *, retry_after: str | None = None
    ) -> None:
        """Set what becomes of the next `times` (None: all) messages to an address, whatever its name says."""
        waiting = self._switches.retry_after if retry_after is None else retry_after
        self._scripts[address] = Script(fate, times, waiting)

    def fate(self, address: str) -> tuple[Fate, str]:
        """Return what becomes of a message to an address now, and the Retry-After of it."""
        script = self._scripts.get(address)
        if script is not None and script.times != 0:
            if script.times is not None:
                script.times -= 1
            return script.fate, script.retry_after
        return self._named(address), self._switches.retry_after

    def _named(self, address: str) -> Fate:
        if address in self.unregistered:
            return "unregistered"
        found = _SCRIPTED.match(address)
        if found is None:
            return self._unscripted(address)
        fate = PREFIXES[found[1]]
        if fate in PASSING:
            if self._struck[address] >= int(found[2] or 1):
                return "ok"
            self._struck[address] += 1
        return fate

    def _unscripted(self, address: str) -> Fate:
        if not _ADDRESS.fullmatch(address):
            return "invalid"
        platform = self.platforms.get(address)
        if platform in self.broken:
            return "third_party"
        return "ok" if address in self.platforms else self._switches.unknown

    def accept(self, name: str, kind: str, address: str, message: Mapping[str, Any], body: bytes) -> Accepted:
        """Write an accepted message into the ledger."""
        android, apns = message.get("android", {}), message.get("apns", {})
        headers = {key.lower(): value for key, value in apns.get("headers", {}).items()}
        entry = Accepted(
            number=len(self.accepted),
            name=name,
            kind=kind,
            address=address,
            tag=android.get("notification", {}).get("tag", ""),
            collapse_key=android.get("collapse_key", ""),
            collapse_id=headers.get("apns-collapse-id", ""),
            web_tag=str(message.get("webpush", {}).get("notification", {}).get("tag", "")),
            body=body if self._keep_bodies else b"",
            at=self._clock.now(),
        )
        self.accepted.append(entry)
        return entry

    def sent_to(self, address: str) -> list[Accepted]:
        """Return what was accepted for an address, in order."""
        return [entry for entry in self.accepted if entry.address == address]

    def shown(self, address: str) -> list[Accepted]:
        """Return what a device shows: of those that replace each other on its platform, the last."""
        platform = self.platforms.get(address) or "android"
        field = {"android": "tag", "ios": "collapse_id", "web": "web_tag"}[platform]
        newest: dict[object, Accepted] = {}
        for entry in self.sent_to(address):
            newest[getattr(entry, field) or entry.number] = entry
        return list(newest.values())

    def repeated(self) -> dict[str, int]:
        """Return the addresses that got more than one message, and how many."""
        counts = Counter(entry.address for entry in self.accepted)
        return {address: count for address, count in counts.items() if count > 1}


class Quotas:
    """The limits of the project and of each device; a full allowance returns every minute and hour.

    A minute begins with the first message after the last one ended: Google's are not aligned either.
    """

    def __init__(self, clock: Clock, per_min: int, device_per_min: int, device_per_h: int) -> None:
        self._clock = clock
        self._limits = ((per_min, 60.0),)
        self._device_limits = ((device_per_min, 60.0), (device_per_h, 3600.0))
        self._project: list[Window] = [Window() for _ in self._limits]
        self._devices: dict[str, list[Window]] = {}

    def take(self) -> bool:
        """Take one from the project's allowance; False when it is empty."""
        return self._take(self._project, self._limits)

    def take_for(self, address: str) -> bool:
        """Take one from a device's allowances; False when one of them is empty."""
        windows = self._devices.get(address)
        if windows is None:
            windows = self._devices[address] = [Window() for _ in self._device_limits]
        return self._take(windows, self._device_limits)

    def _take(self, windows: list[Window], limits: tuple[tuple[int, float], ...]) -> bool:
        now = self._clock.monotonic()
        for window, (_, length_s) in zip(windows, limits, strict=True):
            if now >= window.ends_at:
                window.ends_at, window.used = now + length_s, 0
        if any(window.used >= limit for window, (limit, _) in zip(windows, limits, strict=True)):
            return False
        for window in windows:
            window.used += 1
        return True


class Window(Struct):
    """How much of an allowance is used, and when (monotonic seconds) it is full again."""

    used: int = 0
    ends_at: float = 0.0
