"""The options that every command shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--config", "-c", envvar="TOWPATH_CONFIG", help="The configuration file.", show_default=True
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LimitOption: TypeAlias = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most this many.")
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

DEFAULT_CONFIG = Path("towpath.yaml")
