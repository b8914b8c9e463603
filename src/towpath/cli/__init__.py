"""The command line: `towpath COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from ..errors import TowpathError
from . import data, operate, program, traffic
from .output import fail

app = typer.Typer(
    name="towpath",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="A self-hosted customer-data hub: events in, kept, delivered in order.",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    program.dev,
    program.init,
    program.run,
    program.validate,
    program.schema,
    program.version,
    traffic.send,
    traffic.trigger,
    traffic.listen,
    traffic.preview,
    operate.status,
)
for command in COMMANDS:
    app.command()(command)
for group, name in (
    (data.events, "events"),
    (data.deliveries, "deliveries"),
    (data.dlq, "dlq"),
    (data.people, "people"),
    (operate.destinations, "destinations"),
    (operate.connectors, "connectors"),
    (operate.secrets, "secrets"),
    (operate.audit, "audit"),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line; a towpath error is printed with its fix, never as a traceback."""
    try:
        app()
    except TowpathError as error:
        try:
            fail(error, as_json="--json" in sys.argv)
        except typer.Exit as leaving:
            sys.exit(leaving.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
