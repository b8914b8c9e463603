"""The fixed documents beside the event calls: health, version, robots and the API's description."""

from __future__ import annotations

from importlib import resources

from .. import __version__
from . import answers
from .answers import JSON, TEXT, Answer

_HEALTH = answers.json({"status": "ok"})

FIXED: dict[str, Answer] = {
    "/": _HEALTH,
    "/health": _HEALTH,
    "/version": answers.json({"name": "towpath", "version": __version__}),
    "/robots.txt": Answer(200, b"User-agent: *\nDisallow: /\n", (TEXT,)),
    "/openapi.json": Answer(200, resources.files(__package__).joinpath("openapi.json").read_bytes(), (JSON,)),
}
