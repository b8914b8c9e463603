"""Google's emulators for the tests of this folder, started at the first test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..sdks.npm import Unavailable
from . import emulators


@pytest.fixture(scope="session")
def firestore_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the host and port of Firestore's emulator."""
    try:
        with emulators.firestore(tmp_path_factory.mktemp("firestore")) as at:
            yield at
    except Unavailable as error:
        pytest.skip(f"FIRESTORE'S EMULATOR WAS NOT TESTED AGAINST: {error}")


@pytest.fixture(scope="session")
def auth_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the host and port of the Auth emulator."""
    try:
        with emulators.auth(tmp_path_factory.mktemp("auth")) as at:
            yield at
    except Unavailable as error:
        pytest.skip(f"THE AUTH EMULATOR WAS NOT TESTED AGAINST: {error}")
