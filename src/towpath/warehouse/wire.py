"""What the program and the loading process say to each other: frames of msgpack behind their length.

First the program sends an `Opening`; then calls, each `[method, argument]`, and for each in turn comes
`[true, result]` or `[false, Failure]`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from towpath.errors import TowpathError

from .faults import Hindered
from .loading import Counted, Gone, Load, Wrote
from .table import Shape

HEAD = struct.Struct(">Q")
MOST_BYTES = 1 << 31  # of a frame: a length beyond is no length


class Opening(Struct, frozen=True):
    """A target with its secrets in the clear, and the secret of hashed columns."""

    target: dict[str, Any]
    hash_key: str


class Begin(Struct, frozen=True):
    """The argument of `begin`."""

    table: str
    workspace: str
    run: str


class Finish(Struct, frozen=True):
    """The argument of `finish`."""

    table: str
    workspace: str
    run: str
    unread: Sequence[Mapping[str, Any]]
    most: float
    state: dict[str, str | None]


class Reset(Struct, frozen=True):
    """The argument of `reset`."""

    tables: Sequence[str]
    workspace: str | None
    prefixes: Sequence[str]


class Failure(Struct, frozen=True):
    """An error for people; `passing` says whether the same may go well later."""

    title: str
    code: str
    why: str
    fix: str
    data: str
    passing: bool

    @classmethod
    def of(cls, error: TowpathError) -> Failure:
        """Return the failure that an error is."""
        passing = isinstance(error, Hindered)
        return cls(error.title, error.code, error.why, error.fix, error.data, passing)

    def error(self) -> TowpathError:
        """The error that it was."""
        kind = Hindered if self.passing else TowpathError
        return kind(self.title, code=self.code, why=self.why, fix=self.fix, data=self.data)


ARGUMENTS: Mapping[str, Any] = {
    "prepare": list[Shape],
    "state": str,
    "keep": dict[str, str | None],
    "load": Load,
    "begin": Begin,
    "finish": Finish,
    "erase": list[str],
    "counts": None,
    "execute": list[str],
    "reset": Reset,
}
RESULTS: Mapping[str, Any] = {
    "prepare": None,
    "state": dict[str, str],
    "keep": None,
    "load": Wrote,
    "begin": None,
    "finish": Gone,
    "erase": dict[str, int],
    "counts": list[Counted],
    "execute": None,
    "reset": None,
}
"""What each method of a loader takes and gives."""

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.decode


def framed(body: bytes) -> bytes:
    """A frame of these bytes."""
    return HEAD.pack(len(body)) + body
