"""Header blocks (HPACK, RFC 7541), written and read without a table: each means the same every time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from msgspec import Struct

from ..http import Request, Unsendable
from ..url import Target
from .frames import Breach, Code, Setting

LIST_BYTES = 65_536
"""How large the headers of an answer may be, and their block."""
OUR_TABLE = {Setting.HEADER_TABLE_SIZE: 0, Setting.MAX_HEADER_LIST_SIZE: LIST_BYTES}

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# Of one connection (RFC 9113, 8.2.2), or written here.
_LEFT_OUT = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
_FORBIDDEN = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_KEPT = 256
_KEPT_BYTES = 4096
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_BAD_IN_VALUE = re.compile(r"[\x00\r\n]").search
_STATUS = re.compile(r"[1-9][0-9]{2}").fullmatch
_LENGTH = re.compile(r"[0-9]{1,15}").fullmatch

# From the static table (RFC 7541, appendix A).
_WHOLE = {(":method", "GET"): b"\x82", (":method", "POST"): b"\x83", (":scheme", "https"): b"\x87"}
_NAMES = {":authority": 1, ":method": 2, ":path": 4, "accept": 19, "authorization": 23, "content-type": 31}
_NO_TABLE = b"\x20"
_NEVER_INDEXED = 0x10
_CONTENT_LENGTH = b"\x0f\x0d"
_squeezed = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


class Head(Struct, frozen=True):
    """The head of an answer, or its trailers. `status` is 0 where none is named, `fault` says what is wrong.

    Of a repeated header the first one is kept. `length` is that of the body, where it is told.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None = None
    fault: str = ""


class HeadReader:
    """Reads the header blocks of one connection.

    We allow the other side no table, so a block stands for itself; those that were read are kept, as a
    service says the same over and over.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(LIST_BYTES)
        self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """Raises `Breach` for what is no header block."""
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields: Iterable[Any] = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise Breach(
                Code.COMPRESSION_ERROR, f"headers that cannot be read ({type(error).__name__})"
            ) from error
        found = _head([(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
        if len(block) <= _KEPT_BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[block] = found
        return found


class HeadWriter:
    """Writes the header blocks of requests; one after the other is the same but for the body's length."""

    def __init__(self) -> None:
        self._method = self._url = ""
        self._headers: Mapping[str, str] = {}
        self._block = b""

    def write(self, request: Request, target: Target) -> bytes:
        """The block of a request. Raises `Unsendable` for text that no header can have."""
        if request.url != self._url or request.method != self._method or request.headers != self._headers:
            self._block = _block(request, target)
            self._method, self._url, self._headers = request.method, request.url, dict(request.headers)
        if request.body or request.method in _WITH_BODY:  # some servers answer 411 without it
            return self._block + _content_length(len(request.body))
        return self._block


def _head(fields: Iterable[tuple[str, str]]) -> Head:
    status, headers = 0, dict[str, str]()
    for name, value in fields:
        if name[:1] == ":":
            if name != ":status" or status or headers or not _STATUS(value):
                return Head(0, {}, fault="a pseudo-header that no answer has")
            status = int(value)
        elif not _NAME(name) or _BAD_IN_VALUE(value) or name in _FORBIDDEN:
            return Head(0, {}, fault="a header that HTTP/2 does not allow")
        else:
            headers.setdefault(name, value)
    told = headers.get("content-length")
    if told is not None and not _LENGTH(told):
        return Head(0, {}, fault="a content-length that is no number")
    return Head(status, headers, None if told is None else int(told))


def _block(request: Request, target: Target) -> bytes:
    shown = {**target.headers, **request.headers}
    fields = {
        ":method": request.method,
        ":scheme": "https",
        ":authority": shown.get("host", ""),
        ":path": target.path,
        **{name: value for name, value in shown.items() if name not in _LEFT_OUT},
    }
    # The table of what we send is empty from the first block on, whatever the other side allows.
    return _NO_TABLE + b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    """A field that enters no table, not even a proxy's."""
    if (whole := _WHOLE.get((name, value))) is not None:
        return whole
    if _BAD_IN_VALUE(name + value):
        raise Unsendable("not a request: a line break in a header")
    try:
        raw = value.encode("latin-1")
        if (index := _NAMES.get(name)) is not None:
            return _integer(index, 4, _NEVER_INDEXED) + _text(raw)
        return bytes((_NEVER_INDEXED,)) + _text(name.encode("latin-1")) + _text(raw)
    except UnicodeEncodeError:
        raise Unsendable("not a request: a header with characters that HTTP does not allow") from None


def _text(raw: bytes) -> bytes:
    squeezed = _squeezed(raw)
    if len(squeezed) < len(raw):
        return _integer(len(squeezed), 7, 0x80) + squeezed
    return _integer(len(raw), 7, 0) + raw


def _integer(number: int, bits: int, first: int) -> bytes:
    """A number in the last bits of a first byte and as many more as it takes (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((first | number,))
    written, number = bytearray((first | most,)), number - most
    while number >= 128:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)


@lru_cache(4096)
def _content_length(size: int) -> bytes:
    return _CONTENT_LENGTH + _text(b"%d" % size)
