"""A site with an SDK on its pages, at another origin than towpath, and a visitor's tab on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from .chromium import Page
from .support import Front, Source, Towpath, listening

HERE = Path(__file__).parent
CART = "/cart?utm_source=news"
SEGMENT = "@segment/analytics-next/dist/umd/index.js"
RUDDER = "@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js"
_HTML = '<!doctype html><title>Shop</title><link rel="icon" href="data:,"><script src="/page.js"></script>'


@asynccontextmanager
async def site(modules: Path) -> AsyncIterator[str]:
    """Serve the site; gives its origin."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=_HTML, content_type="text/html")

    files = {"/page.js": HERE / "page.js", "/segment.js": modules / SEGMENT, "/rudder.js": modules / RUDDER}
    async with listening(page, *((path, _file(file)) for path, file in files.items())) as origin:
        yield origin


def _file(file: Path) -> Any:
    async def serve(request: web.Request) -> web.FileResponse:
        return web.FileResponse(file, headers={"Content-Type": "text/javascript; charset=utf-8"})

    return serve


class Shop(NamedTuple):
    """One visitor's tab on the site; events go by the front."""

    hub: Towpath
    front: Front
    page: Page
    url: str

    async def visit(self, sdk: str, source: Source, path: str = CART, **options: Any) -> None:
        """Open a page and start the SDK on it, as `analytics`."""
        await self.page.open(self.url + path)
        await self.page.run(
            "await start[sdk](key, url, options)",
            sdk=sdk,
            key=source.key,
            url=self.front.url,
            options=options,
        )

    async def say(self, script: str, **values: Any) -> Any:
        """Run calls of the page's `analytics`; what the script returns."""
        return await self.page.run(script, **values)

    async def leave(self) -> None:
        """Go away from the page, as by a link."""
        await self.page.open(self.url + "/elsewhere")
