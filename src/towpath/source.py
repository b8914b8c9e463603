"""Where messages come from: sources that call us, sources we ask, and the settings all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from msgspec import Struct
from pydantic import Field

from .destination import Scope, Settings
from .message import Message, Trust

State: TypeAlias = Mapping[str, object]
"""Where a polled source goes on: JSON, opaque to towpath."""


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
    """One request to us. Header names are lower case; `body` is inflated and within the limits."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Page(Struct, frozen=True):
    """Messages of a polled source, and the state that holds once they are appended."""

    messages: Sequence[Message]
    state: State


class Inbound(ABC, Generic[S]):
    """A source that calls us. The answer leaves only after its messages are on disk."""

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def verify(self, request: Incoming) -> None:
        """Check signature or key, in constant time. Raises `errors.Unauthorized`."""

    @abstractmethod
    def messages(self, request: Incoming) -> Iterable[Message]:
        """The request as messages, in order. Pure."""


class Polled(ABC, Generic[S]):
    """A source we ask."""

    name: ClassVar[str]
    Settings: ClassVar[type[Any]]

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def pages(self, state: State, scope: Scope) -> AsyncIterator[Page]:
        """Everything since `state`, page by page; each page's state is saved with its messages."""
