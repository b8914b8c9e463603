"""What a `type: firebase` source can be told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from ..destination import Settings, VendorUrl
from ..message import Trust
from ..source import SourceSettings
from ..units import Duration
from ..vendors.google import read_service_account
from ._firebase_names import DatabaseId, ProjectId, TenantIds, check_once, check_parts

DEFAULT_DATABASE = "(default)"
WHOLE_DOCUMENT = "."
ANY_ATTRIBUTE = "*"
SHORTEST_SILENCE = timedelta(seconds=1)


class Collection(Settings):
    """One collection to watch, and where its documents keep what is synced."""

    path: str = Field(
        description="Path of the collection, like `users`, `tenants/{tenant}/members`, or with the document: "
        "`users/{id}`. A `{wildcard}` stands for any one id. With `group` it is only the collection's name.",
    )
    database: DatabaseId = Field(
        default=DEFAULT_DATABASE, description="The Firestore database that holds it."
    )
    group: bool = Field(
        default=False, description="Take every collection of this name, wherever it is (collection group)."
    )
    identifiers: str = Field(
        default="identifiers", description="The field that names the person: a map with one of id or email."
    )
    attributes: str = Field(
        default="attributes",
        description="The field whose map holds the person's attributes. `.` is the document itself.",
    )
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="Other fields to take, each with the name of its attribute: `{plan: plan, "
        "address.city: city}`. What `attributes` holds under the same name wins.",
    )

    @field_validator("path")
    @classmethod
    def _of_a_collection(cls, path: str) -> str:
        parts = path.strip("/").split("/")
        if not all(parts):
            raise ValueError("write the collection's path as `users` or `tenants/{tenant}/members`")
        check_parts(parts)
        if len(parts) % 2 == 0 and not parts.pop().startswith("{"):
            raise ValueError("is the path of a document: leave its last part out, or make it a {wildcard}")
        if parts[-1].startswith("{"):
            raise ValueError("ends with a {wildcard}; the collection itself has to be named")
        return "/".join(parts)

    @model_validator(mode="after")
    def _group_by_name(self) -> Self:
        if self.group and "/" in self.path:
            raise ValueError("group: true takes the collection's name alone, without a path before it")
        return self


class FirebaseSettings(SourceSettings):
    """One Firebase project: whose users and documents become people, and how towpath hears of them."""

    trust: Trust = Field(
        default="server",
        description="`server`: what comes is signed or asked for, so it may delete people. `client` may not.",
    )
    project: ProjectId = Field(
        min_length=1,
        validation_alias=AliasChoices("project", "project_id", "projectId"),
        description="The project's id, as in the Firebase console; `demo-…` ids exist in emulators only.",
    )
    service_account: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("service_account", "serviceAccount"),
        description="A service account's key file (JSON), to list users and documents and to listen: "
        "`${file:firebase.json}`. Not needed where everything is pushed.",
    )
    auth: bool = Field(default=True, description="Whether users of Firebase Authentication become people.")
    collections: list[Collection] = Field(
        default_factory=list,
        validation_alias=AliasChoices("collections", "collection", "users_collection"),
        description="Firestore collections whose documents become people; empty leaves Firestore alone.",
    )
    anonymous_users: Literal["skip", "anonymous", "person"] = Field(
        default="skip",
        description="Users who never signed up: not sent at all, sent as an anonymous profile that their "
        "sign-up joins, or sent as people, who may be billed.",
    )
    tenants: TenantIds = Field(
        default_factory=list, description="Identity Platform tenants whose users are listed as well."
    )
    identifier_changes: Literal["leave", "rename", "merge"] = Field(
        default="leave",
        description="When a document comes to name another person: `leave` the former one and count it, "
        "`rename` the former one, or `merge` it into the new one.",
    )
    timestamps: dict[str, Literal["unix", "iso"]] = Field(
        default_factory=dict,
        description="How Firestore timestamps are sent, by attribute: `{trial_ends: iso}`. `*` is for all "
        "others; without it they are Unix seconds.",
    )
    tombstone: Duration = Field(
        default=timedelta(days=1),
        description="How long after a deletion only a newly created user or document brings a person back; "
        "0 lets any late write do it.",
    )
    push_token: SecretStr | None = Field(
        default=None,
        description="A secret that whoever pushes CloudEvents shows, as `?token=` or as `Authorization: "
        "Bearer`; at least 16 characters.",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        description="The secret that the forwarder function signs with; at least 16 characters.",
    )
    tolerance: Duration = Field(
        default=timedelta(minutes=10),
        description="How far the time of a signature may be from now. Functions that retry sign anew.",
    )
    emulator: bool = Field(
        default=False,
        description="Take unsigned events of Firebase's emulators from this machine, and ask the emulators. "
        "For development only.",
    )
    listen: bool = Field(
        default=False,
        description="Hold a connection to Firestore and hear of changes as they happen (needs a service "
        "account and the extra `towpath[firebase]`).",
    )
    silence: Duration = Field(
        default=timedelta(minutes=5),
        description="How long `listen` may hear nothing at all before it connects anew.",
    )
    reconcile: Duration = Field(
        default=timedelta(hours=24),
        description="How often users and documents are listed and compared, to find what no event told: "
        "changed users, missed deletions. 0 is never; it needs a service account.",
    )
    reconcile_users: Duration = Field(
        default=timedelta(hours=1),
        description="How often the users alone are listed and compared: a changed e-mail, a linked account. "
        "Listing them is free. 0 is never; it needs a service account.",
    )
    page_size: int = Field(
        default=500, ge=1, le=1000, description="How many users or documents are asked for at once."
    )
    rate: int = Field(default=600, ge=1, description="Requests per minute to Google, listing.")
    auth_url: VendorUrl = Field(
        min_length=1,
        default="https://identitytoolkit.googleapis.com",
        description="Where the users are listed; for an emulator `http://127.0.0.1:9099/"
        "identitytoolkit.googleapis.com`.",
    )
    firestore_url: VendorUrl = Field(
        min_length=1,
        default="https://firestore.googleapis.com",
        description="Where the documents are; for an emulator `http://127.0.0.1:8080`.",
    )

    @field_validator("collections", mode="before")
    @classmethod
    def _by_path_alone(cls, given: Any) -> Any:
        listed = given if isinstance(given, list) else [given] if given else []
        return [{"path": one} if isinstance(one, str) else one for one in listed]

    @field_validator("collections")
    @classmethod
    def _once(cls, given: list[Collection]) -> list[Collection]:
        check_once([(one.path, one.database, one.group) for one in given])
        return given

    @field_validator("service_account")
    @classmethod
    def _readable(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            read_service_account(key.get_secret_value())
        return key

    @field_validator("silence")
    @classmethod
    def _longer_than_a_connection_takes(cls, silence: timedelta) -> timedelta:
        if silence < SHORTEST_SILENCE:
            raise ValueError("must be at least 1s: a connection that is renewed at once never hears anything")
        return silence

    @field_validator("push_token", "signing_key")
    @classmethod
    def _long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().strip()) < 16:
            raise ValueError("must have at least 16 characters; make one with `openssl rand -hex 32`")
        return secret

    @model_validator(mode="after")
    def _can_listen(self) -> Self:
        if self.listen and self.service_account is None and not self.emulator:
            raise ValueError("listen needs service_account: without it nothing would be heard")
        return self
