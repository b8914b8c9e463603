"""Every snippet of docs/clients.md, run as it stands: what it says it sends is kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .npm import NODE
from .shop import Shop
from .support import Source, Towpath

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
_BLOCK = re.compile(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```(sh|python|js)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS: dict[str, tuple[str, str]] = {name: (word, code) for name, word, code in _BLOCK.findall(PAGE)}
GLOBALS = {"@segment/analytics-next": "AnalyticsNext", "@rudderstack/analytics-js/bundled": "rudderanalytics"}
ON_PAGE = [name for name in SNIPPETS if name.endswith("browser")]
IN_SHELL = [name for name in SNIPPETS if name not in ON_PAGE]


def snippet(name: str, source: Source, url: str) -> str:
    """The code of a section, with the running hub's address and a key of the test's own."""
    code = SNIPPETS[name][1]
    assert "http://127.0.0.1:8080" in code
    assert "wk_demo" in code
    return code.replace("http://127.0.0.1:8080", url).replace("wk_demo", source.key)


def said(source: Source) -> list[tuple[str, str | None]]:
    return [(line["type"], line["event"]) for line in source.lines()]


@pytest.mark.spec("E039")
def test_every_sdk_has_a_snippet() -> None:
    assert (len(IN_SHELL), len(ON_PAGE)) == (5, 2)
    assert {language for language, _ in SNIPPETS.values()} == {"sh", "python", "js"}


@pytest.mark.spec("E039")
@pytest.mark.parametrize("name", IN_SHELL)
async def test_a_snippet_for_servers(hub: Towpath, modules: Callable[[], Path], name: str) -> None:
    source, language = hub.source("server"), SNIPPETS[name][0]
    ways = {"sh": ["sh", "-c"], "python": [sys.executable, "-c"], "js": [str(NODE), "-e"]}
    if language == "sh" and not shutil.which("curl"):
        pytest.skip("THE CURL LINE OF docs/clients.md WAS NOT TESTED: there is no curl here")
    env = {**os.environ, "NODE_PATH": str(modules())} if language == "js" else dict(os.environ)
    process = await asyncio.create_subprocess_exec(*ways[language], snippet(name, source, hub.url), env=env)
    assert await asyncio.wait_for(process.wait(), 60) == 0
    bought = [("track", "Order Completed")]
    assert said(source) == (bought if language == "sh" else [("identify", None), *bought])


@pytest.mark.spec("E039")
@pytest.mark.xdist_group("chromium")
@pytest.mark.parametrize("name", ON_PAGE)
async def test_a_snippet_for_pages(shop: Shop, name: str) -> None:
    source = shop.hub.source("web")
    code = snippet(name, source, shop.front.url)
    imported = re.search(r'import (\{ \w+ \}) from "([^"]+)";', code)
    assert imported, "a bundler would find the package; the page has it as a global"
    file = "/segment.js" if "segment" in imported[2] else "/rudder.js"
    code = code.replace(imported[0], f"await script('{file}'); const {imported[1]} = {GLOBALS[imported[2]]};")
    await shop.page.open(shop.url)
    # Comments end at a line's end, so the code goes on lines of its own.
    await shop.say(f"\n{code}\nwindow.analytics = analytics;\n")
    await source.until_kept(2)
    assert said(source) == [("identify", None), ("track", "Order Completed")]
