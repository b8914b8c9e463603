"""Firebase: from a project, a service account and collections to a source."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from ..errors import TowpathError
from ..vendors.google import read_service_account
from .plan import Entry, Plan, connection, kept_as, secret

TYPE = "firebase"
NO_ACCOUNT = "E2408"
NO_PROJECT = "E2409"
SECRETS = ("service_account", "push_token", "signing_key")


class Firebase(Struct, frozen=True):
    """What a user gives. `service_account` is the text of its key file; a project in there is the default.

    `push_token` is what pushed events have to show, `signing_key` what the forwarder signs with; `listen`
    holds a connection to Firestore; `destinations` are those the people go to.
    """

    name: str
    project: str = ""
    service_account: str = ""
    collections: Sequence[str] = ()
    push_token: str = ""
    signing_key: str = ""
    listen: bool = False
    destinations: Sequence[str] = ()


def plan(given: Firebase) -> Plan:
    """What is written for it. Raises `TowpathError` for a key file that is none, and without a project."""
    own = project_of(given.service_account) if given.service_account else ""
    project = given.project or own
    if not project:
        raise TowpathError(
            "which Firebase project is it?",
            code=NO_PROJECT,
            fix="say --project ID, or --service-account FILE, which names it",
            data="Nothing was written.",
        )
    fields: dict[str, Any] = {"type": TYPE, "project": project}
    keys = {name: value for name in SECRETS if (value := getattr(given, name))}
    fields |= {name: secret(kept_as(given.name, name)) for name in keys}
    if given.collections:
        fields["collections"] = list(given.collections)
    if given.listen and given.collections and given.service_account:
        fields["listen"] = True
    notes = []
    if own not in ("", project):
        notes.append(f"the service account is of the project {own}: it needs roles in {project}")
    return Plan(
        [Entry("sources", given.name, fields)],
        [connection(given.name, destination) for destination in given.destinations],
        {kept_as(given.name, name): value for name, value in keys.items()},
        notes=notes,
    )


def can_listen() -> bool:
    """Whether Google's Firestore library is there: it comes with the extra `towpath[firebase]`."""
    try:
        return find_spec("google.cloud.firestore") is not None
    except ModuleNotFoundError:
        return False


def project_of(service_account: str) -> str:
    """The project of a service account's key file. Raises `TowpathError` for a file that is none."""
    try:
        return read_service_account(service_account).project_id
    except ValueError as error:
        raise TowpathError(
            "the service account file is not a service account's key",
            code=NO_ACCOUNT,
            why=str(error),
            fix="Firebase console, Project settings, Service accounts, Generate new private key",
            data="Nothing was written.",
        ) from None
