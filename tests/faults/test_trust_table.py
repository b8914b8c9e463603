"""The table of docs/trust.md: made of rows, one for each fault, each of a scenario that exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tools.trust import PAGE, merged, read

ROOT = Path(__file__).parents[2]
HEAD = "| fault | injected | measured | target | command |\n|---|---|---|---|---|\n"
EMPTY = f"# Title\n\n{HEAD}\n## After\n\ntext\n"


def report(directory: Path, *rows: tuple[str, str, bool]) -> Path:
    """Write rows of fault, measure and whether the target was held."""
    file = directory / "trust.jsonl"
    common = {"target": "0", "command": "pytest x", "injected": "a|b"}
    lines = [
        json.dumps({**common, "fault": fault, "measured": measured, "held": held})
        for fault, measured, held in rows
    ]
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_the_last_run_of_a_fault_counts_and_a_missed_target_is_said(tmp_path: Path) -> None:
    first = merged(EMPTY, read(report(tmp_path, ("kill", "1 lost", False), ("cut", "0 lost", True))))
    assert first.splitlines()[4:7] == [
        "| kill | a\\|b | 1 lost **missed** | 0 | `pytest x` |",
        "| cut | a\\|b | 0 lost | 0 | `pytest x` |",
        "",
    ]
    second = merged(first, read(report(tmp_path, ("kill", "2 lost", False), ("kill", "none", True))))
    assert second.splitlines()[4:6] == [
        "| kill | a\\|b | none | 0 | `pytest x` |",
        "| cut | a\\|b | 0 lost | 0 | `pytest x` |",
    ]
    assert second.endswith("\n\n## After\n\ntext\n")


def test_every_command_of_the_page_names_a_scenario_and_every_scenario_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:FAULTS=full )?pytest (tests/faults/test_\w+\.py)`", text))
    scenarios = {
        str(path.relative_to(ROOT))
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__) and "scenario(" in path.read_text(encoding="utf-8")
    }
    assert named == scenarios
