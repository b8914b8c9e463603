"""The command line: `towpath COMMAND`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from ..errors import TowpathError
from . import (
    connect,
    connect_fcm,
    data,
    firebase,
    fixtures,
    imports,
    jobs,
    new,
    operate,
    program,
    push,
    replicate,
    sources,
    traffic,
)
from .output import WrongUse, fail

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
    program.reload,
    operate.status,
    traffic.send,
    traffic.trigger,
    traffic.listen,
    traffic.preview,
    fixtures.test,
    program.schema,
    program.version,
)
for command in COMMANDS:
    app.command()(command)
for group, name in (
    (data.events, "events"),
    (data.deliveries, "deliveries"),
    (data.dlq, "dlq"),
    (data.people, "people"),
    (operate.destinations, "destinations"),
    (operate.connections, "connections"),
    (operate.connectors, "connectors"),
    (sources.sources, "sources"),
    (operate.secrets, "secrets"),
    (operate.audit, "audit"),
    (jobs.jobs, "jobs"),
    (firebase.firebase, "firebase"),
    (push.push, "push"),
    (replicate.replicate, "replicate"),
    (new.new, "new"),
    (imports.imports, "import"),
):
    app.add_typer(group, name=name)
connect.install.command("fcm")(connect_fcm.install_fcm)
operate.connectors.add_typer(connect.install, name="install")
operate.connectors.add_typer(connect.install, name="connect", hidden=True)


def main() -> None:
    """Run the command line; an error is printed with its fix, never as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character must not end a command
    sys.exit(_flushed(_run()))


def _run() -> int:
    try:
        # What is wrong with the words themselves is shown to people by typer, to programs by us.
        code = app(standalone_mode="--json" not in sys.argv)
        return code if isinstance(code, int) else 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except TowpathError as error:
        return _said(error)
    except KeyboardInterrupt:
        return 130
    except (BrokenPipeError, typer.Abort):
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):
            return _said(_misused(error))
        if os.environ.get("TOWPATH_DEBUG"):
            raise
        return _said(_unforeseen(error))


def _said(error: TowpathError) -> int:
    try:
        return fail(error, as_json="--json" in sys.argv)
    except BrokenPipeError:
        return 1


def _misused(error: Any) -> WrongUse:
    """An error of typer's: a missing argument, a word that is no command or no number."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "towpath"
    about = error.format_message() or "this command needs more words"
    return WrongUse(about, code="E5034", fix=f"{command} --help", data="Nothing was done.")


def _unforeseen(error: Exception) -> TowpathError:
    if isinstance(error, OSError):
        about = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        fix = "check the path, its owner and the free space"
        return TowpathError(about, code="E1002", fix=fix, data="What was accepted before is on disk.")
    return TowpathError(
        f"this failed inside towpath: {type(error).__name__}: {error}",
        code="E1001",
        why="a mistake of towpath's",
        fix="run it again with TOWPATH_DEBUG=1 and report what it shows",
        data="What was accepted before is on disk.",
    )


def _flushed(code: int) -> int:
    """Flush standard output; a reader that went away is no reason for a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code
