"""The loading process: `python -m towpath.warehouse.process`; DuckDB, Arrow and dlt live here alone.

It reads calls on standard input and answers on standard output, as `wire` says. It ends when its input ends,
which also comes when the program is killed; what hangs then is ended after `GRACE_S`.
"""

from __future__ import annotations

import gc
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec
from pydantic import TypeAdapter

from towpath.errors import TowpathError

from . import faults
from .loading import Loader
from .settings import Target
from .wire import ARGUMENTS, HEAD, MOST_BYTES, Begin, Failure, Finish, Opening, Reset, decode, encode

GRACE_S = 10.0
AHEAD = 2  # calls that are read before their turn
KEY = "_towpath/hash_key"
"""Where a target keeps by which key its hashes are made."""

_call = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw]).decode


def main() -> None:
    """Answer until standard input ends."""
    calls, answers = _own_pipes()
    threading.Thread(target=_end_with, args=(calls.fileno(),), daemon=True).start()
    frames: queue.Queue[bytes | None] = queue.Queue(AHEAD)
    threading.Thread(target=_read_ahead, args=(calls, frames), daemon=True).start()
    if (first := frames.get()) is None:
        return
    desk = Opened(decode(first, type=Opening))
    gc.freeze()
    try:
        while (frame := frames.get()) is not None:
            _write(answers, desk.answer(frame))
    except BrokenPipeError:
        pass
    finally:
        desk.close()


class Opened:
    """A target that is opened when it is first needed, and again after it was lost."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._loader: Loader | None = None

    def answer(self, frame: bytes) -> bytes:
        """What comes of a call. Whatever goes wrong is said, never raised."""
        try:
            method, argument = _call(frame)
            return encode((True, perform(self._open(), method, argument, self._opening.hash_key)))
        except TowpathError as error:
            if isinstance(error, faults.Hindered):
                self.close()  # it may be half gone; the next call opens it anew
            return encode((False, Failure.of(error)))
        except Exception as error:
            self.close()
            traceback.print_exc(chain=False, limit=-4) if _debugging() else None
            return encode((False, Failure.of(faults.unforeseen(_place(error)))))

    def _open(self) -> Loader:
        if self._loader is None:
            from .open import open_loader

            target: Any = TypeAdapter(Target).validate_python(self._opening.target)
            self._loader = open_loader(target, self._opening.hash_key)
        return self._loader

    def close(self) -> None:
        """Leave the target to others."""
        loader, self._loader = self._loader, None
        if loader is not None:
            with suppress(Exception):  # it is given up; what was confirmed is in
                loader.close()


def perform(loader: Loader, method: str, argument: msgspec.Raw, hash_key: str = "") -> Any:
    """Do one call. Raises `TowpathError`, also where hashes were made with another key."""
    given = decode(argument, type=ARGUMENTS[method])
    if method == "prepare" and any(shape.hashed for shape in given):
        _keep_key(loader, hash_key, first=True)
    elif method == "erase":
        _keep_key(loader, hash_key, first=False)
    return METHODS[method](loader, given)


def _keep_key(loader: Loader, hash_key: str, *, first: bool) -> None:
    """See that the key is the one of before, by what it makes of nothing; the first one is noted."""
    from .arrow import hashed

    mark = hashed(hash_key.encode(), "")
    kept = loader.state(KEY).get(KEY)
    if kept is None and first:
        loader.keep({KEY: mark})
    elif kept not in (None, mark):
        raise faults.other_key()


def _begin(loader: Loader, given: Begin) -> None:
    loader.begin(given.table, given.workspace, given.run)


def _finish(loader: Loader, given: Finish) -> Any:
    return loader.finish(
        given.table, given.workspace, given.run, unread=given.unread, most=given.most, state=given.state
    )


def _reset(loader: Loader, given: Reset) -> None:
    loader.reset(given.tables, given.workspace, given.prefixes)


METHODS: Mapping[str, Callable[[Loader, Any], Any]] = {
    "prepare": lambda loader, shapes: loader.prepare(shapes),
    "state": lambda loader, prefix: dict(loader.state(prefix)),
    "keep": lambda loader, state: loader.keep(state),
    "load": lambda loader, load: loader.load(load),
    "begin": _begin,
    "finish": _finish,
    "erase": lambda loader, ids: dict(loader.erase(ids)),
    "counts": lambda loader, _: list(loader.counts()),
    "execute": lambda loader, statements: loader.execute(statements),
    "reset": _reset,
}


def _debugging() -> bool:
    """Whether tracebacks are wanted: they may name values, so never unasked."""
    return bool(os.environ.get("TOWPATH_DEBUG"))


def _place(error: BaseException) -> str:
    """Name an error with the line it came from, and nothing of what it says: that may be a record."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""  # noqa: PTH119
    return f"{type(error).__name__}{place}"


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes away from libraries: what they print goes to standard error."""
    calls, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return calls, answers


def _read_ahead(calls: BinaryIO, frames: queue.Queue[bytes | None]) -> None:
    while (frame := _read(calls)) is not None:
        frames.put(frame)
    frames.put(None)


def _read(calls: BinaryIO) -> bytes | None:
    """The next frame; None where the input ends, also in the middle of one."""
    head = _exactly(calls, HEAD.size)
    if head is None or (size := HEAD.unpack(head)[0]) > MOST_BYTES:
        return None
    return _exactly(calls, size)


def _exactly(calls: BinaryIO, size: int) -> bytes | None:
    whole = bytearray(size)
    view, filled = memoryview(whole), 0
    while filled < size:
        if not (count := calls.readinto(view[filled:])):  # type: ignore[attr-defined]
            return None
        filled += count
    return bytes(whole)


def _write(answers: BinaryIO, body: bytes) -> None:
    view = memoryview(HEAD.pack(len(body)) + body)
    while view:
        view = view[answers.write(view) :]


def _end_with(calls: int) -> None:
    """Give the work in hand a while to end once the program is gone, and then end all the same."""
    poll = select.poll()
    poll.register(calls, 0)  # a hang-up is always told
    poll.poll()
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
    sys.exit()
