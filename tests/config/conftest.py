from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from towpath.config import Config, ConfigError, parse

from .kinds import DESTINATIONS, SOURCES

Read = Callable[..., Config]
Refuse = Callable[..., ConfigError]


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.config.loading.destinations_beside", lambda _: DESTINATIONS)
    monkeypatch.setattr("towpath.config.entries.sources", lambda: SOURCES)


@pytest.fixture
def read(kinds: None, tmp_path: Path) -> Read:
    """Parse a text as tmp_path/towpath.yaml, with only the variables and secrets given."""

    def reading(text: str, secrets: Mapping[str, str] | None = None, **env: str) -> Config:
        source = None if secrets is None else (lambda storage: secrets)
        return parse(text, tmp_path / "towpath.yaml", env, source)

    return reading


@pytest.fixture
def refused(read: Read) -> Refuse:
    def refusing(text: str, secrets: Mapping[str, str] | None = None, **env: str) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            read(text, secrets, **env)
        return caught.value

    return refusing
