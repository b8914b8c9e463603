"""The child process of a transform: `python -m towpath.transforming MODULE:FUNCTION DIRECTORY`.

It reads messages and writes answers, each a JSON document behind its length (4 bytes, big-endian): first
`{}` or `{"failed": …}` for whether the function could be loaded, then for every message in turn
`{"messages": […]}` or `{"failed": …}`. `failed` names the kind of an error and its place, and nothing of the
message; `detail` its text as well. `final` says that the same would come of it again.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, TypeAlias

import msgspec

MOST = 100
LONGEST_BYTES = 1024 * 1024
EVENT_BYTES = 64 * 1024  # of one message returned, as of one taken in; or as many as the one it is made of
MEMORY_BYTES = 4 << 30  # of address space: what asks for more gets a MemoryError
TEXT_MAX = 500
SET_HERE = frozenset({"receivedAt", "source", "trust"})
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Function: TypeAlias = Callable[[dict[str, Any]], Any]


class Unfit(Exception):
    """What the function returned is not what a transform returns; says why."""


class TooLarge(Unfit):
    """What the function returned is too much to take."""


def main(target: str, directory: str) -> None:
    """Answer until standard input ends."""
    given, answers = _own_pipes()
    os.register_at_fork(after_in_child=partial(_mute, given, answers))
    _bound_memory()
    try:
        function = load(target, directory)
    except BaseException as error:
        _write(answers, {"failed": said(error, text=True)})  # it has seen no message yet
        return
    _write(answers, {})
    while (body := _read(given)) is not None:
        _write(answers, answer(function, body))


def load(target: str, directory: str) -> Function:
    """Import the function, from the configuration's directory first."""
    sys.path.insert(0, directory)
    module, _, name = target.partition(":")
    function: Function = getattr(importlib.import_module(module), name)
    if not callable(function):
        raise TypeError(f"{name} in {module} is not a function")
    return function


def answer(function: Function, body: bytes) -> bytes:
    """What the function makes of one message. Whatever goes wrong is said, never raised."""
    try:
        most = max(EVENT_BYTES, len(body))
        made = [_encoded(each, most) for each in fitting(function(_decode(body)))]
        if (size := sum(map(len, made))) > LONGEST_BYTES:
            raise TooLarge(f"it returned {size:,} bytes; at most {LONGEST_BYTES:,} are taken")
    except BaseException as error:
        final = isinstance(error, TooLarge)
        return _encode({"failed": said(error), "detail": said(error, text=True), "final": final})
    return b'{"messages":[' + b",".join(made) + b"]}"


def _encoded(message: dict[str, Any], most: int) -> bytes:
    """One message returned, as JSON of at most so many bytes. Raises `Unfit`."""
    try:
        encoded = _encode(message)
    except Exception as error:
        raise Unfit(f"it returned what JSON cannot hold ({type(error).__name__})") from error
    if len(encoded) > most:
        raise TooLarge(f"it returned a message of {len(encoded):,} bytes; at most {most:,} are taken")
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


def said(error: BaseException, *, text: bool = False) -> str:
    """Name an error with the line it came from; its `text` may hold what the message holds."""
    if isinstance(error, Unfit):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
    return f"{type(error).__name__}{_text(error) if text else ''}{place}"


def _text(error: BaseException) -> str:
    """What an error says, written so that any text can be sent."""
    try:
        return f": {str(error)[:TEXT_MAX]}".encode("utf-8", "replace").decode()
    except Exception:
        return ""


def _bound_memory() -> None:
    """Let a function that eats memory fail by itself, before the machine does."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes away from the function: what it prints goes to standard error."""
    given, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return given, answers


def _mute(*pipes: BinaryIO) -> None:
    """Take the pipes from a copy that the function forked: its answers would be taken for those to others."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in pipes:
        os.dup2(nothing, pipe.fileno())
    os.close(nothing)


def _read(given: BinaryIO) -> bytes | None:
    head = given.read(4)
    if len(head) < 4:
        return None
    return given.read(int.from_bytes(head))


def _write(answers: BinaryIO, value: dict[str, Any] | bytes) -> None:
    body = value if isinstance(value, bytes) else _encode(value)
    view = memoryview(len(body).to_bytes(4) + body)
    while view:
        view = view[answers.write(view) :]


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the server is gone, and with it whoever asked
        main(sys.argv[1], sys.argv[2])
