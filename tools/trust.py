"""The table of docs/trust.md from the rows of fault runs: `python -m tools.trust build/trust.jsonl`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

PAGE = Path(__file__).parent.parent / "docs" / "trust.md"
COLUMNS = ("fault", "injected", "measured", "target", "command")
HEAD = (f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|---|")


class Row(msgspec.Struct):
    """What one scenario wrote to the file that TRUST_REPORT names; `held` says whether the target was met."""

    fault: str
    target: str
    command: str
    injected: str
    measured: str
    held: bool

    def line(self) -> str:
        """One line of the table."""
        measured = self.measured if self.held else f"{self.measured} **missed**".strip()
        cells = (self.fault, self.injected, measured, self.target, f"`{self.command}`")
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def read(report: Path) -> dict[str, str]:
    """Fault → its line; of several runs of one fault the last counts."""
    rows = [msgspec.json.decode(line, type=Row) for line in report.read_bytes().splitlines()]
    return {row.fault: row.line() for row in rows}


def merged(page: str, fresh: Mapping[str, str]) -> str:
    """The page with these lines in its table: in the place of the same fault's, else at the end."""
    before, table, after = _parts(page)
    known = {line.split(" | ")[0].removeprefix("| "): line for line in table}
    return "\n".join([*before, *HEAD, *{**known, **fresh}.values(), *after]) + "\n"


def _parts(page: str) -> tuple[list[str], list[str], list[str]]:
    """The lines before the table, its rows, and what follows. Raises `ValueError` without a table."""
    lines = page.splitlines()
    start = lines.index(HEAD[0])
    end = next(_beyond(lines, start))
    return lines[:start], lines[start + len(HEAD) : end], lines[end:]


def _beyond(lines: list[str], start: int) -> Iterator[int]:
    """The lines after `start` that belong to no table."""
    yield from (index for index in range(start, len(lines)) if not lines[index].startswith("|"))
    yield len(lines)


def main(report: str) -> None:
    """Rewrite the page."""
    PAGE.write_text(merged(PAGE.read_text(encoding="utf-8"), read(Path(report))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
