"""Frames of HTTP/2 (RFC 9113, sections 4 and 6): their bytes, and what arrives cut into them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import TypeAlias

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

FRAME_BYTES = 16_384
"""What a frame may carry until a SETTINGS frame allows more; we never do."""
LARGEST_FRAME_BYTES = 2**24 - 1
WINDOW_BYTES = 65_535
"""What may be sent on a stream, and on a connection, until the other side allows more."""
LARGEST = 2**31 - 1
"""The largest window, and the last number of a stream."""

Frame: TypeAlias = tuple[int, int, int, bytes]
"""Type, flags, stream and payload."""

_HEAD = struct.Struct(">HBBBI")
_HEAD_BYTES = 9
_SETTING = struct.Struct(">HI")
_pack = _HEAD.pack


class Code(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """What a SETTINGS frame may say (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Breach(Exception):
    """The other side broke the protocol in a way that ends the connection, with this code."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def named(code: int) -> str:
    """Name an error code for people."""
    return Code(code).name if code in Code.__members__.values() else f"error {code}"


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return _pack(size >> 8, size & 255, kind, flags, stream) + payload


def whole_request(stream: int, block: bytes, body: bytes | memoryview) -> bytes:
    """HEADERS and DATA in one piece, where both are small."""
    opening = _pack(len(block) >> 8, len(block) & 255, HEADERS, END_HEADERS, stream)
    between = _pack(len(body) >> 8, len(body) & 255, DATA, END_STREAM, stream)
    return b"".join((opening, block, between, body))


def number_frame(kind: int, stream: int, number: int) -> bytes:
    """A frame that says one number: RST_STREAM, WINDOW_UPDATE."""
    return frame(kind, 0, stream, number.to_bytes(4, "big"))


def go_away(code: Code) -> bytes:
    """The GOAWAY of a client: of streams that a server began, it has seen none."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", 0, code))


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a SETTINGS frame, in their order. Raises `Breach`."""
    if len(payload) % _SETTING.size:
        raise Breach(Code.FRAME_SIZE_ERROR, "a SETTINGS frame of a wrong size")
    return _SETTING.iter_unpack(payload)


def header_frames(block: bytes, flags: int, stream: int, most_bytes: int) -> bytes:
    """A header block as HEADERS, and CONTINUATION where one frame cannot carry it."""
    if len(block) <= most_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    written = [frame(HEADERS, flags, stream, block[:most_bytes])]
    for start in range(most_bytes, len(block), most_bytes):
        last = END_HEADERS if start + most_bytes >= len(block) else 0
        written.append(frame(CONTINUATION, last, stream, block[start : start + most_bytes]))
    return b"".join(written)


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority. Raises `Breach`."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - payload[0] if payload else 0
    if flags & PRIORITIZED:
        start += 5
    if start > end:
        raise Breach(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[start:end]


class Frames:
    """Cuts what arrives, in pieces of any size, into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises `Breach` for one larger than we allow."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, size = 0, len(data)
        unpack = _HEAD.unpack_from
        while size - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = unpack(data, at)
            start = at + _HEAD_BYTES
            end = start + (high << 8 | low)
            if end - start > FRAME_BYTES:
                raise Breach(Code.FRAME_SIZE_ERROR, "a frame larger than allowed")
            if end > size:
                break
            at = end
            yield kind, flags, stream & LARGEST, data[start:end]
        self._rest = data[at:]
