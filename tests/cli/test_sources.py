"""What a removed source remembers: said at the start, dropped by a command, kept while it is configured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from towpath.state import State
from towpath.state.known import Fact

from ..app.support import HOOK
from .support import Shell, served


def remember(directory: Path, source: str, *keys: str) -> None:
    """Have a source remember these keys, as one that was removed since did."""
    state = State.open(directory / "data")
    state.facts(source).keep({key: Fact(b"x") for key in keys}, turn=1)
    state.close()


@pytest.mark.spec("D19")
def test_what_a_removed_source_remembers_is_dropped(shell: Shell, tmp_path: Path) -> None:
    remember(tmp_path, "old", "u/ann", "u/bob")
    remember(tmp_path, "older", "u/cid")
    with served(tmp_path, HOOK) as server:
        unasked = shell("sources", "drop", "old")
        assert unasked.code == 2
        done = shell("sources", "drop", "old", "--yes", "--json")
        assert msgspec.json.decode(done.out) == {"dropped": "old", "forgotten": 2}
        again = shell("sources", "drop", "old", "--yes")
        assert (again.code, "those that do: older" in " ".join(again.err.split())) == (1, True)
        assert server.running.app.state.remembering() == ["older"]


@pytest.mark.spec("D19", "D14")
def test_one_that_is_configured_keeps_what_it_remembers(shell: Shell, tmp_path: Path) -> None:
    remember(tmp_path, "web", "u/ann")
    with served(tmp_path, HOOK) as server:
        refused = shell("sources", "drop", "web", "--yes")
        assert refused.code == 1
        assert "take it out of the configuration first" in " ".join(refused.err.split())
        assert server.running.app.state.remembering() == ["web"]
