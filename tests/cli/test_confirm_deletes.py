"""Deletions that the delete guard holds: shown, not resumed by the way, confirmed by their own command."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from towpath.cli.client import Client

from ..app.support import HOOK, SECRET, YAML
from .support import Server, Shell, served

GUARDED = HOOK + "delete_guard: {{share: 0%, count: 2}}\n"


def waits(server: Server, count: int) -> None:
    """Until so many deliveries wait, and the others have ended."""
    deadline = time.monotonic() + 30
    while (row := Client(server.file).get("/balance")[0])["waiting"] != count or not row["accepted"]:
        assert time.monotonic() < deadline, row
        time.sleep(0.02)


def held(server: Server) -> None:
    """Until the guard's pause is kept."""
    deadline = time.monotonic() + 30
    while not Client(server.file).get("/status")["pauses"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def delete(shell: Shell, *people: str) -> None:
    lines = "".join(f'{{"type":"delete","userId":"{one}","messageId":"d-{one}"}}\n' for one in people)
    assert shell("send", "-", stdin=lines).code == 0


@pytest.mark.spec("D14")
def test_deletions_too_many_are_shown_and_confirmed(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, GUARDED) as server:
        delete(shell, "u1", "u2", "u3", "u4")
        held(server)
        waits(server, 2)
        for said in (shell("status"), shell("destinations", "list")):
            assert "towpath connections confirm-deletes hook" in " ".join(said.out.split())
        resumed = shell("destinations", "resume", "hook", "--json").json()
        assert resumed == {"resumed": ["hook"], "deletions_wait": ["hook"]}
        refused = shell("connections", "confirm-deletes", "hook")
        assert (refused.code, "2 people were deleted" in refused.err) == (2, True)
        assert "2 or more wait" in refused.err
        waits(server, 2)
        done = shell("connections", "confirm-deletes", "hook", "--yes", "--json")
        assert done.json() == {"confirmed": "hook"}
        waits(server, 0)
        again = shell("connections", "confirm-deletes", "hook", "--yes")
        assert (again.code, "no deletion waits" in again.err) == (1, True)


@pytest.mark.spec("D14")
def test_deletions_are_confirmed_while_no_server_runs(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, GUARDED) as server:
        delete(shell, "u1", "u2", "u3", "u4")
        held(server)
        waits(server, 2)
    assert shell("destinations", "resume", "hook", "--json").json()["deletions_wait"] == ["hook"]
    done = shell("connections", "confirm-deletes", "hook", "--yes", "--json")
    assert done.json() == {"confirmed": "hook"}
    with served(tmp_path, GUARDED) as server:
        waits(server, 0)


@pytest.mark.spec("D14")
def test_deletions_are_discarded(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, GUARDED) as server:
        delete(shell, "u1", "u2", "u3", "u4")
        held(server)
        waits(server, 2)
        done = shell("connections", "discard-deletes", "hook", "--yes", "--json")
        assert done.json() == {"discarded": "hook"}
        waits(server, 0)
        assert Client(server.file).get("/balance")[0]["skipped"] == {"discarded": 2}


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ("{share: 120%}", "delete_guard.share is not a share"),
        ("{count: -1}", "delete_guard.count"),
        ("{counts: 1}", 'unknown key "counts"'),
        ("on and off", "delete_guard must hold keys and values"),
    ],
)
def test_a_wrong_guard_is_explained(shell: Shell, tmp_path: Path, guard: str, said: str) -> None:
    text = YAML.format(key="k", api_key="a", kustomer="http://127.0.0.1:9", rate=60, secret=SECRET)
    (tmp_path / "towpath.yaml").write_text(f"{text}delete_guard: {guard}\n")
    found = shell("validate")
    assert (found.code, said in found.err) == (2, True), found.err
