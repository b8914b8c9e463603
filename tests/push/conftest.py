"""The fixtures of tests that send: a rig with the campaigns of the test's own module, and virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .rig import Rig, inline

__all__ = ["inline"]


@pytest.fixture
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """A project whose campaigns are the module's `CAMPAIGNS`."""
    made = await Rig(tmp_path, campaigns=request.module.CAMPAIGNS).begin()
    try:
        yield made
    finally:
        await made.close()
