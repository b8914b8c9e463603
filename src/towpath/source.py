"""Where messages come from: sources that call us, that we ask, that we listen to; and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from pydantic import Field

from .destination import Check, Settings
from .message import Message, Trust

if TYPE_CHECKING:
    from .clock import Clock
    from .http import Http

State: TypeAlias = Mapping[str, Any]
"""Where a poll or a listener goes on: JSON, opaque to towpath."""


class SourceSettings(Settings):
    """What every source can be told."""

    enabled: bool = Field(
        default=True, description="Off answers 404 `source is disabled` and takes nothing in."
    )
    trust: Trust = Field(
        default="client",
        description="`client`: its keys ship in pages and apps, so its messages never delete, suppress or "
        "merge people and never trigger pushes. `server`: its keys are kept secret and it may.",
    )


S = TypeVar("S", bound=SourceSettings)


class Incoming(Struct, frozen=True):
    """One request to us. Header names are lower case; `body` is inflated and within the limits.

    `path` is what follows the source's own path, without a slash at either end; at one of its further
    addresses `route` is that one's word, and `path` all of it. `local` says that it came from this machine.
    """

    method: str
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""
    route: str = ""
    local: bool = False


class Unfit(Struct, frozen=True):
    """Something heard that is no message: it is kept with its reason like a dead letter (`towpath dlq`).

    `code` is a word for filters, `reason` says what is wrong and where, without values of people's data.
    """

    code: str
    reason: str
    raw: bytes = b""


class Ignored(Struct, frozen=True):
    """Something heard that changes nothing, like a change older than the last one; counted by its reason."""

    reason: str


Heard: TypeAlias = Message | Unfit | Ignored


class Known(Protocol):
    """What a source remembers of what it took in, by key; kept once the messages are, never before.

    Values are opaque bytes. Within one turn it shows the turn's own changes.
    """

    def load(self, keys: Collection[str]) -> None:
        """Read the values of these keys at once, for the `find` of each."""
        ...

    def find(self, key: str) -> bytes | None:
        """The value; None when there is none or its time is over."""
        ...

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Remember a value, for good or for some seconds."""
        ...

    def drop(self, key: str) -> None:
        """Forget a key."""
        ...

    def keys(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin so, in order, as of the last turn that was kept."""
        ...

    def count(self, prefix: str = "") -> int:
        """How many keys begin so."""
        ...


class Page(Struct, frozen=True):
    """Some things heard at once. `heard` makes messages of `items`; `state` holds once they are kept.

    `total` is how many items there will be in all, where that is known.
    """

    items: Sequence[Any]
    state: State = {}
    total: int | None = None


class Poll(Struct, frozen=True):
    """Something a source can be asked for: a job named `<source>.<name>`.

    `every_s` is how often it runs by itself; None is only by hand. `about` is one sentence for people.
    `options` are what a run by hand may be told, each with one sentence.
    """

    name: str
    about: str
    every_s: float | None = None
    options: Mapping[str, str] = {}


class SourceScope(Struct, frozen=True):
    """What asking and listening may touch. `known` shows what is kept; only `heard` changes it.

    `options` are what a run by hand was told (`towpath jobs run NAME key=value`).
    """

    http: Http
    clock: Clock
    known: Known
    options: Mapping[str, str] = {}


class Source(ABC, Generic[S]):
    """Where messages come from. The kinds of source below say how."""

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    def headers(self) -> Mapping[str, str]:
        """Credential headers of what asks: kept out of every record and log."""
        return {}

    def budgets(self) -> Mapping[str, float]:
        """Requests per minute by bucket, for what asks."""
        return {}

    def undelivered(self, message: Message, known: Known) -> None:
        """Hear that one of its messages became a dead letter: a source that compares tells it again."""

    def persons(self, known: Known) -> int:
        """How many people it knows, for the delete guard; 0 where it does not keep them."""
        return 0

    async def check(self, scope: SourceScope) -> Sequence[Check]:
        """Ask whether these settings work, changing nothing there; one line per capability."""
        return ()


class Inbound(Source[S]):
    """A source that calls us, at `/webhooks/<its name>`. The answer leaves only after its messages are kept.

    `path` is a second address, `/webhooks/<path>`, for where there is one source of the kind only.
    """

    path: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("POST",)

    @abstractmethod
    def verify(self, request: Incoming, now: float) -> None:
        """Check signature or key, in constant time; `now` is Unix seconds. Raises `errors.Unauthorized`."""

    @abstractmethod
    def messages(self, request: Incoming, known: Known) -> Iterable[Heard]:
        """The request as messages, in order; no I/O. Raises `Malformed` when it cannot be read at all."""

    def parts(self, request: Incoming) -> Sequence[Incoming]:
        """A request of several items as requests of one each, which say together what it says.

        Asked for where towpath fails to read it whole, so that only what is at fault becomes a dead letter.
        """
        return (request,)

    def routes(self) -> Mapping[str, str]:
        """Its addresses outside of `/webhooks/`: templates, each by the word that `Incoming.route` then says.

        `{source}` in a template is the source's name, another `{…}` any one segment. What two sources claim
        with the same words is found by neither.
        """
        return {}

    def answer(self) -> bytes:
        """The body of the 200."""
        return b"OK"


def items_apart(request: Incoming) -> Sequence[Incoming]:
    """A request whose body is a JSON array as requests of one item each; any other as it is."""
    try:
        items = msgspec.json.decode(request.body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return (request,)
    return [msgspec.structs.replace(request, body=b"[%b]" % bytes(item)) for item in items] or (request,)


class Malformed(ValueError):
    """A request that cannot be read: answered 400 with this text, kept like a dead letter."""


class Polled(Source[S]):
    """A source that we ask."""

    @abstractmethod
    def polls(self) -> Sequence[Poll]:
        """What it can be asked for."""

    @abstractmethod
    def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        """Everything since `state` ({} at first), page by page. Raises `Undelivered` of `scope.http`."""

    @abstractmethod
    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        """A page as messages, in order; no I/O."""


class Listening(Polled[S]):
    """A source that we hold a connection to."""

    @abstractmethod
    def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page] | None:
        """What comes after `state`, for ever; None where the settings ask for none.

        `state` is that of the last page that was kept, {} at first; a page says where to go on from it as a
        whole. Begun again with it when it ends or fails, perhaps after a page that was not kept.
        """
