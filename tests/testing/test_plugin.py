"""The plugin and the package load nothing heavy until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import towpath.testing
from towpath.testing import FakeClock, FakeMemory, FakeTransport


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_needs_no_pytest_until_the_contract_is_used() -> None:
    loaded = modules_after("from towpath.testing import FakeTransport")
    assert "pytest" not in loaded
    assert "towpath.testing.fakes" in loaded
    assert "pytest" in modules_after("from towpath.testing import DestinationContract")


def test_the_plugin_loads_no_fake_and_no_transport() -> None:
    loaded = modules_after("import towpath.testing.plugin")
    assert not {"towpath.testing.fakes", "towpath.transport", "pyreqwest", "hypothesis"} & loaded


def test_every_public_name_is_there() -> None:
    assert all(getattr(towpath.testing, name).__name__ == name for name in towpath.testing.__all__)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="FakeNothing"):
        _ = towpath.testing.FakeNothing


async def test_the_fixtures_share_one_clock(
    fake_clock: FakeClock, fake_memory: FakeMemory, fake_transport: FakeTransport
) -> None:
    fake_memory.keep("a", "1", 5)
    await fake_clock.advance(5)
    assert fake_memory.find("a") is None
    assert fake_transport.requests == []
