"""Paths into a message, `properties.plan` or `context["a.b"]`, and a draft that rules may change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from ..message import Message, format_time, identifier, parse_time

ROOTS: Mapping[str, str] = {field.encode_name: field.name for field in msgspec.structs.fields(Message)}
"""The words a path may begin with, as the spec writes them -> the field of `Message`."""

FIXED = frozenset(
    {"type", "messageId", "userId", "anonymousId", "previousId", "source", "trust", "receivedAt"}
)
"""What no rule writes: whose message it is, what it is, and how it came."""

OBJECTS = frozenset({"traits", "context"})
LONGEST = 64
MOST_ADDED = 1024 * 1024  # characters that rules may add to one message, roughly
_STEP = re.compile(r"""\.([^\s.\[\]{}"']+)|\["((?:[^"\\]|\\.)*)"\]|\['((?:[^'\\]|\\.)*)'\]""")

Keys: TypeAlias = tuple[str, ...]


class Missing:
    """The type of `MISSING`: there is nothing at a path."""


MISSING: Final = Missing()


class BadPath(ValueError):
    """A path cannot be read; `hint` says what to do, `column` (from 0) where."""

    def __init__(self, title: str, hint: str = "", column: int = 0) -> None:
        super().__init__(title)
        self.hint, self.column = hint, column


class Unusable(Exception):
    """A rule cannot be carried out on this message; says why."""


class TakenAway(Unusable):
    """A value could not be made safe, and is gone from the draft."""


class Path(Struct, frozen=True):
    """A place in a message: a field of `Message`, and the keys below it. `*` stands for every key or item."""

    text: str
    root: str
    keys: Keys = ()

    @property
    def word(self) -> str:
        """The first word as the spec writes it."""
        return re.split(r"[.\[]", self.text, maxsplit=1)[0]


def parse(text: str) -> Path:
    """Read a path. Raises `BadPath`."""
    word = re.match(r"\w*", text)
    root = word[0] if word else ""
    if root not in ROOTS:
        raise BadPath(f'no message has "{root}"' if root else "a path begins with a word", known(root))
    keys, at = list[str](), len(root)
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise BadPath(
                f'the path breaks off at "{text[at:]}"', 'write  properties.a  or  properties["a.b"]', at
            )
        keys.append(next(group for group in step.groups() if group is not None).replace('\\"', '"'))
        at = step.end()
    if len(keys) > LONGEST:
        raise BadPath(f"the path has more than {LONGEST} steps")
    return Path(text, ROOTS[root], tuple(keys))


def known(word: str) -> str:
    """What to write instead of a word no message has."""
    folded = {each.lower(): each for each in ROOTS}
    near = get_close_matches(word.replace("_", "").lower(), folded, n=1)
    return f'did you mean "{folded[near[0]]}"?' if near else f"known: {', '.join(ROOTS)}"


class Draft:
    """A message being mapped: objects are copied before they are changed, so the message stays as it was."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.fields: dict[str, Any] = msgspec.structs.asdict(message)
        self.reports: list[str] = []
        self._own: dict[int, Any] = {}
        self._room = MOST_ADDED
        self._full = False
        self.changed = False

    def find(self, path: Path) -> Any:
        """The value at a path, or `MISSING`; a top-level field the message does not have is None."""
        value = self.root(path.root)
        for key in path.keys:
            if type(value) is not dict or key not in value:
                return MISSING
            value = value[key]
        return value

    def root(self, name: str) -> Any:
        """A top-level field; times are by the server's clock, in RFC 3339."""
        if name == "timestamp":
            return format_time(parse_time(self.fields[name]) or self.message.occurred_at)
        if name == "received_at":
            return format_time(datetime.fromtimestamp(self.message.received_at, UTC))
        return self.fields[name]

    def add(self, path: Path, value: Any) -> None:
        """Put a further value at a path, as far as there is room. Raises `Unusable`."""
        room = self._room
        try:
            if type(value) in (dict, list, str):
                self._spend(value)
            self.write(path, value)
        except Unusable:
            self._room = room
            raise

    def write(self, path: Path, value: Any) -> None:
        """Put a value that stands nowhere else at a path, with the objects on the way. Raises `Unusable`."""
        if not path.keys:
            self.fields[path.root] = _fitting(path.word, value)
            self.changed = True
            return
        holder = self._holder(path)
        holder[path.keys[-1]] = value

    def remove(self, path: Path) -> None:
        """Take away what is at a path, if anything is."""
        self.change(path, lambda _: MISSING)

    def change(self, path: Path, new: Callable[[Any], Any]) -> None:
        """Replace every value at a path by `new(value)`; `MISSING` takes it away. `*` steps into all."""
        value = self.fields[path.root]
        if not path.keys:
            if value is not None:
                made = new(value)
                self.write(path, ({} if path.word in OBJECTS else None) if made is MISSING else made)
            return
        self.fields[path.root] = self._changed(value, path.keys, new)

    def _changed(self, value: Any, keys: Keys, new: Callable[[Any], Any]) -> Any:
        """The value with what lies below the keys replaced; itself where there is nothing."""
        present = list(_steps(value, keys[0]))
        if not present:
            return value
        own = self._owned(value)
        for step in reversed(present):
            made = new(own[step]) if len(keys) == 1 else self._changed(own[step], keys[1:], new)
            if made is MISSING:
                del own[step]
            else:
                own[step] = made
        return own

    def _holder(self, path: Path) -> dict[str, Any]:
        """The object that holds the last key of a path, made where there is none."""
        value = self.fields[path.root]
        if value is None:
            value = {}
        if type(value) is not dict:
            raise Unusable(f"{path.word} is no object")
        here = self.fields[path.root] = self._owned(value)
        for key in path.keys[:-1]:
            inner = here.get(key)
            if inner is not None and type(inner) is not dict:
                raise Unusable(f"{key} in {path.text} is no object")
            here[key] = self._owned(inner or {})
            here = here[key]
        found: dict[str, Any] = here
        return found

    def _spend(self, value: Any) -> None:
        """Bound what rules may add; and let an object that is now in two places belong to neither."""
        if self._full and type(value) is not str:
            raise Unusable("the message would become too large")  # without measuring it again for each rule
        waiting = [value]
        while waiting:
            each = waiting.pop()
            self._room -= 8 + (len(each) if type(each) is str else 0)
            if self._room < 0:
                self._full = True
                raise Unusable("the message would become too large")
            if type(each) is dict:
                waiting += [*each, *each.values()]
            elif type(each) is list:
                waiting += each
        if type(value) is not str:
            self._own.clear()

    def _owned(self, value: Any) -> Any:
        """A copy of an object or list that is the draft's own; the same one when it is already."""
        self.changed = True
        if id(value) in self._own:
            return value
        copied = value.copy()
        self._own[id(copied)] = copied  # kept alive, so that its id stays its own
        return copied

    def finish(self) -> Message:
        """The message as it is now; the received one itself when nothing changed."""
        return Message(**self.fields) if self.changed else self.message


def _fitting(word: str, value: Any) -> Any:
    """A value of the type its top-level field has. Raises `Unusable`."""
    if word.endswith("Id"):
        return identifier(value)
    if word in OBJECTS and type(value) is not dict:
        raise Unusable(f"{word} must be an object")
    if word == "integrations" and not isinstance(value, dict | bool | None):
        raise Unusable("integrations must be an object, true or false")
    return value


def _steps(value: Any, key: str) -> Iterator[Any]:
    if type(value) is dict:
        if key == "*":
            yield from value
        elif key in value:
            yield key
    elif type(value) is list and key == "*":
        yield from range(len(value))
