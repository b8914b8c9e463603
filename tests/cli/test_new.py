"""`towpath new destination`: what it writes works as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .support import Shell


@pytest.mark.parametrize("more", [(), ("--batch",)], ids=["one by one", "batch"])
def test_a_new_destination_meets_the_contract_at_once(shell: Shell, more: tuple[str, ...]) -> None:
    made = shell("new", "destination", "help_desk", *more, "--json").json()
    assert made == {
        "file": "destinations/help_desk.py",
        "tests": "destinations/test_help_desk.py",
        "type": "help_desk",
    }
    # In a process and a project of its own, whose pytest has no settings.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", made["tests"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", made["file"], made["tests"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert ("deliver_batch" in Path(made["file"]).read_text("utf-8")) is bool(more)


def test_in_a_checkout_it_goes_where_the_built_in_ones_are(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "hub/src/towpath/destinations").mkdir(parents=True)
    said = shell("new", "destination", "helpdesk", "--directory", str(tmp_path / "hub"))
    assert said.code == 0
    made = tmp_path / "hub/src/towpath/destinations/helpdesk.py"
    assert 'name = "helpdesk"' in made.read_text("utf-8")
    tests = tmp_path / "hub/tests/destinations/test_helpdesk.py"
    assert "from towpath.destinations.helpdesk import Helpdesk\n" in tests.read_text("utf-8")
    assert "type: helpdesk" in said.out


def test_nothing_is_overwritten(shell: Shell) -> None:
    assert shell("new", "destination", "helpdesk").code == 0
    Path("destinations/helpdesk.py").unlink()
    again = shell("new", "destination", "helpdesk")
    assert again.code == 1
    assert "test_helpdesk.py exists already" in again.err
    assert not Path("destinations/helpdesk.py").exists()


@pytest.mark.parametrize("name", ["Helpdesk", "2fa", "help-desk", "class", "../x", "", "kustomer"])
def test_a_name_that_cannot_be_one(shell: Shell, name: str) -> None:
    said = shell("new", "destination", name)
    assert said.code == 1
    assert "E2304" in said.err
    assert not Path("destinations").exists()
