"""docs/cli.md and the help are what the commands say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from towpath.cli.reference import commands, reference

from .support import Shell

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"
PROMISED = {
    *("dev", "init", "run", "validate", "reload", "status", "send", "trigger", "listen", "preview"),
    *("schema", "version", "audit balance", "test", "new destination"),
    *(f"events {word}" for word in ("list", "show", "trace")),
    *(f"deliveries {word}" for word in ("list", "show", "retry")),
    *(f"dlq {word}" for word in ("list", "show", "replay", "drop")),
    *(f"destinations {word}" for word in ("list", "test", "pause", "resume")),
    *(f"people {word}" for word in ("show", "erase", "suppress", "unsuppress")),
    *(f"secrets {word}" for word in ("set", "list", "delete", "rekey")),
    *(f"connections {word}" for word in ("list", "drop", "confirm-deletes", "discard-deletes")),
    "sources drop",
    *(f"connectors {word}" for word in ("list", "show", "test", "install customerio", "install firebase")),
    *(f"firebase {word}" for word in ("backfill", "reconcile")),
    "import firebase-extension",
    *(f"jobs {word}" for word in ("list", "show", "run", "retry", "cancel", "pause", "resume", "logs")),
    *("push status", "push send", "connectors install fcm"),
    *(f"push devices {word}" for word in ("list", "show", "prune", "export", "import")),
    *(f"push campaigns {word}" for word in ("list", "show", "pause", "resume", "cancel")),
    *(f"replicate {word}" for word in ("discover", "plan", "run", "backfill", "status", "reset")),
    *(f"replicate {word}" for word in ("import-state", "models", "state show", "state set")),
}
LEAVES = {name: command for name, command in commands() if name and not hasattr(command, "commands")}


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == reference(), "python -m towpath.cli.reference > docs/cli.md"


def test_every_promised_command_exists() -> None:
    assert set(LEAVES) == PROMISED


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_every_command_speaks_json_and_says_what_it_does(name: str) -> None:
    command = LEAVES[name]
    options = {spelled for parameter in command.params for spelled in parameter.opts}
    assert "--json" in options
    assert ("--config" in options) is (name not in ("dev", "init", "schema", "version", "new destination"))
    first = (command.help or "").splitlines()[0]
    assert first.endswith((".", "?"))
    assert len(first) <= 110
    assert all(parameter.help for parameter in command.params)


def test_the_help_lists_every_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "120")
    said = shell("--help")
    assert said.code == 0
    words = set(re.findall(r"[a-z]+", said.out))
    assert {name.split()[0] for name in PROMISED} <= words
