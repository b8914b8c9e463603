"""Fixtures of the SDK tests: one towpath process, one Node tree and one browser for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from . import chromium, npm
from .shop import Shop, site
from .support import Front, Towpath, fronted, towpath


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Towpath]:
    """Return the running hub; each test takes sources of its own from it."""
    with towpath(tmp_path_factory.mktemp("sdks")) as running:
        yield running


@pytest.fixture
async def front(hub: Towpath) -> AsyncIterator[Front]:
    """Return a front before the hub, for one test."""
    async with fronted(hub) as opened:
        yield opened


@pytest.fixture(scope="session")
def modules() -> Callable[[], Path]:
    """Return how to find the npm packages; tests that ask are skipped where they cannot be had."""

    def place() -> Path:
        try:
            return npm.installed()
        except npm.Unavailable as error:
            pytest.skip(f"THE NODE AND BROWSER SDKS WERE NOT TESTED: {error}")

    return place


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, modules: Callable[[], Path]) -> Iterator[str]:
    """Return the address of the running browser; one for all tests, with a clean profile for each."""
    modules()
    try:
        with chromium.chromium(tmp_path_factory.mktemp("chromium")) as address:
            yield address
    except npm.Unavailable as error:
        pytest.skip(f"THE BROWSER SDKS WERE NOT TESTED: {error}")


@pytest.fixture
async def shop(hub: Towpath, front: Front, browser: str, modules: Callable[[], Path]) -> AsyncIterator[Shop]:
    """Return a page of a site at an origin of its own, for one test."""
    async with site(modules()) as url, chromium.page(browser) as page:
        yield Shop(hub, front, page, url)
