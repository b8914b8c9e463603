"""The params of the `sync-customerio` Firebase extension as a configuration, and what they cannot say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ..errors import TowpathError
from ..vendors.customerio import REGIONS
from . import customerio, firebase
from .pairs import pairs
from .plan import Entry, Plan, kept_as, secret

UNREADABLE = "E2410"
OFF = "_unconfigured_"
"""What the extension has in USERS_COLLECTION where Firestore is left alone."""

ANONYMOUS = (
    "anonymous users are left out; the extension made people of them, whom Customer.io bills: the source's "
    "setting  anonymous_users: person  does the same"
)

_SECRET = re.compile(r"projects/([^/]+)/secrets/([^/]+)(?:/versions/[^/]+)?").fullmatch
_SITE_ID, _API_KEY, _REGION, _COLLECTION = "SITE_ID", "API_KEY", "REGION", "USERS_COLLECTION"
_PROJECT = ("PROJECT_ID", "GCLOUD_PROJECT", "GCP_PROJECT")
_NOT_NEEDED = {
    "LOCATION": "not needed: towpath runs where you run it; an Eventarc trigger has a region of its own",
    "ENVIRONMENT": "not needed: it led the extension to a test host of Customer.io's own",
}

Fate = Literal["mapped", "changed", "ignored", "to set"]


class Param(Struct, frozen=True):
    """What became of one param: taken as it is, taken with a difference, left out, or to be set by hand."""

    name: str
    fate: Fate
    about: str


class Imported(Struct, frozen=True):
    """What is written, and what became of each param."""

    plan: Plan
    params: Sequence[Param]


def read(text: str) -> dict[str, str]:
    """The params of a file: `KEY=value` lines as in `extensions/sync-customerio.env`, or JSON.

    Raises `TowpathError`.
    """
    stripped = text.removeprefix("\ufeff").strip()
    params = _json(stripped) if stripped.startswith("{") else pairs(stripped)
    if not params.get(_SITE_ID):
        raise TowpathError(
            "these are not the params of the sync-customerio extension",
            code=UNREADABLE,
            why="there is no SITE_ID",
            fix="name extensions/sync-customerio.env of your Firebase project, or the params as JSON",
            data="Nothing was written.",
        )
    return params


def translate(
    params: Mapping[str, str], source: firebase.Firebase, *, destination: str, track_api_key: str = ""
) -> Imported:
    """The same setup in towpath's words; `source` and `track_api_key` are what the params do not hold.

    The project is that of `source`, else the params', else the one whose secret they name. Raises
    `TowpathError` where there is none.
    """
    collection = params.get(_COLLECTION, "").strip()
    known = msgspec.structs.replace(
        source,
        project=source.project or _project(params),
        collections=[] if collection in ("", OFF) else [collection],
        destinations=[destination],
    )
    key = track_api_key or _plain_key(params)
    kept = kept_as(destination, "track_api_key")
    fields = {
        "type": customerio.TYPE,
        "site_id": params[_SITE_ID],
        "api_key": secret(kept),
        "region": _region(params) or "auto",
    }
    of_source = firebase.plan(known)
    plan = Plan(
        [*of_source.entries, Entry("destinations", destination, fields)],
        of_source.connections,
        {**of_source.secrets, **({kept: key} if key else {})},
        [] if key else [kept],
        [*of_source.notes, ANONYMOUS],
    )
    return Imported(plan, list(_told({**params, _API_KEY: params.get(_API_KEY, "")}, kept, given=bool(key))))


def _told(params: Mapping[str, str], kept: str, *, given: bool) -> Iterator[Param]:
    """What became of each param, in the order of the file."""
    for name, value in params.items():
        if name == _API_KEY:
            yield _told_key(value, kept, given=given)
        elif name == _REGION:
            yield _told_region(value)
        elif name == _COLLECTION:
            yield _told_collection(value.strip())
        elif name == _SITE_ID:
            yield Param(name, "mapped", "the destination's site_id")
        elif name in _PROJECT:
            yield Param(name, "mapped", "the source's project")
        else:
            word = "LOCATION" if name.endswith("function/location") else name
            yield Param(name, "ignored", _NOT_NEEDED.get(word, "no param of this extension that is known"))


def _told_key(value: str, kept: str, *, given: bool) -> Param:
    if given:
        return Param(_API_KEY, "mapped", f"kept encrypted as the secret {kept}")
    where = f", whose value is in Google Secret Manager ({value})" if _SECRET(value) else ""
    return Param(_API_KEY, "to set", f"towpath secrets set {kept}{where}")


def _told_region(value: str) -> Param:
    value = value.strip().lower()
    if value not in REGIONS:
        return Param(_REGION, "changed", "neither us nor eu: Customer.io is asked before the first write")
    if value == "us":
        return Param(_REGION, "mapped", "the destination's region")
    about = "the destination's region; the extension never read it and sent through the US host"
    return Param(_REGION, "changed", about)


def _told_collection(value: str) -> Param:
    if value in ("", OFF):
        return Param(_COLLECTION, "mapped", "no collection: Firebase Authentication alone")
    return Param(_COLLECTION, "mapped", f"the source's collections: {value}")


def _region(params: Mapping[str, str]) -> str:
    value = params.get(_REGION, "").strip().lower()
    return value if value in REGIONS else ""


def _plain_key(params: Mapping[str, str]) -> str:
    """The key itself, where the params hold it and not the place of a secret."""
    value = params.get(_API_KEY, "").strip()
    return "" if _SECRET(value) else value


def _project(params: Mapping[str, str]) -> str:
    """The project the params name, or that of their secret unless that is its number."""
    named = next((params[name] for name in _PROJECT if params.get(name)), "")
    place = _SECRET(params.get(_API_KEY, ""))
    return named or ("" if place is None or place[1].isdecimal() else place[1])


def _json(text: str) -> dict[str, str]:
    """The params of JSON: by themselves, under `params`, or under `config.params` as in Firebase's API."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        found = {}
    for outer in ("config", "params"):
        inner = found.get(outer) if isinstance(found, dict) else None
        found = inner if isinstance(inner, dict) else found
    return {name: str(value) for name, value in found.items() if not isinstance(value, dict | list)}
