"""Bounds on what an expression does with what a message holds: lists, text, and calls of functions.

The library copies the list that `map` and `filter` make, deeply, with every item (about 55 ns for each value
in it), hands a function copies of its arguments, and some functions compare every item with every other. So
an event of 64 KiB could take seconds of the event loop. What is counted here is the work, never the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeAlias

MOST_MADE = 500
"""Items of a list that `map` or `filter` goes through, or a comprehension with `matches`."""
MOST_MATCHED = 40
"""Items, where `matches` has a pattern with `\\w` or `\\p`: the library reads it anew for each, in 0.3 ms."""
MOST_ASKED = 5_000
"""Items of a list that `all`, `exists` and `exists_one` go through."""
MOST_COPIED = 150_000
"""Values copied by one `map` or `filter`; about 20 ms."""
MOST_COMPARED = 50_000
"""Items of a comprehension × values of the message that it names for each of them."""
MOST_PAIRS = 400_000
"""Items × values in the lists of a function that compares each with each."""
MOST_HANDED = 25_000
"""Values handed to functions and back by one evaluation; about 20 ms."""
LONGEST_TEXT = 64 * 1024
_CALL = 10  # values' worth of work that a call is in itself
_CHARACTERS = 50  # that count as one value

Function: TypeAlias = Callable[..., Any]
Functions: TypeAlias = Mapping[str, Function]


class TooMuch(Exception):
    """A bound is passed; says which, and nothing of the message."""


def weight(*values: Any, most: int = MOST_HANDED) -> int:
    """How many values there are inside values, long text counting as several; stops counting past `most`."""
    waiting, counted = list[Any](values), 0
    while waiting and counted <= most:
        each = waiting.pop()
        counted += 1
        if isinstance(each, str | bytes):
            counted += len(each) // _CHARACTERS
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
    return counted


class Bounds:
    """The bounds of one evaluation; `why` is the one that was passed."""

    def __init__(self) -> None:
        self.why = ""
        self._handed = 0
        self._grown: dict[int, tuple[int, int]] = {}

    def bound(self, function: Function) -> Function:
        """Return the same function, which fails once an evaluation has handed too much to functions."""
        return partial(self._call, function)

    def _call(self, function: Function, *arguments: Any) -> Any:
        self._hand(_CALL + weight(*arguments))
        try:
            made = function(*arguments)
        except TooMuch as error:
            self._refuse(str(error))
        self._hand(weight(made))
        return made

    def _hand(self, values: int) -> None:
        self._handed += values
        if self._handed > MOST_HANDED:
            self._refuse("its functions are given too much")

    def range(self, macro: str, most: int, named: Callable[[], Iterable[Any]], items: Any) -> Any:
        """What a comprehension goes through, if it is not too much; `named` are the values its body names.

        Of an object those are its keys, sorted: CEL's own order is another one each time.
        """
        items = sorted(items, key=str) if isinstance(items, dict) else items
        if isinstance(items, list):
            if len(items) > most:
                self._refuse(f"the list is longer than {most:,} items, too many for {macro}")
            if len(items) * weight(*named(), most=MOST_COMPARED) > MOST_COMPARED:
                self._refuse(f"{macro} uses too large a value of the message for each item")
            if macro == "filter" and len(items) * weight(items, most=MOST_COPIED) > 2 * MOST_COPIED:
                self._refuse("the items of the list are too large for filter")
        return items

    def made(self, number: int, item: Any) -> Any:
        """One item that a `map` has made, if it has not made too much; `number` tells them apart."""
        grown, copied = self._grown.get(number, (0, 0))
        values = weight(item, most=MOST_COPIED)
        grown += values
        copied += grown
        self._grown[number] = grown, copied
        if copied > MOST_COPIED:
            self._refuse("map makes too large a list")
        self._hand(2 * values)
        return item

    def _refuse(self, why: str) -> NoReturn:
        self.why = why
        raise TooMuch(why)


# -- functions whose work is not in proportion to what they are given -----------------------------------


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    count = text.count(old) if limit < 0 else min(limit, text.count(old))
    _fits(len(text) + count * (len(new) - len(old)))
    return text.replace(old, new, limit)


def _join(items: Sequence[str], separator: str = "") -> str:
    _fits(sum(map(len, items)) + len(items) * len(separator))
    return separator.join(items)


def _fits(length: int) -> None:
    if length > LONGEST_TEXT:
        raise TooMuch(f"the text would be longer than {LONGEST_TEXT:,} characters")


def _lower(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _upper(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").upper().decode("utf-8", "surrogatepass")


def _comparing(function: Function) -> Function:
    """A function that compares every item of its lists with every other."""

    def bounded(*lists: Any) -> Any:
        longest = max((len(each) for each in lists if isinstance(each, list)), default=0)
        if longest * weight(*lists, most=MOST_PAIRS) > MOST_PAIRS:
            raise TooMuch("the lists are too long to compare all their items")
        return function(*lists)

    return bounded


def bounded(functions: Functions) -> Functions:
    """The library's functions, those of them exchanged whose work nothing else bounds."""
    own: dict[str, Function] = {
        "replace": _replace,
        "join": _join,
        "lowerAscii": _lower,
        "upperAscii": _upper,
    }
    comparing = ("distinct", "sets.contains", "sets.equivalent", "sets.intersects")
    return {**functions, **own, **{name: _comparing(functions[name]) for name in comparing}}
