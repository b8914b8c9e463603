"""Commands that run or describe the program: run, dev, init, validate, schema, version."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from .client import load_config
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import show_json


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the server: take events in, keep them, deliver them."""
    from ..serve import Serving, serve

    loaded = load_config(config)
    _log()

    def ready(serving: Serving) -> None:
        typer.echo(f"towpath {__version__}   data {loaded.storage}   fsync before every 200")
        typer.echo(f"  events  http://{serving.address}")
        typer.echo(f"  admin   {loaded.socket}")

    start(serve(loaded, lambda: load_config(config), ready))


def dev(
    demo: Annotated[
        bool, typer.Option("--demo", help="Run the whole journey once and end with its balance.")
    ] = False,
    listen: Annotated[str, typer.Option(help="Where events come in.")] = "127.0.0.1:8080",
    data: Annotated[Path, typer.Option(help="The sandbox's data directory.")] = Path(".towpath"),
    json: JsonOption = False,
) -> None:
    """Run server, simulated vendors and sample traffic; no account is needed."""
    from .sandbox import run_demo, run_dev

    _log(level=logging.ERROR)
    if demo:
        raise typer.Exit(start(run_demo(data / "demo", as_json=json)))
    start(run_dev(data / "dev", listen))


def start(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _log(level: int = logging.INFO) -> None:
    """Log for people on a terminal, as JSON lines elsewhere."""
    import structlog

    shown: Any = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, shown],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
    template: Annotated[str, typer.Option(help="Which start: kustomer or webhook.")] = "kustomer",
) -> None:
    """Write a commented towpath.yaml to begin with."""
    from ..scaffold import init as write

    for made in write(directory, template):
        typer.echo(f"wrote {made}")


def validate(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check a configuration: every error at once, with line and fix."""
    loaded = load_config(config)
    summary = {
        "file": str(config),
        "sources": sorted(loaded.sources),
        "destinations": sorted(loaded.destinations),
        "connections": [entry.name for entry in loaded.connections],
    }
    if json:
        show_json({"valid": True, **summary})
        return
    typer.echo(f"{config} is valid: {len(loaded.sources)} sources, {len(loaded.destinations)} destinations, ")
    typer.echo(f"  connections: {', '.join(summary['connections']) or 'none'}")


def schema(json: JsonOption = False) -> None:
    """Print the JSON Schema of towpath.yaml, for editors."""
    from ..config import schema as whole

    _ = json  # it is JSON either way
    show_json(whole())


def version(json: JsonOption = False) -> None:
    """Print the version."""
    if json:
        show_json({"version": __version__, "python": sys.version.split()[0]})
        return
    typer.echo(f"towpath {__version__}")
