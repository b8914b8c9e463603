"""Commands about Firebase: import what exists, and compare; jobs of the source under names of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import jobs
from .client import Client
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import WrongUse

firebase = typer.Typer(
    no_args_is_help=True, help="Firebase users and documents: import them, compare them with what is known."
)

SourceOption = Annotated[
    str | None, typer.Option(help="The source, where the configuration has several of this type.")
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", "--collection", help="Only this list: `auth` for users, or a collection's path."),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Count, and take nothing in.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on where the last one ended that failed or was cancelled.")
]
LeaveOption = Annotated[bool, typer.Option("--no-follow", help="Start it and leave; see  towpath jobs.")]


@firebase.command("backfill")
def backfill(
    config: ConfigOption = DEFAULT_CONFIG,
    source: SourceOption = None,
    only: OnlyOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Tell everybody whole again: for a new destination, or a repair.")
    ] = False,
    dry_run: DryOption = False,
    resume: ResumeOption = False,
    no_follow: LeaveOption = False,
    json: JsonOption = False,
) -> None:
    """Import every user and document there is; whatever changes meanwhile wins.

    Example:  towpath firebase backfill --dry-run
    """
    given = _given(only, dry_run=dry_run) | ({"full": True} if full else {})
    _start("backfill", config, source, resume=resume, follow=not no_follow, as_json=json, given=given)


@firebase.command("reconcile")
def reconcile(
    config: ConfigOption = DEFAULT_CONFIG,
    source: SourceOption = None,
    only: OnlyOption = None,
    dry_run: DryOption = False,
    resume: ResumeOption = False,
    believe_empty: Annotated[
        bool, typer.Option("--believe-empty", help="Delete people also where a whole list came back empty.")
    ] = False,
    no_follow: LeaveOption = False,
    json: JsonOption = False,
) -> None:
    """Compare users and documents with what is known: take in what was missed, find what is gone.

    Example:  towpath firebase reconcile --dry-run
    """
    given = _given(only, dry_run=dry_run) | ({"empty": "delete"} if believe_empty else {})
    _start("reconcile", config, source, resume=resume, follow=not no_follow, as_json=json, given=given)


def _given(only: str | None, *, dry_run: bool) -> dict[str, Any]:
    return {**({"only": only} if only else {}), **({"dry_run": True} if dry_run else {})}


def _start(
    poll: str,
    config: Path,
    source: str | None,
    *,
    resume: bool,
    follow: bool,
    as_json: bool,
    given: dict[str, Any],
) -> None:
    name = f"{_source(config, source)}.{poll}"
    if all(row["job"] != name for row in Client(config).get("/jobs")):
        raise WrongUse(
            f"there is no job {name}",
            code="E4409",
            why="a firebase source can be asked only with a service_account (or emulator: true)",
            fix="set its service_account; the sources are listed by  towpath connectors list",
            data="Nothing was started.",
        )
    if resume:
        if given:
            raise WrongUse(
                "--resume goes on with the options of the run it resumes",
                code="E5201",
                fix="leave the other options out",
                data="Nothing was started.",
            )
        return jobs.retry_job(name, config, follow, as_json)
    return jobs.start(config, name, given, follow=follow, as_json=as_json)


def _source(config: Path, wanted: str | None) -> str:
    """The source of this type that is wanted, or the configuration's only one. Raises `WrongUse`."""
    rows = Client(config).get("/connectors")
    names = [row["name"] for row in rows if row["role"] == "source" and row["type"] == "firebase"]
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or str(names[0])
    listed = ", ".join(names)
    if wanted is not None:
        raise WrongUse(
            f"there is no firebase source {wanted!r}",
            code="E4412",
            fix=f"known: {listed or 'none; towpath connectors install firebase'}",
            data="Nothing was started.",
        )
    raise WrongUse(
        f"the configuration has several firebase sources: {listed}"
        if names
        else "there is no firebase source",
        code="E4412",
        fix="name one with --source" if names else "towpath connectors install firebase",
        data="Nothing was started.",
    )
