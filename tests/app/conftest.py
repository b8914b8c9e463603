"""The key file of the tests' secrets lies beside them, never in the user's home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog


@pytest.fixture(autouse=True)
def key_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path_factory.mktemp("key") / "key"
    monkeypatch.delenv("TOWPATH_KEY", raising=False)
    monkeypatch.setenv("TOWPATH_KEY_FILE", str(file))
    return file


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Leave no configuration of the log behind."""
    yield
    structlog.reset_defaults()
