"""The page about replication and its example say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from towpath.cli.replicate import replicate
from towpath.config import parse
from towpath.replicate.models import MODELS
from towpath.replicate.names import canonical

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "replication.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLE = (ROOT / "examples" / "replication" / "towpath.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", [*BLOCKS, EXAMPLE], ids=range(len(BLOCKS) + 1))
def test_configurations_load_and_their_tables_are_known(block: str, tmp_path: Path) -> None:
    text = block if block.startswith(("version:", "#")) else f"version: 1\n{block}"
    secrets = {
        name: "postgresql://user:password@host/database" if name.endswith("_url") else f"secret-called-{name}"
        for name in re.findall(r"\$\{secret:(\w+)\}", text)
    }
    config = parse(text, tmp_path / "towpath.yaml", {}, lambda _: secrets)
    (entry,) = config.replications.values()
    chosen = tuple(entry.settings.chosen())
    assert canonical(chosen).names == chosen


def test_every_command_and_every_view_is_told_of() -> None:
    commands = getattr(typer.main.get_command(replicate), "commands", {})
    assert [name for name in commands if f"towpath replicate {name}" not in PAGE] == []
    assert [name for name in MODELS if f"`{name}`" not in PAGE] == []


@pytest.mark.spec("R001", "R003")
def test_where_the_key_is_found_and_that_no_gateway_is_needed() -> None:
    assert "Account Settings, API Credentials, App API Keys" in PAGE
    assert "**Data gateway**: there is none" in PAGE
