"""`towpath new destination`: one file and one test file to begin a destination with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption
from .output import say, show_json

new = typer.Typer(help="Begin something of your own: a destination.", no_args_is_help=True)
new.callback()(lambda: None)  # a group, also while it has one command


@new.command()
def destination(
    name: Annotated[str, typer.Argument(help="Its type in towpath.yaml: lower case, like helpdesk.")],
    directory: Annotated[
        Path, typer.Option(help="A checkout of towpath, or where your towpath.yaml is.")
    ] = Path(),
    batch: Annotated[
        bool, typer.Option("--batch", help="For a vendor that takes many items in one call.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a destination that works and its tests: one file each, and nothing else to edit.

    In a checkout of towpath they go where the built-in ones are; elsewhere into the folder `destinations`
    beside towpath.yaml, where the server finds them.

    Example:  towpath new destination helpdesk
    """
    from ..scaffold import destination as write

    written = write(directory, name, batch=batch)
    if json:
        show_json({"file": str(written.file), "tests": str(written.tests), "type": written.type})
        return
    say(f"wrote {written.file}")
    say(f"wrote {written.tests}")
    say(f"test it:   python -m pytest {written.tests}    (pip install 'towpath[testing]')")
    say(f'use it:    destinations: {{{name}: {{type: {name}, token: "${{secret:{name}_token}}"}}}}')
