"""Pages of the simulated App API: tokens, empty pages in between, lists that are null when they are empty."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import TypeVar

from .customerio_exchange import Call, app_error
from .customerio_state import position, token

T = TypeVar("T")
_FULL, _EMPTY = "0", "1"


def page(
    items: Sequence[T],
    call: Call,
    default: int,
    largest: int,
    *,
    empty_pages: bool = False,
    tail: bool = False,
    repeated: bool = False,
) -> tuple[list[T], str]:
    """Return the page a call asks for, and the token of the next one, empty at the end.

    With `empty_pages` an empty page that has a `next` comes between any two others, as the vendor's lists
    of people have them; with `tail` the last page that has rows names an empty one after it; `repeated`
    begins every page with the last row of the one before. Raises `Refusal` for a token that is none.
    """
    kind, start = _start(call)
    limit = max(1, call.number("limit", default, largest))
    if empty_pages and start and kind == _FULL:
        return [], token(start, _EMPTY)
    end = start + limit
    rows = list(items[start - bool(repeated and start) : end])
    return rows, token(end) if end < len(items) or (tail and start < len(items)) else ""


def _start(call: Call) -> tuple[str, int]:
    given = call.query("start")
    if not given:
        return _FULL, 0
    try:
        return position(given)
    except (ValueError, binascii.Error):
        raise app_error(400, "start is not a valid page") from None
