"""Firebase as a source: Auth users and Firestore documents, pushed, listened to and asked for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import ClassVar
from urllib.parse import parse_qs

from ..destination import Check
from ..errors import Unauthorized
from ..message import Message
from ..source import Heard, Inbound, Incoming, Known, Listening, Page, Poll, SourceScope, State, items_apart
from . import _firebase_check, _firebase_polls, _firebase_watch
from ._firebase_changes import Changes
from ._firebase_events import changes
from ._firebase_project import BUCKET, Project
from ._firebase_settings import Collection, FirebaseSettings

__all__ = ["Collection", "Firebase", "FirebaseSettings"]

SIGNATURE = "x-towpath-signature"
EMULATOR = "emulator"


class Firebase(Inbound[FirebaseSettings], Listening[FirebaseSettings]):
    """One Firebase project whose users and documents become people."""

    name: ClassVar[str] = "firebase"
    path: ClassVar[str] = "firebase"
    Settings: ClassVar[type[FirebaseSettings]] = FirebaseSettings

    def __init__(self, settings: FirebaseSettings) -> None:
        super().__init__(settings)
        self._project = Project(settings)
        self._changes = Changes(settings)

    def verify(self, request: Incoming, now: float) -> None:
        """Check the forwarder's signature, or else the token of whoever pushes; `emulator` needs neither.

        Raises `Unauthorized`.
        """
        settings = self.settings
        if settings.emulator and request.route == EMULATOR and request.local:
            return
        if settings.signing_key is not None and SIGNATURE in request.headers:
            key = settings.signing_key.get_secret_value().strip().encode()
            _check_signature(request, key, now, settings.tolerance.total_seconds())
        elif settings.push_token is not None:
            _check_token(request, settings.push_token.get_secret_value().strip())
        elif settings.signing_key is not None:
            raise Unauthorized(f"there is no {SIGNATURE} header", fix="sign what the forwarder sends")
        else:
            raise Unauthorized(
                "this source takes nothing by HTTP", fix="set its push_token or its signing_key"
            )

    def routes(self) -> Mapping[str, str]:
        """The address that Firebase's emulators post to, where the settings allow that."""
        return {EMULATOR: "/functions/projects/{project}/triggers/{source}"} if self.settings.emulator else {}

    def messages(self, request: Incoming, known: Known) -> Iterable[Heard]:
        """The events of a request as messages. Raises `Malformed`."""
        return self._changes.heard(list(changes(request, self.settings.project)), known)

    def parts(self, request: Incoming) -> Sequence[Incoming]:
        """The events of a batch as batches of one."""
        return (request,) if "ce-type" in request.headers else items_apart(request)

    def polls(self) -> Sequence[Poll]:
        """What Google can be asked for."""
        return _firebase_polls.polls(self._project)

    def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        """Users and documents, list by list."""
        return _firebase_polls.pages(self._project, poll, state, scope)

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        """What was listed or listened to as messages."""
        return self._changes.heard(page.items, known)

    def undelivered(self, message: Message, known: Known) -> None:
        """What it told is told whole again with the next change of its document or user."""
        self._changes.undelivered(message, known)

    def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page] | None:
        """Changes of documents as they happen, where the settings ask for it."""
        return _firebase_watch.listen(self._project, state, scope)

    def budgets(self) -> Mapping[str, float]:
        """Requests per minute of the listings."""
        return {BUCKET: float(self.settings.rate)}

    def persons(self, known: Known) -> int:
        """Users and documents; who is both counts as two, which lets a few more deletions pass."""
        return max(known.count("u/"), known.count("d/"))

    async def check(self, scope: SourceScope) -> Sequence[Check]:
        """One line for the sign-in and one for each list."""
        return await _firebase_check.check(self._project, scope)


def _check_signature(request: Incoming, key: bytes, now: float, tolerance_s: float) -> None:
    """`t=UNIX_SECONDS,v1=HEX`: the HMAC-SHA256 of `t`, a full stop and the body. Raises `Unauthorized`."""
    parts = dict(part.partition("=")[::2] for part in request.headers[SIGNATURE].replace(" ", "").split(","))
    moment, given = parts.get("t", ""), parts.get("v1", "")
    if not (moment.isascii() and moment.isdigit() and len(moment) <= 12) or not given.isascii():
        raise Unauthorized(f"{SIGNATURE} is not of the form t=SECONDS,v1=HEX")
    expected = hmac.new(key, moment.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, given.lower()):
        raise Unauthorized("the signature does not match", fix="use the same signing_key on both sides")
    if tolerance_s and abs(now - int(moment)) > tolerance_s:
        raise Unauthorized("the signature is too old or from the future", fix="set the clocks of both sides")


def _check_token(request: Incoming, token: str) -> None:
    """`Authorization: Bearer …`, or `?token=…` where headers cannot be set. Raises `Unauthorized`."""
    bearer = request.headers.get("authorization", "")
    shown = [bearer[7:].strip()] if bearer[:7].lower() == "bearer " else []
    shown += parse_qs(request.query).get("token", [])
    if not shown:
        raise Unauthorized("there is no token", fix="add ?token=… or an Authorization: Bearer header")
    if not any(hmac.compare_digest(token.encode(), one.encode()) for one in shown):
        raise Unauthorized("the token is wrong", fix="use the push_token of this source")
