"""Firebase Cloud Messaging: from a key file to an account that pushes are sent with."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ..destinations.fcm import NOBODYS
from ..errors import TowpathError, Unauthorized
from ..http import Http
from ..push.sender import Account, Sender
from ..push.verdict import Verdict
from ..vendors.fcm import FCM_URL
from .firebase import NO_PROJECT, project_of
from .plan import Entry, Plan, Setting, kept_as, secret

TYPE = "fcm"
REFUSED = "E2412"
UNASKED = "E2413"
SILENT = frozenset({"throttled", "unavailable", "unknown"})
"""What says nothing of the account."""
NOBODY = msgspec.json.encode(
    {"validate_only": True, "message": {"token": NOBODYS, "data": {"check": "towpath"}}}
)


class Fcm(Struct, frozen=True):
    """What a user gives. `service_account` is the text of a key file, `project` the key's own where empty."""

    name: str
    service_account: str
    project: str = ""
    url: str = ""

    @property
    def project_id(self) -> str:
        """The project that pushes are sent in. Raises `TowpathError` for a key file that is none."""
        found = self.project or project_of(self.service_account)
        if not found:
            raise TowpathError(
                "which Firebase project is it?",
                code=NO_PROJECT,
                why="the key file names none",
                fix="say --project ID",
                data="Nothing was written.",
            )
        return found


def plan(given: Fcm) -> Plan:
    """What is written for it. Raises `TowpathError` for a key file that is none, and without a project."""
    own, kept = project_of(given.service_account), kept_as(given.name, "service_account")
    fields: dict[str, Any] = {"type": TYPE, "service_account": secret(kept)}
    notes = []
    if given.project_id != own:
        fields["project"] = given.project_id
        notes.append(f"the key is of the project {own or '?'}: it needs a role in {given.project_id}")
    if given.url:
        fields["fcm_url"] = given.url
    return Plan(
        [Entry("accounts", given.name, fields)],
        secrets={kept: given.service_account},
        settings=[Setting("push", "account", given.name)],
        notes=notes,
    )


async def examine(given: Fcm, http: Http) -> None:
    """Sign in, and have FCM check a message to a made-up address, which is not sent.

    FCM looks at the address last: what it says of that is as good as a yes. Raises `Unauthorized` where the
    account may not send, and `TowpathError` where nothing answers.
    """
    account = Account(given.service_account, given.project_id, given.url or FCM_URL)
    sender = Sender(account, http, http.clock)
    try:
        verdict = await sender.send(NOBODY)
    finally:
        await sender.close()
    if verdict.kind in SILENT:
        raise _unasked(verdict)
    if verdict.kind == "misconfigured" or (verdict.kind, verdict.code[:5]) == ("wrong_message", "HTTP_"):
        raise _refused(given.project_id, verdict)


def _refused(project: str, verdict: Verdict) -> Unauthorized:
    return Unauthorized(
        f"no push can be sent in the project {project} with this key",
        code=REFUSED,
        why=verdict.detail,
        fix="correct that in the Firebase console, or give another key; --no-test writes without asking",
        data="Nothing was written and nothing was sent.",
    )


def _unasked(verdict: Verdict) -> TowpathError:
    return TowpathError(
        "Firebase Cloud Messaging could not be asked about this key",
        code=UNASKED,
        why=verdict.detail,
        fix="try again; without a network say  --no-test",
        data="Nothing was written and nothing was sent.",
    )
