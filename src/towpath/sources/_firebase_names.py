"""Names of Google's as people write them: what cannot be one is said before Google is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]*")  # with a domain before it: an old organisation's
_DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]*")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RESERVED = re.compile(r"\.|\.\.|__.*__")
_WILDCARD = re.compile(r"\{[^}]*\}")


def _project(name: str) -> str:
    if _PROJECT.fullmatch(name):
        return name
    raise ValueError(
        "must be the project's id, like my-project-1a2b3 (Firebase console, Project settings): not its "
        "display name, its number or an address"
    )


def _tenant(name: str) -> str:
    if _TENANT.fullmatch(name):
        return name
    raise ValueError("must be a tenant's id, like customers-1a2b3 (letters, digits, hyphens)")


def _database(name: str) -> str:
    if _DATABASE.fullmatch(name):
        return name
    raise ValueError('must be the database\'s id, like orders-db, or "(default)"')


def _once(names: list[str]) -> list[str]:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"names {twice} twice")
    return names


ProjectId: TypeAlias = Annotated[str, AfterValidator(_project)]
TenantIds: TypeAlias = Annotated[list[Annotated[str, AfterValidator(_tenant)]], AfterValidator(_once)]
DatabaseId: TypeAlias = Annotated[str, AfterValidator(_database)]


def check_parts(parts: Sequence[str]) -> None:
    """Refuse the parts of a path that Firestore never has. Raises `ValueError`."""
    for part in parts:
        if _RESERVED.fullmatch(part):
            raise ValueError(f'holds "{part}", which Firestore keeps for itself')
        if part != part.strip():
            raise ValueError(f'holds "{part}": take the space at its start or end out')


def check_once(places: Sequence[tuple[str, str, bool]]) -> None:
    """Refuse a collection (path, database, group) that is named twice. Raises `ValueError`."""
    seen = set[tuple[str, str, bool]]()
    for path, database, group in places:
        place = _WILDCARD.sub("{}", path), database, group
        if place in seen:
            raise ValueError(f"names {path} twice: put what is taken of it into one entry")
        seen.add(place)
