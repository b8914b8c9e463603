"""The route table of ingest: which path takes which call by which method."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from . import intilery

Way: TypeAlias = Literal["call", "batch", "pixel", "tracking", "source_config", "project", "fixed", "absent"]


class Route(Struct, frozen=True):
    """How one path is served.

    `kind` is the call it stands for; `cors` marks what pages of any origin may reach (D16); `by_query` says
    that senders can only put the write key into the query.
    """

    way: Way
    methods: tuple[str, ...] = ("POST",)
    kind: str = ""
    cors: bool = True
    by_query: bool = False

    @property
    def reads(self) -> bool:
        """Whether serving it reads the request's body."""
        return self.way in ("call", "batch", "tracking")


_READ = ("GET", "HEAD")
_KINDS = ("identify", "track", "page", "screen", "group", "alias", "delete")

ROUTES: dict[str, Route] = {
    **{f"/v1/{kind}": Route("call", kind=kind) for kind in _KINDS},
    # @segment/analytics-next posts to the first letter of the call (E004).
    **{f"/v1/{kind[0]}": Route("call", kind=kind) for kind in _KINDS if kind != "delete"},
    "/v1/merge": Route("call", kind="alias"),
    "/v1/batch": Route("batch"),
    "/v1/import": Route("batch"),
    "/v1/b": Route("batch"),
    "/beacon/v1/batch": Route("batch", by_query=True),
    "/pixel/v1/track": Route("pixel", ("GET",), kind="track", by_query=True),
    "/pixel/v1/page": Route("pixel", ("GET",), kind="page", by_query=True),
    "/sourceConfig": Route("source_config", _READ),
    "/v1/projects/{writeKey}/settings": Route("project", _READ),
    **{intilery.template(kind): Route("tracking", kind=kind) for kind in intilery.ACTIONS},
    "/v1/webhook": Route("absent", ("GET", "POST")),
    "/v1/audiencelist": Route("absent", ("POST",)),
    "/": Route("fixed", _READ, cors=False),
    "/health": Route("fixed", _READ, cors=False),
    "/version": Route("fixed", _READ, cors=False),
    "/robots.txt": Route("fixed", _READ, cors=False),
    "/openapi.json": Route("fixed", _READ, cors=False),
}
_PROJECTS, _SETTINGS = "/v1/projects/", "/settings"


def find(path: str) -> Route | None:
    """Return the route of a path; a slash at the end makes no difference."""
    if route := ROUTES.get(path):
        return route
    if project_key(path):
        return ROUTES["/v1/projects/{writeKey}/settings"]
    if path.startswith("/track/") and (kind := intilery.action(path)):
        return ROUTES[intilery.template(kind)]
    return ROUTES.get(path.rstrip("/")) if "{" not in path else None


def project_key(path: str) -> str:
    """Read the write key of a project's settings path; empty when it is none."""
    if path.startswith(_PROJECTS) and path.endswith(_SETTINGS):
        return path[len(_PROJECTS) : -len(_SETTINGS)].strip("/")
    return ""
