"""All that a destination author implements: settings, a pure `prepare`, one `deliver`, and a `check`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, BaseModel, ConfigDict

from .http import Http, Stopping, Undelivered
from .outcome import Delivered, Outcome, Rejected, Retry, Skipped

if TYPE_CHECKING:
    from .clock import Clock
    from .message import Message


class Settings(BaseModel):
    """The base of every settings model: unknown keys are errors, aliases and names both work."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True, hide_input_in_errors=True)


S = TypeVar("S", bound=Settings)


def _safe(url: str) -> str:
    """Personal data and credentials never travel in the clear (C113)."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        local = host == "localhost" or ((host[:1].isdigit() or ":" in host) and ip_address(host).is_loopback)
    except ValueError:
        host, local = "", False
    plain = (
        not (parts.query or parts.fragment or parts.username or any(map(str.isspace, url))) if host else False
    )
    if url and not (plain and (parts.scheme == "https" or (parts.scheme == "http" and local))):
        raise ValueError("must be an https address; http only leads to a simulator on this machine")
    return url.rstrip("/")


VendorUrl: TypeAlias = Annotated[str, AfterValidator(_safe)]
"""The address of a vendor's API in settings: https, or http to this machine; empty where that is allowed."""


class Limits(Struct, frozen=True):
    """What the destination allows; the loop keeps to it, never the destination itself.

    `batch` items and `batch_bytes` bound one `deliver_batch`; `in_flight` bounds calls at once;
    `ordered_batch` says that one person's messages may share a batch: the vendor applies them in order, and
    none behind one that it may take later (answers 429 or 5xx to); `coalesce` turns `merge` on.
    """

    batch: int = 1
    batch_bytes: int | None = None
    in_flight: int = 64
    ordered_batch: bool = False
    coalesce: bool = False


class Call(Struct, frozen=True, omit_defaults=True):
    """One request as preview shows it. `json` is the body; `when` names the branch where look-ups decide."""

    method: str
    url: str
    json: Any = None
    when: str = ""


class Payload(Struct, frozen=True):
    """One message made ready for one destination.

    `requests` and `look_ups` are what preview shows; `reports` names what was left out, renamed or doubted;
    `capability` is the part of the vendor's API it needs (pausing is per capability); `data` is whatever
    `deliver` wants to carry beside them. `size_bytes` counts for `batch_bytes` where the destination has the
    bytes already; 0 has them measured. `person` is filled in by the loop for an `ordered_batch`: payloads of
    one person, whatever ids they name, keep their order.
    """

    requests: Sequence[Call]
    look_ups: Sequence[Call] = ()
    reports: Sequence[str] = ()
    capability: str = ""
    data: Any = None
    size_bytes: int = 0
    person: str = ""


class Check(Struct, frozen=True):
    """One line of `connectors test`. `capability` is empty when it concerns the whole account.

    `reached` is False when the vendor gave no answer that says anything about the credential.
    """

    name: str
    ok: bool
    capability: str = ""
    detail: str = ""
    reached: bool = True

    @classmethod
    def failed(cls, name: str, error: Undelivered) -> Check:
        """Make the line of a check that got no good answer, for the whole account."""
        said = getattr(error.outcome, "reason", "")
        return cls(name, ok=False, detail=said, reached=not isinstance(error.outcome, Retry))


class Memory(Protocol):
    """A small durable key-value of one connection: a cache, never the only copy of anything."""

    def find(self, key: str) -> str | None:
        """Return the value, or None when absent or expired."""
        ...

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Keep a value for some seconds."""
        ...

    def drop(self, key: str) -> None:
        """Forget a key."""
        ...


class Scope(Struct, frozen=True):
    """What a delivery may touch: the door to the network, the clock, and this connection's memory.

    `ports` are parts of towpath that a destination asks for by name in its `ports`, like `device.Devices`.
    """

    http: Http
    clock: Clock
    memory: Memory
    ports: Mapping[str, Any] = {}


Ended: TypeAlias = Outcome | Exception | None
"""What became of one payload of a batch: its outcome, what it raised, or None when it was not sent."""


class Destination(ABC, Generic[S]):
    """Where messages go. Retry, order, batching, limits and time-outs are the loop's business."""

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]
    ports: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: S) -> None:
        self.settings = settings

    def limits(self) -> Limits:
        """What the vendor allows with these settings."""
        return Limits()

    def headers(self) -> Mapping[str, str]:
        """Credential headers: sent with every request, kept out of every record and dead letter."""
        return {}

    def budgets(self) -> Mapping[str, float]:
        """Requests per minute by bucket of the vendor account, shared by all that call it."""
        return {}

    def allow_private(self) -> bool:
        """Whether private addresses may be called; False where others than the operator choose URLs."""
        return True

    @abstractmethod
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """One message as requests, or why it has none. Pure: no I/O, clock or state."""

    @abstractmethod
    async def deliver(self, payload: Payload, scope: Scope) -> Delivered | None:
        """Send one payload once; returning means delivered, `scope.http` raises `Undelivered` otherwise.

        Return `Delivered(reports=…)` to say what only showed while delivering, like a field left out.
        """

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        """Send payloads and say what became of each, in order; override where the vendor takes batches.

        What one payload raised stands for it in the answer: an `Undelivered` (`scope.http.undelivered`
        makes one with the exchange, for its dead letter), or a failure of our own, which is tried again.
        Raising concerns them all: a batch refused with 400, 413 or 422 is halved until the one at fault is
        found.
        """
        ended: list[Ended] = []
        for payload in payloads:
            try:
                ended.append(await self.deliver(payload, scope) or Delivered())
            except Stopping:
                return [*ended, *[None] * (len(payloads) - len(ended))]
            except Exception as error:
                ended.append(error)
        return ended

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        """One payload that does what two in a row of one person would (D20), or None."""
        return None

    @abstractmethod
    async def check(self, scope: Scope) -> Sequence[Check]:
        """Ask whether these settings work, changing nothing there; one line per capability."""
