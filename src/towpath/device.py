"""Devices: what a push address is, whose it is, what messages say of it, and who may be asked about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from .outcome import Outcome

if TYPE_CHECKING:
    from .notice import Trigger

AddressKind: TypeAlias = Literal["token", "fid"]
Platform: TypeAlias = Literal["ios", "android", "web"]
Status: TypeAlias = Literal["active", "removed", "disabled"]
Word: TypeAlias = Literal["client", "proven", "server"]
"""Whose word a message is: that of a key that anybody can copy, the same with a proven userId, a server's."""

INSTALLATION = r"(?=.+[A-Z])(?=.+[a-z])[c-f][A-Za-z0-9_-]{21}"
"""A Firebase installation id: 22 letters made by chance, as no userId is that people or counters make."""
REGISTRY = "devices"
"""The port (`Scope.ports`) at which a destination finds the `Devices`, and the name of their connection."""
PUSH = "push"
"""The port at which a destination finds the `Pusher`, and the name of the source of what devices do."""


class Address(Struct, frozen=True, order=True):
    """Where FCM delivers: a registration token, or a Firebase installation id that takes its place."""

    kind: AddressKind
    value: str


class Traits(Struct, frozen=True, omit_defaults=True):
    """What an app tells of itself beside its address; None is not told."""

    app: str | None = None
    app_version: str | None = None
    locale: str | None = None
    timezone: str | None = None


class Device(Struct, frozen=True, kw_only=True):
    """One installed app. Times are Unix seconds by the event's own, corrected clock; 0 for never.

    `person` is the userId it is linked to, None when nobody's; `provisional` says that this userId is the
    device's own id, as nobody has signed in. `address` is None when its token went to another device.
    `registered_at` is the last report of its token: staleness counts from it, other events do not move it.
    `seen_at` is the last message that named it. `disabled` is an address of another Firebase project.
    """

    id: str
    person: str | None
    provisional: bool = False
    address: Address | None = None
    platform: Platform | None = None
    status: Status = "active"
    reason: str = ""
    first_seen: float = 0.0
    registered_at: float = 0.0
    seen_at: float = 0.0
    removed_at: float = 0.0
    traits: Traits = Traits()


class Registered(Struct, frozen=True, kw_only=True, tag=True):
    """A device reported its address, for a person: from now on it is theirs (P041).

    `history` says, where the person is the device itself (nobody has signed in), that there are messages
    under its id: those a sign-in joins (P025). `platform` None was not told.
    """

    device: str
    person: str
    address: Address
    platform: Platform | None
    at: float
    history: bool = False
    traits: Traits = Traits()
    word: Word = "server"


class Unregistered(Struct, frozen=True, kw_only=True, tag=True):
    """A device wants no pushes any more; named by its id, or its address.

    `address` and `person` (the message's own) show that a client knows more of it than its id.
    """

    at: float
    device: str = ""
    address: Address | None = None
    person: str | None = None
    reason: str = "unregistered"
    word: Word = "server"


class Seen(Struct, frozen=True, kw_only=True, tag=True):
    """A message with an id of a device, which says no more than that the app was in use."""

    device: str
    at: float
    traits: Traits = Traits()


class Profiled(Struct, frozen=True, kw_only=True, tag=True):
    """A person's traits, of which None deletes one, and whether they agree to push (None: not said).

    `named` is False for an anonymousId, and for a userId that is one too or the device's: nobody signed in.
    `anonymous` says that the message has no userId at all, so that nothing says who it speaks for.
    """

    person: str
    at: float
    traits: Mapping[str, Any] = {}
    consent: bool | None = None
    named: bool = True
    anonymous: bool = False
    word: Word = "server"


class Joined(Struct, frozen=True, kw_only=True, tag=True):
    """One person turned out to be another: what was `old`'s is `new`'s.

    Where a client says so (`trusted` False), only what nobody has signed in for goes along (D13).
    """

    old: str
    new: str
    at: float
    trusted: bool = True


class Deleted(Struct, frozen=True, kw_only=True, tag=True):
    """A person was deleted, and their devices with them."""

    person: str
    at: float


DeviceEvent: TypeAlias = Registered | Unregistered | Seen | Profiled | Joined | Deleted


class Noted(Struct, frozen=True):
    """A message's device events, with the message's id: what they change is told under it.

    `received_at` (Unix seconds) decides between events of the same time.
    """

    message_id: str
    events: Sequence[DeviceEvent]
    received_at: float = 0.0


class Devices(Protocol):
    """The registry of devices. Every method may raise; the caller tries again."""

    async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        """Apply messages in order, durable when it returns; for each, what there is to report."""
        ...

    async def of_person(self, person: str) -> Sequence[Device]:
        """A person's devices that can be reached, last registered first."""
        ...


class Pusher(Protocol):
    """Sends pushes of one Firebase project to a person's devices, each device once for a key."""

    async def push(self, key: str, person: str, trigger: Trigger) -> Outcome:
        """Send what an event asks for to all devices of a person.

        A repeat with the same key sends to those devices that have not taken it yet. Delivered with a report
        per device; Skipped when there is nobody to send to; Retry when some may take it later; Rejected when
        the push is wrong; Paused when FCM refuses the credential.
        """
        ...
