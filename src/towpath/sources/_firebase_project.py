"""A Firebase project as it is asked: who asks, where, and which lists of users and documents it has."""

from __future__ import annotations

from collections.abc import Sequence

from ..source import SourceScope
from ..vendors.firebase import SCOPES, AuthApi, FirestoreApi
from ..vendors.google import Credential, credential
from ._firebase_lists import DocumentList, Listing, UserList
from ._firebase_settings import FirebaseSettings

BUCKET = "google"
"""The budget of what asks: the setting `rate`."""


class Project:
    """One source's project; it keeps the access token between requests."""

    def __init__(self, settings: FirebaseSettings) -> None:
        self.settings = settings
        key = settings.service_account
        self.credential: Credential | None = credential(
            None if key is None else key.get_secret_value(), SCOPES, emulator=settings.emulator
        )

    def auth(self, scope: SourceScope) -> AuthApi:
        """The users' API."""
        url, name = self.settings.auth_url, self.settings.project
        return AuthApi(scope.http, url, self._who(), name, bucket=BUCKET)

    def firestore(self, scope: SourceScope) -> FirestoreApi:
        """The documents' API."""
        url, name = self.settings.firestore_url, self.settings.project
        return FirestoreApi(scope.http, url, self._who(), name, bucket=BUCKET)

    def lists(self, scope: SourceScope) -> Sequence[Listing]:
        """Everything that becomes people: the users of the project and of each tenant, each collection."""
        users = [UserList(self.auth(scope), tenant, self.settings) for tenant in ("", *self.settings.tenants)]
        documents = [
            DocumentList(self.firestore(scope), one, self.settings) for one in self.settings.collections
        ]
        return [*(users if self.settings.auth else ()), *documents]

    def _who(self) -> Credential:
        if self.credential is None:
            raise ValueError("a project without a service account cannot be asked")
        return self.credential
