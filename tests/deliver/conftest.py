"""A stage per test; the test opens and starts it on its own virtual loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest

from .stage import Stage


class MakeStage(Protocol):
    """Makes a stage inside a running virtual loop."""

    def __call__(self, seed: int = 0, **connection: Any) -> Stage: ...


@pytest.fixture
def stage(tmp_path: Path) -> MakeStage:
    def make(seed: int = 0, **connection: Any) -> Stage:
        return Stage(tmp_path / "data", seed, **connection)

    return make
