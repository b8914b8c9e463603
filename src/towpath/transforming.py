"""The child process of a transform: `python -m towpath.transforming MODULE:FUNCTION DIRECTORY`.

It reads messages and writes answers, each a JSON document behind its length (4 bytes, big-endian): first
`{}` or `{"failed": …}` for whether the function could be loaded, then for every message in turn
`{"messages": […]}` or `{"failed": …}`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias

import msgspec

MOST = 100
LONGEST_BYTES = 1024 * 1024
TEXT_MAX = 500
SET_HERE = frozenset({"receivedAt", "source", "trust"})
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Function: TypeAlias = Callable[[dict[str, Any]], Any]


class Unfit(Exception):
    """What the function returned is not what a transform returns; says why."""


def main(target: str, directory: str) -> None:
    """Answer until standard input ends."""
    given, answers = _own_pipes()
    try:
        function = load(target, directory)
    except BaseException as error:
        _write(answers, {"failed": said(error)})
        return
    _write(answers, {})
    while (message := _read(given)) is not None:
        _write(answers, answer(function, message))


def load(target: str, directory: str) -> Function:
    """Import the function, from the configuration's directory first."""
    sys.path.insert(0, directory)
    module, _, name = target.partition(":")
    function: Function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{name} in {module} is not a function")
    return function


def answer(function: Function, message: dict[str, Any]) -> dict[str, Any] | bytes:
    """What the function makes of one message. Whatever goes wrong is said, never raised."""
    try:
        encoded = _encode({"messages": fitting(function(message))})
    except BaseException as error:
        return {"failed": said(error)}
    if len(encoded) > LONGEST_BYTES:
        return {"failed": f"it returned {len(encoded):,} bytes; at most {LONGEST_BYTES:,} are taken"}
    return encoded


def fitting(returned: Any) -> list[dict[str, Any]]:
    """Return the messages in what the function returned. Raises `Unfit`."""
    if returned is None:
        return []
    messages = [returned] if isinstance(returned, dict) else returned
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise Unfit(
            f"it returned {type(returned).__name__}; a transform returns a dict, a list of dicts or None"
        )
    if len(messages) > MOST:
        raise Unfit(f"it returned {len(messages)} messages; at most {MOST} are taken")
    return [{key: value for key, value in each.items() if key not in SET_HERE} for each in messages]


def said(error: BaseException) -> str:
    """Name an error with the line it came from."""
    if isinstance(error, Unfit):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
    return f"{type(error).__name__}: {str(error)[:TEXT_MAX]}{place}"


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes away from the function: what it prints goes to standard error."""
    given, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return given, answers


def _read(given: BinaryIO) -> dict[str, Any] | None:
    head = given.read(4)
    if len(head) < 4:
        return None
    message: dict[str, Any] = _decode(given.read(int.from_bytes(head)))
    return message


def _write(answers: BinaryIO, value: dict[str, Any] | bytes) -> None:
    body = value if isinstance(value, bytes) else _encode(value)
    view = memoryview(len(body).to_bytes(4) + body)
    while view:
        view = view[answers.write(view) :]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
