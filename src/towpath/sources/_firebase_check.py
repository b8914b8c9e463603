"""The lines of `connectors test` for a Firebase project: sign-in and each list; what is missing is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..destination import Check
from ..http import Undelivered
from ..outcome import Retry
from ..source import SourceScope
from ..vendors.google import Credential, Tokens
from ._firebase_lists import Listing
from ._firebase_project import Project

NEVER_SET_UP = "CONFIGURATION_NOT_FOUND"


async def check(project: Project, scope: SourceScope) -> Sequence[Check]:
    """Sign in, then ask for one item of each list. Nothing is changed."""
    if project.credential is None:
        told = "no service_account: what is pushed is taken in, but nothing can be listed or compared"
        return [Check("sign-in", ok=True, detail=told)]
    signed_in = await _sign_in(project.credential, scope)
    if not signed_in.ok:
        return [signed_in]
    return [signed_in, *[await _readable(listing, project) for listing in project.lists(scope)]]


async def _sign_in(credential: Credential, scope: SourceScope) -> Check:
    try:
        await credential.headers(scope.http)
    except Undelivered as error:
        return Check.failed("sign-in", error)
    if isinstance(credential, Tokens):
        return Check("sign-in", ok=True, detail=f"as {credential.account.client_email}")
    return Check("sign-in", ok=True, detail="none: emulator")


async def _readable(listing: Listing, project: Project) -> Check:
    name = f"list {listing.name}"
    try:
        await listing.probe()
    except Undelivered as error:
        reached = not isinstance(error.outcome, Retry)
        return Check(name, ok=False, detail=explained(error, listing, project), reached=reached)
    return Check(name, ok=True, detail=await _counted(listing))


async def _counted(listing: Listing) -> str:
    try:
        count = await listing.count()
    except Undelivered:
        return "readable; it cannot be counted"
    return "readable" if count is None else f"{listing.items}: {count}"


def explained(error: Undelivered, listing: Listing, project: Project) -> str:
    """Say in words what Google refused and what to do; else as it came."""
    said = _error_of(error)
    message, status = str(said.get("message", "")), said.get("status")
    if url := _disabled(said):
        return f"its API is not enabled in project {project.settings.project}: enable it at {url}"
    if NEVER_SET_UP in message:
        return "Firebase Authentication was never set up in this project: open it in the Firebase console"
    if "TENANT_NOT_FOUND" in message:
        return f"there is no tenant {listing.name.rpartition('/')[2]!r} in this project: check `tenants`"
    if said.get("code") == 404 or "PROJECT_NOT_FOUND" in message or "INVALID_PROJECT_ID" in message:
        return f"Google finds no such project or database: check `project` and `database` ({message})"
    if status == "PERMISSION_DENIED":
        return _lacking(listing, project, message)
    return str(getattr(error.outcome, "reason", message))


def _lacking(listing: Listing, project: Project, message: str) -> str:
    asked = project.settings.project
    if not isinstance(project.credential, Tokens):
        return message
    account = project.credential.account
    hint = f"{account.client_email} may not read it: give it the role {listing.role} in project {asked}"
    if account.project_id and account.project_id != asked:
        return f"{hint}. Its key is of project {account.project_id}: is `project` right?"
    return hint


def _error_of(error: Undelivered) -> Mapping[str, Any]:
    """What Google says in its answer: `{code, message, status, details}`; a stream wraps it in a list."""
    try:
        answer = msgspec.json.decode(error.exchange.answer if error.exchange else "")
    except msgspec.DecodeError:
        return {}
    first = answer[0] if isinstance(answer, list) and answer else answer
    said = first.get("error") if isinstance(first, dict) else None
    return said if isinstance(said, dict) else {}


def _disabled(said: Mapping[str, Any]) -> str | None:
    """Where the API can be enabled, when that is what is missing."""
    for detail in said.get("details", ()):
        if isinstance(detail, dict) and detail.get("reason") == "SERVICE_DISABLED":
            return str(
                detail.get("metadata", {}).get("activationUrl", "https://console.cloud.google.com/apis")
            )
    return None
