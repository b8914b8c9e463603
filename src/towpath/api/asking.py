"""What requests ask for: bodies, numbers, ids, filters and names, read and checked."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from ..app import App
from ..errors import TowpathError
from ..log import DeadFilter
from .answering import Missing

LIMIT_MAX = 10_000


async def body(request: Request) -> dict[str, Any]:
    """Read the request's JSON object; empty when there is none."""
    try:
        value = msgspec.json.decode(await request.body() or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TowpathError(f"the request body is not JSON: {error}", code="E5011") from error
    if not isinstance(value, dict):
        raise TowpathError("the request body must be a JSON object", code="E5011")
    return value


def number(request: Request, name: str, default: int, *, most: int = LIMIT_MAX) -> int:
    """Read a whole number of the query, at most `most`."""
    text = request.query_params.get(name, str(default))
    if not text.isdecimal():
        raise TowpathError(f"{name} must be a whole number, not {text[:40]!r}", code="E5012")
    return min(int(text), most) if len(text) < 40 else most


def ids(fields: dict[str, Any]) -> frozenset[str]:
    """Read the exact ids of people."""
    given = fields.get("ids")
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one for one in given):
        raise TowpathError("name at least one id, exactly as it was sent", code="E5013")
    return frozenset(given)


def dead_filter(fields: dict[str, Any]) -> DeadFilter:
    """Read which dead letters are meant."""
    given = {key: value for key, value in fields.items() if value is not None}
    unknown = sorted(given.keys() - set(DeadFilter.__struct_fields__))
    if unknown:
        raise TowpathError(f"dead letters cannot be chosen by {', '.join(unknown)}", code="E5014")
    try:
        return msgspec.convert(given, DeadFilter)
    except msgspec.ValidationError as error:
        raise TowpathError(f"a dead-letter filter cannot be read: {error}", code="E5014") from error


async def connection(app: App, name: str | None) -> str | None:
    """Check a connection's name, or None for all; one taken out of the configuration keeps its rows."""
    known = {row.connection for row in await app.store.balance()}
    if name is not None and name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise Missing(f"there is no connection {name!r}", code="E4404", fix=f"known: {listed}")
    return name
