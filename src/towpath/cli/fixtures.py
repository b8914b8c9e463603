"""`towpath test`: run fixtures, and show what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import FAILURE, WrongUse, say, show_json

if TYPE_CHECKING:
    from ..fixtures import Result


def test(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Fixture files; by default tests/*.yaml beside the configuration."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    update: Annotated[bool, typer.Option("--update", help="Write what came out into the cases.")] = False,
    json: JsonOption = False,
) -> None:
    """Run fixtures: messages in, what would be sent out. Needs no server, no network and no secrets.

    Example:  towpath test tests/orders.yaml
    """
    from .. import fixtures

    wanted = list(files or fixtures.found(config))
    if not wanted:
        place = config.absolute().parent / "tests"
        raise WrongUse(
            f"there are no fixtures in {place}", code="E4404", fix="write one: docs/mapping.md shows how"
        )
    if absent := [str(file) for file in wanted if not file.is_file()]:
        raise WrongUse(
            f"there is no file {', '.join(absent)}", code="E2401",
            fix="name fixture files, or none for tests/*.yaml beside the configuration",
            data="No case was run.",
        )  # fmt: skip
    results = {file: asyncio.run(fixtures.run(file, config)) for file in wanted}
    updated = sum(fixtures.update(file, each) for file, each in results.items()) if update else 0
    every = [result for each in results.values() for result in each]
    failed = sum(not result.passed for result in every)
    if json:
        cases = [_as_json(result) for result in every]
        show_json({"passed": len(every) - failed, "failed": failed, "updated": updated, "cases": cases})
    else:
        _show(results, updated)
    if failed and not update:
        raise typer.Exit(FAILURE)


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "file": result.file,
        "name": result.name,
        "connection": result.connection,
        "passed": result.passed,
        "differences": list(result.differences),
        "got": list(result.got),
    }


def _show(results: dict[Path, list[Result]], updated: int) -> None:
    every: Sequence[Result] = [result for each in results.values() for result in each]
    for file, cases in results.items():
        say(str(file))
        for case in cases:
            say(f"  {'✓' if case.passed else '✗'} {case.name}")
            for difference in case.differences:
                say(f"      {difference}")
    failed = sum(not result.passed for result in every)
    said = f", {updated} updated" if updated else ""
    say(f"{len(every) - failed} passed, {failed} failed{said}")
