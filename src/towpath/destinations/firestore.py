"""Firestore: writes fields of a person's document on certain events, like an unsubscribe at Customer.io."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_validator

from towpath.destination import Call, Check, Destination, Payload, Scope, Settings, VendorUrl
from towpath.http import Undelivered
from towpath.message import Message, format_time
from towpath.outcome import Paused, Rejected, Skipped
from towpath.vendors.firebase import FIRESTORE_URL, SCOPES, FirestoreApi, patch_path
from towpath.vendors.google import credential, read_service_account

BUCKET = "google"
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*").fullmatch
_COLLECTION = re.compile(r"[^/\s{}]+(?:/[^/\s{}]+/[^/\s{}]+)*").fullmatch
_DOCUMENT_ID = re.compile(r"(?!\.{1,2}$|__.*__$)[^/@]+").fullmatch


class Write(Settings):
    """What one kind of event writes."""

    event: str = Field(min_length=1, description="The name of the track event.")
    set: dict[str, bool | int | float | str | None] = Field(
        min_length=1,
        description="Fields and values: `{attributes.unsubscribed: true}`. `$time` is when it happened.",
    )

    @field_validator("set")
    @classmethod
    def _fields(cls, fields: dict[str, Any]) -> dict[str, Any]:
        for name in fields:
            if not _FIELD(name):
                raise ValueError(
                    f"{name!r} is no path of a field: letters, digits and _, parts joined by dots"
                )
            if inner := [other for other in fields if other.startswith(f"{name}.")]:
                raise ValueError(f"{name!r} and {inner[0]!r} cannot be set both: one is inside the other")
        return fields


class FirestoreSettings(Settings):
    """One collection whose documents are named by userId."""

    project: str = Field(min_length=1, description="The Firebase project's id.")
    collection: str = Field(
        description="Path of the collection, like `users`; a document's id is the userId."
    )
    service_account: SecretStr | None = Field(
        default=None,
        description="Key file (JSON) of a service account that may write: `${file:firebase.json}`.",
    )
    database: str = Field(default="(default)", description="The Firestore database.")
    writes: tuple[Write, ...] = Field(
        default=(Write(event="Unsubscribed", set={"attributes.unsubscribed": True}),),
        min_length=1,
        description="Which events write which fields; all other messages are skipped.",
    )
    rate: float = Field(default=6000, gt=0, description="Requests per minute.")
    emulator: bool = Field(default=False, description="Write to Firebase's emulator, without a key.")
    firestore_url: VendorUrl = Field(
        default=FIRESTORE_URL,
        description="Where the documents are; an emulator's is `http://127.0.0.1:8080`.",
    )

    @field_validator("collection")
    @classmethod
    def _of_a_collection(cls, path: str) -> str:
        if not _COLLECTION(path.strip("/")):
            raise ValueError("write the collection's path as `users` or `tenants/t1/members`, no wildcards")
        return path.strip("/")

    @field_validator("writes")
    @classmethod
    def _one_for_each_event(cls, writes: tuple[Write, ...]) -> tuple[Write, ...]:
        names = [write.event for write in writes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)!r} is there twice; put its fields together")
        return writes

    @field_validator("service_account")
    @classmethod
    def _readable(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            read_service_account(key.get_secret_value())
        return key


class Firestore(Destination[FirestoreSettings]):
    """Updates fields of documents that exist; it never makes one, so nobody who was deleted comes back."""

    name: ClassVar[str] = "firestore"
    Settings: ClassVar[type[FirestoreSettings]] = FirestoreSettings

    def __init__(self, settings: FirestoreSettings) -> None:
        super().__init__(settings)
        self._writes = {write.event: write.set for write in settings.writes}
        key = settings.service_account
        self._credential = credential(
            None if key is None else key.get_secret_value(), SCOPES, emulator=settings.emulator
        )

    def budgets(self) -> Mapping[str, float]:
        """One allowance for everything."""
        return {BUCKET: self.settings.rate}

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """One patch of the person's document; skipped for every event that writes nothing."""
        event = message.event if message.type == "track" and isinstance(message.event, str) else None
        fields = None if event is None else self._writes.get(event)
        if fields is not None and message.trust != "server":
            return Skipped("untrusted", "a client source cannot write to the app's own documents")
        if fields is None:
            return Skipped("unsupported", f"{event or message.type!r} writes nothing here; see `writes`")
        if message.user_id is None or not _DOCUMENT_ID(message.user_id):
            return Skipped("no_document", "the userId is not the id of a document")
        path = f"{self.settings.collection}/{message.user_id}"
        body = {"fields": _nested(fields, format_time(message.occurred_at))}
        where = patch_path(self.settings.project, self.settings.database, path, fields.keys())
        url = f"{self.settings.firestore_url.rstrip('/')}{where}"
        return Payload((Call("PATCH", url, body),), data=(path, tuple(fields)))

    def _api(self, scope: Scope) -> FirestoreApi:
        if self._credential is None:
            raise Undelivered(Paused("service_account is needed to write to Firestore", 401))
        url, project = self.settings.firestore_url, self.settings.project
        return FirestoreApi(scope.http, url, self._credential, project, bucket=BUCKET)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        """Write the fields. Raises `Undelivered`; a document that does not exist is skipped."""
        path, mask = payload.data
        api = self._api(scope)
        try:
            await api.patch(self.settings.database, path, payload.requests[0].json["fields"], mask)
        except Undelivered as error:
            if error.exchange is not None and error.exchange.status == 404:
                raise Undelivered(
                    Skipped("no_document", "there is no such document"), error.exchange
                ) from None
            raise

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Ask for one document of the collection."""
        query = {"from": [{"collectionId": self.settings.collection.rpartition("/")[2]}], "limit": 1}
        parent = self.settings.collection.rpartition("/")[0]
        try:
            await self._api(scope).run_query(self.settings.database, query, parent=parent)
        except Undelivered as error:
            return [Check.failed("Firestore", error)]
        return [Check(f"Firestore: {self.settings.collection} readable", ok=True)]


def _nested(fields: Mapping[str, Any], moment: str) -> dict[str, Any]:
    """Field paths as Firestore's typed maps."""
    found: dict[str, Any] = {}
    for path, value in fields.items():
        *above, name = path.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {"mapValue": {"fields": {}}})["mapValue"]["fields"]
        place[name] = _typed(value, moment)
    return found


def _typed(value: Any, moment: str) -> dict[str, Any]:
    match value:
        case None:
            return {"nullValue": None}
        case bool():
            return {"booleanValue": value}
        case int():
            return {"integerValue": str(value)}
        case float():
            return {"doubleValue": value}
        case "$time":
            return {"timestampValue": moment}
        case _:
            return {"stringValue": value}
