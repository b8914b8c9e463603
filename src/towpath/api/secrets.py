"""Routes of secrets: names out, values in, never the other way (D08)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from .. import views
from ..errors import TowpathError
from ..secrets import Secrets
from . import asking
from .answering import Named


class SecretRoutes:
    """Answers about secrets. `apply` puts a change in force and says whether it is."""

    def __init__(self, secrets: Secrets, apply: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._secrets = secrets
        self._apply = apply

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/secrets", self.names),
            ("PUT", "/secrets/{name:path}", self.set),
            ("DELETE", "/secrets/{name:path}", self.delete),
            ("POST", "/secrets/rekey", self.rekey),
        ]

    async def names(self, _: Request) -> Any:
        """List names and times."""
        return [
            {"name": row.name, "updated_at": views.moment(row.updated_at)} for row in self._secrets.names()
        ]

    async def set(self, request: Request) -> Any:
        """Keep a secret and put it in force."""
        value = (await asking.body(request)).get("value")
        if not isinstance(value, str) or not value:
            fix = "pipe it in:  towpath secrets set NAME < key.txt"
            raise TowpathError("a secret needs a value", code="E5015", fix=fix, data="Nothing was changed.")
        self._secrets.set(request.path_params["name"], value)
        return {"saved": True, **await self._apply()}

    async def delete(self, request: Request) -> Any:
        """Forget a secret; what runs keeps its value until the configuration is applied again."""
        self._secrets.delete(request.path_params["name"])
        return {"deleted": True}

    async def rekey(self, _: Request) -> Any:
        """Seal every secret with a new key."""
        self._secrets.rekey()
        return {"rekeyed": len(self._secrets.names())}
