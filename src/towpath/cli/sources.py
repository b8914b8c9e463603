"""Commands for sources that the configuration no longer has."""

from __future__ import annotations

from typing import Annotated

import typer

from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption
from .output import confirm, show_fields

sources = typer.Typer(no_args_is_help=True, help="What removed sources remember: drop it.")


@sources.callback()
def group() -> None:
    """What removed sources remember: drop it."""


@sources.command("drop")
def drop_source(
    name: Annotated[str, typer.Argument(help="A source that the configuration no longer has.")],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Forget what a removed source remembers of people, to compare with; the log is not touched.

    Example:  towpath sources drop firebase
    """
    confirm(f"Forget everything that the source {name} remembers?", yes=yes)
    show_fields(Client(config).call("DELETE", path("sources", name)), as_json=json)
