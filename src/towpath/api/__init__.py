"""The admin API on the Unix socket (D16): thin routes over the App, JSON in and out."""

from __future__ import annotations

from starlette.applications import Starlette

from ..app import App
from .answering import application
from .connections import Connections
from .destinations import Destinations
from .events import Events
from .jobs import JobRoutes
from .letters import Letters
from .people import Persons
from .program import Program
from .push import PushRoutes
from .replications import ReplicationRoutes
from .secrets import SecretRoutes
from .sources import SourceRoutes

__all__ = ["admin"]


def admin(app: App, token: str | None = None) -> Starlette:
    """The admin application. With a `token`, every request must carry it as a bearer."""
    program = Program(app)
    secrets = SecretRoutes(app.secrets, program.apply)
    groups = (
        program,
        Events(app),
        Letters(app),
        Destinations(app),
        Connections(app),
        SourceRoutes(app),
        Persons(app),
        JobRoutes(app),
        PushRoutes(app),
        ReplicationRoutes(app),
        secrets,
    )
    routes = [route for group in groups for route in group.routes()]
    return application(routes, token, streams={"/listen": program.listen})
