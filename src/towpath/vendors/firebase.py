"""Firebase's APIs: users by the Identity Toolkit, documents by Firestore's REST interface, typed JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from towpath.http import Http, Reply

from .google import Credential, GoogleApi

AUTH_URL = "https://identitytoolkit.googleapis.com"
FIRESTORE_URL = "https://firestore.googleapis.com"
SCOPES = (
    "https://www.googleapis.com/auth/identitytoolkit",
    "https://www.googleapis.com/auth/datastore",
)
MOST_USERS = 1000
"""Users of one page (`accounts:batchGet`)."""
MOST_LOOKED_UP = 100
"""Users of one look-up: what the Admin SDKs allow."""


class AuthApi(GoogleApi):
    """Identity Toolkit v1: the users of a project, or of one of its tenants."""

    def __init__(
        self, http: Http, base_url: str, credential: Credential, project: str, *, bucket: str = ""
    ) -> None:
        super().__init__(http, base_url, credential, bucket=bucket)
        self.project = project

    async def users(self, *, tenant: str = "", page_token: str = "", limit: int = MOST_USERS) -> Reply:
        """GET accounts:batchGet: `{users: [...], nextPageToken}`; scope identitytoolkit."""
        asked = {"maxResults": str(limit), **({"nextPageToken": page_token} if page_token else {})}
        return await self.ask("GET", f"{self._accounts(tenant)}:batchGet?{urlencode(asked)}")

    async def lookup(self, uids: Sequence[str], *, tenant: str = "") -> Reply:
        """POST accounts:lookup: `{kind, users: [...]}`, without those that do not exist."""
        return await self.ask("POST", f"{self._accounts(tenant)}:lookup", {"localId": list(uids)})

    async def count(self, *, tenant: str = "") -> Reply:
        """POST accounts:query without the users themselves: `{recordsCount: "12"}`."""
        return await self.ask("POST", f"{self._accounts(tenant)}:query", {"returnUserInfo": False})

    def _accounts(self, tenant: str) -> str:
        within = f"/tenants/{quote(tenant, safe='')}" if tenant else ""
        return f"/v1/projects/{quote(self.project, safe='')}{within}/accounts"


class FirestoreApi(GoogleApi):
    """Firestore v1: documents of a project's databases.

    A document's `name` is `projects/P/databases/D/documents/…`, its path what follows that.
    """

    def __init__(
        self, http: Http, base_url: str, credential: Credential, project: str, *, bucket: str = ""
    ) -> None:
        super().__init__(http, base_url, credential, bucket=bucket)
        self.project = project

    def root(self, database: str) -> str:
        """What the names of all documents of a database begin with, without a slash at the end."""
        return f"projects/{self.project}/databases/{database}/documents"

    async def run_query(self, database: str, query: dict[str, Any], *, parent: str = "") -> Reply:
        """POST :runQuery: `[{document, readTime}…]`; one element without a document where there is none."""
        return await self.ask("POST", self._at(database, parent, "runQuery"), {"structuredQuery": query})

    async def count(self, database: str, query: dict[str, Any], *, parent: str = "") -> Reply:
        """POST :runAggregationQuery: `[{result: {aggregateFields: {n: {integerValue}}}}]`."""
        body = {"structuredQuery": query, "aggregations": [{"alias": "n", "count": {}}]}
        where = self._at(database, parent, "runAggregationQuery")
        return await self.ask("POST", where, {"structuredAggregationQuery": body})

    async def batch_get(self, database: str, names: Collection[str], fields: Collection[str]) -> Reply:
        """POST :batchGet: `[{found | missing, readTime}…]` in any order, only these fields of each."""
        body = {"documents": list(names), "mask": {"fieldPaths": list(fields)}}
        return await self.ask("POST", self._at(database, "", "batchGet"), body)

    async def patch(self, database: str, path: str, fields: dict[str, Any], mask: Collection[str]) -> Reply:
        """PATCH these fields of a document that exists; 404 NOT_FOUND where it does not."""
        return await self.ask("PATCH", patch_path(self.project, database, path, mask), {"fields": fields})

    def _at(self, database: str, parent: str, verb: str) -> str:
        below = f"/{quote(parent)}" if parent else ""
        return f"/v1/{quote(self.root(database))}{below}:{verb}?prettyPrint=false"


def patch_path(project: str, database: str, path: str, mask: Collection[str]) -> str:
    """Path and query of `FirestoreApi.patch`."""
    asked = [("updateMask.fieldPaths", name) for name in mask] + [("currentDocument.exists", "true")]
    name = "/".join(quote(part, safe="") for part in path.split("/"))
    root = f"projects/{quote(project, safe='')}/databases/{quote(database)}/documents"
    return f"/v1/{root}/{name}?{urlencode(asked)}"
